//! The log of a run, `metrics.jsonl`: one JSON object per line, each with the `step` it was written after.
//!
//! Write every record of a step, call [`MetricsLog::sync`], and only then save that step's checkpoint: then a resumed
//! run finds its log complete up to the checkpoint, cuts off what came after, and ends with the log of a run that never
//! stopped.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::Points;
use crate::error::{Error, Result};
use crate::files::AppendFile;

/// Longest line that counts as a record.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// An open log, to append to.
#[derive(Debug)]
pub struct MetricsLog {
    file: AppendFile,
    /// What the last update that it was opened with was computed on.
    path: Option<String>,
}

impl MetricsLog {
    /// Starts a log; an existing file is emptied.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { file: AppendFile::create(path)?, path: None })
    }

    /// Goes on with a log after update `step`: later records and a torn last line are cut off. A missing file is
    /// started anew.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        let file = AppendFile::open(path)?;
        let (mut keep, mut computed_on) = (0, None);
        for line in Lines::new(file.file(), path) {
            let line = line?;
            if line.record.get("step").and_then(Value::as_u64).is_none_or(|s| s > step) {
                break;
            }
            keep = line.end;
            let named = ["path", "device"].into_iter().find_map(|key| line.record.get(key)?.as_str());
            computed_on = named.map(str::to_owned).or(computed_on);
        }
        file.truncate(keep)?;
        Ok(Self { file, path: computed_on })
    }

    /// What the last update was computed on that the log already held when it was opened: a path of the CPU's kernels, or a
    /// device. `None` where nothing says so.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Appends one record: something that serialises to a JSON object with a whole number `step`. The line is written
    /// in one piece. Numbers that are not finite become `null`, which is all JSON has for them.
    pub fn append(&mut self, record: &impl Serialize) -> Result<()> {
        let unfit = |what: &str| Error::input(format!("{}: a record {what}", self.file.path().display()));
        let value = serde_json::to_value(record).map_err(|e| unfit(&format!("is not JSON: {e}")))?;
        if value.get("step").and_then(Value::as_u64).is_none() {
            return Err(unfit("needs a whole number `step`"));
        }
        self.file.append(format!("{value}\n").as_bytes())
    }

    /// Puts everything appended so far on disk.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync()
    }
}

/// Every record of a log. A torn last line, as a killed process leaves it, is passed over; a bad line before it is an
/// error that names it.
pub fn read_metrics(path: &Path) -> Result<Vec<Map<String, Value>>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    Lines::new(&file, path).map(|line| line.map(|l| l.record)).collect()
}

/// `(x, y)` of every record that has both keys as numbers, in order. A key may be a path: `eval.exact_accuracy`.
pub fn metric_points(records: &[Map<String, Value>], x: &str, y: &str) -> Points {
    let number = |record: &Map<String, Value>, key: &str| {
        let mut parts = key.split('.');
        let first = record.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))?.as_f64()
    };
    records.iter().filter_map(|r| Some((number(r, x)?, number(r, y)?))).collect()
}

/// One whole line and the offset behind it.
struct Line {
    record: Map<String, Value>,
    end: u64,
}

/// The whole lines of a log.
struct Lines<'a> {
    reader: BufReader<&'a File>,
    path: &'a Path,
    number: usize,
    end: u64,
    done: bool,
}

impl<'a> Lines<'a> {
    fn new(file: &'a File, path: &'a Path) -> Self {
        Self { reader: BufReader::new(file), path, number: 0, end: 0, done: false }
    }

    fn read(&mut self) -> Result<Option<Line>> {
        let mut text = Vec::new();
        let got = (&mut self.reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut text);
        let got = got.map_err(|e| Error::io(self.path, e))? as u64;
        self.number += 1;
        if got == 0 {
            return Ok(None);
        }
        self.end += got;
        match serde_json::from_slice(&text) {
            Ok(record) if text.ends_with(b"\n") => Ok(Some(Line { record, end: self.end })),
            // Torn: the file ends inside this line, or (after a loss of power) in bytes that never were a record.
            _ if !text.ends_with(b"\n") && got < MAX_LINE_BYTES => Ok(None),
            _ if self.at_end()? => Ok(None),
            _ => Err(Error::input(format!(
                "{}:{}: not a record (one JSON object per line); remove the line or start a new run",
                self.path.display(),
                self.number
            ))),
        }
    }

    fn at_end(&mut self) -> Result<bool> {
        self.reader.fill_buf().map(<[u8]>::is_empty).map_err(|e| Error::io(self.path, e))
    }
}

impl Iterator for Lines<'_> {
    type Item = Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let line = self.read().transpose();
        self.done = !matches!(line, Some(Ok(_)));
        line
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use std::path::PathBuf;

    use super::*;

    fn log(steps: &[u64], torn: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).expect("create");
        for step in steps {
            log.append(&json!({"step": step, "loss": 1.0 / (*step as f64 + 1.0), "eval": {"exact": 0.5}}))
                .expect("append");
        }
        log.sync().expect("sync");
        log.file.append(torn.as_bytes()).expect("write");
        (dir, path)
    }

    #[test]
    fn a_resumed_log_equals_the_log_of_a_run_that_never_stopped() {
        let (_keep, whole) = log(&[1, 2, 3, 4, 5], "");
        let whole = std::fs::read_to_string(whole).expect("read");
        for torn in ["", "{\"step\":6,\"lo", "{\"step\":6}", "\0\0\0\0", "{\"step\":6,\"x\n"] {
            let (_keep, path) = log(&[1, 2, 3, 4, 5], torn);
            assert_eq!(read_metrics(&path).expect("read").len(), 5, "{torn:?}");
            let mut log = MetricsLog::resume(&path, 3).expect("resume");
            for step in [4u64, 5] {
                log.append(&json!({"step": step, "loss": 1.0 / (step as f64 + 1.0), "eval": {"exact": 0.5}}))
                    .expect("append");
            }
            assert_eq!(std::fs::read_to_string(&path).expect("read"), whole, "{torn:?}");
        }
    }

    #[test]
    fn resuming_a_missing_log_starts_it() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("metrics.jsonl");
        MetricsLog::resume(&path, 7).expect("resume").append(&json!({"step": 8})).expect("append");
        assert_eq!(read_metrics(&path).expect("read").len(), 1);
    }

    #[test]
    fn a_bad_line_in_the_middle_is_named() {
        let (_keep, path) = log(&[1], "nonsense\n{\"step\":2}\n");
        for line in
            [read_metrics(&path).unwrap_err().to_string(), MetricsLog::resume(&path, 9).unwrap_err().to_string()]
        {
            assert!(line.contains("metrics.jsonl:2:"), "{line}");
        }
    }

    #[test]
    fn records_without_a_step_are_refused() {
        let (_keep, path) = log(&[], "");
        let mut log = MetricsLog::create(&path).expect("create");
        assert!(log.append(&json!({"loss": 1})).is_err());
        assert!(log.append(&json!(3)).is_err());
    }

    #[test]
    fn points_are_picked_by_key_or_path() {
        let (_keep, path) = log(&[1, 3], "");
        let records = read_metrics(&path).expect("read");
        assert_eq!(metric_points(&records, "step", "loss"), [(1.0, 0.5), (3.0, 0.25)]);
        assert_eq!(metric_points(&records, "step", "eval.exact"), [(1.0, 0.5), (3.0, 0.5)]);
        assert!(metric_points(&records, "step", "eval.none").is_empty());
    }
}

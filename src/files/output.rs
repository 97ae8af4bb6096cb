//! Files that a command is told to write: nothing there is replaced that it has not written itself.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde_json::Value;

use super::atomic;
use super::lock::LOCK_FILE;
use super::npy::NpyArray;
use crate::error::{Error, Result};

/// Longer lines are no record of predictions.
const LONGEST_LINE: u64 = 1 << 24;

/// What a picture of ours begins with.
pub const PICTURE_MARK: &str = "<!-- drawn by trm -->";

/// A kind of file that commands write where they are told to.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// What it is, with its article.
    pub what: &'static str,
    /// How its name may end, since an ending means a format; empty: as it likes.
    pub endings: &'static [&'static str],
    /// Whether the file there is one of them, which is replaced without being told to; `None`: none is.
    pub is_ours: Option<fn(&Path) -> bool>,
}

/// `trm plot --out`, `trm bench --plot`.
pub const PICTURE: Output = Output { what: "a picture", endings: &["svg"], is_ours: Some(is_picture) };

/// `trm eval --submission`.
pub const SUBMISSION: Output = Output { what: "a submission", endings: &["json"], is_ours: Some(is_submission) };

/// `trm eval --predictions`.
pub const PREDICTIONS: Output =
    Output { what: "a file of predictions", endings: &["jsonl", "npy"], is_ours: Some(is_predictions) };

/// `trm weights import --out`: trained for hours, whoever wrote them.
pub const WEIGHTS: Output = Output { what: "a file of weights", endings: &["safetensors"], is_ours: None };

/// `trm weights import --config-out`: edited by hand, perhaps.
pub const SETTINGS: Output = Output { what: "a file of settings", endings: &["toml"], is_ours: None };

/// `trm weights export --torch`: the published code's have no ending.
pub const TORCH: Output = Output { what: "a PyTorch checkpoint", endings: &[], is_ours: None };

/// Finds out whether a file of that kind may be written to `path`, before the work whose result it is to hold. With `force`, other
/// files are replaced too, but none in a run folder.
///
/// # Errors
/// When the name has another ending, the file there is another's, or nothing can be written there.
pub fn check_output(path: &Path, kind: Output, force: bool) -> Result<()> {
    let fault = |what: String| Err(Error::input(format!("{}: {what}", path.display())));
    if path.is_dir() {
        return fault("is a folder; name a file".into());
    }
    let Output { what, endings, is_ours } = kind;
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if !endings.is_empty() && !endings.contains(&&*ending) {
        let known: Vec<String> = endings.iter().map(|ending| format!(".{ending}")).collect();
        return fault(format!("{what} is written as {}; give a name that ends so", known.join(" or ")));
    }
    let folder = atomic::parent(path);
    if !folder.is_dir() {
        return fault(format!("there is no folder {}", folder.display()));
    }
    let not_ours = is_ours.map_or_else(String::new, |_| format!(", and not {what} of trm's"));
    match fs::metadata(path) {
        Ok(there) if !there.is_file() => return fault("is no plain file; give another name".into()),
        Ok(_) if is_ours.is_some_and(|is_ours| is_ours(path)) => {}
        Ok(_) if is_in_a_run_folder(path) => {
            return fault(format!("is a file of a run folder{not_ours}; give another name"));
        }
        Ok(_) if !force => {
            return fault(format!("is there already{not_ours}; give another name, or --force to replace it"));
        }
        _ => {}
    }
    atomic::check_target(path)
}

/// Whether it lies in a run folder, or in a folder of one. Settings alone make no run.
fn is_in_a_run_folder(path: &Path) -> bool {
    let Ok(path) = fs::canonicalize(path) else { return false };
    let holds = |folder: &Path, name: &str| folder.join(name).exists();
    let is_run =
        |folder: &Path| holds(folder, LOCK_FILE) || holds(folder, "config.toml") && holds(folder, "metrics.jsonl");
    path.ancestors().skip(1).take(2).any(is_run)
}

fn is_picture(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PICTURE_MARK.len() as u64).read_to_end(&mut start));
    read.is_ok() && start == PICTURE_MARK.as_bytes()
}

/// Tasks by name, each a list of attempts (specification, "submission.json").
fn is_submission(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut file = BufReader::new(file);
    // What begins with something else is not read to its end.
    if !file.fill_buf().is_ok_and(|start| start.starts_with(b"{")) {
        return false;
    }
    let Ok(Value::Object(tasks)) = serde_json::from_reader(file) else { return false };
    let is_answered = |task: &Value| {
        let tests = task.as_array();
        tests.is_some_and(|tests| !tests.is_empty() && tests.iter().all(|test| test.get("attempt_1").is_some()))
    };
    !tasks.is_empty() && tasks.values().all(is_answered)
}

/// A line of JSON for each puzzle, or a byte array `[puzzles, steps, tokens]`; no array of a data set has three axes.
fn is_predictions(path: &Path) -> bool {
    if path.extension().is_some_and(|ending| ending == "npy") {
        return NpyArray::open(path, 3).is_ok_and(|array| array.has_rows());
    }
    let mut line = String::new();
    let read = File::open(path).and_then(|file| BufReader::new(file.take(LONGEST_LINE)).read_line(&mut line));
    let keys = ["row", "question", "steps", "by_step"];
    let is_record = |value: Value| keys.iter().all(|key| value.get(key).is_some());
    read.is_ok() && serde_json::from_str(&line).is_ok_and(is_record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_the_same_kind_is_replaced_and_with_force_any_but_those_of_a_run() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
            fs::write(&path, text).expect("write");
            path
        };
        let ours = format!("{PICTURE_MARK}\n<svg/>");
        let answers = r#"{"007bbfb7": [{"attempt_1": [[0]], "attempt_2": [[0]]}]}"#;
        write("run/run.lock", "1");
        write("old-run/config.toml", "");
        write("old-run/metrics.jsonl", "");
        write("settings/config.toml", "");
        // What may be done without and with --force.
        for (path, kind, plain, forced) in [
            (dir.path().join("new.svg"), PICTURE, "", ""),
            (write("ours.SVG", &ours), PICTURE, "", ""),
            (write("theirs.svg", "<svg/>"), PICTURE, "is there already", ""),
            (write("empty.svg", ""), PICTURE, "is there already", ""),
            (write("picture.png", ""), PICTURE, "is written as .svg", "is written as .svg"),
            (dir.path().join("none"), PICTURE, "is written as .svg", "is written as .svg"),
            (dir.path().join("run"), PICTURE, "is a folder", "is a folder"),
            (dir.path().join("no/such/folder.svg"), PICTURE, "there is no folder", "there is no folder"),
            (write("run/loss.svg", &ours), PICTURE, "", ""),
            (dir.path().join("run/new.svg"), PICTURE, "", ""),
            (write("run/theirs.svg", "<svg/>"), PICTURE, "file of a run folder", "file of a run folder"),
            (write("run/checkpoint/x.json", "{}"), SUBMISSION, "file of a run folder", "file of a run folder"),
            (write("old-run/x.json", "{}"), SUBMISSION, "file of a run folder", "file of a run folder"),
            (write("answers.json", answers), SUBMISSION, "", ""),
            (write("none.json", "{}"), SUBMISSION, "is there already", ""),
            (write("dataset.json", r#"{"pad_id": 0}"#), SUBMISSION, "is there already", ""),
            (write("task.json", r#"{"train": [{"input": []}], "test": []}"#), SUBMISSION, "is there already", ""),
            (write("list.json", "[1]"), SUBMISSION, "is there already", ""),
            (write("answers.jsonl", r#"{"row":0,"question":"1","steps":1,"by_step":[]}"#), PREDICTIONS, "", ""),
            (write("metrics.jsonl", r#"{"step":1,"loss":2.0}"#), PREDICTIONS, "is there already", ""),
            (write("run/metrics.jsonl", r#"{"step":1}"#), PREDICTIONS, "file of a run folder", "file of a run folder"),
            (write("x.npy", ""), PREDICTIONS, "is there already", ""),
            (dir.path().join("step_1"), TORCH, "", ""),
            (write("step_2", ""), TORCH, "is there already; give", ""),
            (write("w.safetensors", ""), WEIGHTS, "is there already; give", ""),
            (dir.path().join("w.pt"), WEIGHTS, "is written as .safetensors", "is written as .safetensors"),
            (write("run/weights.safetensors", ""), WEIGHTS, "file of a run folder;", "file of a run folder;"),
            (dir.path().join("settings/config.toml"), SETTINGS, "is there already; give", ""),
            (write("run/config.toml", ""), SETTINGS, "file of a run folder;", "file of a run folder;"),
        ] {
            for (force, words) in [(false, plain), (true, forced)] {
                match check_output(&path, kind, force) {
                    Ok(()) => assert!(words.is_empty(), "{}, {force}: not refused", path.display()),
                    Err(error) => {
                        let line = error.to_string();
                        let told = !words.is_empty() && line.contains(words) && !line.contains('\n');
                        assert!(told, "{}, {force}: {line}", path.display());
                    }
                }
            }
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_device_is_never_replaced_and_a_link_is_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("temporary folder");
        let (link, null) = (dir.path().join("link.svg"), dir.path().join("null.svg"));
        symlink("/dev/null", &null).expect("link");
        let line = check_output(&null, PICTURE, true).expect_err("no file").to_string();
        assert!(line.contains("no plain file"), "{line}");
        let picture = dir.path().join("picture.svg");
        fs::write(&picture, PICTURE_MARK).expect("write");
        symlink(&picture, &link).expect("link");
        check_output(&link, PICTURE, false).expect("ours");
        atomic::write_bytes(&link, b"new").expect("write");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read(&picture).expect("read"), b"new");
    }
}

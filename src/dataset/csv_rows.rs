//! Rows of the published CSV files (`source,question,answer,rating`), read as a stream.
//!
//! The full Sudoku-Extreme has millions of rows. A subsample is drawn while reading (reservoir sampling), so memory
//! holds the rows that are kept and nothing else; every row is checked either way.

use std::fs::File;
use std::path::Path;

use crate::puzzle::sudoku::Geometry;
use crate::rng::Rng;
use crate::{Error, Result};

/// Kept rows, in the order of the file, as tokens.
pub(super) struct CsvRows {
    /// `[rows · cells]`
    pub questions: Vec<u8>,
    /// `[rows · cells]`
    pub answers: Vec<u8>,
}

/// Reads a file; with `keep`, a uniformly random choice of that many rows (all, if there are no more than that).
pub(super) fn read(path: &Path, geometry: Geometry, keep: Option<usize>, rng: &mut Rng) -> Result<CsvRows> {
    let cells = geometry.cells();
    let at = |line: u64, what: String| Error::input(format!("{}:{line}: {what}", path.display()));
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut reader = csv::ReaderBuilder::new().flexible(true).buffer_capacity(1 << 16).from_reader(file);
    let header = reader.byte_headers().map_err(|e| csv_fault(path, e))?.clone();
    let column = |name: &str| {
        header
            .iter()
            .position(|field| field.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
            .ok_or_else(|| at(1, format!("no column {name:?} in the header; expected source,question,answer,rating")))
    };
    let (question_column, answer_column) = (column("question")?, column("answer")?);
    let mut rows = CsvRows { questions: Vec::new(), answers: Vec::new() };
    // Row of the file behind each kept row, to put them back into the file's order at the end.
    let mut origin: Vec<usize> = Vec::new();
    let mut record = csv::ByteRecord::new();
    let (mut question, mut answer) = (vec![0u8; cells], vec![0u8; cells]);
    let mut seen = 0usize;
    while reader.read_byte_record(&mut record).map_err(|e| csv_fault(path, e))? {
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != header.len() {
            return Err(at(
                line,
                format!("has {} fields, the header has {}; is the file cut off?", record.len(), header.len()),
            ));
        }
        let field = |index: usize, name: &str, out: &mut [u8]| {
            parse_tokens(record.get(index).unwrap_or_default(), geometry, out)
                .map_err(|what| at(line, format!("{name} {what}")))
        };
        field(question_column, "question", &mut question)?;
        field(answer_column, "answer", &mut answer)?;
        if let Some(cell) = answer.iter().position(|&token| token == 1) {
            return Err(at(line, format!("answer has no digit at character {}; an answer is a full grid", cell + 1)));
        }
        // Algorithm R: row i replaces a kept one with probability keep / (i + 1).
        let slot = match keep {
            Some(keep) if origin.len() == keep => rng.below(seen + 1),
            _ => origin.len(),
        };
        if slot == origin.len() && keep.is_none_or(|keep| slot < keep) {
            rows.questions.extend_from_slice(&question);
            rows.answers.extend_from_slice(&answer);
            origin.push(seen);
        } else if slot < origin.len() {
            rows.questions[slot * cells..][..cells].copy_from_slice(&question);
            rows.answers[slot * cells..][..cells].copy_from_slice(&answer);
            origin[slot] = seen;
        }
        seen += 1;
    }
    if origin.is_empty() {
        return Err(Error::input(format!("{}: has no puzzles after its header", path.display())));
    }
    Ok(rows.sorted_by(&origin, cells))
}

impl CsvRows {
    fn sorted_by(self, origin: &[usize], cells: usize) -> Self {
        if origin.is_sorted() {
            return self;
        }
        let mut order: Vec<usize> = (0..origin.len()).collect();
        order.sort_unstable_by_key(|&slot| origin[slot]);
        let gather = |rows: &[u8]| order.iter().flat_map(|&slot| &rows[slot * cells..][..cells]).copied().collect();
        Self { questions: gather(&self.questions), answers: gather(&self.answers) }
    }
}

/// Characters to tokens: `.` or `0` is empty (1), a digit is `1 + digit`.
fn parse_tokens(text: &[u8], geometry: Geometry, out: &mut [u8]) -> Result<(), String> {
    if text.len() != out.len() {
        return Err(format!("has {} characters, expected {}", text.len(), out.len()));
    }
    let largest = b'0' + geometry.side() as u8;
    for (at, (&byte, token)) in text.iter().zip(out).enumerate() {
        *token = match byte {
            b'.' => 1,
            b'0'..=b'9' if byte <= largest => byte - b'0' + 1,
            _ => {
                let (shown, side) = (byte.escape_ascii(), geometry.side());
                return Err(format!("has '{shown}' at character {}; expected 1-{side} or .", at + 1));
            }
        };
    }
    Ok(())
}

fn csv_fault(path: &Path, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => Error::io(path, e),
        other => Error::input(format!("{}: is not a CSV file: {other:?}", path.display())),
    }
}

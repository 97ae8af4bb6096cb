//! Rows of the published CSV files (`source,question,answer,rating`), read as a stream.
//!
//! The full Sudoku-Extreme has millions of rows. A subsample is drawn while reading (reservoir sampling), so memory
//! holds the rows that are kept and nothing else; every row is checked either way.

use std::fs::File;
use std::path::Path;

use super::assemble::RowPairs;
use crate::rng::Rng;
use crate::{Error, Result};

/// How the puzzles of a file are written.
pub(super) trait Form {
    /// Cells of a puzzle, given the first question of the file.
    fn cells(&mut self, question: &[u8]) -> Result<usize, String>;

    /// The token of a character, or what was expected instead.
    fn token(&self, character: u8) -> Result<u8, String>;

    /// What is wrong with the tokens of a row.
    fn check(&self, question: &[u8], answer: &[u8]) -> Result<(), String>;
}

/// Reads a file; with `keep`, a uniformly random choice of that many rows (all, if there are no more than that), in the
/// order of the file.
pub(super) fn read(path: &Path, form: &mut dyn Form, keep: Option<usize>, rng: &mut Rng) -> Result<RowPairs> {
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
    let mut rows = RowPairs { questions: Vec::new(), answers: Vec::new() };
    let mut cells = 0;
    // Row of the file behind each kept row, to put them back into the file's order at the end.
    let mut origin: Vec<usize> = Vec::new();
    let mut record = csv::ByteRecord::new();
    let (mut question, mut answer) = (Vec::new(), Vec::new());
    let mut seen = 0usize;
    while reader.read_byte_record(&mut record).map_err(|e| csv_fault(path, e))? {
        let line = record.position().map_or(0, csv::Position::line);
        if record.len() != header.len() {
            return Err(at(
                line,
                format!("has {} fields, the header has {}; is the file cut off?", record.len(), header.len()),
            ));
        }
        let text = |column: usize| record.get(column).unwrap_or_default();
        if seen == 0 {
            cells = form.cells(text(question_column)).map_err(|what| at(line, format!("question {what}")))?;
            (question, answer) = (vec![0u8; cells], vec![0u8; cells]);
        }
        for (column, name, out) in
            [(question_column, "question", &mut question), (answer_column, "answer", &mut answer)]
        {
            parse_tokens(text(column), form, out).map_err(|what| at(line, format!("{name} {what}")))?;
        }
        form.check(&question, &answer).map_err(|what| at(line, what))?;
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
    Ok(sorted_by(rows, &origin, cells))
}

/// The rows in the order of `origin`.
fn sorted_by(rows: RowPairs, origin: &[usize], cells: usize) -> RowPairs {
    if origin.is_sorted() {
        return rows;
    }
    let mut order: Vec<usize> = (0..origin.len()).collect();
    order.sort_unstable_by_key(|&slot| origin[slot]);
    let gather = |rows: &[u8]| order.iter().flat_map(|&slot| &rows[slot * cells..][..cells]).copied().collect();
    RowPairs { questions: gather(&rows.questions), answers: gather(&rows.answers) }
}

/// Characters to tokens.
fn parse_tokens(text: &[u8], form: &dyn Form, out: &mut [u8]) -> Result<(), String> {
    if text.len() != out.len() {
        return Err(format!("has {} characters, expected {}", text.len(), out.len()));
    }
    for (at, (&byte, token)) in text.iter().zip(out).enumerate() {
        *token = form.token(byte).map_err(|expected| {
            format!("has '{}' at character {}; expected {expected}", byte.escape_ascii(), at + 1)
        })?;
    }
    Ok(())
}

fn csv_fault(path: &Path, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => Error::io(path, e),
        other => Error::input(format!("{}: is not a CSV file: {other:?}", path.display())),
    }
}

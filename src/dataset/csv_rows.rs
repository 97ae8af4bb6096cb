//! Puzzles of CSV files and of lists, read as a stream: a question and its answer, and what else a row says.
//!
//! The full Sudoku-Extreme has millions of rows. A subsample is drawn while reading (reservoir sampling), so memory
//! holds the rows that are kept and nothing else. Every row is checked either way, a chunk of them at a time by all threads.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use csv::ByteRecord;
use rayon::prelude::*;

use super::assemble::RowPairs;
use super::faults::Faults;
use crate::rng::Rng;
use crate::{Error, Result};

/// Rows by which the columns are recognised.
const SAMPLE: usize = 50;

/// Rows checked at a time.
const CHUNK: usize = 8192;

/// How the puzzles of a file are written.
pub(super) trait Form: Sync {
    /// Cells of a puzzle, given a question of the file; from the first that is one, all others have as many.
    fn cells(&mut self, question: &[u8]) -> Result<usize, String>;

    /// The token of a character, or what was expected instead.
    fn token(&self, character: u8) -> Result<u8, String>;

    /// What is wrong with the tokens of a row.
    fn check(&self, question: &[u8], answer: &[u8]) -> Result<(), String>;

    /// The answer to a question that has none in the file.
    fn answer(&self, question: &[u8]) -> Result<Vec<u8>, String>;

    /// A field without what stands around the grid.
    fn trimmed<'a>(&self, field: &'a [u8]) -> &'a [u8] {
        field
    }

    /// Whether a field is a grid, and a full one; `None`: neither. Where no field ever is, columns have to be named.
    fn grid(&self, _field: &[u8]) -> Option<Filled> {
        None
    }

    /// Whether a field is meant as a grid, right or wrong, so that the first line is no header.
    fn resembles_grid(&self, _field: &[u8]) -> bool {
        false
    }

    /// Whether a question may stand alone, and lines that begin with `#` say nothing.
    fn has_lists(&self) -> bool {
        false
    }

    /// What columns are expected.
    fn expected(&self) -> &'static str;
}

/// How much of a grid is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// All of it: an answer.
    Whole,
    /// A part: a question.
    Part,
}

/// What is to be read of a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowOptions<'a> {
    /// The columns of questions and of answers, by name or number; `None`: as their names or what they hold say.
    pub columns: Option<&'a str>,
    /// Leave out rows that cannot be used.
    pub skip_bad: bool,
}

/// The rows of a file.
pub(super) struct Rows {
    pub pairs: RowPairs,
    /// What to say of those that were left out.
    pub left_out: Option<String>,
}

/// The tokens of a question and its answer.
type Pair = (Vec<u8>, Vec<u8>);

/// Where things stand in a row.
struct Layout {
    has_header: bool,
    fields: usize,
    question: usize,
    answer: Option<usize>,
    /// Further columns and their names.
    further: Vec<(usize, String)>,
}

/// Reads a file; with `keep`, a uniformly random choice of that many rows (all, if there are no more than that), in the
/// order of the file.
pub(super) fn read(
    path: &Path,
    form: &mut dyn Form,
    keep: Option<usize>,
    rng: &mut Rng,
    options: RowOptions<'_>,
) -> Result<Rows> {
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .has_headers(false)
        .delimiter(delimiter(path, form.has_lists())?)
        .comment(form.has_lists().then_some(b'#'))
        .buffer_capacity(1 << 16)
        .from_path(path)
        .map_err(|e| csv_fault(path, e))?;
    let mut sample = Vec::new();
    fill(&mut reader, &mut sample, SAMPLE).map_err(|e| csv_fault(path, e))?;
    let layout = layout(&sample, form, options.columns)
        .map_err(|what| Error::input(format!("{}:{}: {what}", path.display(), line_of(sample.first()))))?;
    let mut chunk: Vec<ByteRecord> = sample.split_off(usize::from(layout.has_header).min(sample.len()));
    let mut kept = Kept::new(keep);
    let mut faults = Faults::of("line");
    let mut cells = None;
    while !chunk.is_empty() {
        let shapes = |form: &mut dyn Form| -> Vec<Result<usize, String>> {
            let question = |record: &ByteRecord| form.trimmed(record.get(layout.question).unwrap_or_default()).to_vec();
            let questions: Vec<Vec<u8>> = chunk.iter().map(question).collect();
            questions.iter().map(|question| form.cells(question)).collect()
        };
        let strange = if cells.is_none() { shapes(form) } else { Vec::new() };
        cells = cells.or_else(|| strange.iter().find_map(|shape| shape.as_ref().ok().copied()));
        let read: Vec<Result<Pair, String>> = match cells {
            Some(cells) => chunk.par_iter().map(|record| row(record, &layout, form, cells)).collect(),
            // No question so far says how large a puzzle is.
            None => strange
                .into_iter()
                .map(|shape| Err(format!("question {}", shape.expect_err("none is a puzzle"))))
                .collect(),
        };
        for (record, row) in chunk.iter().zip(read) {
            let line = line_of(Some(record));
            match row {
                Ok((question, answer)) => {
                    let said = || layout.further.iter().map(|(at, name)| (name.as_str(), record.get(*at)));
                    let taken = kept.offer(&question, &answer, said, rng);
                    taken.map_err(|what| Error::input(format!("{}:1: {what}", path.display())))?;
                }
                Err(what) => faults.alone(line, what),
            }
        }
        fill(&mut reader, &mut chunk, CHUNK).map_err(|e| csv_fault(path, e))?;
    }
    let left_out = match options.skip_bad {
        true => faults.left_out(path),
        false => {
            faults.refuse_by_line(path)?;
            None
        }
    };
    match (cells, kept.origin.is_empty()) {
        (Some(cells), false) => Ok(Rows { pairs: kept.in_order(cells), left_out }),
        _ => {
            let header = if layout.has_header { " after its header" } else { "" };
            Err(Error::input(match left_out {
                Some(rows) => format!("{rows}; no puzzle is left"),
                None => format!("{}: has no puzzles{header}", path.display()),
            }))
        }
    }
}

/// Replaces `records` by the next ones, `most` at most.
fn fill(reader: &mut csv::Reader<File>, records: &mut Vec<ByteRecord>, most: usize) -> csv::Result<()> {
    records.clear();
    let mut record = ByteRecord::new();
    while records.len() < most && reader.read_byte_record(&mut record)? {
        records.push(std::mem::take(&mut record));
    }
    Ok(())
}

fn line_of(record: Option<&ByteRecord>) -> usize {
    record.and_then(ByteRecord::position).map_or(1, |position| position.line() as usize)
}

/// What stands between the fields of the first line that says something.
fn delimiter(path: &Path, lists: bool) -> Result<u8> {
    if !lists {
        return Ok(b',');
    }
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(|e| Error::io(path, e))?;
        if !line.starts_with(b"#") && !line.trim_ascii().is_empty() {
            return Ok(line.iter().copied().find(|byte| b",;\t".contains(byte)).unwrap_or(b','));
        }
    }
    Ok(b',')
}

/// Finds out where questions and answers stand: as `named`, or by names that are usual, or by what the columns hold.
fn layout(sample: &[ByteRecord], form: &dyn Form, named: Option<&str>) -> Result<Layout, String> {
    let Some(first) = sample.first() else {
        return Err(format!("no column \"question\": the file is empty; expected {}", form.expected()));
    };
    let has_header = !first.iter().any(|field| form.resembles_grid(form.trimmed(field)));
    let names: Vec<String> = match has_header {
        true => first.iter().map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned()).collect(),
        false => vec![String::new(); first.len()],
    };
    let rows = &sample[usize::from(has_header)..];
    let (question, answer) = match named {
        Some(named) => named_columns(named, &names, form)?,
        None => found_columns(rows, &names, form)?,
    };
    if answer.is_none() && !form.has_lists() {
        return Err(format!("no column \"answer\" in the header; expected {}", form.expected()));
    }
    let called =
        |(at, name): (usize, &String)| (at, if name.is_empty() { format!("column {}", at + 1) } else { name.clone() });
    let further =
        names.iter().enumerate().filter(|(at, _)| *at != question && Some(*at) != answer).map(called).collect();
    Ok(Layout { has_header, fields: first.len(), question, answer, further })
}

/// The columns that `Q,A`, or `Q` alone, names.
fn named_columns(named: &str, names: &[String], form: &dyn Form) -> Result<(usize, Option<usize>), String> {
    let find = |wanted: &str| {
        let wanted = wanted.trim();
        let by_name = names.iter().position(|name| !wanted.is_empty() && name.eq_ignore_ascii_case(wanted));
        let by_number = || wanted.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        by_name.or_else(|| by_number().filter(|&at| at < names.len())).ok_or_else(|| {
            let there: Vec<&str> = names.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
            let there = if there.is_empty() { format!("{} without names", names.len()) } else { there.join(", ") };
            format!("there is no column {wanted:?}; the columns are: {there} (a number counts them from 1)")
        })
    };
    match named.split_once(',') {
        Some((question, answer)) if find(question)? != find(answer)? => Ok((find(question)?, Some(find(answer)?))),
        Some(_) => Err("the columns of questions and answers are one and the same; name two".into()),
        None if form.has_lists() => Ok((find(named)?, None)),
        None => Err(format!("{named:?} names one column; name that of the answers too")),
    }
}

/// Usual names of the columns, the published ones first.
const QUESTIONS: [&str; 6] = ["question", "quizzes", "puzzle", "quiz", "puzzles", "questions"];
const ANSWERS: [&str; 5] = ["answer", "solutions", "solution", "answers", "solved"];

/// The columns by the published names, else by what they hold; of several that could be meant, the one with a usual name.
fn found_columns(rows: &[ByteRecord], names: &[String], form: &dyn Form) -> Result<(usize, Option<usize>), String> {
    let usual =
        |known: &[&str]| known.iter().find_map(|known| names.iter().position(|name| name.eq_ignore_ascii_case(known)));
    let (question, answer) = (usual(&QUESTIONS[..1]), usual(&ANSWERS[..1]));
    if let (Some(question), Some(_)) = (question, answer) {
        return Ok((question, answer));
    }
    // Half of the rows decide, so that a bad one among them is found as what it is.
    let holding = |filled: Filled| -> Vec<usize> {
        let is = |row: &ByteRecord, at| row.get(at).and_then(|field| form.grid(form.trimmed(field))) == Some(filled);
        let count = |at: usize| rows.iter().filter(|row| is(row, at)).count();
        (0..names.len()).filter(|&at| count(at) > 0 && 2 * count(at) >= rows.len()).collect()
    };
    let pick = |what: &str, held: Vec<usize>, usual: Option<usize>| match (held.as_slice(), usual) {
        (_, Some(usual)) if held.is_empty() || held.contains(&usual) => Ok(Some(usual)),
        ([], _) => Ok(None),
        ([only], _) => Ok(Some(*only)),
        (several, _) => {
            let several: Vec<String> = several.iter().map(|at| (at + 1).to_string()).collect();
            Err(format!("the columns {} could all be the {what}; name the two with --columns Q,A", several.join(", ")))
        }
    };
    let mut parts = holding(Filled::Part);
    if parts.is_empty() {
        // Where no row is right, what is meant as a grid is judged as one.
        let is = |at: usize| {
            rows.iter().any(|row| row.get(at).is_some_and(|field| form.resembles_grid(form.trimmed(field))))
        };
        parts = (0..names.len()).filter(|&at| is(at)).collect();
    }
    let question = pick("questions", parts, usual(&QUESTIONS))?;
    let hint = if form.has_lists() { "; if they are there, name them with --columns Q,A" } else { "" };
    let expected = form.expected();
    let question =
        question.ok_or_else(|| format!("no column \"question\" in the header; expected {expected}{hint}"))?;
    let answers = holding(Filled::Whole).into_iter().filter(|&at| at != question).collect();
    Ok((question, pick("answers", answers, usual(&ANSWERS))?))
}

/// The tokens of a row's question and answer.
fn row(record: &ByteRecord, layout: &Layout, form: &dyn Form, cells: usize) -> Result<Pair, String> {
    if record.len() != layout.fields {
        let (found, fields) = (record.len(), layout.fields);
        let first = if layout.has_header { "header" } else { "first row" };
        return Err(format!("has {found} fields, the {first} has {fields}; is the file cut off?"));
    }
    let tokens = |column: usize, name: &str| {
        let text = form.trimmed(record.get(column).unwrap_or_default());
        parse_tokens(text, form, cells).map_err(|what| format!("{name} {what}"))
    };
    let question = tokens(layout.question, "question")?;
    let answer = match layout.answer {
        Some(column) => tokens(column, "answer")?,
        None => form.answer(&question)?,
    };
    form.check(&question, &answer)?;
    Ok((question, answer))
}

/// Characters to tokens.
fn parse_tokens(text: &[u8], form: &dyn Form, cells: usize) -> Result<Vec<u8>, String> {
    if text.len() != cells {
        return Err(format!("has {} characters, expected {cells}", text.len()));
    }
    let token = |(at, &byte): (usize, &u8)| {
        form.token(byte)
            .map_err(|expected| format!("has '{}' at character {}; expected {expected}", byte.escape_ascii(), at + 1))
    };
    text.iter().enumerate().map(token).collect()
}

/// The rows that are kept so far.
struct Kept {
    keep: Option<usize>,
    pairs: RowPairs,
    /// Row of the file behind each kept row, to put them back into the file's order at the end.
    origin: Vec<usize>,
    /// Which of the columns' values are a kept row's: those of rows that others have replaced stay where they are.
    said: Vec<usize>,
    seen: usize,
}

impl Kept {
    fn new(keep: Option<usize>) -> Self {
        Self { keep, pairs: RowPairs::default(), origin: Vec::new(), said: Vec::new(), seen: 0 }
    }

    /// Keeps the next row of the file, or does not.
    fn offer<'a, S: Iterator<Item = (&'a str, Option<&'a [u8]>)>>(
        &mut self,
        question: &[u8],
        answer: &[u8],
        further: impl Fn() -> S,
        rng: &mut Rng,
    ) -> Result<(), String> {
        // Algorithm R: row i replaces a kept one with probability keep / (i + 1).
        let slot = match self.keep {
            Some(keep) if self.origin.len() == keep => rng.below(self.seen + 1),
            _ => self.origin.len(),
        };
        let (cells, pairs) = (question.len(), &mut self.pairs);
        if slot == self.origin.len() && self.keep.is_none_or(|keep| slot < keep) {
            pairs.questions.extend_from_slice(question);
            pairs.answers.extend_from_slice(answer);
            self.origin.push(self.seen);
            self.said.push(pairs.columns.groups());
        } else if slot < self.origin.len() {
            pairs.questions[slot * cells..][..cells].copy_from_slice(question);
            pairs.answers[slot * cells..][..cells].copy_from_slice(answer);
            self.origin[slot] = self.seen;
            self.said[slot] = pairs.columns.groups();
        }
        if self.origin.get(slot) == Some(&self.seen) {
            let text = further().map(|(name, value)| (name, String::from_utf8_lossy(value.unwrap_or_default())));
            let text: Vec<_> = text.collect();
            pairs.columns.push(text.iter().map(|(name, value)| (*name, value.as_ref())))?;
        }
        self.seen += 1;
        Ok(())
    }

    /// The rows in the order of the file.
    fn in_order(self, cells: usize) -> RowPairs {
        let Self { pairs, origin, said, .. } = self;
        let replaced = said.len() < pairs.columns.groups();
        if origin.is_sorted() && !replaced {
            return pairs;
        }
        let mut order: Vec<usize> = (0..origin.len()).collect();
        order.sort_unstable_by_key(|&slot| origin[slot]);
        let gather = |rows: &[u8]| order.iter().flat_map(|&slot| &rows[slot * cells..][..cells]).copied().collect();
        RowPairs {
            questions: gather(&pairs.questions),
            answers: gather(&pairs.answers),
            columns: pairs.columns.of(order.iter().map(|&slot| said[slot])),
        }
    }
}

fn csv_fault(path: &Path, error: csv::Error) -> Error {
    match error.into_kind() {
        csv::ErrorKind::Io(e) => Error::io(path, e),
        _ => Error::input(format!("{}: is not a CSV file", path.display())),
    }
}

//! A puzzle of your own: JSON lines with a question and an answer, grids of symbols of your choice.
//!
//! ```text
//! {"question": "01.\n1.0", "answer": "011\n100"}
//! {"question": [[0, 1], [1, 0]], "answer": [[1, 1], [0, 0]], "id": "a", "split": "test"}
//! ```
//!
//! A grid is one of the forms of [`Cells::from_json`]. Smaller grids stand in the upper left corner of the largest, on
//! padding, which the model learns to leave empty. Every symbol of the file becomes a token, in the order of numbers,
//! else of characters; `puzzle.json` keeps their names.
//!
//! Everything that is wrong is found before anything is written, and reported at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::Dataset;
use super::assemble::{RowPairs, assemble};
use crate::puzzle::Description;
use crate::puzzle::grid::{self, Cells, Symbols};
use crate::rng::Rng;
use crate::{Error, Result};

/// Most cells of a grid.
const MOST_CELLS: usize = 4096;

/// What some editors write in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    question: Value,
    answer: Value,
    id: Option<Value>,
    split: Option<String>,
}

/// A line that can be used.
struct Row {
    line: usize,
    question: Cells,
    answer: Cells,
    split: Option<String>,
}

/// Imports a file. Where lines name no split, the questions whose hash (with `seed`) falls below `test_share` are held out
/// as `test`, at least one and not all: equal questions stay together, and further lines move none of them.
///
/// # Errors
/// Every line that cannot be used, by number; lines with the same fault stand together.
pub fn import(path: impl AsRef<Path>, test_share: f64, seed: u64) -> Result<Dataset> {
    let path = path.as_ref();
    if !(0.0..1.0).contains(&test_share) {
        return Err(Error::input(format!("a test share of {test_share} cannot be held out; give 0 to below 1")));
    }
    let (mut rows, mut faults) = read(path)?;
    find_contradictions(&rows, &mut faults);
    refuse(path, faults)?;
    if rows.is_empty() {
        return Err(Error::input(format!("{}: has no lines; write one JSON object a line", path.display())));
    }
    if rows[0].split.is_none() {
        hold_out(&mut rows, test_share, seed);
    }
    let grids = || rows.iter().flat_map(|row| [&row.question, &row.answer]);
    let height = grids().map(|cells| cells.shape().0).max().unwrap_or(1);
    let width = grids().map(|cells| cells.shape().1).max().unwrap_or(1);
    let cells = height * width;
    if cells > MOST_CELLS {
        let what = "the largest grid, all rows and columns taken together, has";
        return Err(Error::input(format!(
            "{}: {what} {cells} cells; at most {MOST_CELLS} can be learned",
            path.display()
        )));
    }
    let symbols = vocabulary(grids());
    if symbols.len() > 256 {
        let found = symbols.len() - 1;
        return Err(Error::input(format!(
            "{}: {found} different symbols; at most 255 can be told apart",
            path.display()
        )));
    }
    let padded = grids().any(|cells| cells.shape() != (height, width));
    let puzzle = Description { kind: grid::GRID.into(), height, width, symbols, padded };
    let board = Symbols::new(&puzzle, puzzle.symbols.len())?;
    let mut tokens: BTreeMap<String, RowPairs> = BTreeMap::new();
    for row in &rows {
        let split = tokens.entry(row.split.clone().unwrap_or_default());
        let split = split.or_insert_with(|| RowPairs { questions: Vec::new(), answers: Vec::new() });
        let fits = |cells| board.tokens(cells).map_err(Error::input);
        split.questions.extend(fits(&row.question)?);
        split.answers.extend(fits(&row.answer)?);
    }
    let mut splits = BTreeMap::new();
    for (name, rows) in tokens {
        let mut split = assemble(cells, puzzle.symbols.len(), 1, rows)?;
        // Padding is learned like any other symbol, since it says how large an answer is.
        split.meta.ignore_label_id = None;
        splits.insert(name, split);
    }
    if !splits.contains_key("train") {
        return Err(Error::input(format!(
            "{}: no line is of the split \"train\"; there is nothing to learn",
            path.display()
        )));
    }
    Ok(Dataset { splits, identifiers: vec!["<blank>".into()], puzzle })
}

/// What is wrong with a line.
struct Fault {
    line: usize,
    /// What it is or has, [`THAT`] standing for the line before it that it does not agree with.
    what: String,
    /// That line.
    with: Option<usize>,
}

impl Fault {
    fn alone(line: usize, what: String) -> Self {
        Self { line, what, with: None }
    }

    fn between(line: usize, what: &str, with: usize) -> Self {
        Self { line, what: what.into(), with: Some(with) }
    }
}

/// In [`Fault::what`]: another line.
const THAT: &str = "{that line}";

/// The lines that can be used by themselves, and what is wrong with the others.
fn read(path: &Path) -> Result<(Vec<Row>, Vec<Fault>)> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    let mut ids: HashMap<String, usize> = HashMap::new();
    for (text, line) in BufReader::new(file).split(b'\n').zip(1..) {
        let text = text.map_err(|e| Error::io(path, e))?;
        let text = if line == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text) } else { &text };
        if text.trim_ascii().is_empty() {
            continue;
        }
        match parse(text, line) {
            Ok((row, id)) => {
                if let Some(first) = id.and_then(|id| ids.insert(id, line)) {
                    faults.push(Fault::between(line, "has the id of {that line} again", first));
                }
                rows.push(row);
            }
            Err(what) => faults.push(Fault::alone(line, what)),
        }
    }
    Ok((rows, faults))
}

fn parse(text: &[u8], line: usize) -> Result<(Row, Option<String>), String> {
    let found: Record = serde_json::from_slice(text).map_err(|e| {
        let what = e.to_string();
        let what = what.split(" at line").next().unwrap_or_default();
        format!("is not {{\"question\": …, \"answer\": …}}: {what}")
    })?;
    let id = match found.id {
        None => None,
        Some(id @ (Value::String(_) | Value::Number(_))) => Some(id.to_string()),
        Some(_) => return Err("has an id that is neither a string nor a number".into()),
    };
    if let Some(split) = &found.split
        && (split.is_empty() || !split.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
    {
        return Err(format!("has the split {split:?}; a split is a name of letters, digits, - and _"));
    }
    let grid = |name: &str, value: &Value| Cells::from_json(value).map_err(|what| format!("{name} {what}"));
    let (question, answer) = (grid("question", &found.question)?, grid("answer", &found.answer)?);
    Ok((Row { line, question, answer, split: found.split }, id))
}

/// What is wrong between lines.
fn find_contradictions(rows: &[Row], faults: &mut Vec<Fault>) {
    let mut seen: HashMap<&Cells, &Row> = HashMap::new();
    for row in rows {
        if row.split.is_some() != rows[0].split.is_some() {
            let what = if row.split.is_some() {
                "has a split, unlike {that line}"
            } else {
                "has no split, unlike {that line}"
            };
            faults.push(Fault::between(row.line, what, rows[0].line));
        }
        let first = *seen.entry(&row.question).or_insert(row);
        if first.answer != row.answer {
            faults.push(Fault::between(row.line, "has the question of {that line} with another answer", first.line));
        } else if first.split != row.split {
            faults.push(Fault::between(row.line, "has the question of {that line} in another split", first.line));
        }
    }
}

/// One error out of all faults: equal ones together, in the order of their first lines, so that a file with one mistake in
/// every line is a short message, and no line is left out.
fn refuse(path: &Path, mut faults: Vec<Fault>) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    faults.sort_by_key(|fault| fault.line);
    let count = if faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", faults.len()) };
    let mut groups: Vec<Vec<Fault>> = Vec::new();
    let mut at: HashMap<String, usize> = HashMap::new();
    for fault in faults {
        let group = *at.entry(fault.what.clone()).or_insert(groups.len());
        if group == groups.len() {
            groups.push(Vec::new());
        }
        groups[group].push(fault);
    }
    let groups: Vec<String> = groups.iter().map(|group| together(group)).collect();
    Err(Error::input(format!("{}: {count}: {}", path.display(), groups.join("; "))))
}

/// Faults that are alike: `line 3 has …`, `lines 3–7, 9: each has …`.
fn together(faults: &[Fault]) -> String {
    let first = &faults[0];
    let same = faults.iter().all(|fault| fault.with == first.with);
    let with = match first.with {
        Some(line) if same => format!("line {line}"),
        _ => "the line in brackets".into(),
    };
    let what = if first.with.is_some() { first.what.replace(THAT, &with) } else { first.what.clone() };
    if let [only] = faults {
        return format!("line {} {what}", only.line);
    }
    let lines = match same {
        true => ranges(faults.iter().map(|fault| fault.line)),
        false => {
            let pairs = faults.iter().map(|fault| format!("{} ({})", fault.line, fault.with.unwrap_or(0)));
            pairs.collect::<Vec<_>>().join(", ")
        }
    };
    format!("lines {lines}: each {what}")
}

/// Growing numbers as `3–7, 9`.
fn ranges(numbers: impl Iterator<Item = usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 >= number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let run = |&(first, last): &(usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}–{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

/// Names the split of every row.
fn hold_out(rows: &mut [Row], share: f64, seed: u64) {
    let draw = |cells: &Cells| {
        let mut hasher = crc32fast::Hasher::new();
        let (height, width) = cells.shape();
        hasher.update(format!("{height} {width}").as_bytes());
        cells.symbols().for_each(|symbol| {
            hasher.update(b"\0");
            hasher.update(symbol.as_bytes());
        });
        Rng::stream(seed, u64::from(hasher.finalize())).uniform()
    };
    let draws: Vec<f64> = rows.iter().map(|row| draw(&row.question)).collect();
    let least = draws.iter().copied().fold(f64::INFINITY, f64::min);
    let most = draws.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for (row, draw) in rows.iter_mut().zip(draws) {
        let out = share > 0.0 && draw < most && (draw < share || draw == least);
        row.split = Some(if out { "test" } else { "train" }.into());
    }
}

/// The symbols of all grids behind the padding: numbers by value, else by their characters.
fn vocabulary<'a>(grids: impl Iterator<Item = &'a Cells>) -> Vec<String> {
    let symbols: BTreeSet<&str> = grids.flat_map(Cells::symbols).collect();
    let mut symbols: Vec<&str> = symbols.into_iter().collect();
    let numbers: Option<Vec<i64>> = symbols.iter().map(|symbol| symbol.parse().ok()).collect();
    if numbers.is_some() {
        symbols.sort_by_key(|symbol| symbol.parse::<i64>().unwrap_or(0));
    }
    std::iter::once("").chain(symbols).map(String::from).collect()
}

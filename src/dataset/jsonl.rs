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
//! Everything that is wrong is found before anything is made, and told at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::Dataset;
use super::rows::{Rows, assemble};
use crate::puzzle::grid::{Cells, Symbols};
use crate::puzzle::{Description, Kind};
use crate::rng::Rng;
use crate::{Error, Result};

/// Faults that an error lists; it counts all of them.
const LISTED: usize = 10;

/// Most cells of a grid.
const MOST_CELLS: usize = 4096;

/// One line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
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
/// All lines that cannot be used, up to ten of them by number.
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
    let puzzle = Description { kind: Kind::Grid, height, width, symbols };
    let board = Symbols::new(&puzzle, puzzle.symbols.len())?;
    let mut tokens: BTreeMap<String, Rows> = BTreeMap::new();
    for row in &rows {
        let split = tokens.entry(row.split.clone().unwrap_or_default());
        let split = split.or_insert_with(|| Rows { questions: Vec::new(), answers: Vec::new() });
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

/// What is wrong, each with its line.
type Faults = Vec<(usize, String)>;

/// The lines that can be used by themselves, and what is wrong with the others.
fn read(path: &Path) -> Result<(Vec<Row>, Faults)> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    let mut ids: HashMap<String, usize> = HashMap::new();
    for (text, line) in BufReader::new(file).split(b'\n').zip(1..) {
        let text = text.map_err(|e| Error::io(path, e))?;
        if text.trim_ascii().is_empty() {
            continue;
        }
        match parse(&text, line) {
            Ok((row, id)) => {
                if let Some(first) = id.and_then(|id| ids.insert(id, line)) {
                    faults.push((line, format!("has the id of line {first} again")))
                }
                rows.push(row);
            }
            Err(what) => faults.push((line, what)),
        }
    }
    Ok((rows, faults))
}

fn parse(text: &[u8], line: usize) -> Result<(Row, Option<String>), String> {
    let found: Line = serde_json::from_slice(text).map_err(|e| {
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
fn find_contradictions(rows: &[Row], faults: &mut Faults) {
    let mut seen: HashMap<&Cells, &Row> = HashMap::new();
    for row in rows {
        if row.split.is_some() != rows[0].split.is_some() {
            let (line, has) = (rows[0].line, if row.split.is_some() { "a" } else { "no" });
            faults.push((row.line, format!("has {has} split, unlike line {line}")));
        }
        let first = *seen.entry(&row.question).or_insert(row);
        if first.answer != row.answer {
            faults.push((row.line, format!("has the question of line {} with another answer", first.line)));
        } else if first.split != row.split {
            faults.push((row.line, format!("has the question of line {} in another split", first.line)));
        }
    }
}

/// One error out of all faults.
fn refuse(path: &Path, mut faults: Faults) -> Result<()> {
    faults.sort_by_key(|(line, _)| *line);
    let listed: Vec<String> = faults.iter().take(LISTED).map(|(line, what)| format!("line {line} {what}")).collect();
    let more = match faults.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    match faults.len() {
        0 => Ok(()),
        n => {
            let lines = if n == 1 { "1 fault" } else { &format!("{n} faults") };
            Err(Error::input(format!("{}: {lines}: {}{more}", path.display(), listed.join("; "))))
        }
    }
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

//! A puzzle of your own: JSON or CSV with a question and an answer, grids of symbols of your choice.
//!
//! ```text
//! {"question": "01.\n1.0", "answer": "011\n100"}
//! {"question": [[0, 1], [1, 0]], "answer": [[1, 1], [0, 0]], "id": "a", "split": "test"}
//! {"question": "…", "answers": [GRID, GRID], "rating": 3}
//! ```
//!
//! A grid is one of the forms of [`Cells::from_json`](crate::puzzle::grid::Cells::from_json). Smaller grids stand in the upper
//! left corner of the largest, on padding, which the model learns to leave empty. Every symbol of the file becomes a token, in
//! the order of numbers, else of characters; `puzzle.json` keeps their names.
//!
//! | file | idea |
//! |---|---|
//! | `source` | JSON lines, a JSON array, CSV: records, one at a time |
//! | `record` | question, answers, id, split, and what else a record says |
//! | `table` | all grids of a file, a byte a cell |
//!
//! Everything that is wrong is found before anything is written, and reported at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use ndarray::Array2;
use serde_json::Value;

use super::assemble::{RowPairs, assemble};
use super::faults::Faults;
use super::hold_out::{check_share, draw, hash128, held_out};
use super::{Columns, Dataset, Imported, MoreAnswers, Split, Tokens};
use crate::puzzle::grid::{GRID, Symbols};
use crate::puzzle::{BLANK, Description};
use crate::{Error, Result};

mod record;
mod source;
mod table;

pub use record::Keys;
pub use source::FileKind;

use record::{Record, SEVERAL, form, record};
use source::Source;
use table::{MOST_CELLS, MOST_SYMBOLS, Place, Row, Table};

/// How a file is read, and what becomes a test split.
#[derive(Clone, Debug, Default)]
pub struct GridOptions<'a> {
    /// How the file is written.
    pub format: FileKind,
    /// What the parts of a puzzle are called in it.
    pub keys: Keys,
    /// Cells of a row, for grids that stand on one line.
    pub width: Option<usize>,
    /// Take records with one question together, whose answers are then all right.
    pub several: bool,
    /// Take vocabulary, board and padding of this set.
    pub like: Option<&'a Dataset>,
    /// Where records name no split: the share of the questions that is held out.
    pub test_share: f64,
    /// Seed of that choice.
    pub seed: u64,
}

/// Imports a file. Where records name no split, the questions whose hash (with `seed`) falls below `test_share` are held out
/// as `test`, at least one and not all: equal questions stay together, and further records move none of them.
///
/// # Errors
/// Every record that cannot be used, by line or number; those with the same fault stand together.
pub fn import(path: impl AsRef<Path>, options: &GridOptions<'_>) -> Result<Imported> {
    let path = path.as_ref();
    check_share(options.test_share)?;
    let source = Source::open(path, options.format)?;
    let unit = source.unit();
    let mut reader = Reader {
        options,
        path,
        unit,
        table: Table::default(),
        columns: Columns::default(),
        ids: HashMap::new(),
        nested: BTreeSet::new(),
        faults: Faults::of(unit),
    };
    source.read(&form(&options.keys), &mut |at, value| reader.take(at, value))?;
    let Reader { mut table, columns, nested, faults, .. } = reader;
    faults.refuse(path)?;
    if table.rows.is_empty() {
        return Err(Error::input(format!("{}: has no {unit}s; write one JSON object a line", path.display())));
    }
    let puzzle = match options.like {
        Some(like) => like_that_of(path, unit, &table, like)?,
        None => described(path, &table)?,
    };
    hold_out(&mut table, options.test_share, options.seed);
    let data = data_of(path, &table, &columns, puzzle)?;
    let named: Vec<String> = nested.into_iter().collect();
    let passed_over =
        format!("{}: keys that hold lists or objects are passed over: {}", path.display(), named.join(", "));
    Ok(Imported { data, notes: if named.is_empty() { Vec::new() } else { vec![passed_over] } })
}

/// A file that is being read.
struct Reader<'a> {
    options: &'a GridOptions<'a>,
    path: &'a Path,
    unit: &'static str,
    table: Table,
    columns: Columns,
    /// Where each id is, by its hash.
    ids: HashMap<u128, usize>,
    /// Keys that are passed over.
    nested: BTreeSet<String>,
    faults: Faults,
}

impl Reader<'_> {
    /// Takes the record at `at`, or what is wrong with it.
    fn take(&mut self, at: usize, value: Result<Value, String>) -> Result<()> {
        let mark = self.table.mark();
        let taken =
            value.and_then(|value| record(value, &self.options.keys)).and_then(|record| self.puzzle(at, record));
        if let Err(what) = taken {
            self.table.take_back(mark);
            self.faults.alone(at, what);
        }
        match &self.table.symbols.excess {
            None => Ok(()),
            Some(symbol) => Err(Error::input(format!(
                "{}: {} {at} brings {symbol:?}, one of more than {MOST_SYMBOLS} different symbols; at most {MOST_SYMBOLS} can \
                 be told apart",
                self.path.display(),
                self.unit
            ))),
        }
    }

    /// Appends a grid to the table.
    fn grid(&mut self, name: &str, value: &Value) -> Result<Place, String> {
        self.table.grid(value, self.options.width).map_err(|what| match what.starts_with("has an array for a cell") {
            true => format!("{name} {what}; {SEVERAL}"),
            false => format!("{name} {what}"),
        })
    }

    /// Appends a puzzle to the table; what is wrong with it by itself is returned, what between it and others noted.
    fn puzzle(&mut self, at: usize, record: Record) -> Result<(), String> {
        let question = self.grid("question", &record.question)?;
        let mut answers: Vec<Place> = Vec::with_capacity(1);
        for value in &record.answers {
            let answer = self.grid("answer", value)?;
            if !answers.iter().any(|&known| self.table.same(known, answer)) {
                answers.push(answer);
            }
        }
        let split = record.split.as_deref().map(|name| self.table.split(name)).transpose()?;
        if let Some(id) = &record.id
            && let Some(first) = self.ids.insert(hash128(id), at)
        {
            self.faults.between(at, "has the id of {that} again", first);
        }
        self.nested.extend(record.nested);
        if let Some(first) = self.table.rows.first()
            && split.is_some() != first.split.is_some()
        {
            let what = if split.is_some() { "has a split, unlike {that}" } else { "has no split, unlike {that}" };
            self.faults.between(at, what, first.at);
        }
        let row = self.table.rows.len();
        if let Some(known) = self.table.first_with(question) {
            let first = self.table.rows[known];
            let old: Vec<Place> = self.table.answers(known).collect();
            let is_old = |answer: &Place| old.iter().any(|&old| self.table.same(old, *answer));
            let new: Vec<Place> = answers.iter().copied().filter(|answer| !is_old(answer)).collect();
            if first.split != split {
                self.faults.between(at, "has the question of {that} in another split", first.at);
            } else if self.options.several {
                if !new.is_empty() {
                    self.table.more.entry(known).or_default().extend(new);
                }
                return Ok(());
            } else if !new.is_empty() || answers.len() != old.len() {
                let what = format!(
                    "has the question of {{that}} with another answer; {SEVERAL}, or taken together with --several"
                );
                self.faults.between(at, &what, first.at);
            }
        }
        let further = record.further.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.columns.push(further)?;
        if answers.len() > 1 {
            self.table.more.insert(row, answers[1..].to_vec());
        }
        self.table.rows.push(Row { at, question, answer: answers[0], split });
        Ok(())
    }
}

/// What the grids of a file are: the board of the largest, and the file's symbols.
fn described(path: &Path, table: &Table) -> Result<Description> {
    let shapes = || (0..table.rows.len()).flat_map(|row| grids(table, row)).map(Place::shape);
    let height = shapes().map(|shape| shape.0).max().unwrap_or(1);
    let width = shapes().map(|shape| shape.1).max().unwrap_or(1);
    if height * width > MOST_CELLS {
        return Err(Error::input(format!(
            "{}: the largest grid, all rows and columns taken together, has {} cells; at most {MOST_CELLS} can be learned",
            path.display(),
            height * width
        )));
    }
    let padded = shapes().any(|shape| shape != (height, width));
    let symbols = in_order(&table.symbols.symbols);
    Ok(Description { kind: GRID.into(), height, width, symbols, padded })
}

/// The question of a row and all its answers.
fn grids(table: &Table, row: usize) -> impl Iterator<Item = Place> {
    std::iter::once(table.rows[row].question).chain(table.answers(row))
}

/// The symbols behind the padding: numbers by value, else by their characters.
fn in_order(symbols: &[String]) -> Vec<String> {
    let mut symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
    symbols.sort_unstable();
    if symbols.iter().all(|symbol| symbol.parse::<i64>().is_ok()) {
        symbols.sort_by_key(|symbol| symbol.parse::<i64>().unwrap_or(0));
    }
    std::iter::once("").chain(symbols).map(String::from).collect()
}

/// What the grids of another set are, if those of the file fit it.
///
/// # Errors
/// Every record with a symbol or a size that the set has not.
fn like_that_of(path: &Path, unit: &'static str, table: &Table, like: &Dataset) -> Result<Description> {
    let puzzle = like.puzzle.clone();
    if puzzle.kind != GRID || puzzle.symbols.is_empty() {
        let name = like.board()?.name();
        return Err(Error::input(format!(
            "--like: the set is {name}, no grids of symbols; name one that was imported so"
        )));
    }
    let board = Symbols::new(&puzzle, puzzle.symbols.len())?;
    let known: Vec<bool> = table.symbols.symbols.iter().map(|symbol| puzzle.symbols[1..].contains(symbol)).collect();
    let is_fitting = |place: Place| {
        let (height, width) = place.shape();
        let fits = if puzzle.padded {
            height <= puzzle.height && width <= puzzle.width
        } else {
            (height, width) == (puzzle.height, puzzle.width)
        };
        fits && table.cells(place).iter().all(|&number| known[usize::from(number)])
    };
    let mut faults = Faults::of(unit);
    for (row, at) in table.rows.iter().enumerate().map(|(row, facts)| (row, facts.at)) {
        let name = |index: usize| if index == 0 { "question" } else { "answer" };
        if let Some((index, place)) = grids(table, row).enumerate().find(|(_, place)| !is_fitting(*place))
            && let Err(what) = board.tokens(&table.in_symbols(place))
        {
            faults.alone(at, format!("{} {what}", name(index)));
        }
    }
    faults.refuse(path)?;
    Ok(puzzle)
}

/// Names the split of every row, where the file does not.
fn hold_out(table: &mut Table, share: f64, seed: u64) {
    if table.rows[0].split.is_some() {
        return;
    }
    let hash = |place: Place| {
        let mut hasher = crc32fast::Hasher::new();
        let (height, width) = place.shape();
        hasher.update(format!("{height} {width}").as_bytes());
        for &number in table.cells(place) {
            hasher.update(b"\0");
            hasher.update(table.symbols.symbols[usize::from(number)].as_bytes());
        }
        hasher.finalize()
    };
    let draws: Vec<f64> = table.rows.iter().map(|row| draw(seed, hash(row.question))).collect();
    let is_out = held_out(&draws, share);
    table.splits = vec!["train".into(), "test".into()];
    table.rows.iter_mut().zip(draws).for_each(|(row, draw)| row.split = Some(u8::from(is_out(draw))));
}

/// The set of all rows.
fn data_of(path: &Path, table: &Table, columns: &Columns, puzzle: Description) -> Result<Dataset> {
    let token = |symbol: &String| puzzle.symbols.iter().position(|known| known == symbol).unwrap_or(0) as u8;
    let tokens: Vec<u8> = table.symbols.symbols.iter().map(token).collect();
    let (width, cells, vocabulary) = (puzzle.width, puzzle.cells(), puzzle.symbols.len());
    let write = |place: Place, out: &mut Vec<u8>| {
        let start = out.len();
        out.resize(start + cells, 0);
        let rows = table.cells(place).chunks(place.shape().1).zip(out[start..].chunks_mut(width));
        rows.for_each(|(row, out)| {
            out.iter_mut().zip(row).for_each(|(token, &number)| *token = tokens[usize::from(number)])
        });
    };
    let split_of = |number: u8| -> Result<Option<Split>> {
        let rows = table.rows.iter().enumerate().filter(|(_, row)| row.split == Some(number)).map(|(at, _)| at);
        let count = rows.clone().count();
        if count == 0 {
            return Ok(None);
        }
        let mut pairs = RowPairs::default();
        pairs.questions.reserve_exact(count * cells);
        pairs.answers.reserve_exact(count * cells);
        let (mut more, mut indices) = (Vec::new(), vec![0u32]);
        for row in rows.clone() {
            write(table.rows[row].question, &mut pairs.questions);
            write(table.rows[row].answer, &mut pairs.answers);
            table.answers(row).skip(1).for_each(|answer| write(answer, &mut more));
            indices.push((more.len() / cells) as u32);
        }
        pairs.columns = if columns.is_empty() { Columns::default() } else { columns.of(rows) };
        let mut split = assemble(cells, vocabulary, 1, pairs)?;
        // Padding is learned like any other symbol, since it says how large an answer is.
        split.meta.ignore_label_id = None;
        if !more.is_empty() {
            let rows = Array2::from_shape_vec((more.len() / cells, cells), more);
            let rows = rows.map(Tokens::from).map_err(|e| Error::input(format!("rows of unequal length: {e}")))?;
            split.more_answers = Some(MoreAnswers { rows, indices });
        }
        Ok(Some(split))
    };
    let mut splits = BTreeMap::new();
    for (name, number) in table.splits.iter().zip(0u8..=u8::MAX) {
        if let Some(split) = split_of(number)? {
            splits.insert(name.clone(), split);
        }
    }
    if !splits.contains_key("train") {
        return Err(Error::input(format!(
            "{}: no line is of the split \"train\"; there is nothing to learn",
            path.display()
        )));
    }
    Ok(Dataset { splits, identifiers: vec![BLANK.into()], puzzle })
}

//! Sudoku sets: made from nothing, or imported from files of any side.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::assemble::{RowPairs, assemble, reserved};
use super::csv_rows::{self, Filled, Form, RowOptions};
use super::hold_out::{check_share, draw, held_out};
use super::{Dataset, Imported, Split};
use crate::puzzle::sudoku::{Geometry, Grid, SUDOKU, Solutions, SudokuGame, Symmetry, canonical, solve};
use crate::puzzle::{BLANK, Board, Description, Order, Settings, Value};
use crate::rng::Rng;
use crate::{Error, Result};

/// Streams of the import's seed: the subsample, then one per group of copies.
const SUBSAMPLE: u64 = 0;
const COPIES: u64 = 1;

/// Makes `count` training and `test` test puzzles of side 4, 6 or 9, each with exactly one solution: minimal
/// puzzles with up to `extra_clues` clues put back.
///
/// No test puzzle is equivalent to a training puzzle under any symmetry; see [`generate_split`](crate::puzzle::sudoku::generate_split) for what else the two
/// do not share, and for how 4×4 runs out of puzzles. The result depends on the arguments alone, not on threads.
///
/// ```
/// let data = trm::dataset::sudoku::build(6, 30, 10, 3, 1)?;
/// assert_eq!(data.split("train")?.examples(), 30);
/// assert!(!trm::dataset::audit(&data)?.leaks());
/// # Ok::<(), trm::Error>(())
/// ```
pub fn build(size: usize, count: usize, test: usize, extra_clues: usize, seed: u64) -> Result<Dataset> {
    let number = |number: usize| Value::Number(number as u64);
    let settings = Settings::default().with("sudoku_size", number(size)).with("extra_clues", number(extra_clues));
    Dataset::generate(&SudokuGame, &Order { train: count, test, seed, settings: &settings })
}

/// What is made of the files of an import.
#[derive(Clone, Copy, Debug)]
pub struct SudokuOptions<'a> {
    /// Training rows to draw; `None`, or more than there are: all.
    pub subsample: Option<usize>,
    /// Copies of each of them.
    pub aug: usize,
    /// Where there is no test file: the share of the puzzles that is held out.
    pub test_share: f64,
    /// Fixes every draw.
    pub seed: u64,
    /// How the files are read.
    pub rows: RowOptions<'a>,
}

/// Builds a set from files of puzzles (specification, "Sudoku"): CSV with any columns, or lists of questions, which are
/// solved.
///
/// From `train`, rows are drawn without replacement; each becomes a group of the row and its copies under random symmetries.
/// `test` is taken whole and never augmented; without it, puzzles are held out by a hash that all images of a puzzle share.
/// With `aug = 0` and `augment = "online"` the same training needs no copies at all.
///
/// # Errors
/// Every row that cannot be used, by line.
pub fn import(train: impl AsRef<Path>, test: Option<&Path>, options: SudokuOptions<'_>) -> Result<Imported> {
    let SudokuOptions { subsample, aug, test_share, seed, rows } = options;
    if subsample == Some(0) {
        return Err(Error::input("a subsample of 0 rows is no training set; choose at least 1"));
    }
    check_share(test_share)?;
    let mut form = SudokuForm { geometry: None };
    let mut rng = Rng::stream(seed, SUBSAMPLE);
    let mut notes = Vec::new();
    let mut read = |path: &Path, keep: Option<usize>| -> Result<(Geometry, RowPairs)> {
        let read = csv_rows::read(path, &mut form, keep, &mut rng, rows)?;
        notes.extend(read.left_out);
        Ok((form.geometry.expect("a file with rows has a side"), read.pairs))
    };
    // The small mistakes first: a test file that cannot be used should not be found after minutes of work.
    let test = test.map(|path| read(path, None)).transpose()?;
    let (geometry, mut train) = read(train.as_ref(), subsample)?;
    let (cells, vocabulary) = (geometry.cells(), geometry.vocab_size());
    let test = match test {
        Some((_, test)) => Some(test),
        None if test_share > 0.0 => {
            let draws: Vec<f64> =
                train.questions.par_chunks_exact(cells).map(|row| draw(seed, class(geometry, row))).collect();
            let is_out = held_out(&draws, test_share);
            let (out, rest) = train.partition(cells, |row| is_out(draws[row]));
            train = rest;
            Some(out)
        }
        None => None,
    };
    let mut splits = BTreeMap::from([("train".to_string(), augmented(geometry, train, aug, seed)?)]);
    if let Some(test) = test.filter(|test| !test.questions.is_empty()) {
        splits.insert("test".to_string(), assemble(cells, vocabulary, 1, test)?);
    }
    let data = Dataset { splits, identifiers: vec![BLANK.into()], puzzle: Description::of(SUDOKU, cells) };
    Ok(Imported { data, notes })
}

/// Builds the published Sudoku-Extreme set from its CSV files: [`import`] with a test file.
///
/// # Errors
/// Those of [`import`].
pub fn import_sudoku_extreme(
    train: impl AsRef<Path>,
    test: impl AsRef<Path>,
    subsample: Option<usize>,
    aug: usize,
    seed: u64,
) -> Result<Dataset> {
    let rows = RowOptions::default();
    let options = SudokuOptions { subsample, aug, test_share: 0.0, seed, rows };
    Ok(import(train, Some(test.as_ref()), options)?.data)
}

/// A hash that all images of a question under a symmetry share.
fn class(geometry: Geometry, question: &[u8]) -> u32 {
    let form = Grid::from_tokens(geometry, question).ok().and_then(|grid| canonical(&grid).ok());
    match form {
        Some(canonical) => crc32fast::hash(canonical.form.values()),
        None => crc32fast::hash(question),
    }
}

/// Every row followed by `aug` random images of itself. Group g has a stream of its own, so threads do not matter.
fn augmented(geometry: Geometry, rows: RowPairs, aug: usize, seed: u64) -> Result<Split> {
    let (cells, vocabulary) = (geometry.cells(), geometry.vocab_size());
    if aug == 0 {
        return assemble(cells, vocabulary, 1, rows);
    }
    let RowPairs { mut questions, mut answers, .. } = reserved(cells, rows.questions.len() / cells, aug)?;
    let group_len = (aug + 1) * cells;
    let sources = rows.questions.par_chunks_exact(cells).zip(rows.answers.par_chunks_exact(cells));
    let targets = questions.par_chunks_exact_mut(group_len).zip(answers.par_chunks_exact_mut(group_len));
    targets.zip(sources).enumerate().for_each(|(group, ((questions, answers), (question, answer)))| {
        let mut rng = Rng::stream(seed, COPIES + group as u64);
        let copies = questions.chunks_exact_mut(cells).zip(answers.chunks_exact_mut(cells));
        for (copy, (to_question, to_answer)) in copies.enumerate() {
            let symmetry = if copy == 0 { Symmetry::identity(geometry) } else { Symmetry::random(geometry, &mut rng) };
            symmetry.apply_tokens(question, to_question);
            symmetry.apply_tokens(answer, to_answer);
        }
    });
    assemble(cells, vocabulary, aug + 1, RowPairs { questions, answers, columns: rows.columns })
}

/// Boards whose side the first question decides.
struct SudokuForm {
    geometry: Option<Geometry>,
}

impl SudokuForm {
    fn geometry(&self) -> Geometry {
        self.geometry.unwrap_or(Geometry::NINE)
    }
}

impl Form for SudokuForm {
    fn cells(&mut self, question: &[u8]) -> Result<usize, String> {
        let geometry = match self.geometry {
            Some(geometry) => geometry,
            None => Geometry::of_cells(question.len())
                .map_err(|_| format!("has {} characters; a board has 16, 36, 81 or 256", question.len()))?,
        };
        self.geometry = Some(geometry);
        Ok(geometry.cells())
    }

    /// `.` or `0` is empty (1), a digit is `1 + digit`.
    fn token(&self, character: u8) -> Result<u8, String> {
        let side = self.geometry().side() as u8;
        let value = match character {
            b'.' | b'0' => Some(0),
            b'1'..=b'9' => Some(character - b'0'),
            b'A'..=b'G' | b'a'..=b'g' => Some(character.to_ascii_uppercase() - b'A' + 10),
            _ => None,
        };
        value.filter(|&value| value <= side).map(|value| value + 1).ok_or_else(|| match side {
            16 => "1-9, A-G or .".into(),
            side => format!("1-{side} or ."),
        })
    }

    fn check(&self, question: &[u8], answer: &[u8]) -> Result<(), String> {
        if let Some(cell) = answer.iter().position(|&token| token == 1) {
            return Err(format!("answer has no digit at character {}; an answer is a full grid", cell + 1));
        }
        let (geometry, clash) = (self.geometry(), |(q, a): (&u8, &u8)| *q > 1 && q != a);
        if let Some(cell) = question.iter().zip(answer).position(clash) {
            return Err(format!("answer contradicts its question at character {}", cell + 1));
        }
        match geometry.solves(question, answer) {
            true => Ok(()),
            false => {
                let conflict = Grid::from_tokens(geometry, answer).ok().and_then(|grid| grid.conflict());
                let conflict = conflict.map_or(String::new(), |conflict| format!(": {conflict}"));
                Err(format!("answer is no solution{conflict}"))
            }
        }
    }

    fn answer(&self, question: &[u8]) -> Result<Vec<u8>, String> {
        let question = Grid::from_tokens(self.geometry(), question).map_err(|e| e.to_string())?;
        match solve(&question) {
            Solutions::Unique(answer) => Ok(answer.tokens().collect()),
            Solutions::None => Err("question has no solution".into()),
            Solutions::Multiple(..) => Err("question has several solutions".into()),
        }
    }

    fn trimmed<'a>(&self, field: &'a [u8]) -> &'a [u8] {
        field.trim_ascii()
    }

    fn grid(&self, field: &[u8]) -> Option<Filled> {
        let geometry = Geometry::of_cells(field.len()).ok()?;
        let form = Self { geometry: Some(geometry) };
        let tokens: Vec<u8> = field.iter().map(|&byte| form.token(byte)).collect::<Result<_, _>>().ok()?;
        if tokens.contains(&1) {
            return Some(Filled::Part);
        }
        geometry.solves(&tokens, &tokens).then_some(Filled::Whole)
    }

    /// A long run of digits and dots; what a header says is in letters.
    fn resembles_grid(&self, field: &[u8]) -> bool {
        let cells = field.iter().filter(|byte| byte.is_ascii_digit() || **byte == b'.').count();
        field.len() >= Geometry::FOUR.cells() && 2 * cells >= field.len()
    }

    fn has_lists(&self) -> bool {
        true
    }

    fn expected(&self) -> &'static str {
        "a column of boards of 16, 36, 81 or 256 characters"
    }
}

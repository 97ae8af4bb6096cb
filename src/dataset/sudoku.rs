//! Sudoku sets: made from nothing, or imported from the published CSV files.

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;

use super::assemble::{RowPairs, assemble, reserved};
use super::csv_rows::{self, Form};
use super::{Dataset, Split};
use crate::puzzle::sudoku::{Geometry, SUDOKU, SudokuGame, Symmetry};
use crate::puzzle::{BLANK, Description, Order, Settings, Value};
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

/// Builds the published Sudoku-Extreme set from its CSV files.
///
/// From `train`, `subsample` rows are drawn without replacement (`None`, or more than there are: all); each becomes
/// a group of the row and `aug` copies under random symmetries. `test` is taken whole and never augmented. With
/// `aug = 0` and `augment = "online"` the same training needs no copies at all.
///
/// RowPairs are checked for form here, for truth by [`audit`](super::audit()).
pub fn import_sudoku_extreme(
    train: impl AsRef<Path>,
    test: impl AsRef<Path>,
    subsample: Option<usize>,
    aug: usize,
    seed: u64,
) -> Result<Dataset> {
    if subsample == Some(0) {
        return Err(Error::input("a subsample of 0 rows is no training set; choose at least 1"));
    }
    let mut geometry = Geometry::NINE;
    let mut rng = Rng::stream(seed, SUBSAMPLE);
    // The small mistakes first: a test file that cannot be used should not be found after minutes of work.
    let test = csv_rows::read(test.as_ref(), &mut geometry, None, &mut rng)?;
    let test = assemble(geometry.cells(), geometry.vocab_size(), 1, test)?;
    let rows = csv_rows::read(train.as_ref(), &mut geometry, subsample, &mut rng)?;
    let train = augmented(geometry, rows, aug, seed)?;
    let splits = BTreeMap::from([("train".to_string(), train), ("test".to_string(), test)]);
    Ok(Dataset { splits, identifiers: vec![BLANK.into()], puzzle: Description::of(SUDOKU, geometry.cells()) })
}

/// Every row followed by `aug` random images of itself. Group g has a stream of its own, so threads do not matter.
fn augmented(geometry: Geometry, rows: RowPairs, aug: usize, seed: u64) -> Result<Split> {
    let (cells, vocabulary) = (geometry.cells(), geometry.vocab_size());
    if aug == 0 {
        return assemble(cells, vocabulary, 1, rows);
    }
    let RowPairs { mut questions, mut answers } = reserved(cells, rows.questions.len() / cells, aug)?;
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
    assemble(cells, vocabulary, aug + 1, RowPairs { questions, answers })
}

impl Form for Geometry {
    fn cells(&mut self, _question: &[u8]) -> Result<usize, String> {
        Ok(Geometry::cells(*self))
    }

    /// `.` or `0` is empty (1), a digit is `1 + digit`.
    fn token(&self, character: u8) -> Result<u8, String> {
        match character {
            b'.' => Ok(1),
            b'0'..=b'9' if character <= b'0' + self.side() as u8 => Ok(character - b'0' + 1),
            _ => Err(format!("1-{} or .", self.side())),
        }
    }

    fn check(&self, _question: &[u8], answer: &[u8]) -> Result<(), String> {
        match answer.iter().position(|&token| token == 1) {
            Some(cell) => Err(format!("answer has no digit at character {}; an answer is a full grid", cell + 1)),
            None => Ok(()),
        }
    }
}

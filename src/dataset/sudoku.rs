//! Sudoku sets: made from nothing, or imported from the published CSV files.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Array2;
use rayon::prelude::*;

use super::csv_rows::{self, CsvRows};
use super::{Dataset, Metadata, Split};
use crate::puzzle::sudoku::{Geometry, Puzzle, Symmetry, generate_split};
use crate::puzzle::{Description, Kind};
use crate::rng::Rng;
use crate::{Error, Result};

/// Streams of the import's seed: the subsample, then one per group of copies.
const SUBSAMPLE: u64 = 0;
const COPIES: u64 = 1;

/// Makes `count` training and `test` test puzzles of side 4, 6 or 9, each with exactly one solution: minimal
/// puzzles with up to `extra_clues` clues put back.
///
/// No test puzzle is equivalent to a training puzzle under any symmetry; see [`generate_split`] for what else the two
/// do not share, and for how 4×4 runs out of puzzles. The result depends on the arguments alone, not on threads.
///
/// ```
/// let data = trm::dataset::sudoku::build(6, 30, 10, 3, 1)?;
/// assert_eq!(data.split("train")?.examples(), 30);
/// assert!(!trm::dataset::audit(&data)?.leaks());
/// # Ok::<(), trm::Error>(())
/// ```
pub fn build(size: usize, count: usize, test: usize, extra_clues: usize, seed: u64) -> Result<Dataset> {
    if !matches!(size, 4 | 6 | 9) {
        return Err(Error::input(format!("cannot generate Sudoku of side {size}; choose 4, 6 or 9")));
    }
    if count == 0 {
        return Err(Error::input("a data set needs at least 1 training puzzle; raise the count"));
    }
    if count.saturating_add(test) > i32::MAX as usize {
        return Err(Error::input(format!("{count} + {test} puzzles are more than the format's {}", i32::MAX)));
    }
    let geometry = Geometry::of_side(size)?;
    let made = generate_split(geometry, count, test, extra_clues, seed)?;
    let split = |puzzles: &[Puzzle]| {
        let tokens = |pick: fn(&Puzzle) -> &crate::puzzle::sudoku::Grid| -> Vec<u8> {
            puzzles.iter().flat_map(|p| pick(p).tokens()).collect()
        };
        assemble(geometry, 1, tokens(|p| &p.question), tokens(|p| &p.answer))
    };
    let mut splits = BTreeMap::from([("train".to_string(), split(&made.train)?)]);
    if test > 0 {
        splits.insert("test".to_string(), split(&made.test)?);
    }
    Ok(Dataset { splits, identifiers: vec!["<blank>".into()], puzzle: Description::of(Kind::Sudoku, geometry.cells()) })
}

/// Builds the published Sudoku-Extreme set from its CSV files.
///
/// From `train`, `subsample` rows are drawn without replacement (`None`, or more than there are: all); each becomes
/// a group of the row and `aug` copies under random symmetries. `test` is taken whole and never augmented. With
/// `aug = 0` and `augment = "online"` the same training needs no copies at all.
///
/// Rows are checked for form here, for truth by [`audit`](super::audit()).
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
    let geometry = Geometry::NINE;
    let mut rng = Rng::stream(seed, SUBSAMPLE);
    // The small mistakes first: a test file that cannot be used should not be found after minutes of work.
    let test = csv_rows::read(test.as_ref(), geometry, None, &mut rng)?;
    let test = assemble(geometry, 1, test.questions, test.answers)?;
    let rows = csv_rows::read(train.as_ref(), geometry, subsample, &mut rng)?;
    let train = augmented(geometry, rows, aug, seed)?;
    let splits = BTreeMap::from([("train".to_string(), train), ("test".to_string(), test)]);
    Ok(Dataset { splits, identifiers: vec!["<blank>".into()], puzzle: Description::of(Kind::Sudoku, geometry.cells()) })
}

/// Every row followed by `aug` random images of itself. Group g has a stream of its own, so threads do not matter.
fn augmented(geometry: Geometry, rows: CsvRows, aug: usize, seed: u64) -> Result<Split> {
    if aug == 0 {
        return assemble(geometry, 1, rows.questions, rows.answers);
    }
    let cells = geometry.cells();
    let groups = rows.questions.len() / cells;
    let total = aug.checked_add(1).and_then(|per_group| groups.checked_mul(per_group));
    let total = total.filter(|&n| i32::try_from(n).is_ok()).ok_or_else(|| {
        Error::input(format!(
            "{groups} rows with {aug} copies each are more than the format's {} examples; take fewer copies, or none \
             and augment online",
            i32::MAX
        ))
    })?;
    let reserve = || {
        let mut tokens = Vec::new();
        tokens.try_reserve_exact(total * cells).map_err(|_| {
            Error::input(format!(
                "{total} examples need {} MB of memory, which the system refuses; take fewer copies, or none and augment \
                 online",
                total * cells * 2 / 1_000_000
            ))
        })?;
        tokens.resize(total * cells, 0u8);
        Ok::<_, Error>(tokens)
    };
    let (mut questions, mut answers) = (reserve()?, reserve()?);
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
    assemble(geometry, aug + 1, questions, answers)
}

/// A split of rows of tokens, `per_group` to a group, with the published metadata: one example a puzzle, and
/// `total_puzzles` the number of groups whatever the number of copies.
fn assemble(geometry: Geometry, per_group: usize, questions: Vec<u8>, answers: Vec<u8>) -> Result<Split> {
    let cells = geometry.cells();
    let rows = questions.len() / cells;
    let groups = rows / per_group;
    let rows_of = |tokens: Vec<u8>| {
        Array2::from_shape_vec((rows, cells), tokens).map_err(|e| Error::input(format!("rows of unequal length: {e}")))
    };
    Ok(Split {
        meta: Metadata {
            pad_id: 0,
            ignore_label_id: Some(0),
            blank_identifier_id: 0,
            vocab_size: geometry.vocab_size(),
            seq_len: cells,
            num_puzzle_identifiers: 1,
            total_groups: groups,
            mean_puzzle_examples: 1.0,
            total_puzzles: groups,
            sets: vec!["all".into()],
        },
        inputs: rows_of(questions)?,
        labels: rows_of(answers)?,
        puzzle_identifiers: vec![0; rows],
        puzzle_indices: (0..=rows as u32).collect(),
        group_indices: (0..=groups as u32).map(|g| g * per_group as u32).collect(),
    })
}

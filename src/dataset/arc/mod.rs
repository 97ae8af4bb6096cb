//! ARC sets: from the published JSON files to rows, and back from rows to tasks (SPEC "Datasets", "Details").
//!
//! A **group** is a task, its first puzzle the task itself and the others its augmented copies, each with an identifier
//! whose name says which copy it is. Demonstrations of the tasks of the *test set* go to the split `train`, their test
//! pairs to `test`, under the same identifiers; all other pairs go to `train`.
//!
//! A row is a function of its number: which task, which copy, which pair, and an offset drawn from a stream of its own.
//! So a set need not be stored to be trained on: [`build`] gives rows that are made when asked for, writing them is
//! one pass through them, and a set [`Stored::Originals`] holds a thousandth of them and stands for all
//! ([`expand`]).
//!
//! | file | idea |
//! |---|---|
//! | `source` | the JSON files: Kaggle's form, and one file per task |
//! | `rows` | a pair as a row, a row as a grid, the crop of a prediction; all rows of a set by number |
//! | `build` | copies, identifiers, splits |
//! | `overlap` | tasks that occur in two subsets |
//! | `audit` | a built set, row by row |

mod audit;
mod build;
mod overlap;
mod rows;
mod source;
#[cfg(test)]
mod tests;

pub use audit::{ArcAudit, audit};
pub use build::{ONLINE_FILE, Options, Stored, TEST_PUZZLES_FILE, build, expand, test_puzzles};
pub use overlap::{OverlapReport, disjoint, overlaps};
pub use rows::{crop, decode, encode};
pub use source::{Subset, read_subset, read_task, subsets_in};

use super::{Dataset, Split};
use crate::puzzle::arc::{Augmentation, MAX_SIDE, Pair, Task};
use crate::{Error, Result};

/// Padding, end of grid, ten colours.
pub const VOCAB: usize = 12;

/// Side of the published board: rows are 30×30 tokens.
pub const SIDE: usize = MAX_SIDE;

/// The split that scores are taken on.
const TEST: &str = "test";

impl Split {
    /// Side of the board, if rows may be ARC pairs: 12 tokens in the vocabulary, rows a square of at most 30×30.
    pub fn arc_side(&self) -> Option<usize> {
        let side = self.meta.seq_len.isqrt();
        (self.meta.vocab_size == VOCAB && side * side == self.meta.seq_len && side <= MAX_SIDE).then_some(side)
    }

    /// An example as the pair it is the image of.
    pub fn arc_pair(&self, example: usize) -> Option<Pair> {
        let side = self.arc_side()?;
        Some(Pair { input: decode(&self.inputs.row(example), side)?, output: decode(&self.labels.row(example), side)? })
    }
}

impl Dataset {
    /// Side of the board, if this is an ARC set: every identifier has the name of a task or of a copy, and the first
    /// rows of every split are grids.
    pub fn arc_side(&self) -> Option<usize> {
        let side = self.splits.values().next()?.arc_side()?;
        let alike = |split: &Split| split.arc_side() == Some(side) && split.arc_pair(0).is_some();
        let named = self.identifiers.len() > 1 && self.identifiers[1..].iter().all(|n| Augmentation::of_name(n).is_ok());
        (named && self.splits.values().all(alike)).then_some(side)
    }

    /// The first `limit` tasks of the split `test` (0: all), with the demonstrations that `train` has of them.
    pub fn arc_tasks(&self, limit: usize) -> Result<Vec<Task>> {
        let test = self.split(TEST)?;
        let groups = if limit == 0 { test.groups() } else { limit.min(test.groups()) };
        (0..groups).map(|group| self.arc_task(test, group)).collect()
    }

    /// A group of a split as a task; of the split `test`, with its demonstrations.
    fn arc_task(&self, split: &Split, group: usize) -> Result<Task> {
        let original = split.group(group).start;
        let identifier = split.puzzle_identifiers[original];
        let id = &self.identifiers[identifier as usize];
        let pairs = |split: &Split, puzzle: usize| -> Result<Vec<Pair>> {
            let pair = |row| split.arc_pair(row).ok_or_else(|| no_pair(id, row));
            split.puzzle(puzzle).map(pair).collect()
        };
        let test = pairs(split, original)?;
        let shown = self.splits.get("train").filter(|train| !std::ptr::eq(*train, split));
        let shown = shown.and_then(|train| Some((train, train.puzzle_with_identifier(identifier)?)));
        let train = shown.map(|(train, puzzle)| pairs(train, puzzle)).transpose()?.unwrap_or_default();
        Ok(Task { id: id.clone(), train, test })
    }

    /// The task with this name, wherever it is.
    pub fn arc_task_named(&self, name: &str) -> Result<Task> {
        for (_, split) in self.in_order().into_iter().rev() {
            for group in 0..split.groups() {
                if self.identifiers[split.puzzle_identifiers[split.group(group).start] as usize] == name {
                    return self.arc_task(split, group);
                }
            }
        }
        let originals = self.identifiers.iter().skip(1).filter(|id| !id.contains("|||")).map(String::as_str);
        let near = crate::config_free_nearest(name, originals);
        Err(Error::input(format!("no task {name:?} in the data set{near}")))
    }
}

fn no_pair(task: &str, row: usize) -> Error {
    Error::input(format!("task {task}: row {row} is no ARC pair on its board; rebuild the data set"))
}

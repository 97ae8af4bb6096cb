//! ARC sets: from the published JSON files to rows, and back from rows to tasks (specification, "Datasets", "Details").
//!
//! A **group** is a task, its first puzzle the task itself and the others its augmented copies, each with an identifier
//! whose name says which copy it is. Demonstrations of the tasks of the *test set* go to the split `train`, their test
//! pairs to `test`, under the same identifiers; all other pairs go to `train`.
//!
//! A row is a function of its number: which task, which copy, which pair, and an offset drawn from a stream of its own.
//! So a set need not be stored to be trained on: [`build`] gives rows that are generated when needed, writing them is
//! one pass through them, and a set [`Stored::Originals`] holds a thousandth of them and stands for all
//! ([`expand`]).
//!
//! | file | idea |
//! |---|---|
//! | `source` | the JSON files: Kaggle's form, and one file per task, which may be a list of pairs |
//! | `build` | copies, identifiers, splits |
//! | `shared_tasks` | tasks that occur in two subsets |
//! | `audit` | a built set, row by row |

mod audit;
mod build;
mod raw;
mod shared_tasks;
mod source;
#[cfg(test)]
mod tests;

pub use crate::puzzle::arc::set::{GENERATED_PAIRS_PER_GROUP, Options, Stored};
pub use audit::{ArcAudit, audit};
pub use build::{ONLINE_FILE, TEST_PUZZLES_FILE, build, expand, is_online, online_file, test_puzzles};
pub use shared_tasks::{OverlapReport, disjoint, overlaps};
pub use source::{ReadOptions, Sources, Subset, read_subset, read_task, subsets_in};

use super::{Dataset, Split};
use crate::error::did_you_mean;
use crate::puzzle::arc::{Grid, MAX_SIDE, Pair, Task, decode};
use crate::{Error, Result};

/// Side of the published board: rows are 30×30 tokens.
pub const SIDE: usize = MAX_SIDE;

/// The split that scores are taken on.
pub const TEST: &str = "test";

impl Split {
    /// An example as the pair of grids on a square board that it is, if it is one. A label that is padding all over is an
    /// answer that is not known.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn arc_pair(&self, example: usize) -> Result<Option<Pair>> {
        let side = self.meta.seq_len.isqrt();
        let (input, output) = (self.inputs.row(example)?, self.labels.row(example)?);
        let is_unknown = output.iter().all(|&token| token == 0);
        let output = if is_unknown { Some(Grid::unknown()) } else { decode(&output, side) };
        Ok(decode(&input, side).zip(output).map(|(input, output)| Pair { input, output }))
    }

    /// Whether other builders' sign for an unknown answer, one cell of background, is all that the tasks have for answers. It
    /// may be an answer too, so it is taken for a sign only where there is nothing else.
    pub fn has_no_arc_answers(&self) -> Result<bool> {
        for group in 0..self.groups() {
            for row in self.puzzle(self.group(group).start) {
                if self.arc_pair(row)?.is_none_or(|pair| pair.output != Grid::background()) {
                    return Ok(false);
                }
            }
        }
        Ok(self.groups() > 0)
    }
}

impl Dataset {
    /// The first `limit` tasks of the split `test` (0: all), with the demonstrations that `train` has of them.
    pub fn arc_tasks(&self, limit: usize) -> Result<Vec<Task>> {
        let test = self.split(TEST)?;
        let groups = if limit == 0 { test.groups() } else { limit.min(test.groups()) };
        let mut tasks: Vec<Task> = (0..groups).map(|group| self.arc_task(test, group)).collect::<Result<_>>()?;
        if test.has_no_arc_answers()? {
            tasks.iter_mut().flat_map(|task| &mut task.test).for_each(|pair| pair.output = Grid::unknown());
        }
        Ok(tasks)
    }

    /// A group of a split as a task: of `train`, all pairs as demonstrations; of another, with the demonstrations that
    /// `train` has of it, in however many groups.
    fn arc_task(&self, split: &Split, group: usize) -> Result<Task> {
        let identifier = split.puzzle_identifiers[split.group(group).start];
        let id = &self.identifiers[identifier as usize];
        let pairs = |split: &Split| -> Result<Vec<Pair>> {
            let pair = |row| split.arc_pair(row)?.ok_or_else(|| no_pair(id, row));
            split.puzzles_with_identifier(identifier).flat_map(|puzzle| split.puzzle(puzzle)).map(pair).collect()
        };
        let inside = pairs(split)?;
        match self.splits.get("train").filter(|train| !std::ptr::eq(*train, split)) {
            Some(train) => Ok(Task { id: id.clone(), train: pairs(train)?, test: inside }),
            None => Ok(Task { id: id.clone(), train: inside, test: Vec::new() }),
        }
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
        Err(Error::input(format!("the data set has no task {name:?}{}", did_you_mean(name, originals))))
    }
}

fn no_pair(task: &str, row: usize) -> Error {
    Error::input(format!("task {task}: row {row} is no ARC pair on its board; rebuild the data set"))
}

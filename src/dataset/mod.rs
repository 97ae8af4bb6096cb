//! Data sets: the published on-disk layout, import, generation, audit, and the way to a batch.
//!
//! A [`Dataset`] is a few named [`Split`]s. A split is rows of tokens (`inputs`, `labels`) under two levels of
//! prefix sums: a **group** is a task and its augmented copies, each copy is a **puzzle** with its own identifier,
//! and a puzzle is one or more **examples** (rows).
//!
//! ```text
//! group_indices    [0,          3,     5]      group 0 = puzzles 0..3, group 1 = puzzles 3..5
//! puzzle_indices   [0, 1, 2, 3,  4, 5]         puzzle p = rows puzzle_indices[p]..puzzle_indices[p + 1]
//! inputs, labels   [examples, seq_len]
//! ```
//!
//! | to | use |
//! |---|---|
//! | read and write a folder | [`Dataset::read`], [`Dataset::write`] |
//! | make Sudoku from nothing, or from files of any side | [`sudoku::build`], [`sudoku::import`] |
//! | make mazes from nothing, or from the published CSV files | [`maze::build`], [`maze::import`] |
//! | import a puzzle of your own | [`grids::import`] |
//! | take rows that are in memory, or what a registered puzzle generates | [`Dataset::from_rows`], [`Dataset::generate`] |
//! | make ARC sets from the published JSON files | [`arc::read_subset`], [`arc::build`] |
//! | ask what a set holds, and whether it can be trusted | [`info()`], [`audit()`] |
//! | draw training rows, write any row into a slot | [`Sampler`], [`write_example`] |

use std::collections::BTreeMap;
use std::ops::Range;

use crate::puzzle::{Board, Copies, Description};
use crate::{Error, Result};

pub mod arc;
mod assemble;
mod audit;
mod batch;
mod columns;
mod csv_rows;
mod faults;
mod fit;
mod format;
pub mod grids;
mod hold_out;
mod info;
mod json;
mod made;
pub mod maze;
mod metadata;
mod more_answers;
mod sampler;
pub mod sudoku;
mod task_data;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token_file;
mod tokens;

pub use audit::{AuditReport, CrossAudit, Finding, Match, SplitAudit, audit};
pub use batch::write_example;
pub use columns::Columns;
pub use csv_rows::RowOptions;
pub use hold_out::VALID;
pub use info::{Info, SplitInfo, info};
pub use made::SplitRows;
pub use metadata::Metadata;
pub use more_answers::MoreAnswers;
pub use sampler::{Draw, Sampler, SamplerState};
pub use task_data::{Batches, Examples, TaskData, board_of};
pub use tokens::Tokens;

pub use crate::config::IGNORE_LABEL;
pub use crate::puzzle::RowSource;

/// One split: all its sets, one after the other. The fields are laid out as in the module's picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// What `dataset.json` says.
    pub meta: Metadata,
    /// Questions, `[examples, seq_len]`.
    pub inputs: Tokens,
    /// Answers, `[examples, seq_len]`; `ignore_label_id` is still a token here and becomes −100 in a batch.
    pub labels: Tokens,
    /// Identifier of each puzzle, `[puzzles]`.
    pub puzzle_identifiers: Vec<u32>,
    /// Where each puzzle's examples start, `[puzzles + 1]`.
    pub puzzle_indices: Vec<u32>,
    /// Where each group's puzzles start, `[groups + 1]`.
    pub group_indices: Vec<u32>,
    /// Right answers beside those in `labels`, where questions have several; [`Split::answers`] gives all.
    pub more_answers: Option<MoreAnswers>,
    /// What the source says of each group.
    pub columns: Columns,
}

impl Split {
    /// Rows in the split.
    pub fn examples(&self) -> usize {
        self.inputs.nrows()
    }

    /// Puzzles in the split, copies included.
    pub fn puzzles(&self) -> usize {
        self.puzzle_identifiers.len()
    }

    /// Groups in the split.
    pub fn groups(&self) -> usize {
        self.group_indices.len().saturating_sub(1)
    }

    /// The puzzles of a group.
    pub fn group(&self, group: usize) -> Range<usize> {
        self.group_indices[group] as usize..self.group_indices[group + 1] as usize
    }

    /// The examples of a puzzle.
    pub fn puzzle(&self, puzzle: usize) -> Range<usize> {
        self.puzzle_indices[puzzle] as usize..self.puzzle_indices[puzzle + 1] as usize
    }

    /// The examples of a group; its first is the original where copies exist.
    pub fn group_examples(&self, group: usize) -> Range<usize> {
        let puzzles = self.group(group);
        self.puzzle_indices[puzzles.start] as usize..self.puzzle_indices[puzzles.end] as usize
    }

    /// The rows of the first puzzle and up to `copies` more of each of the first `groups` groups, in order.
    pub fn rows_of_copies(&self, groups: usize, copies: usize) -> Vec<usize> {
        let puzzles = (0..groups).flat_map(|group| self.group(group).take(copies.saturating_add(1)));
        puzzles.flat_map(|puzzle| self.puzzle(puzzle)).collect()
    }

    /// The puzzles with this identifier.
    pub fn puzzles_with_identifier(&self, identifier: u32) -> impl Iterator<Item = usize> {
        (0..self.puzzles()).filter(move |&puzzle| self.puzzle_identifiers[puzzle] == identifier)
    }

    /// The puzzle an example belongs to.
    pub fn puzzle_of(&self, example: usize) -> usize {
        self.puzzle_indices.partition_point(|&start| start as usize <= example) - 1
    }

    /// The group an example belongs to.
    pub fn group_of(&self, example: usize) -> usize {
        let puzzle = self.puzzle_of(example);
        self.group_indices.partition_point(|&start| start as usize <= puzzle) - 1
    }
}

/// A data set: named splits and the names of the puzzle identifiers.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// The splits by name; the published builders write `train` and `test`.
    pub splits: BTreeMap<String, Split>,
    /// Name of every puzzle identifier; the blank one comes first.
    pub identifiers: Vec<String>,
    /// What the rows are.
    pub puzzle: Description,
}

/// What an import has made of files.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The set.
    pub data: Dataset,
    /// What its user should know, a line each: rows left out, keys passed over.
    pub notes: Vec<String>,
}

impl Dataset {
    /// The puzzle that the rows are.
    ///
    /// # Errors
    /// The splits differ in shape, or the description does not fit them.
    pub fn board(&self) -> Result<Box<dyn Board>> {
        let mut shapes = self.in_order().into_iter().map(|(_, split)| (split.meta.seq_len, split.meta.vocab_size));
        let (seq_len, vocab_size) = shapes.next().ok_or_else(|| Error::input("the data set has no split"))?;
        if let Some((other_len, other_size)) = shapes.find(|&shape| shape != (seq_len, vocab_size)) {
            return Err(Error::input(format!(
                "its splits differ: {seq_len} tokens a row and a vocabulary of {vocab_size} in one, {other_len} and \
                 {other_size} in another; rebuild it with one size"
            )));
        }
        if self.puzzle.cells() != seq_len {
            let Description { height, width, .. } = self.puzzle;
            return Err(Error::input(format!("says {height}×{width}, but a row has {seq_len} tokens; correct it")));
        }
        self.puzzle.board(vocab_size)
    }

    /// Whether copies are puzzles with identifiers of their own, each with the name of a puzzle or of a copy of one: then a
    /// copy is a row like any other, and evaluations count the answers to all copies as votes.
    pub fn has_named_copies(&self) -> bool {
        self.why_no_named_copies().is_none()
    }

    /// Why copies have no identifiers of their own, if they have none.
    pub fn why_no_named_copies(&self) -> Option<String> {
        let Ok(Copies::Named(check)) = self.puzzle.game().map(|game| game.copies()) else {
            return Some(format!("its rows are {}, whose copies have no names", self.puzzle.kind));
        };
        if self.identifiers.len() < 2 {
            return Some("identifiers.json names no puzzles".into());
        }
        let (at, name) = (1..).zip(&self.identifiers[1..]).find(|(_, name)| check(name).is_err())?;
        Some(format!("identifiers.json: name {at}, {name:?}, is that of no puzzle and of no copy of one"))
    }

    /// The split called `name`, or an error that says which there are.
    pub fn split(&self, name: &str) -> Result<&Split> {
        self.splits.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.splits.keys().map(String::as_str).collect();
            Error::input(format!("the data set has no split {name:?}; it has: {}", known.join(", ")))
        })
    }

    /// The splits as people expect them: `train` first, then by name.
    pub fn in_order(&self) -> Vec<(&str, &Split)> {
        let mut splits: Vec<_> = self.splits.iter().map(|(name, split)| (name.as_str(), split)).collect();
        splits.sort_by_key(|(name, _)| *name != "train");
        splits
    }
}

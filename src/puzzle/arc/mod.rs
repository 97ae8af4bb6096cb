//! ARC: tasks of a few demonstrations (pairs of coloured grids) and one or more test inputs to answer.
//!
//! | file | idea |
//! |---|---|
//! | [`grid`] | rows of colours, at most 30×30 |
//! | [`dihedral`] | the eight symmetries, by their published numbers |
//! | [`augmentation`] | a copy of a task: symmetry, colours, and the name that says which |
//! | [`tokens`] | a grid as a row of tokens, a row as a grid, the crop of a prediction |
//! | [`overlap`] | whether two tasks, or pairs of them, are the same up to symmetry and colours |
//! | [`vote`] | from the predictions for all copies to ranked answers, pass@k and a submission |
//! | [`generator`] | small tasks of a dozen documented transformations |
//! | [`picture`] | grids side by side, in text and colour |
//! | [`set`], `copied_rows` | from tasks to splits of rows: copies, identifiers, rows by number |
//! | `game`, `board` | what the engine asks of every puzzle |

pub mod augmentation;
mod board;
mod copied_rows;
pub mod dihedral;
pub mod error;
mod game;
pub mod generator;
pub mod grid;
pub mod overlap;
pub mod picture;
pub mod set;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod vote;

pub use augmentation::Augmentation;
pub use board::ArcBoard;
pub use dihedral::Dihedral;
pub use error::ArcError;
pub use game::{ARC, ArcGame};
pub use grid::{COLOURS, Grid, MAX_SIDE};
use serde::Serialize;
pub use tokens::{VOCAB, crop, decode, encode};

/// An input and its output.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Pair {
    /// What is shown.
    pub input: Grid,
    /// What to make of it.
    pub output: Grid,
}

impl Pair {
    /// The largest height or width of the two grids.
    pub fn side(&self) -> usize {
        self.input.side().max(self.output.side())
    }

    /// Whether the output is known.
    pub fn is_answered(&self) -> bool {
        !self.output.is_empty()
    }
}

/// A task: demonstrations of one idea, and inputs to apply it to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    /// What it is called; unique in a data set.
    #[serde(skip)]
    pub id: String,
    /// Demonstrations.
    pub train: Vec<Pair>,
    /// Test inputs with their answers.
    pub test: Vec<Pair>,
}

impl Task {
    /// Demonstrations, then test pairs.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.train.iter().chain(&self.test)
    }

    /// Whether the answer to one of its test inputs is known at least.
    pub fn is_answered(&self) -> bool {
        self.test.iter().any(Pair::is_answered)
    }
}

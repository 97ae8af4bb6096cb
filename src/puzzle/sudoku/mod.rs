//! Sudoku of side 4, 6, 9 and 16: what a grid is, how it is solved, made, moved about and recognised.
//!
//! | file | idea |
//! |---|---|
//! | [`geometry`] | the size of a board and of its boxes; which row, column and box a cell lies in |
//! | [`grid`] | the cells, as text, as a board to look at, as the model's tokens; contradictions |
//! | [`solver`] | proof that a puzzle has no solution, exactly one, or more |
//! | [`generator`] | random solutions, minimal puzzles |
//! | [`split`] | a training set and a test set that share nothing |
//! | [`symmetry`] | the moves that turn a Sudoku into another one that is just as hard |
//! | `game`, `board` | what the engine asks of every puzzle |
//! | `audit` | which rows of a data set are proper puzzles |
//! | [`canonical`](mod@canonical) | one representative for all the puzzles those moves connect |
//! | `image` | the symmetry that turns one puzzle into another, found by its pattern of clues |
//!
//! ```
//! use trm::puzzle::sudoku::{Grid, Solutions, solve};
//!
//! let puzzle: Grid = "1... ..2. .3.. ...4".parse()?;
//! let Solutions::Unique(answer) = solve(&puzzle) else { panic!("not a proper puzzle") };
//! assert!(answer.is_solution_of(&puzzle));
//! # Ok::<(), trm::Error>(())
//! ```

mod audit;
mod board;
pub mod canonical;
pub mod error;
mod game;
pub mod generator;
pub mod geometry;
pub mod grid;
mod image;
pub mod solver;
pub mod split;
pub mod symmetry;

pub use canonical::{Canonical, canonical};
pub use error::SudokuError;
pub use game::{SUDOKU, SudokuGame};
pub use generator::{generate, minimal_question, random_solution};
pub use geometry::{Geometry, MAX_CELLS, MAX_SIDE};
pub use grid::{Conflict, Grid, Unit};
pub use image::find_symmetry;
pub use solver::{Solutions, count_solutions, for_each_solution, solve};
pub use split::generate_split;
pub use symmetry::Symmetry;

/// A question and its answer: two grids of one geometry, the answer agreeing with every clue of the question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Puzzle {
    /// The clues.
    pub question: Grid,
    /// The full grid.
    pub answer: Grid,
}

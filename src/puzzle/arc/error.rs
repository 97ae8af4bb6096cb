//! What can be wrong with a grid or a task that somebody hands us, one line each.

use super::grid::{COLOURS, MAX_SIDE};

/// Why numbers, a name or a request are not ARC.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // fields say by their names what they are
pub enum ArcError {
    /// A grid without cells.
    #[error("the grid is empty; a grid has 1 to {MAX_SIDE} rows and columns")]
    Empty,
    /// More rows or columns than there may be.
    #[error("the grid has {height} rows and {width} columns; at most {most} of each are allowed")]
    TooLarge { height: usize, width: usize, most: usize },
    /// Rows of different lengths. `row` counts from 1.
    #[error("row {row} has {found} cells but row 1 has {expected}; the rows of a grid are equally long")]
    Ragged { row: usize, found: usize, expected: usize },
    /// A number that is no colour. `row` and `column` count from 1.
    #[error("row {row}, column {column} is {value}; a colour is 0 to {}", COLOURS - 1)]
    Colour { row: usize, column: usize, value: i64 },
    /// A puzzle identifier's name that does not say how its copy was made.
    #[error("{0:?} is no name of a task or of a copy (TASK|||t<0–7>|||<10 colours, 0 first>)")]
    Name(String),
    /// A generator was asked for tasks that do not fit.
    #[error("small tasks are generated on boards of side {least} to {MAX_SIDE}, not {side}; choose a side in between")]
    Side { side: usize, least: usize },
    /// More test pairs were asked for than leave anything to show.
    #[error(
        "on boards of side {side}, every pair that task {task} could demonstrate is held out as a test pair; ask for fewer \
         test pairs, or a larger board"
    )]
    Exhausted { task: String, side: usize },
}

impl From<ArcError> for crate::Error {
    fn from(error: ArcError) -> Self {
        Self::Input(error.to_string())
    }
}

//! What can be wrong with a Sudoku that somebody hands us, one line each.

use super::grid::Conflict;

/// Why a text, a row of numbers or a request is not a Sudoku that can be worked with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // fields say by their names what they are
pub enum SudokuError {
    /// There are no rules for boards of this side.
    #[error("no Sudoku has side {0}: expected 4, 6, 9 or 16")]
    Side(usize),
    /// No board has this many cells.
    #[error("no Sudoku has {0} cells: expected 16 (4×4), 36 (6×6), 81 (9×9) or 256 (16×16)")]
    Cells(usize),
    /// A row of cells, values or tokens has the wrong length for its geometry.
    #[error("expected {expected} cells ({side}×{side}), found {found}", side = expected.isqrt())]
    Length { expected: usize, found: usize },
    /// A character that stands neither for a digit of this board nor for an empty cell. `cell` counts from 0.
    #[error(
        "cell {} (row {}, column {}) is {character:?}: expected . or a digit {}",
        cell + 1, cell / side + 1, cell % side + 1, digits(*side)
    )]
    Character { cell: usize, side: usize, character: char },
    /// A number outside `0..=side`. `cell` counts from 0.
    #[error(
        "cell {} (row {}, column {}) is {value}: expected 0 (empty) to {side}",
        cell + 1, cell / side + 1, cell % side + 1
    )]
    Value { cell: usize, side: usize, value: u8 },
    /// A token outside `1..=side + 1`. `cell` counts from 0.
    #[error(
        "cell {} (row {}, column {}) holds token {token}: expected 1 (empty) to {}",
        cell + 1, cell / side + 1, cell % side + 1, side + 1
    )]
    Token { cell: usize, side: usize, token: u8 },
    /// Two cells contradict each other.
    #[error("{0}")]
    Conflict(#[from] Conflict),
    /// Row or column orders that tear a box apart, or digits that are no permutation.
    #[error("not a symmetry of {side}×{side} Sudoku: {reason}")]
    NotASymmetry { side: usize, reason: &'static str },
    /// So many symmetries leave the grid as it is that its canonical form is out of reach.
    #[error("this {side}×{side} grid has more than {limit} arrangements that look alike: no canonical form")]
    TooSymmetric { side: usize, limit: usize },
    /// A set was asked for that has more inequivalent puzzles than could be found.
    #[error(
        "asked for {wanted} {side}×{side} test puzzles that are not equivalent to each other or to a training puzzle, \
         but only {found} inequivalent puzzles turned up: ask for fewer"
    )]
    TooFew { side: usize, wanted: usize, found: usize },
}

/// The digits of a board as a range to show: `1–9`, or `1–9, A–G` for side 16.
fn digits(side: usize) -> &'static str {
    match side {
        4 => "1–4",
        6 => "1–6",
        9 => "1–9",
        _ => "1–9, A–G",
    }
}

impl From<SudokuError> for crate::Error {
    fn from(error: SudokuError) -> Self {
        Self::Input(error.to_string())
    }
}

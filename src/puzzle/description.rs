//! What the rows of a data set are.

use serde::{Deserialize, Serialize};

use super::{Board, arc, grid, maze, sudoku};
use crate::{Error, Result};

/// The kinds of puzzles there are rooms for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Sudoku of any size.
    Sudoku,
    /// Shortest paths through mazes.
    Maze,
    /// Tasks of the Abstraction and Reasoning Corpus.
    Arc,
    /// Grids of somebody's own symbols.
    Grid,
    /// Rows of tokens that nothing is known of.
    Tokens,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sudoku, Self::Maze, Self::Arc, Self::Grid, Self::Tokens];

    /// Its name in files and settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sudoku => "sudoku",
            Self::Maze => "maze",
            Self::Arc => "arc",
            Self::Grid => "grid",
            Self::Tokens => "tokens",
        }
    }

    /// The kind of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What the rows of a data set are: `puzzle.json` in its root folder, left out where [`Description::infer`] says the same
/// (the published sets have none).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The kind of puzzle.
    pub kind: Kind,
    /// Rows of the grid.
    pub height: usize,
    /// Columns of the grid.
    pub width: usize,
    /// What each token is called, token 0 first; empty: as the kind has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<String>,
    /// Whether a grid may be smaller than that, on padding; files that do not say so may have such grids.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub padded: bool,
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

impl Description {
    /// A kind with symbols of its own, on a square grid of `seq_len` cells (where that is no square number: on one row).
    pub fn of(kind: Kind, seq_len: usize) -> Self {
        let side = seq_len.isqrt();
        let (height, width) = if side * side == seq_len { (side, side) } else { (1, seq_len) };
        Self { kind, height, width, symbols: Vec::new(), padded: true }
    }

    /// What rows of `seq_len` tokens out of `vocab_size` are, judged by the published sets: Sudoku of side n has n + 2
    /// tokens, mazes have 6, ARC has grids of 30×30 and 12.
    pub fn infer(seq_len: usize, vocab_size: usize) -> Self {
        let square = Self::of(Kind::Tokens, seq_len);
        let geometry = sudoku::Geometry::of_cells(seq_len).ok();
        let kind = match (square.height, vocab_size) {
            _ if geometry.is_some_and(|geometry| geometry.vocab_size() == vocab_size) => Kind::Sudoku,
            (30, 12) => Kind::Arc,
            (5..=128, maze::VOCABULARY) => Kind::Maze,
            _ => Kind::Tokens,
        };
        Self { kind, ..square }
    }

    /// S: tokens in a row.
    pub fn cells(&self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// The puzzle itself; `vocab_size` is that of the rows.
    ///
    /// # Errors
    /// What the description says fits neither its kind nor the vocabulary.
    pub fn board(&self, vocab_size: usize) -> Result<Box<dyn Board>> {
        Ok(match self.kind {
            Kind::Sudoku => {
                let geometry = sudoku::Geometry::of_cells(self.cells())?;
                if geometry.vocab_size() != vocab_size {
                    return Err(Error::input(format!(
                        "sudoku {geometry} has {} tokens, not {vocab_size}",
                        geometry.vocab_size()
                    )));
                }
                Box::new(geometry)
            }
            Kind::Maze => Box::new(maze::Board::new(self.cells(), vocab_size)?),
            Kind::Arc => {
                if self.height != self.width || self.height > arc::MAX_SIDE || vocab_size != arc::VOCAB {
                    return Err(Error::input(format!(
                        "arc has square boards of at most {0}×{0} and {1} tokens, not {2}×{3} and {vocab_size}",
                        arc::MAX_SIDE,
                        arc::VOCAB,
                        self.height,
                        self.width
                    )));
                }
                Box::new(arc::ArcBoard { side: self.height })
            }
            Kind::Grid | Kind::Tokens => Box::new(grid::Symbols::new(self, vocab_size)?),
        })
    }
}

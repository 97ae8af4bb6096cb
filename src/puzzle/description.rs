//! What the rows of a data set are.

use serde::{Deserialize, Serialize};

use super::{Board, Game, game, games, grid};
use crate::Result;

/// What the rows of a data set are: `puzzle.json` in its root folder, left out where [`Description::infer`] says the same
/// (the published sets have none).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The kind of puzzle: the name of a [`Game`].
    pub kind: String,
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
    pub fn of(kind: &str, seq_len: usize) -> Self {
        let side = seq_len.isqrt();
        let (height, width) = if side * side == seq_len { (side, side) } else { (1, seq_len) };
        Self { kind: kind.into(), height, width, symbols: Vec::new(), padded: true }
    }

    /// What rows of `seq_len` tokens out of `vocab_size` are: the first game that has that shape.
    pub fn infer(seq_len: usize, vocab_size: usize) -> Self {
        let games = games();
        let found = games.iter().find(|game| game.has_shape(seq_len, vocab_size));
        Self::of(found.map_or(grid::TOKENS, |game| game.name()), seq_len)
    }

    /// The kind of puzzle.
    ///
    /// # Errors
    /// When no game has that name.
    pub fn game(&self) -> Result<&'static dyn Game> {
        game(&self.kind)
    }

    /// S: tokens in a row.
    pub fn cells(&self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// The rules of the puzzle; `vocab_size` is that of the rows.
    ///
    /// # Errors
    /// What the description says fits neither its kind nor the vocabulary.
    pub fn board(&self, vocab_size: usize) -> Result<Box<dyn Board>> {
        self.game()?.board(self, vocab_size)
    }
}

//! Any puzzle that is a grid of symbols: how it is read and shown. Its rules are its owner's; nothing is known of them.
//!
//! A grid is text (a line a row, a character a cell) or JSON (rows of strings, or rows of cells that are numbers or
//! strings). A smaller grid stands in the upper left corner of the room there is; the rest is padding, token 0.

mod cells;
mod game;
mod symbols;

pub use cells::Cells;
pub use game::{GRID, GridGame, TOKENS, TokensGame};
pub use symbols::Symbols;

//! Grids of symbols as a kind of puzzle, and rows of which nothing is known.

use super::Symbols;
use crate::Result;
use crate::puzzle::{Board, Description, Game};

/// The name of grids of somebody's own symbols.
pub const GRID: &str = "grid";

/// The name of rows of tokens that nothing is known of.
pub const TOKENS: &str = "tokens";

/// Grids of somebody's own symbols.
#[derive(Clone, Copy, Debug)]
pub struct GridGame;

impl Game for GridGame {
    fn name(&self) -> &'static str {
        GRID
    }

    fn board(&self, description: &Description, vocab_size: usize) -> Result<Box<dyn Board>> {
        Ok(Box::new(Symbols::new(description, vocab_size)?))
    }
}

/// Rows of tokens that nothing is known of.
#[derive(Clone, Copy, Debug)]
pub struct TokensGame;

impl Game for TokensGame {
    fn name(&self) -> &'static str {
        TOKENS
    }

    fn board(&self, description: &Description, vocab_size: usize) -> Result<Box<dyn Board>> {
        Ok(Box::new(Symbols::new(description, vocab_size)?))
    }
}

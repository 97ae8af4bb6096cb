//! Sudoku as a kind of puzzle: its shapes, its generator and its settings.

use super::{Geometry, Puzzle, generate_split};
use crate::puzzle::{Board, Copies, Description, Example, Game, Generated, Order, Setting};
use crate::{Error, Result};

/// The name of the puzzle.
pub const SUDOKU: &str = "sudoku";

/// Sudoku of any size.
#[derive(Clone, Copy, Debug)]
pub struct SudokuGame;

impl Game for SudokuGame {
    fn name(&self) -> &'static str {
        SUDOKU
    }

    /// Side n has n + 2 tokens.
    fn has_shape(&self, seq_len: usize, vocab_size: usize) -> bool {
        Geometry::of_cells(seq_len).is_ok_and(|geometry| geometry.vocab_size() == vocab_size)
    }

    fn board(&self, description: &Description, vocab_size: usize) -> Result<Box<dyn Board>> {
        let geometry = Geometry::of_cells(description.cells())?;
        if geometry.vocab_size() != vocab_size {
            let own = geometry.vocab_size();
            return Err(Error::input(format!("sudoku {geometry} has {own} tokens, not {vocab_size}")));
        }
        Ok(Box::new(geometry))
    }

    fn copies(&self) -> Copies {
        Copies::Drawn
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::choice("sudoku_size", "Side of the generated Sudoku", 6, &[4, 6, 9]),
                Setting::number(
                    "extra_clues",
                    "Clues put back on top of a minimal puzzle: uniform in 0..=extra_clues",
                    6,
                    (0, 256),
                ),
            ]
        }
    }

    fn generate(&self, order: &Order<'_>) -> Result<Generated> {
        let side = order.settings.number("sudoku_size");
        if !matches!(side, 4 | 6 | 9) {
            return Err(Error::input(format!("cannot generate Sudoku of side {side}; choose 4, 6 or 9")));
        }
        let geometry = Geometry::of_side(side)?;
        let extra_clues = order.settings.number("extra_clues");
        let made = generate_split(geometry, order.train, order.test, extra_clues, order.seed)?;
        let example = |puzzle: &Puzzle| Example {
            question: puzzle.question.tokens().collect(),
            answer: puzzle.answer.tokens().collect(),
        };
        let [train, test] = [&made.train, &made.test].map(|puzzles| puzzles.iter().map(example).collect::<Vec<_>>());
        Ok(Generated::of(Description::of(SUDOKU, geometry.cells()), geometry.vocab_size(), &train, &test))
    }
}

//! Mazes as a kind of puzzle: their shapes, their generator and its settings.

use super::{MazeBoard, PathSpec, VOCABULARY, generate_split};
use crate::Result;
use crate::puzzle::{Board, Copies, Description, Game, Generated, Order, Setting};

/// The name of the puzzle.
pub const MAZE: &str = "maze";

/// Shortest paths through mazes.
#[derive(Clone, Copy, Debug)]
pub struct MazeGame;

impl Game for MazeGame {
    fn name(&self) -> &'static str {
        MAZE
    }

    fn has_shape(&self, seq_len: usize, vocab_size: usize) -> bool {
        let side = seq_len.isqrt();
        side * side == seq_len && (5..=128).contains(&side) && vocab_size == VOCABULARY
    }

    fn board(&self, description: &Description, vocab_size: usize) -> Result<Box<dyn Board>> {
        Ok(Box::new(MazeBoard::new(description.cells(), vocab_size)?))
    }

    fn copies(&self) -> Copies {
        Copies::Drawn
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::number("maze_size", "Side of the generated mazes", 8, (3, 128)),
                Setting::number(
                    "min_path",
                    "Cells on the shortest path of a generated maze at least, S and G included",
                    12,
                    (0, 16_384),
                ),
                Setting::flag("unique_path", "Generated mazes have one shortest path only", true),
            ]
        }
    }

    fn generate(&self, order: &Order<'_>) -> Result<Generated> {
        let settings = order.settings;
        let side = settings.number("maze_size");
        let spec = PathSpec { min_path: settings.number("min_path"), unique_path: settings.flag("unique_path") };
        let mazes = generate_split(side, order.train, order.test, spec, order.seed)?;
        Ok(Generated::of(Description::of(MAZE, side * side), VOCABULARY, &mazes.train, &mazes.test))
    }
}

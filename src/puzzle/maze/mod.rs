//! Mazes on a square: from S to G by a shortest path, one step up, left, right or down at a time, never through a wall.
//!
//! A maze is a row of tokens, row by row: [`WALL`] `#`, [`SPACE`] (a space), [`START`] `S`, [`GOAL`] `G`; in the answer,
//! the spaces of the path are [`PATH`] `o`. The published mazes have several shortest paths each, and any of them as the
//! label. [`solve`] counts them, and of several it takes **the one whose moves come first** in the order up, left,
//! right, down, compared from S on: so our labels are unique.
//!
//! | file | idea |
//! |---|---|
//! | [`solver`] | shortest paths: their length, their number, the first of them; which answers are right |
//! | [`generator`] | random mazes with a shortest path of a wanted length; a training and a test set that share none |
//! | [`symmetry`] | the eight rotations and reflections |
//! | `board.rs` | what the engine asks of every puzzle |

mod board;
pub mod generator;
pub mod solver;
pub mod symmetry;
#[cfg(test)]
mod tests;

pub use board::Board;
pub use generator::{Split, Wanted, generate, generate_split};
pub use solver::{MOST_PATHS, Solution, ends, is_solution, solve};
pub use symmetry::{SYMMETRIES, canonical, image, source};

/// Token of a wall.
pub const WALL: u8 = 1;
/// Token of a free cell.
pub const SPACE: u8 = 2;
/// Token of the cell the path starts in.
pub const START: u8 = 3;
/// Token of the cell the path ends in.
pub const GOAL: u8 = 4;
/// Token, in answers, of the free cells on the path.
pub const PATH: u8 = 5;
/// V: tokens of a maze, padding (0) included.
pub const VOCABULARY: usize = 6;
/// The characters of the tokens.
pub const SYMBOLS: [char; VOCABULARY] = ['?', '#', ' ', 'S', 'G', 'o'];

/// Shortest and longest side.
pub const SIDES: std::ops::RangeInclusive<usize> = 3..=128;

/// A maze and its answer, rows of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Puzzle {
    /// Walls, spaces, S and G.
    pub question: Vec<u8>,
    /// The same with the path.
    pub answer: Vec<u8>,
}

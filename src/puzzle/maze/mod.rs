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
//! | `game`, `board` | what the engine asks of every puzzle |
//! | `audit` | which mazes of a data set are proper ones |

mod audit;
mod board;
mod game;
pub mod generator;
pub mod solver;
pub mod symmetry;
#[cfg(test)]
mod tests;

pub use board::MazeBoard;
pub use game::{MAZE, MazeGame};
pub use generator::{PathSpec, generate, generate_split};
pub use solver::{MOST_PATHS, ShortestPath, ends, is_solution, solve};
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

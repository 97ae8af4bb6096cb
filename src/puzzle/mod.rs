//! The puzzles the engine learns: their rules, solvers, generators and symmetries, with no word about models.
//!
//! Each puzzle is a room of its own and knows nothing of the others; nothing here knows of tensors or files.
//!
//! * [`arc`]: ARC tasks: grids, symmetries, votes, small tasks of our own.
//! * [`sudoku`]: 4×4, 6×6, 9×9 and 16×16 Sudoku.
//! * [`maze`]: shortest paths through mazes.
//! * [`grid`]: any puzzle that is a grid of symbols, its rules unknown.
//!
//! Every puzzle is a [`Game`], which the registry knows by its name; [`register`] adds another one. Of a game and a
//! [`Description`] of its shape, the rest of the engine gets the [`Board`] that reads, draws and judges rows of tokens.

use crate::Result;
use crate::rng::Rng;

pub mod arc;
mod audit;
mod description;
mod game;
mod generated;
pub mod grid;
pub mod maze;
mod registry;
mod settings;
pub mod sudoku;

pub use audit::{Audit, Verdict};
pub use description::Description;
pub use game::{Copies, Game, Judge};
pub use generated::{BLANK, Example, Generated, GeneratedRows, GeneratedSplit, Order, RowSource, TokenPair, TrainTest};
pub use registry::{game, games, register};
pub use settings::{Allowed, Setting, Settings, Value};

/// The rules of a puzzle of one shape: how it is read, drawn, judged and moved about. Questions and answers are
/// rows of tokens, row by row, as they stand in a data set.
pub trait Board: Send + Sync {
    /// What it is, such as `sudoku 9×9`.
    fn name(&self) -> String;

    /// The tokens of a question that somebody typed; refused with one clear line if it cannot be one.
    fn parse(&self, text: &str) -> Result<Vec<u8>>;

    /// What somebody who asks this question should know about it, such as that it has several answers; no line break.
    fn remark(&self, _question: &[u8]) -> Option<String> {
        None
    }

    /// Tokens as text, in the form that [`Board::parse`] reads.
    fn text(&self, tokens: &[u8]) -> String;

    /// The picture of `tokens`: cells that `question` gives are plain, `changed` ones stand out (marked `*` where there
    /// is no `colour`). Every line ends with a line feed.
    fn draw(&self, question: &[u8], tokens: &[u8], changed: &[bool], colour: bool) -> String;

    /// Whether two tokens mean the same here, and so look the same.
    fn same(&self, a: u8, b: u8) -> bool {
        a == b
    }

    /// How answers are judged.
    fn judge(&self) -> Judge {
        Judge::Stored
    }

    /// Whether `answer` solves `question` by the rules, where [`Board::judge`] says that they are known.
    fn solves(&self, _question: &[u8], _answer: &[u8]) -> bool {
        false
    }

    /// The rules that an audit of a data set applies, where they are known.
    fn audit(&self) -> Option<&dyn Audit> {
        None
    }

    /// Draws a move that turns every puzzle of the kind into another one that is just as hard, where the game's copies are
    /// [`Copies::Drawn`]. Allocates nothing.
    fn random_symmetry(&self, _rng: &mut Rng, _moves: &mut Moves) {}

    /// What to say over a test puzzle that a trained model is shown.
    fn heading(&self) -> String {
        "A puzzle of the test split:\n".into()
    }
}

/// A symmetry as what it does to a row of tokens: `image[i] = tokens[row[source[i]]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moves {
    /// The cell that moves to each cell.
    pub source: Vec<u32>,
    /// What each token becomes.
    pub tokens: [u8; 256],
}

impl Moves {
    /// The one that changes nothing, for rows of `cells` tokens.
    pub fn identity(cells: usize) -> Self {
        Self { source: (0..cells as u32).collect(), tokens: std::array::from_fn(|token| token as u8) }
    }

    /// The image of `row`, cell by cell.
    pub fn image<'a>(&'a self, row: impl Fn(usize) -> u8 + 'a) -> impl Iterator<Item = u8> + 'a {
        self.source.iter().map(move |&from| self.tokens[usize::from(row(from as usize))])
    }
}

//! What a kind of puzzle is to the rest of the engine: one trait, one implementation a puzzle.

use super::{Board, Description, Generated, Order, Setting};
use crate::{Error, Result};

/// A kind of puzzle: how its rows are recognised, its rules, its generator, what its copies are.
///
/// A new one is one implementation, registered once: by a line in `registry.rs`, or from outside the crate with
/// [`register`](super::register). From then on it can be named in settings (`data.generate`, `task.puzzle`), read,
/// generated, trained on, evaluated and solved in the terminal like those that are built in.
pub trait Game: Send + Sync {
    /// Its name in files and settings, such as `sudoku`.
    fn name(&self) -> &'static str;

    /// Whether a data set that does not say what its rows are is this, judged by the shape of its rows.
    fn has_shape(&self, _seq_len: usize, _vocab_size: usize) -> bool {
        false
    }

    /// The rules for the shape that `description` gives; `vocab_size` is that of the rows.
    ///
    /// # Errors
    /// When there is no such puzzle of that shape or vocabulary.
    fn board(&self, description: &Description, vocab_size: usize) -> Result<Box<dyn Board>>;

    /// What its augmented copies are.
    fn copies(&self) -> Copies {
        Copies::None
    }

    /// The settings of its generator, all of them; their keys are unique among all games.
    fn settings(&self) -> &'static [Setting] {
        &[]
    }

    /// Generates a training set and a test set. The result depends on the order alone, not on the number of threads.
    ///
    /// # Errors
    /// When there is no generator, or not so many puzzles.
    fn generate(&self, _order: &Order<'_>) -> Result<Generated> {
        Err(Error::input(format!("{} has no generator; name a data set with data.dir", self.name())))
    }

    /// Whether [`Game::generate`] has something to give.
    fn has_generator(&self) -> bool {
        !self.settings().is_empty()
    }
}

/// What the augmented copies of a puzzle are.
#[derive(Clone, Copy, Debug)]
pub enum Copies {
    /// There are none: no symmetry is known.
    None,
    /// Images under [`Board::random_symmetry`], drawn for every example or stored; a copy is no puzzle of its own.
    Drawn,
    /// Puzzles with identifiers of their own, and so rows of their own, whether stored or generated. The function refuses
    /// what is not the name of a puzzle or of one of its copies. A question alone does not say whose it is.
    Named(fn(&str) -> Result<()>),
}

impl Copies {
    /// Whether copies have identifiers of their own.
    pub fn are_named(self) -> bool {
        matches!(self, Self::Named(_))
    }
}

/// How an evaluation judges answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// By the stored answer: the rules are not known, or have nothing to add.
    Stored,
    /// By the rules ([`Board::solves`]).
    Rules {
        /// What an answer is called that solves its question, such as `solution`.
        answer: &'static str,
        /// Whether a question may have several answers, so that an evaluation counts those that are valid apart from those
        /// that are the stored one.
        several: bool,
    },
    /// The answers to all copies of a question are counted as votes.
    Votes,
}

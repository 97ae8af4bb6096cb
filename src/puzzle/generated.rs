//! What a generator is to make, and what it returns: rows of tokens in two splits.

use std::fmt::Debug;
use std::sync::Arc;

use super::{Description, Settings};
use crate::Result;

/// What a generator is to make.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// Training puzzles.
    pub train: usize,
    /// Test puzzles, none of which may be a training puzzle in disguise; 0: no test split.
    pub test: usize,
    /// Fixes every draw.
    pub seed: u64,
    /// Every setting that the game declares, each checked by itself.
    pub settings: &'a Settings,
}

/// A question and its answer, rows of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Example {
    /// What is given.
    pub question: Vec<u8>,
    /// What it is to become.
    pub answer: Vec<u8>,
}

/// A question and its answer, wherever they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenPair<'a> {
    /// The question's tokens.
    pub question: &'a [u8],
    /// The answer's tokens.
    pub answer: &'a [u8],
}

/// A training set and a test set of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainTest<P> {
    /// To learn from.
    pub train: Vec<P>,
    /// To be tested on.
    pub test: Vec<P>,
    /// How many of the training puzzles, the last ones, are symmetric copies of earlier ones: more than 0 only where there
    /// are not as many puzzles as were ordered.
    pub copies: usize,
}

/// Generates or reads rows of tokens one at a time. A row is a function of its number.
pub trait RowSource: Debug + Send + Sync {
    /// Writes row `row` into `out`, one row long.
    ///
    /// # Errors
    /// When it cannot be read; `out` then holds anything.
    fn write_row(&self, row: usize, out: &mut [u8]) -> Result<()>;
}

/// Rows of tokens: all of them, or the way to generate each.
#[derive(Clone, Debug)]
pub enum GeneratedRows {
    /// All rows, one after the other.
    Stored(Vec<u8>),
    /// A row is generated when it is needed.
    OnDemand(Arc<dyn RowSource>),
}

/// A split that a generator has made. Groups, puzzles and rows are laid out by prefix sums, as in
/// `dataset`.
#[derive(Clone, Debug)]
pub struct GeneratedSplit {
    /// Questions.
    pub questions: GeneratedRows,
    /// Answers.
    pub answers: GeneratedRows,
    /// Identifier of each puzzle.
    pub puzzle_identifiers: Vec<u32>,
    /// Where each puzzle's rows start, one entry more than there are puzzles.
    pub puzzle_indices: Vec<u32>,
    /// Where each group's puzzles start, one entry more than there are groups.
    pub group_indices: Vec<u32>,
}

impl GeneratedSplit {
    /// Puzzles of one row each, none a copy of another, with the blank identifier.
    pub fn of(examples: &[Example]) -> Self {
        let rows = examples.len() as u32;
        let stored =
            |pick: fn(&Example) -> &Vec<u8>| GeneratedRows::Stored(examples.iter().flat_map(pick).copied().collect());
        Self {
            questions: stored(|example| &example.question),
            answers: stored(|example| &example.answer),
            puzzle_identifiers: vec![0; examples.len()],
            puzzle_indices: (0..=rows).collect(),
            group_indices: (0..=rows).collect(),
        }
    }
}

/// The name of the identifier that says nothing.
pub const BLANK: &str = "<blank>";

/// What a generator has made.
#[derive(Clone, Debug)]
pub struct Generated {
    /// What the rows are.
    pub puzzle: Description,
    /// V: tokens are `0..vocab_size`. Token 0 is padding; as a label it carries no loss.
    pub vocab_size: usize,
    /// Names of the puzzle identifiers; the blank one comes first.
    pub identifiers: Vec<String>,
    /// To learn from.
    pub train: GeneratedSplit,
    /// To be tested on.
    pub test: Option<GeneratedSplit>,
}

impl Generated {
    /// Puzzles of one row each.
    pub fn of(puzzle: Description, vocab_size: usize, train: &[Example], test: &[Example]) -> Self {
        Self {
            puzzle,
            vocab_size,
            identifiers: vec![BLANK.into()],
            train: GeneratedSplit::of(train),
            test: (!test.is_empty()).then(|| GeneratedSplit::of(test)),
        }
    }
}

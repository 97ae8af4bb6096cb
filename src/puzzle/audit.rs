//! What an audit has to know of a puzzle.

use super::TokenPair;

/// What one row turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A proper puzzle with its answer.
    Good,
    /// Holds what no question holds.
    NoBoard,
    /// Has no solution.
    Unsolvable,
    /// Has more than one.
    SeveralSolutions,
    /// Its answer does not solve its question.
    WrongAnswer,
}

/// A puzzle's rules, as an audit of a data set applies them. A canonical form is a row of tokens that all images of a row
/// share.
pub trait Audit: Sync {
    /// What a row is.
    fn verdict(&self, pair: TokenPair<'_>) -> Verdict;

    /// Whether a puzzle with several right answers, one of them stored, is a proper one.
    fn several_answers(&self) -> bool;

    /// What puzzles are counted by, such as `number of clues`.
    fn measure(&self) -> &'static str;

    /// The same in one word, such as `clues`: what `trm eval --by` takes.
    fn measure_key(&self) -> &'static str;

    /// Its value for a puzzle.
    fn size(&self, pair: TokenPair<'_>) -> usize;

    /// The canonical form of a question or an answer; the row itself where it has none.
    fn form(&self, tokens: &[u8]) -> Vec<u8>;

    /// Whether a symmetry turns `from` into `to`.
    fn is_image(&self, from: TokenPair<'_>, to: TokenPair<'_>) -> bool;

    /// What has to be known to read the figures.
    fn notes(&self) -> Vec<String>;
}

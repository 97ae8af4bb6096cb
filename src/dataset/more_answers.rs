//! Puzzles with several right answers: those beside the one that stands in `labels`.
//!
//! ```text
//! <split>/<set>__more_answers.npy           [n, seq_len]     tokens
//! <split>/<set>__more_answer_indices.npy    [examples + 1]   prefix sums: example e has rows indices[e]..indices[e + 1]
//! ```

use std::borrow::Cow;
use std::ops::Range;

use super::{Split, Tokens};
use crate::Result;
use crate::rng::Rng;

/// The right answers of a split beside those in its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct MoreAnswers {
    /// One after the other, `[n, seq_len]`.
    pub rows: Tokens,
    /// Where each example's start, `[examples + 1]`; an example may have none.
    pub indices: Vec<u32>,
}

impl MoreAnswers {
    /// The rows of an example.
    pub fn of(&self, example: usize) -> Range<usize> {
        self.indices[example] as usize..self.indices[example + 1] as usize
    }
}

/// The stream of a draw's seed that says which of several answers it takes; the symmetry takes the seed itself.
const ANSWER: u64 = 1;

impl Split {
    /// All right answers to an example: the one in `labels`, then the others.
    pub fn answers(&self, example: usize) -> impl Iterator<Item = Result<Cow<'_, [u8]>>> {
        let more = self.more_answers.iter().flat_map(move |more| more.of(example).map(|row| more.rows.row(row)));
        std::iter::once_with(move || self.labels.row(example)).chain(more)
    }

    /// Whether an example has several right answers.
    pub fn has_more_answers(&self, example: usize) -> bool {
        self.more_answers.as_ref().is_some_and(|more| !more.of(example).is_empty())
    }

    /// The rows, and which of them, that hold the answer a draw of `example` trains on: each of its answers as likely.
    pub(super) fn drawn_answer(&self, example: usize, seed: u64) -> (&Tokens, usize) {
        if let Some(more) = &self.more_answers {
            let rows = more.of(example);
            let drawn = if rows.is_empty() { 0 } else { Rng::stream(seed, ANSWER).below(rows.len() + 1) };
            if drawn > 0 {
                return (&more.rows, rows.start + drawn - 1);
            }
        }
        (&self.labels, example)
    }
}

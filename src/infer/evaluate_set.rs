//! Evaluation of a split of a data set.

use std::collections::BTreeSet;

use super::evaluate::score;
use super::outcomes::Outcomes;
use super::{Identifiers, Inference, Observer};
use crate::dataset::{Draw, Split, TaskData, write_example};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::puzzle::Judge;
use crate::report::Evaluation;

/// An evaluation, row by row.
pub struct Evaluated {
    /// The figures.
    pub evaluation: Evaluation,
    /// What each row came to, numbered as in `rows`.
    pub outcomes: Outcomes,
    /// The rows of the split that were evaluated.
    pub rows: Vec<usize>,
}

/// `(right, labelled)` tokens by that one of an example's right answers that most tokens agree with.
fn nearest(split: &Split, example: usize, answer: &[u8]) -> Result<(u32, u32)> {
    let mut best = (0, 0);
    for right in split.answers(example) {
        let labels: Vec<i32> = right?.iter().map(|&token| split.label(token)).collect();
        let found = score(example, answer, &labels)?;
        if best.1 == 0 || best.1 - best.0 > found.1 - found.0 {
            best = found;
        }
    }
    Ok(best)
}

impl TaskData {
    /// Accuracy of a model on the first `limit` examples of a split (0: all) after each supervision step; of an ARC set,
    /// on those of the tasks themselves, without their copies. Of several right answers any counts. An observer is told of each answer. `None` when `stop` cut it
    /// short.
    pub fn evaluate<D: Device>(
        &self,
        inference: &Inference<'_, D>,
        split: &str,
        limit: usize,
        identifiers: Identifiers,
        observer: Option<Observer<'_>>,
        stop: impl Fn() -> bool + Sync,
    ) -> Result<Option<Evaluation>> {
        let rows = self.rows(split, limit)?;
        let evaluated = self.evaluate_rows(inference, self.split(split)?, rows, identifiers, observer, stop)?;
        Ok(evaluated.map(|evaluated| evaluated.evaluation))
    }

    /// Whether a puzzle may have other right answers than the stored one, so that evaluations say how many are valid.
    pub fn may_have_several_answers(&self) -> bool {
        matches!(self.board().judge(), Judge::Rules { several: true, .. })
    }

    /// The rows of a split that an evaluation of up to `limit` (0: all) is of.
    pub fn rows(&self, split: &str, limit: usize) -> Result<Vec<usize>> {
        let split = self.split(split)?;
        let mut rows = match self.dataset().has_named_copies() {
            true => split.rows_of_copies(split.groups(), 0),
            false => (0..split.examples()).collect(),
        };
        rows.truncate(if limit == 0 { usize::MAX } else { limit });
        Ok(rows)
    }

    /// The same on these rows, row by row.
    pub fn evaluate_rows<D: Device>(
        &self,
        inference: &Inference<'_, D>,
        split: &Split,
        rows: Vec<usize>,
        identifiers: Identifiers,
        observer: Option<Observer<'_>>,
        stop: impl Fn() -> bool + Sync,
    ) -> Result<Option<Evaluated>> {
        let identifiers = self.table_rows_of(split, &rows, identifiers)?;
        let no_answers = self.dataset().has_named_copies() && split.has_no_arc_answers()?;
        let write = |at: usize, inputs: &mut [u8], labels: &mut [i32]| {
            let draw = Draw { example: rows[at] as u32, augment_seed: 0 };
            write_example(split, draw, None, inputs, labels)?;
            Ok(identifiers[split.puzzle_of(rows[at])])
        };
        let board = self.may_have_several_answers().then_some(self.board());
        let right = |at: usize, answer: &[u8], labels: &[i32]| match no_answers {
            true => Ok((0, 0)),
            false if split.has_more_answers(rows[at]) => nearest(split, rows[at], answer),
            false => score(at, answer, labels),
        };
        let outcomes = inference.outcomes(rows.len(), write, right, board, observer, stop)?;
        Ok(outcomes.map(|outcomes| {
            let evaluation = outcomes.evaluation(|at| split.group_of(rows[at]));
            Evaluated { evaluation, outcomes, rows }
        }))
    }

    /// The row of the puzzle table for each puzzle of a split; those of other puzzles than `rows` are of are any.
    ///
    /// # Errors
    /// Where the model was trained without one of the puzzles.
    fn table_rows_of(&self, split: &Split, rows: &[usize], identifiers: Identifiers) -> Result<Vec<u32>> {
        let shown = identifiers.of(split)?;
        if !self.has_other_identifiers() {
            return Ok(shown);
        }
        let needed: BTreeSet<u32> = rows.iter().map(|&row| shown[split.puzzle_of(row)]).collect();
        let mut missing = needed.iter().filter(|&&id| self.table_row(id).is_none());
        if let Some(&first) = missing.next() {
            return Err(Error::input(format!(
                "{} of the {} puzzle identifiers to be evaluated are none of those that the model was trained with (the first: \
                 {}); evaluate the set it was trained on, or without identifiers, with --id blank",
                1 + missing.count(),
                needed.len(),
                self.dataset().identifiers[first as usize]
            )));
        }
        Ok(shown.into_iter().map(|id| self.table_row(id).unwrap_or(0)).collect())
    }
}

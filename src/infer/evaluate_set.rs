//! Evaluation of a split of a data set.

use super::{Identifiers, Inference, Observer};
use crate::dataset::{Draw, Split, TaskData, write_example};
use crate::device::Device;
use crate::error::Result;
use crate::puzzle::Judge;
use crate::report::Evaluation;

impl TaskData {
    /// Accuracy of a model on the first `limit` examples of a split (0: all) after each supervision step; of an ARC set,
    /// on those of the tasks themselves, without their copies. An observer receives each answer. `None` when `stop` cut it
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
        self.evaluate_rows(inference, self.split(split)?, &rows, identifiers, observer, stop)
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

    /// The same on these rows.
    pub(super) fn evaluate_rows<D: Device>(
        &self,
        inference: &Inference<'_, D>,
        split: &Split,
        rows: &[usize],
        identifiers: Identifiers,
        observer: Option<Observer<'_>>,
        stop: impl Fn() -> bool + Sync,
    ) -> Result<Option<Evaluation>> {
        let identifiers = identifiers.of(split)?;
        let write = |at: usize, inputs: &mut [u8], labels: &mut [i32]| {
            let draw = Draw { example: rows[at] as u32, augment_seed: 0 };
            write_example(split, draw, None, inputs, labels)?;
            Ok(identifiers[split.puzzle_of(rows[at])])
        };
        let several = matches!(self.board().judge(), Judge::Rules { several: true, .. });
        let board = several.then_some(self.board());
        inference.evaluate(rows.len(), write, board, observer, stop)
    }
}

//! ARC's measure: every copy of a test input is answered, undone and counted as a vote (specification, "ARC scoring").

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::{Answered, Evaluated, Identifiers, Inference, Observer};
use crate::dataset::TaskData;
use crate::dataset::arc::TEST;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::puzzle::arc::vote::{Ballot, Score};
use crate::puzzle::arc::{Augmentation, crop};

/// An evaluation by tasks.
pub struct ArcEvaluation {
    /// Accuracy by rows: every copy of every test input.
    pub rows: Evaluated,
    /// pass@k over the tasks with known answers.
    pub score: Score,
    /// What `submission.json` holds.
    pub submission: Value,
}

impl TaskData {
    /// The rows that answer the test inputs of the first `limit` tasks (0: all), with up to `copies` copies of each.
    pub fn arc_rows(&self, limit: usize, copies: usize) -> Result<Vec<usize>> {
        let split = self.split(TEST)?;
        let groups = if limit == 0 { split.groups() } else { limit.min(split.groups()) };
        Ok(split.rows_of_copies(groups, copies))
    }

    /// Answers the test inputs of the first `limit` tasks (0: all) of the split `test` and of up to `copies` copies of each,
    /// and counts the votes in the order of the rows. An observer is told of every row that is answered.
    pub fn evaluate_arc<D: Device>(
        &self,
        inference: &Inference<'_, D>,
        limit: usize,
        copies: usize,
        identifiers: Identifiers,
        watch: Observer<'_>,
    ) -> Result<ArcEvaluation> {
        let (dataset, split) = (self.dataset(), self.split(TEST)?);
        let tasks = dataset.arc_tasks(limit)?;
        let side = dataset.puzzle.width;
        let rows = self.arc_rows(limit, copies)?;
        let names: Vec<(&str, Augmentation)> = split.puzzle_identifiers[..split.group(tasks.len() - 1).end]
            .iter()
            .map(|&id| Augmentation::of_name(&dataset.identifiers[id as usize]).map_err(Error::from))
            .collect::<Result<_>>()?;
        let undone = |example: usize, tokens: &[u8]| names[split.puzzle_of(example)].1.undo(&crop(tokens, side));
        let votes = Mutex::new(Vec::new());
        let tell = |answered: &Answered<'_>| {
            (watch.tell)(answered);
            let example = rows[answered.at];
            let vote = (example, undone(example, answered.answer()), answered.confidence());
            votes.lock().unwrap_or_else(PoisonError::into_inner).push(vote);
        };
        let observer = Observer { tell: &tell, ..watch };
        let evaluated = self.evaluate_rows(inference, split, rows.clone(), identifiers, Some(observer), || false)?;
        let by_row = evaluated.expect("nothing stops it");
        let mut votes = votes.into_inner().unwrap_or_else(PoisonError::into_inner);
        votes.sort_unstable_by_key(|&(example, ..)| example);
        let mut ballot = Ballot::new(&tasks);
        for (example, answer, confidence) in votes {
            let input = undone(example, &split.inputs.row(example)?);
            ballot.cast(names[split.puzzle_of(example)].0, &input, answer, confidence);
        }
        Ok(ArcEvaluation { rows: by_row, score: ballot.score(), submission: ballot.submission() })
    }
}

//! All rows of a split by number, each generated from its task when it is needed.

use std::sync::Arc;

use super::{Augmentation, Pair, encode};
use crate::Result;
use crate::puzzle::RowSource;
use crate::rng::Rng;

/// A task in a split, with its copies.
#[derive(Clone, Debug)]
pub struct TaskCopies {
    /// Its pairs, in the order of the rows of each copy.
    pub pairs: Vec<Pair>,
    /// Its copies; the first is the task itself.
    pub copies: Arc<[Augmentation]>,
    /// Identifier of the first copy; the others follow.
    pub identifier: u32,
    /// Row of the first pair of the first copy.
    pub first_row: usize,
}

/// All rows of a split by number.
#[derive(Debug)]
pub(super) struct CopiedRows {
    pub tasks: Arc<Vec<TaskCopies>>,
    /// Side of the board.
    pub side: usize,
    /// Seed of the offsets; `None`: every grid stands in the corner.
    pub translation: Option<u64>,
    /// Whether these are the labels.
    pub outputs: bool,
}

impl RowSource for CopiedRows {
    fn write_row(&self, row: usize, out: &mut [u8]) -> Result<()> {
        let task = &self.tasks[self.tasks.partition_point(|task| task.first_row <= row) - 1];
        let (copy, at) = ((row - task.first_row) / task.pairs.len(), (row - task.first_row) % task.pairs.len());
        let (pair, made) = (&task.pairs[at], &task.copies[copy]);
        let offset = match self.translation {
            Some(seed) => offset(seed, task.identifier + copy as u32, task.pairs.len(), at, pair, made, self.side),
            None => (0, 0),
        };
        encode(if self.outputs { &pair.output } else { &pair.input }, made, offset, self.side, out);
        Ok(())
    }
}

/// Offset shared by the two grids of pair `at` of a copy's `pairs`: uniform in what they leave of the board; (0, 0) for
/// one pair of every copy. Each is drawn from a stream of its own, so that any row can be made without the others.
fn offset(
    seed: u64,
    identifier: u32,
    pairs: usize,
    at: usize,
    pair: &Pair,
    made: &Augmentation,
    side: usize,
) -> (usize, usize) {
    let stream = |item: usize| Rng::stream(seed, TRANSLATIONS | u64::from(identifier) << 16 | item as u64);
    if stream(0xffff).below(pairs) == at {
        return (0, 0);
    }
    let (a, b) = (made.dihedral.shape(&pair.input), made.dihedral.shape(&pair.output));
    let mut rng = stream(at);
    (rng.below(side - a.0.max(b.0) + 1), rng.below(side - a.1.max(b.1) + 1))
}

/// Streams of the offsets.
const TRANSLATIONS: u64 = 1 << 62;

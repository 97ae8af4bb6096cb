//! Data parallelism over processes: ranks that each own one node of the summation tree.
//!
//! The tree over the gradient groups does not care where its lower part is summed. With a power of two of ranks, at most as
//! many as there are groups, rank r owns node r of the level that has so many nodes ([`node`](super::node)): its groups, and
//! their sum. [`Peers::sum_tree`] adds these sums pairwise, left + right, level by level: the same pairs that threads of one
//! process add. So a run on several ranks has the bits of one on a single rank.

use crate::error::Result;

/// The processes that train one model together.
pub trait Peers<T>: Send {
    /// Which of them this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are: a power of two.
    fn size(&self) -> usize;

    /// All-reduce: replaces equally long arrays of all ranks by their sum, added pairwise: rank 0 + rank 1, rank 2 + rank 3, …, then
    /// the sums of those.
    ///
    /// # Errors
    /// When another rank cannot be reached.
    fn sum_tree(&mut self, values: &mut [T]) -> Result<()>;

    /// All-gather: replaces each rank's figures by those of all, in the order of the ranks; every rank may give another count.
    ///
    /// # Errors
    /// As [`Peers::sum_tree`].
    fn gather(&mut self, figures: &mut Vec<f64>) -> Result<()>;
}

/// A single process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl<T> Peers<T> for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum_tree(&mut self, _: &mut [T]) -> Result<()> {
        Ok(())
    }

    fn gather(&mut self, _: &mut Vec<f64>) -> Result<()> {
        Ok(())
    }
}

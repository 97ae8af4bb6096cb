//! How a batch is cut: into slices, whose gradients are summed apart, and micro-batches of whole slices.

use std::ops::Range;

/// Rows that are enough for a slice: products that sum over rows want no more than some thousands.
const SLICE_ROWS: usize = 3072;

/// Slices of a batch that is too small for so many of them of that size. One block of a kernel goes through a slice from its first
/// row to its last, so fewer and longer ones would leave most of a device idle.
const SLICES: usize = 16;

/// Weights for each row that a slice has at least: its sums are read and written in every call of the network, which should take
/// less time than the products that are summed.
const WEIGHTS_PER_ROW: usize = 4096;

/// Slices at most: each costs as much memory as all weights.
const MAX_SLICES: usize = 32;

/// How a batch is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Sequences of this process.
    pub(super) batch: usize,
    /// Sequences of a slice.
    pub(super) per_slice: usize,
    /// Sequences worked on at a time: whole slices.
    pub(super) micro_batch: usize,
}

impl Cut {
    /// As many slices as there are to be gradient groups; where that is left to the engine (0), slices of enough rows, of
    /// sequences of `len` positions, for a model of so many weights. As yet one at a time.
    pub(super) fn new(batch: usize, len: usize, weights: usize, groups: usize) -> Self {
        let rows = (batch * len / SLICES).max(weights / WEIGHTS_PER_ROW).clamp(1, SLICE_ROWS);
        let wanted = if groups == 0 { rows.div_ceil(len) } else { batch.div_ceil(groups) };
        let per_slice = wanted.max(batch.div_ceil(MAX_SLICES)).min(batch).max(1);
        Self { batch, per_slice, micro_batch: per_slice }
    }

    pub(super) fn slices(self) -> usize {
        self.batch.div_ceil(self.per_slice)
    }

    /// As many slices at a time as `fits` allows, one at least, in micro-batches of nearly equal size.
    pub(super) fn grown(self, fits: impl Fn(usize) -> bool) -> Self {
        let slices = self.slices();
        let most = (1..=slices).rev().find(|&n| fits((n * self.per_slice).min(self.batch))).unwrap_or(1);
        let each = slices.div_ceil(slices.div_ceil(most));
        Self { micro_batch: (each * self.per_slice).min(self.batch), ..self }
    }

    /// The sequences of each micro-batch.
    pub(super) fn parts(self) -> impl Iterator<Item = Range<usize>> {
        (0..self.batch).step_by(self.micro_batch).map(move |first| first..(first + self.micro_batch).min(self.batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_follow_from_the_batch_alone_and_micro_batches_are_whole_ones() {
        for (batch, len) in [(768, 97), (768, 916), (96, 97), (5, 916), (1, 17), (33, 1600)] {
            let cut = Cut::new(batch, len, 5_000_000, 0);
            assert_eq!(Cut::new(batch, len, 5_000_000, 3).slices(), batch.div_ceil(batch.div_ceil(3)));
            assert!(cut.slices() <= MAX_SLICES && cut.per_slice <= batch);
            for most in 1..=batch {
                let grown = cut.grown(|sequences| sequences <= most);
                assert_eq!((grown.per_slice, grown.batch), (cut.per_slice, batch));
                assert!(grown.micro_batch.is_multiple_of(cut.per_slice) || grown.micro_batch == batch);
                assert!(grown.micro_batch <= most.max(cut.per_slice));
                let parts: Vec<_> = grown.parts().collect();
                assert!(parts.iter().all(|part| part.start.is_multiple_of(cut.per_slice)));
                assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), batch);
            }
        }
    }
    #[test]
    fn a_small_batch_is_cut_finer_and_more_so_for_a_small_model() {
        let slices = |batch, len, weights| Cut::new(batch, len, weights, 0).slices();
        assert_eq!([768, 96, 32].map(|batch| slices(batch, 97, 5_000_000)), [24, 8, 3]);
        assert_eq!([384, 32, 8, 1].map(|batch| slices(batch, 37, 200_000)), [16, 16, 4, 1]);
    }
}

//! The order of training (specification, "Sampling").
//!
//! Every epoch is a fresh permutation of the groups; a group gives one of its puzzles at random, and that puzzle
//! as many of its examples as there is room for, without replacement. Batches run on from one epoch into the next,
//! as in the published code, so only the end of training has a short batch, and [`Sampler::total_steps`] drops it.

use serde::{Deserialize, Serialize};

use super::Split;
use crate::rng::Rng;
use crate::{Error, Result};

/// One slot of a training batch: which row, and the randomness of its augmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Row of the split.
    pub example: u32,
    /// Seed of the symmetry drawn for this row; only used by online augmentation. It is drawn either way, so that
    /// the order of rows does not depend on augmentation.
    pub augment_seed: u64,
}

/// Draws training batches forever. Nothing is allocated after [`Sampler::new`].
///
/// ```
/// # use trm::dataset::{sudoku, Sampler};
/// # fn main() -> trm::Result<()> {
/// # let data = sudoku::build(4, 20, 5, 2, 1)?;
/// let split = data.split("train")?;
/// let mut sampler = Sampler::new(split, 8, 42);
/// let mut batch = Vec::new();
/// sampler.next_batch(split, &mut batch);
/// assert_eq!(batch.len(), 8);
///
/// let mut twin = Sampler::resume(split, sampler.state())?; // goes on where the first one stands
/// # let mut again = Vec::new();
/// # sampler.next_batch(split, &mut batch); twin.next_batch(split, &mut again);
/// # assert_eq!(batch, again);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    state: SamplerState,
    /// This epoch's permutation of the groups; a function of (seed, epoch), so not part of the state.
    order: Vec<u32>,
    /// Room to shuffle the examples of one puzzle.
    scratch: Vec<u32>,
}

/// Where a [`Sampler`] stands: a few numbers, whatever the size of the data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerState {
    /// Slots in a batch.
    pub batch_size: u64,
    /// Groups of the split it was made for.
    pub groups: u64,
    /// Take only the first puzzle of each group.
    pub originals_only: bool,
    /// Fixes every draw.
    pub seed: u64,
    /// Epochs begun before this one.
    pub epoch: u64,
    /// Groups of this epoch already used.
    pub used: u64,
    /// Generator of the draws inside groups.
    pub rng: Rng,
}

/// Streams of the seed; permutations take `ORDER + epoch`.
const DRAWS: u64 = 0;
const ORDER: u64 = 1;

impl Sampler {
    /// A sampler at the start of its first epoch. The split must not be empty (no split that was read or built is).
    pub fn new(split: &Split, batch_size: usize, seed: u64) -> Self {
        Self::at(
            split,
            SamplerState {
                batch_size: batch_size as u64,
                groups: split.groups() as u64,
                originals_only: false,
                seed,
                epoch: 0,
                used: 0,
                rng: Rng::stream(seed, DRAWS),
            },
        )
    }

    /// Take only the first puzzle of each group, the original. Meant for online augmentation, where stored copies
    /// add nothing: training then does not depend on how many of them the set holds.
    pub fn originals_only(mut self) -> Self {
        self.state.originals_only = true;
        self
    }

    /// Where the sampler stands, for a checkpoint.
    pub fn state(&self) -> SamplerState {
        self.state.clone()
    }

    /// The sampler that stood at `state`; its further batches are the same, bit for bit.
    pub fn resume(split: &Split, state: SamplerState) -> Result<Self> {
        let groups = split.groups() as u64;
        if state.groups != groups {
            return Err(Error::input(format!(
                "the checkpoint was made on {} groups but the data set has {groups}; resume with the same data set",
                state.groups
            )));
        }
        if state.used > groups {
            return Err(Error::input("the checkpoint's place in the data order is impossible; it is damaged"));
        }
        Ok(Self::at(split, state))
    }

    fn at(split: &Split, state: SamplerState) -> Self {
        let groups = split.groups() as u32;
        let largest = (0..split.puzzles()).map(|p| split.puzzle(p).len()).max().unwrap_or(0);
        let mut sampler = Self { state, order: (0..groups).collect(), scratch: Vec::with_capacity(largest) };
        sampler.permute();
        sampler
    }

    fn permute(&mut self) {
        self.order.iter_mut().zip(0..).for_each(|(slot, group)| *slot = group);
        Rng::stream(self.state.seed, ORDER.wrapping_add(self.state.epoch)).shuffle(&mut self.order);
    }

    /// Replaces `out` by the next batch. `split` must be the one the sampler was made for.
    pub fn next_batch(&mut self, split: &Split, out: &mut Vec<Draw>) {
        assert_eq!(split.groups(), self.order.len(), "a sampler stays with its split");
        let batch_size = self.state.batch_size as usize;
        out.clear();
        while out.len() < batch_size {
            if self.state.used as usize == self.order.len() {
                self.state.epoch += 1;
                self.state.used = 0;
                self.permute();
            }
            let puzzles = split.group(self.order[self.state.used as usize] as usize);
            self.state.used += 1;
            let pick = if self.state.originals_only { 0 } else { self.state.rng.below(puzzles.len()) };
            self.take_examples(split, puzzles.start + pick, batch_size - out.len(), out);
        }
    }

    /// `min(size, room)` examples of a puzzle, without replacement: the first steps of a Fisher–Yates shuffle.
    fn take_examples(&mut self, split: &Split, puzzle: usize, room: usize, out: &mut Vec<Draw>) {
        let examples = split.puzzle(puzzle);
        self.scratch.clear();
        self.scratch.extend(examples.start as u32..examples.end as u32);
        for i in 0..examples.len().min(room) {
            let j = i + self.state.rng.below(examples.len() - i);
            self.scratch.swap(i, j);
            out.push(Draw { example: self.scratch[i], augment_seed: self.state.rng.next_u64() });
        }
    }

    /// Updates that `epochs` make: epochs · total_groups · mean_puzzle_examples / batch, rounded down.
    pub fn total_steps(split: &Split, epochs: u64, batch_size: usize) -> u64 {
        let examples = epochs as f64 * split.meta.total_groups as f64 * split.meta.mean_puzzle_examples;
        (examples / batch_size as f64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::split_of;
    use super::*;

    #[test]
    fn every_epoch_visits_every_group_once() {
        let split = split_of(&[&[1], &[1, 1, 1], &[1, 1], &[1], &[1, 1, 1, 1]]);
        let mut sampler = Sampler::new(&split, 5, 3);
        let mut batch = Vec::new();
        let mut orders = std::collections::HashSet::new();
        for _ in 0..50 {
            sampler.next_batch(&split, &mut batch);
            let group_of = |d: &Draw| (0..5).find(|&g| split.group_examples(g).contains(&(d.example as usize)));
            let order: Vec<_> = batch.iter().map(group_of).collect();
            let mut sorted = order.clone();
            sorted.sort();
            assert_eq!(sorted, (0..5).map(Some).collect::<Vec<_>>());
            orders.insert(order);
        }
        assert!(orders.len() > 30, "permutations differ between epochs");
    }

    #[test]
    fn a_puzzle_gives_its_examples_without_replacement_and_no_more_than_fit() {
        let split = split_of(&[&[7], &[7]]);
        let mut sampler = Sampler::new(&split, 10, 1);
        let mut batch = Vec::new();
        for _ in 0..40 {
            sampler.next_batch(&split, &mut batch);
            let (first, second): (Vec<u32>, Vec<u32>) = batch.iter().map(|d| d.example).partition(|e| *e < 7);
            let mut sizes = [first.len(), second.len()];
            sizes.sort();
            assert_eq!(sizes, [3, 7], "all of one puzzle, then what fits of the other");
            let distinct: std::collections::HashSet<u32> = batch.iter().map(|d| d.example).collect();
            assert_eq!(distinct.len(), 10);
        }
    }

    #[test]
    fn the_state_after_any_batch_gives_the_same_rest_through_bincode() {
        let split = split_of(&[&[2, 1], &[3], &[1, 1, 1], &[5, 2]]);
        for stop in 0..9 {
            let mut sampler = Sampler::new(&split, 3, 9);
            let mut batch = Vec::new();
            (0..stop).for_each(|_| sampler.next_batch(&split, &mut batch));
            let config = bincode::config::standard();
            let bytes = bincode::serde::encode_to_vec(sampler.state(), config).unwrap();
            let (state, _): (SamplerState, _) = bincode::serde::decode_from_slice(&bytes, config).unwrap();
            let mut resumed = Sampler::resume(&split, state).unwrap();
            let mut again = Vec::new();
            for _ in 0..20 {
                sampler.next_batch(&split, &mut batch);
                resumed.next_batch(&split, &mut again);
                assert_eq!(batch, again);
            }
        }
    }

    #[test]
    fn a_state_of_another_data_set_is_refused() {
        let (split, other) = (split_of(&[&[1], &[1]]), split_of(&[&[1]]));
        let error = Sampler::resume(&other, Sampler::new(&split, 1, 0).state()).unwrap_err().to_string();
        assert!(error.contains("2 groups") && error.contains("has 1"), "{error}");
        let state = SamplerState { used: 3, ..Sampler::new(&split, 1, 0).state() };
        assert!(Sampler::resume(&split, state).is_err());
    }

    #[test]
    fn originals_only_ignores_stored_copies() {
        let (with, without) = (split_of(&[&[1, 1, 1], &[1, 1, 1]]), split_of(&[&[1], &[1]]));
        let mut many = Sampler::new(&with, 4, 5).originals_only();
        let mut few = Sampler::new(&without, 4, 5).originals_only();
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for _ in 0..10 {
            many.next_batch(&with, &mut a);
            few.next_batch(&without, &mut b);
            for (x, y) in a.iter().zip(&b) {
                assert_eq!((x.example, x.augment_seed), (y.example * 3, y.augment_seed));
            }
        }
    }

    #[test]
    fn total_steps_follow_the_published_formula() {
        let mut split = split_of(&[&[1]]);
        split.meta.total_groups = 1000;
        assert_eq!(Sampler::total_steps(&split, 50_000, 768), 65_104);
        split.meta.mean_puzzle_examples = 4.5;
        assert_eq!(Sampler::total_steps(&split, 10, 1000), 45);
    }
}

//! From rows to batches: training rows one by one, evaluation rows in order.

use super::{Draw, Split};
use crate::puzzle::sudoku::{Geometry, MAX_CELLS, Symmetry};
use crate::rng::Rng;

/// Label of a position that carries no loss.
pub const IGNORED: i32 = -100;

/// What happens to a training row on its way into the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Augmentation {
    /// The row as it is stored.
    Stored,
    /// Sudoku rows of this board under a fresh random symmetry, a function of the draw's `augment_seed`. Since every
    /// symmetry is equally likely, it makes no difference whether the stored row is an original or a copy.
    SudokuOnline(Geometry),
}

/// Writes the drawn row into a slot of the batch and returns its puzzle identifier. Allocates nothing.
///
/// `inputs` and `labels` are `seq_len` long.
pub fn write_example(split: &Split, draw: Draw, augment: Augmentation, inputs: &mut [u8], labels: &mut [i32]) -> u32 {
    let example = draw.example as usize;
    let (question, answer) = (split.inputs.row(example), split.labels.row(example));
    assert!(inputs.len() == question.len() && labels.len() == answer.len(), "a slot is seq_len long");
    let ignore = split.meta.ignore_label_id;
    match augment {
        Augmentation::Stored => {
            inputs.iter_mut().zip(question).for_each(|(slot, &token)| *slot = token);
            labels.iter_mut().zip(answer).for_each(|(slot, &token)| *slot = label(token, ignore));
        }
        Augmentation::SudokuOnline(geometry) => {
            let symmetry = Symmetry::random(geometry, &mut Rng::new(draw.augment_seed));
            let mut row = [0u8; MAX_CELLS];
            let row = &mut row[..answer.len()];
            row.iter_mut().zip(question).for_each(|(slot, &token)| *slot = token);
            symmetry.apply_tokens(row, inputs);
            let mut image = [0u8; MAX_CELLS];
            let image = &mut image[..answer.len()];
            row.iter_mut().zip(answer).for_each(|(slot, &token)| *slot = token);
            symmetry.apply_tokens(row, image);
            labels.iter_mut().zip(image.iter()).for_each(|(slot, &token)| *slot = label(token, ignore));
        }
    }
    split.puzzle_identifiers[split.puzzle_of(example)]
}

/// A stored label as the loss sees it.
fn label(token: u8, ignore: Option<u8>) -> i32 {
    if Some(token) == ignore { IGNORED } else { i32::from(token) }
}

/// A batch of evaluation rows, slot after slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// `[batch_size, seq_len]`; padding rows hold `pad_id`.
    pub inputs: Vec<u8>,
    /// `[batch_size, seq_len]`; −100 where there is no loss.
    pub labels: Vec<i32>,
    /// `[batch_size]`; padding rows have the blank identifier.
    pub puzzle_identifiers: Vec<u32>,
    /// Row of the split in slot 0.
    pub first: usize,
    /// Slots that hold rows; the rest is padding.
    pub filled: usize,
}

/// All examples of a split, in order, in batches of one size; the last is padded.
///
/// As an iterator it gives a new [`Batch`] each time; [`EvalBatches::fill`] reuses one.
#[derive(Clone, Debug)]
pub struct EvalBatches<'a> {
    split: &'a Split,
    batch_size: usize,
    next: usize,
}

impl<'a> EvalBatches<'a> {
    /// Batches of `batch_size` (at least 1) over `split`.
    pub fn new(split: &'a Split, batch_size: usize) -> Self {
        assert!(batch_size > 0, "an evaluation batch has at least one slot");
        Self { split, batch_size, next: 0 }
    }

    /// A batch of the right size, all padding.
    pub fn blank(&self) -> Batch {
        let meta = &self.split.meta;
        let tokens = self.batch_size * meta.seq_len;
        Batch {
            inputs: vec![meta.pad_id; tokens],
            labels: vec![IGNORED; tokens],
            puzzle_identifiers: vec![meta.blank_identifier_id; self.batch_size],
            first: 0,
            filled: 0,
        }
    }

    /// Overwrites `batch` (from [`EvalBatches::blank`]) with the next rows; `false` when there are none left.
    pub fn fill(&mut self, batch: &mut Batch) -> bool {
        let meta = &self.split.meta;
        batch.first = self.next;
        batch.filled = self.batch_size.min(self.split.examples() - self.next);
        let tokens = batch.filled * meta.seq_len;
        let slots = batch.inputs.chunks_exact_mut(meta.seq_len).zip(batch.labels.chunks_exact_mut(meta.seq_len));
        for (i, (inputs, labels)) in slots.take(batch.filled).enumerate() {
            let draw = Draw { example: (self.next + i) as u32, augment_seed: 0 };
            batch.puzzle_identifiers[i] = write_example(self.split, draw, Augmentation::Stored, inputs, labels);
        }
        batch.inputs[tokens..].fill(meta.pad_id);
        batch.labels[tokens..].fill(IGNORED);
        batch.puzzle_identifiers[batch.filled..].fill(meta.blank_identifier_id);
        self.next += batch.filled;
        batch.filled > 0
    }
}

impl Iterator for EvalBatches<'_> {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let mut batch = self.blank();
        self.fill(&mut batch).then_some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.split.examples() - self.next).div_ceil(self.batch_size);
        (left, Some(left))
    }
}

impl ExactSizeIterator for EvalBatches<'_> {}

#[cfg(test)]
mod tests {
    use super::super::testing::split_of;
    use super::*;

    #[test]
    fn evaluation_passes_every_row_in_order_and_pads_the_last_batch() {
        let split = split_of(&[&[2, 1], &[1, 3]]);
        let batches: Vec<Batch> = EvalBatches::new(&split, 3).collect();
        assert_eq!(batches.len(), 3);
        assert_eq!(batches.iter().map(|b| (b.first, b.filled)).collect::<Vec<_>>(), [(0, 3), (3, 3), (6, 1)]);
        let inputs: Vec<u8> = batches.iter().flat_map(|b| b.inputs.clone()).collect();
        assert_eq!(&inputs[..21], split.inputs.as_slice().unwrap());
        assert_eq!(&inputs[21..], [0; 6]);
        let ids: Vec<u32> = batches.iter().flat_map(|b| b.puzzle_identifiers.clone()).collect();
        assert_eq!(ids, [1, 1, 2, 3, 4, 4, 4, 0, 0]);
        assert!(batches[2].labels[3..].iter().all(|&l| l == IGNORED));
    }

    #[test]
    fn ignored_label_tokens_become_minus_100_and_others_stay() {
        let mut split = split_of(&[&[1]]);
        assert_eq!(EvalBatches::new(&split, 1).next().unwrap().labels, [IGNORED, 1, 2]);
        split.meta.ignore_label_id = None;
        assert_eq!(EvalBatches::new(&split, 1).next().unwrap().labels, [0, 1, 2]);
    }

    #[test]
    fn online_augmentation_is_one_symmetry_for_question_and_answer_fixed_by_its_seed() -> crate::Result<()> {
        use super::super::{TokenPair, find_symmetry, sudoku};
        for size in [4, 6, 9] {
            let data = sudoku::build(size, 5, 0, 2, 7)?;
            let split = data.split("train")?;
            let geometry = Geometry::of_side(size)?;
            let cells = geometry.cells();
            let write = |example, augment_seed| {
                let (mut inputs, mut labels) = (vec![0; cells], vec![0; cells]);
                let draw = Draw { example, augment_seed };
                let id = write_example(split, draw, Augmentation::SudokuOnline(geometry), &mut inputs, &mut labels);
                assert_eq!(id, 0);
                (inputs, labels.iter().map(|&l| l as u8).collect::<Vec<u8>>())
            };
            for example in 0..5 {
                let (question, answer) = (split.inputs.row(example), split.labels.row(example));
                let from = TokenPair { question: &question.to_vec(), answer: &answer.to_vec() };
                let one = write(example as u32, 1);
                assert_eq!(one, write(example as u32, 1));
                assert_ne!(one, write(example as u32, 2));
                assert!(find_symmetry(geometry, from, TokenPair { question: &one.0, answer: &one.1 }).is_some());
            }
        }
        Ok(())
    }

    #[test]
    fn a_reused_batch_is_padded_anew() {
        let split = split_of(&[&[1], &[1], &[1]]);
        let mut batches = EvalBatches::new(&split, 2);
        let fresh: Vec<Batch> = batches.clone().collect();
        let mut batch = batches.blank();
        for expected in fresh {
            assert!(batches.fill(&mut batch));
            assert_eq!(batch, expected);
        }
        assert!(!batches.fill(&mut batch));
    }
}

//! From rows to slots: a row as the model sees it, under a fresh symmetry or as it is stored.

use super::{Draw, Split};
use crate::Result;
use crate::config::IGNORE_LABEL;
use crate::puzzle::Moves;

/// Writes the drawn row into a slot of the batch, moved by `moves` or as it is stored, and returns its puzzle identifier.
/// Of several right answers, the draw's seed takes one, each as likely.
/// Allocates nothing where rows are in memory.
///
/// `inputs` and `labels` are `seq_len` long.
///
/// # Errors
/// When the row cannot be read; the slot then holds anything.
pub fn write_example(
    split: &Split,
    draw: Draw,
    moves: Option<&Moves>,
    inputs: &mut [u8],
    labels: &mut [i32],
) -> Result<u32> {
    let example = draw.example as usize;
    assert!(inputs.len() == split.meta.seq_len && labels.len() == split.meta.seq_len, "a slot is seq_len long");
    let (answers, row) = split.drawn_answer(example, draw.augment_seed);
    match moves {
        None => {
            // The answer first: until it has become labels, `inputs` is the room to make it in.
            answers.copy_row(row, inputs)?;
            labels.iter_mut().zip(inputs.iter()).for_each(|(slot, &token)| *slot = split.label(token));
            split.inputs.copy_row(example, inputs)?;
        }
        Some(moves) => {
            let (question, answer) = (split.inputs.row(example)?, answers.row(row)?);
            inputs.iter_mut().zip(moves.image(|i| question[i])).for_each(|(slot, token)| *slot = token);
            labels.iter_mut().zip(moves.image(|i| answer[i])).for_each(|(slot, token)| *slot = split.label(token));
        }
    }
    Ok(split.puzzle_identifiers[split.puzzle_of(example)])
}

impl Split {
    /// A stored label as the loss sees it.
    pub fn label(&self, token: u8) -> i32 {
        if Some(token) == self.meta.ignore_label_id { IGNORE_LABEL } else { i32::from(token) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::split_of;
    use super::*;

    #[test]
    fn ignored_label_tokens_become_minus_100_and_others_stay() {
        let mut split = split_of(&[&[1]]);
        let labels = |split: &Split| {
            let (mut inputs, mut labels) = ([0; 3], [0; 3]);
            let draw = Draw { example: 0, augment_seed: 0 };
            write_example(split, draw, None, &mut inputs, &mut labels).unwrap();
            labels
        };
        assert_eq!(labels(&split), [IGNORE_LABEL, 1, 2]);
        split.meta.ignore_label_id = None;
        assert_eq!(labels(&split), [0, 1, 2]);
    }

    #[test]
    fn each_of_several_answers_is_drawn_as_often_and_fixed_by_the_seed() {
        use super::super::MoreAnswers;
        let mut split = split_of(&[&[1], &[1]]);
        let labels = |split: &Split, example, augment_seed, moves: Option<&Moves>| {
            let (mut inputs, mut labels) = ([0; 3], [0; 3]);
            write_example(split, Draw { example, augment_seed }, moves, &mut inputs, &mut labels).unwrap();
            assert_eq!(inputs, [example as u8; 3], "the question is always the same");
            labels
        };
        let alone: Vec<_> = (0..50).map(|seed| labels(&split, 1, seed, None)).collect();
        let rows = ndarray::arr2(&[[1u8, 1, 1], [2, 2, 2]]);
        split.more_answers = Some(MoreAnswers { rows: rows.into(), indices: vec![0, 2, 2] });
        split.check().unwrap();
        let all: Vec<Vec<u8>> = split.answers(0).map(|row| row.unwrap().to_vec()).collect();
        assert_eq!(all, [vec![0, 1, 2], vec![1, 1, 1], vec![2, 2, 2]]);
        assert_eq!((split.answers(0).count(), split.answers(1).count()), (3, 1));
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..3000 {
            let drawn = labels(&split, 0, seed, None);
            assert_eq!(drawn, labels(&split, 0, seed, Some(&Moves::identity(3))), "moved or not");
            *counts.entry(drawn).or_insert(0) += 1;
        }
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [[IGNORE_LABEL, 1, 2], [1, 1, 1], [2, 2, 2]]);
        assert!(counts.values().all(|count| (900..1100).contains(count)), "{counts:?}");
        // One that has no others is what it was.
        assert_eq!(alone, (0..50).map(|seed| labels(&split, 1, seed, None)).collect::<Vec<_>>());
    }

    #[test]
    fn online_augmentation_is_one_symmetry_for_question_and_answer_fixed_by_its_seed() -> crate::Result<()> {
        use super::super::sudoku;
        use crate::puzzle::sudoku::{Geometry, find_symmetry};
        use crate::puzzle::{Board as _, TokenPair};
        use crate::rng::Rng;
        for size in [4, 6, 9] {
            let data = sudoku::build(size, 5, 0, 2, 7)?;
            let split = data.split("train")?;
            let geometry = Geometry::of_side(size)?;
            let cells = geometry.cells();
            let write = |example, augment_seed| {
                let (mut inputs, mut labels) = (vec![0; cells], vec![0; cells]);
                let draw = Draw { example, augment_seed };
                let mut moves = Moves::identity(cells);
                geometry.random_symmetry(&mut Rng::new(augment_seed), &mut moves);
                let id = write_example(split, draw, Some(&moves), &mut inputs, &mut labels).unwrap();
                assert_eq!(id, 0);
                (inputs, labels.iter().map(|&l| l as u8).collect::<Vec<u8>>())
            };
            for example in 0..5 {
                let (question, answer) = (split.inputs.row(example)?, split.labels.row(example)?);
                let from = TokenPair { question: &question, answer: &answer };
                let one = write(example as u32, 1);
                assert_eq!(one, write(example as u32, 1));
                assert_ne!(one, write(example as u32, 2));
                assert!(find_symmetry(geometry, from, TokenPair { question: &one.0, answer: &one.1 }).is_some());
            }
        }
        Ok(())
    }
}

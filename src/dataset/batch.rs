//! From rows to slots: a row as the model sees it, under a fresh symmetry or as it is stored.

use super::{Draw, Split};
use crate::Result;
use crate::config::IGNORE_LABEL;
use crate::puzzle::Moves;

/// Writes the drawn row into a slot of the batch, moved by `moves` or as it is stored, and returns its puzzle identifier.
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
    let ignore = split.meta.ignore_label_id;
    match moves {
        None => {
            // The answer first: until it has become labels, `inputs` is the room to make it in.
            split.labels.copy_row(example, inputs)?;
            labels.iter_mut().zip(inputs.iter()).for_each(|(slot, &token)| *slot = label(token, ignore));
            split.inputs.copy_row(example, inputs)?;
        }
        Some(moves) => {
            let (question, answer) = (split.inputs.row(example)?, split.labels.row(example)?);
            inputs.iter_mut().zip(moves.image(|i| question[i])).for_each(|(slot, token)| *slot = token);
            labels.iter_mut().zip(moves.image(|i| answer[i])).for_each(|(slot, token)| *slot = label(token, ignore));
        }
    }
    Ok(split.puzzle_identifiers[split.puzzle_of(example)])
}

/// A stored label as the loss sees it.
fn label(token: u8, ignore: Option<u8>) -> i32 {
    if Some(token) == ignore { IGNORE_LABEL } else { i32::from(token) }
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

//! Small splits for this room's tests.

use ndarray::Array2;

use super::{Columns, Metadata, Split};

/// A split with the given number of examples per puzzle per group; row r is filled with token `r % 4`.
pub(super) fn split_of(groups: &[&[usize]]) -> Split {
    let sizes: Vec<usize> = groups.iter().flat_map(|g| g.iter().copied()).collect();
    let rows = sizes.iter().sum();
    let sums = |items: &mut dyn Iterator<Item = usize>| -> Vec<u32> {
        let mut all = vec![0];
        items.for_each(|n| all.push(all[all.len() - 1] + n as u32));
        all
    };
    Split {
        meta: Metadata {
            pad_id: 0,
            ignore_label_id: Some(0),
            blank_identifier_id: 0,
            vocab_size: 6,
            seq_len: 3,
            num_puzzle_identifiers: sizes.len() + 1,
            total_groups: groups.len(),
            mean_puzzle_examples: rows as f64 / sizes.len() as f64,
            total_puzzles: sizes.len(),
            sets: vec!["all".into()],
        },
        inputs: Array2::from_shape_fn((rows, 3), |(r, _)| (r % 4) as u8).into(),
        labels: Array2::from_shape_fn((rows, 3), |(r, c)| ((r + c) % 4) as u8).into(),
        puzzle_identifiers: (1..=sizes.len() as u32).collect(),
        puzzle_indices: sums(&mut sizes.iter().copied()),
        group_indices: sums(&mut groups.iter().map(|g| g.len())),
        more_answers: None,
        columns: Columns::default(),
    }
}

//! Rows of questions and answers, and the split they become.

use ndarray::Array2;

use super::{Columns, Metadata, Split, Tokens};
use crate::{Error, Result};

/// Rows of tokens, one after the other.
#[derive(Default)]
pub(super) struct RowPairs {
    /// `[rows · cells]`
    pub questions: Vec<u8>,
    /// `[rows · cells]`
    pub answers: Vec<u8>,
    /// What the source says of each group.
    pub columns: Columns,
}

impl RowPairs {
    /// Those rows, of `cells` each, that `takes` takes, and the others.
    pub fn partition(self, cells: usize, takes: impl Fn(usize) -> bool) -> (Self, Self) {
        let rows = self.questions.len() / cells;
        let pick = |wanted: bool| {
            let chosen = (0..rows).filter(|&row| takes(row) == wanted);
            let gather =
                |tokens: &[u8]| chosen.clone().flat_map(|row| &tokens[row * cells..][..cells]).copied().collect();
            let (questions, answers) = (gather(&self.questions), gather(&self.answers));
            Self { questions, answers, columns: self.columns.of(chosen) }
        };
        (pick(true), pick(false))
    }
}

/// Room for `groups` rows with `copies` copies each.
///
/// # Errors
/// More than the format can count, or than the system has memory for.
pub(super) fn reserved(cells: usize, groups: usize, copies: usize) -> Result<RowPairs> {
    let total = copies.checked_add(1).and_then(|per_group| groups.checked_mul(per_group));
    let total = total.filter(|&n| i32::try_from(n).is_ok()).ok_or_else(|| {
        Error::input(format!(
            "{groups} rows with {copies} copies each are more than the format's {} examples; take fewer copies, or none \
             and augment online",
            i32::MAX
        ))
    })?;
    let room = || {
        let mut tokens = Vec::new();
        tokens.try_reserve_exact(total * cells).map_err(|_| {
            Error::input(format!(
                "{total} examples need {} MB of memory, which the system refuses; take fewer copies, or none and augment \
                 online",
                total * cells * 2 / 1_000_000
            ))
        })?;
        tokens.resize(total * cells, 0u8);
        Ok::<_, Error>(tokens)
    };
    Ok(RowPairs { questions: room()?, answers: room()?, columns: Columns::default() })
}

/// A split of rows of tokens, `per_group` to a group, with the published metadata: one example a puzzle, and
/// `total_puzzles` the number of groups whatever the number of copies.
pub(super) fn assemble(cells: usize, vocab_size: usize, per_group: usize, tokens: RowPairs) -> Result<Split> {
    let rows = tokens.questions.len() / cells;
    let groups = rows / per_group;
    let rows_of = |tokens: Vec<u8>| {
        let rows = Array2::from_shape_vec((rows, cells), tokens);
        rows.map(Tokens::from).map_err(|e| Error::input(format!("rows of unequal length: {e}")))
    };
    Ok(Split {
        meta: Metadata {
            pad_id: 0,
            ignore_label_id: Some(0),
            blank_identifier_id: 0,
            vocab_size,
            seq_len: cells,
            num_puzzle_identifiers: 1,
            total_groups: groups,
            mean_puzzle_examples: 1.0,
            total_puzzles: groups,
            sets: vec!["all".into()],
        },
        inputs: rows_of(tokens.questions)?,
        labels: rows_of(tokens.answers)?,
        puzzle_identifiers: vec![0; rows],
        puzzle_indices: (0..=rows as u32).collect(),
        group_indices: (0..=groups as u32).map(|g| g * per_group as u32).collect(),
        more_answers: None,
        columns: tokens.columns,
    })
}

//! What a data set holds, at a glance.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::{Dataset, Split};
use crate::Result;
use crate::puzzle::grid;

/// What a data set holds. Serializes to JSON; displays as a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Info {
    /// What the rows are: `sudoku 9×9`, or `tokens` where they are not recognised.
    pub puzzle: String,
    /// Names of puzzle identifiers, the blank one included.
    pub identifiers: usize,
    /// The splits, `train` first.
    pub splits: Vec<SplitInfo>,
}

/// What a split holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitInfo {
    /// The split.
    pub name: String,
    /// Groups: tasks with their augmented copies.
    pub groups: usize,
    /// Puzzles, copies included.
    pub puzzles: usize,
    /// Rows.
    pub examples: usize,
    /// S: tokens per row.
    pub seq_len: usize,
    /// V: size of the vocabulary.
    pub vocab_size: usize,
    /// `mean_puzzle_examples` of the metadata: with `total_groups` and the batch it gives the updates of an epoch.
    pub mean_puzzle_examples: f64,
    /// Mean number of positions a row's loss is over.
    pub mean_labelled: f64,
    /// Right answers beside the stored ones.
    pub more_answers: usize,
    /// Columns that the source has beside its rows.
    pub columns: Vec<String>,
    /// Bytes the rows take in memory.
    pub bytes: usize,
}

/// Sums up a data set.
///
/// # Errors
/// When a row cannot be read.
pub fn info(dataset: &Dataset) -> Result<Info> {
    let puzzle = dataset.board().map_or_else(|_| grid::TOKENS.into(), |board| board.name());
    let splits = dataset.in_order().into_iter().map(|(name, split)| split_info(name, split)).collect::<Result<_>>()?;
    Ok(Info { puzzle, identifiers: dataset.identifiers.len(), splits })
}

fn split_info(name: &str, split: &Split) -> Result<SplitInfo> {
    let ignored = split.meta.ignore_label_id;
    let labelled = |row: &[u8]| row.iter().filter(|&&token| Some(token) != ignored).count();
    let labelled = split.labels.rows().map(|row| Ok(labelled(&row?))).sum::<Result<usize>>()?;
    Ok(SplitInfo {
        name: name.to_string(),
        groups: split.groups(),
        puzzles: split.puzzles(),
        examples: split.examples(),
        seq_len: split.meta.seq_len,
        vocab_size: split.meta.vocab_size,
        mean_puzzle_examples: split.meta.mean_puzzle_examples,
        mean_labelled: labelled as f64 / split.examples().max(1) as f64,
        more_answers: split.more_answers.as_ref().map_or(0, |more| more.rows.nrows()),
        columns: split.columns.names().map(String::from).collect(),
        bytes: 2 * split.inputs.nrows() * split.inputs.ncols(),
    })
}

impl Display for Info {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let header = ["groups", "puzzles", "examples", "tokens", "vocabulary", "labelled", "MB"];
        write!(f, "{:<16}", self.puzzle)?;
        header.iter().try_for_each(|name| write!(f, "{name:>12}"))?;
        for split in &self.splits {
            write!(f, "\n{:<16}{:>12}{:>12}{:>12}", split.name, split.groups, split.puzzles, split.examples)?;
            write!(f, "{:>12}{:>12}{:>12.1}", split.seq_len, split.vocab_size, split.mean_labelled)?;
            write!(f, "{:>12.1}", split.bytes as f64 / 1e6)?;
        }
        for split in &self.splits {
            if split.more_answers > 0 {
                write!(f, "\n{}: {} further right answers", split.name, split.more_answers)?;
            }
            if !split.columns.is_empty() {
                write!(f, "\n{}: columns {}", split.name, split.columns.join(", "))?;
            }
        }
        write!(f, "\n{} puzzle identifier{}", self.identifiers, if self.identifiers == 1 { "" } else { "s" })
    }
}

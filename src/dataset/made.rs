//! Data sets that do not come from files: rows that somebody has in memory, and what a generator gives.

use std::collections::BTreeMap;

use super::{Columns, Dataset, Metadata, Split, Tokens};
use crate::puzzle::{BLANK, Description, Game, Generated, GeneratedRows, GeneratedSplit, Order, grid};
use crate::{Error, Result};

/// SplitRows of a split, for [`Dataset::from_rows`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SplitRows {
    /// Questions, `[rows · seq_len]`.
    pub inputs: Vec<u8>,
    /// Answers, `[rows · seq_len]`; a label 0 carries no loss.
    pub labels: Vec<u8>,
    /// Puzzle identifier of each row; empty: 0, the blank one, for all.
    pub identifiers: Vec<u32>,
    /// SplitRows in each group (a puzzle, then its augmented copies); empty: each row is a group of its own. In a pass over the
    /// data, training takes one row of each group.
    pub groups: Vec<usize>,
}

impl SplitRows {
    /// SplitRows without identifiers and groups.
    pub fn new(inputs: Vec<u8>, labels: Vec<u8>) -> Self {
        Self { inputs, labels, ..Self::default() }
    }

    fn into_split(self, seq_len: usize) -> Result<GeneratedSplit, String> {
        if seq_len == 0 || !self.inputs.len().is_multiple_of(seq_len) {
            return Err(format!("{} input tokens are no rows of {seq_len}", self.inputs.len()));
        }
        let rows = self.inputs.len() / seq_len;
        if i32::try_from(rows).is_err() {
            return Err(format!("{rows} rows are more than the format's {}", i32::MAX));
        }
        if self.labels.len() != self.inputs.len() {
            return Err(format!("{} label tokens for {} input tokens", self.labels.len(), self.inputs.len()));
        }
        if !self.identifiers.is_empty() && self.identifiers.len() != rows {
            return Err(format!("{} identifiers for {rows} rows", self.identifiers.len()));
        }
        let groups = if self.groups.is_empty() { vec![1; rows] } else { self.groups };
        let group_indices: Vec<u32> = std::iter::once(0)
            .chain(groups.iter().scan(0usize, |sum, group| {
                *sum = sum.saturating_add(*group);
                Some(u32::try_from(*sum).unwrap_or(u32::MAX))
            }))
            .collect();
        Ok(GeneratedSplit {
            questions: GeneratedRows::Stored(self.inputs),
            answers: GeneratedRows::Stored(self.labels),
            puzzle_identifiers: if self.identifiers.is_empty() { vec![0; rows] } else { self.identifiers },
            puzzle_indices: (0..=rows as u32).collect(),
            group_indices,
        })
    }
}

impl Dataset {
    /// A data set of rows that somebody has made: `seq_len` tokens each, out of `vocab_size`. Token 0 is padding; as a label
    /// it carries no loss. Without test rows there is no split `test`.
    ///
    /// The rows are described as tokens that nothing is known of; [`Dataset::described`] says more.
    ///
    /// ```
    /// use trm::dataset::{Dataset, SplitRows, TaskData};
    ///
    /// // SplitRows of four tokens; the answer is the row backwards.
    /// let rows = |numbers: std::ops::Range<u8>| {
    ///     let inputs: Vec<u8> = numbers.flat_map(|n| [1 + n % 3, 1 + n / 3 % 3, 1 + n / 9 % 3, 1 + n / 27]).collect();
    ///     let labels = inputs.chunks(4).flat_map(|row| row.iter().rev().copied()).collect();
    ///     SplitRows::new(inputs, labels)
    /// };
    /// let data = TaskData::new(Dataset::from_rows(4, 4, rows(0..60), rows(60..81))?)?;
    /// assert_eq!((data.task().seq_len, data.split("test")?.examples()), (4, 21));
    ///
    /// // Two updates of a small model.
    /// use trm::config::{Augment, Config};
    /// use trm::engine::{Lanes, Weights};
    /// let mut config = Config::default();
    /// (config.task, config.data.augment, config.model.hidden_size) = (data.task().clone(), Augment::Stored, 32);
    /// config.validate()?;
    /// let weights = Weights::new(&trm::model::Model::new(&config.model, &config.task), &config);
    /// let lanes = Lanes::new(1)?;
    /// let mut trainer = trm::train::Trainer::on(&lanes, config, weights, 2)?;
    /// let mut batches = data.batches(&trainer.config, None)?;
    /// for _ in 0..2 {
    ///     assert!(trainer.step(&mut batches)?.loss.is_finite());
    /// }
    /// # Ok::<(), trm::Error>(())
    /// ```
    ///
    /// # Errors
    /// When rows, labels, identifiers and groups do not fit together, or a token is outside the vocabulary.
    pub fn from_rows(seq_len: usize, vocab_size: usize, train: SplitRows, test: SplitRows) -> Result<Self> {
        let largest = train.identifiers.iter().chain(&test.identifiers).max().copied().unwrap_or(0);
        let identifiers = (0..=largest).map(|id| if id == 0 { BLANK.into() } else { format!("puzzle {id}") }).collect();
        let fault = |split: &'static str| move |what| Error::input(format!("{split}: {what}"));
        let test = match test.inputs.is_empty() {
            true => None,
            false => Some(test.into_split(seq_len).map_err(fault("test"))?),
        };
        let train = train.into_split(seq_len).map_err(fault("train"))?;
        let puzzle = Description::of(grid::TOKENS, seq_len);
        let data = Self::try_from(Generated { puzzle, vocab_size, identifiers, train, test })?;
        for (name, split) in &data.splits {
            split.check().map_err(fault(if name == "train" { "train" } else { "test" }))?;
        }
        Ok(data)
    }

    /// The same rows, said to be what `puzzle` says.
    ///
    /// # Errors
    /// When they are not.
    pub fn described(mut self, puzzle: Description) -> Result<Self> {
        self.puzzle = puzzle;
        self.board()?;
        Ok(self)
    }

    /// What a game generates.
    ///
    /// # Errors
    /// When it has no generator, or not so many puzzles.
    pub fn generate(game: &dyn Game, order: &Order<'_>) -> Result<Self> {
        let Order { train, test, .. } = *order;
        if train == 0 {
            return Err(Error::input("a data set needs at least 1 training puzzle; raise the count"));
        }
        if train.saturating_add(test) > i32::MAX as usize {
            return Err(Error::input(format!("{train} + {test} puzzles are more than the format's {}", i32::MAX)));
        }
        let settings = order.settings.completed(game);
        Self::try_from(game.generate(&Order { settings: &settings, ..*order })?)
    }
}

impl TryFrom<Generated> for Dataset {
    type Error = Error;

    fn try_from(generated: Generated) -> Result<Self> {
        let Generated { puzzle, vocab_size, identifiers, train, test } = generated;
        let split = |split| Split::of_generated(split, puzzle.cells(), vocab_size, identifiers.len());
        let mut splits = BTreeMap::from([("train".to_owned(), split(train)?)]);
        if let Some(test) = test {
            splits.insert("test".to_owned(), split(test)?);
        }
        Ok(Self { splits, puzzle, identifiers })
    }
}

impl Split {
    /// A split that a generator has made, with the published metadata.
    pub(super) fn of_generated(
        split: GeneratedSplit,
        seq_len: usize,
        vocab_size: usize,
        identifiers: usize,
    ) -> Result<Self> {
        let GeneratedSplit { questions, answers, puzzle_identifiers, puzzle_indices, group_indices } = split;
        let rows = puzzle_indices.last().map_or(0, |&rows| rows as usize);
        let puzzles = puzzle_identifiers.len();
        Ok(Self {
            meta: Metadata {
                pad_id: 0,
                ignore_label_id: Some(0),
                blank_identifier_id: 0,
                vocab_size,
                seq_len,
                num_puzzle_identifiers: identifiers,
                total_groups: group_indices.len().saturating_sub(1),
                mean_puzzle_examples: rows as f64 / puzzles.max(1) as f64,
                total_puzzles: puzzles,
                sets: vec!["all".into()],
            },
            inputs: Tokens::of_generated(questions, rows, seq_len)?,
            labels: Tokens::of_generated(answers, rows, seq_len)?,
            puzzle_identifiers,
            puzzle_indices,
            group_indices,
            more_answers: None,
            columns: Columns::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_do_not_fit_together_are_refused_with_their_split_and_what_is_wrong() {
        let good = SplitRows::new(vec![1, 2, 3, 4], vec![4, 3, 2, 1]);
        assert!(Dataset::from_rows(2, 5, good.clone(), SplitRows::default()).is_ok());
        for (rows, what) in [
            (SplitRows::new(vec![1, 2, 3], vec![1, 2, 3]), "no rows of 2"),
            (SplitRows { labels: vec![1], ..good.clone() }, "1 label tokens for 4"),
            (SplitRows { identifiers: vec![1], ..good.clone() }, "1 identifiers for 2 rows"),
            (SplitRows { groups: vec![1, 2], ..good.clone() }, "3"),
            (SplitRows { groups: vec![2, 0], ..good.clone() }, "grow"),
            (SplitRows { inputs: vec![1, 2, 3, 5], ..good.clone() }, "token 5 is outside the vocabulary of 5"),
        ] {
            let message = Dataset::from_rows(2, 5, good.clone(), rows).unwrap_err().to_string();
            assert!(message.starts_with("test: ") && message.contains(what), "{message}");
        }
        assert!(Dataset::from_rows(2, 5, SplitRows::default(), SplitRows::default()).is_err());
    }

    #[test]
    fn identifiers_and_groups_are_those_of_the_rows_and_survive_the_disk() {
        let rows = |identifiers: Vec<u32>, groups: Vec<usize>| SplitRows {
            identifiers,
            groups,
            ..SplitRows::new(vec![1, 2, 3, 4, 1, 1], vec![4, 3, 2, 1, 1, 0])
        };
        let data = Dataset::from_rows(2, 5, rows(vec![1, 2, 4], vec![2, 1]), SplitRows::default()).unwrap();
        let split = data.split("train").unwrap();
        assert_eq!((split.groups(), split.group(0), split.puzzle_identifiers.clone()), (2, 0..2, vec![1, 2, 4]));
        assert_eq!(data.identifiers, ["<blank>", "puzzle 1", "puzzle 2", "puzzle 3", "puzzle 4"]);
        let home = tempfile::tempdir().unwrap();
        data.write(home.path().join("set")).unwrap();
        assert_eq!(Dataset::read(home.path().join("set")).unwrap(), data);
    }
}

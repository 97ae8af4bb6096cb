//! `dataset.json`, as we write it and as other builders do.
//!
//! Builders differ in what they leave out (HRM knows no `total_puzzles`) and in what they add. What the arrays say is
//! taken from them where the file does not say it; further keys are passed over.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use super::format::is_plain_name;
use super::json::read_json;
use crate::{Error, Result};

/// `dataset.json`: what a split says about itself, under the published names and in the published order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Metadata {
    /// Token that fills unused positions.
    pub pad_id: u8,
    /// Label token that carries no loss; `None`: every label counts.
    pub ignore_label_id: Option<u8>,
    /// Puzzle identifier of rows that only fill a batch.
    pub blank_identifier_id: u32,
    /// V: tokens are `0..vocab_size`.
    pub vocab_size: usize,
    /// S: tokens per row.
    pub seq_len: usize,
    /// Rows the puzzle table needs.
    pub num_puzzle_identifiers: usize,
    /// Groups in the split, over all sets.
    pub total_groups: usize,
    /// Mean examples per puzzle, as the published builders count them (Sudoku and Maze: 1).
    pub mean_puzzle_examples: f64,
    /// Puzzles in the split (Sudoku and Maze files say the number of groups here, augmented or not).
    pub total_puzzles: usize,
    /// Names of the sets; each is five `.npy` files.
    pub sets: Vec<String>,
}

impl Metadata {
    /// What the rest of the engine relies on.
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { vocab_size, seq_len, mean_puzzle_examples, .. } = self;
        if !(1..=256).contains(vocab_size) {
            return Err(format!("vocab_size {vocab_size} is outside 1…256 (tokens are bytes)"));
        }
        if *seq_len == 0 {
            return Err("seq_len is 0; a puzzle has at least one token".into());
        }
        if usize::from(self.pad_id) >= *vocab_size {
            return Err(format!("pad_id {} is outside the vocabulary of {vocab_size}", self.pad_id));
        }
        if self.blank_identifier_id as usize >= self.num_puzzle_identifiers {
            return Err(format!(
                "blank_identifier_id {} is not below num_puzzle_identifiers {}",
                self.blank_identifier_id, self.num_puzzle_identifiers
            ));
        }
        if !(mean_puzzle_examples.is_finite() && *mean_puzzle_examples > 0.0) {
            return Err(format!("mean_puzzle_examples {mean_puzzle_examples} is not a positive number"));
        }
        if self.sets.is_empty() {
            return Err("sets is empty; name at least one set of .npy files".into());
        }
        let mut seen = self.sets.clone();
        seen.sort();
        seen.dedup();
        if seen.len() != self.sets.len() {
            return Err("sets names one set twice".into());
        }
        match self.sets.iter().find(|set| !is_plain_name(set)) {
            Some(set) => Err(format!("set name {set:?} is not a plain file name")),
            None => Ok(()),
        }
    }
}

/// What a file says; `None` where it says nothing.
pub(super) struct Said {
    fields: Map<String, Value>,
}

/// What the arrays of a split say.
pub(super) struct Found {
    pub groups: usize,
    pub puzzles: usize,
    pub examples: usize,
}

impl Said {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        match read_json::<Value>(path)? {
            Value::Object(fields) => Ok(Self { fields }),
            _ => Err(Error::input(format!(
                "{}: is not the JSON expected here: a list or value, no object",
                path.display()
            ))),
        }
    }

    /// A field that is there and not null.
    fn field(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// A whole number, however it is written.
    fn whole(&self, name: &str) -> Result<Option<i64>, String> {
        let Some(value) = self.field(name) else { return Ok(None) };
        let float =
            || value.as_f64().filter(|value| value.fract() == 0.0 && value.abs() < 1e15).map(|value| value as i64);
        let number = value.as_i64().or_else(float);
        number.map(Some).ok_or_else(|| format!("{name} is {value}; a whole number is expected"))
    }

    /// The same within the bounds of its type.
    fn count<T: TryFrom<i64>>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(number) = self.whole(name)? else { return Ok(None) };
        T::try_from(number).map(Some).map_err(|_| format!("{name} is {number}, which is out of range"))
    }

    fn needed<T: TryFrom<i64>>(&self, name: &str) -> Result<T, String> {
        self.count(name)?.ok_or_else(|| format!("missing field `{name}`; without it the rows mean nothing"))
    }

    /// The number of a label that carries no loss, whatever it is.
    pub fn ignored(&self) -> Result<Option<i64>, String> {
        self.whole("ignore_label_id")
    }

    /// The names of the sets; none where nothing is said.
    pub fn sets(&self) -> Result<Option<Vec<String>>, String> {
        let Some(value) = self.field("sets") else { return Ok(None) };
        let names = value.as_array().map(|names| names.iter().map(|name| name.as_str().map(String::from)).collect());
        names.flatten().map(Some).ok_or_else(|| format!("sets is {value}; a list of names is expected"))
    }

    /// All fields that the file says, or that follow: `identifiers` is how many names `identifiers.json` has. Totals and
    /// means are those of `found` where the file has none.
    pub fn metadata(&self, sets: Vec<String>, identifiers: Option<usize>, found: &Found) -> Result<Metadata, String> {
        let mean = match self.field("mean_puzzle_examples") {
            None => found.examples as f64 / found.puzzles.max(1) as f64,
            Some(value) => {
                value.as_f64().ok_or_else(|| format!("mean_puzzle_examples is {value}; a number is expected"))?
            }
        };
        Ok(Metadata {
            pad_id: self.count("pad_id")?.unwrap_or(0),
            ignore_label_id: self.ignored()?.and_then(|id| u8::try_from(id).ok()),
            blank_identifier_id: self.count("blank_identifier_id")?.unwrap_or(0),
            vocab_size: self.needed("vocab_size")?,
            seq_len: self.needed("seq_len")?,
            num_puzzle_identifiers: self.count("num_puzzle_identifiers")?.or(identifiers).unwrap_or(1),
            total_groups: self.count("total_groups")?.unwrap_or(found.groups),
            mean_puzzle_examples: mean,
            total_puzzles: self.count("total_puzzles")?.unwrap_or(found.puzzles),
            sets,
        })
    }
}

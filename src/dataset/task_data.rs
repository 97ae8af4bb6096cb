//! The data of a run: read from disk or generated, and dealt to the slots of a batch.

use std::path::Path;

use super::{Dataset, Draw, Sampler, SamplerState, Split, arc, write_example};
use crate::config::{Augment, Config, DataConfig, TaskConfig};
use crate::error::{Error, Result};
use crate::puzzle::{Board, Copies, Description, Moves, Order, game, grid};
use crate::rng::Rng;

/// Random stream of the data order.
const DATA_STREAM: u64 = 1 << 33;

/// The split that is trained on.
const TRAIN: &str = "train";
/// The splits that evaluations during training read: the first where there is one, else the second.
const VALID: &str = "valid";
const TEST: &str = "test";

/// Rows that stand for all in a checksum, where none is kept.
const FINGERPRINT_ROWS: usize = 4096;

/// Where a batch's examples come from.
pub trait Examples {
    /// Moves on to the next incoming batch.
    fn next_batch(&mut self);

    /// Writes the incoming example of a slot: tokens, labels; returns its puzzle identifier.
    ///
    /// # Errors
    /// When the example cannot be read; the slot then holds anything.
    fn write(&mut self, slot: usize, inputs: &mut [u8], labels: &mut [i32]) -> Result<u32>;
}

/// A data set, with what the model has to know of it.
pub struct TaskData {
    pub(super) dataset: Dataset,
    pub(super) board: Box<dyn Board>,
    pub(super) task: TaskConfig,
    /// For each puzzle identifier, the row of the model's puzzle table; `None`: the row of its number.
    pub(super) table_rows: Option<Vec<Option<u32>>>,
}

/// What a data set fixes of a run.
fn task_of(dataset: &Dataset) -> Result<TaskConfig> {
    let (_, first) = *dataset.in_order().first().ok_or_else(|| Error::input("the data set has no split"))?;
    let Description { kind, height, width, symbols, padded } = &dataset.puzzle;
    let symbols = if symbols.is_empty() { String::new() } else { serde_json::json!(symbols).to_string() };
    Ok(TaskConfig {
        puzzle: kind.clone(),
        width: if height == width || kind == grid::TOKENS { 0 } else { *width },
        symbols,
        padded: *padded,
        seq_len: first.meta.seq_len,
        vocab_size: first.meta.vocab_size,
        num_puzzle_identifiers: first.meta.num_puzzle_identifiers,
    })
}

/// The one of these splits that `train.eval_split` says.
fn evaluation_split<'a>(names: impl Iterator<Item = &'a str>, setting: &str) -> Result<Option<&'a str>> {
    let names: Vec<&str> = names.collect();
    let find = |wanted: &str| names.iter().copied().find(|name| *name == wanted);
    match setting {
        "" => Ok(find(VALID).or_else(|| find(TEST))),
        // A set without one is only trained on.
        TEST => Ok(find(TEST)),
        other => find(other).map(Some).ok_or_else(|| {
            Error::input(format!(
                "train.eval_split = {other:?}: the data set has no such split; it has: {}",
                names.join(", ")
            ))
        }),
    }
}

/// The puzzle that a run is about, from its settings alone.
pub fn board_of(task: &TaskConfig) -> Result<Box<dyn Board>> {
    description_of(task)?.board(task.vocab_size)
}

/// What the rows are that a run is about, from its settings alone.
pub(super) fn description_of(task: &TaskConfig) -> Result<Description> {
    let mut description = Description::of(&task.puzzle, task.seq_len);
    if let Some(height) = task.seq_len.checked_div(task.width) {
        (description.height, description.width) = (height, task.width);
    }
    description.padded = task.padded;
    if !task.symbols.is_empty() {
        let fault = |e| Error::input(format!("task.symbols is no JSON array of strings: {e}"));
        description.symbols = serde_json::from_str(&task.symbols).map_err(fault)?;
    }
    if description.cells() != task.seq_len {
        let (width, cells) = (task.width, task.seq_len);
        return Err(Error::input(format!("task.width = {width} does not divide task.seq_len = {cells}")));
    }
    Ok(description)
}

impl TaskData {
    /// Reads `data.dir`, or generates the set that `data` describes.
    pub fn load(data: &DataConfig) -> Result<Self> {
        Self::load_with(&mut data.clone(), false, None)
    }

    /// The same, but a stored set whose copies are named (ARC) decides `data.augment`: one of originals stands for its copies,
    /// which are generated, and one that holds its copies has nothing left to generate.
    pub fn load_fitting(data: &mut DataConfig) -> Result<Self> {
        Self::load_with(data, true, None)
    }

    /// What training reads: the split that is trained on, and the one that `train.eval_split` says. No file of another split
    /// is opened. `fitting` is as in [`TaskData::load_fitting`].
    pub fn load_for_training(data: &mut DataConfig, eval_split: &str, fitting: bool) -> Result<Self> {
        Self::load_with(data, fitting, Some(eval_split))
    }

    fn load_with(data: &mut DataConfig, fitting: bool, eval_split: Option<&str>) -> Result<Self> {
        let dataset = if data.dir.is_empty() {
            let order = Order {
                train: data.train_puzzles,
                test: data.test_puzzles,
                seed: data.data_seed,
                settings: &data.generator,
            };
            Dataset::generate(game(&data.generate)?, &order)?
        } else {
            let stored = match eval_split {
                None => Dataset::read(&data.dir)?,
                Some(setting) => Dataset::read_splits(&data.dir, |names| {
                    let evaluated = evaluation_split(names.iter().map(String::as_str), setting)?.map(str::to_owned);
                    Ok(names.into_iter().filter(|name| name == TRAIN || Some(name) == evaluated.as_ref()).collect())
                })?,
            };
            let online = arc::is_online(Path::new(&data.dir));
            if fitting && (online || stored.has_named_copies()) {
                data.augment = if online { Augment::Online } else { Augment::Stored };
            }
            let copies = data.augment == Augment::Online && (online || stored.has_named_copies());
            if copies { arc::expand(Path::new(&data.dir), &stored)? } else { stored }
        };
        Self::new(dataset).map_err(|e| Error::input(format!("{}: {e}", data.dir)))
    }

    /// The data of a run on a data set, wherever that is from ([`Dataset::from_rows`] takes rows in memory).
    ///
    /// # Errors
    /// The splits differ in shape, or the description does not fit them.
    pub fn new(dataset: Dataset) -> Result<Self> {
        let board = dataset.board()?;
        Ok(Self { task: task_of(&dataset)?, board, dataset, table_rows: None })
    }

    /// What the rows are.
    pub fn board(&self) -> &dyn Board {
        &*self.board
    }

    /// Shapes, for the model.
    pub fn task(&self) -> &TaskConfig {
        &self.task
    }

    /// The data set itself.
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// A split by name.
    pub fn split(&self, name: &str) -> Result<&Split> {
        self.dataset.split(name)
    }

    /// The split that evaluations during training read, by the setting `train.eval_split`; `None` where there is neither
    /// `valid` nor `test`.
    ///
    /// # Errors
    /// The setting names a split that is not there.
    pub fn evaluation_split(&self, setting: &str) -> Result<Option<&str>> {
        evaluation_split(self.dataset.splits.keys().map(String::as_str), setting)
    }

    /// A checksum of all training examples, their order and identifiers: a run may only go on with the data it started
    /// with.
    pub fn fingerprint(&self) -> Result<u32> {
        let split = self.split(TRAIN)?;
        let mut hasher = crc32fast::Hasher::new();
        let more = split.more_answers.as_ref();
        for rows in [&split.inputs, &split.labels].into_iter().chain(more.map(|more| &more.rows)) {
            match rows.in_memory() {
                Some(bytes) => hasher.update(bytes),
                // Made rows are a function of what they are made from, and a file of gigabytes is not read for this: a few
                // rows say enough, with the indices below.
                None => {
                    for row in (0..rows.nrows()).step_by(rows.nrows().div_ceil(FINGERPRINT_ROWS).max(1)) {
                        hasher.update(&rows.row(row)?);
                    }
                }
            }
        }
        let indices = [&split.puzzle_identifiers, &split.puzzle_indices, &split.group_indices];
        for index in indices.into_iter().chain(more.map(|more| &more.indices)) {
            hasher.update(&(index.len() as u64).to_le_bytes());
            index.iter().for_each(|number| hasher.update(&number.to_le_bytes()));
        }
        Ok(hasher.finalize())
    }

    /// Updates of a run of the configuration: `max_steps`, or what its epochs come to.
    pub fn total_steps(&self, config: &Config) -> Result<u64> {
        let train = &config.train;
        if train.max_steps > 0 {
            return Ok(train.max_steps);
        }
        let steps = Sampler::total_steps(self.split(TRAIN)?, train.epochs, train.batch_size);
        match steps {
            0 => Err(Error::input(format!(
                "train.batch_size = {}: larger than all {} epochs of the data; lower it or set train.max_steps",
                train.batch_size, train.epochs
            ))),
            steps => Ok(steps),
        }
    }

    /// The examples of training, in the order of `config.train.seed`, or going on from a checkpoint.
    pub fn batches(&self, config: &Config, resume: Option<SamplerState>) -> Result<Batches<'_>> {
        let split = self.split(TRAIN)?;
        let online = match (config.data.augment, self.dataset.puzzle.game()?.copies()) {
            (Augment::Stored, _) => None,
            (Augment::Online, _) if self.dataset.has_named_copies() => None,
            (Augment::Online, Copies::Drawn) => Some((self.board(), Moves::identity(split.meta.seq_len))),
            (Augment::Online, _) => {
                return Err(Error::input(format!(
                    "data.augment = \"online\": no symmetries of {} are known; set data.augment = \"stored\"",
                    self.board.name()
                )));
            }
        };
        let seed = Rng::stream(config.train.seed, DATA_STREAM).next_u64();
        let sampler = match resume {
            Some(state) => Sampler::resume(split, state)?,
            None => Sampler::new(split, config.train.batch_size, seed),
        };
        let sampler = if online.is_some() { sampler.originals_only() } else { sampler };
        Ok(Batches { split, sampler, online, draws: Vec::new() })
    }
}

/// The incoming batches of a run.
pub struct Batches<'a> {
    split: &'a Split,
    sampler: Sampler,
    /// The puzzle whose symmetries are drawn, and room for one of them.
    online: Option<(&'a dyn Board, Moves)>,
    draws: Vec<Draw>,
}

impl Batches<'_> {
    /// Where the order of the data stands, for a checkpoint.
    pub fn state(&self) -> SamplerState {
        self.sampler.state()
    }
}

impl Examples for Batches<'_> {
    fn next_batch(&mut self) {
        self.sampler.next_batch(self.split, &mut self.draws);
    }

    fn write(&mut self, slot: usize, inputs: &mut [u8], labels: &mut [i32]) -> Result<u32> {
        let draw = self.draws[slot];
        let moves = self.online.as_mut().map(|(board, moves)| {
            board.random_symmetry(&mut Rng::new(draw.augment_seed), moves);
            &*moves
        });
        write_example(self.split, draw, moves, inputs, labels)
    }
}

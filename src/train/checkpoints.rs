//! What a run keeps in its folder so that it can go on: the states to resume from, and the weights to use.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::best::Best;
use super::{Trainer, TrainerState};
use crate::checkpoint::{self, Loaded, RowFile, RunFolder, RunPaths};
use crate::config::Config;
use crate::dataset::{Batches, SamplerState};
use crate::device::Device;
use crate::engine::{EMA, Engine, PuzzleTable, Slots, WEIGHTS, Weights};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::rng::Rng;

/// Everything a checkpoint file holds; the puzzle table is in row files beside it.
#[derive(Serialize, Deserialize)]
struct RunState<'a> {
    /// Checksum of the training data.
    fingerprint: u32,
    /// Seconds trained so far.
    seconds: f64,
    /// The last update after which an evaluation was logged.
    evaluated: u64,
    sampler: SamplerState,
    trainer: TrainerState<'a, f32>,
    /// The best evaluation, where best weights are kept.
    best: Option<Best>,
}

/// The same as format 3 had it: nothing was said of the best evaluation.
#[derive(Deserialize)]
struct RunStateV3 {
    fingerprint: u32,
    seconds: f64,
    evaluated: u64,
    sampler: SamplerState,
    trainer: TrainerState<'static, f32>,
}

impl From<RunStateV3> for RunState<'_> {
    fn from(old: RunStateV3) -> Self {
        let RunStateV3 { fingerprint, seconds, evaluated, sampler, trainer } = old;
        Self { fingerprint, seconds, evaluated, sampler, trainer, best: None }
    }
}

/// The same as format 2 had it: the optimizer's moments as fields, slots and states together.
#[derive(Deserialize)]
struct RunStateV2 {
    fingerprint: u32,
    seconds: f64,
    evaluated: u64,
    sampler: SamplerState,
    trainer: TrainerStateV2,
}

#[derive(Deserialize)]
struct TrainerStateV2 {
    step: u64,
    calls_skipped: u64,
    rng: Rng,
    params: Vec<f32>,
    ema: Vec<f32>,
    m: Vec<f32>,
    v: Vec<f32>,
    carries: Vec<CarryV2>,
}

#[derive(Deserialize)]
struct CarryV2 {
    inputs: Vec<u8>,
    labels: Vec<i32>,
    puzzle_ids: Vec<u32>,
    steps: Vec<u32>,
    halted: Vec<bool>,
    states: Vec<Vec<f32>>,
}

impl From<RunStateV2> for RunState<'_> {
    fn from(old: RunStateV2) -> Self {
        let RunStateV2 { fingerprint, seconds, evaluated, sampler, trainer: old } = old;
        let buffers = [(WEIGHTS, old.params), (EMA, old.ema), ("m", old.m), ("v", old.v)];
        let group = |carry: CarryV2| {
            let CarryV2 { inputs, labels, puzzle_ids, steps, halted, states } = carry;
            (Cow::Owned(Slots { inputs, labels, puzzle_ids, steps, halted }), Cow::Owned(states))
        };
        let trainer = TrainerState {
            step: old.step,
            calls_skipped: old.calls_skipped,
            rng: old.rng,
            buffers: buffers.into_iter().map(|(name, values)| (name.into(), values.into())).collect(),
            groups: old.carries.into_iter().map(group).collect(),
        };
        Self { fingerprint, seconds, evaluated, sampler, trainer, best: None }
    }
}

/// How far a run is, apart from what its trainer knows.
#[derive(Default)]
pub(super) struct Position {
    /// Seconds trained so far.
    pub(super) seconds: f64,
    /// The last update after which an evaluation was logged.
    pub(super) evaluated: u64,
    /// The best of the evaluations, where best weights are kept.
    pub(super) best: Option<Best>,
}

/// The checkpoints and the weights of a run.
pub(super) struct Checkpoints<'a> {
    folder: &'a RunFolder,
    fingerprint: u32,
    /// The last update that a checkpoint holds, and the last evaluation it knows of.
    saved: (u64, u64),
    /// The files that hold the puzzle table of that checkpoint.
    row_files: Vec<RowFile>,
    /// The last update whose weights this process wrote.
    exported: u64,
    last_good: Option<PathBuf>,
}

impl<'a> Checkpoints<'a> {
    /// Of a run that begins, on training data with that checksum.
    pub(super) fn new(folder: &'a RunFolder, fingerprint: u32) -> Self {
        Self { folder, fingerprint, saved: (0, 0), row_files: Vec::new(), exported: 0, last_good: None }
    }

    /// Puts `trainer` where the newest whole checkpoint left it, if there is one, and says where that is, and where the order
    /// of the examples is. Damaged files that
    /// were passed over are reported to `warn`.
    ///
    /// # Errors
    /// When no checkpoint is whole, or it belongs to another model or other training data.
    pub(super) fn restore(
        &mut self,
        trainer: &mut Trainer<impl Engine<T = f32>>,
        warn: impl FnMut(String),
    ) -> Result<(Position, Option<SamplerState>)> {
        let Some(loaded) = load(self.folder, &trainer.config)? else { return Ok(Default::default()) };
        loaded.warnings.into_iter().for_each(warn);
        let state = loaded.value;
        if state.fingerprint != self.fingerprint {
            return Err(Error::input(format!(
                "{}: the training data is not what this run started with; bring it back, or train into a new folder",
                self.folder.root().display()
            )));
        }
        trainer.restore(state.trainer, loaded.rows)?;
        self.saved = (trainer.step_count(), state.evaluated);
        (self.row_files, self.last_good) = (loaded.row_files, Some(loaded.path));
        let position = Position { seconds: state.seconds, evaluated: state.evaluated, best: state.best };
        Ok((position, Some(state.sampler)))
    }

    /// Whether the newest checkpoint holds all that has happened.
    pub(super) fn are_current(&self, trainer: &Trainer<impl Engine>, evaluated: u64) -> bool {
        self.saved == (trainer.step_count(), evaluated)
    }

    /// Weights, then the state to resume from, each whole or not at all. What else the run writes must be on disk before.
    ///
    /// The weights are one file in the published form, so they cost what the whole puzzle table costs: of a table whose
    /// changes are saved apart they wait for the next save that writes all of it, or the end.
    pub(super) fn save(
        &mut self,
        trainer: &Trainer<impl Engine<T = f32>>,
        batches: &Batches<'_>,
        position: Position,
    ) -> Result<()> {
        let (checkpoint, step) = (self.folder.checkpoint(), trainer.step_count());
        if let Some(table) = &trainer.engine.weights().table {
            self.row_files = checkpoint::save_rows(&checkpoint, &self.row_files, step, &**table)?;
        }
        if self.row_files.len() <= 1 {
            self.export(trainer)?;
        }
        let fingerprint = self.fingerprint;
        let Position { seconds, evaluated, best } = position;
        let (sampler, trainer) = (batches.state(), trainer.state());
        let state = RunState { fingerprint, seconds, evaluated, sampler, trainer, best };
        self.last_good = Some(checkpoint::save(&checkpoint, step, &self.row_files, &state)?);
        self.saved = (step, evaluated);
        Ok(())
    }

    /// Writes the weights to use, unless they are there.
    pub(super) fn export(&mut self, trainer: &Trainer<impl Engine<T = f32>>) -> Result<()> {
        if trainer.step_count() > self.exported {
            let engine = &trainer.engine;
            engine.weights().save(&self.folder.weights(), &engine.dense(trainer.config.train.ema))?;
            self.exported = trainer.step_count();
        }
        Ok(())
    }

    /// Writes the weights of an evaluation that is the best so far.
    pub(super) fn export_best(&self, trainer: &Trainer<impl Engine<T = f32>>) -> Result<()> {
        let engine = &trainer.engine;
        engine.weights().save(&self.folder.best_weights(), &engine.dense(trainer.config.train.ema))
    }

    /// Names the last good checkpoint in an error that ends a run.
    pub(super) fn explain(&self, error: Error) -> Error {
        match error {
            Error::NonFinite { tensor, step, .. } => {
                let none = "none: it happened before the first".to_owned();
                let last_good = self.last_good.as_ref().map_or(none, |path| path.display().to_string());
                Error::NonFinite { tensor, step, last_good }
            }
            other => other,
        }
    }
}

/// The newest whole checkpoint of a run.
fn load(run: &RunPaths, config: &Config) -> Result<Option<Loaded<RunState<'static>, Option<PuzzleTable>>>> {
    let folder = run.checkpoint();
    let table = |files: &[RowFile]| read_table(&folder, files, config);
    checkpoint::load_latest::<RunState, RunStateV3, RunStateV2, _>(&folder, table)
}

/// The weights of a run's newest whole checkpoint: those that learn, or their average.
///
/// # Errors
/// When there is no checkpoint yet, none is whole, or it is of another model.
pub fn checkpoint_weights<D: Device<T = f32>>(run: &RunPaths, config: &Config, averaged: bool) -> Result<Weights<D>> {
    let Some(loaded) = load(run, config)? else {
        let at = run.checkpoint();
        return Err(Error::input(format!("{}: no checkpoint yet; wait for the first", at.display())));
    };
    let wanted = if averaged { EMA } else { WEIGHTS };
    let mut weights = Weights::zeros(&Model::new(&config.model, &config.task), config);
    let dense = loaded.value.trainer.buffers.iter().find(|(name, _)| name == wanted);
    match dense.filter(|(_, values)| values.len() == weights.params.values().len()) {
        Some((_, values)) => weights.params.update(|own| own.copy_from_slice(values)),
        None => {
            let (at, root) = (loaded.path.display(), run.root().display());
            return Err(Error::input(format!("{at}: belongs to a model of another shape than {root}/config.toml")));
        }
    }
    weights.table = loaded.rows.map(Arc::new);
    Ok(weights)
}

/// The puzzle table of a checkpoint; `None` for a model without one.
fn read_table(checkpoint: &Path, files: &[RowFile], config: &Config) -> Result<Option<PuzzleTable>> {
    let ndim = config.model.puzzle_emb_ndim;
    if ndim == 0 {
        return Ok(None);
    }
    let mut table = PuzzleTable::new(config.task.num_puzzle_identifiers, ndim);
    checkpoint::read_rows(checkpoint, files, ndim, |update, id, row| {
        if id as usize >= table.rows() {
            return Err(format!("it holds puzzle identifier {id} of {}", table.rows()));
        }
        // Rows that a run began with count as changed by its first update.
        table.row_mut(id, update.max(1)).copy_from_slice(row);
        Ok(())
    })?;
    Ok(Some(table))
}

//! A run from its first update to its last: steps, log, evaluations, checkpoints, and a clean end at any time.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::{StepReport, Trainer, TrainerState};
use crate::checkpoint::{self, RowFile, RunFolder};
use crate::config::{Config, FixedPoint};
use crate::dataset::{Batches, SamplerState, TaskData};
use crate::engine::{Lanes, PuzzleTable, Weights};
use crate::error::{Error, Result};
use crate::infer::{Evaluation, Identifiers, Thinking};
use crate::model::Model;
use crate::report::{MetricsLog, Progress, ProgressSample};

/// Seconds between two samples shown.
const SAMPLE_SECONDS: f64 = 0.25;

/// The split that evaluations during training use.
const TEST: &str = "test";

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
    trainer: TrainerState<'a>,
}

/// One line of `metrics.jsonl` for an update. Losses are per sequence; accuracies are over the slots that halted.
#[derive(Serialize)]
struct StepRecord {
    step: u64,
    seconds: f64,
    model_flops: f64,
    lr: f64,
    loss: f64,
    lm_loss: f64,
    q_halt_loss: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    q_continue_loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balance_loss: Option<f64>,
    /// Calls of the recursion, the mean over the sequences; only where their number is not fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<f64>,
    grad_norm: f64,
    halted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exact_accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    q_halt_accuracy: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    supervision_steps: Option<f64>,
}

/// One line of `metrics.jsonl` for an evaluation.
#[derive(Serialize)]
struct EvalRecord<'a> {
    step: u64,
    seconds: f64,
    model_flops: f64,
    eval: &'a Evaluation,
}

/// How a run ended.
#[derive(Debug, PartialEq)]
pub enum Ending {
    /// All updates are done; the last evaluation, if there is a test split.
    Finished(Option<Evaluation>),
    /// It was asked to stop, saved everything, and can be resumed.
    Interrupted,
}

/// A run in its folder.
pub struct Run<'a> {
    folder: &'a RunFolder,
    data: &'a TaskData,
    lanes: &'a Lanes,
    trainer: Trainer,
    batches: Batches<'a>,
    metrics: MetricsLog,
    fingerprint: u32,
    /// Seconds trained by earlier processes.
    seconds_before: f64,
    started: Instant,
    /// The last update after which an evaluation was logged.
    evaluated: u64,
    /// The last update that a checkpoint holds.
    saved: u64,
    /// The files that hold the puzzle table of that checkpoint.
    row_files: Vec<RowFile>,
    /// The last update whose weights this process wrote.
    exported: u64,
    last_good: Option<PathBuf>,
    /// Things worth telling that are no errors.
    pub warnings: Vec<String>,
}

impl<'a> Run<'a> {
    /// A fresh run, or with `resume` the continuation from the folder's newest whole checkpoint.
    pub fn new(
        folder: &'a RunFolder,
        config: Config,
        data: &'a TaskData,
        lanes: &'a Lanes,
        resume: bool,
    ) -> Result<Self> {
        let total_steps = data.total_steps(&config)?;
        let fingerprint = data.fingerprint()?;
        let table = |files: &[RowFile]| read_table(&folder.checkpoint(), files, &config);
        let loaded = if resume { checkpoint::load_latest::<RunState, _>(&folder.checkpoint(), table)? } else { None };
        let model = Model::new(&config.model, &config.task);
        let weights = Weights::new(&model, &config);
        let mut trainer = Trainer::new(config, weights, total_steps);
        let (mut sampler, mut seconds_before, mut evaluated) = (None, 0.0, 0);
        let (mut last_good, mut row_files, mut warnings) = (None, Vec::new(), Vec::new());
        if let Some(loaded) = loaded {
            let state = loaded.value;
            if state.fingerprint != fingerprint {
                return Err(Error::input(format!(
                    "{}: the training data is not what this run started with; bring it back, or train into a new folder",
                    folder.root().display()
                )));
            }
            trainer.restore(state.trainer, loaded.rows)?;
            (sampler, seconds_before, evaluated) = (Some(state.sampler), state.seconds, state.evaluated);
            (last_good, row_files, warnings) = (Some(loaded.path), loaded.row_files, loaded.warnings);
        }
        let batches = data.batches(&trainer.config, sampler)?;
        let metrics = MetricsLog::resume(&folder.metrics(), trainer.step_count())?;
        Ok(Self {
            saved: trainer.step_count(),
            row_files,
            exported: 0,
            started: Instant::now(),
            folder,
            data,
            lanes,
            trainer,
            batches,
            metrics,
            fingerprint,
            seconds_before,
            evaluated,
            last_good,
            warnings,
        })
    }

    /// The state of the run.
    pub fn trainer(&self) -> &Trainer {
        &self.trainer
    }

    /// Trains until all updates are done or `stop` says so. `limit_gflops` is the FMA limit of all lanes, for MFU.
    ///
    /// The loop runs on one of the lanes' threads, so that steps are not handed from thread to thread.
    ///
    /// # Errors
    /// [`Error::NonFinite`] names the last good checkpoint; the folder is then as that checkpoint left it.
    pub fn train(
        &mut self,
        progress: &mut Progress,
        limit_gflops: Option<f64>,
        stop: impl Fn() -> bool + Send + Sync,
    ) -> Result<Ending> {
        self.lanes.install(|| self.train_here(progress, limit_gflops, stop))
    }

    fn train_here(
        &mut self,
        progress: &mut Progress,
        limit_gflops: Option<f64>,
        stop: impl Fn() -> bool + Sync,
    ) -> Result<Ending> {
        self.started = Instant::now();
        let train = self.trainer.config.train.clone();
        let mut window = Window::new();
        let mut last_evaluation = None;
        loop {
            let step = self.trainer.step_count();
            let finished = step == self.trainer.total_steps();
            let due = |interval: u64| finished || (interval > 0 && step.is_multiple_of(interval));
            if step > self.evaluated && due(train.eval_interval) && self.has_test() {
                // The last evaluation may be the longest: what was trained does not wait for it.
                if finished && step > self.saved {
                    self.save()?;
                    self.saved = step - 1;
                }
                last_evaluation = self.evaluate(progress, &stop)?;
                window = Window::new();
            }
            if step > self.saved && due(train.checkpoint_interval) {
                self.save()?;
                window = Window::new();
            }
            let stopped = stop();
            if stopped && step > self.saved {
                self.save()?;
            }
            if (stopped || finished) && step > self.exported {
                self.export()?;
            }
            if stopped {
                return Ok(Ending::Interrupted);
            }
            if finished {
                return Ok(Ending::Finished(last_evaluation));
            }
            let report = match self.trainer.step(self.lanes, &mut self.batches) {
                Err(Error::NonFinite { tensor, step, .. }) => {
                    let none = "none: it happened before the first".to_owned();
                    let last_good = self.last_good.as_ref().map_or(none, |path| path.display().to_string());
                    return Err(Error::NonFinite { tensor, step, last_good });
                }
                other => other?,
            };
            self.metrics.append(&record(&report, &self.trainer, self.seconds()))?;
            window.add(&report);
            if window.seconds() > SAMPLE_SECONDS || report.step == self.trainer.total_steps() {
                progress.update(&window.sample(&train, limit_gflops));
                window = Window::new();
            }
        }
    }

    /// Seconds trained so far, by this process and earlier ones.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn has_test(&self) -> bool {
        self.data.split(TEST).is_ok_and(|split| split.examples() > 0)
    }

    /// Evaluates and logs it; `None` when `stop` cut it short.
    fn evaluate(&mut self, progress: &mut Progress, stop: &(impl Fn() -> bool + Sync)) -> Result<Option<Evaluation>> {
        let trainer = &self.trainer;
        let train = &trainer.config.train;
        let (seconds, step, model_flops) = (self.seconds(), trainer.step_count(), trainer.model_flops());
        let mut weights = trainer.evaluation_weights();
        self.lanes.replicate(&mut weights.params);
        let stored = (&trainer.model, &weights);
        let puzzles = (TEST, train.eval_puzzles);
        let thinking = Thinking { steps: train.halt_max_steps, halt: None };
        let own = Identifiers::Keep;
        let Some(evaluation) = self.data.evaluate(self.lanes, stored, puzzles, (thinking, own), None, stop)? else {
            return Ok(None);
        };
        self.metrics.append(&EvalRecord { step, seconds, model_flops, eval: &evaluation })?;
        self.evaluated = step;
        progress.note(&format!(
            "step {step:>6}  {seconds:6.1} s  test: exact {:5.1} %  tokens {:5.1} %  halting {:5.1} %{}  ({} puzzles)",
            100.0 * evaluation.exact_accuracy,
            100.0 * evaluation.token_accuracy,
            100.0 * evaluation.halt_accuracy,
            evaluation.valid.map_or_else(String::new, |share| format!("  valid {:5.1} %", 100.0 * share)),
            evaluation.puzzles,
        ));
        Ok(Some(evaluation))
    }

    /// Log, then weights, then the state to resume from, each whole or not at all.
    ///
    /// The weights are one file in the published form, so they cost what the whole puzzle table costs: of a table whose
    /// changes are saved apart they wait for the next save that writes all of it, or the end.
    fn save(&mut self) -> Result<()> {
        self.metrics.sync()?;
        let (checkpoint, step) = (self.folder.checkpoint(), self.trainer.step_count());
        if let Some(table) = &self.trainer.weights.table {
            self.row_files = checkpoint::save_rows(&checkpoint, &self.row_files, step, &**table)?;
        }
        if self.row_files.len() <= 1 {
            self.export()?;
        }
        let state = RunState {
            fingerprint: self.fingerprint,
            seconds: self.seconds(),
            evaluated: self.evaluated,
            sampler: self.batches.state(),
            trainer: self.trainer.state(),
        };
        self.last_good = Some(checkpoint::save(&checkpoint, step, &self.row_files, &state)?);
        self.saved = step;
        Ok(())
    }

    /// Writes the weights to use.
    fn export(&mut self) -> Result<()> {
        self.trainer.save_weights(&self.folder.weights())?;
        self.exported = self.trainer.step_count();
        Ok(())
    }
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
        table.row_mut(id, update).copy_from_slice(row);
        Ok(())
    })?;
    Ok(Some(table))
}

fn record(report: &StepReport, trainer: &Trainer, seconds: f64) -> StepRecord {
    let (model, train) = (&trainer.config.model, &trainer.config.train);
    let batch = train.batch_size as f64;
    let mean = |sum: f64| (report.count > 0).then(|| sum / report.count as f64);
    StepRecord {
        step: report.step,
        seconds,
        model_flops: trainer.model_flops(),
        lr: report.lr,
        loss: report.loss / batch,
        lm_loss: report.lm_loss / batch,
        q_halt_loss: report.q_halt_loss / batch,
        q_continue_loss: train.continue_loss.then_some(report.q_continue_loss / batch),
        balance_loss: (model.experts > 0).then_some(report.balance_loss / batch),
        calls: (model.fixed_point != FixedPoint::None).then_some(report.calls as f64 / batch),
        grad_norm: report.grad_norm,
        halted: report.count,
        token_accuracy: mean(report.accuracy),
        exact_accuracy: mean(report.exact_accuracy as f64),
        q_halt_accuracy: mean(report.q_halt_accuracy as f64),
        supervision_steps: mean(report.steps as f64),
    }
}

/// Sums over the updates since the last sample shown.
struct Window {
    since: Instant,
    updates: u64,
    model_flops: f64,
    last_step: u64,
    loss: f64,
    count: u64,
    exact: u64,
    steps: u64,
}

impl Window {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            updates: 0,
            model_flops: 0.0,
            last_step: 0,
            loss: 0.0,
            count: 0,
            exact: 0,
            steps: 0,
        }
    }

    fn add(&mut self, report: &StepReport) {
        self.updates += 1;
        self.model_flops += report.model_flops;
        self.last_step = report.step;
        self.loss += report.loss;
        self.count += report.count;
        self.exact += report.exact_accuracy;
        self.steps += report.steps;
    }

    fn seconds(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }

    fn sample(&self, train: &crate::config::TrainConfig, limit_gflops: Option<f64>) -> ProgressSample {
        let rate = self.updates as f64 / self.seconds().max(1e-9);
        let gflops = self.model_flops / self.seconds().max(1e-9) / 1e9;
        let mean = |sum: u64| (self.count > 0).then(|| sum as f64 / self.count as f64);
        ProgressSample {
            step: self.last_step,
            loss: self.loss / (self.updates.max(1) as f64 * train.batch_size as f64),
            puzzles_per_second: rate * train.batch_size as f64,
            gflops,
            mfu: limit_gflops.map(|limit| gflops / limit),
            exact_accuracy: mean(self.exact),
            mean_steps: mean(self.steps),
        }
    }
}

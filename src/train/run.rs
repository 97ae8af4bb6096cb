//! A run from its first update to its last: updates, evaluations, checkpoints, and a clean end at any time.

use std::time::Instant;

use super::checkpoints::{Checkpoints, Position};
use super::{RunData, StepReport, Trainer};
use crate::checkpoint::RunFolder;
use crate::config::{Config, FixedPoint};
use crate::dataset::{Batches, TaskData};
use crate::device::{Cpu, Device as _};
use crate::engine::{Engine, Lanes, TrainingDevice, Weights};
use crate::error::Result;
use crate::infer::{Identifiers, Inference, InferenceOptions};
use crate::model::Model;
use crate::report::{Evaluation, EvaluationRecord, MetricsLog, Sink, UpdateRecord};

/// The split that evaluations during training use.
const TEST: &str = "test";

/// How a run ended.
#[derive(Debug, PartialEq)]
pub enum Ending {
    /// All updates are done; the last evaluation, if there is a test split.
    Finished(Option<Evaluation>),
    /// It was asked to stop, saved everything, and can be resumed.
    Interrupted,
}

/// A run in its folder.
pub struct Run<'a, D: TrainingDevice<T = f32> + 'a = Cpu<f32>> {
    data: &'a TaskData,
    lanes: &'a Lanes<D>,
    trainer: Trainer<D::Engine<'a>>,
    batches: Batches<'a>,
    checkpoints: Checkpoints<'a>,
    /// The log, then those that were added.
    sinks: Vec<Box<dyn Sink + 'a>>,
    /// Seconds trained by earlier processes.
    seconds_before: f64,
    started: Instant,
    /// The last update after which an evaluation was logged.
    evaluated: u64,
    warnings: Vec<String>,
}

impl<'a, D: TrainingDevice<T = f32>> Run<'a, D> {
    /// A fresh run, or with `resume` the continuation from the folder's newest whole checkpoint.
    ///
    /// # Errors
    /// When the training data has no updates for these settings; on resume, when no checkpoint is whole, or it belongs to
    /// another model or other training data.
    pub fn new(
        folder: &'a RunFolder,
        config: Config,
        data: &'a TaskData,
        lanes: &'a Lanes<D>,
        resume: bool,
    ) -> Result<Self> {
        let total_steps = data.total_steps(&config)?;
        let identity = RunData::of(data, folder.root(), &config.data.dir)?;
        let kept = RunData::read(folder)?.filter(|_| resume);
        if let Some(kept) = &kept {
            kept.refuse_other(&identity, folder.root())?;
        }
        if kept.as_ref() != Some(&identity) {
            identity.write(folder)?;
        }
        let mut checkpoints = Checkpoints::new(folder, identity.fingerprint);
        let weights = Weights::new(&Model::new(&config.model, &config.task), &config);
        let mut trainer = Trainer::on(lanes, config, weights, total_steps)?;
        let mut warnings = Vec::new();
        let position = match resume {
            true => checkpoints.restore(&mut trainer, |warning| warnings.push(warning))?,
            false => Position::default(),
        };
        let batches = data.batches(&trainer.config, position.sampler)?;
        let log = MetricsLog::resume(&folder.metrics(), trainer.step_count())?;
        if let Some(before) = log.path().filter(|&before| before != D::path()) {
            warnings.push(format!(
                "up to update {} this run was computed on {before}, from here on on {}: a sound continuation, but not bit for \
                 bit that of a run which never changed",
                trainer.step_count(),
                D::path()
            ));
        }
        Ok(Self {
            data,
            lanes,
            trainer,
            batches,
            checkpoints,
            sinks: vec![Box::new(log)],
            seconds_before: position.seconds,
            started: Instant::now(),
            evaluated: position.evaluated,
            warnings,
        })
    }

    /// The state of the run.
    pub fn trainer(&self) -> &Trainer<D::Engine<'a>> {
        &self.trainer
    }

    /// From here on `sink` receives the records too.
    pub fn add_sink(&mut self, sink: impl Sink + 'a) {
        self.sinks.push(Box::new(sink));
    }

    /// Trains until all updates are done or `stop` says so.
    ///
    /// The loop runs on one of the lanes' threads, so that steps are not handed from thread to thread.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) names the last good checkpoint; the folder is then as that checkpoint
    /// left it. An error of a sink, or of writing.
    pub fn train(&mut self, stop: impl Fn() -> bool + Send + Sync) -> Result<Ending> {
        self.started = Instant::now();
        for warning in std::mem::take(&mut self.warnings) {
            self.sinks.note(&warning);
        }
        let lanes = self.lanes;
        let ending = lanes.install(|| self.train_here(stop));
        self.sinks.finish();
        ending
    }

    fn train_here(&mut self, stop: impl Fn() -> bool + Sync) -> Result<Ending> {
        let train = &self.trainer.config.train;
        let (eval_interval, checkpoint_interval) = (train.eval_interval, train.checkpoint_interval);
        let mut last_evaluation = None;
        loop {
            let step = self.trainer.step_count();
            let finished = step == self.trainer.total_steps();
            let due = |interval: u64| finished || (interval > 0 && step.is_multiple_of(interval));
            if step > self.evaluated && due(eval_interval) && self.has_test() {
                // The last evaluation may be the longest: what was trained does not wait for it.
                if finished {
                    self.save()?;
                }
                last_evaluation = self.evaluate(&stop)?;
            }
            let stopped = stop();
            if stopped || due(checkpoint_interval) {
                self.save()?;
            }
            if stopped || finished {
                self.checkpoints.export(&self.trainer)?;
                return Ok(if stopped { Ending::Interrupted } else { Ending::Finished(last_evaluation) });
            }
            self.update()?;
        }
    }

    /// One update; its record goes to the sinks.
    fn update(&mut self) -> Result<()> {
        let started = Instant::now();
        let report = self.trainer.step(&mut self.batches).map_err(|error| self.checkpoints.explain(error))?;
        let update_seconds = started.elapsed().as_secs_f64();
        let record = UpdateRecord { seconds: self.seconds(), update_seconds, ..record(&report, &self.trainer) };
        self.sinks.update(&record)
    }

    /// Evaluates and tells it; `None` when `stop` cut it short.
    fn evaluate(&mut self, stop: &(impl Fn() -> bool + Sync)) -> Result<Option<Evaluation>> {
        let trainer = &self.trainer;
        let train = &trainer.config.train;
        let (seconds, step, model_flops) = (self.seconds(), trainer.step_count(), trainer.model_flops());
        let mut weights = trainer.evaluation_weights();
        self.lanes.replicate(&mut weights.params);
        let options = InferenceOptions { steps: train.halt_max_steps, halt: None };
        let inference = Inference { lanes: self.lanes, model: &trainer.model, weights: &weights, options };
        let own = Identifiers::Keep;
        let Some(eval) = self.data.evaluate(&inference, TEST, train.eval_puzzles, own, None, stop)? else {
            return Ok(None);
        };
        let record = EvaluationRecord { step, seconds, model_flops, eval };
        if record.eval.puzzles > 0 {
            self.sinks.evaluation(&record)?;
        }
        self.evaluated = step;
        Ok(Some(record.eval))
    }

    /// Brings the checkpoint up to date; the sinks are synced first.
    fn save(&mut self) -> Result<()> {
        if self.checkpoints.are_current(&self.trainer, self.evaluated) {
            return Ok(());
        }
        self.sinks.sync()?;
        let seconds = self.seconds();
        self.checkpoints.save(&self.trainer, &self.batches, seconds, self.evaluated)
    }

    /// Seconds trained so far, by this process and earlier ones.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn has_test(&self) -> bool {
        self.data.split(TEST).is_ok_and(|split| split.examples() > 0)
    }
}

/// The means of an update's sums; what only a clock knows is left at zero.
fn record<E: Engine>(report: &StepReport, trainer: &Trainer<E>) -> UpdateRecord {
    let (model, train) = (&trainer.config.model, &trainer.config.train);
    let batch = train.batch_size as f64;
    let mean = |sum: f64| (report.count > 0).then(|| sum / report.count as f64);
    UpdateRecord {
        step: report.step,
        seconds: 0.0,
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
        device: Some(E::Device::NAME).filter(|&name| name != Cpu::<f32>::NAME),
        path: (E::Device::NAME == Cpu::<f32>::NAME).then(E::Device::path),
        batch: train.batch_size as u64,
        update_seconds: 0.0,
        update_flops: report.model_flops,
    }
}

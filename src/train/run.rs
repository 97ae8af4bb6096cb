//! A run from its first update to its last: updates, evaluations, checkpoints, and a clean end at any time.

use std::time::Instant;

use super::best::{Best, measured};
use super::checkpoints::{Checkpoints, Position};
use super::{Requests, RunData, StepReport, Trainer, learning_rate_factor};
use crate::checkpoint::RunFolder;
use crate::config::{Config, FixedPoint, KeepBest, TrainConfig};
use crate::dataset::{Batches, TaskData};
use crate::device::{Cpu, Device as _};
use crate::engine::{Engine, Lanes, TrainingDevice, Weights};
use crate::error::{Error, Result};
use crate::infer::{Identifiers, Inference, InferenceOptions};
use crate::model::Model;
use crate::report::{Evaluation, EvaluationRecord, MetricsLog, Sink, UpdateRecord};

/// How a run ended.
#[derive(Debug, PartialEq)]
pub enum Ending {
    /// All updates are done, or evaluations have been no better for too long; the last evaluation, if there was one.
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
    /// The split that evaluations read, if there is one.
    eval_split: Option<&'a str>,
    /// The last update after which an evaluation was logged.
    evaluated: u64,
    /// The best evaluation, where best weights are kept.
    best: Option<Best>,
    warnings: Vec<String>,
}

impl<'a, D: TrainingDevice<T = f32>> Run<'a, D> {
    /// A fresh run, or with `resume` the continuation from the folder's newest whole checkpoint.
    ///
    /// # Errors
    /// When the training data has no updates or no split for these settings; on resume, when no checkpoint is whole, or it
    /// belongs to another model or other training data.
    pub fn new(
        folder: &'a RunFolder,
        config: Config,
        data: &'a TaskData,
        lanes: &'a Lanes<D>,
        resume: bool,
    ) -> Result<Self> {
        let weights = Weights::new(&Model::new(&config.model, &config.task), &config);
        Self::of(folder, config, data, lanes, weights, resume)
    }

    /// A fresh run that begins with these weights, which are its first checkpoint.
    ///
    /// # Errors
    /// As [`Run::new`].
    pub fn from_weights(
        folder: &'a RunFolder,
        config: Config,
        data: &'a TaskData,
        lanes: &'a Lanes<D>,
        weights: Weights<D>,
    ) -> Result<Self> {
        let mut run = Self::of(folder, config, data, lanes, weights, false)?;
        run.checkpoints.save(&run.trainer, &run.batches, Position::default())?;
        Ok(run)
    }

    fn of(
        folder: &'a RunFolder,
        config: Config,
        data: &'a TaskData,
        lanes: &'a Lanes<D>,
        weights: Weights<D>,
        resume: bool,
    ) -> Result<Self> {
        let total_steps = data.total_steps(&config)?;
        let eval_split = data.evaluation_split(&config.train.eval_split)?;
        let eval_split = eval_split.filter(|name| data.split(name).is_ok_and(|split| split.examples() > 0));
        can_be_chosen_by(&config.train, data, eval_split)?;
        let identity = RunData::of(data, folder.root(), &config.data.dir)?;
        let kept = RunData::read(folder)?.filter(|_| resume);
        if let Some(kept) = &kept {
            kept.refuse_other(&identity, folder.root())?;
        }
        let mut checkpoints = Checkpoints::new(folder, identity.fingerprint);
        let mut trainer = Trainer::on(lanes, config, weights, total_steps)?;
        let mut warnings: Vec<String> = folder.warning().map(str::to_owned).into_iter().collect();
        let (position, sampler) = match resume {
            true => checkpoints.restore(&mut trainer, |warning| warnings.push(warning))?,
            false => Default::default(),
        };
        if trainer.step_count() > total_steps {
            return Err(Error::input(format!(
                "{}: {} updates are done already, so it cannot end after {total_steps}; give more, or train into a new folder",
                folder.root().display(),
                trainer.step_count()
            )));
        }
        if resume {
            same_rates_so_far(folder, data, &trainer.config, trainer.step_count())?;
        }
        if kept.as_ref() != Some(&identity) {
            identity.write(folder)?;
        }
        let batches = data.batches(&trainer.config, sampler)?;
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
            eval_split,
            evaluated: position.evaluated,
            best: position.best,
            warnings,
        })
    }

    /// The state of the run.
    pub fn trainer(&self) -> &Trainer<D::Engine<'a>> {
        &self.trainer
    }

    /// The split that evaluations read, if there is one.
    pub fn eval_split(&self) -> Option<&str> {
        self.eval_split
    }

    /// The best evaluation so far, where best weights are kept.
    pub fn best(&self) -> Option<Best> {
        self.best
    }

    /// Whether evaluations have been no better for as long as the settings allow.
    pub fn is_stale(&self) -> bool {
        self.best.is_some_and(|best| best.is_stale(self.trainer.config.train.stop_after))
    }

    /// From here on `sink` receives the records too.
    pub fn add_sink(&mut self, sink: impl Sink + 'a) {
        self.sinks.push(Box::new(sink));
    }

    /// Trains until all updates are done or somebody asks it to stop; saves in between whenever somebody asks for that.
    ///
    /// The loop runs on one of the lanes' threads, so that steps are not handed from thread to thread.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) names the last good checkpoint; the folder is then as that checkpoint
    /// left it. An error of a sink, or of writing.
    pub fn train(&mut self, requests: &Requests) -> Result<Ending> {
        self.started = Instant::now();
        for warning in std::mem::take(&mut self.warnings) {
            self.sinks.note(&warning);
        }
        let lanes = self.lanes;
        let ending = lanes.install(|| self.train_here(requests));
        self.sinks.finish();
        ending
    }

    fn train_here(&mut self, requests: &Requests) -> Result<Ending> {
        let train = &self.trainer.config.train;
        let (eval_interval, checkpoint_interval) = (train.eval_interval, train.checkpoint_interval);
        let mut last_evaluation = None;
        loop {
            let step = self.trainer.step_count();
            if requests.take_save() {
                self.save()?;
                self.sinks.note(&format!("saved after update {step}, going on"));
            }
            let mut finished = step == self.trainer.total_steps();
            let due = |interval: u64, last: bool| last || (interval > 0 && step.is_multiple_of(interval));
            if let Some(split) = self.eval_split.filter(|_| step > self.evaluated && due(eval_interval, finished)) {
                // The last evaluation may be the longest: what was trained does not wait for it.
                if finished {
                    self.save()?;
                }
                // Nor does who asks for a checkpoint in the middle of it: it begins again then, once.
                let saved = self.checkpoints.are_current(&self.trainer, self.evaluated);
                let interrupted = || requests.is_stopped() || !saved && requests.is_save_asked();
                last_evaluation = self.evaluate(split, &interrupted)?;
                if last_evaluation.is_none() && !requests.is_stopped() {
                    continue;
                }
            }
            finished |= self.is_stale();
            let stopped = requests.is_stopped();
            if stopped || due(checkpoint_interval, finished) {
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
    fn evaluate(&mut self, split: &str, stop: &(impl Fn() -> bool + Sync)) -> Result<Option<Evaluation>> {
        let trainer = &self.trainer;
        let train = &trainer.config.train;
        let (seconds, step, model_flops) = (self.seconds(), trainer.step_count(), trainer.model_flops());
        let mut weights = trainer.evaluation_weights();
        self.lanes.replicate(&mut weights.params);
        let options = InferenceOptions { steps: train.halt_max_steps, halt: None };
        let inference = Inference { lanes: self.lanes, model: &trainer.model, weights: &weights, options };
        let own = Identifiers::Keep;
        let Some(eval) = self.data.evaluate(&inference, split, train.eval_puzzles, own, None, stop)? else {
            return Ok(None);
        };
        let record = EvaluationRecord { step, seconds, model_flops, split: split.to_owned(), eval };
        if record.eval.puzzles > 0 {
            self.sinks.evaluation(&record)?;
            self.judge(&record)?;
        }
        self.evaluated = step;
        Ok(Some(record.eval))
    }

    /// Keeps the weights of an evaluation that is the best so far.
    fn judge(&mut self, record: &EvaluationRecord) -> Result<()> {
        let Some(value) = measured(self.trainer.config.train.keep_best, &record.eval) else { return Ok(()) };
        let best = Best::with(self.best, record.step, value);
        if best.step == record.step {
            self.checkpoints.export_best(&self.trainer)?;
        }
        self.best = Some(best);
        Ok(())
    }

    /// Brings the checkpoint up to date; the sinks are synced first.
    fn save(&mut self) -> Result<()> {
        if self.checkpoints.are_current(&self.trainer, self.evaluated) {
            return Ok(());
        }
        self.sinks.sync()?;
        let position = Position { seconds: self.seconds(), evaluated: self.evaluated, best: self.best };
        self.checkpoints.save(&self.trainer, &self.batches, position)
    }

    /// Seconds trained so far, by this process and earlier ones.
    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }
}

/// Refuses to go on to another number of updates than the folder's settings say where the updates done would have had other
/// learning rates.
fn same_rates_so_far(folder: &RunFolder, data: &TaskData, config: &Config, done: u64) -> Result<()> {
    let (planned, total) = (data.total_steps(&folder.read_config()?)?, data.total_steps(config)?);
    let rate = |total| learning_rate_factor(&config.train, done, total);
    if rate(planned) == rate(total) {
        return Ok(());
    }
    let root = folder.root().display();
    Err(Error::input(format!(
        "{root}: --resume with train.max_steps: {planned} -> {total}: the learning rate falls over {planned} updates \
         (train.lr_min_ratio = {}), so the {done} that are done would have had other rates; begin a new run with --init {root}",
        config.train.lr_min_ratio
    )))
}

/// Refuses to keep the best weights where no evaluation could say which those are.
fn can_be_chosen_by(train: &TrainConfig, data: &TaskData, eval_split: Option<&str>) -> Result<()> {
    let why = match train.keep_best {
        KeepBest::Off => return Ok(()),
        _ if eval_split.is_none() => "there is no split valid or test to evaluate on".to_owned(),
        KeepBest::Valid if !data.may_have_several_answers() => {
            format!(
                "{} has a single answer, so valid is no measure of its own; give exact_accuracy",
                data.board().name()
            )
        }
        _ => return Ok(()),
    };
    Err(Error::input(format!("train.keep_best = {:?}: {why}", train.keep_best.name())))
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

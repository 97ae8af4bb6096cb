//! One optimizer update: refill halted slots, run all groups, sum their gradients in a fixed tree, update, halt.

use std::borrow::Cow;
use std::convert::Infallible;

use serde::{Deserialize, Serialize};

use super::incoming::Incoming;
use super::{ema_rate, learning_rate_factor};
use crate::config::{Config, TrainConfig, TrainOnly};
use crate::dataset::{Examples, TaskData};
use crate::device::{Measured, Real};
use crate::engine::{
    Alone, BoxedGroup, Engine, Group, Lanes, NamedBuffer, Peers, PuzzleTable, Slots, TrainingDevice, UpdateRule,
    Weights, groups_of_rank, puzzle_table,
};
use crate::error::{Error, Result};
use crate::infer::HaltRule;
use crate::model::{Model, network_flops, update_flops};
use crate::rng::Rng;
use crate::tape::profile::{Part, Stopwatch};

/// Random stream of the exploration draws.
const EXPLORATION_STREAM: u64 = 1 << 32;

/// What an update reports. Sums are over the batch; metrics are over the slots that halted (specification, "Loss").
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StepReport {
    /// Updates done, this one included.
    pub step: u64,
    /// Learning rate of the dense weights.
    pub lr: f64,
    /// lm + halt_loss_weight · (halt + continue) + balance_loss_weight · balance, summed over the batch.
    pub loss: f64,
    /// Cross-entropy of the answers.
    pub lm_loss: f64,
    /// Binary cross-entropy of the halting head.
    pub q_halt_loss: f64,
    /// Binary cross-entropy of the continue head.
    pub q_continue_loss: f64,
    /// With experts: the load-balancing loss.
    pub balance_loss: f64,
    /// Calls of the recursion.
    pub calls: u64,
    /// Model FLOPs of this update.
    pub model_flops: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Slots that halted and have a label.
    pub count: u64,
    /// Sum of their token accuracies.
    pub accuracy: f64,
    /// How many of them are exactly right.
    pub exact_accuracy: u64,
    /// How many of them knew whether they are.
    pub q_halt_accuracy: u64,
    /// Sum of the supervision steps they took.
    pub steps: u64,
}

/// Whether all values are finite; some at a time, because a search for the first that is not would look at them one by one.
fn are_finite<T: Real>(values: &[T]) -> bool {
    values.chunks(64).all(|some| some.iter().fold(true, |all, value| all & value.is_finite()))
}

/// Everything a run changes as it goes, and the engine that changes it.
pub struct Trainer<E: Engine> {
    /// All settings.
    pub config: Config,
    /// The structure that is trained.
    pub model: Model,
    /// Where it is trained.
    pub engine: E,
    /// The processes that train this model together.
    peers: Box<dyn Peers<E::T>>,
    /// First slot of the batch that is this process's.
    first_slot: usize,
    /// Updates done.
    step: u64,
    /// Updates planned: the end of the learning-rate schedule.
    total_steps: u64,
    /// Calls that settled states made unnecessary, since the first update.
    calls_skipped: u64,
    flops: UpdateFlops,
    rng: Rng,
    minimum_steps: Vec<u32>,
    /// Sums of each gradient group, first of this process, then of all.
    figures: Vec<f64>,
    /// The examples that halted slots take next.
    incoming: Incoming,
    seen: SeenRows<E::T>,
    /// Times the parts of a step while there is one.
    pub(crate) watch: Option<Stopwatch<<E::Device as Measured>::Mark>>,
}

/// Rows of the puzzle table that a batch has touched.
struct SeenRows<T> {
    ids: Vec<u32>,
    /// `[ids, ndim]`.
    grads: Vec<T>,
    /// Scratch.
    order: Vec<(u32, u32)>,
}

/// Model FLOPs, counted once.
struct UpdateFlops {
    /// Of an update that makes all its calls.
    update: f64,
    /// Of one call of a detached cycle, for one sequence.
    detached_call: f64,
}

impl UpdateFlops {
    fn new(model: &Model, train: &TrainConfig) -> Self {
        let cycle = model.schedule.iteration.as_ref().map_or(0, |iteration| iteration.cycle);
        let calls = &model.schedule.calls[..cycle];
        let detached: f64 = calls.iter().map(|call| network_flops(model, call.net)).sum();
        Self { update: update_flops(model, train), detached_call: detached / cycle.max(1) as f64 }
    }
}

/// What a checkpoint holds of a gradient group: its slots, and their states.
pub type GroupState<'a, T> = (Cow<'a, Slots>, Cow<'a, [Vec<T>]>);

/// The part of a [`Trainer`] that a checkpoint holds; the puzzle table is saved apart, by its rows.
#[derive(Serialize, Deserialize)]
#[serde(bound(serialize = "T: Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct TrainerState<'a, T: Clone> {
    /// Updates done.
    pub step: u64,
    /// Calls that settled states made unnecessary, since the first update.
    pub calls_skipped: u64,
    /// The generator of the exploration draws.
    pub rng: Rng,
    /// Weights, EMA and optimizer state, by name.
    pub buffers: Vec<NamedBuffer<'a, T>>,
    /// Slots and states of each gradient group.
    pub groups: Vec<GroupState<'a, T>>,
}

impl<E: Engine> Trainer<E> {
    /// A fresh run of `total_steps` updates on the lanes of this process alone.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn on<'a, D: TrainingDevice<Engine<'a> = E>>(
        lanes: &'a Lanes<D>,
        config: Config,
        weights: Weights<D>,
        total_steps: u64,
    ) -> Result<Self>
    where
        E: Engine<T = D::T>,
    {
        let model = Model::new(&config.model, &config.task);
        let engine = D::engine(lanes, &model, &config.train, weights, &Alone)?;
        Ok(Self::new(config, model, engine, Box::new(Alone), total_steps))
    }

    /// A fresh run on a data set, whose shapes the model takes: as many updates as the settings and the data say.
    ///
    /// # Errors
    /// When settings and data do not go together.
    pub fn for_data<'a, D: TrainingDevice<Engine<'a> = E>>(
        lanes: &'a Lanes<D>,
        mut config: Config,
        data: &TaskData,
    ) -> Result<Self>
    where
        E: Engine<T = D::T>,
    {
        config.task = data.task().clone();
        config.validate()?;
        let total_steps = data.total_steps(&config)?;
        let weights = Weights::new(&Model::new(&config.model, &config.task), &config);
        Self::on(lanes, config, weights, total_steps)
    }

    /// The weights to evaluate: their EMA when it is on.
    pub fn evaluation_weights(&self) -> Weights<E::Device> {
        self.engine.weights().with_dense(&self.engine.dense(self.config.train.ema))
    }

    /// A fresh run of `total_steps` updates; the engine has the slots that `peers` leave to this process.
    pub fn new(config: Config, model: Model, engine: E, peers: Box<dyn Peers<E::T>>, total_steps: u64) -> Self {
        let train = &config.train;
        let (_, first_slot) = groups_of_rank(train, peers.rank(), peers.size());
        Self {
            rng: Rng::stream(train.seed, EXPLORATION_STREAM),
            minimum_steps: Vec::with_capacity(train.batch_size),
            figures: Vec::new(),
            incoming: Incoming::new(model.embedding.seq_len, train.batch_size),
            seen: SeenRows { ids: Vec::new(), grads: Vec::new(), order: Vec::new() },
            watch: None,
            step: 0,
            total_steps,
            calls_skipped: 0,
            flops: UpdateFlops::new(&model, train),
            first_slot,
            peers,
            engine,
            model,
            config,
        }
    }

    /// Updates done.
    pub fn step_count(&self) -> u64 {
        self.step
    }

    /// Updates planned.
    pub fn total_steps(&self) -> u64 {
        self.total_steps
    }

    /// Model FLOPs since the first update.
    pub fn model_flops(&self) -> f64 {
        self.flops.update * self.step as f64 - self.flops.detached_call * self.calls_skipped as f64
    }

    /// Calls that an update makes when no states settle early.
    fn calls_planned(&self) -> u64 {
        (self.model.schedule.calls.len() * self.config.train.batch_size) as u64
    }

    /// One update, with exploration drawn from the run's own generator.
    ///
    /// # Errors
    /// As [`Trainer::step_with`].
    pub fn step(&mut self, examples: &mut (impl Examples + ?Sized)) -> Result<StepReport> {
        let train = &self.config.train;
        let explored = train.halt_max_steps.saturating_sub(1) as usize;
        let rng = self.rng.clone();
        let mut minimum_steps = std::mem::take(&mut self.minimum_steps);
        minimum_steps.clear();
        for _ in 0..train.batch_size {
            let explores = explored > 0 && self.rng.uniform() < train.halt_exploration_prob;
            minimum_steps.push(if explores { 2 + self.rng.below(explored) as u32 } else { 0 });
        }
        let report = self.step_with(examples, &minimum_steps);
        self.minimum_steps = minimum_steps;
        if report.is_err() {
            self.rng = rng;
        }
        report
    }

    /// One update; slot i of the batch may not halt before `minimum_steps[i]`.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when a loss or gradient is not finite, and whatever an example cannot be read for; the weights
    /// are then still those of before.
    pub fn step_with(&mut self, examples: &mut (impl Examples + ?Sized), minimum_steps: &[u32]) -> Result<StepReport> {
        self.start_watch();
        self.refill(examples)?;
        self.lap(Part::Examples, 0.0);
        self.engine.accumulate(&self.model, &self.config.train);
        self.lap(Part::Groups, 0.0);
        let mut report = self.losses()?; // first, because a device may still be summing gradients
        self.lap(Part::Losses, 0.0);
        let grad_norm = self.engine.reduce(&mut *self.peers)?;
        let [reduction_bytes, update_bytes] = self.engine.sweep_bytes();
        self.lap(Part::GradientSum, reduction_bytes);
        let grad_scale = self.grad_scale(grad_norm)?;
        let skipped = self.calls_planned() - report.calls;
        self.calls_skipped += skipped;
        report.model_flops = self.flops.update - self.flops.detached_call * skipped as f64;
        self.step += 1;
        let train = &self.config.train;
        let factor = learning_rate_factor(train, self.step, self.total_steps);
        (report.step, report.lr, report.grad_norm) = (self.step, train.lr * factor, grad_norm);
        let rule = UpdateRule { t: self.step, lr: report.lr, grad_scale, ema_rate: ema_rate(train, self.step) };
        if self.config.train.train_only == TrainOnly::All {
            self.engine.update(&rule);
        }
        self.update_table(self.config.train.puzzle_emb_lr * factor)?;
        self.lap(Part::Optimizer, update_bytes);
        self.halt(minimum_steps, &mut report)?;
        self.lap(Part::Halting, 0.0);
        Ok(report)
    }

    fn start_watch(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.start();
        }
    }

    fn lap(&mut self, part: Part, bytes: f64) {
        if let Some(watch) = &mut self.watch {
            watch.lap(part, bytes);
        }
    }

    /// Every halted slot takes the next example of the incoming batch; when one cannot be read, none does.
    fn refill(&mut self, examples: &mut (impl Examples + ?Sized)) -> Result<()> {
        examples.next_batch();
        self.incoming.read(self.engine.groups(), self.first_slot, examples)?;
        let mut rows = self.incoming.rows();
        for group in self.engine.groups_mut() {
            for slot in 0..group.len() {
                if group.slots.halted[slot] {
                    let (inputs, labels, identifier) = rows.next().expect("an example for each halted slot");
                    let Ok(()) = group.slots.refill(slot, |to_inputs, to_labels| {
                        to_inputs.copy_from_slice(inputs);
                        to_labels.copy_from_slice(labels);
                        Ok::<_, Infallible>(identifier)
                    });
                }
            }
        }
        Ok(())
    }

    /// Sums over the whole batch, in the order of its gradient groups.
    fn losses(&mut self) -> Result<StepReport> {
        const NUMBERS: usize = 6;
        let of_group = |group: &BoxedGroup<E::T>| -> [f64; NUMBERS] {
            let outcome = &group.outcome;
            [
                outcome.lm_loss.iter().sum(),
                outcome.halt_loss.iter().sum(),
                outcome.continue_loss.iter().sum(),
                outcome.balance_loss.iter().sum(),
                outcome.calls.iter().map(|&calls| f64::from(calls)).sum(),
                f64::from(u8::from(are_finite(&outcome.puzzle_grads))),
            ]
        };
        self.figures.clear();
        self.figures.extend(self.engine.groups().iter().flat_map(of_group));
        self.peers.gather(&mut self.figures)?;
        let mut report = StepReport::default();
        for (i, numbers) in self.figures.chunks_exact(NUMBERS).enumerate() {
            report.lm_loss += numbers[0];
            report.q_halt_loss += numbers[1];
            report.q_continue_loss += numbers[2];
            report.balance_loss += numbers[3];
            report.calls += numbers[4] as u64;
            let train = &self.config.train;
            report.loss = report.lm_loss + train.halt_loss_weight * (report.q_halt_loss + report.q_continue_loss);
            // Not even a zero is added without experts: the sum's bits stay.
            if self.config.model.experts > 0 {
                report.loss += train.balance_loss_weight * report.balance_loss;
            }
            if !report.loss.is_finite() {
                return Err(self.non_finite(format!("the loss of gradient group {i}")));
            }
            if numbers[5] == 0.0 {
                return Err(self.non_finite(format!("the gradient of {}", puzzle_table::NAME)));
            }
        }
        Ok(report)
    }

    /// The factor that clipping puts on the gradient.
    fn grad_scale(&self, norm: f64) -> Result<f64> {
        if !norm.is_finite() {
            let [not_finite, _] = self.engine.suspects();
            return Err(self.non_finite(not_finite));
        }
        let clip = self.config.train.grad_clip;
        let scale = if clip > 0.0 && norm > clip { clip / norm } else { 1.0 };
        // The second moment is the gradient's square: beyond f32 the moments overflow to infinity and the weights to NaN,
        // which the next step would be the first to see. So the update is refused now.
        if (norm * scale).powi(2) > f64::from(f32::MAX) {
            let [_, largest] = self.engine.suspects();
            return Err(self.non_finite(format!("the square of {largest}")));
        }
        Ok(scale)
    }

    fn non_finite(&self, tensor: String) -> Error {
        Error::NonFinite { tensor, step: self.step + 1, last_good: "none yet".into() }
    }

    /// The puzzle table's own rule, on the rows that the whole batch has seen.
    fn update_table(&mut self, lr: f64) -> Result<()> {
        if self.engine.table_mut().is_none() {
            return Ok(());
        }
        let SeenRows { ids, grads, order } = &mut self.seen;
        ids.clear();
        grads.clear();
        for group in self.engine.groups() {
            ids.extend_from_slice(&group.slots.puzzle_ids);
            grads.extend_from_slice(&group.outcome.puzzle_grads);
        }
        if self.peers.size() > 1 {
            let mut all: Vec<f64> = ids.iter().map(|&id| f64::from(id)).collect();
            self.peers.gather(&mut all)?;
            *ids = all.into_iter().map(|id| id as u32).collect();
            let mut all: Vec<f64> = grads.iter().map(|&g| g.to_f64()).collect();
            self.peers.gather(&mut all)?;
            *grads = all.into_iter().map(E::T::from_f64).collect();
        }
        let decay = self.config.train.puzzle_emb_weight_decay;
        if let Some(table) = self.engine.table_mut() {
            table.update(self.step, (lr, decay), (ids, grads), order);
        }
        Ok(())
    }

    /// Who has lived long enough, or says it is done; and the metrics of those (specification, "Deep supervision", step 3).
    fn halt(&mut self, minimum_steps: &[u32], report: &mut StepReport) -> Result<()> {
        const NUMBERS: usize = 5;
        let train = &self.config.train;
        let rule = HaltRule::of(&self.model, train);
        let mut minimum = minimum_steps[self.first_slot..].iter();
        self.figures.clear();
        for group in self.engine.groups_mut() {
            let Group { slots, outcome, .. } = &mut **group;
            let mut numbers = [0.0; NUMBERS];
            for slot in 0..slots.len() {
                let minimum = *minimum.next().expect("one minimum for each slot");
                let q = outcome.q[slot];
                slots.steps[slot] += 1;
                let steps = slots.steps[slot];
                let mut halted = steps >= train.halt_max_steps;
                if train.act && train.halt_max_steps > 1 {
                    halted |= rule.is_done(q);
                    halted &= steps >= minimum;
                }
                slots.halted[slot] = halted;
                let (correct, labelled) = (outcome.correct[slot], outcome.labelled[slot]);
                if halted && labelled > 0 {
                    let exact = outcome.is_exact(slot);
                    let knows = (q[0] >= E::T::ZERO) == exact;
                    let flags = [exact, knows].map(|flag| f64::from(u8::from(flag)));
                    let slot = [1.0, f64::from(correct) / f64::from(labelled), flags[0], flags[1], f64::from(steps)];
                    numbers.iter_mut().zip(slot).for_each(|(sum, number)| *sum += number);
                }
            }
            self.figures.extend(numbers);
        }
        self.peers.gather(&mut self.figures)?;
        for numbers in self.figures.chunks_exact(NUMBERS) {
            report.count += numbers[0] as u64;
            report.accuracy += numbers[1];
            report.exact_accuracy += numbers[2] as u64;
            report.q_halt_accuracy += numbers[3] as u64;
            report.steps += numbers[4] as u64;
        }
        Ok(())
    }

    /// Everything a checkpoint holds but the puzzle table, borrowed.
    pub fn state(&self) -> TrainerState<'_, E::T> {
        TrainerState {
            step: self.step,
            calls_skipped: self.calls_skipped,
            rng: self.rng.clone(),
            buffers: self.engine.snapshot(),
            groups: self
                .engine
                .groups()
                .iter()
                .map(|group| Cow::Borrowed(&group.slots))
                .zip(self.engine.carried())
                .collect(),
        }
    }

    /// Continues from a checkpoint of the same configuration and its puzzle table.
    ///
    /// # Errors
    /// When the shapes do not fit: the checkpoint belongs to another model.
    pub fn restore(&mut self, state: TrainerState<'_, E::T>, table: Option<PuzzleTable<E::T>>) -> Result<()> {
        let groups = state.groups.into_iter().map(|(slots, states)| (slots.into_owned(), states.into_owned()));
        self.engine.restore(state.buffers, table, groups.collect())?;
        (self.step, self.calls_skipped, self.rng) = (state.step, state.calls_skipped, state.rng);
        Ok(())
    }
}

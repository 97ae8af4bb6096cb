//! One optimizer update: refill halted slots, run all groups, sum their gradients in a fixed tree, update, halt.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::learning_rate_factor;
use crate::config::{Config, TrainConfig};
use crate::dataset::Examples;
use crate::engine::{
    Adam, Carry, Group, Lanes, PuzzleTable, Sums, Weights, accumulate, adam_coefficients, gradient_groups,
    largest_gradient, non_finite_tensor, shard,
};
use crate::error::{Error, Result};
use crate::infer::HaltRule;
use crate::model::{Model, network_flops, update_flops};
use crate::rng::Rng;
use crate::tape::Grads;
use crate::tape::profile::Stopwatch;

/// What the profile calls the part of a step in which lanes work on groups.
pub(crate) const GROUPS: &str = "groups";

/// Random stream of the exploration draws.
const EXPLORATION_STREAM: u64 = 1 << 32;

/// What an update reports. Sums are over the batch; metrics are over the slots that halted (SPEC "Loss").
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StepReport {
    /// Updates done, this one included.
    pub step: u64,
    pub lr: f64,
    /// lm + halt_loss_weight · (halt + continue) + balance_loss_weight · balance, summed over the batch.
    pub loss: f64,
    pub lm_loss: f64,
    pub q_halt_loss: f64,
    pub q_continue_loss: f64,
    /// With experts: the load-balancing loss.
    pub balance_loss: f64,
    /// Calls of the recursion.
    pub calls: u64,
    /// Model FLOPs of this update.
    pub model_flops: f64,
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

/// Everything a run changes as it goes: weights, moments, carry, random numbers.
pub struct Trainer {
    pub config: Config,
    pub model: Model,
    pub weights: Weights,
    /// Moving average of the dense weights, in their flat order.
    pub ema: Vec<f32>,
    /// Boxed, so that they can be handed to the lanes one by one.
    pub groups: Vec<Box<Group>>,
    adam: Adam,
    /// Updates done.
    step: u64,
    /// Updates planned: the end of the learning-rate schedule.
    total_steps: u64,
    /// Calls that settled states made unnecessary, since the first update.
    calls_skipped: u64,
    flops: UpdateFlops,
    rng: Rng,
    /// Sum of all groups' gradients in the last step.
    total: Grads<f32>,
    /// Buffers for partial sums, and the place where they wait for each other.
    sums: Sums,
    minimum_steps: Vec<u32>,
    puzzle_ids: Vec<u32>,
    puzzle_grads: Vec<f32>,
    order: Vec<(u32, u32)>,
    /// Times the parts of a step while there is one.
    pub(crate) watch: Option<Stopwatch>,
    /// Bytes that the optimizer moves.
    update_bytes: f64,
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

/// The part of a [`Trainer`] that a checkpoint holds; the puzzle table is saved apart, by its rows.
#[derive(Serialize, Deserialize)]
pub struct TrainerState<'a> {
    step: u64,
    calls_skipped: u64,
    rng: Cow<'a, Rng>,
    params: Cow<'a, [f32]>,
    ema: Cow<'a, [f32]>,
    m: Cow<'a, [f32]>,
    v: Cow<'a, [f32]>,
    carries: Vec<Cow<'a, Carry>>,
}

impl Trainer {
    /// A fresh run of `total_steps` updates.
    pub fn new(config: Config, weights: Weights, total_steps: u64) -> Self {
        let model = Model::new(&config.model, &config.task);
        let train = &config.train;
        let n_groups = gradient_groups(train);
        let start = |group: usize| group * train.batch_size / n_groups;
        let groups = (0..n_groups).map(|i| Box::new(Group::new(&model, start(i + 1) - start(i)))).collect();
        let layout = weights.params.layout().clone();
        Self {
            ema: weights.params.values().to_vec(),
            adam: Adam::new(&layout),
            total: Grads::new(layout.clone()),
            sums: Sums::default(),
            rng: Rng::stream(train.seed, EXPLORATION_STREAM),
            minimum_steps: Vec::with_capacity(train.batch_size),
            puzzle_ids: Vec::with_capacity(train.batch_size),
            puzzle_grads: Vec::new(),
            order: Vec::with_capacity(train.batch_size),
            watch: None,
            update_bytes: Adam::sweep_bytes(&layout, weights.params.precision()),
            step: 0,
            total_steps,
            calls_skipped: 0,
            flops: UpdateFlops::new(&model, train),
            groups,
            model,
            weights,
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

    /// The gradient of the last step, summed over the batch, of total/batch.
    pub fn grads(&self) -> &Grads<f32> {
        &self.total
    }

    /// The weights to evaluate: the moving average when it is on.
    pub fn evaluation_weights(&self) -> Weights {
        let mut weights = self.weights.clone();
        if self.config.train.ema {
            weights.params.update(|values| values.copy_from_slice(&self.ema));
        }
        weights
    }

    /// Writes the weights to evaluate to a file.
    pub fn save_weights(&self, path: &Path) -> Result<()> {
        self.weights.save(path, if self.config.train.ema { &self.ema } else { self.weights.params.values() })
    }

    /// One update, with exploration drawn from the run's own generator.
    pub fn step(&mut self, lanes: &Lanes, examples: &mut (impl Examples + ?Sized)) -> Result<StepReport> {
        let train = &self.config.train;
        let explored = train.halt_max_steps.saturating_sub(1) as usize;
        let mut minimum_steps = std::mem::take(&mut self.minimum_steps);
        minimum_steps.clear();
        for _ in 0..train.batch_size {
            let explores = explored > 0 && self.rng.uniform() < train.halt_exploration_prob;
            minimum_steps.push(if explores { 2 + self.rng.below(explored) as u32 } else { 0 });
        }
        let report = self.step_with(lanes, examples, &minimum_steps);
        self.minimum_steps = minimum_steps;
        report
    }

    /// One update; slot i may not halt before `minimum_steps[i]`.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when a loss or gradient is not finite; the weights are then still those of before.
    pub fn step_with(
        &mut self,
        lanes: &Lanes,
        examples: &mut (impl Examples + ?Sized),
        minimum_steps: &[u32],
    ) -> Result<StepReport> {
        lanes.replicate(&mut self.weights.params);
        self.start_watch();
        self.refill(examples);
        self.lap("deal examples", 0.0);
        lanes.install(|| self.accumulate_all(lanes));
        self.lap(GROUPS, 0.0);
        lanes.install(|| self.sums.finish(lanes, &mut self.total));
        self.lap("gradient sum", self.sums.finish_bytes());
        let mut report = self.losses()?;
        let grad_norm = self.sums.norm();
        if !grad_norm.is_finite() {
            return Err(self.non_finite(non_finite_tensor(&self.total)));
        }
        let clip = self.config.train.grad_clip;
        let grad_scale = if clip > 0.0 && grad_norm > clip { clip / grad_norm } else { 1.0 };
        // Adam squares it: twice infinity is a weight that is no number, which the next step would be the first to see.
        if (grad_norm * grad_scale).powi(2) > f64::from(f32::MAX) {
            return Err(self.non_finite(format!("the square of {}", largest_gradient(&self.total))));
        }

        let skipped = self.calls_planned() - report.calls;
        self.calls_skipped += skipped;
        report.model_flops = self.flops.update - self.flops.detached_call * skipped as f64;
        self.step += 1;
        let factor = learning_rate_factor(&self.config.train, self.step, self.total_steps);
        (report.step, report.lr, report.grad_norm) = (self.step, self.config.train.lr * factor, grad_norm);
        self.lap("losses, norm", 0.0);
        lanes.install(|| self.update(report.lr, self.config.train.puzzle_emb_lr * factor, grad_scale));
        self.lap("optimizer, average, packing", self.update_bytes);
        self.halt(minimum_steps, &mut report);
        self.lap("halting", 0.0);
        Ok(report)
    }

    fn start_watch(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.start();
        }
    }

    fn lap(&mut self, name: &'static str, bytes: f64) {
        if let Some(watch) = &mut self.watch {
            watch.lap(name, bytes);
        }
    }

    /// Every halted slot takes the next example of the incoming batch; the lane that works on it sets its states.
    fn refill(&mut self, examples: &mut (impl Examples + ?Sized)) {
        examples.next_batch();
        let mut first = 0;
        for group in &mut self.groups {
            for slot in 0..group.slots() {
                if group.carry.halted[slot] {
                    group.carry.deal(slot, |inputs, labels| examples.write(first + slot, inputs, labels));
                }
            }
            first += group.slots();
        }
    }

    /// Runs all groups and sums their gradients as far as single lanes do.
    fn accumulate_all(&mut self, lanes: &Lanes) {
        let (model, weights, train) = (&self.model, &self.weights, &self.config.train);
        accumulate(lanes, &mut self.groups, &mut self.sums, &self.total, |lane, group, grads| {
            let shard = shard(model.len);
            for first in (0..group.slots()).step_by(shard) {
                let slots = first..group.slots().min(first + shard);
                lane.train(model, weights, train, group, slots, grads);
            }
        });
    }

    fn losses(&self) -> Result<StepReport> {
        let mut report = StepReport::default();
        for (i, group) in self.groups.iter().enumerate() {
            let outcome = &group.outcome;
            report.lm_loss += outcome.lm_loss.iter().sum::<f64>();
            report.q_halt_loss += outcome.halt_loss.iter().sum::<f64>();
            report.q_continue_loss += outcome.continue_loss.iter().sum::<f64>();
            report.balance_loss += outcome.balance_loss.iter().sum::<f64>();
            report.calls += outcome.calls.iter().map(|&calls| u64::from(calls)).sum::<u64>();
            let train = &self.config.train;
            report.loss = report.lm_loss + train.halt_loss_weight * (report.q_halt_loss + report.q_continue_loss);
            // Not even a zero is added without experts: the sum's bits stay.
            if self.config.model.experts > 0 {
                report.loss += train.balance_loss_weight * report.balance_loss;
            }
            if !report.loss.is_finite() {
                return Err(self.non_finite(format!("the loss of gradient group {i}")));
            }
            if !outcome.puzzle_grads.iter().all(|g| g.is_finite()) {
                return Err(self.non_finite(format!("the gradient of {}", PuzzleTable::NAME)));
            }
        }
        Ok(report)
    }

    fn non_finite(&self, tensor: String) -> Error {
        Error::NonFinite { tensor, step: self.step + 1, last_good: "none yet".into() }
    }

    fn update(&mut self, lr: f64, puzzle_lr: f64, grad_scale: f64) {
        let train = &self.config.train;
        let rule = adam_coefficients(train, self.step, lr, grad_scale);
        self.adam.update(&rule, &mut self.weights.params, &mut self.ema, &self.total);
        if let Some(table) = &mut self.weights.table {
            self.puzzle_ids.clear();
            self.puzzle_grads.clear();
            for group in &self.groups {
                self.puzzle_ids.extend_from_slice(&group.carry.puzzle_ids);
                self.puzzle_grads.extend_from_slice(&group.outcome.puzzle_grads);
            }
            let decay = train.puzzle_emb_weight_decay;
            let seen = (self.puzzle_ids.as_slice(), self.puzzle_grads.as_slice());
            Arc::make_mut(table).update(self.step, (puzzle_lr, decay), seen, &mut self.order);
        }
    }

    /// SPEC step 3: who has lived long enough, or says it is done; and the metrics of those.
    fn halt(&mut self, minimum_steps: &[u32], report: &mut StepReport) {
        let train = &self.config.train;
        let rule = HaltRule::of(&self.model, train);
        let mut minimum = minimum_steps.iter();
        for group in &mut self.groups {
            for slot in 0..group.slots() {
                let minimum = *minimum.next().expect("one minimum for each slot");
                let q = group.outcome.q[slot];
                group.carry.steps[slot] += 1;
                let steps = group.carry.steps[slot];
                let mut halted = steps >= train.halt_max_steps;
                if train.act && train.halt_max_steps > 1 {
                    halted |= rule.is_done(q);
                    halted &= steps >= minimum;
                }
                group.carry.halted[slot] = halted;
                let (correct, labelled) = (group.outcome.correct[slot], group.outcome.labelled[slot]);
                if halted && labelled > 0 {
                    let exact = group.outcome.is_exact(slot);
                    report.count += 1;
                    report.accuracy += f64::from(correct) / f64::from(labelled);
                    report.exact_accuracy += u64::from(exact);
                    report.q_halt_accuracy += u64::from((q[0] >= 0.0) == exact);
                    report.steps += u64::from(steps);
                }
            }
        }
    }

    /// Everything a checkpoint holds but the puzzle table, borrowed.
    pub fn state(&self) -> TrainerState<'_> {
        TrainerState {
            step: self.step,
            calls_skipped: self.calls_skipped,
            rng: Cow::Borrowed(&self.rng),
            params: Cow::Borrowed(self.weights.params.values()),
            ema: Cow::Borrowed(&self.ema),
            m: Cow::Borrowed(&self.adam.m),
            v: Cow::Borrowed(&self.adam.v),
            carries: self.groups.iter().map(|group| Cow::Borrowed(&group.carry)).collect(),
        }
    }

    /// Continues from a checkpoint of the same configuration and its puzzle table.
    ///
    /// # Errors
    /// When the shapes do not fit: the checkpoint belongs to another model.
    pub fn restore(&mut self, state: TrainerState<'_>, table: Option<PuzzleTable>) -> Result<()> {
        let n = self.model.layout.len();
        let flat_fits = [&state.params, &state.ema, &state.m, &state.v].into_iter().all(|v| v.len() == n);
        let shape = |table: &PuzzleTable| (table.rows(), table.ndim());
        let table_fits = table.as_ref().map(shape) == self.weights.table.as_deref().map(shape);
        let shape = |c: &Carry| {
            let lengths: Vec<usize> = c.states.iter().map(Vec::len).collect();
            (c.inputs.len(), c.labels.len(), c.puzzle_ids.len(), c.steps.len(), c.halted.len(), lengths)
        };
        let carries_fit = state.carries.len() == self.groups.len()
            && state.carries.iter().zip(&self.groups).all(|(c, g)| shape(c) == shape(&g.carry));
        if !(flat_fits && table_fits && carries_fit) {
            return Err(Error::input("the checkpoint belongs to a model of another shape; train into a new folder"));
        }
        self.weights.params.update(|values| values.copy_from_slice(&state.params));
        self.weights.table = table.map(Arc::new);
        (self.step, self.calls_skipped) = (state.step, state.calls_skipped);
        (self.rng, self.ema) = (state.rng.into_owned(), state.ema.into_owned());
        (self.adam.m, self.adam.v) = (state.m.into_owned(), state.v.into_owned());
        for (group, carry) in self.groups.iter_mut().zip(state.carries) {
            group.carry = carry.into_owned();
        }
        Ok(())
    }
}

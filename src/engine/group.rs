//! The slots of one gradient group: what they carry between supervision steps, and what the last step said.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::node;
use crate::config::TrainConfig;
use crate::device::{Device, Real};
use crate::model::Model;

/// Slots of a gradient group, when their number is left to the engine.
const GROUP_SLOTS: usize = 4;

/// Gradient groups at most, when their number is left to the engine.
const MAX_GROUPS: usize = 192;

/// Gradient groups of an experiment: the setting, or as many as let every shard be one of its own, up to 192.
pub fn gradient_groups(train: &TrainConfig) -> usize {
    match train.gradient_groups {
        0 => train.batch_size.div_ceil(GROUP_SLOTS).min(MAX_GROUPS),
        groups => groups.min(train.batch_size),
    }
}

/// The slots of a rank: which groups of the batch they are in, and how many slots come before them.
pub(crate) fn groups_of_rank(config: &TrainConfig, rank: usize, size: usize) -> (Range<usize>, usize) {
    let groups = node(gradient_groups(config), rank, size);
    let first = first_slot(config, groups.start);
    (groups, first)
}

/// The first slot of a gradient group.
pub(crate) fn first_slot(config: &TrainConfig, group: usize) -> usize {
    group * config.batch_size / gradient_groups(config)
}

/// A group that changes hands: a box fits an atomic exchange.
pub type BoxedGroup<T = f32> = Box<Group<T>>;

/// Slots whose gradients are summed in one buffer.
pub struct Group<T = f32> {
    /// Examples and ages.
    pub slots: Slots,
    /// What the last supervision step said.
    pub outcome: Outcome<T>,
    /// For each state of the model, `[slots·len, hidden]`: what is carried on, where that is kept on the host.
    pub states: Vec<Vec<T>>,
    /// Where it is kept on the device: the place of each slot's states there.
    pub(super) places: Vec<u32>,
}

/// What slots know of their examples (specification, "Deep supervision with a carry").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slots {
    /// Tokens of the current example, `[slots, seq_len]`.
    pub inputs: Vec<u8>,
    /// Its labels, `[slots, seq_len]`.
    pub labels: Vec<i32>,
    /// Its puzzle identifier.
    pub puzzle_ids: Vec<u32>,
    /// Supervision steps the example has lived.
    pub steps: Vec<u32>,
    /// Whether the slot starts anew: its next supervision step begins at the start vectors.
    pub halted: Vec<bool>,
}

/// What a supervision step said about each slot.
#[derive(Clone, Debug)]
pub struct Outcome<T> {
    /// The answer: for each position the first of the most likely tokens, `[slots, seq_len]`. Written by inference.
    pub tokens: Vec<u8>,
    /// `[slots·seq_len, vocab]`; empty unless [`Group::keep_logits`] was called.
    pub logits: Vec<T>,
    /// `(q_halt, q_continue)`.
    pub q: Vec<[T; 2]>,
    /// Cross-entropy of the answer.
    pub lm_loss: Vec<f64>,
    /// Binary cross-entropy of the halting head.
    pub halt_loss: Vec<f64>,
    /// Binary cross-entropy of the continue head.
    pub continue_loss: Vec<f64>,
    /// With experts: how unevenly they were used.
    pub balance_loss: Vec<f64>,
    /// Calls of the recursion.
    pub calls: Vec<u32>,
    /// Labelled tokens that the logits get right.
    pub correct: Vec<u32>,
    /// Labelled tokens.
    pub labelled: Vec<u32>,
    /// With the continue loss: its targets.
    pub continue_target: Vec<f64>,
    /// Gradient with respect to each slot's puzzle row, `[slots, ndim]`.
    pub puzzle_grads: Vec<T>,
}

impl<T: Real> Group<T> {
    /// Slots that all take a new example next.
    pub fn new(model: &Model, slots: usize) -> Self {
        let seq_len = model.embedding.seq_len;
        Self {
            slots: Slots {
                inputs: vec![0; slots * seq_len],
                labels: vec![0; slots * seq_len],
                puzzle_ids: vec![0; slots],
                steps: vec![0; slots],
                halted: vec![true; slots],
            },
            outcome: Outcome {
                tokens: vec![0; slots * seq_len],
                logits: Vec::new(),
                q: vec![[T::ZERO; 2]; slots],
                lm_loss: vec![0.0; slots],
                halt_loss: vec![0.0; slots],
                continue_loss: vec![0.0; slots],
                balance_loss: vec![0.0; slots],
                calls: vec![0; slots],
                correct: vec![0; slots],
                labelled: vec![0; slots],
                continue_target: vec![0.0; slots],
                puzzle_grads: vec![T::ZERO; slots * model.embedding.puzzle_ndim],
            },
            states: vec![vec![T::ZERO; slots * model.len * model.hidden]; model.schedule.states.len()],
            places: (0..slots as u32).collect(),
        }
    }

    /// For inference on a device, which keeps the states itself where it is an accelerator.
    pub(crate) fn on<D: Device<T = T>>(model: &Model, slots: usize) -> Self {
        if D::IS_ACCELERATOR { Self::resident(model, slots) } else { Self::new(model, slots) }
    }

    /// The same for a device that keeps the states itself.
    pub(super) fn resident(model: &Model, slots: usize) -> Self {
        Self { states: Vec::new(), ..Self::new(model, slots) }
    }

    /// Has every supervision step keep the logits it came to.
    pub fn keep_logits(&mut self, model: &Model) {
        self.outcome.logits = vec![T::ZERO; self.outcome.tokens.len() * model.vocab_size()];
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts everything that one slot carries into another.
    pub fn move_slot(&mut self, from: usize, to: usize) {
        fn within<T: Copy>(values: &mut [T], slots: usize, from: usize, to: usize) {
            let per_slot = values.len() / slots;
            values.copy_within(from * per_slot..(from + 1) * per_slot, to * per_slot);
        }
        if from == to {
            return;
        }
        let n = self.len();
        let Slots { inputs, labels, puzzle_ids, steps, halted } = &mut self.slots;
        within(inputs, n, from, to);
        within(labels, n, from, to);
        within(puzzle_ids, n, from, to);
        within(steps, n, from, to);
        within(halted, n, from, to);
        self.states.iter_mut().for_each(|state| within(state, n, from, to));
        self.places.swap(from, to);
    }
}

impl Slots {
    /// Number of slots.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Puts a new example into a slot, which then starts anew. `write` fills tokens and labels and returns the puzzle
    /// identifier.
    ///
    /// # Errors
    /// Those of `write`; the slot then holds anything.
    pub fn refill<E>(
        &mut self,
        slot: usize,
        write: impl FnOnce(&mut [u8], &mut [i32]) -> Result<u32, E>,
    ) -> Result<(), E> {
        let seq_len = self.inputs.len() / self.len();
        let tokens = slot * seq_len..(slot + 1) * seq_len;
        self.puzzle_ids[slot] = write(&mut self.inputs[tokens.clone()], &mut self.labels[tokens])?;
        self.steps[slot] = 0;
        self.halted[slot] = true;
        Ok(())
    }
}

impl<T> Outcome<T> {
    /// Whether every labelled token of a slot is right.
    pub fn is_exact(&self, slot: usize) -> bool {
        self.correct[slot] == self.labelled[slot]
    }
}

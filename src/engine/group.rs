//! The slots of one gradient group: what they carry between supervision steps, and what the last step said.

use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::model::Model;

/// Slots of a gradient group, when their number is left to the engine.
const GROUP_SLOTS: usize = 4;

/// Gradient groups at most, when their number is left to the engine: enough for 192 cores at the published batch.
const MAX_GROUPS: usize = 192;

/// Gradient groups of an experiment: the setting, or as many as let every shard be one of its own, up to 192.
pub fn gradient_groups(train: &TrainConfig) -> usize {
    match train.gradient_groups {
        0 => train.batch_size.div_ceil(GROUP_SLOTS).min(MAX_GROUPS),
        groups => groups.min(train.batch_size),
    }
}

/// Slots whose gradients are summed in one buffer.
pub struct Group {
    pub carry: Carry,
    pub outcome: Outcome,
}

/// What slots keep from one supervision step to the next (SPEC "Deep supervision with a carry").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carry {
    /// Tokens of the current example, `[slots, seq_len]`.
    pub inputs: Vec<u8>,
    /// Its labels, `[slots, seq_len]`.
    pub labels: Vec<i32>,
    /// Its puzzle identifier.
    pub puzzle_ids: Vec<u32>,
    /// Supervision steps the example has lived.
    pub steps: Vec<u32>,
    /// Whether the slot takes a new example next time.
    pub halted: Vec<bool>,
    /// For each state of the model, `[slots·len, hidden]`.
    pub states: Vec<Vec<f32>>,
}

/// What a supervision step said about each slot.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// `[slots·seq_len, vocab]`.
    pub logits: Vec<f32>,
    /// `(q_halt, q_continue)`.
    pub q: Vec<[f32; 2]>,
    pub lm_loss: Vec<f64>,
    pub halt_loss: Vec<f64>,
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
    pub puzzle_grads: Vec<f32>,
}

impl Group {
    /// Slots that all take a new example next.
    pub fn new(model: &Model, slots: usize) -> Self {
        let seq_len = model.embedding.seq_len;
        let vocab = model.vocab_size();
        Self {
            carry: Carry {
                inputs: vec![0; slots * seq_len],
                labels: vec![0; slots * seq_len],
                puzzle_ids: vec![0; slots],
                steps: vec![0; slots],
                halted: vec![true; slots],
                states: vec![vec![0.0; slots * model.len * model.hidden]; model.schedule.states.len()],
            },
            outcome: Outcome {
                logits: vec![0.0; slots * seq_len * vocab],
                q: vec![[0.0; 2]; slots],
                lm_loss: vec![0.0; slots],
                halt_loss: vec![0.0; slots],
                continue_loss: vec![0.0; slots],
                balance_loss: vec![0.0; slots],
                calls: vec![0; slots],
                correct: vec![0; slots],
                labelled: vec![0; slots],
                continue_target: vec![0.0; slots],
                puzzle_grads: vec![0.0; slots * model.embedding.puzzle_ndim],
            },
        }
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.carry.steps.len()
    }
}

impl Carry {
    /// Puts a new example into a slot: its state becomes the start vectors, its age 0. `write` fills tokens and
    /// labels and returns the puzzle identifier.
    ///
    /// # Errors
    /// Those of `write`; the slot then holds anything.
    pub fn refill<E>(
        &mut self,
        slot: usize,
        starts: &[&[f32]],
        write: impl FnOnce(&mut [u8], &mut [i32]) -> Result<u32, E>,
    ) -> Result<(), E> {
        self.deal(slot, write)?;
        self.restart(slot, starts);
        Ok(())
    }

    /// The part of [`Carry::refill`] that must go in the order of the slots: the example. The rest is done by the lane
    /// that works on the slot, so that the states' memory is touched first where it is used.
    pub(crate) fn deal<E>(
        &mut self,
        slot: usize,
        write: impl FnOnce(&mut [u8], &mut [i32]) -> Result<u32, E>,
    ) -> Result<(), E> {
        let seq_len = self.inputs.len() / self.steps.len();
        let tokens = slot * seq_len..(slot + 1) * seq_len;
        self.puzzle_ids[slot] = write(&mut self.inputs[tokens.clone()], &mut self.labels[tokens])?;
        self.steps[slot] = 0;
        Ok(())
    }

    /// Sets a slot's states to the start vectors.
    pub(crate) fn restart(&mut self, slot: usize, starts: &[&[f32]]) {
        let slots = self.steps.len();
        for (state, start) in self.states.iter_mut().zip(starts) {
            let per_slot = state.len() / slots;
            for row in state[slot * per_slot..(slot + 1) * per_slot].chunks_exact_mut(start.len()) {
                row.copy_from_slice(start);
            }
        }
    }
}

impl Carry {
    /// Puts everything of one slot into another.
    pub fn move_slot(&mut self, from: usize, to: usize) {
        let slots = self.steps.len();
        if from == to {
            return;
        }
        fn within<T: Copy>(values: &mut [T], slots: usize, from: usize, to: usize) {
            let per_slot = values.len() / slots;
            values.copy_within(from * per_slot..(from + 1) * per_slot, to * per_slot);
        }
        within(&mut self.inputs, slots, from, to);
        within(&mut self.labels, slots, from, to);
        within(&mut self.puzzle_ids, slots, from, to);
        within(&mut self.steps, slots, from, to);
        within(&mut self.halted, slots, from, to);
        self.states.iter_mut().for_each(|state| within(state, slots, from, to));
    }
}

impl Outcome {
    /// Whether every labelled token of a slot is right.
    pub fn is_exact(&self, slot: usize) -> bool {
        self.correct[slot] == self.labelled[slot]
    }
}

//! A supervision step of the slots of a micro-batch, between arrays that stay on the device.

use std::ops::Range;

use super::numbers;
use crate::config::TrainConfig;
use crate::cuda::{Backend, DeviceMemory};
use crate::device::cuda::{CarriedStates, CudaScalar};
use crate::device::{Cuda, Grads, Indices, Store};
use crate::engine::step::{self, Forward, Given};
use crate::engine::{BoxedGroup, Weights};
use crate::model::{Model, Pass, States};
use crate::tape::profile::Part;
use crate::tape::{Memory, Tape};

/// What a step reads and writes in device memory, for all slots.
pub(super) struct Resident<B: Backend> {
    pub(super) tokens: Indices,
    pub(super) labels: Indices,
    pub(super) anew: Indices,
    pub(super) places: Indices,
    pub(super) is_last: Indices,
    /// Rows of the puzzle table, and their gradients.
    pub(super) puzzle_rows: [DeviceMemory<B>; 2],
    /// What a step says about each slot; see [`numbers`].
    pub(super) numbers: DeviceMemory<B>,
    pub(super) carried: CarriedStates<B>,
}

impl<B: Backend> Resident<B> {
    /// States of the model.
    pub(super) fn states(&self) -> usize {
        self.carried.count()
    }
}

/// Deals out the logits of some slots to the groups that keep them.
pub(super) fn spread_logits<T: CudaScalar>(groups: &mut [BoxedGroup<T>], slots: Range<usize>, logits: &[T]) {
    let per_slot = logits.len() / slots.len();
    let mut first = 0;
    for group in groups {
        for slot in 0..group.len() {
            let place = first + slot;
            if slots.contains(&place) {
                let own = &logits[(place - slots.start) * per_slot..][..per_slot];
                group.outcome.logits[slot * per_slot..(slot + 1) * per_slot].copy_from_slice(own);
            }
        }
        first += group.len();
    }
}

/// A training step of some slots: their losses and gradients; their logits, where they are wanted. Returns the calls of the
/// recursion.
#[allow(clippy::too_many_arguments)]
pub(super) fn micro_batch<T: CudaScalar, B: Backend>(
    memory: &mut Memory<Cuda<T, B>>,
    model: &Model,
    weights: &Weights<Cuda<T, B>>,
    config: &TrainConfig,
    slices: &mut Grads<Cuda<T, B>>,
    resident: &Resident<B>,
    slots: Range<usize>,
    logits: Option<&mut Vec<T>>,
) -> usize {
    let mut tape = Tape::new(memory, &weights.params);
    let forward = run_forward(&mut tape, model, resident, &slots, Pass::Train);
    if let Some(logits) = logits {
        *logits = tape.read(&forward.logits);
    }
    let labels = resident.labels.part(slots.start * model.embedding.seq_len, slots.len() * model.embedding.seq_len);
    let is_last = config.continue_loss.then(|| resident.is_last.part(slots.start, slots.len()));
    let losses = step::losses(&mut tape, model, config, &forward, labels, is_last);
    numbers::keep(&tape, &forward, &losses, &resident.numbers, (resident.places.len(), slots.start));
    tape.lap(Part::Carry);
    step::backward(&mut tape, model, config, &forward, &losses, slices);
    if let Some(rows) = &forward.puzzle_rows
        && let Some(grad) = tape.grad_block(rows)
    {
        tape.device().copy_out(grad, &resident.puzzle_rows[1], slots.start * model.embedding.puzzle_ndim);
    }
    forward.recursion.calls
}

/// Embedding, recursion, heads; the new states are carried on.
pub(super) fn run_forward<T: CudaScalar, B: Backend>(
    tape: &mut Tape<'_, Cuda<T, B>>,
    model: &Model,
    resident: &Resident<B>,
    slots: &Range<usize>,
    pass: Pass,
) -> Forward {
    let (seq_len, ndim) = (model.embedding.seq_len, model.embedding.puzzle_ndim);
    let [places, anew] = [resident.places, resident.anew].map(|all| all.part(slots.start, slots.len()));
    let puzzle_rows = (ndim > 0).then(|| {
        let rows = tape.uninitialised(slots.len(), ndim, Store::Exact);
        let (device, _, block) = tape.rows_mut(&rows, 0..slots.len());
        device.copy_in(&resident.puzzle_rows[0], slots.start * ndim, block);
        tape.differentiate(&rows);
        rows
    });
    let start = |(state, &start): (usize, _)| {
        let var = tape.uninitialised(slots.len() * model.len, model.hidden, Store::Activation);
        let (device, params, block) = tape.rows_mut(&var, 0..slots.len() * model.len);
        device.start_states(params, start, (&resident.carried, state), (places, anew), block);
        var
    };
    let states: States = model.starts.iter().enumerate().map(start).collect();
    tape.lap(Part::Carry);
    let tokens = resident.tokens.part(slots.start * seq_len, slots.len() * seq_len);
    let forward = step::forward(tape, model, Given { tokens, puzzle_rows, states }, pass);
    for (state, var) in forward.states.iter().enumerate() {
        tape.device().keep_states((&resident.carried, state), places, tape.block(var));
    }
    tape.lap(Part::Carry);
    forward
}

//! A supervision step of the slots of a micro-batch, between arrays that stay on the device.

use std::ops::Range;

use super::exchange::Exchange;
use crate::config::TrainConfig;
use crate::cuda::Backend;
use crate::device::cuda::{CarriedStates, CudaScalar};
use crate::device::{Cuda, Grads, Indices, Store};
use crate::engine::step::{self, Forward, Given};
use crate::engine::{BoxedGroup, Weights};
use crate::model::{Model, Pass, States};
use crate::tape::profile::Part;
use crate::tape::{Memory, Tape};

/// What a step reads and writes in device memory, for all slots.
pub(super) struct Resident<B: Backend> {
    pub(super) exchange: Exchange<B>,
    pub(super) places: Indices,
    pub(super) carried: CarriedStates<B>,
}

impl<B: Backend> Resident<B> {
    /// For `batch` slots of a model on a device that has just been reset.
    pub(super) fn new<T: CudaScalar>(device: &mut Cuda<T, B>, model: &Model, batch: usize) -> Self {
        let exchange = Exchange::new(device, batch, model.embedding.seq_len, model.embedding.puzzle_ndim);
        let places = device.keep_indices(batch);
        device.set_indices(places, &(0..batch as i32).collect::<Vec<_>>());
        let carried = device.carry(model.schedule.states.len(), batch * model.len * model.hidden);
        Self { exchange, places, carried }
    }

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
    let labels =
        resident.exchange.labels.part(slots.start * model.embedding.seq_len, slots.len() * model.embedding.seq_len);
    let is_last = config.continue_loss.then(|| resident.exchange.is_last.part(slots.start, slots.len()));
    let losses = step::losses(&mut tape, model, config, &forward, labels, is_last);
    resident.exchange.keep_numbers(&tape, &forward, &losses, slots.start);
    tape.lap(Part::Carry);
    step::backward(&mut tape, model, config, &forward, &losses, slices);
    if let Some(rows) = &forward.puzzle_rows
        && let Some(grad) = tape.grad_block(rows)
    {
        resident.exchange.keep_grads(tape.device(), grad, slots.start);
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
    let [places, anew] = [resident.places, resident.exchange.anew].map(|all| all.part(slots.start, slots.len()));
    let puzzle_rows = (ndim > 0).then(|| {
        let rows = tape.uninitialised(slots.len(), ndim, Store::Exact);
        let (device, _, block) = tape.rows_mut(&rows, 0..slots.len());
        resident.exchange.read_rows(device, slots.start, block);
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
    let tokens = resident.exchange.tokens.part(slots.start * seq_len, slots.len() * seq_len);
    let forward = step::forward(tape, model, Given { tokens, puzzle_rows, states }, pass);
    for (state, var) in forward.states.iter().enumerate() {
        tape.device().keep_states((&resident.carried, state), places, tape.block(var));
    }
    tape.lap(Part::Carry);
    forward
}

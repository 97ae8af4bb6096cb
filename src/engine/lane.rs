//! A lane is a core, or a GPU: it takes a few sequences through everything, with memory of its own.

use std::ops::Range;

use super::step::{self, Forward, Given, Losses};
use super::{Group, Outcome, PuzzleTable, Weights};
use crate::config::TrainConfig;
use crate::device::{Device, Grads, Indices, KeptState, Real, Store, Team};
use crate::model::{Model, Pass, States};
use crate::tape::profile::Part;
use crate::tape::{Memory, Tape, Var};

/// One core's memory. Everything in it grows to its final size in the first step.
pub struct Lane<D: Device> {
    /// Position among the lanes.
    pub(crate) index: usize,
    /// NUMA node.
    pub(crate) node: usize,
    pub(crate) memory: Memory<D>,
    /// Slices of partial sums (see the tree of gradients).
    pub(crate) sums: Vec<D::T>,
    scratch: Scratch<D::T>,
}

/// Elements on their way between host and device.
struct Scratch<T> {
    puzzle_rows: Vec<T>,
    numbers: Vec<T>,
}

impl<D: Device> Lane<D> {
    /// A lane without memory yet, at its place among the lanes, on its NUMA node, in their team.
    pub(crate) fn new(index: usize, node: usize, team: &Team) -> Self {
        let mut memory = Memory::<D>::default();
        memory.device.set_node(node);
        memory.device.join_team(team);
        let scratch = Scratch { puzzle_rows: Vec::new(), numbers: Vec::new() };
        Self { index, node, memory, sums: Vec::new(), scratch }
    }

    /// Has at most so many sequences worked on at a time; 0 leaves it to the device.
    pub fn set_micro_batch(&mut self, sequences: usize) {
        self.memory.device.set_micro_batch(sequences);
    }

    /// Bytes of the device's memory.
    pub fn memory_bytes(&self) -> usize {
        self.memory.device.size_bytes()
    }

    /// One training step of the sequences `slots` of a group. Reads and replaces what they carry, writes their outcome, adds
    /// their gradients (of total/batch) to `grads`.
    pub fn train(
        &mut self,
        model: &Model,
        weights: &Weights<D>,
        config: &TrainConfig,
        group: &mut Group<D::T>,
        slots: Range<usize>,
        grads: &mut Grads<D>,
    ) {
        self.scratch.gather(weights.table.as_deref(), &group.slots.puzzle_ids[slots.clone()]);
        let mut tape = Tape::new(&mut self.memory, &weights.params);
        tape.lap(Part::Carry);
        let forward = forward(&mut tape, model, &self.scratch, group, &slots, Pass::Train);
        let Group { slots: examples, outcome, .. } = group;
        let seq_len = model.embedding.seq_len;
        let labels = tape.indices(examples.labels[slots.start * seq_len..slots.end * seq_len].iter().copied());
        let is_last = config.continue_loss.then(|| {
            let steps = examples.steps[slots.clone()].iter();
            tape.indices(steps.map(|steps| i32::from(steps + 1 >= config.halt_max_steps)))
        });
        let losses = step::losses(&mut tape, model, config, &forward, labels, is_last);
        self.scratch.keep(&tape, model, &forward, &losses, outcome, &slots);
        step::backward(&mut tape, model, config, &forward, &losses, grads);
        if let Some(rows) = &forward.puzzle_rows {
            let ndim = model.embedding.puzzle_ndim;
            tape.download_grad(rows, &mut outcome.puzzle_grads[slots.start * ndim..slots.end * ndim]);
        }
    }

    /// One supervision step without gradient: reads and replaces what `slots` carry, writes tokens and q.
    pub fn infer(&mut self, model: &Model, weights: &Weights<D>, group: &mut Group<D::T>, slots: Range<usize>) {
        self.scratch.gather(weights.table.as_deref(), &group.slots.puzzle_ids[slots.clone()]);
        let mut tape = Tape::new(&mut self.memory, &weights.params);
        let forward = forward(&mut tape, model, &self.scratch, group, &slots, Pass::Infer);
        let seq_len = model.embedding.seq_len;
        tape.predict(&forward.logits, &mut group.outcome.tokens[slots.start * seq_len..slots.end * seq_len]);
        group.slots.halted[slots].fill(false);
    }

    /// What follows is timed, where there is a stopwatch.
    pub(crate) fn start_watch(&mut self) {
        if let Some(watch) = &mut self.memory.stopwatch {
            watch.start();
        }
    }

    /// Charges the time since the last event to `part`, while a stopwatch runs.
    pub(crate) fn lap(&mut self, part: Part, bytes: f64) {
        if let Some(watch) = &mut self.memory.stopwatch {
            watch.lap(part, bytes);
        }
    }
}

impl<T: Real> Scratch<T> {
    fn gather(&mut self, table: Option<&PuzzleTable<T>>, ids: &[u32]) {
        self.puzzle_rows.clear();
        if let Some(table) = table {
            for &id in ids {
                self.puzzle_rows.extend_from_slice(table.row(id));
            }
        }
    }

    /// A value `[sequences, 1]`, on the host.
    fn download<D: Device<T = T>>(&mut self, tape: &Tape<'_, D>, var: &Var) -> &[T] {
        self.numbers.clear();
        self.numbers.resize(tape.shape(var).0, T::ZERO);
        tape.download(var, &mut self.numbers);
        &self.numbers
    }

    /// Puts what a training step says about each sequence into the outcome of `slots`.
    fn keep<D: Device<T = T>>(
        &mut self,
        tape: &Tape<'_, D>,
        model: &Model,
        forward: &Forward,
        losses: &Losses,
        outcome: &mut Outcome<T>,
        slots: &Range<usize>,
    ) {
        let score = &losses.score;
        for (counts, var) in [(&mut outcome.correct, &score.correct), (&mut outcome.labelled, &score.labelled)] {
            let numbers = self.download(tape, var);
            counts[slots.clone()].iter_mut().zip(numbers).for_each(|(count, value)| *count = value.to_f64() as u32);
        }
        let mut put = |to: &mut [f64], var: &Var, share: f64| {
            let numbers = self.download(tape, var);
            to[slots.clone()].iter_mut().zip(numbers).for_each(|(to, value)| *to = value.to_f64() / share);
        };
        put(&mut outcome.lm_loss, &losses.lm, 1.0);
        put(&mut outcome.halt_loss, &losses.halt, 1.0);
        if let Some(continues) = &losses.continues {
            put(&mut outcome.continue_target, &continues.target, 1.0);
            put(&mut outcome.continue_loss, &continues.loss, 1.0);
        }
        if let Some(sum) = &forward.recursion.balance {
            put(&mut outcome.balance_loss, sum, model.recorded_routers() as f64);
        }
    }
}

/// Embedding, recursion, heads. The new states are carried on, detached; q and, where they are kept, the logits are written
/// to the outcome.
fn forward<D: Device>(
    tape: &mut Tape<'_, D>,
    model: &Model,
    scratch: &Scratch<D::T>,
    group: &mut Group<D::T>,
    slots: &Range<usize>,
    pass: Pass,
) -> Forward {
    let (seq_len, ndim) = (model.embedding.seq_len, model.embedding.puzzle_ndim);
    tape.set_recording(pass == Pass::Train);
    let tokens = &group.slots.inputs[slots.start * seq_len..slots.end * seq_len];
    let given = Given {
        puzzle_rows: (ndim > 0).then(|| tape.leaf(slots.len(), ndim, &scratch.puzzle_rows)),
        tokens: tape.indices(tokens.iter().map(|&token| token.into())),
        states: load_states(tape, model, group, slots),
    };
    tape.lap(Part::Carry);
    let forward = step::forward(tape, model, given, pass);
    let per_slot = model.len * model.hidden;
    if group.states.is_empty() {
        let places = places(tape, group, slots);
        for (i, state) in forward.states.iter().enumerate() {
            tape.device().keep_state(i, places, tape.block(state));
        }
    }
    for (state, carried) in forward.states.iter().zip(&mut group.states) {
        tape.download(state, &mut carried[slots.start * per_slot..slots.end * per_slot]);
    }
    let outcome = &mut group.outcome;
    tape.download(&forward.q, outcome.q[slots.clone()].as_flattened_mut());
    if !outcome.logits.is_empty() {
        let per_slot = seq_len * model.vocab_size();
        tape.download(&forward.logits, &mut outcome.logits[slots.start * per_slot..slots.end * per_slot]);
    }
    outcome.calls[slots.clone()].fill(forward.recursion.calls as u32);
    tape.lap(Part::Carry);
    forward
}

/// Where the device keeps the states of the slots.
fn places<D: Device>(tape: &mut Tape<'_, D>, group: &Group<D::T>, slots: &Range<usize>) -> Indices {
    tape.indices(group.places[slots.clone()].iter().map(|&place| place as i32))
}

/// The states that the slots carry; the start vectors where they start anew.
fn load_states<D: Device>(tape: &mut Tape<'_, D>, model: &Model, group: &Group<D::T>, slots: &Range<usize>) -> States {
    let (len, per_slot) = (model.len, model.len * model.hidden);
    if group.states.is_empty() {
        let anew = tape.indices(group.slots.halted[slots.clone()].iter().map(|&halted| halted.into()));
        let places = places(tape, group, slots);
        let load = |(state, &start)| {
            let var = tape.uninitialised(slots.len() * len, model.hidden, Store::Activation);
            let (device, params, rows) = tape.rows_mut(&var, 0..slots.len() * len);
            let kept = KeptState { state, states: model.starts.len(), len: group.len() * per_slot };
            device.load_state(params, start, kept, places, anew, rows);
            var
        };
        return model.starts.iter().enumerate().map(load).collect();
    }
    let load = |(carried, &start): (&Vec<D::T>, _)| {
        let state = tape.uninitialised(slots.len() * len, model.hidden, Store::Activation);
        for (i, slot) in slots.clone().enumerate() {
            let (device, params, rows) = tape.rows_mut(&state, i * len..(i + 1) * len);
            match group.slots.halted[slot] {
                true => device.broadcast(params, start, rows),
                false => device.upload(&carried[slot * per_slot..(slot + 1) * per_slot], rows),
            }
        }
        state
    };
    group.states.iter().zip(&model.starts).map(load).collect()
}

//! A lane is a core, or a GPU: it takes a few sequences through everything, with memory of its own.

use std::ops::Range;

use super::{Group, Outcome, PuzzleTable, Slots, Weights};
use crate::config::{Loss, TrainConfig};
use crate::device::{Device, Grads, Likelihood, Real};
use crate::model::{Model, Pass, RecursionOutput, States};
use crate::tape::profile::Part;
use crate::tape::{Memory, Tape, Var, ops};

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
    is_last: Vec<bool>,
}

/// What a forward pass leaves on the tape.
struct Forward {
    /// With a puzzle table: its rows, `[sequences, ndim]`.
    puzzle_rows: Option<Var>,
    question: Var,
    states: States,
    /// `[sequences·seq_len, vocab]`.
    logits: Var,
    /// `[sequences, 2]`.
    q: Var,
    recursion: RecursionOutput,
}

/// The losses of a training step, `[sequences, 1]` each.
struct Losses {
    lm: Var,
    halt: Var,
    continues: Option<Var>,
}

impl<D: Device> Lane<D> {
    /// A lane without memory yet, at its place among the lanes and on its NUMA node.
    pub(crate) fn new(index: usize, node: usize) -> Self {
        let mut memory = Memory::<D>::default();
        memory.device.set_node(node);
        let scratch = Scratch { puzzle_rows: Vec::new(), numbers: Vec::new(), is_last: Vec::new() };
        Self { index, node, memory, sums: Vec::new(), scratch }
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
        let losses = losses(&mut tape, model, config, &mut self.scratch, &forward, examples, outcome, &slots);
        backward(&mut tape, model, config, &forward, &losses, grads);
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

    /// The same, in f64.
    fn download_to<D: Device<T = T>>(&mut self, tape: &Tape<'_, D>, var: &Var, to: &mut [f64]) {
        to.iter_mut().zip(self.download(tape, var)).for_each(|(to, value)| *to = value.to_f64());
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
    let puzzle_rows = (ndim > 0).then(|| tape.leaf(slots.len(), ndim, &scratch.puzzle_rows));
    let tokens = &group.slots.inputs[slots.start * seq_len..slots.end * seq_len];
    let question = model.embedding.forward(tape, tokens, puzzle_rows.as_ref());
    let mut states = load_states(tape, model, group, slots);
    tape.lap(Part::Carry);
    let recursion = model.recur(tape, &question, &mut states, pass);
    let (logits, q) = model.heads(tape, &states);
    let per_slot = model.len * model.hidden;
    for (state, carried) in states.iter().zip(&mut group.states) {
        tape.download(state, &mut carried[slots.start * per_slot..slots.end * per_slot]);
    }
    let outcome = &mut group.outcome;
    tape.download(&q, outcome.q[slots.clone()].as_flattened_mut());
    if !outcome.logits.is_empty() {
        let per_slot = seq_len * model.vocab_size();
        tape.download(&logits, &mut outcome.logits[slots.start * per_slot..slots.end * per_slot]);
    }
    outcome.calls[slots.clone()].fill(recursion.calls as u32);
    tape.lap(Part::Carry);
    Forward { puzzle_rows, question, states, logits, q, recursion }
}

/// The states that the slots carry; the start vectors where they start anew.
fn load_states<D: Device>(tape: &mut Tape<'_, D>, model: &Model, group: &Group<D::T>, slots: &Range<usize>) -> States {
    let (len, per_slot) = (model.len, model.len * model.hidden);
    let load = |(carried, &start): (&Vec<D::T>, _)| {
        let state = tape.uninitialised(slots.len() * len, model.hidden);
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

/// The losses of a supervision step (specification, "Loss"), and what is counted for the metrics.
#[allow(clippy::too_many_arguments)]
fn losses<D: Device>(
    tape: &mut Tape<'_, D>,
    model: &Model,
    config: &TrainConfig,
    scratch: &mut Scratch<D::T>,
    forward: &Forward,
    examples: &Slots,
    outcome: &mut Outcome<D::T>,
    slots: &Range<usize>,
) -> Losses {
    let seq_len = model.embedding.seq_len;
    let labels = &examples.labels[slots.start * seq_len..slots.end * seq_len];
    let score = ops::score(tape, &forward.logits, labels, seq_len);
    for (counts, var) in [(&mut outcome.correct, &score.correct), (&mut outcome.labelled, &score.labelled)] {
        let downloaded = scratch.download(tape, var);
        counts[slots.clone()].iter_mut().zip(downloaded).for_each(|(count, value)| *count = value.to_f64() as u32);
    }
    tape.lap(Part::Metrics);
    let likelihood = match config.loss {
        Loss::StablemaxCrossEntropy => Likelihood::Stablemax,
        Loss::SoftmaxCrossEntropy => Likelihood::Softmax { label_smoothing: config.label_smoothing },
    };
    let lm = ops::cross_entropy(tape, &forward.logits, labels, seq_len, likelihood);
    scratch.download_to(tape, &lm, &mut outcome.lm_loss[slots.clone()]);
    let halt = ops::bce_with_logits(tape, &forward.q, 0, &score.exact);
    scratch.download_to(tape, &halt, &mut outcome.halt_loss[slots.clone()]);
    let continues = config.continue_loss.then(|| {
        scratch.is_last.clear();
        scratch.is_last.extend(examples.steps[slots.clone()].iter().map(|steps| steps + 1 >= config.halt_max_steps));
        let target = continue_target(tape, model, forward, &scratch.is_last);
        let loss = ops::bce_with_logits(tape, &forward.q, 1, &target);
        scratch.download_to(tape, &target, &mut outcome.continue_target[slots.clone()]);
        scratch.download_to(tape, &loss, &mut outcome.continue_loss[slots.clone()]);
        loss
    });
    if let Some(sum) = &forward.recursion.balance {
        let mean = &mut outcome.balance_loss[slots.clone()];
        scratch.download_to(tape, sum, mean);
        mean.iter_mut().for_each(|loss| *loss /= model.recorded_routers() as f64);
    }
    Losses { lm, halt, continues }
}

/// Gradients of total/batch, `total = lm + w (halt + continue) + w_balance · balance`.
fn backward<D: Device>(
    tape: &mut Tape<'_, D>,
    model: &Model,
    config: &TrainConfig,
    forward: &Forward,
    losses: &Losses,
    grads: &mut Grads<D>,
) {
    let seed = |weight: f64| D::T::from_f64(weight / config.batch_size as f64);
    let mut seeds: arrayvec::ArrayVec<(&Var, D::T), 4> = arrayvec::ArrayVec::new();
    seeds.push((&losses.lm, seed(1.0)));
    seeds.push((&losses.halt, seed(config.halt_loss_weight)));
    seeds.extend(losses.continues.iter().map(|loss| (loss, seed(config.halt_loss_weight))));
    let routers = model.recorded_routers().max(1) as f64;
    seeds.extend(forward.recursion.balance.iter().map(|loss| (loss, seed(config.balance_loss_weight / routers))));
    tape.backward_from(&seeds, grads);
}

/// A further, undifferentiated pass from the new states gives the continue targets (specification, "Deep supervision", step 4).
fn continue_target<D: Device>(tape: &mut Tape<'_, D>, model: &Model, forward: &Forward, is_last: &[bool]) -> Var {
    tape.set_recording(false);
    let mut next: States = forward.states.iter().map(|state| ops::add(tape, &[state])).collect();
    model.recur(tape, &forward.question, &mut next, Pass::Infer);
    let (logits, q) = model.heads(tape, &next);
    let target = ops::continue_target(tape, &q, is_last);
    for var in next.into_iter().chain([logits, q]) {
        tape.release(var);
    }
    tape.set_recording(true);
    target
}

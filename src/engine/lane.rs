//! A lane is a core: it takes a few sequences through everything, with memory of its own.

use std::ops::Range;

use arrayvec::ArrayVec;

use super::{Group, PuzzleTable, Weights};
use crate::config::{Loss, TrainConfig};
use crate::model::{MAX_STATES, Model, Pass, States};
use crate::tape::ops::{self, IGNORE_LABEL, Likelihood};
use crate::tape::profile::Part;
use crate::tape::{Grads, Memory, Tape, Var};

/// Sequences of `len` positions a lane takes at a time: four of 97 give the products 388 rows, enough to keep the
/// micro-kernels busy, while a lane's activations stay a few megabytes per recorded call; one of 916 does so alone.
pub fn shard(len: usize) -> usize {
    const ROWS: usize = 400;
    (ROWS / len).clamp(1, 4)
}

/// One core's memory. Everything in it grows to its final size in the first step.
#[derive(Default)]
pub struct Lane {
    /// Position among the lanes.
    pub(crate) index: usize,
    /// NUMA node.
    pub(crate) node: usize,
    pub(crate) memory: Memory<f32>,
    /// Slices of partial sums (see the tree of gradients).
    pub(crate) sums: Vec<f32>,
    puzzle_rows: Vec<f32>,
    seed: Vec<f32>,
    halt_targets: Vec<f64>,
}

impl Lane {
    /// Bytes of the arena.
    pub fn arena_bytes(&self) -> usize {
        self.memory.size_bytes()
    }

    /// One training step of the sequences `slots` of a group: forward, losses, backward. Slots that halted start from
    /// the start vectors. Reads and replaces their carry, writes their outcome, adds their gradients (of total/batch)
    /// to `grads`.
    pub fn train(
        &mut self,
        model: &Model,
        weights: &Weights,
        config: &TrainConfig,
        group: &mut Group,
        slots: Range<usize>,
        grads: &mut Grads<f32>,
    ) {
        let n = slots.len();
        let seq_len = model.embedding.seq_len;
        let starts: ArrayVec<&[f32], MAX_STATES> = model.starts.iter().map(|&id| weights.params.get(id)).collect();
        for slot in slots.clone() {
            if group.carry.halted[slot] {
                group.carry.restart(slot, &starts);
            }
        }
        let tokens = slots.start * seq_len..slots.end * seq_len;
        self.gather(weights.table.as_deref(), &group.carry.puzzle_ids[slots.clone()]);
        let mut tape = Tape::new(&mut self.memory, &weights.params);
        tape.lap(Part::Carry);
        let rows = weights.table.as_ref().map(|table| tape.leaf(n, table.ndim(), &self.puzzle_rows));
        let question = model.embedding.forward(&mut tape, &group.carry.inputs[tokens.clone()], rows.as_ref());
        let mut states = load_states(&mut tape, model, &group.carry.states, &slots);
        tape.lap(Part::Carry);
        let recursion = model.recur(&mut tape, &question, &mut states, Pass::Train);
        let (logits, q) = model.heads(&mut tape, &states);
        store_states(&tape, model, &states, &mut group.carry.states, &slots);
        tape.lap(Part::Carry);

        let labels = &group.carry.labels[tokens];
        let outcome = &mut group.outcome;
        outcome.calls[slots.clone()].fill(recursion.calls as u32);
        store_outputs(&tape, (&logits, &q), &slots, &mut outcome.logits, &mut outcome.q);
        let vocab = model.vocab_size();
        for (i, labels) in labels.chunks_exact(seq_len).enumerate() {
            let slot = slots.start + i;
            let (correct, labelled) = score(&outcome.logits[slot * seq_len * vocab..], labels, vocab);
            (outcome.correct[slot], outcome.labelled[slot]) = (correct, labelled);
        }
        tape.lap(Part::Metrics);

        let likelihood = match config.loss {
            Loss::StablemaxCrossEntropy => Likelihood::Stablemax,
            Loss::SoftmaxCrossEntropy => Likelihood::Softmax { label_smoothing: config.label_smoothing },
        };
        let lm_loss = ops::cross_entropy(&mut tape, &logits, labels, seq_len, likelihood);
        copy_losses(&tape, &lm_loss, &mut outcome.lm_loss[slots.clone()]);
        self.halt_targets.clear();
        self.halt_targets.extend(slots.clone().map(|slot| f64::from(u8::from(outcome.is_exact(slot)))));
        let halt_loss = ops::bce_with_logits(&mut tape, &q, 0, &self.halt_targets);
        copy_losses(&tape, &halt_loss, &mut outcome.halt_loss[slots.clone()]);
        let batch = config.batch_size as f64;
        self.seed.clear();
        self.seed.resize(n, (1.0 / batch) as f32);
        self.seed.resize(2 * n, (config.halt_loss_weight / batch) as f32);
        self.seed.resize(3 * n, (config.balance_loss_weight / batch) as f32);
        let (lm_seed, rest) = self.seed.split_at(n);
        let (halt_seed, balance_seed) = rest.split_at(n);
        let continue_loss = config.continue_loss.then(|| {
            let targets = &mut outcome.continue_target[slots.clone()];
            let last = |i: usize| group.carry.steps[slots.start + i] + 1 >= config.halt_max_steps;
            continue_targets(&mut tape, model, &question, &states, last, targets);
            let loss = ops::bce_with_logits(&mut tape, &q, 1, targets);
            copy_losses(&tape, &loss, &mut outcome.continue_loss[slots.clone()]);
            loss
        });
        let mut seeds: ArrayVec<(&Var, &[f32]), 4> = ArrayVec::new();
        seeds.extend([(&lm_loss, lm_seed), (&halt_loss, halt_seed)]);
        if let Some(balance_loss) = &recursion.balance {
            copy_losses(&tape, balance_loss, &mut outcome.balance_loss[slots.clone()]);
            seeds.push((balance_loss, balance_seed));
        }
        seeds.extend(continue_loss.iter().map(|loss| (loss, halt_seed)));
        tape.backward(&seeds, grads);
        if let Some(rows) = &rows {
            let ndim = model.embedding.puzzle_ndim;
            let target = &mut outcome.puzzle_grads[slots.start * ndim..slots.end * ndim];
            match tape.grad(rows) {
                Some(grad) => target.copy_from_slice(grad),
                None => target.fill(0.0),
            }
        }
    }

    /// Charges the time since the last event to `part`, while a stopwatch runs.
    pub(crate) fn lap(&mut self, part: Part, bytes: f64) {
        if let Some(watch) = &mut self.memory.stopwatch {
            watch.lap(part, bytes);
        }
    }

    /// One supervision step without gradient: reads and replaces the carry of `slots`, writes logits and q.
    pub fn infer(&mut self, model: &Model, weights: &Weights, group: &mut Group, slots: Range<usize>) {
        let seq_len = model.embedding.seq_len;
        self.gather(weights.table.as_deref(), &group.carry.puzzle_ids[slots.clone()]);
        let mut tape = Tape::new(&mut self.memory, &weights.params);
        tape.set_recording(false);
        let rows = weights.table.as_ref().map(|table| tape.leaf(slots.len(), table.ndim(), &self.puzzle_rows));
        let tokens = &group.carry.inputs[slots.start * seq_len..slots.end * seq_len];
        let question = model.embedding.forward(&mut tape, tokens, rows.as_ref());
        let mut states = load_states(&mut tape, model, &group.carry.states, &slots);
        model.recur(&mut tape, &question, &mut states, Pass::Infer);
        let (logits, q) = model.heads(&mut tape, &states);
        store_states(&tape, model, &states, &mut group.carry.states, &slots);
        store_outputs(&tape, (&logits, &q), &slots, &mut group.outcome.logits, &mut group.outcome.q);
    }

    fn gather(&mut self, table: Option<&PuzzleTable>, ids: &[u32]) {
        self.puzzle_rows.clear();
        if let Some(table) = table {
            for &id in ids {
                self.puzzle_rows.extend_from_slice(table.row(id));
            }
        }
    }
}

fn load_states(tape: &mut Tape<'_, f32>, model: &Model, carried: &[Vec<f32>], slots: &Range<usize>) -> States {
    let per_slot = model.len * model.hidden;
    let range = slots.start * per_slot..slots.end * per_slot;
    carried.iter().map(|state| tape.constant(slots.len() * model.len, model.hidden, &state[range.clone()])).collect()
}

fn store_states(tape: &Tape<'_, f32>, model: &Model, states: &States, carried: &mut [Vec<f32>], slots: &Range<usize>) {
    let per_slot = model.len * model.hidden;
    for (state, carried) in states.iter().zip(carried) {
        carried[slots.start * per_slot..slots.end * per_slot].copy_from_slice(tape.value(state));
    }
}

fn store_outputs(
    tape: &Tape<'_, f32>,
    (logits, q): (&Var, &Var),
    slots: &Range<usize>,
    all_logits: &mut [f32],
    all_q: &mut [[f32; 2]],
) {
    let logits = tape.value(logits);
    let per_slot = logits.len() / slots.len();
    all_logits[slots.start * per_slot..slots.end * per_slot].copy_from_slice(logits);
    for (target, q) in all_q[slots.clone()].iter_mut().zip(tape.value(q).chunks_exact(2)) {
        target.copy_from_slice(q);
    }
}

fn copy_losses(tape: &Tape<'_, f32>, loss: &Var, target: &mut [f64]) {
    for (target, &loss) in target.iter_mut().zip(tape.value(loss)) {
        *target = f64::from(loss);
    }
}

/// `(right, labelled)` tokens of one sequence; `logits` starts with its rows.
pub(crate) fn score(logits: &[f32], labels: &[i32], vocab: usize) -> (u32, u32) {
    let (mut correct, mut labelled) = (0, 0);
    for (row, &label) in logits.chunks_exact(vocab).zip(labels) {
        if label != IGNORE_LABEL {
            labelled += 1;
            correct += u32::from(argmax(row) as i32 == label);
        }
    }
    (correct, labelled)
}

/// The first of the largest.
pub fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, &value) in row.iter().enumerate() {
        if value > row[best] {
            best = i;
        }
    }
    best
}

/// SPEC step 4: a further, undifferentiated pass from the new state gives the continue targets.
fn continue_targets(
    tape: &mut Tape<'_, f32>,
    model: &Model,
    question: &Var,
    states: &States,
    is_last: impl Fn(usize) -> bool,
    targets: &mut [f64],
) {
    tape.set_recording(false);
    let mut next: States = states.iter().map(|state| ops::add(tape, &[state])).collect();
    model.recur(tape, question, &mut next, Pass::Infer);
    let (logits, q) = model.heads(tape, &next);
    for (i, (target, q)) in targets.iter_mut().zip(tape.value(&q).chunks_exact(2)).enumerate() {
        let value = f64::from(if is_last(i) { q[0] } else { q[0].max(q[1]) });
        *target = 1.0 / (1.0 + (-value).exp());
    }
    for var in next.into_iter().chain([logits, q]) {
        tape.release(var);
    }
    tape.set_recording(true);
}

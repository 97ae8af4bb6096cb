//! Evaluation: every puzzle gets all supervision steps; accuracy is counted after each (SPEC "Deep supervision").

use rayon::prelude::*;
use serde::Serialize;

use super::lane::{SHARD, argmax, score};
use super::{Group, Lanes, Weights};
use crate::model::Model;
use crate::puzzle::Board;

/// Accuracy after one supervision step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct StepAccuracy {
    /// Supervision steps taken.
    pub step: u32,
    /// Share of puzzles that are right in every labelled token.
    pub exact_accuracy: f64,
    /// Share of right tokens of a puzzle, averaged over puzzles.
    pub token_accuracy: f64,
    /// Share of puzzles whose halting head (`q_halt ≥ 0`) says whether they are right.
    pub halt_accuracy: f64,
    /// Share of puzzles whose answer solves them, stored or not; where there may be several answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
}

/// The result of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Evaluation {
    /// Exact accuracy after the last supervision step.
    pub exact_accuracy: f64,
    /// Token accuracy after the last supervision step.
    pub token_accuracy: f64,
    /// Halting accuracy after the last supervision step.
    pub halt_accuracy: f64,
    /// Share of answers that solve their puzzle after the last supervision step; where there may be several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid: Option<f64>,
    pub puzzles: usize,
    pub by_step: Vec<StepAccuracy>,
}

#[derive(Clone, Copy, Default)]
struct Counts {
    exact: u64,
    tokens: f64,
    halts: u64,
    valid: u64,
}

/// Evaluates `n` examples for `steps` supervision steps; `write` gives example i (tokens, labels, identifier). With a
/// `board`, answers that solve their puzzle are counted too.
/// Counts are summed in the order of the examples, so threads change nothing. `None` when `stop` cut it short.
pub fn evaluate(
    lanes: &Lanes,
    (model, weights): (&Model, &Weights),
    (n, steps): (usize, u32),
    write: impl Fn(usize, &mut [u8], &mut [i32]) -> u32 + Sync,
    board: Option<&dyn Board>,
    stop: impl Fn() -> bool + Sync,
) -> Option<Evaluation> {
    let shards: Vec<usize> = (0..n).step_by(SHARD).collect();
    let counts: Option<Vec<Vec<Counts>>> = lanes.install(|| {
        let run = |&first: &usize| {
            (!stop()).then(|| run_shard(lanes, model, weights, (first..n.min(first + SHARD), steps), &write, board))
        };
        shards.par_iter().map(run).collect()
    });
    let counts = counts?;
    let share = |count: f64| if n == 0 { 0.0 } else { count / n as f64 };
    let by_step: Vec<StepAccuracy> = (0..steps as usize)
        .map(|step| {
            let column = || counts.iter().map(|shard| shard[step]);
            StepAccuracy {
                step: step as u32 + 1,
                exact_accuracy: share(column().map(|c| c.exact).sum::<u64>() as f64),
                token_accuracy: share(column().map(|c| c.tokens).sum()),
                halt_accuracy: share(column().map(|c| c.halts).sum::<u64>() as f64),
                valid: board.map(|_| share(column().map(|c| c.valid).sum::<u64>() as f64)),
            }
        })
        .collect();
    let last = by_step.last().copied().unwrap_or_default();
    Some(Evaluation {
        exact_accuracy: last.exact_accuracy,
        token_accuracy: last.token_accuracy,
        halt_accuracy: last.halt_accuracy,
        valid: last.valid,
        puzzles: n,
        by_step,
    })
}

fn run_shard(
    lanes: &Lanes,
    model: &Model,
    weights: &Weights,
    (examples, steps): (std::ops::Range<usize>, u32),
    write: &(impl Fn(usize, &mut [u8], &mut [i32]) -> u32 + Sync),
    board: Option<&dyn Board>,
) -> Vec<Counts> {
    let slots = examples.len();
    let mut group = Group::new(model, slots);
    let starts: Vec<&[f32]> = model.starts.iter().map(|&id| weights.params.get(id)).collect();
    for (slot, example) in examples.enumerate() {
        group.carry.refill(slot, &starts, |inputs, labels| write(example, inputs, labels));
    }
    let (seq_len, vocab_size) = (model.embedding.seq_len, model.vocab_size());
    (0..steps)
        .map(|_| {
            lanes.with_lane(|lane| lane.infer(model, weights, &mut group, 0..slots));
            let mut counts = Counts::default();
            for slot in 0..slots {
                let logits = &group.outcome.logits[slot * seq_len * vocab_size..];
                let labels = &group.carry.labels[slot * seq_len..(slot + 1) * seq_len];
                let (correct, labelled) = score(logits, labels, vocab_size);
                let exact = correct == labelled;
                counts.exact += u64::from(exact);
                counts.tokens += f64::from(correct) / f64::from(labelled.max(1));
                counts.halts += u64::from((group.outcome.q[slot][0] >= 0.0) == exact);
                if let Some(board) = board {
                    let inputs = &group.carry.inputs[slot * seq_len..(slot + 1) * seq_len];
                    let answer: Vec<u8> =
                        logits.chunks_exact(vocab_size).take(seq_len).map(|row| argmax(row) as u8).collect();
                    counts.valid += u64::from(board.solves(inputs, &answer));
                }
            }
            counts
        })
        .collect()
}

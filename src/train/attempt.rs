//! One puzzle, thought about step by step.

use super::lane::argmax;
use super::{Group, Lanes, Weights};
use crate::model::Model;

/// What the model says after one supervision step.
#[derive(Clone, Debug, PartialEq)]
pub struct Thought {
    /// The answer's tokens.
    pub tokens: Vec<u8>,
    /// σ(q_halt): how sure the model is that the answer is right.
    pub confidence: f64,
}

/// The thoughts of `steps` supervision steps on a question (its tokens); with `halt`, no more than until the model is
/// more sure than not.
pub fn attempt(
    lanes: &Lanes,
    model: &Model,
    weights: &Weights,
    question: &[u8],
    puzzle_id: u32,
    steps: u32,
    halt: bool,
) -> Vec<Thought> {
    let mut group = Group::new(model, 1);
    let starts: Vec<&[f32]> = model.starts.iter().map(|&id| weights.params.get(id)).collect();
    group.carry.refill(0, &starts, |inputs, _| {
        inputs.copy_from_slice(question);
        puzzle_id
    });
    let mut thoughts = Vec::new();
    for _ in 0..steps {
        lanes.install(|| lanes.with_lane(|lane| lane.infer(model, weights, &mut group, 0..1)));
        let tokens = group.outcome.logits.chunks_exact(model.vocab_size()).map(|row| argmax(row) as u8).collect();
        let q_halt = f64::from(group.outcome.q[0][0]);
        thoughts.push(Thought { tokens, confidence: 1.0 / (1.0 + (-q_halt).exp()) });
        if halt && q_halt > 0.0 {
            break;
        }
    }
    thoughts
}

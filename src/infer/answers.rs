//! One puzzle's answers, step by step.

use std::convert::Infallible;

use super::Inference;
use super::halt_rule::confidence;
use crate::device::Device;
use crate::engine::Group;

/// What the model says after one supervision step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepAnswer {
    /// The answer's tokens.
    pub tokens: Vec<u8>,
    /// σ(q_halt): how sure the model is that the answer is right.
    pub confidence: f64,
}

impl<D: Device> Inference<'_, D> {
    /// The answers to a question (its tokens) after each supervision step; fewer than `options.steps` when halting ends them.
    pub fn answers(&self, question: &[u8], puzzle_id: u32) -> Vec<StepAnswer> {
        let Self { lanes, model, weights, options } = *self;
        let mut group = Group::on::<D>(model, 1);
        let Ok(()) = group.slots.refill(0, |inputs, _| {
            inputs.copy_from_slice(question);
            Ok::<_, Infallible>(puzzle_id)
        });
        let mut steps = Vec::new();
        for _ in 0..options.steps {
            lanes.install(|| lanes.alone(|lane| lane.infer(model, weights, &mut group, 0..1)));
            let q = group.outcome.q[0];
            let tokens = group.outcome.tokens.clone();
            steps.push(StepAnswer { tokens, confidence: confidence(q[0]) });
            if options.halt.is_some_and(|rule| rule.is_done(q)) {
                break;
            }
        }
        steps
    }
}

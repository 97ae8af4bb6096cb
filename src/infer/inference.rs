//! A trained model at work: all that answering takes beside the puzzles.

use super::HaltRule;
use crate::device::{Cpu, Device};
use crate::engine::{Lanes, Weights};
use crate::model::Model;

/// How many supervision steps a puzzle gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InferenceOptions {
    /// Supervision steps at most.
    pub steps: u32,
    /// Stop a puzzle earlier when its halting head says so.
    pub halt: Option<HaltRule>,
}

/// A model, its weights, the threads that work, and how many steps they take.
pub struct Inference<'a, D: Device = Cpu<f32>> {
    /// The threads.
    pub lanes: &'a Lanes<D>,
    /// The model.
    pub model: &'a Model,
    /// Its weights.
    pub weights: &'a Weights<D>,
    /// Supervision steps.
    pub options: InferenceOptions,
}

//! What a run measures: one record for each update and one for each evaluation, the same for every [`Sink`](super::Sink).
//!
//! A metric is one field here. The log writes it under the field's name; whoever fills a record in has to say its value.

use serde::Serialize;

use super::wilson_95;

/// What one update measured. Losses are means over the sequences of the batch; accuracies are means over the slots that
/// halted and have a label, and are not known where none did.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct UpdateRecord {
    /// Updates done, this one included.
    pub step: u64,
    /// Seconds of training until now, evaluations and saving included, over all processes of the run.
    pub seconds: f64,
    /// Model FLOPs since the first update.
    pub model_flops: f64,
    /// Learning rate of the dense weights.
    pub lr: f64,
    /// What is minimised: all losses below by their weights.
    pub loss: f64,
    /// Loss of the answer, a mean over the labelled tokens of a sequence.
    pub lm_loss: f64,
    /// Binary cross-entropy of "this answer is right".
    pub q_halt_loss: f64,
    /// Binary cross-entropy of the continue head; with `continue_loss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q_continue_loss: Option<f64>,
    /// Load-balancing loss; with experts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance_loss: Option<f64>,
    /// Calls of the recursion, a mean over the sequences; where their number is not fixed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<f64>,
    /// Euclidean norm of the gradient of the dense weights, before clipping.
    pub grad_norm: f64,
    /// Slots that halted and have a label: the n of what follows.
    pub halted: u64,
    /// Share of right tokens of a sequence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_accuracy: Option<f64>,
    /// Share of sequences that are right in every labelled token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_accuracy: Option<f64>,
    /// Share of sequences whose halting head (`q_halt ≥ 0`) says whether they are right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q_halt_accuracy: Option<f64>,
    /// Supervision steps that a sequence took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supervision_steps: Option<f64>,
    /// The device that made the update, where it was not the CPU: a run may go on on another one, and results then differ by
    /// rounding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<&'static str>,
    /// Of the CPU, the path of its kernels, on which rounding depends too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'static str>,
    /// Sequences in the batch: the n of the losses. Not logged, as it never changes.
    #[serde(skip)]
    pub batch: u64,
    /// Seconds of this update alone. Not logged.
    #[serde(skip)]
    pub update_seconds: f64,
    /// Model FLOPs of this update alone. Not logged.
    #[serde(skip)]
    pub update_flops: f64,
}

/// What one evaluation of a run measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvaluationRecord {
    /// Updates done.
    pub step: u64,
    /// Seconds of training when the evaluation began, over all processes of the run.
    pub seconds: f64,
    /// Model FLOPs of training since the first update.
    pub model_flops: f64,
    /// The split it is of.
    pub split: String,
    /// The result.
    pub eval: Evaluation,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
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
    /// Puzzles with a known answer, copies included: the n of all shares, which are NaN where there is none.
    pub puzzles: usize,
    /// Groups among them (puzzles with their copies), which is how many are independent; where they are fewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<usize>,
    /// Further puzzles whose answers are not known; they are no part of any figure.
    #[serde(skip_serializing_if = "is_zero")]
    pub unlabelled: usize,
    /// Supervision steps that a puzzle took, on average; all of them without halting.
    pub mean_steps: f64,
    /// After each step; a puzzle that has halted keeps its answer.
    pub by_step: Vec<StepAccuracy>,
}

impl Evaluation {
    /// The 95 % interval of an accuracy among `share`s of this evaluation: Wilson's, for as many trials as there are groups.
    /// A group's share lies between 0 and 1, so its variance is at most that of a trial: with copies the interval is on
    /// the safe side.
    pub fn interval_95(&self, share: f64) -> (f64, f64) {
        wilson_95(share, self.groups.unwrap_or(self.puzzles) as f64)
    }
}

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

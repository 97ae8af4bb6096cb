//! When a sequence is done, by its halting head (specification, "Deep supervision", step 3).

use crate::config::TrainConfig;
use crate::device::Real;
use crate::model::Model;

/// How the halting head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaltRule {
    /// q_halt > 0: the model is more sure than not that its answer is right.
    Positive,
    /// q_halt > q_continue: with the continue loss, and always in HRM.
    Compare,
}

impl HaltRule {
    /// The rule that a model is trained with.
    pub fn of(model: &Model, train: &TrainConfig) -> Self {
        if train.continue_loss || model.schedule.compares_q { Self::Compare } else { Self::Positive }
    }

    /// Whether a sequence with these `(q_halt, q_continue)` is done.
    pub fn is_done<T: Real>(self, [q_halt, q_continue]: [T; 2]) -> bool {
        match self {
            Self::Positive => q_halt > T::ZERO,
            Self::Compare => q_halt > q_continue,
        }
    }
}

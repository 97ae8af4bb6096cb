//! When a sequence is done, by its halting head (specification, "Deep supervision", step 3).

use crate::config::TrainConfig;
use crate::device::Real;
use crate::model::Model;

/// How the halting head is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HaltRule {
    /// q_halt > 0: the model is more sure than not that its answer is right.
    Positive,
    /// q_halt > q_continue: with the continue loss, and always in HRM.
    Compare,
    /// σ(q_halt) ≥ this: the model is so sure that its answer is right.
    Confident(f64),
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
            Self::Confident(threshold) => confidence(q_halt) >= threshold,
        }
    }
}

/// σ(q_halt): how sure the model is that its answer is right.
pub(super) fn confidence<T: Real>(q_halt: T) -> f64 {
    1.0 / (1.0 + (-q_halt.to_f64()).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_about_the_confidence_that_is_printed_and_one_half_is_the_rule_of_training() {
        for q in [-30.0, -2.0, -1e-3, 1e-3, 2.0, 2.9, 3.0, 30.0_f64] {
            let done = |rule: HaltRule| rule.is_done([q, 9.0]);
            assert_eq!(done(HaltRule::Confident(0.5)), done(HaltRule::Positive), "{q}");
            assert_eq!(done(HaltRule::Confident(0.95)), q > 2.95, "{q}");
        }
        assert!(!HaltRule::Confident(0.5).is_done([f64::NAN, 0.0]));
    }
}

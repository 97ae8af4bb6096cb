//! The best evaluation so far, and when there has been none better for too long.

use serde::{Deserialize, Serialize};

use crate::config::KeepBest;
use crate::report::Evaluation;

/// The best evaluation of a run by its measure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The measure's value.
    pub value: f64,
    /// The update it was made after.
    pub step: u64,
    /// Evaluations since, none of them better.
    pub since: u64,
}

impl Best {
    /// What is best once another evaluation has been made after update `step`. Equal is no better.
    pub(super) fn with(known: Option<Self>, step: u64, value: f64) -> Self {
        match known {
            Some(best) if value <= best.value => Self { since: best.since + 1, ..best },
            _ => Self { value, step, since: 0 },
        }
    }

    /// Whether so many evaluations in a row were no better; 0 is never.
    pub(super) fn is_stale(&self, stop_after: u64) -> bool {
        stop_after > 0 && self.since >= stop_after
    }
}

/// What an evaluation says by a measure; `None` for none, and where the evaluation does not have it.
pub(super) fn measured(measure: KeepBest, evaluation: &Evaluation) -> Option<f64> {
    match measure {
        KeepBest::Off => None,
        KeepBest::ExactAccuracy => Some(evaluation.exact_accuracy),
        KeepBest::TokenAccuracy => Some(evaluation.token_accuracy),
        KeepBest::HaltAccuracy => Some(evaluation.halt_accuracy),
        KeepBest::Valid => evaluation.valid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equals_stays_the_best_and_patience_counts_from_it() {
        let mut best = None;
        let mut seen = Vec::new();
        for (step, value) in [(10, 0.0), (20, 0.5), (30, 0.5), (40, 0.25), (50, 0.75), (60, 0.75)] {
            let now = Best::with(best, step, value);
            seen.push((now.step, now.since, now.is_stale(2)));
            best = Some(now);
        }
        let expected = [(10, 0, false), (20, 0, false), (20, 1, false), (20, 2, true), (50, 0, false), (50, 1, false)];
        assert_eq!(seen, expected);
        assert!(!Best { value: 0.0, step: 1, since: 1_000 }.is_stale(0));
    }
}

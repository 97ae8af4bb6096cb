//! Inference: answers of a trained model, one puzzle or a whole split, and how good they are.

mod answers;
mod arc;
mod breakdown;
mod evaluate;
mod evaluate_set;
mod halt_rule;
mod identifiers;
mod inference;
mod outcomes;
mod predictions;
mod shapes;
mod solver;

pub use answers::StepAnswer;
pub use arc::ArcEvaluation;
pub use breakdown::{Bucket, Row, buckets};
pub use evaluate::{Answered, Observer};
pub use evaluate_set::Evaluated;
pub use halt_rule::HaltRule;
pub use identifiers::Identifiers;
pub use inference::{Inference, InferenceOptions};
pub use outcomes::{Outcome, Outcomes, StepScore};
pub use predictions::{PredictionFormat, Predictions};
pub use shapes::{Shapes, check_against, settings_of};
pub use solver::{Solution, Solver, StoredModel};

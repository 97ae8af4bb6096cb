//! Inference: answers of a trained model, one puzzle or a whole split, and how good they are.

mod answers;
mod arc;
mod evaluate;
mod evaluate_set;
mod halt_rule;
mod identifiers;
mod solver;

pub use answers::{StepAnswer, answers};
pub use arc::ArcEvaluation;
pub use evaluate::{InferenceOptions, Observer, evaluate};
pub use halt_rule::HaltRule;
pub use identifiers::Identifiers;
pub use solver::{Solution, Solver, StoredModel};

//! Inference: answers of a trained model, one puzzle or a whole split, and how good they are.

mod answers;
mod arc;
mod evaluate;
mod evaluate_set;
mod halt_rule;
mod identifiers;
mod inference;
mod solver;

pub use answers::StepAnswer;
pub use arc::ArcEvaluation;
pub use evaluate::Observer;
pub use halt_rule::HaltRule;
pub use identifiers::Identifiers;
pub use inference::{Inference, InferenceOptions};
pub use solver::{Solution, Solver, StoredModel};

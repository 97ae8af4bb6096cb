//! Inference: answers of a trained model, one puzzle or a whole split, and how good they are.

mod arc;
mod attempt;
mod evaluate;
mod evaluate_set;
mod halt_rule;
mod identifiers;
mod solver;

pub use arc::ArcEvaluation;
pub use attempt::{Thought, attempt};
pub use evaluate::{Observer, Thinking, evaluate};
pub use halt_rule::HaltRule;
pub use identifiers::Identifiers;
pub use solver::{Solution, Solver, StoredModel};

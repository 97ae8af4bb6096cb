//! Training: batches, halting and updates; a run from its first update to its last.

mod checkpoints;
mod incoming;
mod learning_rate;
mod run;
mod trainer;

pub use learning_rate::learning_rate_factor;
pub use run::{Ending, Run};
pub use trainer::{GroupState, StepReport, Trainer, TrainerState};

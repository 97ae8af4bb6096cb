//! Training: batches, halting and updates; a run from its first update to its last.

mod checkpoints;
mod incoming;
mod learning_rate;
mod run;
mod run_data;
mod trainer;

pub use learning_rate::learning_rate_factor;
pub use run::{Ending, Run};
pub use run_data::{RunData, set_folder};
pub use trainer::{GroupState, StepReport, Trainer, TrainerState};

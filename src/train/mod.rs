//! Training: batches, halting and updates; a run from its first update to its last.

mod average;
mod best;
mod checkpoints;
mod incoming;
mod learning_rate;
mod requests;
mod run;
mod run_data;
mod trainer;

pub use average::{ema_rate, short_run_note};
pub use best::Best;
pub use checkpoints::checkpoint_weights;
pub use learning_rate::learning_rate_factor;
pub use requests::Requests;
pub use run::{Ending, Run};
pub use run_data::{RunData, set_folder};
pub use trainer::{GroupState, StepReport, Trainer, TrainerState};

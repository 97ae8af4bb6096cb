//! Training: lanes take shards through everything, the trainer deals in batches, halting and updates.
//!
//! Below a [`Lane`] everything is single-threaded and owns its memory; above it everything is about slots, gradient
//! groups and the order of summation. Gradients of a group are summed in one buffer, groups in a fixed binary tree,
//! so no number of threads changes a bit of the result.

mod adam;
mod arc;
mod attempt;
mod cost;
mod evaluate;
mod group;
mod halt_rule;
mod identifiers;
mod lane;
mod lanes;
mod learning_rate;
mod machine;
mod profile;
mod puzzle_table;
mod run;
pub mod scaling;
mod task_data;
mod topology;
mod trainer;
mod tree;
mod weights;
mod workload;

pub use adam::Adam;
pub use arc::ArcEvaluation;
pub use attempt::{Thought, attempt};
pub use cost::{Cost, Footprint};
pub use evaluate::{Evaluation, StepAccuracy, Thinking, evaluate};
pub use group::{Carry, Group, Outcome};
pub use halt_rule::HaltRule;
pub use identifiers::Identifiers;
pub use lane::{Lane, argmax};
pub use lanes::Lanes;
pub use learning_rate::learning_rate_factor;
pub use profile::Profile;
pub use puzzle_table::PuzzleTable;
pub use run::{Ending, Run};
pub use task_data::{Batches, TaskData, board_of};
pub use topology::{Place, Topology};
pub use trainer::{Examples, StepReport, Trainer, TrainerState};
pub use weights::Weights;
pub use workload::{RandomTokens, Work, Workload};

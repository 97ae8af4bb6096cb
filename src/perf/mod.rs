//! Performance: what a run will cost, what a step takes and why, and what it would take on a larger machine.

mod cost;
mod machine;
mod profile;
pub mod scaling;
mod workload;

pub use cost::{Footprint, RunCost};
pub use profile::Profile;
pub use workload::{RandomTokens, Work, Workload};

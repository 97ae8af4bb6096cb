//! Performance: what a run will cost, what a step takes and why, and what it would take on a larger machine.

mod agreement;
mod cost;
mod footprint;
mod limits;
mod machine;
mod profile;
pub mod roofline;
pub mod scaling;
mod workload;

pub use agreement::{Agreement, Trajectory};
pub use cost::RunCost;
pub use footprint::Footprint;
pub use limits::MemoryLimits;
pub use profile::Profile;
pub use workload::{RandomTokens, Work, Workload};

//! Performance: what a run will cost, what a step takes and why, what it would take on a larger machine, and runs side by side.

mod agreement;
mod cost;
mod footprint;
mod limits;
mod machine;
mod profile;
pub mod roofline;
pub mod scaling;
mod side_by_side;
mod workload;

pub use agreement::{Agreement, Trajectory};
pub use cost::RunCost;
pub use footprint::Footprint;
pub use limits::MemoryLimits;
pub use profile::Profile;
pub use side_by_side::SideBySide;
pub use workload::{RandomTokens, Work, Workload};

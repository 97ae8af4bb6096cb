//! Where arithmetic runs: the cores of this machine.

mod precision;
mod topology;

pub use precision::precision_for;
pub use topology::{Place, Topology, available};

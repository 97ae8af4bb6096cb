//! Where arithmetic runs: the cores of this machine.

mod topology;

pub use topology::{Place, Topology, available};

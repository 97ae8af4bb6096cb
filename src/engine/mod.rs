//! What a training step asks of a machine: lanes that take slots through everything, and the tree that sums gradients.
//!
//! Below a [`Lane`] everything is single-threaded and owns its memory; above it everything is about slots, gradient
//! groups and the order of summation. Gradients of a group are summed in one buffer, groups in a fixed binary tree,
//! so no number of threads changes a bit of the result.

mod adam;
mod group;
mod lane;
mod lanes;
mod puzzle_table;
mod tree;
mod weights;

pub use adam::Adam;
pub(crate) use adam::{adam_coefficients, largest_gradient, non_finite_tensor};
pub use group::{Carry, Group, Outcome, gradient_groups};
pub use lane::{Lane, argmax};
pub(crate) use lane::{score, shard};
pub use lanes::Lanes;
pub use puzzle_table::PuzzleTable;
pub use tree::partial_sums;
pub(crate) use tree::{Sums, accumulate};
pub use weights::Weights;

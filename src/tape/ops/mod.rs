//! The operations of the tape, one file each: formula, forward, backward, and an entry in the gradient check.
//!
//! An operation is a plain `Copy` record of slots and settings that implements `Operation`; listing it in
//! `operations!` below makes it part of `Op`, of the backward pass and of [`CATALOGUE`]. The trait demands
//! `Operation::samples`, so an operation without a gradient check does not compile.

mod add;
mod add_expert;
mod add_positions;
mod add_rmsnorm;
mod add_start;
mod attention;
mod bce_with_logits;
mod cross_entropy;
mod gather_rows;
mod linear;
mod load_balance;
mod puzzle_prefix;
mod route;
mod select_positions;
mod swiglu;
mod swiglu_over_positions;
mod token_embedding;

pub use add::add;
pub use add_expert::add_expert;
pub use add_positions::add_positions;
pub use add_rmsnorm::{add_rmsnorm, add_rmsnorm_over_positions};
pub use add_start::add_start;
pub use attention::attention;
pub use bce_with_logits::bce_with_logits;
pub use cross_entropy::{IGNORE_LABEL, Likelihood, cross_entropy};
pub use gather_rows::gather_rows;
pub use linear::{linear, linear_add_rmsnorm};
pub use load_balance::load_balance;
pub use puzzle_prefix::puzzle_prefix;
pub use route::{Routing, route};
pub use select_positions::select_positions;
pub use swiglu::{swiglu, swiglu_add_rmsnorm};
pub use swiglu_over_positions::{swiglu_add_rmsnorm_over_positions, swiglu_over_positions};
pub use token_embedding::token_embedding;

use super::gradcheck::Sample;
use super::profile::{Cost, Sizes};
use super::{Backward, SlotId};
use crate::rng::Rng;
use crate::simd::{self, Real};

/// Backward pass of a loss per sequence (slot `loss`) whose gradient at `input`, for a loss of weight 1, was worked out in
/// the forward pass and saved in `unit_grad`: `d_input += factor · d_loss[sequence] · unit_grad`.
fn backward_of_losses<T: Real>(pass: &mut Backward<'_, T>, factor: T, loss: SlotId, unit_grad: SlotId, input: SlotId) {
    let reads = [pass.grad_out(loss), pass.value(unit_grad)];
    let Some(d_input) = pass.grad_in(input) else { return };
    let ([d_loss, unit], [d_input]) = pass.memory.arena.split(reads, [d_input]);
    let per_sequence = unit.len() / d_loss.len();
    let sequences = unit.chunks_exact(per_sequence).zip(d_input.chunks_exact_mut(per_sequence));
    for (&d_loss, (unit, d)) in d_loss.iter().zip(sequences) {
        simd::axpy(d, factor * d_loss, unit);
    }
    pass.release_saved(unit_grad);
}

/// What every recorded operation can do.
pub(crate) trait Operation: Copy {
    /// The name under which the gradient check lists it.
    const NAME: &'static str;
    /// The gradient terms its backward pass adds up; each can be made wrong by a test, and the check must notice.
    const TERMS: &'static [&'static str];
    /// Whether the output slot is new, or an input's that was overwritten.
    const CREATES_OUTPUT: bool = true;

    /// The slot whose gradient the backward pass starts from.
    fn output(&self) -> SlotId;

    /// Adds this operation's share to the gradients of its inputs and weights.
    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>);

    /// FLOPs and bytes of the forward pass, by the rule that [`Timing`](super::profile::Timing) states.
    fn cost<T: Real>(&self, sizes: &Sizes<'_, T>) -> Cost {
        sizes.elementwise(self.output())
    }

    /// Random small problems that exercise every term.
    fn samples(rng: &mut Rng) -> Vec<Sample>;
}

/// One line of the gradient-check table.
#[derive(Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    pub terms: &'static [&'static str],
    pub samples: fn(&mut Rng) -> Vec<Sample>,
}

macro_rules! operations {
    ($($module:ident::$Operation:ident),* $(,)?) => {
        /// A recorded operation.
        #[derive(Clone, Copy)]
        pub(crate) enum Op {
            $($Operation($module::$Operation)),*
        }

        $(impl From<$module::$Operation> for Op {
            fn from(operation: $module::$Operation) -> Self {
                Self::$Operation(operation)
            }
        })*

        impl Op {
            pub(crate) fn name(&self) -> &'static str {
                match self { $(Self::$Operation(_) => $module::$Operation::NAME),* }
            }

            pub(crate) fn output(&self) -> SlotId {
                match self { $(Self::$Operation(op) => op.output()),* }
            }

            pub(crate) fn creates_output(&self) -> bool {
                match self { $(Self::$Operation(_) => $module::$Operation::CREATES_OUTPUT),* }
            }

            pub(crate) fn cost<T: Real>(&self, sizes: &Sizes<'_, T>) -> Cost {
                match self { $(Self::$Operation(op) => op.cost(sizes)),* }
            }

            pub(crate) fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
                match self { $(Self::$Operation(op) => op.backward(pass)),* }
            }
        }

        /// Every operation, for the gradient check.
        pub const CATALOGUE: &[Entry] = &[$(Entry {
            name: $module::$Operation::NAME,
            terms: $module::$Operation::TERMS,
            samples: $module::$Operation::samples,
        }),*];
    };
}

operations! {
    linear::Linear,
    swiglu::SwiGlu,
    swiglu_over_positions::SwiGluOverPositions,
    attention::Attention,
    add_rmsnorm::AddRmsNorm,
    add::Add,
    add_start::AddStart,
    token_embedding::TokenEmbedding,
    puzzle_prefix::PuzzlePrefix,
    add_positions::AddPositions,
    select_positions::SelectPositions,
    cross_entropy::CrossEntropy,
    bce_with_logits::BceWithLogits,
    route::Route,
    gather_rows::GatherRows,
    add_expert::AddExpert,
    load_balance::LoadBalance,
}

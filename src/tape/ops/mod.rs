//! The operations of the tape, one file each: formula, forward, backward, and an entry in the gradient check.
//!
//! An operation is a plain `Copy` record of slots and settings that implements `Operation`; listing it in
//! `operations!` below makes it part of `Op`, of the backward pass and of [`catalogue`]. The trait demands
//! `Operation::samples`, so an operation without a gradient check does not compile.

mod add;
mod add_expert;
mod add_positions;
mod add_rmsnorm;
mod attention;
mod bce_with_logits;
mod cross_entropy;
mod custom;
mod gather_rows;
mod linear;
mod load_balance;
mod puzzle_prefix;
mod route;
mod select_positions;
mod swiglu;
mod targets;
mod token_embedding;

pub use add::{Made, Rest, add, add_made};
pub use add_expert::add_expert;
pub use add_positions::add_positions;
pub use add_rmsnorm::{add_rmsnorm, add_rmsnorm_over_positions};
pub use attention::{attention, linear_attention};
pub use bce_with_logits::bce_with_logits;
pub use cross_entropy::cross_entropy;
pub use custom::{CustomGradients, CustomOperation, custom};
pub use gather_rows::gather_rows;
pub use linear::{linear, linear_add_rmsnorm, linear_exact};
pub use load_balance::load_balance;
pub use puzzle_prefix::puzzle_prefix;
pub use route::{Routing, route};
pub use select_positions::select_positions;
pub use swiglu::{
    swiglu, swiglu_add_rmsnorm, swiglu_add_rmsnorm_over_positions, swiglu_add_rmsnorm_then_add, swiglu_over_positions,
};
pub use targets::{AnswerScore, continue_target, score};
pub use token_embedding::token_embedding;

use super::gradcheck::Sample;
use super::profile::{Cost, Sizes};
use super::{Backward, SlotId};
use crate::device::Device;
use crate::rng::Rng;

/// Backward pass of a loss per sequence (slot `loss`) whose gradient at `input`, for a loss of weight 1, was worked out in
/// the forward pass and saved in `unit_grad`: `d_input += d_loss[sequence] · unit_grad`.
fn backward_of_losses<D: Device>(pass: &mut Backward<'_, D>, loss: SlotId, unit_grad: SlotId, input: SlotId) {
    let (d_loss, unit) = (pass.grad_out(loss), pass.value(unit_grad));
    let Some(d_input) = pass.grad_in(input) else { return };
    pass.memory.device.loss_backward(d_loss, unit, d_input);
    pass.release_saved(unit_grad);
}

/// What every recorded operation can do.
pub(crate) trait Operation: Copy {
    /// The name under which the gradient check lists it.
    const NAME: &'static str;
    /// Terms of the reference device's kernels that its backward pass goes through; a test makes each wrong, and the
    /// gradient check must notice.
    const TERMS: &'static [&'static str];
    /// Whether the output slot is new, or an input's that was overwritten.
    const CREATES_OUTPUT: bool = true;

    /// The slot whose gradient the backward pass starts from.
    fn output(&self) -> SlotId;

    /// Adds this operation's share to the gradients of its inputs and weights.
    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>);

    /// FLOPs and bytes of the forward pass, by the rule that [`Timing`](super::profile::Timing) states.
    fn cost<D: Device>(&self, sizes: &Sizes<'_, D>) -> Cost {
        sizes.elementwise(self.output())
    }

    /// Random small problems that exercise every term.
    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>>;
}

/// One line of the gradient-check table, on a device.
pub struct Entry<D: Device<T = f64>> {
    /// Operation or composition.
    pub name: &'static str,
    /// Terms of its backward pass that a test makes wrong.
    pub terms: &'static [&'static str],
    /// Random small problems.
    pub samples: fn(&mut Rng) -> Vec<Sample<D>>,
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

            pub(crate) fn cost<D: Device>(&self, sizes: &Sizes<'_, D>) -> Cost {
                match self { $(Self::$Operation(op) => op.cost(sizes)),* }
            }

            pub(crate) fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
                match self { $(Self::$Operation(op) => op.backward(pass)),* }
            }
        }

        /// Every operation, for the gradient check.
        pub fn catalogue<D: Device<T = f64>>() -> Vec<Entry<D>> {
            vec![$(Entry {
                name: $module::$Operation::NAME,
                terms: $module::$Operation::TERMS,
                samples: $module::$Operation::samples::<D>,
            }),*]
        }
    };
}

operations! {
    linear::Linear,
    swiglu::OverFeatures,
    swiglu::OverPositions,
    attention::Attention,
    add_rmsnorm::AddRmsNorm,
    add::Add,
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
    custom::Custom,
}

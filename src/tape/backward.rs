//! What an operation's backward pass works with, and where gradients go.
//!
//! An input's gradient is what all operations add up that read it. The first one to arrive need not be copied: where it is the whole
//! of another value's gradient, it becomes the input's when the other value's is done with, or the next addition reads it where it
//! is ([`Backward::lend_grad`], [`Backward::give_grad`]).

use super::ops::Op;
use super::{Memory, Slot, SlotId};
use crate::device::{Block, Device, Grads, InputGrad, Normed, ParamId, Params, Real};

/// A gradient that stands for two values: `to` has none of its own yet, and what has arrived there is the one of `from`. It lasts for
/// one backward pass at most, that of the operation which made `from`.
#[derive(Clone, Copy)]
pub(super) struct Lent {
    from: SlotId,
    to: SlotId,
}

/// What an operation's backward pass works with.
pub struct Backward<'a, D: Device> {
    pub(super) memory: &'a mut Memory<D>,
    pub(super) params: &'a Params<D>,
    pub(super) grads: &'a mut Grads<D>,
}

impl<D: Device> Backward<'_, D> {
    pub(super) fn slot(&self, id: SlotId) -> &Slot {
        &self.memory.slots[id.0 as usize]
    }

    pub(super) fn value(&self, id: SlotId) -> Block {
        self.slot(id).value.expect("a saved value is still there")
    }

    /// The gradient that arrived at an output.
    pub(super) fn grad_out(&self, id: SlotId) -> Block {
        self.slot(id).grad.expect("backward runs only where a gradient arrived")
    }

    /// Whether an input needs a gradient and has none yet.
    pub(super) fn needs_first_grad(&self, id: SlotId) -> bool {
        self.slot(id).needs_grad && self.slot(id).grad.is_none()
    }

    /// The gradient of an input, to be added to in place; zeros at first. `None` when the input needs none.
    pub(super) fn grad_in(&mut self, id: SlotId) -> Option<Block> {
        let grad = self.grad_to(id)?;
        Some(self.memory.device.begin_sum(grad))
    }

    /// Where the gradient of an input goes, and what it is added to. `None` when the input needs none.
    pub(super) fn grad_to(&mut self, id: SlotId) -> Option<InputGrad> {
        let lent = self.memory.lent.take_if(|lent| lent.to == id).map(|lent| self.grad_out(lent.from));
        let slot = &mut self.memory.slots[id.0 as usize];
        if !slot.needs_grad {
            return None;
        }
        let base = lent.or(slot.grad);
        let to = *slot.grad.get_or_insert_with(|| self.memory.device.alloc(slot.rows * slot.cols, slot.store));
        Some(InputGrad { to, base, norm: None })
    }

    /// The same, for an operation on weights whose blocks are given; and if possible through the norm that made the input.
    /// That is where the norm's is the next backward pass: then nothing else will be added.
    pub(super) fn grad_through_norm(&mut self, id: SlotId, weights: &[ParamId], blocks: &[Block]) -> Option<InputGrad> {
        let mut grad = self.grad_to(id)?;
        if self.memory.device.norms_input_grad(self.params, weights, blocks)
            && let Some(Op::AddRmsNorm(norm)) = self.memory.nodes.last_mut()
            && let Some(inv_rms) = norm.pass_over(id)
        {
            let [y, inv_rms] = [id, inv_rms].map(|slot| self.value(slot));
            grad.norm = Some(Normed { y, inv_rms });
        }
        Some(grad)
    }

    /// Adds an output's gradient to an input's.
    pub(super) fn add_to_grad(&mut self, d_out: Block, input: SlotId) {
        match self.grad_to(input) {
            None => {}
            Some(InputGrad { to, base: None, .. }) => self.memory.device.copy(d_out, to),
            Some(grad) => {
                let to = self.memory.device.begin_sum(grad);
                self.memory.device.axpy(D::T::ONE, d_out, to);
            }
        }
    }

    /// As [`Backward::add_to_grad`] with the gradient of a value whose operation is still to run backwards. A copy is made only if that
    /// does not add to the input's gradient.
    pub(super) fn lend_grad(&mut self, from: SlotId, to: SlotId) {
        if self.memory.lent.is_none() && self.needs_first_grad(to) && self.slot(to).store == self.slot(from).store {
            self.memory.lent = Some(Lent { from, to });
        } else {
            self.add_to_grad(self.grad_out(from), to);
        }
    }

    /// As [`Backward::add_to_grad`] with the gradient of the operation's own output, as the last thing that it does: that gradient
    /// becomes the input's where it has none.
    pub(super) fn give_grad(&mut self, from: SlotId, to: SlotId) {
        self.lend_grad(from, to);
        self.settle(Some(from));
    }

    /// Ends a loan unless the operation that made the value runs next.
    pub(super) fn settle_before(&mut self, op: &Op) {
        if self.memory.lent.is_some_and(|lent| !op.creates_output() || op.output() != lent.from) {
            self.settle(None);
        }
    }

    /// Ends a loan. `done` is an output whose gradient nobody reads any more.
    pub(super) fn settle(&mut self, done: Option<SlotId>) {
        let Some(Lent { from, to }) = self.memory.lent.take() else { return };
        if done == Some(from) {
            self.memory.slots[to.0 as usize].grad = self.memory.slots[from.0 as usize].grad.take();
        } else {
            self.add_to_grad(self.grad_out(from), to);
        }
    }

    /// Gives up what the forward pass saved in a slot of the operation's own.
    pub(super) fn release_saved(&mut self, id: SlotId) {
        if let Some(block) = self.memory.slots[id.0 as usize].value.take() {
            self.memory.device.release(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::device::{Cpu, Usage};
    use crate::rng::Rng;
    use crate::tape::gradcheck::Sample;
    use crate::tape::ops::{add, add_rmsnorm, linear};
    use crate::tape::{Tape, Var};

    type Function = fn(&mut Tape<'_, Cpu<f64>>, Vec<Var>, crate::device::ParamId) -> Vec<Var>;

    /// What a norm passes on to its two summands, which may have been made, and read by others, in any order.
    #[test]
    fn gradients_that_stand_for_two_values_are_those_of_both() {
        let functions: [(&str, Function); 7] = [
            ("the branch reads the residual", |tape, inputs, w| {
                let h = add(tape, &[&inputs[0]]);
                let x = linear(tape, &h, w, None);
                vec![add_rmsnorm(tape, h, x)]
            }),
            ("the branch reads something else", |tape, inputs, w| {
                let (h, x) = (add(tape, &[&inputs[0]]), linear(tape, &inputs[1], w, None));
                vec![add_rmsnorm(tape, h, x)]
            }),
            ("the residual is made last", |tape, inputs, w| {
                let (x, h) = (linear(tape, &inputs[1], w, None), add(tape, &[&inputs[0]]));
                vec![add_rmsnorm(tape, h, x)]
            }),
            ("others read both before", |tape, inputs, w| {
                let (h, x) = (add(tape, &[&inputs[0]]), linear(tape, &inputs[1], w, None));
                let [first, second] = [&h, &x].map(|var| add(tape, &[var, &inputs[0]]));
                vec![add_rmsnorm(tape, h, x), first, second]
            }),
            ("the branch hands its gradient on", |tape, inputs, _| {
                let [h, x] = [0, 1].map(|i| add(tape, &[&inputs[i]]));
                vec![add_rmsnorm(tape, h, x)]
            }),
            ("both are sums of one value", |tape, inputs, w| {
                let (h, x) = (add(tape, &[&inputs[0]]), add(tape, &[&inputs[0], &inputs[1], &inputs[0]]));
                let y = add_rmsnorm(tape, h, x);
                vec![linear(tape, &y, w, None)]
            }),
            ("the branch is a sum with the residual", |tape, inputs, w| {
                let h = linear(tape, &inputs[0], w, None);
                let x = add(tape, &[&h, &h, &inputs[1]]);
                vec![add_rmsnorm(tape, h, x)]
            }),
        ];
        let mut rng = Rng::new(3);
        for (name, function) in functions {
            let mut sample = Sample::new(name);
            let w = sample.param(&mut rng, 5, 5, Usage::Rows);
            sample.input(&mut rng, 4, 5);
            sample.input(&mut rng, 4, 5);
            let error = sample.run(move |tape, inputs| function(tape, inputs, w)).worst_error(&mut rng);
            assert!(error < 1e-6, "{name}: {error:.1e}");
        }
    }
}

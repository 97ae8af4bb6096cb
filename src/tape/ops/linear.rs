//! Linear layer: `y = x Wᵀ (+ b)`, x `[m, in]`, W `[out, in]`, b `[out]`.
//!
//! Backward: `dx = dy W`, `dW = dyᵀ x`, `db = Σ rows dy`.

use super::Operation;
use super::add_rmsnorm::Norm;
use crate::device::{AttentionShape, Device, Over, ParamId, Store, Usage};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::profile::{Cost, Sizes};
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct Linear {
    x: SlotId,
    weight: ParamId,
    bias: Option<ParamId>,
    out: SlotId,
}

/// `y = x Wᵀ (+ b)`: x is `[m, in]`, y `[m, out]`.
pub fn linear<D: Device>(tape: &mut Tape<'_, D>, x: &Var, weight: ParamId, bias: Option<ParamId>) -> Var {
    forward(tape, x, weight, bias, Store::Activation, None)
}

/// As [`linear`], for numbers that losses and decisions are made of (logits of heads and routers): the result is kept in the
/// device's scalars whatever the format of activations.
pub fn linear_exact<D: Device>(tape: &mut Tape<'_, D>, x: &Var, weight: ParamId, bias: Option<ParamId>) -> Var {
    forward(tape, x, weight, bias, Store::Exact, None)
}

/// `rmsnorm(h + x Wᵀ)`: [`linear`] and [`add_rmsnorm`](super::add_rmsnorm()) as its epilogue; uses up h `[m, out]`.
pub fn linear_add_rmsnorm<D: Device>(tape: &mut Tape<'_, D>, x: &Var, weight: ParamId, h: Var) -> Var {
    let norm = Norm::new(tape, h, Over::Features);
    let y = forward(tape, x, weight, None, Store::Activation, Some(&norm));
    norm.push(tape, y)
}

/// [`linear`] of q, k and v, which turns q and k ([`Device::fuses_rope`]).
pub(super) fn linear_rope<D: Device>(tape: &mut Tape<'_, D>, x: &Var, weight: ParamId, shape: &AttentionShape) -> Var {
    let (m, _) = tape.shape(x);
    let (out, qkv) = tape.new_value(m, 3 * shape.width(), Store::Activation);
    let x_block = tape.block(x);
    tape.memory.device.linear_rope(tape.params, weight, shape, x_block, qkv);
    push(tape, x, weight, None, out)
}

fn forward<D: Device>(
    tape: &mut Tape<'_, D>,
    x: &Var,
    weight: ParamId,
    bias: Option<ParamId>,
    store: Store,
    norm: Option<&Norm>,
) -> Var {
    let (m, _) = tape.shape(x);
    let (n_out, _) = tape.params.shape(weight);
    let (out, y) = tape.new_value(m, n_out, store);
    let (x_block, epilogue) = (tape.block(x), norm.map(|norm| norm.epilogue(tape)));
    tape.memory.device.linear(tape.params, weight, x_block, y, epilogue);
    if let Some(bias) = bias {
        tape.memory.device.add_table(tape.params, bias, 1.0, n_out, y);
    }
    push(tape, x, weight, bias, out)
}

fn push<D: Device>(tape: &mut Tape<'_, D>, x: &Var, weight: ParamId, bias: Option<ParamId>, out: SlotId) -> Var {
    let recorded = tape.records(&[x.0], true);
    tape.push(out, recorded, &[x.0], &[], Linear { x: x.0, weight, bias, out })
}

impl Operation for Linear {
    const NAME: &'static str = "linear";
    const TERMS: &'static [&'static str] = &["linear input", "weight", "table"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let (dy, x) = (pass.grad_out(self.out), pass.value(self.x));
        if let Some(dx) = pass.grad_through_norm(self.x, &[self.weight], &[dy, x]) {
            pass.memory.device.linear_backward(pass.params, self.weight, dy, dx);
        }
        pass.memory.device.weight_grad(pass.params, pass.grads, self.weight, dy, x);
        if let Some(bias) = self.bias {
            let (n_out, _) = pass.params.shape(self.weight);
            pass.memory.device.table_grad(pass.grads, bias, 1.0, n_out, dy);
        }
    }

    fn cost<D: Device>(&self, sizes: &Sizes<'_, D>) -> Cost {
        sizes.product(self.weight, self.x, self.out)
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        [false, true]
            .map(|with_bias| {
                let [m, n_in, n_out] = Sample::<D>::sizes(rng, [7, 9, 9]);
                let mut sample = Sample::new(if with_bias { "with bias" } else { "" });
                let weight = sample.param(rng, n_out, n_in, Usage::Rows);
                let bias = with_bias.then(|| sample.param(rng, 1, n_out, Usage::Table));
                sample.input(rng, m, n_in);
                sample.run(move |tape, inputs| vec![linear(tape, &inputs[0], weight, bias)])
            })
            .into()
    }
}

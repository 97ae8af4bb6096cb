//! Linear layer: `y = x Wᵀ (+ b)`, x `[m, in]`, W `[out, in]`, b `[out]`.
//!
//! Backward: `dx = dy W`, `dW = dyᵀ x`, `db = Σ rows dy`.

use super::{Operation, add_rmsnorm};
use crate::rng::Rng;
use crate::simd::{self, AddRmsNorm, Real};
use crate::tape::gradcheck::Sample;
use crate::tape::profile::{Cost, Sizes};
use crate::tape::{Backward, GradIn, ParamId, SlotId, Tape, Use, Var};

#[derive(Clone, Copy)]
pub(crate) struct Linear {
    x: SlotId,
    weight: ParamId,
    bias: Option<ParamId>,
    out: SlotId,
}

/// `y = x Wᵀ (+ b)`: x is `[m, in]`, y `[m, out]`.
pub fn linear<T: Real>(tape: &mut Tape<'_, T>, x: &Var, weight: ParamId, bias: Option<ParamId>) -> Var {
    forward(tape, x, weight, bias, None)
}

/// `rmsnorm(h + x Wᵀ)`: [`linear`] and [`add_rmsnorm`](super::add_rmsnorm()) in one go, each block of rows while it is in
/// the cache; uses up h `[m, out]`.
pub fn linear_add_rmsnorm<T: Real>(tape: &mut Tape<'_, T>, x: &Var, weight: ParamId, h: Var) -> Var {
    let inv_rms = add_rmsnorm::new_inv_rms(tape, &h, None);
    let y = forward(tape, x, weight, None, Some((&h, inv_rms)));
    add_rmsnorm::push(tape, h, y, inv_rms, None)
}

/// With h and the slot of its factors, residual and norm follow.
fn forward<T: Real>(
    tape: &mut Tape<'_, T>,
    x: &Var,
    weight: ParamId,
    bias: Option<ParamId>,
    then: Option<(&Var, SlotId)>,
) -> Var {
    let (m, _) = tape.shape(x);
    let params = tape.params();
    let (n_out, _) = params.shape(weight);
    let out = tape.new_slot(m, n_out);
    let [h_block, inv_block] = then.map_or_else(Default::default, |(h, inv)| [h.0, inv].map(|id| tape.value_block(id)));
    let reads = [tape.value_block(x.0), h_block];
    let ([x_values, h], [y, inv]) = tape.memory.arena.split(reads, [tape.value_block(out), inv_block]);
    let then = then.map(|_| AddRmsNorm { h, inv_rms: inv });
    params.weight(weight).forward_rows(x_values, y, then);
    if let Some(bias) = bias {
        for row in y.chunks_exact_mut(n_out) {
            simd::add_assign(row, params.get(bias));
        }
    }
    let recorded = tape.records(&[x.0], true);
    if recorded {
        tape.save(x.0);
    }
    tape.push(out, recorded, Linear { x: x.0, weight, bias, out })
}

impl Operation for Linear {
    const NAME: &'static str = "linear";
    const TERMS: &'static [&'static str] = &["input", "weight", "bias"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let d_out = pass.grad_out(self.out);
        let shape = pass.params.shape(self.weight);
        let (input, weight, bias) = (pass.factor("input"), pass.factor("weight"), pass.factor("bias"));
        if let Some(GradIn { block, is_new }) = pass.grad_in_or_new(self.x) {
            let ([dy], [dx]) = pass.memory.arena.split([d_out], [block]);
            pass.params.weight(self.weight).backward_rows(dy, dx, !is_new);
            if input != T::ONE {
                simd::scale(dx, input);
            }
        }
        pass.weight_grad_rows(self.weight, weight, d_out, pass.value(self.x));
        if let Some(id) = self.bias {
            for row in pass.memory.arena.get(d_out).chunks_exact(shape.0) {
                simd::axpy(pass.grads.get_mut(id), bias, row);
            }
        }
    }

    fn cost<T: Real>(&self, sizes: &Sizes<'_, T>) -> Cost {
        let (n_out, _) = sizes.shape(self.weight);
        sizes.products(sizes.elements(self.out) / n_out, &[self.weight])
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        [false, true]
            .map(|with_bias| {
                let [m, n_in, n_out] = Sample::sizes(rng, [7, 9, 9]);
                let mut sample = Sample::new(if with_bias { "with bias" } else { "" });
                let weight = sample.param(rng, n_out, n_in, Use::Rows);
                let bias = with_bias.then(|| sample.param(rng, 1, n_out, Use::Table));
                sample.input(rng, m, n_in);
                sample.run(move |tape, inputs| vec![linear(tape, &inputs[0], weight, bias)])
            })
            .into()
    }
}

//! SwiGLU over features: `y = W_down (silu(g) ⊙ u)`, `[g; u] = W_gate_up x` per row (SPEC "Block").
//!
//! x `[m, width]`, W_gate_up `[2·inner, width]`, W_down `[width, inner]`. The backward pass finds g and u saved (in the
//! kernel's own order, in bf16 rounded) and recomputes the activation; `dg = d·u·σ(g)(1 + g(1 − σ(g)))`, `du = d·silu(g)`.

use super::{Operation, add_rmsnorm};
use crate::rng::Rng;
use crate::simd::{self, AddRmsNorm, Real, Side, SwigluOperands};
use crate::tape::gradcheck::Sample;
use crate::tape::profile::{Cost, Sizes};
use crate::tape::{Backward, Block, ParamId, SlotId, Tape, Use, Var};

#[derive(Clone, Copy)]
pub(crate) struct SwiGlu {
    x: SlotId,
    gate_up: ParamId,
    down: ParamId,
    /// g and u before the activation, as the kernel keeps them.
    saved: SlotId,
    out: SlotId,
}

/// `y = W_down (silu(g) ⊙ u)` for each row of x `[m, width]`.
pub fn swiglu<T: Real>(tape: &mut Tape<'_, T>, x: &Var, gate_up: ParamId, down: ParamId) -> Var {
    forward(tape, x, gate_up, down, None)
}

/// `rmsnorm(h + swiglu(h))`: [`swiglu`] and [`add_rmsnorm`](super::add_rmsnorm()) in one go, each block of rows while it is
/// in the cache; uses up h.
pub fn swiglu_add_rmsnorm<T: Real>(tape: &mut Tape<'_, T>, h: Var, gate_up: ParamId, down: ParamId) -> Var {
    let inv_rms = add_rmsnorm::new_inv_rms(tape, &h, None);
    let y = forward(tape, &h, gate_up, down, Some(inv_rms));
    add_rmsnorm::push(tape, h, y, inv_rms, None)
}

/// With the slot of its factors, residual and norm follow.
fn forward<T: Real>(tape: &mut Tape<'_, T>, x: &Var, gate_up: ParamId, down: ParamId, inv_rms: Option<SlotId>) -> Var {
    let (m, width) = tape.shape(x);
    let params = tape.params();
    let recorded = tape.records(&[x.0], true);
    let (gate_up_weight, down_weight) = (params.weight(gate_up), params.weight(down));
    let saved_len = if recorded { simd::swiglu_saved_len(gate_up_weight, Side::Rows, m) } else { 0 };
    let saved = tape.new_slot(1, saved_len);
    let out = tape.new_slot(m, width);
    let [x_block, saved_block, y_block] = [x.0, saved, out].map(|slot| tape.value_block(slot));
    let inv_block = inv_rms.map_or_else(Block::default, |slot| tape.value_block(slot));
    let ([h], [saved_values, y, inv]) = tape.memory.arena.split([x_block], [saved_block, y_block, inv_block]);
    let then = inv_rms.map(|_| AddRmsNorm { h, inv_rms: inv });
    simd::swiglu(Side::Rows, gate_up_weight, down_weight, h, recorded.then_some(saved_values), y, then);
    if recorded {
        tape.save(x.0);
        tape.save(saved);
    } else {
        tape.release_slot(saved);
    }
    tape.push(out, recorded, SwiGlu { x: x.0, gate_up, down, saved, out })
}

impl Operation for SwiGlu {
    const NAME: &'static str = "swiglu";
    const TERMS: &'static [&'static str] = &["input", "gate", "up", "weight gate_up", "weight down"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let rows = pass.slot(self.out).rows;
        let d_x = pass.grad_in(self.x);
        let [gate, up, input] = ["gate", "up", "input"].map(|term| pass.factor(term));
        let (scale_down, scale_gate_up) = (pass.factor("weight down"), pass.factor("weight gate_up"));
        let down = pass.new_use(self.down, scale_down, rows);
        let gate_up = pass.new_use(self.gate_up, scale_gate_up, rows);
        let reads = [pass.grad_out(self.out), pass.value(self.saved), pass.value(self.x)];
        let ([a, b], [c, d]) = (down.operands, gate_up.operands);
        let ([dy, saved, x], [a, b, c, d, dx]) = pass.memory.arena.split(reads, [a, b, c, d, d_x.unwrap_or_default()]);
        let operands = SwigluOperands { down: [a, b], gate_up: [c, d] };
        let mut dx = d_x.is_some().then_some(dx);
        let weights = (pass.params.weight(self.gate_up), pass.params.weight(self.down));
        simd::swiglu_backward(Side::Rows, weights, [gate, up], (dy, saved, x), operands, dx.as_deref_mut());
        if let Some(dx) = dx
            && input != T::ONE
        {
            simd::scale(dx, input);
        }
        pass.gather(down);
        pass.gather(gate_up);
        pass.release_saved(self.saved);
    }

    fn cost<T: Real>(&self, sizes: &Sizes<'_, T>) -> Cost {
        let (width, _) = sizes.shape(self.down);
        sizes.products(sizes.elements(self.out) / width, &[self.gate_up, self.down])
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [m, width, inner] = Sample::sizes(rng, [5, 7, 9]);
        let mut sample = Sample::new("");
        let gate_up = sample.param(rng, 2 * inner, width, Use::GateUpRows);
        let down = sample.param(rng, width, inner, Use::Rows);
        sample.input(rng, m, width);
        vec![sample.run(move |tape, inputs| vec![swiglu(tape, &inputs[0], gate_up, down)])]
    }
}

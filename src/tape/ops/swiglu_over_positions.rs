//! SwiGLU over positions (mlp_t): the same formula as [`swiglu`](super::swiglu()), applied to the columns of each
//! sequence (SPEC "Block").
//!
//! x is `[sequences·len, width]`; for one sequence X `[len, width]`: `[G; U] = W_gate_up X`, `Y = W_down (silu(G) ⊙ U)`,
//! W_gate_up `[2·inner, len]`, W_down `[len, inner]`. The weights stand on the left, so nothing is transposed.

use super::{Operation, add_rmsnorm};
use crate::rng::Rng;
use crate::simd::{self, AddRmsNorm, Real, Side, SwigluOperands};
use crate::tape::gradcheck::Sample;
use crate::tape::profile::{Cost, Sizes};
use crate::tape::{Backward, Block, ParamId, SlotId, Tape, Use, Var};

#[derive(Clone, Copy)]
pub(crate) struct SwiGluOverPositions {
    x: SlotId,
    gate_up: ParamId,
    down: ParamId,
    /// G and U of each sequence before the activation, as the kernel keeps them.
    saved: SlotId,
    out: SlotId,
}

/// `Y = W_down (silu(G) ⊙ U)` for each sequence of x `[sequences·len, width]`; len is the weights' width.
pub fn swiglu_over_positions<T: Real>(tape: &mut Tape<'_, T>, x: &Var, gate_up: ParamId, down: ParamId) -> Var {
    forward(tape, x, gate_up, down, None)
}

/// `rmsnorm(h + swiglu_over_positions(h))`, the norm over positions:
/// [`add_rmsnorm_over_positions`](super::add_rmsnorm_over_positions) of each sequence while it is in the cache; uses up h.
pub fn swiglu_add_rmsnorm_over_positions<T: Real>(
    tape: &mut Tape<'_, T>,
    h: Var,
    gate_up: ParamId,
    down: ParamId,
) -> Var {
    let positions = Some(tape.params().shape(down).0);
    let inv_rms = add_rmsnorm::new_inv_rms(tape, &h, positions);
    let y = forward(tape, &h, gate_up, down, Some(inv_rms));
    add_rmsnorm::push(tape, h, y, inv_rms, positions)
}

/// With the slot of its factors, residual and norm follow.
fn forward<T: Real>(tape: &mut Tape<'_, T>, x: &Var, gate_up: ParamId, down: ParamId, inv_rms: Option<SlotId>) -> Var {
    let (rows, width) = tape.shape(x);
    let params = tape.params();
    let (len, _) = params.shape(down);
    assert!(rows.is_multiple_of(len), "rows are whole sequences");
    let recorded = tape.records(&[x.0], true);
    let (gate_up_weight, down_weight) = (params.weight(gate_up), params.weight(down));
    let saved_len = if recorded { simd::swiglu_saved_len(gate_up_weight, Side::Cols, width) } else { 0 };
    let saved = tape.new_slot(rows / len, saved_len);
    let out = tape.new_slot(rows, width);
    let [x_block, saved_block, y_block] = [x.0, saved, out].map(|slot| tape.value_block(slot));
    let inv_block = inv_rms.map_or_else(Block::default, |slot| tape.value_block(slot));
    let ([x_values], [saved_values, y, inv]) = tape.memory.arena.split([x_block], [saved_block, y_block, inv_block]);
    for (i, (x, y)) in x_values.chunks_exact(len * width).zip(y.chunks_exact_mut(len * width)).enumerate() {
        let kept = recorded.then_some(&mut saved_values[i * saved_len..(i + 1) * saved_len]);
        let then = inv_rms.map(|_| AddRmsNorm { h: x, inv_rms: &mut inv[i * width..(i + 1) * width] });
        simd::swiglu(Side::Cols, gate_up_weight, down_weight, x, kept, y, then);
    }
    if recorded {
        tape.save(x.0);
        tape.save(saved);
    } else {
        tape.release_slot(saved);
    }
    tape.push(out, recorded, SwiGluOverPositions { x: x.0, gate_up, down, saved, out })
}

impl Operation for SwiGluOverPositions {
    const NAME: &'static str = "swiglu over positions";
    const TERMS: &'static [&'static str] = &["input", "gate", "up", "weight gate_up", "weight down"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let (len, _) = pass.params.shape(self.down);
        let width = pass.slot(self.x).cols;
        let sequences = pass.slot(self.x).rows / len;
        let d_x = pass.grad_in(self.x);
        let (d_out, saved, x) = (pass.grad_out(self.out), pass.value(self.saved), pass.value(self.x));
        let [gate, up, input] = ["gate", "up", "input"].map(|term| pass.factor(term));
        let (scale_down, scale_gate_up) = (pass.factor("weight down"), pass.factor("weight gate_up"));
        let weights = (pass.params.weight(self.gate_up), pass.params.weight(self.down));
        for i in 0..sequences {
            let part = |block: Block| block.part(i * (block.len() / sequences), block.len() / sequences);
            let down = pass.new_use(self.down, scale_down, width);
            let gate_up = pass.new_use(self.gate_up, scale_gate_up, width);
            let ([a, b], [c, d]) = (down.operands, gate_up.operands);
            let writes = [a, b, c, d, d_x.map(part).unwrap_or_default()];
            let ([dy, saved, x], [a, b, c, d, dx]) = pass.memory.arena.split([d_out, saved, x].map(part), writes);
            let operands = SwigluOperands { down: [a, b], gate_up: [c, d] };
            let mut dx = d_x.is_some().then_some(dx);
            simd::swiglu_backward(Side::Cols, weights, [gate, up], (dy, saved, x), operands, dx.as_deref_mut());
            if let Some(dx) = dx
                && input != T::ONE
            {
                simd::scale(dx, input);
            }
            pass.gather(down);
            pass.gather(gate_up);
        }
        // The sequences of one call are rows enough, and their operands still in the cache.
        pass.sum_uses(self.down);
        pass.sum_uses(self.gate_up);
        pass.release_saved(self.saved);
    }

    fn cost<T: Real>(&self, sizes: &Sizes<'_, T>) -> Cost {
        let (len, _) = sizes.shape(self.down);
        sizes.products(sizes.elements(self.out) / len, &[self.gate_up, self.down])
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [sequences, len, width, inner] = Sample::sizes(rng, [3, 5, 5, 7]);
        let mut sample = Sample::new("");
        let gate_up = sample.param(rng, 2 * inner, len, Use::GateUpCols);
        let down = sample.param(rng, len, inner, Use::Cols);
        sample.input(rng, sequences * len, width);
        vec![sample.run(move |tape, inputs| vec![swiglu_over_positions(tape, &inputs[0], gate_up, down)])]
    }
}

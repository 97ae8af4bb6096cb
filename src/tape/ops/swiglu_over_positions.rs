//! SwiGLU over positions (mlp_t): the same formula as [`swiglu`](super::swiglu()), applied to the columns of each
//! sequence (SPEC "Block").
//!
//! x is `[sequences·len, width]`; for one sequence X `[len, width]`: `[G; U] = W_gate_up X`, `Y = W_down (silu(G) ⊙ U)`,
//! W_gate_up `[2·inner, len]`, W_down `[len, inner]`. The weights stand on the left, so nothing is transposed.

use super::Operation;
use crate::rng::Rng;
use crate::simd::{self, Real};
use crate::tape::gradcheck::Sample;
use crate::tape::profile::{Cost, Sizes};
use crate::tape::{Backward, ParamId, SlotId, Tape, Use, Var};

#[derive(Clone, Copy)]
pub(crate) struct SwiGluOverPositions {
    x: SlotId,
    gate_up: ParamId,
    down: ParamId,
    /// `[sequences, 2·inner·width]`: G and U of each sequence.
    hidden: SlotId,
    out: SlotId,
}

/// `Y = W_down (silu(G) ⊙ U)` for each sequence of x `[sequences·len, width]`; len is the weights' width.
pub fn swiglu_over_positions<T: Real>(tape: &mut Tape<'_, T>, x: &Var, gate_up: ParamId, down: ParamId) -> Var {
    let (rows, width) = tape.shape(x);
    let params = tape.params();
    let (len, inner) = params.shape(down);
    assert!(rows.is_multiple_of(len), "rows are whole sequences");
    let recorded = tape.records(&[x.0], true);
    let per_sequence = if recorded { 2 * inner * width } else { 0 };
    let hidden = tape.new_slot(rows / len, per_sequence);
    let out = tape.new_slot(rows, width);
    let [x_block, hidden_block, y_block] = [x.0, hidden, out].map(|slot| tape.value_block(slot));
    let ([x_values], [hidden_values, y]) = tape.memory.arena.split([x_block], [hidden_block, y_block]);
    for (i, (x, y)) in x_values.chunks_exact(len * width).zip(y.chunks_exact_mut(len * width)).enumerate() {
        let kept = recorded.then_some(&mut hidden_values[i * per_sequence..(i + 1) * per_sequence]);
        simd::swiglu_cols(params.weight(gate_up), params.weight(down), x, kept, y);
    }
    if recorded {
        tape.save(x.0);
        tape.save(hidden);
    } else {
        tape.release_slot(hidden);
    }
    tape.push(out, recorded, SwiGluOverPositions { x: x.0, gate_up, down, hidden, out })
}

impl Operation for SwiGluOverPositions {
    const NAME: &'static str = "swiglu over positions";
    const TERMS: &'static [&'static str] = &["input", "gate", "up", "weight gate_up", "weight down"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let (len, inner) = pass.params.shape(self.down);
        let precision = pass.params.precision();
        let width = pass.slot(self.x).cols;
        let sequences = pass.slot(self.x).rows / len;
        let (d_out, hidden, x) = (pass.grad_out(self.out), pass.value(self.hidden), pass.value(self.x));
        let d_x = pass.grad_in(self.x);
        let activation = pass.memory.arena.alloc(inner * width);
        let (gate, up, input) = (pass.factor("gate"), pass.factor("up"), pass.factor("input"));
        let (scale_down, scale_gate_up) = (pass.factor("weight down"), pass.factor("weight gate_up"));
        let (tokens, inners) = (len * width, 2 * inner * width);
        for i in 0..sequences {
            let ([dy, x], [h, a]) = pass.memory.arena.split(
                [d_out.part(i * tokens, tokens), x.part(i * tokens, tokens)],
                [hidden.part(i * inners, inners), activation],
            );
            pass.params.weight(self.down).backward_cols(dy, a, false);
            let (g, u) = h.split_at_mut(inner * width);
            simd::silu_mul_backward(g, u, a, gate, up);
            simd::weight_grad_cols(precision, (len, inner), scale_down, dy, a, pass.grads.get_mut(self.down));
            simd::weight_grad_cols(precision, (2 * inner, len), scale_gate_up, h, x, pass.grads.get_mut(self.gate_up));
            if let Some(d_x) = d_x {
                let ([dh], [dx]) =
                    pass.memory.arena.split([hidden.part(i * inners, inners)], [d_x.part(i * tokens, tokens)]);
                pass.params.weight(self.gate_up).backward_cols(dh, dx, true);
                if input != T::ONE {
                    simd::scale(dx, input);
                }
            }
        }
        pass.memory.arena.release(activation);
        pass.release_saved(self.hidden);
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

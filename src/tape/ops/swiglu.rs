//! SwiGLU over features: `y = W_down (silu(g) ⊙ u)`, `[g; u] = W_gate_up x` per row (SPEC "Block").
//!
//! x `[m, width]`, W_gate_up `[2·inner, width]`, W_down `[width, inner]`. The backward pass keeps `[g; u]` and
//! recomputes the activation; `dg = d·u·σ(g)(1 + g(1 − σ(g)))`, `du = d·silu(g)`.

use super::Operation;
use crate::rng::Rng;
use crate::simd::{self, Real};
use crate::tape::gradcheck::Sample;
use crate::tape::profile::{Cost, Sizes};
use crate::tape::{Backward, ParamId, SlotId, Tape, Use, Var};

#[derive(Clone, Copy)]
pub(crate) struct SwiGlu {
    x: SlotId,
    gate_up: ParamId,
    down: ParamId,
    /// `[m, 2·inner]`: g and u before the activation.
    hidden: SlotId,
    out: SlotId,
}

/// `y = W_down (silu(g) ⊙ u)` for each row of x `[m, width]`.
pub fn swiglu<T: Real>(tape: &mut Tape<'_, T>, x: &Var, gate_up: ParamId, down: ParamId) -> Var {
    let (m, width) = tape.shape(x);
    let params = tape.params();
    let (_, inner) = params.shape(down);
    let recorded = tape.records(&[x.0], true);
    let hidden = tape.new_slot(if recorded { m } else { 0 }, 2 * inner);
    let out = tape.new_slot(m, width);
    let [x_block, hidden_block, y_block] = [x.0, hidden, out].map(|slot| tape.value_block(slot));
    let ([x_values], [hidden_values, y]) = tape.memory.arena.split([x_block], [hidden_block, y_block]);
    let kept = recorded.then_some(hidden_values);
    simd::swiglu_rows(params.weight(gate_up), params.weight(down), x_values, kept, y);
    if recorded {
        tape.save(x.0);
        tape.save(hidden);
    } else {
        tape.release_slot(hidden);
    }
    tape.push(out, recorded, SwiGlu { x: x.0, gate_up, down, hidden, out })
}

impl Operation for SwiGlu {
    const NAME: &'static str = "swiglu";
    const TERMS: &'static [&'static str] = &["input", "gate", "up", "weight gate_up", "weight down"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let (_, inner) = pass.params.shape(self.down);
        let d_out = pass.grad_out(self.out);
        let hidden = pass.value(self.hidden);
        let activation = pass.memory.arena.alloc(hidden.len() / 2);
        let (gate, up, input) = (pass.factor("gate"), pass.factor("up"), pass.factor("input"));
        let (scale_down, scale_gate_up) = (pass.factor("weight down"), pass.factor("weight gate_up"));

        let ([dy], [h, a]) = pass.memory.arena.split([d_out], [hidden, activation]);
        pass.params.weight(self.down).backward_rows(dy, a, false);
        for (row, a) in h.chunks_exact_mut(2 * inner).zip(a.chunks_exact_mut(inner)) {
            let (g, u) = row.split_at_mut(inner);
            simd::silu_mul_backward(g, u, a, gate, up);
        }
        pass.weight_grad_rows(self.down, scale_down, d_out, activation);
        pass.weight_grad_rows(self.gate_up, scale_gate_up, hidden, pass.value(self.x));
        pass.memory.arena.release(activation);
        if let Some(d_x) = pass.grad_in(self.x) {
            let ([dh], [dx]) = pass.memory.arena.split([hidden], [d_x]);
            pass.params.weight(self.gate_up).backward_rows(dh, dx, true);
            if input != T::ONE {
                simd::scale(dx, input);
            }
        }
        pass.release_saved(self.hidden);
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

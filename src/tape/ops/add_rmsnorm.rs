//! Residual + RMSNorm: `y = rmsnorm(h + x)`, over features (rows) or over positions (columns of a sequence).
//!
//! `rmsnorm(v) = v·r`, `r = (mean v² + 1e-5)^(−1/2)` (SPEC "Block"). With y and r saved,
//! `dv = r (dy − y · mean(dy·y))`, the same for h and x. The result takes x's memory.

use super::Operation;
use crate::rng::Rng;
use crate::simd::{self, Real};
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct AddRmsNorm {
    h: SlotId,
    /// The branch on entry, the result on exit.
    x: SlotId,
    /// One factor r per row, or per column of a sequence.
    inv_rms: SlotId,
    /// Over this many positions instead of over features.
    positions: Option<usize>,
}

/// `rmsnorm(h + x)` over the features of each row; uses up both.
pub fn add_rmsnorm<T: Real>(tape: &mut Tape<'_, T>, h: Var, x: Var) -> Var {
    normalize(tape, h, x, None)
}

/// `rmsnorm(h + x)` over the `len` positions of each sequence, for every feature; uses up both.
pub fn add_rmsnorm_over_positions<T: Real>(tape: &mut Tape<'_, T>, h: Var, x: Var, len: usize) -> Var {
    normalize(tape, h, x, Some(len))
}

fn normalize<T: Real>(tape: &mut Tape<'_, T>, h: Var, x: Var, positions: Option<usize>) -> Var {
    let (_, width) = tape.shape(&x);
    let slot = tape.overwrite(&x);
    let inv_rms = new_inv_rms(tape, &x, positions);
    let (h_block, x_block, inv_block) = (tape.value_block(h.0), tape.value_block(slot), tape.value_block(inv_rms));
    let ([h_values], [x_values, inv]) = tape.memory.arena.split([h_block], [x_block, inv_block]);
    match positions {
        None => simd::add_rmsnorm_rows(width, h_values, x_values, inv),
        Some(len) => simd::add_rmsnorm_cols(len, width, h_values, x_values, inv),
    }
    push(tape, h, x, inv_rms, positions)
}

/// Room for the factors of x, or of what has its shape.
pub(super) fn new_inv_rms<T: Real>(tape: &mut Tape<'_, T>, x: &Var, positions: Option<usize>) -> SlotId {
    let (rows, width) = tape.shape(x);
    match positions {
        None => tape.new_slot(rows, 1),
        Some(len) => tape.new_slot(rows / len, width),
    }
}

/// Remembers that x has become `rmsnorm(h + x)`, by whatever kernel; uses up both.
pub(super) fn push<T: Real>(tape: &mut Tape<'_, T>, h: Var, x: Var, inv_rms: SlotId, positions: Option<usize>) -> Var {
    assert_eq!(tape.shape(&h), tape.shape(&x), "both summands have one shape");
    let slot = x.0;
    let recorded = tape.records(&[h.0, slot], false);
    let op = AddRmsNorm { h: h.0, x: slot, inv_rms, positions };
    tape.release(h);
    if recorded {
        tape.save(slot);
        tape.save(inv_rms);
    } else {
        tape.release_slot(inv_rms);
    }
    tape.push(slot, recorded, op)
}

impl Operation for AddRmsNorm {
    const NAME: &'static str = "add + rmsnorm";
    const TERMS: &'static [&'static str] = &["projection", "residual", "branch"];
    const CREATES_OUTPUT: bool = false;

    fn output(&self) -> SlotId {
        self.x
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let width = pass.slot(self.x).cols;
        let (y, inv_rms, grad) = (pass.value(self.x), pass.value(self.inv_rms), pass.grad_out(self.x));
        let (projection, residual, branch) =
            (pass.factor("projection"), pass.factor("residual"), pass.factor("branch"));
        let mean = pass.memory.arena.alloc(width);
        let ([y, inv], [d, mean_values]) = pass.memory.arena.split([y, inv_rms], [grad, mean]);
        match self.positions {
            None => simd::rmsnorm_backward_rows(width, y, inv, d, projection),
            Some(len) => simd::rmsnorm_backward_cols(len, width, y, inv, d, mean_values, projection),
        }
        pass.memory.arena.release(mean);
        pass.pass_on(residual, grad, self.h);
        if branch != T::ONE {
            simd::scale(pass.memory.arena.get_mut(grad), branch);
        }
        pass.release_saved(self.inv_rms);
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        [false, true]
            .map(|over_positions| {
                let [sequences, len, width] = Sample::sizes(rng, [3, 5, 7]);
                let mut sample = Sample::new(if over_positions { "over positions" } else { "" });
                let rows = sequences * (len + 1);
                let width = width + 1;
                sample.input(rng, rows, width);
                sample.input(rng, rows, width);
                sample.run(move |tape, mut inputs| {
                    let (h, x) = (inputs.remove(0), super::add(tape, &[&inputs[0]]));
                    vec![match over_positions {
                        false => add_rmsnorm(tape, h, x),
                        true => add_rmsnorm_over_positions(tape, h, x, len + 1),
                    }]
                })
            })
            .into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::*;
    use super::{add_rmsnorm, add_rmsnorm_over_positions};
    use crate::rng::Rng;
    use crate::simd::{Isa, Precision};
    use crate::tape::{Grads, Layout, Memory, ParamId, Params, Tape, Use, Var};

    const LEN: usize = 19;
    const WIDTH: usize = 45;
    const INNER: usize = 40;

    /// What a block of the network computes, and its gradients, to the bit; recorded or not.
    fn run(
        precision: Precision,
        recorded: bool,
        block: impl Fn(&mut Tape<'_, f32>, Var, [ParamId; 5]) -> Var,
    ) -> (Vec<u32>, Vec<u32>) {
        let mut layout = Layout::default();
        let weights = [
            layout.push("linear", WIDTH, WIDTH, Use::Rows),
            layout.push("gate_up", 2 * INNER, WIDTH, Use::GateUpRows),
            layout.push("down", WIDTH, INNER, Use::Rows),
            layout.push("mlp_t.gate_up", 2 * INNER, LEN, Use::GateUpCols),
            layout.push("mlp_t.down", LEN, INNER, Use::Cols),
        ];
        let mut rng = Rng::new(5);
        let mut draw = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<_>>();
        let mut params = Params::<f32>::with_precision(Arc::new(layout), precision);
        params.update(|values| values.copy_from_slice(&draw(values.len())));
        let rows = 3 * LEN;
        let (x, d) = (draw(rows * WIDTH), draw(rows * WIDTH));
        let mut memory = Memory::default();
        let mut tape = Tape::new(&mut memory, &params);
        let leaf = tape.leaf(rows, WIDTH, &x);
        let h = add(&mut tape, &[&leaf]);
        tape.set_recording(recorded);
        let y = block(&mut tape, h, weights);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let value = bits(tape.value(&y));
        let mut grads = Grads::new(params.layout().clone());
        if recorded {
            tape.backward(&[(&y, &d)], &mut grads);
        }
        let mut all = bits(grads.values());
        all.extend(tape.grad(&leaf).map(bits).unwrap_or_default());
        (value, all)
    }

    #[test]
    fn one_kernel_is_the_operation_and_then_the_norm_to_the_bit() {
        type Block = fn(&mut Tape<'_, f32>, Var, [ParamId; 5]) -> Var;
        let pairs: [(Block, Block); 3] = [
            (
                |tape, h, [w, ..]| {
                    let x = add(tape, &[&h]);
                    let y = linear(tape, &x, w, None);
                    add_rmsnorm(tape, h, y)
                },
                |tape, h, [w, ..]| {
                    let x = add(tape, &[&h]);
                    linear_add_rmsnorm(tape, &x, w, h)
                },
            ),
            (
                |tape, h, [_, gate_up, down, ..]| {
                    let y = swiglu(tape, &h, gate_up, down);
                    add_rmsnorm(tape, h, y)
                },
                |tape, h, [_, gate_up, down, ..]| swiglu_add_rmsnorm(tape, h, gate_up, down),
            ),
            (
                |tape, h, [.., gate_up, down]| {
                    let y = swiglu_over_positions(tape, &h, gate_up, down);
                    add_rmsnorm_over_positions(tape, h, y, LEN)
                },
                |tape, h, [.., gate_up, down]| swiglu_add_rmsnorm_over_positions(tape, h, gate_up, down),
            ),
        ];
        for isa in Isa::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                for recorded in [false, true] {
                    for (i, (apart, together)) in pairs.iter().enumerate() {
                        isa.run(|| {
                            let (apart, together) =
                                (run(precision, recorded, apart), run(precision, recorded, together));
                            assert!(apart == together, "{isa}, {precision:?}, recorded {recorded}, pair {i}");
                        });
                    }
                }
            }
        }
    }
}

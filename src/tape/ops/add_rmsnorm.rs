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
    let (rows, width) = tape.shape(&x);
    assert_eq!(tape.shape(&h), (rows, width), "both summands have one shape");
    let slot = tape.overwrite(&x);
    let inv_rms = match positions {
        None => tape.new_slot(rows, 1),
        Some(len) => tape.new_slot(rows / len, width),
    };
    let (h_block, x_block, inv_block) = (tape.value_block(h.0), tape.value_block(slot), tape.value_block(inv_rms));
    let ([h_values], [x_values, inv]) = tape.memory.arena.split([h_block], [x_block, inv_block]);
    match positions {
        None => simd::add_rmsnorm_rows(width, h_values, x_values, inv),
        Some(len) => simd::add_rmsnorm_cols(len, width, h_values, x_values, inv),
    }
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
        if let Some(d_h) = pass.grad_in(self.h) {
            let ([d], [d_h]) = pass.memory.arena.split([grad], [d_h]);
            if residual == T::ONE {
                simd::add_assign(d_h, d);
            } else {
                simd::axpy(d_h, residual, d);
            }
        }
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

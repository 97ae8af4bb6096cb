//! Binary cross-entropy with logits, on one column: `loss[b] = max(q, 0) − q·t + ln(1 + e^{−|q|})`, q = x[b, column].
//!
//! Targets are constants. Backward: `dq = σ(q) − t`, worked out in the forward pass.

use super::Operation;
use crate::rng::Rng;
use crate::simd::Real;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct BceWithLogits {
    x: SlotId,
    column: usize,
    /// `σ(q) − t`, `[rows, 1]`.
    unit_grad: SlotId,
    out: SlotId,
}

/// `[rows, 1]` losses of column `column` of x `[rows, cols]` against `targets` `[rows]`, each in 0..=1.
pub fn bce_with_logits<T: Real>(tape: &mut Tape<'_, T>, x: &Var, column: usize, targets: &[f64]) -> Var {
    let (rows, cols) = tape.shape(x);
    assert!(targets.len() == rows && column < cols, "one target per row");
    let recorded = tape.records(&[x.0], false);
    let out = tape.new_slot(rows, 1);
    let unit_grad = tape.new_slot(rows, 1);
    let (out_block, grad_block) = (tape.value_block(out), tape.value_block(unit_grad));
    let ([x_values], [losses, grads]) = tape.memory.arena.split([tape.value_block(x.0)], [out_block, grad_block]);
    for (row, &target) in targets.iter().enumerate() {
        let q = x_values[row * cols + column].to_f64();
        losses[row] = T::from_f64(q.max(0.0) - q * target + (-q.abs()).exp().ln_1p());
        grads[row] = T::from_f64(1.0 / (1.0 + (-q).exp()) - target);
    }
    if recorded {
        tape.save(unit_grad);
    } else {
        tape.release_slot(unit_grad);
    }
    tape.push(out, recorded, BceWithLogits { x: x.0, column, unit_grad, out })
}

impl Operation for BceWithLogits {
    const NAME: &'static str = "bce with logits";
    const TERMS: &'static [&'static str] = &["logit"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let factor = pass.factor("logit");
        let cols = pass.slot(self.x).cols;
        let reads = [pass.grad_out(self.out), pass.value(self.unit_grad)];
        let Some(d_x) = pass.grad_in(self.x) else { return };
        let ([d_loss, unit], [d_x]) = pass.memory.arena.split(reads, [d_x]);
        for (row, (&d_loss, &unit)) in d_loss.iter().zip(unit).enumerate() {
            d_x[row * cols + self.column] += factor * d_loss * unit;
        }
        pass.release_saved(self.unit_grad);
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [rows, cols] = Sample::sizes(rng, [5, 2]);
        let column = rng.below(cols);
        let targets: Vec<f64> = (0..rows).map(|_| rng.uniform()).collect();
        let mut sample = Sample::new("");
        sample.input(rng, rows, cols);
        vec![sample.run(move |tape, inputs| vec![bce_with_logits(tape, &inputs[0], column, &targets)])]
    }
}

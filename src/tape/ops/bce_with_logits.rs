//! Binary cross-entropy with logits, on one column: `loss[b] = max(q, 0) − q·t + ln(1 + e^{−|q|})`, q = x[b, column].
//!
//! Targets are constants. Backward: `dq = σ(q) − t`, worked out in the forward pass.

use super::Operation;
use crate::device::{Device, Store};
use crate::rng::Rng;
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

/// `[rows, 1]` losses of column `column` of x `[rows, cols]` against `target` `[rows, 1]`, a constant, each in 0..=1.
pub fn bce_with_logits<D: Device>(tape: &mut Tape<'_, D>, x: &Var, column: usize, target: &Var) -> Var {
    let (rows, cols) = tape.shape(x);
    assert!(tape.shape(target) == (rows, 1) && column < cols, "one target per row");
    let (out, loss) = tape.new_value(rows, 1, Store::Exact);
    let (unit_grad, unit_block) = tape.new_value(rows, 1, Store::Exact);
    let (x_block, target) = (tape.block(x), tape.block(target));
    tape.memory.device.bce_with_logits((column, cols), x_block, target, loss, unit_block);
    let recorded = tape.records(&[x.0], false);
    tape.push(out, recorded, &[], &[unit_grad], BceWithLogits { x: x.0, column, unit_grad, out })
}

impl Operation for BceWithLogits {
    const NAME: &'static str = "bce with logits";
    const TERMS: &'static [&'static str] = &["bce"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let cols = pass.slot(self.x).cols;
        let (d_loss, unit_grad) = (pass.grad_out(self.out), pass.value(self.unit_grad));
        let Some(d_x) = pass.grad_in(self.x) else { return };
        pass.memory.device.bce_backward((self.column, cols), d_loss, unit_grad, d_x);
        pass.release_saved(self.unit_grad);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [rows, cols] = Sample::<D>::sizes(rng, [5, 2]);
        let column = rng.below(cols);
        let targets: Vec<f64> = (0..rows).map(|_| rng.uniform()).collect();
        let mut sample = Sample::new("");
        sample.input(rng, rows, cols);
        vec![sample.run(move |tape, inputs| {
            let target = tape.constant(rows, 1, &targets);
            vec![bce_with_logits(tape, &inputs[0], column, &target)]
        })]
    }
}

//! Some positions of every sequence: `y[b, i, :] = x[b, from + i, :]`. What the heads read: the answer's tokens, and
//! position 0 for halting. Backward: the gradient goes back to where the rows came from.

use super::Operation;
use crate::device::{Block, Device, Real, Runs};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct SelectPositions {
    x: SlotId,
    len: usize,
    from: usize,
    count: usize,
    out: SlotId,
}

/// Positions `from..from + count` of each sequence of `len` positions: `[sequences·count, width]`.
pub fn select_positions<D: Device>(tape: &mut Tape<'_, D>, x: &Var, len: usize, from: usize, count: usize) -> Var {
    let (rows, width) = tape.shape(x);
    assert!(from + count <= len && rows.is_multiple_of(len), "the positions exist");
    let (out, y) = tape.new_value(rows / len * count, width, tape.store(x));
    let op = SelectPositions { x: x.0, len, from, count, out };
    let (sequences, selected) = op.runs(width, tape.block(x), y);
    tape.memory.device.copy_runs((rows / len, count * width), sequences, selected);
    let recorded = tape.records(&[x.0], false);
    tape.push(out, recorded, &[], &[], op)
}

impl SelectPositions {
    /// The selected positions in x, or its gradient, and in y.
    fn runs(&self, width: usize, x: Block, y: Block) -> (Runs, Runs) {
        let sequences = Runs { block: x, start: self.from * width, stride: self.len * width };
        (sequences, Runs { block: y, start: 0, stride: self.count * width })
    }
}

impl Operation for SelectPositions {
    const NAME: &'static str = "select positions";
    const TERMS: &'static [&'static str] = &["runs"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let (d_out, width) = (pass.grad_out(self.out), pass.slot(self.out).cols);
        let Some(d_x) = pass.grad_in(self.x) else { return };
        let (sequences, selected) = self.runs(width, d_x, d_out);
        let shape = (d_out.len() / (self.count * width), self.count * width);
        pass.memory.device.add_runs(shape, D::T::ONE, selected, sequences);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [sequences, len, width] = Sample::<D>::sizes(rng, [3, 5, 7]);
        let from = rng.below(len);
        let count = 1 + rng.below(len - from);
        let mut sample = Sample::new("");
        sample.input(rng, sequences * len, width);
        vec![sample.run(move |tape, inputs| vec![select_positions(tape, &inputs[0], len, from, count)])]
    }
}

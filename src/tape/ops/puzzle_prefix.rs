//! Puzzle embedding as a prefix: the row of a sequence's puzzle, zero-padded to P·width, is added to its first P
//! positions: `y[b, l·width + d] = x + c·row[b, l·width + d]` (specification, "Input embedding").
//!
//! The rows are an input `[sequences, ndim]`, copied from the sparse table by the caller, who takes their gradient
//! back there. Backward: `drow = c·dy` over the first ndim numbers of a sequence, `dx = dy`; in place.

use super::Operation;
use crate::device::{Device, Real, Runs};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct PuzzlePrefix {
    x: SlotId,
    rows: SlotId,
    len: usize,
    scale: f64,
}

/// Adds `scale · rows[b]` to the start of each sequence of `len` positions; uses up x `[sequences·len, width]`.
pub fn puzzle_prefix<D: Device>(tape: &mut Tape<'_, D>, x: Var, rows: &Var, len: usize, scale: f64) -> Var {
    let (_, width) = tape.shape(&x);
    let (sequences, ndim) = tape.shape(rows);
    assert!(ndim <= len * width, "a puzzle row fits the sequence");
    let from = Runs { block: tape.block(rows), start: 0, stride: ndim };
    let to = Runs { block: tape.overwritten(&x), start: 0, stride: len * width };
    tape.memory.device.add_runs((sequences, ndim), D::T::from_f64(scale), from, to);
    let recorded = tape.records(&[x.0, rows.0], false);
    tape.push(x.0, recorded, &[], &[], PuzzlePrefix { x: x.0, rows: rows.0, len, scale })
}

impl Operation for PuzzlePrefix {
    const NAME: &'static str = "puzzle prefix";
    const TERMS: &'static [&'static str] = &["runs"];
    const CREATES_OUTPUT: bool = false;

    fn output(&self) -> SlotId {
        self.x
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let width = pass.slot(self.x).cols;
        let (sequences, ndim) = (pass.slot(self.rows).rows, pass.slot(self.rows).cols);
        let from = Runs { block: pass.grad_out(self.x), start: 0, stride: self.len * width };
        let Some(d_rows) = pass.grad_in(self.rows) else { return };
        let to = Runs { block: d_rows, start: 0, stride: ndim };
        pass.memory.device.add_runs((sequences, ndim), D::T::from_f64(self.scale), from, to);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [sequences, len, width] = Sample::<D>::sizes(rng, [3, 5, 7]);
        let mut sample = Sample::new("");
        sample.input(rng, sequences * len, width);
        let ndim = 1 + rng.below(len * width);
        sample.input(rng, sequences, ndim);
        vec![sample.run(move |tape, inputs| {
            let x = super::add(tape, &[&inputs[0]]);
            vec![puzzle_prefix(tape, x, &inputs[1], len, 0.6)]
        })]
    }
}

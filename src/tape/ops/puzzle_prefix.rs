//! Puzzle embedding as a prefix: the row of a sequence's puzzle, zero-padded to P·width, is added to its first P
//! positions: `y[b, l·width + d] = x + c·row[b, l·width + d]` (SPEC "Input embedding").
//!
//! The rows are an input `[sequences, ndim]`, gathered from the sparse table by the caller, who takes their gradient
//! back there. Backward: `drow = c·dy` over the first ndim numbers of a sequence, `dx = dy`; in place.

use super::Operation;
use crate::rng::Rng;
use crate::simd::{self, Real};
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
pub fn puzzle_prefix<T: Real>(tape: &mut Tape<'_, T>, x: Var, rows: &Var, len: usize, scale: f64) -> Var {
    let (_, width) = tape.shape(&x);
    let (_, ndim) = tape.shape(rows);
    assert!(ndim <= len * width, "a puzzle row fits the sequence");
    let slot = tape.overwrite(&x);
    let ([row_values], [x_values]) = tape.memory.arena.split([tape.value_block(rows.0)], [tape.value_block(slot)]);
    for (sequence, row) in x_values.chunks_exact_mut(len * width).zip(row_values.chunks_exact(ndim)) {
        simd::axpy(&mut sequence[..ndim], T::from_f64(scale), row);
    }
    let recorded = tape.records(&[slot, rows.0], false);
    tape.push(slot, recorded, PuzzlePrefix { x: slot, rows: rows.0, len, scale })
}

impl Operation for PuzzlePrefix {
    const NAME: &'static str = "puzzle prefix";
    const TERMS: &'static [&'static str] = &["row"];
    const CREATES_OUTPUT: bool = false;

    fn output(&self) -> SlotId {
        self.x
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let factor = pass.factor("row") * T::from_f64(self.scale);
        let width = pass.slot(self.x).cols;
        let ndim = pass.slot(self.rows).cols;
        let d_out = pass.grad_out(self.x);
        if let Some(d_rows) = pass.grad_in(self.rows) {
            let ([dy], [d_rows]) = pass.memory.arena.split([d_out], [d_rows]);
            for (sequence, row) in dy.chunks_exact(self.len * width).zip(d_rows.chunks_exact_mut(ndim)) {
                simd::axpy(row, factor, &sequence[..ndim]);
            }
        }
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [sequences, len, width] = Sample::sizes(rng, [3, 5, 7]);
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

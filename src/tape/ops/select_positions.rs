//! Some positions of every sequence: `y[b, i, :] = x[b, from + i, :]`. What the heads read: the answer's tokens, and
//! position 0 for halting. Backward: the gradient goes back to where the rows came from.

use super::Operation;
use crate::rng::Rng;
use crate::simd::{self, Real};
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
pub fn select_positions<T: Real>(tape: &mut Tape<'_, T>, x: &Var, len: usize, from: usize, count: usize) -> Var {
    let (rows, width) = tape.shape(x);
    assert!(from + count <= len && rows.is_multiple_of(len), "the positions exist");
    let out = tape.new_slot(rows / len * count, width);
    let ([x_values], [y]) = tape.memory.arena.split([tape.value_block(x.0)], [tape.value_block(out)]);
    for (sequence, selected) in x_values.chunks_exact(len * width).zip(y.chunks_exact_mut(count * width)) {
        selected.copy_from_slice(&sequence[from * width..(from + count) * width]);
    }
    let recorded = tape.records(&[x.0], false);
    tape.push(out, recorded, SelectPositions { x: x.0, len, from, count, out })
}

impl Operation for SelectPositions {
    const NAME: &'static str = "select positions";
    const TERMS: &'static [&'static str] = &["input"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let factor = pass.factor("input");
        let width = pass.slot(self.out).cols;
        let d_out = pass.grad_out(self.out);
        let Some(d_x) = pass.grad_in(self.x) else { return };
        let ([dy], [dx]) = pass.memory.arena.split([d_out], [d_x]);
        let (from, to) = (self.from * width, (self.from + self.count) * width);
        for (sequence, selected) in dx.chunks_exact_mut(self.len * width).zip(dy.chunks_exact(to - from)) {
            simd::axpy(&mut sequence[from..to], factor, selected);
        }
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [sequences, len, width] = Sample::sizes(rng, [3, 5, 7]);
        let from = rng.below(len);
        let count = 1 + rng.below(len - from);
        let mut sample = Sample::new("");
        sample.input(rng, sequences * len, width);
        vec![sample.run(move |tape, inputs| vec![select_positions(tape, &inputs[0], len, from, count)])]
    }
}

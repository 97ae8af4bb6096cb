//! An input added to a start vector: `y[r, :] = x[r, :] + s`, s `[width]` broadcast over all rows.
//!
//! What a call sees whose state has not been computed yet: SPEC's `H_init`/`L_init` plus the embedded question.
//! Backward: `ds = Σ rows dy`, `dx = dy`; in place.

use super::Operation;
use crate::rng::Rng;
use crate::simd::{self, Real};
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, ParamId, SlotId, Tape, Use, Var};

#[derive(Clone, Copy)]
pub(crate) struct AddStart {
    x: SlotId,
    start: ParamId,
}

/// `x + s` with the row s `[1, width]` broadcast; uses up x.
pub fn add_start<T: Real>(tape: &mut Tape<'_, T>, x: Var, start: ParamId) -> Var {
    let (_, width) = tape.shape(&x);
    let slot = tape.overwrite(&x);
    let block = tape.value_block(slot);
    for row in tape.memory.arena.get_mut(block).chunks_exact_mut(width) {
        simd::add_assign(row, tape.params.get(start));
    }
    let recorded = tape.records(&[slot], true);
    tape.push(slot, recorded, AddStart { x: slot, start })
}

impl Operation for AddStart {
    const NAME: &'static str = "add start vector";
    const TERMS: &'static [&'static str] = &["start"];
    const CREATES_OUTPUT: bool = false;

    fn output(&self) -> SlotId {
        self.x
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let factor = pass.factor("start");
        let width = pass.slot(self.x).cols;
        let dy = pass.memory.arena.get(pass.grad_out(self.x));
        for row in dy.chunks_exact(width) {
            simd::axpy(pass.grads.get_mut(self.start), factor, row);
        }
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [rows, width] = Sample::sizes(rng, [5, 7]);
        let mut sample = Sample::new("");
        let start = sample.param(rng, 1, width, Use::Table);
        sample.input(rng, rows, width);
        vec![sample.run(move |tape, inputs| {
            let x = super::add(tape, &[&inputs[0]]);
            vec![add_start(tape, x, start)]
        })]
    }
}

//! A learned table added to the first positions of every sequence: `y[b, l, :] = x[b, l, :] + s·E[l, :]`, l < rows of E.
//!
//! With as many rows as positions these are learned positions; with P rows, a learned prefix shared by all puzzles.
//! Backward: `dE[l] = s · Σ sequences dy[b, l]`, `dx = dy`; in place.

use super::Operation;
use crate::rng::Rng;
use crate::simd::{self, Real};
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, ParamId, SlotId, Tape, Use, Var};

#[derive(Clone, Copy)]
pub(crate) struct AddPositions {
    x: SlotId,
    table: ParamId,
    len: usize,
    scale: f64,
}

/// `x + scale · table` on the first rows of each sequence of `len` positions; uses up x `[sequences·len, width]`.
pub fn add_positions<T: Real>(tape: &mut Tape<'_, T>, x: Var, table: ParamId, len: usize, scale: f64) -> Var {
    let (_, width) = tape.shape(&x);
    let (count, table_width) = tape.params.shape(table);
    assert!(count <= len && table_width == width, "the table fits the sequence");
    let slot = tape.overwrite(&x);
    let block = tape.value_block(slot);
    for sequence in tape.memory.arena.get_mut(block).chunks_exact_mut(len * width) {
        simd::axpy(&mut sequence[..count * width], T::from_f64(scale), tape.params.get(table));
    }
    let recorded = tape.records(&[slot], true);
    tape.push(slot, recorded, AddPositions { x: slot, table, len, scale })
}

impl Operation for AddPositions {
    const NAME: &'static str = "add positions";
    const TERMS: &'static [&'static str] = &["table"];
    const CREATES_OUTPUT: bool = false;

    fn output(&self) -> SlotId {
        self.x
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let factor = pass.factor("table") * T::from_f64(self.scale);
        let width = pass.slot(self.x).cols;
        let dy = pass.memory.arena.get(pass.grad_out(self.x));
        for sequence in dy.chunks_exact(self.len * width) {
            let table = pass.grads.get_mut(self.table);
            let shared = table.len();
            simd::axpy(table, factor, &sequence[..shared]);
        }
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        [false, true]
            .map(|prefix| {
                let [sequences, len, width] = Sample::sizes(rng, [3, 5, 7]);
                let mut sample = Sample::new(if prefix { "prefix only" } else { "" });
                let table = sample.param(rng, if prefix { 1 } else { len }, width, Use::Table);
                sample.input(rng, sequences * len, width);
                sample.run(move |tape, inputs| {
                    let x = super::add(tape, &[&inputs[0]]);
                    vec![add_positions(tape, x, table, len, 0.7)]
                })
            })
            .into()
    }
}

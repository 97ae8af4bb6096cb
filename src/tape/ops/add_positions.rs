//! A learned table added to the first positions of every sequence: `y[b, l, :] = x[b, l, :] + s·E[l, :]`, l < rows of E.
//!
//! With as many rows as positions these are learned positions; with P rows, a learned prefix shared by all puzzles.
//! Backward: `dE[l] = s · Σ sequences dy[b, l]`, `dx = dy`; in place.

use super::Operation;
use crate::device::{Device, ParamId, Usage};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct AddPositions {
    x: SlotId,
    table: ParamId,
    /// Elements of a sequence.
    every: usize,
    scale: f64,
}

/// `x + scale · table` on the first rows of each sequence of `len` positions; uses up x `[sequences·len, width]`.
pub fn add_positions<D: Device>(tape: &mut Tape<'_, D>, x: Var, table: ParamId, len: usize, scale: f64) -> Var {
    let (_, width) = tape.shape(&x);
    let (count, table_width) = tape.params.shape(table);
    assert!(count <= len && table_width == width, "the table fits the sequence");
    let (block, every) = (tape.overwritten(&x), len * width);
    tape.memory.device.add_table(tape.params, table, scale, every, block);
    let recorded = tape.records(&[x.0], true);
    tape.push(x.0, recorded, &[], &[], AddPositions { x: x.0, table, every, scale })
}

impl Operation for AddPositions {
    const NAME: &'static str = "add positions";
    const TERMS: &'static [&'static str] = &["table"];
    const CREATES_OUTPUT: bool = false;

    fn output(&self) -> SlotId {
        self.x
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let dy = pass.grad_out(self.x);
        pass.memory.device.table_grad(pass.grads, self.table, self.scale, self.every, dy);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        [false, true]
            .map(|prefix| {
                let [sequences, len, width] = Sample::<D>::sizes(rng, [3, 5, 7]);
                let mut sample = Sample::new(if prefix { "prefix only" } else { "" });
                let table = sample.param(rng, if prefix { 1 } else { len }, width, Usage::Table);
                sample.input(rng, sequences * len, width);
                sample.run(move |tape, inputs| {
                    let x = super::add(tape, &[&inputs[0]]);
                    vec![add_positions(tape, x, table, len, 0.7)]
                })
            })
            .into()
    }
}

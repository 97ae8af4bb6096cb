//! The rows that one expert takes: `y[p, :] = x[rows[p], :]`. Backward: the gradient goes back to where the rows came from.
//!
//! Zero rows fill up to the next eighth of all rows: with few different sizes, memory that one call has given back serves
//! the next.

use super::{Operation, Routing};
use crate::rng::Rng;
use crate::simd::{self, Real};
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct GatherRows {
    x: SlotId,
    routing: Routing,
    expert: usize,
    out: SlotId,
}

/// Sizes that a gathered matrix may have.
const SIZES: usize = 8;

/// The rows of x `[m, width]` that `expert` takes, in order, then zeros; `None` when there are none.
pub fn gather_rows<T: Real>(tape: &mut Tape<'_, T>, x: &Var, routing: Routing, expert: usize) -> Option<Var> {
    let (rows, width) = tape.shape(x);
    let count = routing.rows(&tape.memory.indices, expert).len();
    if count == 0 {
        return None;
    }
    let filled = count.next_multiple_of(rows.div_ceil(SIZES)).min(rows);
    let out = tape.new_slot(filled, width);
    let blocks = (tape.value_block(x.0), tape.value_block(out));
    let ([x_values], [y]) = tape.memory.arena.split([blocks.0], [blocks.1]);
    for (y, &row) in y.chunks_exact_mut(width).zip(routing.rows(&tape.memory.indices, expert)) {
        y.copy_from_slice(&x_values[row as usize * width..][..width]);
    }
    y[count * width..].fill(T::ZERO);
    let recorded = tape.records(&[x.0], false);
    Some(tape.push(out, recorded, GatherRows { x: x.0, routing, expert, out }))
}

impl Operation for GatherRows {
    const NAME: &'static str = "gather an expert's rows";
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
        for (dy, &row) in dy.chunks_exact(width).zip(self.routing.rows(&pass.memory.indices, self.expert)) {
            simd::axpy(&mut dx[row as usize * width..][..width], factor, dy);
        }
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [rows, width, experts] = Sample::sizes(rng, [5, 7, 3]);
        let logits: Vec<f64> = (0..rows * experts).map(|_| rng.normal()).collect();
        let mut sample = Sample::new("");
        sample.input(rng, rows, width);
        vec![sample.run(move |tape, inputs| {
            let logits = tape.constant(rows, experts, &logits);
            let (_, routing) = super::route(tape, &logits, 1);
            (0..experts).filter_map(|e| gather_rows(tape, &inputs[0], routing, e)).collect()
        })]
    }
}

//! An expert's answers put back where its rows came from: `y[rows[p], :] += g[rows[p], e] · x[p, :]`; in place.
//!
//! Backward: `dx[p] = g · dy[row]`, `dg[row, e] = dy[row]·x[p]`; dy goes on as it is.

use super::{Operation, Routing};
use crate::rng::Rng;
use crate::simd::{self, Real};
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct AddExpert {
    y: SlotId,
    x: SlotId,
    gates: SlotId,
    routing: Routing,
    expert: usize,
}

/// `y` with the answers x (a row for each of `expert`'s, then any) added, weighted by the gates `[m, experts]`; uses up both.
pub fn add_expert<T: Real>(
    tape: &mut Tape<'_, T>,
    y: Var,
    x: Var,
    gates: &Var,
    routing: Routing,
    expert: usize,
) -> Var {
    let (_, width) = tape.shape(&y);
    let slot = tape.overwrite(&y);
    let blocks = [x.0, gates.0, slot].map(|id| tape.value_block(id));
    let ([x_values, g], [sum]) = tape.memory.arena.split([blocks[0], blocks[1]], [blocks[2]]);
    for (x, &row) in x_values.chunks_exact(width).zip(routing.rows(&tape.memory.indices, expert)) {
        let row = row as usize;
        simd::axpy(&mut sum[row * width..][..width], g[row * routing.experts + expert], x);
    }
    let recorded = tape.records(&[slot, x.0, gates.0], false);
    let operation = AddExpert { y: slot, x: x.0, gates: gates.0, routing, expert };
    if recorded {
        tape.save(x.0);
        tape.save(gates.0);
    } else {
        tape.release(x);
    }
    tape.push(slot, recorded, operation)
}

impl Operation for AddExpert {
    const NAME: &'static str = "add an expert's answers";
    const TERMS: &'static [&'static str] = &["answers", "gate"];
    const CREATES_OUTPUT: bool = false;

    fn output(&self) -> SlotId {
        self.y
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let (answers, gate) = (pass.factor("answers"), pass.factor("gate"));
        let (width, experts) = (pass.slot(self.y).cols, self.routing.experts);
        let reads = [pass.grad_out(self.y), pass.value(self.x), pass.value(self.gates)];
        if let Some(d_x) = pass.grad_in(self.x) {
            let ([dy, g], [dx]) = pass.memory.arena.split([reads[0], reads[2]], [d_x]);
            let rows = self.routing.rows(&pass.memory.indices, self.expert);
            for (dx, &row) in dx.chunks_exact_mut(width).zip(rows) {
                let row = row as usize;
                simd::axpy(dx, answers * g[row * experts + self.expert], &dy[row * width..][..width]);
            }
        }
        if let Some(d_gates) = pass.grad_in(self.gates) {
            let ([dy, x], [dg]) = pass.memory.arena.split([reads[0], reads[1]], [d_gates]);
            let rows = self.routing.rows(&pass.memory.indices, self.expert);
            for (x, &row) in x.chunks_exact(width).zip(rows) {
                let row = row as usize;
                dg[row * experts + self.expert] += gate * simd::dot(&dy[row * width..][..width], x);
            }
        }
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [rows, width, experts] = Sample::sizes(rng, [5, 7, 3]);
        let logits: Vec<f64> = (0..rows * experts).map(|_| rng.normal()).collect();
        let mut sample = Sample::new("");
        sample.input(rng, rows, width);
        sample.input(rng, rows, experts);
        sample.input(rng, rows, width);
        vec![sample.run(move |tape, inputs| {
            let logits = tape.constant(rows, experts, &logits);
            let (_, routing) = super::route(tape, &logits, 1);
            let start = super::add(tape, &[&inputs[2]]);
            let sum = (0..experts).fold(start, |sum, e| match super::gather_rows(tape, &inputs[0], routing, e) {
                Some(part) => add_expert(tape, sum, part, &inputs[1], routing, e),
                None => sum,
            });
            vec![sum]
        })]
    }
}

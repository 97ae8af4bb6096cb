//! An expert's answers put back where its rows came from: `y[rows[p], :] += g[rows[p], e] · x[p, :]`; in place.
//!
//! Backward: `dx[p] = g · dy[row]`, `dg[row, e] = dy[row]·x[p]`; dy goes on as it is.

use super::{Operation, Routing};
use crate::device::{Choice, Device};
use crate::rng::Rng;
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
pub fn add_expert<D: Device>(
    tape: &mut Tape<'_, D>,
    y: Var,
    x: Var,
    gates: &Var,
    routing: Routing,
    expert: usize,
) -> Var {
    let (_, width) = tape.shape(&y);
    let (sum, gate_block, answers) = (tape.overwritten(&y), tape.block(gates), tape.block(&x));
    let rows = routing.rows(&tape.memory.indices, expert);
    let choice = Choice { rows, width, gates: gate_block, expert, experts: routing.experts };
    tape.memory.device.add_expert(choice, answers, sum);
    let recorded = tape.records(&[y.0, x.0, gates.0], false);
    let operation = AddExpert { y: y.0, x: x.0, gates: gates.0, routing, expert };
    tape.push(y.0, recorded, &[gates.0], &[x.0], operation)
}

impl Operation for AddExpert {
    const NAME: &'static str = "add an expert's answers";
    const TERMS: &'static [&'static str] = &["answers", "chosen gate"];
    const CREATES_OUTPUT: bool = false;

    fn output(&self) -> SlotId {
        self.y
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let [d_x, d_gates] = [self.x, self.gates].map(|input| pass.grad_in(input));
        let (dy, x, gates) = (pass.grad_out(self.y), pass.value(self.x), pass.value(self.gates));
        let rows = self.routing.rows(&pass.memory.indices, self.expert);
        let (width, experts) = (pass.memory.slots[self.y.0 as usize].cols, self.routing.experts);
        let choice = Choice { rows, width, gates, expert: self.expert, experts };
        pass.memory.device.add_expert_backward(choice, dy, x, d_x, d_gates);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [rows, width, experts] = Sample::<D>::sizes(rng, [5, 7, 3]);
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

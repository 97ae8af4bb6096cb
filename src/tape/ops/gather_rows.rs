//! The rows that one expert takes: `y[p, :] = x[rows[p], :]`. Backward: the gradient goes back to where the rows came from.
//!
//! Zero rows fill up to the next eighth of all rows: with few different sizes, memory that one call has given back serves
//! the next.

use super::{Operation, Routing};
use crate::device::Device;
use crate::rng::Rng;
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
pub fn gather_rows<D: Device>(tape: &mut Tape<'_, D>, x: &Var, routing: Routing, expert: usize) -> Option<Var> {
    let (rows, width) = tape.shape(x);
    let count = routing.rows(&tape.memory.indices, expert).len();
    if count == 0 {
        return None;
    }
    let filled = count.next_multiple_of(rows.div_ceil(SIZES)).min(rows);
    let (out, y) = tape.new_value(filled, width, tape.store(x));
    let x_block = tape.block(x);
    let rows = routing.rows(&tape.memory.indices, expert);
    tape.memory.device.gather(rows, width, x_block, y);
    let recorded = tape.records(&[x.0], false);
    Some(tape.push(out, recorded, &[], &[], GatherRows { x: x.0, routing, expert, out }))
}

impl Operation for GatherRows {
    const NAME: &'static str = "gather an expert's rows";
    const TERMS: &'static [&'static str] = &["scatter"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let (d_out, width) = (pass.grad_out(self.out), pass.slot(self.out).cols);
        let Some(d_x) = pass.grad_in(self.x) else { return };
        let rows = self.routing.rows(&pass.memory.indices, self.expert);
        pass.memory.device.scatter(rows, width, d_out, d_x);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [rows, width, experts] = Sample::<D>::sizes(rng, [5, 7, 3]);
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

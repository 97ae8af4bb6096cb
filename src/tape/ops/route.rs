//! Routing of a mixture of experts: each row's `k` largest logits, softmax over those (arXiv 1701.06538, "top-k gating").
//!
//! `g[r, e] = exp(a[r, e]) / Σ chosen exp(a[r, ·])` where e is one of row r's k largest, else 0. Of equal logits the first
//! counts as the larger. Backward, over the chosen: `da[e] = g[e] (dg[e] − Σ g·dg)`; the choice itself is a constant.

use super::Operation;
use crate::device::{Device, Store};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct Route {
    logits: SlotId,
    /// The gates.
    out: SlotId,
}

/// Which rows go to which expert; the lists live with the tape.
#[derive(Clone, Copy, Debug)]
pub struct Routing {
    /// Where the lists start: for each expert the end of its rows, then the rows, one expert after the other.
    at: usize,
    /// How many experts there are.
    pub experts: usize,
}

impl Routing {
    /// The rows that expert `expert` takes, in order; `indices` are the tape's.
    pub(in crate::tape) fn rows(self, indices: &[u32], expert: usize) -> &[u32] {
        let end = |e: usize| indices[self.at + e] as usize;
        let start = if expert == 0 { 0 } else { end(expert - 1) };
        &indices[self.at + self.experts..][start..end(expert)]
    }
}

/// Gates `[rows, experts]` (zero where not chosen) and the lists of chosen rows, from logits of that shape.
pub fn route<D: Device>(tape: &mut Tape<'_, D>, logits: &Var, per_row: usize) -> (Var, Routing) {
    let (rows, experts) = tape.shape(logits);
    assert!((1..=experts).contains(&per_row), "between one and all of the experts");
    let (out, gates) = tape.new_value(rows, experts, Store::Exact);
    let (logits_block, at) = (tape.block(logits), tape.memory.indices.len());
    tape.memory.device.route(experts, per_row, logits_block, gates);
    tape.memory.device.chosen(experts, gates, &mut tape.memory.indices);
    let recorded = tape.records(&[logits.0], false);
    let gates = tape.push(out, recorded, &[out], &[], Route { logits: logits.0, out });
    (gates, Routing { at, experts })
}

impl Operation for Route {
    const NAME: &'static str = "route to experts";
    const TERMS: &'static [&'static str] = &["own gate", "other gates"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let (experts, gates, d_gates) = (pass.slot(self.out).cols, pass.value(self.out), pass.grad_out(self.out));
        let Some(d_logits) = pass.grad_in(self.logits) else { return };
        pass.memory.device.route_backward(experts, gates, d_gates, d_logits);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        ["", "all experts"]
            .map(|label| {
                let [rows, experts, per_row] = Sample::<D>::sizes(rng, [5, 4, 4]);
                let experts = experts + 1;
                let per_row = if label.is_empty() { per_row.min(experts - 1) } else { experts };
                let mut sample = Sample::new(label);
                sample.input(rng, rows, experts);
                sample.run(move |tape, inputs| vec![route(tape, &inputs[0], per_row).0])
            })
            .into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::device::{Cpu, Layout, Params};
    use crate::tape::Memory;

    #[test]
    fn the_largest_are_chosen_the_first_of_equals_and_gates_add_up_to_one() {
        let params = Params::<Cpu<f64>>::new(Arc::new(Layout::default()));
        let mut memory = Memory::default();
        let mut tape = Tape::new(&mut memory, &params);
        let logits = tape.constant(3, 3, &[1.0, 3.0, 2.0, 5.0, 5.0, 5.0, 900.0, 0.0, -900.0]);
        let (gates, routing) = route(&mut tape, &logits, 2);
        let values = tape.value(&gates);
        assert!(values.chunks(3).all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-12), "{values:?}");
        assert_eq!(values[0], 0.0);
        let lists = [0, 1, 2].map(|e| routing.rows(&tape.memory.indices, e).to_vec());
        assert_eq!(lists, [vec![1, 2], vec![0, 1, 2], vec![0]]);
    }
}

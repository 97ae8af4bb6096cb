//! Load-balancing loss of a mixture of experts, per sequence: `loss[b] = w · E · Σ_e f[e]·P[e]` (arXiv 2101.03961, eq. 4).
//!
//! f[e] is the share of the sequence's picks that went to expert e (a constant), P[e] the mean over its positions of
//! softmax(logits)[e]. It is w when all experts are used evenly, and w·E when one takes everything.
//! Backward: `da[r, e] = (w·E/len) · p[r, e] (f[e] − Σ f·p[r])`, worked out in the forward pass.

use super::{Operation, Routing, backward_of_losses};
use crate::device::{Device, Store};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct LoadBalance {
    logits: SlotId,
    /// `∂loss[b]/∂logits`, `[sequences·len, experts]`.
    unit_grad: SlotId,
    out: SlotId,
}

/// `[sequences, 1]` losses from the router's logits `[sequences·len, experts]` and its choice, each times `weight`.
pub fn load_balance<D: Device>(tape: &mut Tape<'_, D>, logits: &Var, routing: Routing, len: usize, weight: f64) -> Var {
    let (rows, experts) = tape.shape(logits);
    let (out, loss) = tape.new_value(rows / len, 1, Store::Exact);
    let (unit_grad, unit_block) = tape.new_value(rows, experts, Store::Exact);
    let logits_block = tape.block(logits);
    // Picks of each sequence, behind everything else, and gone when they have been used.
    let indices = &mut tape.memory.indices;
    let at = indices.len();
    indices.resize(at + rows / len * experts, 0);
    let (lists, picks) = indices.split_at_mut(at);
    for e in 0..experts {
        for &row in routing.rows(lists, e) {
            picks[row as usize / len * experts + e] += 1;
        }
    }
    tape.memory.device.load_balance((experts, picks), weight, logits_block, loss, unit_block);
    tape.memory.indices.truncate(at);
    let recorded = tape.records(&[logits.0], false);
    tape.push(out, recorded, &[], &[unit_grad], LoadBalance { logits: logits.0, unit_grad, out })
}

impl Operation for LoadBalance {
    const NAME: &'static str = "load balance";
    const TERMS: &'static [&'static str] = &["loss"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        backward_of_losses(pass, self.out, self.unit_grad, self.logits);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [sequences, len, experts, per_row] = Sample::<D>::sizes(rng, [3, 5, 3, 4]);
        let (experts, per_row) = (experts + 1, per_row.min(experts));
        let mut sample = Sample::new("");
        sample.input(rng, sequences * len, experts);
        vec![sample.run(move |tape, inputs| {
            let (_, routing) = super::route(tape, &inputs[0], per_row);
            vec![load_balance(tape, &inputs[0], routing, len, 0.7)]
        })]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::device::{Cpu, Layout, Params};
    use crate::tape::Memory;

    #[test]
    fn even_use_costs_one_and_a_collapsed_router_costs_as_much_as_there_are_experts() {
        let params = Params::<Cpu<f64>>::new(Arc::new(Layout::default()));
        let mut memory = Memory::default();
        let mut tape = Tape::new(&mut memory, &params);
        let even = [9.0, 0.0, 0.0, 9.0];
        let collapsed = [30.0, 0.0, 30.0, 0.0];
        let logits = tape.constant(4, 2, &[even, collapsed].concat());
        let (_, routing) = super::super::route(&mut tape, &logits, 1);
        let loss = load_balance(&mut tape, &logits, routing, 2, 1.0);
        let loss = tape.value(&loss);
        assert!((loss[0] - 1.0).abs() < 1e-12 && (loss[1] - 2.0).abs() < 1e-12, "{loss:?}");
    }
}

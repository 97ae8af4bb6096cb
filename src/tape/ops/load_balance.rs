//! Load-balancing loss of a mixture of experts, per sequence: `loss[b] = w · E · Σ_e f[e]·P[e]` (arXiv 2101.03961, eq. 4).
//!
//! f[e] is the share of the sequence's picks that went to expert e (a constant), P[e] the mean over its positions of
//! softmax(logits)[e]. It is w when all experts are used evenly, and w·E when one takes everything.
//! Backward: `da[r, e] = (w·E/len) · p[r, e] (f[e] − Σ f·p[r])`, worked out in the forward pass.

use super::{Operation, Routing, backward_of_losses};
use crate::rng::Rng;
use crate::simd::Real;
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
pub fn load_balance<T: Real>(tape: &mut Tape<'_, T>, logits: &Var, routing: Routing, len: usize, weight: f64) -> Var {
    let (rows, experts) = tape.shape(logits);
    let recorded = tape.records(&[logits.0], false);
    let out = tape.new_slot(rows / len, 1);
    let unit_grad = tape.new_slot(rows, experts);
    let blocks = [logits.0, out, unit_grad].map(|id| tape.value_block(id));
    let memory = &mut *tape.memory;
    let ([a], [losses, grads]) = memory.arena.split([blocks[0]], [blocks[1], blocks[2]]);
    let scale = weight * experts as f64 / len as f64;
    for (b, loss) in losses.iter_mut().enumerate() {
        let sequence = b * len * experts..(b + 1) * len * experts;
        let picks = |e: usize| routing.rows(&memory.indices, e).iter().filter(|&&row| row as usize / len == b).count();
        let share = |e: usize| picks(e) as f64 * rows as f64 / (routing.picks * len) as f64;
        let mut total = 0.0;
        for (a, grad) in a[sequence.clone()].chunks_exact(experts).zip(grads[sequence].chunks_exact_mut(experts)) {
            let largest = a.iter().fold(f64::NEG_INFINITY, |most, x| most.max(x.to_f64()));
            let sum: f64 = a.iter().map(|x| (x.to_f64() - largest).exp()).sum();
            let p = |e: usize| (a[e].to_f64() - largest).exp() / sum;
            let expected: f64 = (0..experts).map(|e| share(e) * p(e)).sum();
            total += expected;
            for (e, grad) in grad.iter_mut().enumerate() {
                *grad = T::from_f64(scale * p(e) * (share(e) - expected));
            }
        }
        *loss = T::from_f64(scale * total);
    }
    if recorded {
        tape.save(unit_grad);
    } else {
        tape.release_slot(unit_grad);
    }
    tape.push(out, recorded, LoadBalance { logits: logits.0, unit_grad, out })
}

impl Operation for LoadBalance {
    const NAME: &'static str = "load balance";
    const TERMS: &'static [&'static str] = &["logits"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let factor = pass.factor("logits");
        backward_of_losses(pass, factor, self.out, self.unit_grad, self.logits);
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [sequences, len, experts, per_row] = Sample::sizes(rng, [3, 5, 3, 4]);
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
    use crate::tape::{Layout, Memory, Params};

    #[test]
    fn even_use_costs_one_and_a_collapsed_router_costs_as_much_as_there_are_experts() {
        let params = Params::<f64>::new(Arc::new(Layout::default()));
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

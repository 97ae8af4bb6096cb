//! Routing of a mixture of experts: each row's `k` largest logits, softmax over those (arXiv 1701.06538, "top-k gating").
//!
//! `g[r, e] = exp(a[r, e]) / Σ chosen exp(a[r, ·])` where e is one of row r's k largest, else 0. Of equal logits the first
//! counts as the larger. Backward, over the chosen: `da[e] = g[e] (dg[e] − Σ g·dg)`; the choice itself is a constant.

use super::Operation;
use crate::rng::Rng;
use crate::simd::Real;
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
    pub experts: usize,
    /// Rows routed, times the experts of each.
    pub picks: usize,
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
pub fn route<T: Real>(tape: &mut Tape<'_, T>, logits: &Var, per_row: usize) -> (Var, Routing) {
    let (rows, experts) = tape.shape(logits);
    assert!((1..=experts).contains(&per_row), "between one and all of the experts");
    let out = tape.new_slot(rows, experts);
    let ([a], [gates]) = tape.memory.arena.split([tape.value_block(logits.0)], [tape.value_block(out)]);
    for (a, gates) in a.chunks_exact(experts).zip(gates.chunks_exact_mut(experts)) {
        // A zero means "not chosen" until the sum is known, so the chosen are marked by their place among the larger.
        let place = |e: usize| (0..experts).filter(|&o| a[o] > a[e] || o < e && a[o] == a[e]).count();
        let largest = a.iter().fold(f64::NEG_INFINITY, |most, x| most.max(x.to_f64()));
        let share = |e: usize| if place(e) < per_row { (a[e].to_f64() - largest).exp() } else { 0.0 };
        let total: f64 = (0..experts).map(share).sum();
        for (e, gate) in gates.iter_mut().enumerate() {
            // Never zero where chosen, however small: the lists below are read off the gates.
            let least = if place(e) < per_row { f64::from(f32::MIN_POSITIVE) } else { 0.0 };
            *gate = T::from_f64((share(e) / total).max(least));
        }
    }
    let (block, memory) = (tape.value_block(out), &mut *tape.memory);
    let (gates, indices) = (memory.arena.get(block), &mut memory.indices);
    let at = indices.len();
    indices.resize(at + experts, 0);
    for e in 0..experts {
        indices.extend((0..rows as u32).filter(|&row| gates[row as usize * experts + e] > T::ZERO));
        indices[at + e] = (indices.len() - at - experts) as u32;
    }
    let recorded = tape.records(&[logits.0], false);
    if recorded {
        tape.save(out);
    }
    let gates = tape.push(out, recorded, Route { logits: logits.0, out });
    (gates, Routing { at, experts, picks: rows * per_row })
}

impl Operation for Route {
    const NAME: &'static str = "route to experts";
    const TERMS: &'static [&'static str] = &["own gate", "other gates"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let (own, others) = (pass.factor("own gate"), pass.factor("other gates"));
        let experts = pass.slot(self.out).cols;
        let reads = [pass.grad_out(self.out), pass.value(self.out)];
        let Some(d_logits) = pass.grad_in(self.logits) else { return };
        let ([dg, g], [da]) = pass.memory.arena.split(reads, [d_logits]);
        let rows = dg.chunks_exact(experts).zip(g.chunks_exact(experts)).zip(da.chunks_exact_mut(experts));
        for ((dg, g), da) in rows {
            let mean = crate::simd::dot(g, dg);
            for ((da, &g), &dg) in da.iter_mut().zip(g).zip(dg) {
                *da += g * (own * dg - others * mean);
            }
        }
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        ["", "all experts"]
            .map(|label| {
                let [rows, experts, per_row] = Sample::sizes(rng, [5, 4, 4]);
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
    use crate::tape::{Layout, Memory, Params};

    #[test]
    fn the_largest_are_chosen_the_first_of_equals_and_gates_add_up_to_one() {
        let params = Params::<f64>::new(Arc::new(Layout::default()));
        let mut memory = Memory::default();
        let mut tape = Tape::new(&mut memory, &params);
        let logits = tape.constant(3, 3, &[1.0, 3.0, 2.0, 5.0, 5.0, 5.0, 900.0, 0.0, -900.0]);
        let (gates, routing) = route(&mut tape, &logits, 2);
        let values = tape.value(&gates);
        assert!(values.chunks(3).all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-12), "{values:?}");
        assert_eq!(values[0], 0.0);
        let lists = [0, 1, 2].map(|e| routing.rows(&tape.memory.indices, e).to_vec());
        assert_eq!(lists, [vec![1, 2], vec![0, 1, 2], vec![0]]);
        assert_eq!(routing.picks, 6);
    }
}

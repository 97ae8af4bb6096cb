//! Multi-head self-attention with optional rotary positions: `softmax(q kᵀ/√head_dim) v` per head, not causal.
//!
//! The input is `[sequences·len, 3·width]`, q of all heads first, then k, then v; it is used up (rotated in place).
//! The backward pass recomputes the probabilities block by block from the saved log-sum-exp of each row.

use super::Operation;
use crate::rng::Rng;
use crate::simd::{self, AttentionShape, Real, RopeTable};
use crate::tape::gradcheck::Sample;
use crate::tape::profile::{Cost, Sizes};
use crate::tape::{Backward, GradIn, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct Attention {
    qkv: SlotId,
    out: SlotId,
    /// `[sequences·heads, len]`: log-sum-exp of the score rows.
    lse: SlotId,
    shape: AttentionShape,
    rope: bool,
}

/// Attention over sequences of `len` positions: `qkv` `[sequences·len, 3·width]` → `[sequences·len, width]`.
pub fn attention<T: Real>(tape: &mut Tape<'_, T>, qkv: Var, heads: usize, len: usize, rope: bool) -> Var {
    let (rows, triple) = tape.shape(&qkv);
    let width = triple / 3;
    assert!(triple == 3 * width && width.is_multiple_of(heads) && rows.is_multiple_of(len), "qkv shape");
    let shape = AttentionShape { sequences: rows / len, len, heads, head_dim: width / heads };
    let qkv_slot = tape.overwrite(&qkv);
    let recorded = tape.records(&[qkv_slot], false);
    if rope && !tape.memory.rope.as_ref().is_some_and(|table| table.fits(&shape)) {
        tape.memory.rope = Some(RopeTable::new(len, shape.head_dim));
    }
    let out = tape.new_slot(rows, width);
    let lse = tape.new_slot(shape.sequences * heads, len);
    let blocks = [qkv_slot, out, lse].map(|slot| tape.value_block(slot));
    let ([], [qkv_values, out_values, lse_values]) = tape.memory.arena.split([], blocks);
    let table = tape.memory.rope.as_ref().filter(|_| rope);
    simd::attention_forward(tape.params.precision(), &shape, table, qkv_values, out_values, lse_values);
    if recorded {
        for slot in [qkv_slot, out, lse] {
            tape.save(slot);
        }
    } else {
        tape.release_slot(lse);
        tape.release(qkv);
    }
    tape.push(out, recorded, Attention { qkv: qkv_slot, out, lse, shape, rope })
}

impl Operation for Attention {
    const NAME: &'static str = "attention";
    const TERMS: &'static [&'static str] = &["query", "key", "value"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let Some(GradIn { block: d_qkv, is_new }) = pass.grad_in_or_new(self.qkv) else { return };
        assert!(is_new, "qkv was used up: nothing that ran later has added to its gradient");
        let reads = [pass.value(self.qkv), pass.value(self.out), pass.value(self.lse), pass.grad_out(self.out)];
        let faults = [pass.factor("query"), pass.factor("key"), pass.factor("value")];
        let ([qkv, out, lse, dy], [d_qkv]) = pass.memory.arena.split(reads, [d_qkv]);
        let table = pass.memory.rope.as_ref().filter(|_| self.rope);
        let precision = pass.params.precision();
        simd::attention_backward(precision, &self.shape, table, qkv, out, lse, dy, d_qkv, faults);
        pass.release_saved(self.lse);
    }

    fn cost<T: Real>(&self, sizes: &Sizes<'_, T>) -> Cost {
        let AttentionShape { sequences, len, .. } = self.shape;
        let flops = 4.0 * (sequences * len * len * self.shape.width()) as f64;
        Cost { flops, bytes: 2.0 * sizes.elementwise(self.out).bytes }
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let long = simd::AttentionShape { sequences: 1, len: 131, heads: 1, head_dim: 2 };
        [(false, None), (true, None), (true, Some(long))]
            .map(|(rope, shape)| {
                let shape = shape.unwrap_or_else(|| {
                    let [sequences, len, heads, half] = Sample::sizes(rng, [3, 7, 3, 3]);
                    AttentionShape { sequences, len: len + 1, heads, head_dim: 2 * half }
                });
                let mut sample = Sample::new(match (rope, shape == long) {
                    (false, _) => "",
                    (true, false) => "with rope",
                    (true, true) => "with rope, several blocks",
                });
                sample.input(rng, shape.sequences * shape.len, 3 * shape.width());
                sample.run(move |tape, mut inputs| {
                    let x = inputs.remove(0);
                    // The operation overwrites its input; a leaf must stay.
                    let qkv = super::add(tape, &[&x]);
                    vec![attention(tape, qkv, shape.heads, shape.len, rope)]
                })
            })
            .into()
    }
}

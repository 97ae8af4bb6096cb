//! Multi-head self-attention with optional rotary positions: `softmax(q kᵀ/√head_dim) v` per head, not causal.
//!
//! The input is `[sequences·len, 3·width]`, q of all heads first, then k, then v; it is used up.
//! The backward pass recomputes the probabilities block by block from the saved log-sum-exp of each row.

use super::Operation;
use crate::device::{AttentionShape, Device, InputGrad, ParamId, Rope, Store};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::profile::{Cost, Sizes};
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct Attention {
    qkv: SlotId,
    out: SlotId,
    /// `[sequences·heads, len]`: log-sum-exp of the score rows.
    lse: SlotId,
    shape: AttentionShape,
    rope: Rope,
}

/// Attention over sequences of `len` positions: `qkv` `[sequences·len, 3·width]` → `[sequences·len, width]`; uses up qkv.
pub fn attention<D: Device>(tape: &mut Tape<'_, D>, qkv: Var, heads: usize, len: usize, rope: bool) -> Var {
    let (rows, triple) = tape.shape(&qkv);
    attend(tape, qkv, shape_of(rows, triple, heads, len), if rope { Rope::InAttention } else { Rope::Nowhere })
}

/// [`attention`] of [`linear`](super::linear())`(x, weight)`, weight `[3·width, in]`: x is `[sequences·len, in]`.
pub fn linear_attention<D: Device>(
    tape: &mut Tape<'_, D>,
    x: &Var,
    weight: ParamId,
    heads: usize,
    len: usize,
    rope: bool,
) -> Var {
    let (rows, triple) = (tape.shape(x).0, tape.params.shape(weight).0);
    let shape = shape_of(rows, triple, heads, len);
    let blocks = [tape.block(x)];
    if rope && tape.memory.device.fuses_rope(tape.params, weight, &shape, &blocks) {
        let qkv = super::linear::linear_rope(tape, x, weight, &shape);
        return attend(tape, qkv, shape, Rope::InProduct);
    }
    let qkv = super::linear(tape, x, weight, None);
    attention(tape, qkv, heads, len, rope)
}

fn shape_of(rows: usize, triple: usize, heads: usize, len: usize) -> AttentionShape {
    let width = triple / 3;
    assert!(triple == 3 * width && width.is_multiple_of(heads) && rows.is_multiple_of(len), "qkv shape");
    AttentionShape { sequences: rows / len, len, heads, head_dim: width / heads }
}

fn attend<D: Device>(tape: &mut Tape<'_, D>, qkv: Var, shape: AttentionShape, rope: Rope) -> Var {
    let AttentionShape { sequences, len, heads, .. } = shape;
    let qkv_block = tape.overwritten(&qkv);
    let (out, out_block) = tape.new_value(sequences * len, shape.width(), Store::Activation);
    let (lse, lse_block) = tape.new_value(sequences * heads, len, Store::Exact);
    let precision = tape.params.precision();
    tape.memory.device.attention(precision, &shape, rope, qkv_block, out_block, lse_block);
    let recorded = tape.records(&[qkv.0], false);
    tape.push(out, recorded, &[out], &[lse, qkv.0], Attention { qkv: qkv.0, out, lse, shape, rope })
}

impl Operation for Attention {
    const NAME: &'static str = "attention";
    const TERMS: &'static [&'static str] = &["query", "key", "value"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let Some(InputGrad { to: d_qkv, base, .. }) = pass.grad_to(self.qkv) else { return };
        assert!(base.is_none(), "qkv was used up: nothing that ran later has added to its gradient");
        let [qkv, out, lse] = [self.qkv, self.out, self.lse].map(|slot| pass.value(slot));
        let (d_out, precision) = (pass.grad_out(self.out), pass.params.precision());
        pass.memory.device.attention_backward(precision, &self.shape, self.rope, qkv, out, lse, d_out, d_qkv);
        pass.release_saved(self.lse);
    }

    fn cost<D: Device>(&self, sizes: &Sizes<'_, D>) -> Cost {
        let AttentionShape { sequences, len, .. } = self.shape;
        let flops = 4.0 * (sequences * len * len * self.shape.width()) as f64;
        Cost { flops, bytes: 2.0 * sizes.elementwise(self.out).bytes, ..Cost::default() }
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let long = AttentionShape { sequences: 1, len: 131, heads: 1, head_dim: 2 };
        [(false, None), (true, None), (true, Some(long))]
            .map(|(rope, shape)| {
                let shape = shape.unwrap_or_else(|| {
                    let [sequences, len, heads, half] = Sample::<D>::sizes(rng, [3, 7, 3, 3]);
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

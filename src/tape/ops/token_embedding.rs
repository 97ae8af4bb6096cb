//! Token embedding behind an empty prefix: `y[b, P + s, :] = c·E[token[b, s], :]`, `y[b, l < P, :] = 0`.
//!
//! Backward: `dE[token] += c · dy`, row by row in order, so equal tokens are summed in a fixed order.

use super::Operation;
use crate::device::{Device, Indices, ParamId, Store, Usage};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct TokenEmbedding {
    table: ParamId,
    tokens: Indices,
    seq_len: usize,
    prefix: usize,
    scale: f64,
    out: SlotId,
}

/// `[sequences·(prefix + seq_len), width]` from `tokens` `[sequences, seq_len]`, each smaller than the table's rows.
pub fn token_embedding<D: Device>(
    tape: &mut Tape<'_, D>,
    table: ParamId,
    tokens: Indices,
    seq_len: usize,
    prefix: usize,
    scale: f64,
) -> Var {
    let (_, width) = tape.params.shape(table);
    let (out, y) = tape.new_value(tokens.len() / seq_len * (prefix + seq_len), width, Store::Activation);
    tape.memory.device.embed(tape.params, table, tokens, (seq_len, prefix), scale, y);
    let recorded = tape.records(&[], true);
    tape.push(out, recorded, &[], &[], TokenEmbedding { table, tokens, seq_len, prefix, scale, out })
}

impl Operation for TokenEmbedding {
    const NAME: &'static str = "token embedding";
    const TERMS: &'static [&'static str] = &["token"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let (dy, shape) = (pass.grad_out(self.out), (self.seq_len, self.prefix));
        pass.memory.device.embed_backward(pass.grads, self.table, self.tokens, shape, self.scale, dy);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [sequences, seq_len, vocab, width] = Sample::<D>::sizes(rng, [3, 5, 5, 7]);
        let prefix = rng.below(3);
        let mut sample = Sample::new("");
        let table = sample.param(rng, vocab, width, Usage::Table);
        let tokens: Vec<i32> = (0..sequences * seq_len).map(|_| rng.below(vocab) as i32).collect();
        vec![sample.run(move |tape, _| {
            let tokens = tape.indices(tokens.iter().copied());
            vec![token_embedding(tape, table, tokens, seq_len, prefix, 1.3)]
        })]
    }
}

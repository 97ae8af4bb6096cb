//! Token embedding behind an empty prefix: `y[b, P + s, :] = c·E[token[b, s], :]`, `y[b, l < P, :] = 0`.
//!
//! Backward: `dE[token] += c · dy`, row by row in order, so equal tokens are summed in a fixed order.

use std::ops::Range;

use super::Operation;
use crate::device::{Device, HostDevice, ParamId, Usage};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct TokenEmbedding {
    table: ParamId,
    /// Where the tokens are kept: the first, and the one behind the last.
    tokens: (usize, usize),
    seq_len: usize,
    prefix: usize,
    scale: f64,
    out: SlotId,
}

/// `[sequences·(prefix + seq_len), width]` from `tokens` `[sequences, seq_len]`, each smaller than the table's rows.
pub fn token_embedding<D: Device>(
    tape: &mut Tape<'_, D>,
    table: ParamId,
    tokens: &[u8],
    seq_len: usize,
    prefix: usize,
    scale: f64,
) -> Var {
    let (_, width) = tape.params.shape(table);
    let (out, y) = tape.new_value(tokens.len() / seq_len * (prefix + seq_len), width);
    let start = tape.keep_indices(tokens.iter().map(|&token| u32::from(token)));
    let op = TokenEmbedding { table, tokens: (start, start + tokens.len()), seq_len, prefix, scale, out };
    let tokens = &tape.memory.indices[op.range()];
    tape.memory.device.embed(tape.params, table, tokens, (seq_len, prefix), scale, y);
    let recorded = tape.records(&[], true);
    tape.push(out, recorded, &[], &[], op)
}

impl TokenEmbedding {
    fn range(&self) -> Range<usize> {
        self.tokens.0..self.tokens.1
    }
}

impl Operation for TokenEmbedding {
    const NAME: &'static str = "token embedding";
    const TERMS: &'static [&'static str] = &["token"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let (dy, tokens) = (pass.grad_out(self.out), &pass.memory.indices[self.range()]);
        let shape = (self.seq_len, self.prefix);
        pass.memory.device.embed_backward(pass.grads, self.table, tokens, shape, self.scale, dy);
    }

    fn samples<D: HostDevice<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [sequences, seq_len, vocab, width] = Sample::<D>::sizes(rng, [3, 5, 5, 7]);
        let prefix = rng.below(3);
        let mut sample = Sample::new("");
        let table = sample.param(rng, vocab, width, Usage::Table);
        let tokens: Vec<u8> = (0..sequences * seq_len).map(|_| rng.below(vocab) as u8).collect();
        vec![sample.run(move |tape, _| vec![token_embedding(tape, table, &tokens, seq_len, prefix, 1.3)])]
    }
}

//! Token embedding behind an empty prefix: `y[b, P + s, :] = c·E[token[b, s], :]`, `y[b, l < P, :] = 0`.
//!
//! Backward: `dE[token] += c · dy`, row by row in order, so equal tokens are summed in a fixed order.

use super::Operation;
use crate::rng::Rng;
use crate::simd::{self, Real};
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, ParamId, SlotId, Tape, Use, Var};

#[derive(Clone, Copy)]
pub(crate) struct TokenEmbedding {
    table: ParamId,
    /// First of the kept token numbers.
    tokens_at: usize,
    seq_len: usize,
    prefix: usize,
    scale: f64,
    out: SlotId,
}

/// `[sequences·(prefix + seq_len), width]` from `tokens` `[sequences, seq_len]`, each smaller than the table's rows.
pub fn token_embedding<T: Real>(
    tape: &mut Tape<'_, T>,
    table: ParamId,
    tokens: &[u8],
    seq_len: usize,
    prefix: usize,
    scale: f64,
) -> Var {
    let (_, width) = tape.params.shape(table);
    let len = prefix + seq_len;
    let out = tape.new_slot(tokens.len() / seq_len * len, width);
    let block = tape.value_block(out);
    let values = tape.memory.arena.get_mut(block);
    values.fill(T::ZERO);
    let rows = tape.params.get(table);
    for (sequence, tokens) in values.chunks_exact_mut(len * width).zip(tokens.chunks_exact(seq_len)) {
        for (row, &token) in sequence[prefix * width..].chunks_exact_mut(width).zip(tokens) {
            simd::axpy(row, T::from_f64(scale), &rows[usize::from(token) * width..][..width]);
        }
    }
    let recorded = tape.records(&[], true);
    let tokens_at = if recorded { tape.keep_indices(tokens.iter().map(|&t| u32::from(t))) } else { 0 };
    tape.push(out, recorded, TokenEmbedding { table, tokens_at, seq_len, prefix, scale, out })
}

impl Operation for TokenEmbedding {
    const NAME: &'static str = "token embedding";
    const TERMS: &'static [&'static str] = &["table"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let factor = pass.factor("table") * T::from_f64(self.scale);
        let width = pass.slot(self.out).cols;
        let dy = pass.memory.arena.get(pass.grad_out(self.out));
        let table = pass.grads.get_mut(self.table);
        let tokens = &pass.memory.indices[self.tokens_at..];
        let sequences = dy.chunks_exact((self.prefix + self.seq_len) * width);
        for (sequence, tokens) in sequences.zip(tokens.chunks_exact(self.seq_len)) {
            for (row, &token) in sequence[self.prefix * width..].chunks_exact(width).zip(tokens) {
                simd::axpy(&mut table[token as usize * width..][..width], factor, row);
            }
        }
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [sequences, seq_len, vocab, width] = Sample::sizes(rng, [3, 5, 5, 7]);
        let prefix = rng.below(3);
        let mut sample = Sample::new("");
        let table = sample.param(rng, vocab, width, Use::Table);
        let tokens: Vec<u8> = (0..sequences * seq_len).map(|_| rng.below(vocab) as u8).collect();
        vec![sample.run(move |tape, _| vec![token_embedding(tape, table, &tokens, seq_len, prefix, 1.3)])]
    }
}

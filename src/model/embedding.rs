//! Input embedding: prefix, tokens, learned positions, all in units of √D (specification, "Input embedding").

use crate::config::{ModelConfig, Positions, TaskConfig};
use crate::device::{Device, Indices, Layout, ParamId, Usage};
use crate::tape::{Tape, Var, ops};

/// The embedding's tensors and sizes.
#[derive(Clone, Debug)]
pub struct Embedding {
    /// Token rows `[vocab, hidden]`.
    pub tokens: ParamId,
    /// Learned positions `[len, hidden]`.
    pub positions: Option<ParamId>,
    /// A learned prefix `[prefix, hidden]` shared by all puzzles, in the units of the blocks (not scaled by √D).
    pub learned_prefix: Option<ParamId>,
    /// Width of a puzzle table row; 0 without a table.
    pub puzzle_ndim: usize,
    /// P: positions in front of the tokens.
    pub prefix: usize,
    /// S.
    pub seq_len: usize,
    hidden: usize,
}

impl Embedding {
    pub(super) fn new(layout: &mut Layout, config: &ModelConfig, task: &TaskConfig) -> Self {
        let hidden = config.hidden_size;
        let prefix = config.prefix_len();
        // Tied, the matrix is also the answer's head, and packed for that.
        let usage = if config.tied_embeddings { Usage::Rows } else { Usage::Table };
        let tokens = layout.push("inner.embed_tokens.embedding_weight", task.vocab_size, hidden, usage);
        let positions = (config.positions == Positions::Learned)
            .then(|| layout.push("inner.embed_pos.embedding_weight", prefix + task.seq_len, hidden, Usage::Table));
        let learned_prefix =
            (config.learned_prefix > 0).then(|| layout.push("inner.prefix.weight", prefix, hidden, Usage::Table));
        Self {
            tokens,
            positions,
            learned_prefix,
            puzzle_ndim: config.puzzle_emb_ndim,
            prefix,
            seq_len: task.seq_len,
            hidden,
        }
    }

    /// L = P + S.
    pub fn len(&self) -> usize {
        self.prefix + self.seq_len
    }

    /// Never: a puzzle has at least one token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// x `[sequences·len, hidden]` from `tokens` `[sequences, seq_len]` and, with a puzzle table, its rows
    /// `[sequences, ndim]`.
    pub fn forward<D: Device>(&self, tape: &mut Tape<'_, D>, tokens: Indices, puzzle_rows: Option<&Var>) -> Var {
        let mut scale = (self.hidden as f64).sqrt();
        if self.positions.is_some() {
            scale *= std::f64::consts::FRAC_1_SQRT_2;
        }
        let mut x = ops::token_embedding(tape, self.tokens, tokens, self.seq_len, self.prefix, scale);
        if let Some(rows) = puzzle_rows {
            x = ops::puzzle_prefix(tape, x, rows, self.len(), scale);
        }
        if let Some(table) = self.learned_prefix {
            x = ops::add_positions(tape, x, table, self.len(), 1.0);
        }
        if let Some(table) = self.positions {
            x = ops::add_positions(tape, x, table, self.len(), scale);
        }
        x
    }
}

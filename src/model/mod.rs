//! The model: embedding, blocks, heads, and the recursion as data.
//!
//! A [`Model`] is the structure only: which tensors there are (a [`Layout`]), and in which order they are applied
//! (a [`Schedule`]). The numbers live in [`Params`](crate::device::Params), so that one structure serves the weights in training, their
//! EMA, and f64 copies for checking.

mod checks;
mod embedding;
mod experts;
mod fixed_point;
mod flops;
mod init;
mod network;
mod recursion;
mod schedule;

pub use checks::catalogue;
pub use embedding::Embedding;
pub use experts::Experts;
pub use flops::{Flops, forward_flops, further_flops, int8_share, model_flops, network_flops, update_flops};
pub use init::initialize;
pub use network::{Block, Mix, Mlp, Network, inner_width};
pub use recursion::{Pass, RecursionOutput};
pub use schedule::{Call, Iteration, MAX_STATES, Method, NetworkSpec, Schedule, Source, StateId};

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::config::{ModelConfig, TaskConfig};
use crate::device::{Device, Layout, ParamId, Usage};
use crate::tape::{Tape, Var, ops};

/// The states of some sequences: one `[sequences·len, hidden]` value each, in the order of [`Schedule::states`].
pub type States = ArrayVec<Var, MAX_STATES>;

/// The structure of a model. See the [module](self).
#[derive(Clone, Debug)]
pub struct Model {
    /// Every dense tensor under its published name.
    pub layout: Arc<Layout>,
    /// The calls of a supervision step.
    pub schedule: Schedule,
    /// From tokens to x.
    pub embedding: Embedding,
    /// The networks that calls apply.
    pub nets: Vec<Network>,
    /// `H_init`, `L_init`, …: one start vector `[hidden]` for each state; not trained.
    pub starts: Vec<ParamId>,
    /// From y to logits and halting.
    pub heads: Heads,
    /// L: positions the blocks see.
    pub len: usize,
    /// D.
    pub hidden: usize,
}

/// Output heads: `logits = y[:, P:] W_lmᵀ`, `(q_halt, q_continue) = y[:, 0] W_qᵀ + b_q` (specification, "Heads"). W_lm is the token embedding's
/// matrix when the two are tied.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// W_lm `[vocab, hidden]`.
    pub lm: ParamId,
    /// W_q `[2, hidden]`.
    pub q_weight: ParamId,
    /// b_q `[2]`.
    pub q_bias: ParamId,
}

impl Model {
    /// The structure that `config` describes for a task.
    pub fn new(config: &ModelConfig, task: &TaskConfig) -> Self {
        let schedule = Schedule::new(config);
        let hidden = config.hidden_size;
        let mut layout = Layout::default();
        let embedding = Embedding::new(&mut layout, config, task);
        let len = embedding.len();
        let nets = schedule.nets.iter().map(|spec| Network::new(&mut layout, spec, config, len)).collect();
        let starts = schedule
            .states
            .iter()
            .map(|state| {
                let id = layout.push_vector(format!("inner.{state}_init"), hidden);
                layout.freeze(id);
                id
            })
            .collect();
        let heads = Heads {
            lm: match config.tied_embeddings {
                true => embedding.tokens,
                false => layout.push("inner.lm_head.weight", task.vocab_size, hidden, Usage::Rows),
            },
            q_weight: layout.push("inner.q_head.weight", 2, hidden, Usage::Rows),
            q_bias: layout.push_vector("inner.q_head.bias", 2),
        };
        Self { layout: Arc::new(layout), schedule, embedding, nets, starts, heads, len, hidden }
    }

    /// V.
    pub fn vocab_size(&self) -> usize {
        self.layout.tensors()[self.heads.lm.index()].rows
    }

    /// The heads applied to the states: `(logits [sequences·seq_len, vocab], q [sequences, 2])`.
    pub fn heads<D: Device>(&self, tape: &mut Tape<'_, D>, states: &States) -> (Var, Var) {
        let y = &states[self.schedule.answer.index()];
        let prefix = self.embedding.prefix;
        let tokens = ops::select_positions(tape, y, self.len, prefix, self.len - prefix);
        let logits = ops::linear_exact(tape, &tokens, self.heads.lm, None);
        tape.release(tokens);
        let first = ops::select_positions(tape, y, self.len, 0, 1);
        let q = ops::linear_exact(tape, &first, self.heads.q_weight, Some(self.heads.q_bias));
        tape.release(first);
        (logits, q)
    }
}

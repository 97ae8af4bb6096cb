//! Model FLOPs by one counting rule, so that every MFU means the same.
//!
//! 2·M·N·K for every matrix product, attention scores and values included; the forward pass of every call, plus twice
//! that for calls that carry gradient; nothing for recomputation, norms, activations or the optimizer.

use super::{Mix, Model};
use crate::tape::ParamId;

/// FLOPs of one supervision step of one sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flops {
    /// All calls forward, and the heads.
    pub forward: f64,
    /// Backward passes of the recorded calls, and of the heads.
    pub backward: f64,
}

impl Flops {
    /// A whole training step.
    pub fn total(&self) -> f64 {
        self.forward + self.backward
    }
}

/// FLOPs of a training step for one sequence.
pub fn model_flops(model: &Model) -> Flops {
    let heads = heads_flops(model);
    let mut flops = Flops { forward: heads, backward: 2.0 * heads };
    for call in &model.schedule.calls {
        let forward = network_flops(model, call.net);
        flops.forward += forward;
        if call.recorded {
            flops.backward += 2.0 * forward;
        }
    }
    flops
}

/// FLOPs of a supervision step without gradient, for one sequence.
pub fn forward_flops(model: &Model) -> f64 {
    model_flops(model).forward
}

fn heads_flops(model: &Model) -> f64 {
    product(model, model.heads.lm, model.embedding.seq_len) + product(model, model.heads.q_weight, 1)
}

fn network_flops(model: &Model, net: usize) -> f64 {
    let len = model.len;
    let blocks = &model.nets[net].blocks;
    let block = |mix: &Mix| match *mix {
        Mix::Attention { qkv, out, .. } => {
            let scores_and_values = 4.0 * (len * len * model.hidden) as f64;
            product(model, qkv, len) + product(model, out, len) + scores_and_values
        }
        Mix::Positions(w) => product(model, w.gate_up, model.hidden) + product(model, w.down, model.hidden),
    };
    blocks.iter().map(|b| block(&b.mix) + product(model, b.mlp.gate_up, len) + product(model, b.mlp.down, len)).sum()
}

/// A weight applied to `vectors` rows or columns.
fn product(model: &Model, id: ParamId, vectors: usize) -> f64 {
    let tensor = &model.layout.tensors()[id.index()];
    2.0 * (tensor.rows * tensor.cols * vectors) as f64
}

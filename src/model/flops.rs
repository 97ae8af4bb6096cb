//! Model FLOPs by one counting rule, so that every MFU means the same.
//!
//! 2·M·N·K for every GEMM, attention scores and values included; the forward pass of every call, plus twice
//! that for calls that carry gradient; nothing for recomputation, norms, activations or the optimizer.

use super::network::SwiGluWeights;
use super::{Mix, Mlp, Model};
use crate::config::{DetachedPrecision, TrainConfig};
use crate::device::ParamId;

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

/// FLOPs of an update: every sequence's training step, and with the continue loss its further forward pass.
pub fn update_flops(model: &Model, train: &TrainConfig) -> f64 {
    train.batch_size as f64 * (model_flops(model).total() + further_flops(model, train))
}

/// The share of products whose operands are whole numbers of eight bits, of an update or of a supervision step without gradient.
pub fn int8_share(model: &Model, train: &TrainConfig, is_update: bool) -> f64 {
    if train.detached_precision != DetachedPrecision::Int8 {
        return 0.0;
    }
    let detached = model.schedule.calls.iter().filter(|call| !call.recorded);
    let int8: f64 = detached.map(|call| network_flops(model, call.net) - attention_flops(model, call.net)).sum();
    if !is_update {
        return int8 / forward_flops(model);
    }
    let passes = if train.continue_loss { 2.0 } else { 1.0 };
    passes * int8 / (model_flops(model).total() + further_flops(model, train))
}

/// FLOPs of the forward pass that the continue loss needs beside the training step, for one sequence.
pub fn further_flops(model: &Model, train: &TrainConfig) -> f64 {
    if train.continue_loss { forward_flops(model) } else { 0.0 }
}

/// FLOPs of a supervision step without gradient, for one sequence.
pub fn forward_flops(model: &Model) -> f64 {
    model_flops(model).forward
}

fn heads_flops(model: &Model) -> f64 {
    product(model, model.heads.lm, model.embedding.seq_len) + product(model, model.heads.q_weight, 1)
}

/// FLOPs of one call of a network, forward, for one sequence.
pub fn network_flops(model: &Model, net: usize) -> f64 {
    let len = model.len;
    let blocks = &model.nets[net].blocks;
    let block = |mix: &Mix| match *mix {
        Mix::Attention { qkv, out, .. } => product(model, qkv, len) + product(model, out, len),
        Mix::Positions(w) => product(model, w.gate_up, model.hidden) + product(model, w.down, model.hidden),
    };
    let swiglu = |w: &SwiGluWeights| product(model, w.gate_up, len) + product(model, w.down, len);
    let mlp = |mlp: &Mlp| match mlp {
        Mlp::SwiGlu(weights) => swiglu(weights),
        Mlp::Experts(experts) => {
            product(model, experts.router, len) + experts.per_token as f64 * swiglu(&experts.weights[0])
        }
    };
    attention_flops(model, net) + blocks.iter().map(|b| block(&b.mix) + mlp(&b.mlp)).sum::<f64>()
}

/// Of these, scores and values of attention: products without weights.
fn attention_flops(model: &Model, net: usize) -> f64 {
    let with_attention = model.nets[net].blocks.iter().filter(|block| matches!(block.mix, Mix::Attention { .. }));
    with_attention.count() as f64 * 4.0 * (model.len * model.len * model.hidden) as f64
}

/// A weight applied to `vectors` rows or columns.
fn product(model: &Model, id: ParamId, vectors: usize) -> f64 {
    let tensor = &model.layout.tensors()[id.index()];
    2.0 * (tensor.rows * tensor.cols * vectors) as f64
}

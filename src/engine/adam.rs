//! Adam over the flat weights: update, moving average and packing in one sweep over each tensor.

use crate::config::{Optimizer, TrainConfig};
use crate::simd::{self, AdamCoefficients, Precision, Update};
use crate::tape::{Grads, Layout, Params, Tensor};

/// First and second moments, in the flat order of the weights.
pub struct Adam {
    pub m: Vec<f32>,
    pub v: Vec<f32>,
}

impl Adam {
    /// Zero moments for a layout.
    pub fn new(layout: &Layout) -> Self {
        Self { m: vec![0.0; layout.len()], v: vec![0.0; layout.len()] }
    }

    /// Bytes that a sweep moves: weight, two moments and average read and written, gradient read, packed forms written.
    pub fn sweep_bytes(layout: &Layout, precision: Precision) -> f64 {
        let packed = match precision {
            Precision::F32 => 4.0,
            Precision::Bf16 => 2.0,
        };
        (9.0 * 4.0 + 2.0 * packed) * layout.n_weights() as f64
    }

    /// One update of all trained tensors, and of their moving average `ema`; packs the weights again.
    pub fn update(&mut self, rule: &AdamCoefficients, params: &mut Params<f32>, ema: &mut [f32], grads: &Grads<f32>) {
        params.sweep([&mut self.m, &mut self.v, ema], |tensor, range, [p, m, v, e]| {
            if tensor.trained {
                simd::adam_step(rule, p, m, v, e, &grads.values()[range]);
            }
        });
    }
}

/// The numbers of update `t` (from 1) at learning rate `lr`, with the gradient multiplied by `grad_scale`.
pub fn adam_coefficients(config: &TrainConfig, t: u64, lr: f64, grad_scale: f64) -> AdamCoefficients {
    let exponent = t as f64;
    AdamCoefficients {
        update: match config.optimizer {
            Optimizer::AdamAtan2 => Update::Atan2,
            Optimizer::Adamw => Update::Ratio,
        },
        beta1: config.beta1 as f32,
        beta2: config.beta2 as f32,
        decay: (1.0 - lr * config.weight_decay) as f32,
        step: (lr / (1.0 - config.beta1.powf(exponent))) as f32,
        inv_sqrt_correction2: (1.0 / (1.0 - config.beta2.powf(exponent)).sqrt()) as f32,
        ema_rate: config.ema_rate as f32,
        grad_scale: grad_scale as f32,
    }
}

/// The first tensor in whose gradient something is not finite, for a message.
pub fn non_finite_tensor(grads: &Grads<f32>) -> String {
    let is_finite = |tensor: &&Tensor| simd::sum_squares(&grads.values()[tensor.range()]).is_finite();
    let tensor = grads.layout().tensors().iter().find(|tensor| !is_finite(tensor));
    format!("the gradient of {}", tensor.map_or("all weights", |tensor| &tensor.name))
}

/// The tensor with the largest gradient, for a message.
pub fn largest_gradient(grads: &Grads<f32>) -> String {
    let size = |tensor: &&Tensor| simd::sum_squares(&grads.values()[tensor.range()]);
    let tensors = grads.layout().tensors().iter();
    let tensor = tensors.max_by(|a, b| size(a).total_cmp(&size(b)));
    format!("the gradient of {}", tensor.map_or("all weights", |tensor| &tensor.name))
}

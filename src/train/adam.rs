//! Adam over the flat weights: update, moving average and gradient norm, tensor by tensor.

use rayon::prelude::*;

use crate::config::{Optimizer, TrainConfig};
use crate::simd::{self, AdamCoefficients, Update};
use crate::tape::{Grads, Layout, Params};

/// Elements per parallel piece: large enough to pay for the hand-over, and a whole number of cache lines.
const PIECE: usize = 1 << 15;

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

    /// One update of all trained tensors, and of their moving average `ema`; packs the weights again.
    pub fn update(&mut self, rule: &AdamCoefficients, params: &mut Params<f32>, ema: &mut [f32], grads: &Grads<f32>) {
        let layout = params.layout().clone();
        params.update(|values| {
            for tensor in layout.tensors().iter().filter(|tensor| tensor.trained) {
                let range = tensor.range();
                let pieces = values[range.clone()]
                    .par_chunks_mut(PIECE)
                    .zip(self.m[range.clone()].par_chunks_mut(PIECE))
                    .zip(self.v[range.clone()].par_chunks_mut(PIECE))
                    .zip(ema[range.clone()].par_chunks_mut(PIECE))
                    .zip(grads.values()[range].par_chunks(PIECE));
                pieces.for_each(|((((p, m), v), e), g)| simd::adam_step(rule, p, m, v, e, g));
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

/// The norm of the whole gradient, or the name of the first tensor in which it is not finite.
pub fn gradient_norm(grads: &Grads<f32>, layout: &Layout) -> Result<f64, String> {
    let mut total = 0.0;
    for tensor in layout.tensors() {
        let squares = simd::sum_squares(&grads.values()[tensor.range()]);
        if !squares.is_finite() {
            return Err(format!("the gradient of {}", tensor.name));
        }
        total += squares;
    }
    Ok(total.sqrt())
}

//! Adam with decoupled weight decay (specification, "Optimizers, schedule, EMA").

use super::{Optimizer, UpdateRule, WeightPart};
use crate::config::{self, TrainConfig};
use crate::device::{AdamCoefficients, HostDevice, Real, Tensor, Update};

/// AdamW or Adam-atan2; both moments are kept.
pub struct Adam {
    update: Update,
    beta1: f64,
    beta2: f64,
    weight_decay: f64,
}

impl Adam {
    /// As a configuration has it.
    pub fn new(config: &TrainConfig) -> Self {
        let update = match config.optimizer {
            config::OptimizerName::AdamAtan2 => Update::Atan2,
            config::OptimizerName::Adamw => Update::Ratio,
        };
        Self { update, beta1: config.beta1, beta2: config.beta2, weight_decay: config.weight_decay }
    }
}

impl Adam {
    /// What an update multiplies and adds with.
    pub(crate) fn step_of(&self, rule: &UpdateRule) -> AdamCoefficients<f64> {
        let exponent = rule.t as f64;
        AdamCoefficients {
            update: self.update,
            beta1: self.beta1,
            beta2: self.beta2,
            decay: 1.0 - rule.lr * self.weight_decay,
            step: rule.lr / (1.0 - self.beta1.powf(exponent)),
            inv_sqrt_correction2: 1.0 / (1.0 - self.beta2.powf(exponent)).sqrt(),
            ema_rate: rule.ema_rate,
            grad_scale: rule.grad_scale,
        }
    }
}

impl<D: HostDevice> Optimizer<D> for Adam {
    fn buffers(&self) -> &'static [&'static str] {
        &["m", "v"]
    }

    fn sweep(&self, _: &Tensor, rule: &UpdateRule, part: WeightPart<'_, D::T>) {
        let coefficients = self.step_of(rule).map(D::T::from_f64);
        let [m, v] = part.state else { unreachable!("two buffers, as `buffers` says") };
        D::adam_step(&coefficients, part.weights, m, v, part.ema, part.gradient);
    }
}

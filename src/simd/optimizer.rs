//! One sweep of Adam over a flat slice: weights, moments and moving average together.

use super::Real;

/// Which update rule turns the moments into a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// `lr/(1−β1ᵗ) · atan2(m, √v/√(1−β2ᵗ))`: no epsilon, bounded step.
    Atan2,
    /// `lr/(1−β1ᵗ) · m / (√v/√(1−β2ᵗ) + 1e-8)`.
    Ratio,
}

/// Everything the sweep needs for update `t`, the bias corrections worked out.
#[derive(Clone, Copy, Debug)]
pub struct AdamCoefficients {
    pub update: Update,
    pub beta1: f32,
    pub beta2: f32,
    /// `1 − lr·weight_decay`.
    pub decay: f32,
    /// `lr / (1 − β1ᵗ)`.
    pub step: f32,
    /// `1 / √(1 − β2ᵗ)`.
    pub inv_sqrt_correction2: f32,
    /// μ of the moving average; 1 leaves it as it is.
    pub ema_rate: f32,
    /// Factor on the gradient (clipping).
    pub grad_scale: f32,
}

/// SPEC "Optimizers, schedule, EMA" on equal-length slices: p, m, v and e are updated from the gradient g.
pub fn adam_step(c: &AdamCoefficients, p: &mut [f32], m: &mut [f32], v: &mut [f32], e: &mut [f32], g: &[f32]) {
    let n = p.len();
    assert!(m.len() == n && v.len() == n && e.len() == n && g.len() == n);
    for i in 0..n {
        let g = g[i] * c.grad_scale;
        m[i] += (1.0 - c.beta1) * (g - m[i]);
        v[i] += (1.0 - c.beta2) * (g * g - v[i]);
        let d = Real::sqrt(v[i]) * c.inv_sqrt_correction2;
        let step = match c.update {
            Update::Atan2 => Real::atan2(m[i], d),
            Update::Ratio => m[i] / (d + 1e-8),
        };
        p[i] = p[i] * c.decay - c.step * step;
        e[i] = (1.0 - c.ema_rate) * p[i] + c.ema_rate * e[i];
    }
}

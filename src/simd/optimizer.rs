//! One sweep of Adam over a flat slice: weights, moments and EMA together.

use super::Real;
use super::vector::{Kernel, Simd, sweep};

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
pub struct AdamCoefficients<T> {
    /// The rule.
    pub update: Update,
    /// Decay of the first moment.
    pub beta1: T,
    /// Decay of the second moment.
    pub beta2: T,
    /// `1 − lr·weight_decay`.
    pub decay: T,
    /// `lr / (1 − β1ᵗ)`.
    pub step: T,
    /// `1 / √(1 − β2ᵗ)`.
    pub inv_sqrt_correction2: T,
    /// μ of the EMA; 1 leaves it as it is.
    pub ema_rate: T,
    /// Factor on the gradient (clipping).
    pub grad_scale: T,
}

impl AdamCoefficients<f64> {
    /// The same, rounded to other scalars.
    pub fn map<T>(&self, round: impl Fn(f64) -> T) -> AdamCoefficients<T> {
        AdamCoefficients {
            update: self.update,
            beta1: round(self.beta1),
            beta2: round(self.beta2),
            decay: round(self.decay),
            step: round(self.step),
            inv_sqrt_correction2: round(self.inv_sqrt_correction2),
            ema_rate: round(self.ema_rate),
            grad_scale: round(self.grad_scale),
        }
    }
}

/// specification, "Optimizers, schedule, EMA" on equal-length slices: p, m, v and e are updated from the gradient g.
pub fn adam_step<T: Real>(c: &AdamCoefficients<T>, p: &mut [T], m: &mut [T], v: &mut [T], e: &mut [T], g: &[T]) {
    let n = p.len();
    assert!(m.len() == n && v.len() == n && e.len() == n && g.len() == n);
    T::optimizer_step(super::isa(), Step { c, p, m, v, e, g });
}

pub struct Step<'a, T> {
    c: &'a AdamCoefficients<T>,
    p: &'a mut [T],
    m: &'a mut [T],
    v: &'a mut [T],
    e: &'a mut [T],
    g: &'a [T],
}

impl<T: Real> Kernel<T> for Step<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        match self.c.update {
            Update::Atan2 => self.sweep::<S, true>(s),
            Update::Ratio => self.sweep::<S, false>(s),
        }
    }
}

impl<T: Real> Step<'_, T> {
    #[inline(always)]
    fn sweep<S: Simd<T = T>, const ATAN2: bool>(self, s: S) {
        let Self { c, p, m, v, e, g } = self;
        let (rest1, rest2) = (s.splat(T::ONE - c.beta1), s.splat(T::ONE - c.beta2));
        let (decay, step, correction) = (s.splat(c.decay), s.splat(-c.step), s.splat(c.inv_sqrt_correction2));
        let (keep, take) = (s.splat(c.ema_rate), s.splat(T::ONE - c.ema_rate));
        let (grad_scale, epsilon) = (s.splat(c.grad_scale), s.splat(T::from_f64(1e-8)));
        sweep!(S, p.len(), at => {
            let g = s.mul(at.load(s, g), grad_scale);
            let (m0, v0) = (at.load(s, m), at.load(s, v));
            let m1 = s.fma(rest1, s.sub(g, m0), m0);
            let v1 = s.fma(rest2, s.sub(s.mul(g, g), v0), v0);
            let d = s.mul(s.sqrt(v1), correction);
            let u = if ATAN2 { s.atan2(m1, d) } else { s.div(m1, s.add(d, epsilon)) };
            let p1 = s.fma(step, u, s.mul(at.load(s, p), decay));
            at.store(s, m, m1);
            at.store(s, v, v1);
            at.store(s, p, p1);
            at.store(s, e, s.fma(take, p1, s.mul(keep, at.load(s, e))));
        });
    }
}

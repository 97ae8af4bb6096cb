//! Loops over whole slices: sums, scalings and the SwiGLU activation.

use super::Real;

/// `out ← a + b`.
pub fn add<T: Real>(a: &[T], b: &[T], out: &mut [T]) {
    assert!(a.len() == out.len() && b.len() == out.len());
    for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *o = a + b;
    }
}

/// `dst ← dst + src`.
pub fn add_assign<T: Real>(dst: &mut [T], src: &[T]) {
    assert_eq!(dst.len(), src.len());
    for (d, &s) in dst.iter_mut().zip(src) {
        *d += s;
    }
}

/// `dst ← dst + alpha · src`.
pub fn axpy<T: Real>(dst: &mut [T], alpha: T, src: &[T]) {
    assert_eq!(dst.len(), src.len());
    for (d, &s) in dst.iter_mut().zip(src) {
        *d += alpha * s;
    }
}

/// `dst ← alpha · dst`.
pub fn scale<T: Real>(dst: &mut [T], alpha: T) {
    for d in dst {
        *d *= alpha;
    }
}

/// `Σ a·b`.
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(&a, &b)| a * b).sum()
}

/// `Σ a²` in f64.
pub fn sum_squares<T: Real>(a: &[T]) -> f64 {
    a.iter().map(|&a| a.to_f64() * a.to_f64()).sum()
}

/// `out ← silu(g) ⊙ u`, silu(g) = g·σ(g).
pub fn silu_mul<T: Real>(g: &[T], u: &[T], out: &mut [T]) {
    assert!(g.len() == out.len() && u.len() == out.len());
    for ((o, &g), &u) in out.iter_mut().zip(g).zip(u) {
        *o = g / (T::ONE + sleef(-g)) * u;
    }
}

/// The backward pass of [`silu_mul`], in place: `g → scale_g·dg`, `u → scale_u·du`, and the output gradient `d` is
/// replaced by the recomputed output `silu(g) ⊙ u`, which the next weight gradient needs.
pub fn silu_mul_backward<T: Real>(g: &mut [T], u: &mut [T], d: &mut [T], scale_g: T, scale_u: T) {
    assert!(g.len() == d.len() && u.len() == d.len());
    for ((g, u), d) in g.iter_mut().zip(u).zip(d) {
        let sigma = T::ONE / (T::ONE + (-*g).exp());
        let silu = *g * sigma;
        let out = silu * *u;
        *g = scale_g * *d * *u * (sigma + silu * (T::ONE - sigma));
        *u = scale_u * *d * silu;
        *d = out;
    }
}

fn sleef<T: Real>(d: T) -> T {
    let d = d.to_f64() as f32;
    let q = (d * std::f32::consts::LOG2_E).round_ties_even();
    let mut s = q.mul_add(-0.693145751953125, d);
    s = q.mul_add(-1.428606765330187045e-06, s);
    let mut u = 0.000198527617612853646278381f32;
    for c in [
        0.00139304355252534151077271f32,
        0.00833336077630519866943359,
        0.0416664853692054748535156,
        0.166666671633720397949219,
        0.5,
    ] {
        u = u.mul_add(s, c);
    }
    let u = 1.0 + (s * s).mul_add(u, s);
    T::from_f64(f64::from(u * (2.0f32).powi(q as i32)))
}

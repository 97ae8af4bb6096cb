//! SiLU·up and its backward pass by themselves, as the fused kernels apply them.

use trm_simd::math::{self, Use};
use trm_simd::vector::{Kernel, Simd, dispatch};
use trm_simd::{Real, sweep};

/// `out ← silu(g) ⊙ u`, silu(g) = g·σ(g).
pub fn silu_mul<T: Real>(g: &[T], u: &[T], out: &mut [T], of: Use) {
    dispatch(SiluMul { g, u, out, of });
}

/// The backward pass of [`silu_mul`], in place: `g → dg`, `u → du`, and the output gradient `d` is replaced by the recomputed
/// output.
pub fn silu_mul_backward<T: Real>(g: &mut [T], u: &mut [T], d: &mut [T], of: Use) {
    dispatch(SiluMulBackward { g, u, d, of });
}

struct SiluMul<'a, T> {
    g: &'a [T],
    u: &'a [T],
    out: &'a mut [T],
    of: Use,
}

impl<T: Real> Kernel<T> for SiluMul<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let Self { g, u, out, of } = self;
        sweep!(S, out.len(), at => {
            let [a] = math::silu_mul(s, [at.load(s, g)], [at.load(s, u)], of);
            at.store(s, out, a);
        });
    }
}

struct SiluMulBackward<'a, T> {
    g: &'a mut [T],
    u: &'a mut [T],
    d: &'a mut [T],
    of: Use,
}

impl<T: Real> Kernel<T> for SiluMulBackward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let Self { g, u, d, of } = self;
        sweep!(S, d.len(), at => {
            let (gu, da) = ([[at.load(s, g)], [at.load(s, u)]], [at.load(s, d)]);
            let [[dg], [du], [a]] = math::silu_mul_backward(s, gu, da, of);
            at.store(s, g, dg);
            at.store(s, u, du);
            at.store(s, d, a);
        });
    }
}

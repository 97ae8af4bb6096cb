//! Elementary functions of f32 by polynomial, over any vectors.
//!
//! Functions of several vectors at once go through them step by step: a chain of twenty operations that wait for each other takes
//! eighty cycles, and a processor sees only half a dozen of them ahead.

use super::Real;
use super::vector::Simd;

/// Vectors that kernels take through a function together.
pub const ABREAST: usize = 4;

/// A constant in every lane.
#[inline(always)]
fn c<S: Simd>(s: S, x: f64) -> S::V {
    s.splat(S::T::from_f64(x))
}

/// `((p0·x + p1)·x + p2)…`
#[inline(always)]
pub fn horner<S: Simd, const N: usize, const K: usize>(s: S, x: [S::V; N], coefficients: [f64; K]) -> [S::V; N] {
    let mut sums = [c(s, coefficients[0]); N];
    for &coefficient in &coefficients[1..] {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = s.fma(*sum, x, c(s, coefficient));
        }
    }
    sums
}

/// `eˣ` within 2 ulp over all of f32: 0 and infinity where they are the nearest, denormal results rounded once.
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2; n·(upper part of ln 2) is exact, so r is accurate.
#[inline(always)]
pub fn exp<S: Simd, const N: usize>(s: S, mut x: [S::V; N]) -> [S::V; N] {
    let mut n = x;
    for (n, x) in n.iter_mut().zip(&mut x) {
        // Beyond these bounds the result is 0 or infinity anyway; NaN passes through both.
        *x = s.max(c(s, -105.0), *x);
        *x = s.min(c(s, 90.0), *x);
        *n = s.round(s.mul(*x, c(s, std::f64::consts::LOG2_E)));
    }
    for (n, x) in n.iter().zip(&mut x) {
        *x = s.fma(*n, c(s, -0.693_145_751_953_125), *x);
        *x = s.fma(*n, c(s, -1.428_606_765_330_187e-6), *x);
    }
    let p = horner(
        s,
        x,
        [
            1.985_276_176_128_536_5e-4,
            1.393_043_552_525_345_2e-3,
            8.333_360_776_305_2e-3,
            4.166_648_536_920_547_5e-2,
            1.666_666_716_337_204e-1,
            0.5,
        ],
    );
    for ((x, p), n) in x.iter_mut().zip(p).zip(n) {
        let y = s.fma(s.mul(*x, *x), p, *x);
        *x = s.scale_by_power(s.add(y, c(s, 1.0)), n);
    }
    x
}

/// `2ˣ` within 2 ulp over all of f32, as [`exp`] in a dozen instructions: x = n + r exactly, |r| ≤ 1/2.
#[inline(always)]
pub fn exp2<S: Simd, const N: usize>(s: S, mut x: [S::V; N]) -> [S::V; N] {
    let mut n = x;
    for (n, x) in n.iter_mut().zip(&mut x) {
        *x = s.max(c(s, -151.0), *x);
        *x = s.min(c(s, 129.0), *x);
        *n = s.round(*x);
        *x = s.sub(*x, *n);
    }
    let mut p = horner(
        s,
        x,
        [
            1.535_336_188_319_5e-4,
            1.339_887_440_266_574e-3,
            9.618_437_357_674_64e-3,
            5.550_332_471_162_809e-2,
            2.402_264_791_363_012e-1,
            0.693_147_202_855_042,
            1.0,
        ],
    );
    for (p, n) in p.iter_mut().zip(n) {
        *p = s.scale_by_power(*p, n);
    }
    p
}

/// What becomes of a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It stays as it is: within 2 ulp.
    Exact,
    /// It is rounded to bf16 or to eight bits: the exponent of e⁻ˣ = 2^(−x·log₂ e) may be rounded, which costs as many units of 2⁻²⁴
    /// as its size.
    Rounded,
}

/// `numerator / (1 + e⁻ˣ)`.
#[inline(always)]
fn over_one_and_power<S: Simd, const N: usize>(s: S, mut numerator: [S::V; N], mut x: [S::V; N], of: Use) -> [S::V; N] {
    let powers = match of {
        Use::Exact => {
            for x in &mut x {
                *x = s.sub(s.zero(), *x);
            }
            s.exp(x)
        }
        Use::Rounded => {
            for x in &mut x {
                *x = s.mul(*x, c(s, -std::f64::consts::LOG2_E));
            }
            s.exp2(x)
        }
    };
    for (numerator, power) in numerator.iter_mut().zip(powers) {
        *numerator = s.div(*numerator, s.add(c(s, 1.0), power));
    }
    numerator
}

/// `1 / (1 + e⁻ˣ)`; 0 below −88.72, where e⁻ˣ overflows f32 and the exact value less than 3e-39.
#[inline(always)]
pub fn sigmoid<S: Simd, const N: usize>(s: S, x: [S::V; N], of: Use) -> [S::V; N] {
    over_one_and_power(s, [c(s, 1.0); N], x, of)
}

/// `x / (1 + e⁻ˣ)`; 0 below −88.72, where the exact value is no more than 2.7e-37.
#[inline(always)]
pub fn silu<S: Simd, const N: usize>(s: S, x: [S::V; N], of: Use) -> [S::V; N] {
    over_one_and_power(s, x, x, of)
}

/// `silu(g)·u`.
#[inline(always)]
pub fn silu_mul<S: Simd, const N: usize>(s: S, g: [S::V; N], u: [S::V; N], of: Use) -> [S::V; N] {
    let mut a = silu(s, g, of);
    for (a, u) in a.iter_mut().zip(u) {
        *a = s.mul(*a, u);
    }
    a
}

/// dg, du and a of `a = silu(g)·u` from da.
#[inline(always)]
pub fn silu_mul_backward<S: Simd, const N: usize>(
    s: S,
    [mut g, mut u]: [[S::V; N]; 2],
    mut d: [S::V; N],
    of: Use,
) -> [[S::V; N]; 3] {
    let sigma = sigmoid(s, g, of);
    for (((g, u), d), sigma) in g.iter_mut().zip(&mut u).zip(&mut d).zip(sigma) {
        let silu = s.mul(*g, sigma);
        // silu' = σ + silu·(1 − σ)
        let slope = s.fma(silu, s.sub(c(s, 1.0), sigma), sigma);
        (*g, *u, *d) = (s.mul(*d, s.mul(*u, slope)), s.mul(*d, silu), s.mul(silu, *u));
    }
    [g, u, d]
}

/// The angle of the point (x, y), x ≥ 0, within 4 ulp; 0 at the origin, and never beyond ±π/2.
///
/// One division: the angle is rotated by −π/4 or −π/2 first where that makes the quotient small (|q| ≤ tan π/8).
#[inline(always)]
pub fn atan2<S: Simd>(s: S, y: S::V, x: S::V) -> S::V {
    let a = s.abs(y);
    let (zero, one) = (s.zero(), c(s, 1.0));
    let past_one_eighth = s.mul(x, c(s, 0.414_213_562_373_095));
    let past_three_eighths = s.mul(x, c(s, 2.414_213_562_373_095));
    // Angles in (π/8, 3π/8]: (a − x)/(a + x); above: −x/a; below: a/x, and 0/1 at the origin.
    let numerator = s.select_gt(a, past_one_eighth, s.sub(a, x), a);
    let numerator = s.select_gt(a, past_three_eighths, s.sub(zero, x), numerator);
    let denominator = s.select_gt(a, past_one_eighth, s.add(a, x), x);
    let denominator = s.select_gt(a, past_three_eighths, a, denominator);
    let denominator = s.select_gt(s.add(a, x), zero, denominator, one);
    let turn = s.select_gt(a, past_one_eighth, c(s, std::f64::consts::FRAC_PI_4), zero);
    let turn = s.select_gt(a, past_three_eighths, c(s, std::f64::consts::FRAC_PI_2), turn);
    // What f32 loses of the turn: π/2 − f32(π/2) is −4.37e-8.
    let lost = s.mul(turn, c(s, -2.782_753_e-8));
    let q = s.div(numerator, denominator);
    let q2 = s.mul(q, q);
    let [p] = horner(s, [q2], [8.053_744_495_38e-2, -1.387_768_560_32e-1, 1.997_771_064_78e-1, -3.333_294_915_39e-1]);
    let angle = s.add(turn, s.add(s.fma(s.mul(p, q2), q, q), lost));
    s.with_sign(angle, y)
}

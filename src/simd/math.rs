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

#[cfg(test)]
mod tests {
    use super::super::vector::{Kernel, dispatch};
    use super::super::{Isa, Real};
    use super::*;

    /// One function over equal-length slices.
    struct Map<'a> {
        y: &'a [f32],
        x: &'a [f32],
        out: &'a mut [f32],
        function: Function,
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Function {
        Exp,
        Exp2,
        Sigmoid,
        Silu,
        RoundedSigmoid,
        Atan2,
    }

    impl Kernel<f32> for Map<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd<T = f32>>(self, s: S) {
            for ((y, x), out) in self.y.chunks(S::LANES).zip(self.x.chunks(S::LANES)).zip(self.out.chunks_mut(S::LANES))
            {
                // SAFETY: exactly the slices are read and written.
                unsafe {
                    let (yv, xv) = (s.load_first_ptr(y.as_ptr(), y.len()), s.load_first_ptr(x.as_ptr(), x.len()));
                    let value = match self.function {
                        Function::Exp => s.exp([xv])[0],
                        Function::Exp2 => s.exp2([xv])[0],
                        Function::Sigmoid => sigmoid(s, [xv], Use::Exact)[0],
                        Function::Silu => silu(s, [xv], Use::Exact)[0],
                        Function::RoundedSigmoid => sigmoid(s, [xv], Use::Rounded)[0],
                        Function::Atan2 => s.atan2(yv, xv),
                    };
                    s.store_first_ptr(out.as_mut_ptr(), value, out.len());
                }
            }
        }
    }

    fn all(function: Function, y: &[f32], x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        dispatch(Map { y, x, out: &mut out, function });
        out
    }

    fn atan2_all(y: &[f32], x: &[f32]) -> Vec<f32> {
        all(Function::Atan2, y, x)
    }

    /// Distance in units of the last place of the exact value.
    fn ulps(got: f32, exact: f64) -> f64 {
        let rounded = exact as f32;
        if got == rounded {
            return 0.0;
        }
        let exponent = (rounded.abs().to_bits() >> 23).max(1) as i32 - 127 - 23;
        (f64::from(got) - exact).abs() / 2f64.powi(exponent)
    }

    /// The worst error over every exponent of f32 and both signs, in ulp, where the function is `in_domain`.
    fn worst(function: Function, exact: fn(f64) -> f64, in_domain: fn(f32) -> bool) -> (f64, f32) {
        let mut worst = (0.0, 0.0);
        for chunk in 0..64u32 {
            let x: Vec<f32> = (0..1 << 14).map(|i| f32::from_bits((chunk << 26) + i * 4093)).collect();
            for (&x, got) in x.iter().zip(all(function, &x, &x)) {
                if x.is_nan() {
                    assert!(got.is_nan(), "of {x}: {got}");
                    continue;
                }
                let error = ulps(got, exact(f64::from(x)));
                if in_domain(x) && error > worst.0 {
                    worst = (error, x);
                }
            }
        }
        worst
    }

    #[test]
    fn powers_sigmoid_and_silu_are_within_2_ulp_over_all_exponents() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let silu = |x: f64| if x == f64::NEG_INFINITY { f64::NAN } else { x / (1.0 + (-x).exp()) };
        type Case = (Function, fn(f64) -> f64, fn(f32) -> bool);
        let cases: [Case; 4] = [
            (Function::Exp, f64::exp, |_| true),
            (Function::Exp2, f64::exp2, |_| true),
            (Function::Sigmoid, sigmoid, |x| x > -88.72),
            (Function::Silu, silu, |x| x > -88.72),
        ];
        for (isa, (function, exact, in_domain)) in Isa::available().flat_map(|isa| cases.map(|case| (isa, case))) {
            let (ulp, x) = isa.run(|| worst(function, exact, in_domain));
            println!("{isa}: {function:?}: {ulp:.2} ulp at {x}");
            assert!(ulp <= 2.0, "{isa}: {function:?}: {ulp} ulp at {x}");
        }
    }

    #[test]
    fn sigmoid_and_silu_vanish_where_the_power_is_too_large() {
        let x = [-88.73, -100.0, -1e30, f32::MIN];
        for isa in Isa::available() {
            let [sigmoid, silu] = [Function::Sigmoid, Function::Silu].map(|f| isa.run(|| all(f, &x, &x)));
            assert!(sigmoid.iter().chain(&silu).all(|&y| y == 0.0), "{isa}: {sigmoid:?} {silu:?}");
        }
    }

    #[test]
    fn powers_know_their_edges() {
        let common = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        let exp = (Function::Exp, [88.72283, 88.722_84, -87.4, -103.9, -104.1]);
        let exp2 = (Function::Exp2, [127.99999, 128.0, -126.5, -149.9, -150.1]);
        for (isa, (function, own)) in Isa::available().flat_map(|isa| [(isa, exp), (isa, exp2)]) {
            let x = [common, own].concat();
            let y = isa.run(|| all(function, &x, &x));
            assert!(y[0] == 1.0 && y[1] == 1.0, "{isa}");
            assert!(y[2] == f32::INFINITY && y[3] == 0.0 && y[4].is_nan(), "{isa}");
            assert!(y[5].is_finite() && y[6] == f32::INFINITY, "{isa}: the largest finite result");
            assert!(y[7] > 0.0 && y[7] < f32::MIN_POSITIVE, "{isa}: a denormal result");
            assert!(y[8] == f32::from_bits(1) && y[9] == 0.0, "{isa}: the smallest results");
        }
    }

    #[test]
    fn a_sigmoid_to_be_rounded_is_off_by_as_many_units_as_its_argument_is_large() {
        for isa in Isa::available() {
            let x: Vec<f32> = (-88_000..88_000).map(|i| i as f32 * 1e-3).collect();
            for (&x, got) in x.iter().zip(isa.run(|| all(Function::RoundedSigmoid, &x, &x))) {
                let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
                let units = (f64::from(got) / exact - 1.0).abs() * 2f64.powi(24);
                assert!(units <= 4.0 + 1.25 * f64::from(x.abs()), "{isa}: {units} units at {x}");
            }
        }
    }

    #[test]
    fn atan2_is_within_4_ulp_and_never_beyond_a_quarter_turn() {
        let magnitudes: Vec<f32> =
            (0..4000).map(|i| f32::from_bits(0x0080_0000 + i * 530_000)).filter(|x| *x < 1e30).collect();
        for isa in Isa::available() {
            let mut worst = (0.0, 0.0, 0.0);
            let mut check = |y: &[f32], x: &[f32]| {
                for ((&y, &x), got) in y.iter().zip(x).zip(isa.run(|| atan2_all(y, x))) {
                    assert!(got.abs() <= std::f32::consts::FRAC_PI_2, "{isa}: atan2({y}, {x}) = {got}");
                    let exact = f64::from(y).atan2(f64::from(x));
                    let error = ulps(got, exact);
                    // Below the normal range a quotient may lose bits; nothing there moves a weight.
                    if exact.abs() >= f64::from(f32::MIN_POSITIVE) && error > worst.0 {
                        worst = (error, y, x);
                    }
                }
            };
            for shift in 0..magnitudes.len() {
                if shift % 40 == 0 {
                    let mut x = magnitudes.clone();
                    x.rotate_left(shift);
                    check(&magnitudes, &x);
                }
            }
            // Near 1:1, 1:2.41 and the like, densely and with both signs.
            let y: Vec<f32> = (0..200_000).map(|i| (i as f32 * 2e-5).exp() * 0.02 * [1.0, -1.0][i % 2]).collect();
            check(&y, &vec![1.0; y.len()]);
            assert!(worst.0 <= 4.0, "{isa}: {} ulp at ({}, {})", worst.0, worst.1, worst.2);
        }
    }

    #[test]
    fn atan2_knows_its_edges() {
        for isa in Isa::available() {
            let y = isa
                .run(|| atan2_all(&[0.0, -0.0, 1.0, -1.0, 0.0, f32::NAN, 1e-30], &[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]));
            let quarter = std::f32::consts::FRAC_PI_2;
            assert!(y[0] == 0.0 && y[1] == 0.0 && y[2] == quarter && y[3] == -quarter && y[4] == 0.0, "{isa}: {y:?}");
            assert!(y[5].is_nan() && y[6] == quarter, "{isa}: {y:?}");
            assert_eq!(Real::atan2(0.0f32, 0.0), 0.0);
        }
    }
}

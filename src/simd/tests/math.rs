//! Elementary functions against f64, over all exponents.

use trm_simd::math::*;
use trm_simd::vector::{Kernel, Simd, dispatch};
use trm_simd::{Isa, Real};

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
        for ((y, x), out) in self.y.chunks(S::LANES).zip(self.x.chunks(S::LANES)).zip(self.out.chunks_mut(S::LANES)) {
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
        let y =
            isa.run(|| atan2_all(&[0.0, -0.0, 1.0, -1.0, 0.0, f32::NAN, 1e-30], &[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]));
        let quarter = std::f32::consts::FRAC_PI_2;
        assert!(y[0] == 0.0 && y[1] == 0.0 && y[2] == quarter && y[3] == -quarter && y[4] == 0.0, "{isa}: {y:?}");
        assert!(y[5].is_nan() && y[6] == quarter, "{isa}: {y:?}");
        assert_eq!(Real::atan2(0.0f32, 0.0), 0.0);
    }
}

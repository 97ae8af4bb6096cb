//! Activation, norms, sums and the optimizer against plain loops in f64.

use proptest::prelude::*;

use super::silu::{silu_mul, silu_mul_backward};
use super::{assert_close, values};
use trm_simd::math::Use;
use trm_simd::*;

fn to_f64<T: Real>(v: &[T]) -> Vec<f64> {
    v.iter().map(|v| v.to_f64()).collect()
}

fn each_path(check_f32: impl Fn(), check_f64: impl Fn()) {
    for isa in Isa::available() {
        isa.run(&check_f32);
    }
    check_f64();
}

fn check_sums<T: Real>(n: usize, tolerance: f64) {
    let (a, b): (Vec<T>, Vec<T>) = (values(n, 1), values(n, 2));
    let (af, bf) = (to_f64(&a), to_f64(&b));
    let zip = |f: fn(f64, f64) -> f64| af.iter().zip(&bf).map(|(&a, &b)| f(a, b)).collect::<Vec<_>>();
    let mut out = vec![T::ZERO; n];
    add(&a, &b, &mut out);
    assert_close(&out, &zip(|a, b| a + b), tolerance, "add");
    let mut out = a.clone();
    add_assign(&mut out, &b);
    assert_close(&out, &zip(|a, b| a + b), tolerance, "add_assign");
    let mut out = a.clone();
    axpy(&mut out, T::from_f64(-2.5), &b);
    assert_close(&out, &zip(|a, b| a - 2.5 * b), tolerance, "axpy");
    let mut out = a.clone();
    scale(&mut out, T::from_f64(3.0));
    assert_close(&out, &zip(|a, _| 3.0 * a), tolerance, "scale");
    assert_close(&[dot(&a, &b)], &[zip(|a, b| a * b).iter().sum()], tolerance * 4.0, "dot");
    assert_close(&[sum_squares(&a)], &[zip(|a, _| a * a).iter().sum()], 1e-12, "sum of squares");
}

fn check_silu<T: Real>(n: usize, tolerance: f64) {
    let (mut g, mut u, mut d): (Vec<T>, Vec<T>, Vec<T>) = (values(n, 1), values(n, 2), values(n, 3));
    scale(&mut g, T::from_f64(20.0));
    let (gf, uf, df) = (to_f64(&g), to_f64(&u), to_f64(&d));
    let sigma = |g: f64| 1.0 / (1.0 + (-g).exp());
    let by = |f: &dyn Fn(f64, f64, f64) -> f64| (0..n).map(|i| f(gf[i], uf[i], df[i])).collect::<Vec<_>>();
    let product = by(&|g, u, _| g * sigma(g) * u);
    let mut out = vec![T::ZERO; n];
    silu_mul(&g, &u, &mut out, Use::Exact);
    assert_close(&out, &product, tolerance, "silu_mul");
    silu_mul_backward(&mut g, &mut u, &mut d, Use::Exact);
    let slope = |g: f64| sigma(g) * (1.0 + g * (1.0 - sigma(g)));
    assert_close(&g, &by(&|g, u, d| d * u * slope(g)), tolerance * 4.0, "gradient of g");
    assert_close(&u, &by(&|g, _, d| d * g * sigma(g)), tolerance, "gradient of u");
    assert_close(&d, &product, tolerance, "recomputed output");
}

/// Norm of each group of elements that `groups` lists, forward and backward, against plain loops.
fn check_norm<T: Real>(sequences: usize, positions: usize, width: usize, over_rows: bool, tolerance: f64) {
    let n = sequences * positions * width;
    let (h, x0, d0): (Vec<T>, Vec<T>, Vec<T>) = (values(n, 1), values(n, 2), values(n, 3));
    let mut x = x0.clone();
    let mut d = d0.clone();
    let (groups, inv): (Vec<Vec<usize>>, Vec<T>);
    if over_rows {
        let mut factors = vec![T::ZERO; sequences * positions];
        add_rmsnorm_rows(width, &h, &mut x, &mut factors);
        rmsnorm_backward_rows(width, &x, &factors, &mut d, 1);
        groups = (0..sequences * positions).map(|r| (r * width..(r + 1) * width).collect()).collect();
        inv = factors;
    } else {
        let mut factors = vec![T::ZERO; sequences * width];
        let mut mean = vec![T::ZERO; sequences * width];
        add_rmsnorm_cols(positions, width, &h, &mut x, &mut factors);
        rmsnorm_backward_cols(positions, width, &x, &factors, &mut d, &mut mean, 1);
        let column = |s: usize, c: usize| (0..positions).map(move |p| (s * positions + p) * width + c).collect();
        groups = (0..sequences * width).map(|i| column(i / width, i % width)).collect();
        inv = factors;
    }
    let (mut want_x, mut want_d, mut want_inv) = (vec![0.0; n], vec![0.0; n], vec![]);
    for group in &groups {
        let sums: Vec<f64> = group.iter().map(|&i| h[i].to_f64() + x0[i].to_f64()).collect();
        let count = group.len() as f64;
        let factor = 1.0 / (sums.iter().map(|v| v * v).sum::<f64>() / count + NORM_EPSILON).sqrt();
        let mean: f64 = group.iter().zip(&sums).map(|(&i, v)| d0[i].to_f64() * v * factor).sum::<f64>() / count;
        for (&i, v) in group.iter().zip(&sums) {
            want_x[i] = v * factor;
            want_d[i] = factor * (d0[i].to_f64() - want_x[i] * mean);
        }
        want_inv.push(factor);
    }
    assert_close(&inv, &want_inv, tolerance, "factors");
    assert_close(&x, &want_x, tolerance, "norm");
    // 1/rms may be large where a single value is small: the error grows with its square.
    let worst = want_inv.iter().fold(1.0, |a: f64, &b| a.max(b));
    assert_close(&d, &want_d, tolerance * worst * worst, "gradient of the norm");
}

fn adam_reference(c: &AdamCoefficients<f32>, [p, m, v, e, g]: [f64; 5]) -> [f64; 4] {
    let g = g * f64::from(c.grad_scale);
    let m = m + (1.0 - f64::from(c.beta1)) * (g - m);
    let v = v + (1.0 - f64::from(c.beta2)) * (g * g - v);
    let d = v.sqrt() * f64::from(c.inv_sqrt_correction2);
    let step = match c.update {
        Update::Atan2 => m.atan2(d),
        Update::Ratio => m / (d + 1e-8),
    };
    let p = p * f64::from(c.decay) - f64::from(c.step) * step;
    [p, m, v, (1.0 - f64::from(c.ema_rate)) * p + f64::from(c.ema_rate) * e]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn sums_equal_their_naive_twins(n in 0usize..300) {
        each_path(|| check_sums::<f32>(n, 1e-5), || check_sums::<f64>(n, 1e-13));
    }

    #[test]
    fn silu_equals_its_naive_twin(n in 0usize..100) {
        each_path(|| check_silu::<f32>(n, 1e-5), || check_silu::<f64>(n, 1e-13));
    }

    #[test]
    fn norms_equal_their_naive_twins(
        sequences in 0usize..4, positions in 1usize..40, width in 1usize..80, over_rows: bool,
    ) {
        each_path(
            || check_norm::<f32>(sequences, positions, width, over_rows, 4e-6),
            || check_norm::<f64>(sequences, positions, width, over_rows, 1e-12),
        );
    }

    #[test]
    fn adam_equals_its_naive_twin(n in 0usize..100, atan2: bool) {
        let c = AdamCoefficients {
            update: if atan2 { Update::Atan2 } else { Update::Ratio },
            beta1: 0.9,
            beta2: 0.95,
            decay: 0.99,
            step: 1e-2,
            inv_sqrt_correction2: 1.4,
            ema_rate: 0.9,
            grad_scale: 0.5,
        };
        for isa in Isa::available() {
            isa.run(|| {
                let [mut p, mut m, mut v, mut e, g]: [Vec<f32>; 5] = std::array::from_fn(|i| values(n, i as u64 + 1));
                v.iter_mut().for_each(|v| *v = v.abs());
                let want: Vec<[f64; 4]> = (0..n)
                    .map(|i| adam_reference(&c, [p[i], m[i], v[i], e[i], g[i]].map(f64::from)))
                    .collect();
                adam_step(&c, &mut p, &mut m, &mut v, &mut e, &g);
                for (j, got) in [&p, &m, &v, &e].into_iter().enumerate() {
                    assert_close(got, &want.iter().map(|w| w[j]).collect::<Vec<_>>(), 1e-6, "adam");
                }
            });
        }
    }

    #[test]
    fn a_norm_depends_on_its_own_row_only(rows in 1usize..20, width in 1usize..200, pick in 0usize..100) {
        let row = pick % rows;
        for isa in Isa::available() {
            isa.run(|| {
                let h = values::<f32>(rows * width, 1);
                let x = values::<f32>(rows * width, 2);
                let at = row * width..(row + 1) * width;
                let (mut all, mut one) = (x.clone(), x[at.clone()].to_vec());
                add_rmsnorm_rows(width, &h, &mut all, &mut vec![0.0; rows]);
                add_rmsnorm_rows(width, &h[at.clone()], &mut one, &mut [0.0]);
                assert!(all[at] == one[..], "{isa}");
            });
        }
    }
}

//! Products of whole numbers against a naive twin, on every instruction set of the machine.

use proptest::prelude::*;

use super::{unset, values};
use trm_simd::int8::LinearInt8;
use trm_simd::*;

/// Every vector of `k` elements as whole numbers and a scale, by the formula of the module.
fn quantized<T: Real>(x: &[T], k: usize) -> Vec<(Vec<f64>, f64)> {
    let vector = |x: &[T]| {
        let largest =
            x.iter().fold(T::ZERO, |most, &x| if x.to_f64().abs() > most.to_f64() { x.copysign(T::ONE) } else { most });
        let limit = T::from_f64(127.0);
        if largest.to_f64() <= 1e-30 {
            return (vec![0.0; k], 0.0);
        }
        let factor = limit / largest;
        (x.iter().map(|&x| (x * factor).to_f64().round_ties_even()).collect(), (largest / limit).to_f64())
    };
    x.chunks_exact(k).map(vector).collect()
}

/// `y = x Wᵀ` of whole numbers, and the largest that a sum of this row's and column's scales may be.
fn product<T: Real>(x: &[T], w: &[T], k: usize) -> Vec<(f64, f64)> {
    let (x, w) = (quantized(x, k), quantized(w, k));
    let dot = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| p * q).sum::<f64>();
    x.iter().flat_map(|(p, a)| w.iter().map(move |(q, b)| (a * b * dot(p, q), a * b * 127.0 * 127.0))).collect()
}

/// Rows that differ in magnitude by orders; one in nine is all zeros.
fn rows<T: Real>(count: usize, k: usize, seed: u64) -> Vec<T> {
    let mut values: Vec<T> = values(count * k, seed);
    for (i, row) in values.chunks_exact_mut(k).enumerate() {
        let scale = if i % 9 == 4 { 0.0 } else { 10f64.powi(i as i32 % 7 - 3) };
        row.iter_mut().for_each(|x| *x = T::from_f64(x.to_f64() * scale));
    }
    values
}

fn check_rows<T: Real>((n_out, n_in, m): (usize, usize, usize)) {
    let (w, x): (Vec<T>, Vec<T>) = (rows(n_out, n_in, 1), rows(m, n_in, 2));
    let mut weight = PackedWeight::new(n_out, n_in, Side::Rows, Precision::Bf16).with_int8();
    weight.pack(&w);
    let mut y = unset(m * n_out);
    weight.forward_rows_int8(&x, &mut y, None, 1);
    for (i, (got, (want, most))) in y.iter().zip(product(&x, &w, n_in)).enumerate() {
        assert!((got.to_f64() - want).abs() <= 3e-7 * (want.abs() + most), "element {i}: {got} is not {want}");
    }
    // Neither threads nor the rows beside it matter to a row; the epilogue is the norm.
    let mut shared = unset(m * n_out);
    weight.forward_rows_int8(&x, &mut shared, None, 3);
    assert!(*shared == *y, "on three threads");
    let mut last = unset(n_out);
    weight.forward_rows_int8(&x[(m - 1) * n_in..], &mut last, None, 1);
    assert!(*last == y[(m - 1) * n_out..], "the last row alone");
    let (h, mut normed, mut inv_rms) = (values::<T>(m * n_out, 3), unset(m * n_out), unset(m));
    weight.forward_rows_int8(&x, &mut normed, Some(AddRmsNorm { h: &h, inv_rms: &mut inv_rms }), 1);
    let mut inv_rms_wanted = unset(m);
    add_rmsnorm_rows(n_out, &h, &mut y, &mut inv_rms_wanted);
    assert!(*normed == *y && *inv_rms == *inv_rms_wanted, "residual and norm");
}

fn check_swiglu<T: Real>(side: Side, (width, inner, out): (usize, usize, usize), vectors: usize) {
    let (wide, narrow): (Vec<T>, Vec<T>) = (rows(2 * inner, width, 1), values(out * inner, 2));
    let mut gate_up = PackedWeight::gate_up(inner, width, side, Precision::F32).with_int8();
    let mut down = PackedWeight::new(out, inner, side, Precision::F32).with_int8();
    gate_up.pack(&wide);
    down.pack(&narrow);
    let x: Vec<T> = values(vectors * width, 3);
    let turned = |x: &[T], n: usize| -> Vec<T> {
        if side == Side::Rows { x.to_vec() } else { (0..x.len()).map(|i| x[i % n * vectors + i / n]).collect() }
    };
    let mut y = unset(vectors * out);
    swiglu_int8(&gate_up, &down, &x, &mut y, None, 1);

    let gu = product(&turned(&x, width), &wide, width);
    let silu = |g: f64| g / (1.0 + (-g).exp());
    let row =
        |gu: &[(f64, f64)]| -> Vec<T> { (0..inner).map(|i| T::from_f64(silu(gu[i].0) * gu[inner + i].0)).collect() };
    let a: Vec<T> = gu.chunks_exact(2 * inner).flat_map(row).collect();
    let want = product(&a, &narrow, inner);
    for (i, (got, (want, most))) in turned(&y, out).iter().zip(want).enumerate() {
        // An activation may round to the whole number beside; two are allowed to.
        let beside = 2.0 * most / 127.0;
        assert!((got.to_f64() - want).abs() <= 1e-6 * (want.abs() + most) + beside, "element {i}: {got} is not {want}");
    }
    let mut shared = unset(vectors * out);
    swiglu_int8(&gate_up, &down, &x, &mut shared, None, 3);
    assert!(*shared == *y, "on three threads");
}

/// Shapes of all remainders, and one that takes several blocks.
fn check<T: Real>() {
    for shape in [(1, 1, 1), (33, 5, 13), (16, 4, 12), (50, 70, 25), (96, 130, 40), (70, 1100, 300)] {
        check_rows::<T>(shape);
    }
    for side in [Side::Rows, Side::Cols] {
        for (shape, vectors) in
            [((1, 1, 1), 1), ((5, 7, 3), 9), ((20, 40, 20), 33), ((97, 130, 97), 50), ((40, 520, 40), 400)]
        {
            check_swiglu::<T>(side, shape, vectors);
        }
    }
}

#[test]
fn whole_numbers_are_multiplied_exactly_on_every_path() {
    for isa in Isa::available() {
        isa.run(check::<f32>);
    }
    check::<f64>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn products_of_any_shape_are_the_naive_ones((n_out, n_in, m) in (1usize..70, 1usize..150, 1usize..50)) {
        for isa in Isa::available() {
            isa.run(|| check_rows::<f32>((n_out, n_in, m)));
        }
    }

    #[test]
    fn swiglu_of_any_shape_is_the_naive_one((width, inner, out, vectors) in (1usize..60, 1usize..70, 1usize..40, 1usize..50)) {
        for (isa, side) in Isa::available().flat_map(|isa| [(isa, Side::Rows), (isa, Side::Cols)]) {
            isa.run(|| check_swiglu::<f32>(side, (width, inner, out), vectors));
        }
    }
}

/// What the path of a processor does without VNNI, and with it.
#[test]
fn instructions_that_are_no_part_of_a_path_change_nothing() {
    let (n, k, m) = (70, 301, 40);
    let (w, x): (Vec<f32>, Vec<f32>) = (rows(n, k, 1), rows(m, k, 2));
    let product = |isa: Isa, without: bool| {
        isa.run(|| {
            let mut weight = PackedWeight::new(n, k, Side::Rows, Precision::F32).with_int8();
            weight.pack(&w);
            let mut y = vec![0f32; m * n];
            f32::with_scratch(|scratch| {
                let weight = weight.int8_panels();
                let kernel = LinearInt8 { m, k, n, x: &x, weight, y: &mut y, epilogue: None, scratch };
                if without { f32::run_kernel(isa, kernel) } else { f32::run_int8_kernel(isa, kernel) }
            });
            y
        })
    };
    let with_quads: Vec<Isa> = Isa::available().filter(|&isa| isa >= Isa::Avx512).collect();
    for &isa in &with_quads {
        let [own, without] = [false, true].map(|without| product(isa, without));
        assert_eq!(own, without, "{isa}");
        // Sums of whole numbers are the same in any order.
        assert_eq!(own, product(with_quads[0], false), "{isa}");
    }
}

/// The largest numbers there are, as many as a sum of 32 bits is sure to hold.
#[test]
fn the_largest_sums_are_exact() {
    let (n, k, m) = (20, 8192, 13);
    for isa in Isa::available().filter(|&isa| isa >= Isa::Avx512 && isa != Isa::AmxTwin) {
        isa.run(|| {
            for sign in [1.0f32, -1.0] {
                let mut weight = PackedWeight::new(n, k, Side::Rows, Precision::F32).with_int8();
                weight.pack(&vec![127.0 * sign; n * k]);
                let mut y = vec![0f32; m * n];
                weight.forward_rows_int8(&vec![127.0; m * k], &mut y, None, 1);
                assert_eq!(y, vec![127.0 * 127.0 * k as f32 * sign; m * n], "{isa}");
            }
        });
    }
}

#[test]
fn what_is_not_finite_stays_so() {
    let (n, k) = (20, 40);
    for isa in Isa::available() {
        isa.run(|| {
            let mut weight = PackedWeight::new(n, k, Side::Rows, Precision::F32).with_int8();
            weight.pack(&values(n * k, 1));
            let mut x: Vec<f32> = values(2 * k, 2);
            x[3] = f32::INFINITY;
            let mut y = vec![0f32; 2 * n];
            weight.forward_rows_int8(&x, &mut y, None, 1);
            assert!(y[..n].iter().all(|y| !y.is_finite()) && y[n..].iter().all(|y| y.is_finite()), "{isa}: {y:?}");
        });
    }
}

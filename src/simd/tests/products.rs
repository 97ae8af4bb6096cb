//! Products against a naive twin, on every instruction set of the machine.

use proptest::prelude::*;

use super::super::*;
use super::values;

/// `Σ_k a(i, k)·b(k, j)` in f64, and the same sum of absolute values.
fn naive(
    (m, k, n): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
) -> Vec<(f64, f64)> {
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let terms = (0..k).map(|p| a(i, p) * b(p, j));
            out.push(terms.fold((0.0, 0.0), |(s, t), x| (s + x, t + f64::abs(x))));
        }
    }
    out
}

fn round(precision: Precision, x: f64) -> f64 {
    match precision {
        Precision::F32 => x,
        Precision::Bf16 => f64::from(array::round_bf16(x as f32)),
    }
}

/// Compares within the error of summation in `T`.
fn close<T: Real>(got: &[T], want: &[(f64, f64)], before: impl Fn(usize) -> f64, what: &str) {
    let epsilon = if size_of::<T>() == 4 { 4e-7 } else { 1e-15 };
    for (i, (got, &(sum, magnitude))) in got.iter().zip(want).enumerate() {
        let error = (got.to_f64() - (sum + before(i))).abs();
        assert!(error <= epsilon * (8.0 + magnitude * 8.0), "{what}, element {i}: {got} is not {sum}");
    }
}

fn check_products<T: Real>(precision: Precision, n_out: usize, n_in: usize, m: usize) {
    let f = |v: &[T], i: usize| round(precision, v[i].to_f64());
    let w: Vec<T> = values(n_out * n_in, 1);
    let (x, dy): (Vec<T>, Vec<T>) = (values(m * n_in, 2), values(m * n_out, 3));
    let mut weight = Weight::with(n_out, n_in, Side::Both, precision);
    weight.pack(&w);
    let none = |_: usize| 0.0;

    let mut y = vec![T::from_f64(7.0); m * n_out];
    weight.forward_rows(&x, &mut y, None);
    close(&y, &naive((m, n_in, n_out), |i, p| f(&x, i * n_in + p), |p, j| f(&w, j * n_in + p)), none, "forward rows");

    let before: Vec<T> = values(m * n_in, 4);
    let mut dx = before.clone();
    weight.backward_rows(&dy, &mut dx, true);
    let want = naive((m, n_out, n_in), |i, p| f(&dy, i * n_out + p), |p, j| f(&w, p * n_in + j));
    close(&dx, &want, |i| before[i].to_f64(), "backward rows");

    // The same slices read as [in, m] and [out, m].
    weight.forward_cols(&x, &mut y);
    close(&y, &naive((n_out, n_in, m), |i, p| f(&w, i * n_in + p), |p, j| f(&x, p * m + j)), none, "forward cols");

    let mut dx = before.clone();
    weight.backward_cols(&dy, &mut dx, true);
    let want = naive((n_in, n_out, m), |i, p| f(&w, p * n_in + i), |p, j| f(&dy, p * m + j));
    close(&dx, &want, |i| before[i].to_f64(), "backward cols");

    let before: Vec<T> = values(n_out * n_in, 5);
    let half = T::from_f64(0.5);
    let halved = |want: Vec<(f64, f64)>| want.into_iter().map(|(s, t)| (0.5 * s, t)).collect::<Vec<_>>();
    let mut dw = before.clone();
    weight_grad_rows(precision, (n_out, n_in), half, &dy, &x, &mut dw);
    let want = naive((n_out, m, n_in), |i, p| f(&dy, p * n_out + i), |p, j| f(&x, p * n_in + j));
    close(&dw, &halved(want), |i| before[i].to_f64(), "weight gradient of rows");
}

fn check_everywhere(n_out: usize, n_in: usize, m: usize) {
    for isa in Isa::available() {
        isa.run(|| {
            check_products::<f32>(Precision::F32, n_out, n_in, m);
            check_products::<f32>(Precision::Bf16, n_out, n_in, m);
        });
    }
    check_products::<f64>(Precision::F32, n_out, n_in, m);
}

#[test]
fn products_equal_their_naive_twin_at_every_edge() {
    for (n_out, n_in, m) in [
        (1, 1, 0),
        (1, 1, 1),
        (2, 3, 1),
        (12, 32, 13),
        (33, 31, 25),
        (17, 97, 49),
        (97, 64, 97),
        (11, 130, 24),
        (40, 515, 26),
        (97, 20, 1030),
        // The packed x of a weight's gradient is large enough to go past the caches, in bf16 too.
        (9, 600, 250),
    ] {
        check_everywhere(n_out, n_in, m);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn products_equal_their_naive_twin(n_out in 1usize..70, n_in in 1usize..70, m in 0usize..60) {
        check_everywhere(n_out, n_in, m);
    }

    #[test]
    fn a_row_of_the_result_depends_on_its_own_input_only(
        n_out in 1usize..80, n_in in 1usize..700, m in 1usize..60, pick in 0usize..1000,
    ) {
        let row = pick % m;
        for isa in Isa::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                isa.run(|| {
                    let mut weight = Weight::with(n_out, n_in, Side::Rows, precision);
                    weight.pack(&values::<f32>(n_out * n_in, 1));
                    let x = values::<f32>(m * n_in, 2);
                    let (mut all, mut one) = (vec![0.0; m * n_out], vec![0.0; n_out]);
                    weight.forward_rows(&x, &mut all, None);
                    weight.forward_rows(&x[row * n_in..][..n_in], &mut one, None);
                    assert!(all[row * n_out..][..n_out] == one[..], "{isa} {precision:?}");
                });
            }
        }
    }
}

#[test]
#[should_panic(expected = "packed for columns only")]
fn a_weight_packed_for_columns_refuses_rows() {
    Weight::<f32>::with(2, 2, Side::Cols, Precision::F32).forward_rows(&[0.0; 2], &mut [0.0; 2], None);
}

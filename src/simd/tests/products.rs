//! Products against a naive twin, on every instruction set of the machine.

use proptest::prelude::*;

use super::values;
use trm_simd::*;

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
    let mut weight = PackedWeight::new(n_out, n_in, Side::Rows, precision);
    weight.pack(&w);

    let mut y = vec![T::from_f64(7.0); m * n_out];
    weight.forward_rows(&x, &mut y, None, 1);
    let want = naive((m, n_in, n_out), |i, p| f(&x, i * n_in + p), |p, j| f(&w, j * n_in + p));
    close(&y, &want, |_| 0.0, "forward product");

    let before: Vec<T> = values(m * n_in, 4);
    let mut dx = before.clone();
    weight.backward_rows(&dy, &mut dx, true, 1);
    let want = naive((m, n_out, n_in), |i, p| f(&dy, i * n_out + p), |p, j| f(&w, p * n_in + j));
    close(&dx, &want, |i| before[i].to_f64(), "backward product");

    let before: Vec<T> = values(n_out * n_in, 5);
    let mut dw = before.clone();
    add_weight_grad(precision, (n_out, n_in), &dy, &x, &mut dw);
    let want = naive((n_out, m, n_in), |i, p| f(&dy, p * n_out + i), |p, j| f(&x, p * n_in + j));
    close(&dw, &want, |i| before[i].to_f64(), "weight gradient");
}

/// The plain GEMM with every combination of transposed operands, added or written, on one thread and on three.
fn check_gemm<T: Real>((m, k, n): (usize, usize, usize)) {
    let (a, b): (Vec<T>, Vec<T>) = (values(m * k, 1), values(k * n, 2));
    let before: Vec<T> = values(m * n, 3);
    for (a_transposed, b_transposed, accumulate) in (0..8).map(|i| (i & 1 > 0, i & 2 > 0, i & 4 > 0)) {
        let at = |v: &[T], i: usize| v[i].to_f64();
        let want = naive(
            (m, k, n),
            |i, p| if a_transposed { at(&a, p * m + i) } else { at(&a, i * k + p) },
            |p, j| if b_transposed { at(&b, j * k + p) } else { at(&b, p * n + j) },
        );
        let left = if a_transposed { Matrix::new(&a, k, m).transposed() } else { Matrix::new(&a, m, k) };
        let right = if b_transposed { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) };
        let mut c = before.clone();
        gemm(left, right, &mut c, accumulate, 1);
        let added = |i: usize| if accumulate { before[i].to_f64() } else { 0.0 };
        close(&c, &want, added, "plain GEMM");
        let mut shared = before.clone();
        gemm(left, right, &mut shared, accumulate, 3);
        assert!(shared == c, "three threads and one give the same bits");
    }
}

fn check_everywhere(n_out: usize, n_in: usize, m: usize) {
    for isa in Isa::available() {
        isa.run(|| {
            check_products::<f32>(Precision::F32, n_out, n_in, m);
            check_products::<f32>(Precision::Bf16, n_out, n_in, m);
            check_gemm::<f32>((m, n_in, n_out));
        });
    }
    check_products::<f64>(Precision::F32, n_out, n_in, m);
    check_gemm::<f64>((m, n_in, n_out));
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
        // The packed x of a weight's gradient is large enough for non-temporal stores, in bf16 too.
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
                    let mut weight = PackedWeight::new(n_out, n_in, Side::Rows, precision);
                    weight.pack(&values::<f32>(n_out * n_in, 1));
                    let x = values::<f32>(m * n_in, 2);
                    let (mut all, mut one) = (vec![0.0; m * n_out], vec![0.0; n_out]);
                    weight.forward_rows(&x, &mut all, None, 1);
                    weight.forward_rows(&x[row * n_in..][..n_in], &mut one, None, 1);
                    assert!(all[row * n_out..][..n_out] == one[..], "{isa} {precision:?}");
                });
            }
        }
    }
}

#[test]
#[should_panic(expected = "packed for columns")]
fn a_weight_packed_for_columns_refuses_rows() {
    PackedWeight::<f32>::new(2, 2, Side::Cols, Precision::F32).forward_rows(&[0.0; 2], &mut [0.0; 2], None, 1);
}

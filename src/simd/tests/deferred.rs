//! Deferred gradients of a weight's uses, against one use after the other.

use proptest::prelude::*;

use super::{Unset, assert_close, unset, values};
use trm_simd::*;

fn check<T: Real>(precision: Precision, shape: (usize, usize), rows: &[usize]) {
    let (n_out, n_in) = shape;
    let mut want: Vec<T> = values(n_out * n_in, 1);
    let mut got = want.clone();
    let mut packed = Vec::new();
    for (i, &rows) in rows.iter().enumerate() {
        let (dy, x): (Vec<T>, Vec<T>) = (values(rows * n_out, 2 + i as u64), values(rows * n_in, 7 + i as u64));
        add_weight_grad(precision, shape, &dy, &x, &mut want);
        let (left_len, right_len) = deferred_len::<T>(precision, shape, rows);
        let (mut left, mut right) = (unset(left_len), unset(right_len));
        pack_deferred(precision, shape, (&dy, &x), (&mut left, &mut right));
        packed.push((rows, left, right));
    }
    let uses = |i: usize| {
        let (rows, left, right): &(usize, Unset<T>, Unset<T>) = &packed[i];
        DeferredGrad { rows: *rows, left, right }
    };
    add_deferred(precision, shape, packed.len(), uses, &mut got, 1);
    let want: Vec<f64> = want.iter().map(|x| x.to_f64()).collect();
    assert_close(&got, &want, 1e-5, "deferred weight gradient");
}

fn check_everywhere(shape: (usize, usize), rows: &[usize]) {
    for isa in Isa::available() {
        isa.run(|| {
            check::<f32>(Precision::F32, shape, rows);
            check::<f32>(Precision::Bf16, shape, rows);
        });
    }
    check::<f64>(Precision::F32, shape, rows);
}

#[test]
fn uses_taken_together_equal_one_after_the_other_at_every_edge() {
    for (shape, rows) in [
        ((1, 1), &[1][..]),
        ((13, 33), &[7, 1, 24]),
        ((300, 20), &[31, 31]),
        ((25, 700), &[30, 9]),
        ((12, 32), &[300, 2, 1]),
        ((5, 3), &[]),
        // x is written by non-temporal stores, in bf16 too. (Packed alike on both sides here; the products' test has a naive twin.)
        ((9, 600), &[250, 12]),
    ] {
        check_everywhere(shape, rows);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn uses_taken_together_equal_one_after_the_other(
        n_out in 1usize..60, n_in in 1usize..60, rows in prop::collection::vec(1usize..40, 0..5),
    ) {
        check_everywhere((n_out, n_in), &rows);
    }
}

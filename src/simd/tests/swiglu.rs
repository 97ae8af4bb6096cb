//! The fused SwiGLU against its parts.

use proptest::prelude::*;

use super::super::*;
use super::values;

/// Both orientations, with g and u kept and not, against two products and the activation between them.
fn check<T: Real>(precision: Precision, (width, inner, out): (usize, usize, usize), m: usize) {
    for side in [Side::Rows, Side::Cols] {
        let (wide, narrow) = (values::<T>(2 * inner * width, 1), values::<T>(out * inner, 2));
        let x: Vec<T> = values(m * width, 3);
        let mut gate_up = Weight::gate_up(inner, width, side, precision);
        let mut plain = Weight::with(2 * inner, width, side, precision);
        let mut down = Weight::with(out, inner, side, precision);
        gate_up.pack(&wide);
        plain.pack(&wide);
        down.pack(&narrow);

        let (mut h, mut a, mut want) = (vec![T::ZERO; m * 2 * inner], vec![T::ZERO; m * inner], vec![T::ZERO; m * out]);
        let (mut hidden, mut y, mut again) = (h.clone(), want.clone(), want.clone());
        if side == Side::Rows {
            plain.forward_rows(&x, &mut h);
            for (h, a) in h.chunks_exact(2 * inner).zip(a.chunks_exact_mut(inner)) {
                silu_mul(&h[..inner], &h[inner..], a);
            }
            down.forward_rows(&a, &mut want);
            swiglu_rows(&gate_up, &down, &x, Some(&mut hidden), &mut y);
            swiglu_rows(&gate_up, &down, &x, None, &mut again);
        } else {
            plain.forward_cols(&x, &mut h);
            silu_mul(&h[..inner * m], &h[inner * m..], &mut a);
            down.forward_cols(&a, &mut want);
            swiglu_cols(&gate_up, &down, &x, Some(&mut hidden), &mut y);
            swiglu_cols(&gate_up, &down, &x, None, &mut again);
        }
        assert!(hidden == h, "g and u, {side:?}");
        assert!(y == want, "result, {side:?}");
        assert!(again == want, "result without g and u, {side:?}");
    }
}

fn check_everywhere(shape: (usize, usize, usize), m: usize) {
    for isa in Isa::available() {
        isa.run(|| {
            check::<f32>(Precision::F32, shape, m);
            check::<f32>(Precision::Bf16, shape, m);
        });
    }
    check::<f64>(Precision::F32, shape, m);
}

#[test]
fn fused_swiglu_equals_its_parts_bit_for_bit_at_every_edge() {
    for (shape, m) in
        [((1, 1, 1), 0), ((1, 1, 1), 1), ((3, 5, 2), 7), ((37, 64, 37), 50), ((97, 130, 97), 33), ((20, 33, 530), 300)]
    {
        check_everywhere(shape, m);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn fused_swiglu_equals_its_parts_bit_for_bit(
        width in 1usize..50, inner in 1usize..60, out in 1usize..50, m in 1usize..60,
    ) {
        check_everywhere((width, inner, out), m);
    }
}

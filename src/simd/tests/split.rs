//! Products in parts on several threads against the same products on one.

use super::super::*;
use super::values;

/// Large enough to be worth a thread, with a last tile that is not whole.
const SIZES: (usize, usize, usize, usize) = (97, 136, 260, 130);

/// SwiGLU over rows, a plain product and SwiGLU over columns, each with residual and norm: outputs and factors.
fn outputs(precision: Precision, parts: usize) -> Vec<Vec<f32>> {
    let (m, width, inner, out) = SIZES;
    let mut gate_up = PackedWeight::gate_up(inner, width, Side::Rows, precision);
    let mut down = PackedWeight::new(out, inner, Side::Rows, precision);
    let mut wide = PackedWeight::new(8 * inner, width, Side::Rows, precision);
    gate_up.pack(&values(2 * inner * width, 1));
    down.pack(&values(out * inner, 2));
    wide.pack(&values(8 * inner * width, 3));
    let mut columns = [
        PackedWeight::gate_up(inner, width, Side::Cols, precision),
        PackedWeight::new(out, inner, Side::Cols, precision),
    ];
    columns[0].pack(&values(2 * inner * width, 1));
    columns[1].pack(&values(out * inner, 2));
    let x = values(m * width, 4);
    let (mut y, mut z) = (vec![0.0; m * out], vec![0.0; m * 8 * inner]);
    let (mut y_inv, mut z_inv) = (vec![0.0; m], vec![0.0; m]);
    let (mut v, mut v_inv) = (vec![0.0; out * m], vec![0.0; m]);
    let h = values(y.len(), 5);
    let epilogue = AddRmsNorm { h: &h, inv_rms: &mut y_inv };
    swiglu(&gate_up, &down, &x, None, &mut y, Some(epilogue), parts);
    let h = values(z.len(), 6);
    wide.forward_rows(&x, &mut z, Some(AddRmsNorm { h: &h, inv_rms: &mut z_inv }), parts);
    let h = values(v.len(), 7);
    let epilogue = AddRmsNorm { h: &h, inv_rms: &mut v_inv };
    swiglu(&columns[0], &columns[1], &x, None, &mut v, Some(epilogue), parts);
    vec![y, y_inv, z, z_inv, v, v_inv]
}

#[test]
fn parts_on_other_threads_give_the_same_bits() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let whole = outputs(precision, 1);
        assert!(whole.iter().flatten().all(|v| v.is_finite() && *v != 0.0));
        for parts in [2, 3, 5, 40] {
            assert!(pool.install(|| outputs(precision, parts)) == whole, "{precision:?} in {parts} parts");
        }
    }
}

//! Kernels in parts on several threads against the same kernels on one.

use super::values;
use trm_simd::split::{each_item, stretches};
use trm_simd::*;

/// Large enough to be worth a thread, with a last tile that is not whole.
const SIZES: (usize, usize, usize, usize) = (97, 136, 260, 130);

fn packed(shape: (usize, usize), gated: bool, side: Side, precision: Precision, seed: u64) -> PackedWeight<f32> {
    let (n_out, n_in) = shape;
    let mut weight = match gated {
        true => PackedWeight::gate_up(n_out / 2, n_in, side, precision),
        false => PackedWeight::new(n_out, n_in, side, precision),
    };
    weight.pack(&values(n_out * n_in, seed));
    weight
}

/// A SwiGLU, forth with residual and norm and back: everything it writes.
fn swiglu_outputs(side: Side, precision: Precision, parts: usize) -> Vec<Vec<f32>> {
    let (m, width, inner, out) = SIZES;
    let gate_up = packed((2 * inner, width), true, side, precision, 1);
    let down = packed((out, inner), false, side, precision, 2);
    let (x, h) = (values(m * width, 4), values(m * out, 5));
    let forward = |saved: Option<&mut [f32]>| {
        let (mut y, mut inv_rms) = (vec![0.0; m * out], vec![0.0; m]);
        let epilogue = AddRmsNorm { h: &h, inv_rms: &mut inv_rms };
        swiglu(&gate_up, &down, &x, saved, &mut y, Some(epilogue), parts);
        [y, inv_rms]
    };
    let mut saved = vec![0.0; swiglu_saved_len(&gate_up, m)];
    let mut left = [forward(None), forward(Some(&mut saved))].into_iter().flatten().collect::<Vec<_>>();
    let lens = [deferred_len::<f32>(precision, (out, inner), m)];
    let gate_lens = deferred_gate_up_len::<f32>(precision, (2 * inner, width), m);
    let mut operands: Vec<Vec<f32>> =
        [lens[0].0, lens[0].1, gate_lens.0, gate_lens.1].into_iter().map(|len| vec![0.0; len]).collect();
    let mut dx = values(m * width, 6);
    {
        let [a, b, c, d] = &mut operands[..] else { unreachable!() };
        let operands = SwigluOperands { down: [a, b], gate_up: [c, d] };
        swiglu_backward((&gate_up, &down), (&values(m * out, 7), &saved, &x), operands, Some(&mut dx), parts);
    }
    let uses = |left: usize| {
        let (left, right) = (&operands[left], &operands[left + 1]);
        move |_: usize| DeferredGrad { rows: m, left, right }
    };
    let (mut d_down, mut d_gate_up) = (values(out * inner, 8), values(2 * inner * width, 9));
    let mut transposed = vec![0.0; inner * width];
    add_deferred(precision, (out, inner), 2, uses(0), &mut d_down, parts);
    add_deferred_gate_up(precision, (2 * inner, width), 2, uses(2), &mut transposed, &mut d_gate_up, parts);
    left.extend([saved, dx, d_down, d_gate_up]);
    left.extend(operands);
    left
}

/// A plain product, forth with residual and norm and back, adding and not.
fn product_outputs(precision: Precision, parts: usize) -> Vec<Vec<f32>> {
    let (m, width, inner, _) = SIZES;
    let weight = packed((8 * inner, width), false, Side::Rows, precision, 3);
    let (x, dy) = (values(m * width, 4), values(m * 8 * inner, 5));
    let (mut z, mut inv_rms) = (vec![0.0; m * 8 * inner], vec![0.0; m]);
    weight.forward_rows(&x, &mut z, Some(AddRmsNorm { h: &dy, inv_rms: &mut inv_rms }), parts);
    let [mut dx, mut added] = [values(m * width, 6), values(m * width, 6)];
    weight.backward_rows(&dy, &mut dx, false, parts);
    weight.backward_rows(&dy, &mut added, true, parts);
    vec![z, inv_rms, dx, added]
}

/// What works on sequences, rows or elements: attention, norms, sums.
fn other_outputs(precision: Precision, parts: usize, sequences: usize) -> Vec<Vec<f32>> {
    let shape = AttentionShape { sequences, len: 97, heads: 8, head_dim: 32 };
    let (width, rows) = (shape.width(), shape.sequences * shape.len);
    let rope = RopeTable::new(shape.len, shape.head_dim);
    let mut qkv = values(rows * 3 * width, 1);
    let [mut out, mut lse] = [vec![0.0; rows * width], vec![0.0; shape.sequences * shape.heads * shape.len]];
    attention_forward(precision, &shape, Some(&rope), &mut qkv, &mut out, &mut lse, parts);
    let (d_out, mut d_qkv) = (values(out.len(), 2), vec![0.0; qkv.len()]);
    attention_backward(precision, &shape, Some(&rope), &qkv, &out, &lse, &d_out, &mut d_qkv, parts);

    let (mut over_rows, mut over_columns) = (values(out.len(), 3), values(out.len(), 4));
    rmsnorm_backward_rows(width, &out, &values(rows, 5), &mut over_rows, parts);
    let (inv_rms, mut mean) = (values(shape.sequences * width, 6), vec![0.0; shape.sequences * width]);
    rmsnorm_backward_cols(shape.len, width, &out, &inv_rms, &mut over_columns, &mut mean, parts);

    let (a, b) = (values(100_003, 7), values(100_003, 8));
    let (mut sum, mut added) = (vec![0.0; a.len()], b.clone());
    add_shared(&a, &b, &mut sum, parts);
    axpy_shared(&mut added, 0.3, &a, parts);
    vec![qkv, out, lse, d_qkv, over_rows, over_columns, sum, added]
}

fn assert_parts_change_nothing(outputs: impl Fn(Precision, usize) -> Vec<Vec<f32>> + Sync) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    for precision in [Precision::F32, Precision::Bf16] {
        let whole = outputs(precision, 1);
        for (i, values) in whole.iter().enumerate() {
            assert!(values.iter().any(|v| *v != 0.0), "output {i} is written");
        }
        for parts in [2, 3, 5, 40] {
            let split = pool.install(|| outputs(precision, parts));
            for (i, (split, whole)) in split.iter().zip(&whole).enumerate() {
                let same = split.iter().map(|v| v.to_bits()).eq(whole.iter().map(|v| v.to_bits()));
                assert!(same, "output {i}, {precision:?} in {parts} parts");
            }
        }
    }
}

#[test]
fn swiglu_in_parts_gives_the_same_bits() {
    for side in [Side::Rows, Side::Cols] {
        assert_parts_change_nothing(|precision, parts| swiglu_outputs(side, precision, parts));
    }
}

#[test]
fn products_in_parts_give_the_same_bits() {
    assert_parts_change_nothing(product_outputs);
}

#[test]
fn attention_norms_and_sums_in_parts_give_the_same_bits() {
    for sequences in [5, 1] {
        assert_parts_change_nothing(|precision, parts| other_outputs(precision, parts, sequences));
    }
}

#[test]
fn stretches_cover_all_items_once_and_begin_at_whole_units() {
    for count in [0, 1, 7, 12, 13, 97] {
        for parts in [1, 2, 3, 8, 200] {
            let from: Vec<f32> = (0..2 * count).map(|i| i as f32).collect();
            let (mut to, mut nothing) = (vec![0.0; 3 * count], [0.0; 0]);
            let work = |items: std::ops::Range<usize>, [from]: [&[f32]; 1], [to, nothing]: [&mut [f32]; 2]| {
                assert!(items.start.is_multiple_of(4) && nothing.is_empty());
                assert_eq!((from.len(), to.len()), (2 * items.len(), 3 * items.len()));
                assert!(from.iter().map(|v| *v as usize).eq(2 * items.start..2 * items.end));
                to.iter_mut().for_each(|v| *v += 1.0);
            };
            stretches((0..count, 4), parts, [&from], [&mut to, &mut nothing], &work);
            assert!(to.iter().all(|v| *v == 1.0), "{count} items in {parts} parts");
            let mut items = vec![0; count];
            each_item(&mut items, 1 << 30, parts, &|item| *item += 1);
            assert!(items.iter().all(|v| *v == 1));
        }
    }
}

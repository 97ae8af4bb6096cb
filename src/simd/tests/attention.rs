//! Attention against its definition in f64.

use proptest::prelude::*;

use super::{assert_close, values};
use trm_simd::*;

/// Output and `[dq, dk, dv]` in the layout of `qkv`, by the definition; `qkv` unrotated.
fn naive(shape: &AttentionShape, rope: bool, qkv: &[f64], d_out: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let &AttentionShape { sequences, len, heads, head_dim } = shape;
    let width = shape.width();
    let half = head_dim / 2;
    let rotate = |values: &mut [f64], position: usize, direction: f64| {
        for i in 0..half {
            let angle = direction * position as f64 * 10_000f64.powf(-2.0 * i as f64 / head_dim as f64);
            let (a, b) = (values[i], values[i + half]);
            values[i] = a * angle.cos() - b * angle.sin();
            values[i + half] = b * angle.cos() + a * angle.sin();
        }
    };
    let factor = 1.0 / (head_dim as f64).sqrt();
    let (mut out, mut d_qkv) = (vec![0.0; sequences * len * width], vec![0.0; qkv.len()]);
    for (sequence, head) in (0..sequences).flat_map(|i| (0..heads).map(move |h| (i, h))) {
        let at = |part: usize, position: usize| ((sequence * len + position) * 3 + part) * width + head * head_dim;
        let row = |part: usize, position: usize| {
            let mut row = qkv[at(part, position)..][..head_dim].to_vec();
            if rope && part < 2 {
                rotate(&mut row, position, 1.0);
            }
            row
        };
        let rows = |part| (0..len).map(|p| row(part, p)).collect::<Vec<_>>();
        let (q, k, v) = (rows(0), rows(1), rows(2));
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let mut d = [(); 3].map(|()| vec![vec![0.0; head_dim]; len]);
        for i in 0..len {
            let scores: Vec<f64> = k.iter().map(|k| factor * dot(&q[i], k)).collect();
            let total: f64 = scores.iter().map(|s| s.exp()).sum();
            let p: Vec<f64> = scores.iter().map(|s| s.exp() / total).collect();
            let o_at = (sequence * len + i) * width + head * head_dim;
            let d_o = &d_out[o_at..][..head_dim];
            let dp: Vec<f64> = v.iter().map(|v| dot(d_o, v)).collect();
            let delta = dot(&p, &dp);
            for j in 0..len {
                let ds = p[j] * (dp[j] - delta) * factor;
                for c in 0..head_dim {
                    out[o_at + c] += p[j] * v[j][c];
                    d[0][i][c] += ds * k[j][c];
                    d[1][j][c] += ds * q[i][c];
                    d[2][j][c] += p[j] * d_o[c];
                }
            }
        }
        for (part, rows) in d.iter_mut().enumerate() {
            for (position, row) in rows.iter_mut().enumerate() {
                if rope && part < 2 {
                    rotate(row, position, -1.0);
                }
                d_qkv[at(part, position)..][..head_dim].copy_from_slice(row);
            }
        }
    }
    (out, d_qkv)
}

/// Nothing may depend on what the thread's scratch held before.
fn poison_scratch<T: Real>() {
    T::with_scratch(|scratch| {
        for memory in [&mut scratch.left, &mut scratch.right, &mut scratch.out] {
            memory.at_least(1 << 17).fill(T::from_f64(f64::NAN));
        }
    });
}

fn check<T: Real>(shape: AttentionShape, rope: bool, precision: Precision, tolerance: f64) {
    let n = shape.sequences * shape.len * shape.width();
    let mut qkv: Vec<T> = values(3 * n, 1);
    scale(&mut qkv, T::from_f64(4.0));
    let d_out: Vec<T> = values(n, 2);
    let wide = |v: &[T]| v.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
    let (want, d_want) = naive(&shape, rope, &wide(&qkv), &wide(&d_out));
    let table = rope.then(|| RopeTable::new(shape.len, shape.head_dim));
    let (mut out, mut lse) = (vec![T::ONE; n], vec![T::ZERO; shape.sequences * shape.heads * shape.len]);
    poison_scratch::<T>();
    attention_forward(precision, &shape, table.as_ref(), &mut qkv, &mut out, &mut lse, 1);
    assert_close(&out, &want, tolerance, "attention");
    let mut d_qkv = vec![T::from_f64(f64::NAN); 3 * n];
    poison_scratch::<T>();
    attention_backward(precision, &shape, table.as_ref(), &qkv, &out, &lse, &d_out, &mut d_qkv, 1);
    assert_close(&d_qkv, &d_want, tolerance, "gradient of attention");
}

fn check_everywhere(shape: AttentionShape, rope: bool) {
    for isa in Isa::available() {
        isa.run(|| {
            check::<f32>(shape, rope, Precision::F32, 2e-5);
            check::<f32>(shape, rope, Precision::Bf16, 6e-2);
        });
    }
    check::<f64>(shape, rope, Precision::F32, 1e-12);
}

#[test]
fn attention_equals_its_definition_at_every_edge() {
    for (sequences, len, heads, head_dim) in [
        (0, 3, 1, 2),
        (1, 1, 1, 2),
        (2, 3, 2, 4),
        (1, 97, 1, 64),
        (1, 33, 3, 6),
        (1, 131, 1, 18),
        (1, 300, 1, 34),
        (1, 916, 1, 64),
    ] {
        check_everywhere(AttentionShape { sequences, len, heads, head_dim }, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn attention_equals_its_definition(
        sequences in 0usize..3, len in 1usize..50, heads in 1usize..4, half in 1usize..20, rope: bool,
    ) {
        check_everywhere(AttentionShape { sequences, len, heads, head_dim: 2 * half }, rope);
    }
}

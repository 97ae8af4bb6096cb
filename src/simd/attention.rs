//! Multi-head self-attention with rotary positions, blocked over queries and keys: no L×L matrix exists, forward
//! (online softmax) or backward (probabilities recomputed from the saved row statistics).

use super::Real;
use super::gemm::gemm as product;
use super::pack::{Precision, Strided};

/// Shape of one attention call: `qkv` is `[sequences, len, 3·heads·head_dim]`, q of all heads first, then k, then v.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    pub sequences: usize,
    pub len: usize,
    pub heads: usize,
    pub head_dim: usize,
}

impl AttentionShape {
    /// Feature width of the output: `heads · head_dim`.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Scratch the kernels need, in elements.
    pub fn scratch(&self) -> usize {
        2 * QUERY_BLOCK * KEY_BLOCK + 2 * QUERY_BLOCK
    }

    fn row_stride(&self) -> usize {
        3 * self.width()
    }
}

const QUERY_BLOCK: usize = 64;
const KEY_BLOCK: usize = 128;

/// Rotation angles of RoPE: half-split pairs `(i, i + head_dim/2)`, base 10000 (SPEC "Block").
#[derive(Clone, Debug)]
pub struct RopeTable<T> {
    half: usize,
    cos: Vec<T>,
    sin: Vec<T>,
}

impl<T: Real> RopeTable<T> {
    /// Angles for positions `0..len`; `head_dim` must be even.
    pub fn new(len: usize, head_dim: usize) -> Self {
        assert!(head_dim.is_multiple_of(2), "rotary positions need an even head size");
        let half = head_dim / 2;
        let angles = (0..len).flat_map(|position| {
            (0..half).map(move |i| position as f64 * 10_000f64.powf(-2.0 * i as f64 / head_dim as f64))
        });
        let (cos, sin) = angles.map(|a| (T::from_f64(a.cos()), T::from_f64(a.sin()))).unzip();
        Self { half, cos, sin }
    }

    /// Rotates q and k of every head in place; `inverse` turns back.
    fn rotate(&self, shape: &AttentionShape, qkv: &mut [T], inverse: bool) {
        let half = self.half;
        assert!(2 * half == shape.head_dim && self.cos.len() >= shape.len * half, "rope table fits the shape");
        for (row, values) in qkv.chunks_exact_mut(shape.row_stride()).enumerate() {
            let at = (row % shape.len) * half;
            let (cos, sin) = (&self.cos[at..at + half], &self.sin[at..at + half]);
            for head in values[..2 * shape.width()].chunks_exact_mut(shape.head_dim) {
                let (low, high) = head.split_at_mut(half);
                for (((l, h), &c), &s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                    let s = if inverse { -s } else { s };
                    (*l, *h) = (*l * c - *h * s, *h * c + *l * s);
                }
            }
        }
    }
}

/// `out ← softmax(q kᵀ/√head_dim) v` per head, not causal. `qkv` is rotated in place when `rope` is given.
/// `lse` `[sequences, heads, len]` receives the log-sum-exp of each score row, for the backward pass.
pub fn attention_forward<T: Real>(
    shape: &AttentionShape,
    rope: Option<&RopeTable<T>>,
    qkv: &mut [T],
    out: &mut [T],
    lse: &mut [T],
    scratch: &mut [T],
) {
    let &AttentionShape { sequences, len, heads, head_dim } = shape;
    let (width, stride) = (shape.width(), shape.row_stride());
    assert_eq!(qkv.len(), sequences * len * stride, "qkv shape");
    assert!(out.len() == sequences * len * width && lse.len() == sequences * heads * len, "output shapes");
    if let Some(rope) = rope {
        rope.rotate(shape, qkv, false);
    }
    let factor = T::from_f64(1.0 / (head_dim as f64).sqrt());
    let (scores, rest) = scratch.split_at_mut(QUERY_BLOCK * KEY_BLOCK);
    let (row_max, rest) = rest.split_at_mut(QUERY_BLOCK);
    let row_sum = &mut rest[..QUERY_BLOCK];
    for sequence in 0..sequences {
        for head in 0..heads {
            for q0 in (0..len).step_by(QUERY_BLOCK) {
                let nq = QUERY_BLOCK.min(len - q0);
                let q = &qkv[(sequence * len + q0) * stride + head * head_dim..];
                let o = &mut out[(sequence * len + q0) * width + head * head_dim..];
                row_max.fill(T::from_f64(f64::NEG_INFINITY));
                row_sum.fill(T::ZERO);
                for i in 0..nq {
                    o[i * width..i * width + head_dim].fill(T::ZERO);
                }
                for k0 in (0..len).step_by(KEY_BLOCK) {
                    let nk = KEY_BLOCK.min(len - k0);
                    let k = &qkv[(sequence * len + k0) * stride + width + head * head_dim..];
                    let v = &qkv[(sequence * len + k0) * stride + 2 * width + head * head_dim..];
                    gemm((nq, head_dim, nk), factor, q, (stride, 1), k, (1, stride), T::ZERO, scores, (nk, 1));
                    for i in 0..nq {
                        let s = &mut scores[i * nk..(i + 1) * nk];
                        let max = s.iter().fold(row_max[i], |a, &b| a.maximum(b));
                        let keep = (row_max[i] - max).exp();
                        row_max[i] = max;
                        let mut sum = T::ZERO;
                        for s in s.iter_mut() {
                            *s = (*s - max).exp();
                            sum += *s;
                        }
                        row_sum[i] = row_sum[i] * keep + sum;
                        super::scale(&mut o[i * width..i * width + head_dim], keep);
                    }
                    gemm((nq, nk, head_dim), T::ONE, scores, (nk, 1), v, (stride, 1), T::ONE, o, (width, 1));
                }
                for i in 0..nq {
                    super::scale(&mut o[i * width..i * width + head_dim], T::ONE / row_sum[i]);
                    lse[(sequence * heads + head) * len + q0 + i] = row_max[i] + row_sum[i].ln();
                }
            }
        }
    }
}

/// The backward pass of [`attention_forward`]: from the rotated `qkv`, `out`, `lse` and the output gradient `d_out`,
/// adds to `d_qkv` (with respect to the unrotated q and k) `faults`-scaled gradients; factors are 1 outside fault
/// injection. `d_qkv` must hold zeros on entry.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward<T: Real>(
    shape: &AttentionShape,
    rope: Option<&RopeTable<T>>,
    qkv: &[T],
    out: &[T],
    lse: &[T],
    d_out: &[T],
    d_qkv: &mut [T],
    scratch: &mut [T],
    [scale_q, scale_k, scale_v]: [T; 3],
) {
    let &AttentionShape { sequences, len, heads, head_dim } = shape;
    let (width, stride) = (shape.width(), shape.row_stride());
    assert!(qkv.len() == sequences * len * stride && d_qkv.len() == qkv.len(), "qkv shapes");
    assert!(out.len() == sequences * len * width && d_out.len() == out.len(), "output shapes");
    assert_eq!(lse.len(), sequences * heads * len, "row statistics shape");
    let factor = T::from_f64(1.0 / (head_dim as f64).sqrt());
    let (probabilities, rest) = scratch.split_at_mut(QUERY_BLOCK * KEY_BLOCK);
    let (d_scores, rest) = rest.split_at_mut(QUERY_BLOCK * KEY_BLOCK);
    let delta = &mut rest[..QUERY_BLOCK];
    for sequence in 0..sequences {
        for head in 0..heads {
            for q0 in (0..len).step_by(QUERY_BLOCK) {
                let nq = QUERY_BLOCK.min(len - q0);
                let q_at = (sequence * len + q0) * stride + head * head_dim;
                let o_at = (sequence * len + q0) * width + head * head_dim;
                for (i, delta) in delta[..nq].iter_mut().enumerate() {
                    let row = o_at + i * width..o_at + i * width + head_dim;
                    *delta = super::dot(&out[row.clone()], &d_out[row]);
                }
                let statistics = &lse[(sequence * heads + head) * len + q0..][..nq];
                for k0 in (0..len).step_by(KEY_BLOCK) {
                    let nk = KEY_BLOCK.min(len - k0);
                    let k_at = (sequence * len + k0) * stride + width + head * head_dim;
                    let v_at = k_at + width;
                    let (q, k, v, d_o) = (&qkv[q_at..], &qkv[k_at..], &qkv[v_at..], &d_out[o_at..]);
                    let tile = (nk, 1);
                    gemm((nq, head_dim, nk), factor, q, (stride, 1), k, (1, stride), T::ZERO, probabilities, tile);
                    gemm((nq, head_dim, nk), T::ONE, d_o, (width, 1), v, (1, stride), T::ZERO, d_scores, tile);
                    for i in 0..nq {
                        let p = &mut probabilities[i * nk..(i + 1) * nk];
                        for (p, ds) in p.iter_mut().zip(&mut d_scores[i * nk..(i + 1) * nk]) {
                            *p = (*p - statistics[i]).exp();
                            *ds = *p * (*ds - delta[i]);
                        }
                    }
                    let (q_scale, k_scale) = (factor * scale_q, factor * scale_k);
                    let d_v = &mut d_qkv[v_at..];
                    gemm(
                        (nk, nq, head_dim),
                        scale_v,
                        probabilities,
                        (1, nk),
                        d_o,
                        (width, 1),
                        T::ONE,
                        d_v,
                        (stride, 1),
                    );
                    let d_k = &mut d_qkv[k_at..];
                    gemm((nk, nq, head_dim), k_scale, d_scores, (1, nk), q, (stride, 1), T::ONE, d_k, (stride, 1));
                    let d_q = &mut d_qkv[q_at..];
                    gemm((nq, nk, head_dim), q_scale, d_scores, tile, k, (stride, 1), T::ONE, d_q, (stride, 1));
                }
            }
        }
    }
    if let Some(rope) = rope {
        rope.rotate(shape, d_qkv, true);
    }
}

/// The strided product these kernels were written on.
#[allow(clippy::too_many_arguments)]
fn gemm<T: Real>(
    shape: (usize, usize, usize),
    alpha: T,
    a: &[T],
    (ars, acs): (usize, usize),
    b: &[T],
    (brs, bcs): (usize, usize),
    beta: T,
    c: &mut [T],
    (crs, _): (usize, usize),
) {
    let left = Strided { data: a, along: acs, across: ars };
    let right = Strided { data: b, along: brs, across: bcs };
    product(shape, alpha, left, right, beta == T::ONE, Precision::F32, c, crs);
}

//! Multi-head self-attention with rotary positions. No L×L matrix exists: forward is an online softmax over blocks of
//! keys, backward recomputes probabilities from the saved row statistics.

mod backward;
mod forward;
mod operands;

use super::Real;
use super::format::Precision;
use super::isa::isa;
use super::split::{TILE, stretches, worthwhile};
use super::vector::{Kernel, Simd, dispatch_on, sweep};
pub use backward::AttentionBackward;
pub use forward::AttentionForward;
use forward::Qkv;

/// Shape of one attention call: `qkv` is `[sequences, len, 3·heads·head_dim]`, q of all heads first, then k, then v.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences, which do not see each other.
    pub sequences: usize,
    /// Positions of a sequence.
    pub len: usize,
    /// Heads, side by side in a row.
    pub heads: usize,
    /// Features of a head; even where there are rotary positions.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Feature width of the output: `heads · head_dim`.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Of the scores and the mixture of a sequence.
    fn multiplications(&self) -> usize {
        2 * self.len * self.len * self.width()
    }

    /// Elements from one position of `qkv` to the next.
    fn row_stride(&self) -> usize {
        3 * self.width()
    }
}

/// Rotation angles of RoPE: half-split pairs `(i, i + head_dim/2)`, base 10000 (specification, "Block").
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

    /// Whether the table serves attention of this shape.
    pub fn fits(&self, shape: &AttentionShape) -> bool {
        2 * self.half == shape.head_dim && self.cos.len() >= shape.len * self.half
    }

    /// Rotates q and k of one head in place, or back: the slice starts with the q of position `first`.
    #[inline(always)]
    fn rotate_head<S: Simd<T = T>>(
        &self,
        s: S,
        shape: &AttentionShape,
        qkv: &mut [T],
        (first, inverse): (usize, bool),
    ) {
        let sign = s.splat(if inverse { -T::ONE } else { T::ONE });
        let angles = self.cos.chunks_exact(self.half).zip(self.sin.chunks_exact(self.half)).skip(first);
        for ((cos, sin), qkv) in angles.zip(qkv.chunks_mut(shape.row_stride())).take(shape.len) {
            for part in [0, shape.width()] {
                let (low, high) = qkv[part..part + shape.head_dim].split_at_mut(self.half);
                sweep!(S, low.len(), at => {
                    let (l, h) = (at.load(s, low), at.load(s, high));
                    let (c, sine) = (at.load(s, cos), s.mul(sign, at.load(s, sin)));
                    at.store(s, low, s.sub(s.mul(l, c), s.mul(h, sine)));
                    at.store(s, high, s.fma(h, c, s.mul(l, sine)));
                });
            }
        }
    }
}

/// `out ← softmax(q kᵀ/√head_dim) v` per head, not causal. `qkv` is rotated in place when `rope` is given.
/// `lse` `[sequences, heads, len]` receives the logarithm, to the base 2, of each score row's sum of exponentials, for the
/// backward pass. Operands of the products are rounded to the precision; the softmax is not.
///
/// So many threads of the pool that this runs in share the sequences, or the queries of the only one (`parts` 1: the caller does
/// all).
pub fn attention_forward<T: Real>(
    precision: Precision,
    shape: &AttentionShape,
    rope: Option<&RopeTable<T>>,
    qkv: &mut [T],
    out: &mut [T],
    lse: &mut [T],
    parts: usize,
) {
    let &AttentionShape { sequences, len, heads, .. } = shape;
    assert_eq!(qkv.len(), sequences * len * shape.row_stride(), "qkv shape");
    assert!(out.len() == sequences * len * shape.width() && lse.len() == sequences * heads * len, "output shapes");
    assert!(rope.is_none_or(|rope| rope.fits(shape)), "the table of angles fits the shape");
    if out.is_empty() {
        return;
    }
    let isa = isa();
    if sequences == 1 && worthwhile(parts, len, TILE, shape.multiplications() / len) > 1 {
        return one_sequence(precision, shape, rope, (qkv, out, lse), parts);
    }
    let parts = worthwhile(parts, sequences, 1, shape.multiplications());
    stretches((0..sequences, 1), parts, [], [qkv, out, lse], &|part, [], [qkv, out, lse]| {
        let shape = &AttentionShape { sequences: part.len(), ..*shape };
        let qkv = if let Some(rope) = rope { Qkv::ToRotate(qkv, rope) } else { Qkv::AsIs(qkv) };
        let (queries, lse_strides) = (0..len, [len, 1]);
        T::with_scratch(|scratch| {
            let pass = AttentionForward { precision, shape, qkv, queries, out, lse, lse_strides, scratch };
            T::attention_forward(isa, pass);
        });
    });
}

/// [`attention_forward`] of one sequence, whose queries are shared by threads.
fn one_sequence<T: Real>(
    precision: Precision,
    shape: &AttentionShape,
    rope: Option<&RopeTable<T>>,
    (qkv, out, lse): (&mut [T], &mut [T], &mut [T]),
    parts: usize,
) {
    let (&AttentionShape { len, heads, .. }, isa) = (shape, isa());
    if let Some(rope) = rope {
        stretches((0..len, 1), parts, [], [&mut *qkv], &|rows, [], [qkv]| {
            dispatch_on::<T, _>(isa, Rotate { rope, shape, qkv, first: rows.start });
        });
    }
    let (qkv, lse_strides) = (&*qkv, [1, heads]);
    let mut of_positions = vec![T::ZERO; lse.len()];
    stretches((0..len, TILE), parts, [], [out, &mut of_positions], &|queries, [], [out, lse]| {
        T::with_scratch(|scratch| {
            let qkv = Qkv::AsIs(qkv);
            let pass = AttentionForward { precision, shape, qkv, queries, out, lse, lse_strides, scratch };
            T::attention_forward(isa, pass);
        });
    });
    for (head, lse) in lse.chunks_exact_mut(len).enumerate() {
        lse.iter_mut().zip(of_positions.chunks_exact(heads)).for_each(|(to, of)| *to = of[head]);
    }
}

/// Rotates the rows of one sequence from position `first` on.
struct Rotate<'a, T> {
    rope: &'a RopeTable<T>,
    shape: &'a AttentionShape,
    qkv: &'a mut [T],
    first: usize,
}

impl<T: Real> Kernel<T> for Rotate<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        for head in 0..self.shape.heads {
            self.rope.rotate_head(s, self.shape, &mut self.qkv[head * self.shape.head_dim..], (self.first, false));
        }
    }
}

/// The backward pass of [`attention_forward`]: from the rotated `qkv`, `out`, `lse` and the output gradient `d_out`,
/// overwrites `d_qkv` (with respect to the unrotated q and k). Threads share the sequences as there.
#[allow(clippy::too_many_arguments)]
pub fn attention_backward<T: Real>(
    precision: Precision,
    shape: &AttentionShape,
    rope: Option<&RopeTable<T>>,
    qkv: &[T],
    out: &[T],
    lse: &[T],
    d_out: &[T],
    d_qkv: &mut [T],
    parts: usize,
) {
    let &AttentionShape { sequences, len, heads, .. } = shape;
    assert!(qkv.len() == sequences * len * shape.row_stride() && d_qkv.len() == qkv.len(), "qkv shapes");
    assert!(out.len() == sequences * len * shape.width() && d_out.len() == out.len(), "output shapes");
    assert_eq!(lse.len(), sequences * heads * len, "row statistics shape");
    assert!(rope.is_none_or(|rope| rope.fits(shape)), "the table of angles fits the shape");
    if out.is_empty() {
        return;
    }
    let isa = isa();
    let parts = worthwhile(parts, sequences, 1, 2 * shape.multiplications());
    let reads = [qkv, out, lse, d_out];
    stretches((0..sequences, 1), parts, reads, [d_qkv], &|part, [qkv, out, lse, d_out], [d_qkv]| {
        let shape = &AttentionShape { sequences: part.len(), ..*shape };
        T::with_scratch(|scratch| {
            let pass = AttentionBackward { precision, shape, rope, qkv, out, lse, d_out, d_qkv, scratch };
            T::attention_backward(isa, pass);
        });
    });
}

//! Forward: a block of queries meets the keys block by block (online softmax); what it has collected so far is rescaled
//! when a larger score turns up.

use std::ops::Range;

use super::operands::{KEYS, QUERIES, pack_rows, pieces, pitch, rows_of, scores, tail_mask};
use super::{AttentionShape, RopeTable};
use crate::Real;
use crate::format::{Format, Precision, in_format};
use crate::gemm::{LeftTiles, multiply_panels};
use crate::math::ABREAST;
use crate::pack::{Strided, Tiles, pack_panels, padded};
use crate::scratch::Scratch;
use crate::vector::{Kernel, Simd, sweep};

pub struct AttentionForward<'a, T> {
    pub precision: Precision,
    pub shape: &'a AttentionShape,
    pub qkv: Qkv<'a, T>,
    /// The positions of a sequence that ask; all of them answer.
    pub queries: Range<usize>,
    /// Of those that ask.
    pub out: &'a mut [T],
    /// Of those that ask, to the base 2.
    pub lse: &'a mut [T],
    /// How far apart are those of two heads, and of two positions.
    pub lse_strides: [usize; 2],
    pub scratch: &'a mut Scratch<T>,
}

/// What attention reads.
pub enum Qkv<'a, T> {
    AsIs(&'a [T]),
    /// Rotated on the way.
    ToRotate(&'a mut [T], &'a RopeTable<T>),
}

impl<T: Real> Kernel<T> for AttentionForward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, self.forward(s))
    }
}

impl<T: Real> AttentionForward<'_, T> {
    #[inline(always)]
    fn forward<S: Simd<T = T>, F: Format<S>>(mut self, s: S) {
        let &AttentionShape { sequences, len, heads, head_dim } = self.shape;
        let (width, stride) = (self.shape.width(), self.shape.row_stride());
        // Scores are logarithms to the base 2: powers of 2 cost less than those of e.
        let factor = T::from_f64(std::f64::consts::LOG2_E / (head_dim as f64).sqrt());
        let per_unit = F::STEPS;
        let (dim_depth, key_depth) = (head_dim.div_ceil(per_unit), len.div_ceil(per_unit));
        let asking = self.queries.len();
        let tiles = Tiles::new(asking, F::TILE_ROWS);
        let blocks = Tiles::new(tiles.count, QUERIES / F::TILE_ROWS);
        let (pitch, most) = (pitch::<S>(len), tiles.start(blocks.height(0)));
        let dims = padded::<S>(head_dim);
        let sizes = [dim_depth * padded::<S>(len), key_depth * dims, dim_depth * most, pitch * most, dims * most];
        let [keys, values, queries, strip, collected] = pieces(&mut self.scratch.left, sizes);
        let [largest, total] = pieces(&mut self.scratch.right, [most; 2]);
        for (sequence, head) in (0..sequences).flat_map(|i| (0..heads).map(move |h| (i, h))) {
            let (at, out_at) = (sequence * len * stride + head * head_dim, sequence * asking * width + head * head_dim);
            let qkv = match &mut self.qkv {
                Qkv::AsIs(qkv) => &qkv[at..],
                Qkv::ToRotate(qkv, rope) => {
                    rope.rotate_head(s, self.shape, &mut qkv[at..], (0, false));
                    &qkv[at..]
                }
            };
            let (q, k, v) = (&qkv[self.queries.start * stride..], &qkv[width..], &qkv[2 * width..]);
            pack_panels::<S, F, false>(s, Strided::rows(k, stride), (0, len), (0, head_dim), keys);
            pack_panels::<S, F, false>(s, Strided::columns(v, stride), (0, head_dim), (0, len), values);
            let [head_stride, row_stride] = self.lse_strides;
            let lse = &mut self.lse[sequence * heads * asking + head * head_stride..];
            for block in 0..blocks.count {
                let (first, last) = (blocks.start(block), blocks.start(block) + blocks.height(block));
                let (row, rows) = rows_of(tiles, first, last);
                let from = Strided::rows(&q[row * stride..], stride);
                pack_rows::<S, F>(s, from, (rows, head_dim), queries);
                largest[..rows].fill(-T::ONE / T::ZERO);
                total[..rows].fill(T::ZERO);
                for k0 in (0..len).step_by(KEYS) {
                    let count = KEYS.min(len - k0);
                    let left = LeftTiles::rows((tiles, first, last), dim_depth, queries, dim_depth);
                    scores::<S, F>(s, left, keys, (k0, count), factor, (strip, pitch));
                    let rest = tail_mask(s, count);
                    for (row, strip) in strip.chunks_exact_mut(pitch).take(rows).enumerate() {
                        let strip = &mut strip[..padded::<S>(count)];
                        let before = largest[row];
                        let (max, sum) = exponentials::<S, F>(s, strip, before, rest);
                        largest[row] = max;
                        if k0 > 0 {
                            let factor = (before - max).exp2();
                            total[row] *= factor;
                            let (sums, factor) = (&mut collected[row * dims..][..dims], s.splat(factor));
                            sweep!(S, dims, at => { at.store(s, sums, s.mul(at.load(s, sums), factor)) });
                        }
                        total[row] += sum;
                    }
                    let left = LeftTiles::rows((tiles, first, last), count.div_ceil(per_unit), strip, pitch);
                    let right = (&*values, key_depth, k0 / per_unit);
                    multiply_panels::<S, F>(s, left, right, head_dim, T::ONE, k0 > 0, (collected, dims));
                }
                let out = self.out[out_at + row * width..].chunks_mut(width);
                let lse = lse[row * row_stride..].iter_mut().step_by(row_stride).take(rows);
                for (i, ((sums, out), lse)) in collected.chunks_exact(dims).zip(out).zip(lse).enumerate() {
                    let (inverse, out) = (s.splat(T::ONE / total[i]), &mut out[..head_dim]);
                    sweep!(S, head_dim, at => { at.store(s, out, s.mul(at.load(s, &sums[..head_dim]), inverse)) });
                    *lse = largest[i] + total[i].log2();
                }
            }
        }
    }
}

/// `row ← 2^(row − max)` in the format, max being the largest score so far; returns max and the sum. `rest` goes to the
/// last vector first.
#[inline(always)]
fn exponentials<S: Simd, F: Format<S>>(s: S, row: &mut [S::T], largest: S::T, rest: S::V) -> (S::T, S::T) {
    let mut most = s.splat(largest);
    for scores in row.chunks_exact(S::LANES) {
        most = s.max(s.load(scores), most);
    }
    let largest = s.maximum(most);
    let (max, vectors) = (s.splat(largest), row.len() / S::LANES);
    let (mut sum, mut at) = (s.zero(), 0);
    while at + ABREAST < vectors {
        sum = powers::<S, F, ABREAST>(s, row, at, [max, s.zero()], sum);
        at += ABREAST;
    }
    let last = [max, rest];
    sum = match vectors - at {
        1 => powers::<S, F, 1>(s, row, at, last, sum),
        2 => powers::<S, F, 2>(s, row, at, last, sum),
        3 => powers::<S, F, 3>(s, row, at, last, sum),
        _ => powers::<S, F, ABREAST>(s, row, at, last, sum),
    };
    (largest, s.sum(sum))
}

/// The same for the `N` vectors from vector `at` on, an even one; adds their powers to `sum`.
#[inline(always)]
fn powers<S: Simd, F: Format<S>, const N: usize>(
    s: S,
    row: &mut [S::T],
    at: usize,
    [max, rest]: [S::V; 2],
    mut sum: S::V,
) -> S::V {
    let mut e = [max; N];
    for (i, e) in e.iter_mut().enumerate() {
        *e = s.load(&row[(at + i) * S::LANES..]);
    }
    e[N - 1] = s.add(e[N - 1], rest);
    for e in &mut e {
        *e = s.sub(*e, max);
    }
    let e = s.exp2(e);
    for (i, &power) in e.iter().enumerate() {
        sum = s.add(sum, power);
        if F::STEPS == 2 && i % 2 == 0 {
            let next = e.get(i + 1).copied().unwrap_or(s.zero());
            s.store(&mut row[(at + i) / 2 * S::LANES..], F::pack_along(s, power, next));
        } else if F::STEPS == 1 {
            s.store(&mut row[(at + i) * S::LANES..], F::pack_along(s, power, power));
        }
    }
    sum
}

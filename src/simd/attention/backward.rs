//! Backward: probabilities are recomputed from the saved row statistics, a block of queries and one of keys at a time.

use std::marker::PhantomData;

use super::operands::{KEYS, QUERIES, pack_rows, pieces, pitch, rows_of, scores, tail_mask};
use super::{AttentionShape, RopeTable};
use crate::Real;
use crate::elementwise::dot_product;
use crate::format::{Format, Precision, in_format};
use crate::gemm::{LeftTiles, multiply_panels};
use crate::math::ABREAST;
use crate::pack::{Strided, Tiles, pack_panels, padded};
use crate::scratch::Scratch;
use crate::vector::{Kernel, Simd};

/// Queries over which the products of the gradients of k and v sum at a time.
const QUERY_BLOCK: usize = 132;

pub struct AttentionBackward<'a, T> {
    pub precision: Precision,
    pub shape: &'a AttentionShape,
    pub rope: Option<&'a RopeTable<T>>,
    /// Rotated.
    pub qkv: &'a [T],
    pub out: &'a [T],
    pub lse: &'a [T],
    pub d_out: &'a [T],
    pub d_qkv: &'a mut [T],
    pub scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for AttentionBackward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, self.backward(s))
    }
}

impl<T: Real> AttentionBackward<'_, T> {
    #[inline(always)]
    fn backward<S: Simd<T = T>, F: Format<S>>(self, s: S) {
        let &AttentionShape { sequences, len, heads, head_dim } = self.shape;
        let (width, stride) = (self.shape.width(), self.shape.row_stride());
        let factor = T::from_f64(1.0 / (head_dim as f64).sqrt());
        let factor_2 = T::from_f64(std::f64::consts::LOG2_E / (head_dim as f64).sqrt());
        let per_unit = F::STEPS;
        let (dim_depth, key_depth) = (head_dim.div_ceil(per_unit), len.div_ceil(per_unit));
        // Two queries that share a unit stay together.
        let tiles = Tiles::even(len, F::TILE_ROWS);
        let blocks = Tiles::new(tiles.count, QUERY_BLOCK / F::TILE_ROWS);
        let most = tiles.start(blocks.height(0));
        let (pitch, most_units) = (pitch::<S>(len), most.div_ceil(per_unit));
        let (dims, strip) = (padded::<S>(head_dim), pitch * (QUERIES + 1));
        let sizes = [dim_depth * padded::<S>(len), dim_depth * padded::<S>(len), key_depth * dims];
        let [keys, values, keys_over] = pieces(&mut self.scratch.left, sizes);
        let (rows, over, both) = (dim_depth * most, most_units * dims, most_units * pitch);
        let [queries, d_rows, queries_over, d_over, p_over, ds_over, minus_lse, delta] =
            pieces(&mut self.scratch.right, [rows, rows, over, over, both, both, most, most]);
        let [p_strip, ds_strip] = pieces(&mut self.scratch.out, [strip; 2]);
        for (sequence, head) in (0..sequences).flat_map(|i| (0..heads).map(move |h| (i, h))) {
            let at = sequence * len * stride + head * head_dim;
            let (q, k, v) = (&self.qkv[at..], &self.qkv[at + width..], &self.qkv[at + 2 * width..]);
            let o_at = sequence * len * width + head * head_dim;
            let (out, d_out) = (&self.out[o_at..], &self.d_out[o_at..]);
            let lse = &self.lse[(sequence * heads + head) * len..][..len];
            pack_panels::<S, F, false>(s, Strided::rows(k, stride), (0, len), (0, head_dim), keys);
            pack_panels::<S, F, false>(s, Strided::rows(v, stride), (0, len), (0, head_dim), values);
            pack_panels::<S, F, false>(s, Strided::columns(k, stride), (0, head_dim), (0, len), keys_over);
            for block in 0..blocks.count {
                let (first, last) = (blocks.start(block), blocks.start(block) + blocks.height(block));
                let (q0, nq) = rows_of(tiles, first, last);
                let (q, d_out) = (&q[q0 * stride..], &d_out[q0 * width..]);
                for i in 0..nq {
                    let row = i * width..i * width + head_dim;
                    delta[i] = dot_product(s, &out[q0 * width..][row.clone()], &d_out[row]);
                    minus_lse[i] = -lse[q0 + i];
                }
                pack_rows::<S, F>(s, Strided::rows(q, stride), (nq, head_dim), queries);
                pack_rows::<S, F>(s, Strided::rows(d_out, width), (nq, head_dim), d_rows);
                let all = ((0, head_dim), (0, nq));
                pack_panels::<S, F, false>(s, Strided::columns(q, stride), all.0, all.1, queries_over);
                pack_panels::<S, F, false>(s, Strided::columns(d_out, width), all.0, all.1, d_over);
                for k0 in (0..len).step_by(KEYS) {
                    let count = KEYS.min(len - k0);
                    let rest = tail_mask(s, count);
                    for tile in (first..last).step_by(QUERIES / F::TILE_ROWS) {
                        let end = last.min(tile + QUERIES / F::TILE_ROWS);
                        let (row, rows) = rows_of(tiles, tile, end);
                        let (row, here) = (row - q0, (tiles, tile, end));
                        let left = LeftTiles::rows(here, dim_depth, &queries[row * dim_depth..], dim_depth);
                        scores::<S, F>(s, left, keys, (k0, count), factor_2, (p_strip, pitch));
                        let left = LeftTiles::rows(here, dim_depth, &d_rows[row * dim_depth..], dim_depth);
                        scores::<S, F>(s, left, values, (k0, count), T::ONE, (ds_strip, pitch));
                        let unit = row / per_unit * pitch;
                        let over = [&mut p_over[unit..], &mut ds_over[unit..]];
                        let vectors = (padded::<S>(count) / S::LANES, rest);
                        let statistics = [&minus_lse[row..row + rows], &delta[row..row + rows]];
                        score_gradients::<S, F>(s, (vectors, pitch), statistics, [p_strip, ds_strip], over);
                        let ds = if F::STEPS == 2 { &*ds_strip } else { &ds_over[unit..] };
                        let left = LeftTiles::rows(here, count.div_ceil(per_unit), ds, pitch);
                        let d_q = &mut self.d_qkv[at + (q0 + row) * stride..];
                        let right = (&*keys_over, key_depth, k0 / per_unit);
                        multiply_panels::<S, F>(s, left, right, head_dim, factor, k0 > 0, (d_q, stride));
                    }
                    let key_tiles = Tiles::new(count, F::TILE_ROWS);
                    let units = nq.div_ceil(per_unit);
                    for (part, left, right, alpha) in
                        [(1, &*ds_over, &*queries_over, factor), (2, &*p_over, &*d_over, T::ONE)]
                    {
                        let left = LeftTiles::columns((key_tiles, 0, key_tiles.count), units, left, pitch);
                        let to = &mut self.d_qkv[at + part * width + k0 * stride..];
                        multiply_panels::<S, F>(s, left, (right, units, 0), head_dim, alpha, block > 0, (to, stride));
                    }
                }
            }
            if let Some(rope) = self.rope {
                rope.rotate_head(s, self.shape, &mut self.d_qkv[at..], (0, true));
            }
        }
    }
}

/// From scores and products with dO, both `[queries, keys]`: `p = 2^(score − lse)` and `ds = p·(dp − delta)`, `[queries /
/// steps of a unit, keys]`, to `over`; where a unit holds two, also ds as rows in the strip it came from.
#[inline(always)]
fn score_gradients<S: Simd, F: Format<S>>(
    s: S,
    ((vectors, rest), pitch): ((usize, S::V), usize),
    [minus_lse, delta]: [&[S::T]; 2],
    [p_strip, ds_strip]: [&mut [S::T]; 2],
    [p_over, ds_over]: [&mut [S::T]; 2],
) {
    let steps = F::STEPS;
    let rows = minus_lse.len();
    let over = p_over.chunks_mut(pitch).zip(ds_over.chunks_mut(pitch));
    let strips = p_strip.chunks(steps * pitch).zip(ds_strip.chunks_mut(steps * pitch));
    for (unit, ((p_over, ds_over), (p_strip, ds_strip))) in over.zip(strips).enumerate().take(rows.div_ceil(steps)) {
        let row = unit * steps;
        let mut block = Block { s, p_strip, ds_strip, p_over, ds_over, pitch, format: PhantomData::<F> };
        let mut at = 0;
        let mut statistics = [[s.zero(); 2]; 2];
        for ((of, &minus_lse), &delta) in statistics.iter_mut().zip(&minus_lse[row..]).zip(&delta[row..]) {
            *of = [s.splat(minus_lse), s.splat(delta)];
        }
        macro_rules! queries {
            ($here:literal) => {{
                while at + ABREAST < vectors {
                    block.gradients::<$here, ABREAST>(at, statistics, s.zero());
                    at += ABREAST;
                }
                match vectors - at {
                    1 => block.gradients::<$here, 1>(at, statistics, rest),
                    2 => block.gradients::<$here, 2>(at, statistics, rest),
                    3 => block.gradients::<$here, 3>(at, statistics, rest),
                    _ => block.gradients::<$here, ABREAST>(at, statistics, rest),
                }
            }};
        }
        if steps.min(rows - row) == 1 { queries!(1) } else { queries!(2) }
    }
}

/// The scores of a unit's queries.
struct Block<'a, S: Simd, F> {
    s: S,
    p_strip: &'a [S::T],
    ds_strip: &'a mut [S::T],
    p_over: &'a mut [S::T],
    ds_over: &'a mut [S::T],
    pitch: usize,
    format: PhantomData<F>,
}

impl<S: Simd, F: Format<S>> Block<'_, S, F> {
    /// `BESIDE` vectors of keys, from vector `at` on; `rest` goes to the last one first.
    #[inline(always)]
    fn gradients<const HERE: usize, const BESIDE: usize>(&mut self, at: usize, of: [[S::V; 2]; 2], rest: S::V) {
        let (s, pitch) = (self.s, self.pitch);
        // What does not exist is zero.
        let (mut p, mut ds) = ([[s.zero(); BESIDE]; 2], [[s.zero(); BESIDE]; 2]);
        for (i, ((p, ds), [minus_lse, delta])) in p.iter_mut().zip(&mut ds).zip(of).enumerate().take(HERE) {
            let row = i * pitch + at * S::LANES;
            for (c, p) in p.iter_mut().enumerate() {
                *p = s.add(s.load(&self.p_strip[row + c * S::LANES..]), minus_lse);
            }
            p[BESIDE - 1] = s.add(p[BESIDE - 1], rest);
            *p = s.exp2(*p);
            for (c, (ds, &p)) in ds.iter_mut().zip(&*p).enumerate() {
                *ds = s.mul(p, s.sub(s.load(&self.ds_strip[row + c * S::LANES..]), delta));
            }
            if F::STEPS == 2 {
                for (c, pair) in ds.chunks(2).enumerate() {
                    let second = pair.get(1).copied().unwrap_or(s.zero());
                    let to = &mut self.ds_strip[i * pitch + (at / 2 + c) * S::LANES..];
                    s.store(to, F::pack_along(s, pair[0], second));
                }
            }
        }
        for (of, to) in [(&p, &mut *self.p_over), (&ds, &mut *self.ds_over)] {
            for (c, (&first, &second)) in of[0].iter().zip(&of[1]).enumerate() {
                s.store(&mut to[(at + c) * S::LANES..], F::pack(s, first, second));
            }
        }
    }
}

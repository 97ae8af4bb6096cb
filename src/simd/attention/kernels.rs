//! The two passes of attention, one panel of queries at a time.
//!
//! Everything is computed transposed: a panel holds two vectors of queries, its scores are `Sᵀ = K Qᵀ`, `[keys,
//! queries]`, with the keys as left tiles. So the softmax runs down the rows, lane by lane, without reductions across
//! lanes, and `Pᵀ` is already a right panel for `Oᵀ = Vᵀ Pᵀ`. A head's keys and values are packed once; the scores
//! of a panel (12 KiB at 97 keys, 115 KiB at 916) stay in L1 or L2, and all of them are there before the softmax, which
//! needs no running maximum.

use super::AttentionShape;
use crate::simd::Real;
use crate::simd::elementwise::dot_product;
use crate::simd::gemm::{LeftTiles, PanelOutput, add_transposed, multiply_panel};
use crate::simd::pack::{
    PAIRS, PLAIN, Precision, ROUNDED, Strided, Tiles, in_format, pack_panel, pack_tiles, panel_width, per_unit,
};
use crate::simd::vector::{Kernel, Simd};

/// Lanes of two vectors, at most.
const WIDEST: usize = 32;

/// Queries whose probabilities the backward pass keeps at a time: the depth of the products that sum over queries.
fn query_block(len: usize) -> usize {
    if len <= 256 { 4 * WIDEST } else { 2 * WIDEST }
}

/// Elements of scratch, enough for either pass on every instruction set.
pub fn scratch(shape: &AttentionShape) -> usize {
    let (len, block) = (shape.len.next_multiple_of(16), query_block(shape.len));
    let dim = shape.head_dim.next_multiple_of(16);
    let packed = 3 * (len + 16) * dim;
    let score_panels = 3 * len * block + len * WIDEST;
    let query_panels = (3 * WIDEST + block) * dim;
    packed + score_panels + query_panels + 2 * block + 20 * 16
}

/// Cuts pieces that start on cache lines.
struct Pieces<'a, T>(&'a mut [T]);

impl<'a, T> Pieces<'a, T> {
    #[inline(always)]
    fn new(whole: &'a mut [T]) -> Self {
        let before = whole.as_ptr().align_offset(64).min(16);
        Self(&mut whole[before..])
    }

    #[inline(always)]
    fn take(&mut self, len: usize) -> &'a mut [T] {
        let (piece, rest) = std::mem::take(&mut self.0).split_at_mut(len.next_multiple_of(16));
        self.0 = rest;
        &mut piece[..len]
    }
}

pub struct Forward<'a, T> {
    pub precision: Precision,
    pub shape: &'a AttentionShape,
    /// Already rotated.
    pub qkv: &'a [T],
    pub out: &'a mut [T],
    pub lse: &'a mut [T],
    pub scratch: &'a mut [T],
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, |FORMAT| self.forward::<S, FORMAT>(s))
    }
}

impl<T: Real> Forward<'_, T> {
    #[inline(always)]
    fn forward<S: Simd<T = T>, const FORMAT: u8>(self, s: S) {
        let &AttentionShape { sequences, len, heads, head_dim } = self.shape;
        let (width, stride) = (self.shape.width(), self.shape.row_stride());
        let factor = T::from_f64(1.0 / (head_dim as f64).sqrt());
        let (dim_depth, key_depth) = (head_dim.div_ceil(per_unit(FORMAT)), len.div_ceil(per_unit(FORMAT)));
        let key_tiles = Tiles::new(len, S::TILE_ROWS);
        let dim_tiles = Tiles::new(head_dim, S::TILE_ROWS);
        let (all_keys, all_dims) = ((key_tiles, 0, key_tiles.count), (dim_tiles, 0, dim_tiles.count));
        let mut pieces = Pieces::new(self.scratch);
        let keys = pieces.take(dim_depth * len);
        let values = pieces.take(key_depth * head_dim);
        let queries = pieces.take(dim_depth * WIDEST);
        let scores = pieces.take(len * WIDEST);
        let turned = pieces.take(head_dim * WIDEST);
        for (sequence, head) in (0..sequences).flat_map(|i| (0..heads).map(move |h| (i, h))) {
            let qkv = &self.qkv[sequence * len * stride + head * head_dim..];
            let (q, k, v) = (qkv, &qkv[width..], &qkv[2 * width..]);
            pack_tiles::<S, FORMAT>(s, Strided::rows(k, stride), all_keys, (0, head_dim), keys);
            pack_tiles::<S, FORMAT>(s, Strided::columns(v, stride), all_dims, (0, len), values);
            let lse = &mut self.lse[(sequence * heads + head) * len..][..len];
            let mut start = 0;
            while start < len {
                let panel = panel_width::<S>(len, start);
                let count = panel.min(len - start);
                let from = Strided::rows(q, stride);
                pack_panel::<S, FORMAT>(s, from, (start, count, panel), (0, head_dim), queries);
                let to = PanelOutput { alpha: factor, ..PanelOutput::strip(scores, panel) };
                multiply_panel::<S, FORMAT>(s, LeftTiles::all(key_tiles, dim_depth, keys), dim_depth, queries, to);
                let mut inverse = [T::ZERO; WIDEST];
                softmax::<S, FORMAT>(s, len, panel, scores, &mut lse[start..start + count], &mut inverse);
                let to = PanelOutput::strip(turned, panel);
                multiply_panel::<S, FORMAT>(s, LeftTiles::all(dim_tiles, key_depth, values), key_depth, scores, to);
                for row in turned.chunks_exact_mut(panel).take(head_dim) {
                    for (row, inverse) in row.chunks_exact_mut(S::LANES).zip(inverse.chunks_exact(S::LANES)) {
                        s.store(row, s.mul(s.load(row), s.load(inverse)));
                    }
                }
                let out = &mut self.out[(sequence * len + start) * width + head * head_dim..];
                add_transposed(s, (count, head_dim), turned, panel, out, width, false);
                start += panel;
            }
        }
    }
}

/// `scores [len, panel] ← exp(score − maximum of its column)`, as a right panel; `inverse` receives one over each
/// column's sum and `lse` the logarithm of the sum of exponentials.
#[inline(always)]
fn softmax<S: Simd, const FORMAT: u8>(
    s: S,
    len: usize,
    panel: usize,
    scores: &mut [S::T],
    lse: &mut [S::T],
    inverse: &mut [S::T; WIDEST],
) {
    let scores = &mut scores[..len * panel];
    let mut largest = [S::T::ZERO; WIDEST];
    let mut total = [S::T::ZERO; WIDEST];
    let mut column = 0;
    while column < panel {
        let mut max = s.load(&scores[column..]);
        for row in scores.chunks_exact(panel) {
            max = s.max(s.load(&row[column..]), max);
        }
        let mut sum = s.zero();
        if FORMAT == PAIRS {
            for pair in 0..len.div_ceil(2) {
                let low = s.exp(s.sub(s.load(&scores[2 * pair * panel + column..]), max));
                sum = s.add(sum, low);
                let mut high = s.zero();
                if 2 * pair + 1 < len {
                    high = s.exp(s.sub(s.load(&scores[(2 * pair + 1) * panel + column..]), max));
                    sum = s.add(sum, high);
                }
                s.store(&mut scores[pair * panel + column..], s.pair(low, high));
            }
        } else {
            for row in scores.chunks_exact_mut(panel) {
                let e = s.exp(s.sub(s.load(&row[column..]), max));
                sum = s.add(sum, e);
                s.store(&mut row[column..], if FORMAT == ROUNDED { s.round_bf16(e) } else { e });
            }
        }
        s.store(&mut largest[column..], max);
        s.store(&mut total[column..], sum);
        s.store(&mut inverse[column..], s.div(s.splat(S::T::ONE), sum));
        column += S::LANES;
    }
    for ((lse, &largest), &total) in lse.iter_mut().zip(&largest).zip(&total) {
        *lse = largest + total.ln();
    }
}

pub struct Backward<'a, T> {
    pub precision: Precision,
    pub shape: &'a AttentionShape,
    pub qkv: &'a [T],
    pub out: &'a [T],
    pub lse: &'a [T],
    pub d_out: &'a [T],
    pub d_qkv: &'a mut [T],
    pub scratch: &'a mut [T],
    pub faults: [T; 3],
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, |FORMAT| self.backward::<S, FORMAT>(s))
    }
}

impl<T: Real> Backward<'_, T> {
    #[inline(always)]
    fn backward<S: Simd<T = T>, const FORMAT: u8>(self, s: S) {
        let &AttentionShape { sequences, len, heads, head_dim } = self.shape;
        let (width, stride) = (self.shape.width(), self.shape.row_stride());
        let factor = T::from_f64(1.0 / (head_dim as f64).sqrt());
        let [scale_q, scale_k, scale_v] = self.faults;
        let (dim_depth, key_depth) = (head_dim.div_ceil(per_unit(FORMAT)), len.div_ceil(per_unit(FORMAT)));
        let key_tiles = Tiles::new(len, S::TILE_ROWS);
        let dim_tiles = Tiles::new(head_dim, S::TILE_ROWS);
        let (all_keys, all_dims) = ((key_tiles, 0, key_tiles.count), (dim_tiles, 0, dim_tiles.count));
        let block = query_block(len);
        let mut pieces = Pieces::new(self.scratch);
        let keys = pieces.take(dim_depth * len);
        let values = pieces.take(dim_depth * len);
        let keys_by_dim = pieces.take(key_depth * head_dim);
        let [queries, d_rows] = [(); 2].map(|()| pieces.take(dim_depth * WIDEST));
        let [p, ds] = [(); 2].map(|()| pieces.take(len * block));
        let ds_panel = pieces.take(if FORMAT == PLAIN { 0 } else { key_depth * WIDEST });
        let left = pieces.take(len * block);
        let right = pieces.take(block * head_dim.next_multiple_of(16));
        let turned = pieces.take(head_dim * WIDEST);
        let [minus_lse, delta] = [(); 2].map(|()| pieces.take(block));
        for (sequence, head) in (0..sequences).flat_map(|i| (0..heads).map(move |h| (i, h))) {
            let at = sequence * len * stride + head * head_dim;
            let (q, k, v) = (&self.qkv[at..], &self.qkv[at + width..], &self.qkv[at + 2 * width..]);
            let o_at = sequence * len * width + head * head_dim;
            let (out, d_out) = (&self.out[o_at..], &self.d_out[o_at..]);
            let lse = &self.lse[(sequence * heads + head) * len..][..len];
            pack_tiles::<S, FORMAT>(s, Strided::rows(k, stride), all_keys, (0, head_dim), keys);
            pack_tiles::<S, FORMAT>(s, Strided::rows(v, stride), all_keys, (0, head_dim), values);
            pack_tiles::<S, FORMAT>(s, Strided::columns(k, stride), all_dims, (0, len), keys_by_dim);
            for q0 in (0..len).step_by(block) {
                let nq = block.min(len - q0);
                minus_lse.fill(T::ZERO);
                delta.fill(T::ZERO);
                for i in 0..nq {
                    let row = (q0 + i) * width..(q0 + i) * width + head_dim;
                    delta[i] = dot_product(s, &out[row.clone()], &d_out[row]);
                    minus_lse[i] = -lse[q0 + i];
                }
                let (q_rows, d_out_rows) = (&q[q0 * stride..], &d_out[q0 * width..]);
                let mut start = 0;
                while start < nq {
                    let panel = panel_width::<S>(nq, start);
                    let count = panel.min(nq - start);
                    let vectors = (start, count, panel);
                    let p = &mut p[start * len..][..len * panel];
                    let ds = &mut ds[start * len..][..len * panel];
                    pack_panel::<S, FORMAT>(s, Strided::rows(q_rows, stride), vectors, (0, head_dim), queries);
                    pack_panel::<S, FORMAT>(s, Strided::rows(d_out_rows, width), vectors, (0, head_dim), d_rows);
                    let to = PanelOutput { alpha: factor, ..PanelOutput::strip(p, panel) };
                    multiply_panel::<S, FORMAT>(s, LeftTiles::all(key_tiles, dim_depth, keys), dim_depth, queries, to);
                    let to = PanelOutput::strip(ds, panel);
                    multiply_panel::<S, FORMAT>(s, LeftTiles::all(key_tiles, dim_depth, values), dim_depth, d_rows, to);
                    let (minus_lse, delta) = (&minus_lse[start..], &delta[start..]);
                    score_gradients(s, panel, p, ds, minus_lse, delta);
                    let right: &[T] = if FORMAT != PLAIN {
                        let from = Strided::columns(ds, panel);
                        pack_panel::<S, FORMAT>(s, from, (0, panel, panel), (0, len), ds_panel);
                        ds_panel
                    } else {
                        ds
                    };
                    let alpha = factor * scale_q;
                    let to = PanelOutput { alpha, ..PanelOutput::strip(turned, panel) };
                    multiply_panel::<S, FORMAT>(
                        s,
                        LeftTiles::all(dim_tiles, key_depth, keys_by_dim),
                        key_depth,
                        right,
                        to,
                    );
                    let d_q = &mut self.d_qkv[at + (q0 + start) * stride..];
                    add_transposed(s, (count, head_dim), turned, panel, d_q, stride, true);
                    start += panel;
                }
                let d_v = &mut self.d_qkv[at + 2 * width..];
                let from = Strided::columns(d_out_rows, width);
                sum_over_queries::<S, FORMAT>(s, (len, nq, head_dim), p, from, (left, right), scale_v, d_v, stride);
                let d_k = &mut self.d_qkv[at + width..];
                let from = Strided::columns(q_rows, stride);
                let alpha = factor * scale_k;
                sum_over_queries::<S, FORMAT>(s, (len, nq, head_dim), ds, from, (left, right), alpha, d_k, stride);
            }
        }
    }
}

/// `p ← exp(p − lse)`, `ds ← p·(ds − delta)`, both `[keys, panel]`.
#[inline(always)]
fn score_gradients<S: Simd>(s: S, panel: usize, p: &mut [S::T], ds: &mut [S::T], minus_lse: &[S::T], delta: &[S::T]) {
    let mut column = 0;
    while column < panel {
        let (minus_lse, delta) = (s.load(&minus_lse[column..]), s.load(&delta[column..]));
        for (p, ds) in p.chunks_exact_mut(panel).zip(ds.chunks_exact_mut(panel)) {
            let (p, ds) = (&mut p[column..], &mut ds[column..]);
            let probability = s.exp(s.add(s.load(p), minus_lse));
            s.store(p, probability);
            s.store(ds, s.mul(probability, s.sub(s.load(ds), delta)));
        }
        column += S::LANES;
    }
}

/// `out [keys, dim] ← out + alpha · Σ over queries of scores[key, query] · rows[query, dim]`; the scores lie in panels
/// of queries, each `[keys, its width]`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn sum_over_queries<S: Simd, const FORMAT: u8>(
    s: S,
    (len, nq, head_dim): (usize, usize, usize),
    scores: &[S::T],
    rows: Strided<'_, S::T>,
    (left, right): (&mut [S::T], &mut [S::T]),
    alpha: S::T,
    out: &mut [S::T],
    out_stride: usize,
) {
    let per_unit = per_unit(FORMAT);
    let depth = nq.div_ceil(per_unit);
    let tiles = Tiles::new(len, S::TILE_ROWS);
    let mut start = 0;
    while start < nq {
        let panel = panel_width::<S>(nq, start);
        let count = panel.min(nq - start);
        let from = Strided::rows(&scores[start * len..][..len * panel], panel);
        for tile in 0..tiles.count {
            let (first, height) = (tiles.start(tile), tiles.height(tile));
            let to = &mut left[depth * first + start / per_unit * height..];
            pack_panel::<S, FORMAT>(s, from, (first, height, height), (0, count), to);
        }
        start += panel;
    }
    let mut column = 0;
    while column < head_dim {
        let panel = panel_width::<S>(head_dim, column);
        let columns = panel.min(head_dim - column);
        pack_panel::<S, FORMAT>(s, rows, (column, columns, panel), (0, nq), right);
        let to =
            PanelOutput { out: &mut out[column..], stride: out_stride, columns, alpha, accumulate: true, ahead: &[] };
        multiply_panel::<S, FORMAT>(s, LeftTiles::all(tiles, depth, left), depth, right, to);
        column += panel;
    }
}

//! SwiGLU over the columns of a sequence: a panel of columns goes through both products.

use super::super::Real;
use super::super::format::UnitFormat;
use super::super::gemm::{LeftTiles, PanelOutput, multiply_panel};
use super::super::math::{ABREAST, Use, silu_mul};
use super::super::pack::{Tiles, panel_width};
use super::super::scratch::Scratch;
use super::super::vector::Simd;
use super::quantize::{Across, element, elements_of_row, pack_right_across};
use super::swiglu::SwigluInt8;
use super::weight::tiles_of;

/// Rows of a strip, at most: with 2 vectors 24 KiB.
const STRIP_ROWS: usize = 192;

impl<T: Real> SwigluInt8<'_, T> {
    #[inline(always)]
    pub(super) fn cols<S: Simd<T = T>>(mut self, s: S) {
        let n = self.vectors;
        let mut column = 0;
        while column < n {
            let panel = panel_width::<S>(n, column);
            if panel == S::LANES {
                self.panel::<S, 1>(s, column);
            } else {
                self.panel::<S, 2>(s, column);
            }
            column += panel;
        }
        if let Some(epilogue) = &mut self.epilogue {
            epilogue.sequence(s, n, self.y);
        }
    }

    #[inline(always)]
    fn panel<S: Simd<T = T>, const VECTORS: usize>(&mut self, s: S, column: usize) {
        let (shape, n) = (self.shape, self.vectors);
        let (steps, limit) = (<S::Int8 as UnitFormat<S>>::STEPS, <S::Int8 as UnitFormat<S>>::TILE_ROWS);
        let (x_depth, a_depth) = (shape.width.div_ceil(steps), shape.inner.div_ceil(steps));
        let width = VECTORS * S::LANES;
        let columns = width.min(n - column);
        let tiles = tiles_of::<S>(2 * shape.inner, true);
        let strips = Tiles::new(tiles.count, STRIP_ROWS / limit);
        let Scratch { left, right, out, activation, scales } = &mut *self.scratch;
        let x = &mut left.at_least(x_depth * width)[..x_depth * width];
        let a = &mut right.at_least(a_depth * width)[..a_depth * width];
        let strip = out.at_least(STRIP_ROWS * width);
        let activation = &mut activation.at_least(shape.inner * width)[..shape.inner * width];
        let slots = &mut scales.at_least(2 * width)[..2 * width];
        let ([gate_up, gate_up_scales], [down, down_scales]) = (self.gate_up, self.down);

        let from = Across { data: &self.x[column..], stride: n, k: shape.width, count: columns };
        let mut largest = [s.zero(); VECTORS];
        for (j, largest) in largest.iter_mut().enumerate() {
            *largest = from.largest(s, j);
        }
        pack_right_across::<S, S::Int8, VECTORS>(s, from, largest, x, slots);
        let mut largest = [s.zero(); VECTORS];
        for block in 0..strips.count {
            let some = (tiles, strips.start(block), strips.start(block + 1));
            let (row, end) = (tiles.start(some.1), tiles.start(some.2));
            // The strip: rows of g and of u in turn.
            let strip = &mut strip[..(end - row) * width];
            let left = LeftTiles::some(some, x_depth, &gate_up[x_depth * row..]);
            multiply_panel::<S, S::Int8>(s, left, x, PanelOutput::strip(&mut *strip, width));
            let to = &mut activation[row / 2 * width..end / 2 * width];
            activate::<S, VECTORS>(s, strip, &gate_up_scales[row..end], slots, to, &mut largest);
        }
        let from = Across { data: activation, stride: width, k: shape.inner, count: width };
        pack_right_across::<S, S::Int8, VECTORS>(s, from, largest, a, slots);
        let out_tiles = tiles_of::<S>(shape.out, false);
        let to = PanelOutput {
            out: &mut self.y[column..],
            stride: n,
            columns,
            alpha: T::ONE,
            accumulate: false,
            is_near: false,
            prefetch: &[],
        };
        multiply_panel::<S, S::Int8>(s, LeftTiles::all(out_tiles, a_depth, down), a, to);
        for (y, &scale) in self.y.chunks_exact_mut(n).zip(down_scales) {
            elements_of_row::<S, S::Int8>(s, &mut y[column..column + columns], scale, slots);
        }
    }
}

/// Rows of sums, g and u in turn, of `VECTORS` vectors, become `silu(g)·u`; `largest` follows their magnitudes.
#[inline(always)]
fn activate<S: Simd, const VECTORS: usize>(
    s: S,
    strip: &[S::T],
    scales: &[S::T],
    slots: &[S::T],
    to: &mut [S::T],
    largest: &mut [S::V; VECTORS],
) {
    let (width, count) = (VECTORS * S::LANES, scales.len() / 2 * VECTORS);
    for first in (0..count).step_by(ABREAST) {
        let (mut g, mut u) = ([s.zero(); ABREAST], [s.zero(); ABREAST]);
        for i in 0..ABREAST {
            // Vectors beyond the last are that one again.
            let at = (first + i).min(count - 1);
            let (pair, j) = (at / VECTORS, at % VECTORS);
            let (slot, rows) = (&slots[j * 2 * S::LANES..][..2 * S::LANES], &strip[2 * pair * width + j * S::LANES..]);
            g[i] = element::<S, S::Int8>(s, s.load(rows), s.splat(scales[2 * pair]), slot);
            u[i] = element::<S, S::Int8>(s, s.load(&rows[width..]), s.splat(scales[2 * pair + 1]), slot);
        }
        let a = silu_mul(s, g, u, Use::Rounded);
        for (i, (to, a)) in to[first * S::LANES..].chunks_exact_mut(S::LANES).zip(a).enumerate() {
            s.store(to, a);
            largest[(first + i) % VECTORS] = s.max(s.abs(a), largest[(first + i) % VECTORS]);
        }
    }
}

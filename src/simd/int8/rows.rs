//! SwiGLU over rows: a block of rows goes through both products.

use super::super::Real;
use super::super::format::UnitFormat;
use super::super::gemm::{LeftTiles, PanelOutput, multiply_panel, multiply_panels};
use super::super::math::{ABREAST, Use, silu_mul};
use super::super::pack::Tiles;
use super::super::scratch::Scratch;
use super::super::vector::Simd;
use super::quantize::{Along, element, elements_of_row, pack_tiles};
use super::swiglu::SwigluInt8;

/// Elements of the activation of a block of rows, which stay in L2 beside the packed operands: 640 KiB.
const ROW_BLOCK: usize = 160 << 10;

impl<T: Real> SwigluInt8<'_, T> {
    #[inline(always)]
    pub(super) fn rows<S: Simd<T = T>>(mut self, s: S) {
        let (shape, m) = (self.shape, self.vectors);
        if m == 0 {
            return;
        }
        let (steps, limit) = (<S::Int8 as UnitFormat<S>>::STEPS, <S::Int8 as UnitFormat<S>>::TILE_ROWS);
        let (x_depth, a_depth) = (shape.width.div_ceil(steps), shape.inner.div_ceil(steps));
        let pieces = shape.inner.div_ceil(S::LANES);
        let tiles = Tiles::new(m, limit);
        let blocks = Tiles::new(tiles.count, (ROW_BLOCK / (pieces * S::LANES * limit)).max(1));
        let Scratch { left, right, out, activation, scales } = self.scratch;
        let ([gate_up, gate_up_slots], [down, down_slots]) = (self.gate_up, self.down);
        for block in 0..blocks.count {
            let some = (tiles, blocks.start(block), blocks.start(block + 1));
            let (row, end) = (tiles.start(some.1), tiles.start(some.2));
            let rows = end - row;
            let (x, a) = (left.at_least(x_depth * rows), right.at_least(a_depth * rows));
            let strip = &mut out.at_least(rows * 2 * S::LANES)[..rows * 2 * S::LANES];
            let activation = &mut activation.at_least(pieces * rows * S::LANES)[..pieces * rows * S::LANES];
            let scales = &mut scales.at_least(rows)[..rows];
            let from = Along::rows::<S>(&self.x[row * shape.width..end * shape.width], shape.width);
            pack_tiles::<S>(s, from, some, x, scales);
            let slots = gate_up_slots.chunks_exact(4 * S::LANES);
            for (piece, (slots, to)) in slots.zip(activation.chunks_exact_mut(rows * S::LANES)).enumerate() {
                // The strip: rows of a vector of g and one of u.
                let panel = &gate_up[x_depth * 2 * piece * S::LANES..];
                let left = LeftTiles::some(some, x_depth, &*x);
                multiply_panel::<S, S::Int8>(s, left, panel, PanelOutput::strip(&mut *strip, 2 * S::LANES));
                activate(s, strip, scales, slots, to);
            }
            let from = Along { data: activation, row: S::LANES, piece: rows * S::LANES, k: shape.inner };
            pack_tiles::<S>(s, from, some, a, scales);
            let y = &mut self.y[row * shape.out..end * shape.out];
            let left = LeftTiles::some(some, a_depth, &*a);
            let to = (&mut *y, shape.out);
            multiply_panels::<S, S::Int8>(s, left, (down, a_depth, 0), shape.out, T::ONE, false, to);
            for (y, &scale) in y.chunks_exact_mut(shape.out).zip(&*scales) {
                elements_of_row::<S, S::Int8>(s, y, scale, down_slots);
            }
            if let Some(epilogue) = &mut self.epilogue {
                epilogue.rows(s, shape.out, row, y);
            }
        }
    }
}

/// Rows of sums, a vector of g and one of u with slots of their own, become `silu(g)·u`, a vector a row.
#[inline(always)]
fn activate<S: Simd>(s: S, strip: &[S::T], scales: &[S::T], slots: &[S::T], to: &mut [S::T]) {
    let (g_slot, u_slot) = slots.split_at(2 * S::LANES);
    let count = scales.len();
    for first in (0..count).step_by(ABREAST) {
        let (mut g, mut u) = ([s.zero(); ABREAST], [s.zero(); ABREAST]);
        for i in 0..ABREAST {
            // Rows beyond the last are that one again.
            let row = (first + i).min(count - 1);
            let (pair, scale) = (&strip[row * 2 * S::LANES..][..2 * S::LANES], s.splat(scales[row]));
            g[i] = element::<S, S::Int8>(s, s.load(pair), scale, g_slot);
            u[i] = element::<S, S::Int8>(s, s.load(&pair[S::LANES..]), scale, u_slot);
        }
        let a = silu_mul(s, g, u, Use::Rounded);
        for (to, a) in to[first * S::LANES..].chunks_exact_mut(S::LANES).zip(a) {
            s.store(to, a);
        }
    }
}

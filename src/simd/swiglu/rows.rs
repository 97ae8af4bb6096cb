//! Forward over rows: a block of rows, packed once, goes through both products.

use super::super::Real;
use super::super::format::Format;
use super::super::gemm::{LeftTiles, PanelOutput, multiply_panel, multiply_panels};
use super::super::left::LeftTile;
use super::super::math::{ABREAST, silu_mul};
use super::super::pack::{Strided, Tiles, pack_tiles};
use super::super::scratch::Scratch;
use super::super::vector::Simd;
use super::{Saved, Shape, SwigluForward, save, saved_unit, vectors_in_panel};

/// Units of packed input and activation of a block of rows, kept in L2 and, in f32, a little beyond (1 MiB).
const ROW_BLOCK: usize = 256 << 10;

impl<T: Real> SwigluForward<'_, T> {
    #[inline(always)]
    pub(super) fn rows<S: Simd<T = T>, F: Format<S>>(mut self, s: S) {
        let (Shape { width, inner, out }, m) = (self.shape, self.vectors);
        if m == 0 {
            return;
        }
        let (x_depth, a_depth) = (width.div_ceil(F::STEPS), inner.div_ceil(F::STEPS));
        let keeps = self.saved.is_some();
        let streamed = self.saved.is_some_and(|saved| saved.all.is_streamed());
        let tiles = Tiles::new(m, F::TILE_ROWS);
        let blocks = Tiles::new(tiles.count, (ROW_BLOCK / ((x_depth + a_depth) * F::TILE_ROWS)).max(1));
        let Scratch { left, right, out: strip, .. } = self.scratch;
        for block in 0..blocks.count {
            let (first, last) = (blocks.start(block), blocks.start(block) + blocks.height(block));
            let (row, rows) = (tiles.start(first), tiles.start(last) - tiles.start(first));
            let x = left.at_least(x_depth * rows);
            let a = right.at_least(a_depth * rows);
            let strip = &mut strip.at_least(rows * 2 * S::LANES)[..rows * 2 * S::LANES];
            let block = (tiles, first, last);
            pack_tiles::<S, F>(s, Strided::rows(self.x, width), block, (0, width), x);
            for gate in (0..inner).step_by(S::LANES) {
                let gates = S::LANES.min(inner - gate);
                // The strip: rows of a vector of g and one of u; what is saved in full precision is the strip itself.
                let (unit, beside) = (saved_unit::<S>(F::STEPS), vectors_in_panel::<S>(inner, gate));
                let at = gate / S::LANES % 2;
                let saved = self.saved.map(|Saved { all, first, vectors }| {
                    let from = ((gate / S::LANES - at) * vectors + (first + row) * beside + at) * unit;
                    // SAFETY: of a panel, the rows of this part.
                    unsafe { all.slice(from..from + ((rows - 1) * beside + 1) * unit) }
                });
                let (strip, stride, saved) = match saved {
                    Some(saved) if F::AS_IS => (saved, beside * unit, None),
                    saved => (&mut *strip, 2 * S::LANES, saved),
                };
                let to = PanelOutput {
                    out: &mut *strip,
                    stride,
                    columns: 2 * S::LANES,
                    alpha: T::ONE,
                    accumulate: false,
                    is_near: !(F::AS_IS && keeps),
                    prefetch: &[],
                };
                let panel = &self.gate_up[x_depth * 2 * gate..];
                multiply_panel::<S, F>(s, LeftTiles::some(block, x_depth, &*x), panel, to);
                for tile in first..last {
                    let (start, height) = (tiles.start(tile) - row, tiles.height(tile));
                    let strip = &strip[start * stride..];
                    let a = LeftTile::new(&mut a[a_depth * start..], (height, a_depth));
                    activate::<S, F>(s, strip, stride, (height, gates), a, gate / F::STEPS);
                }
                if let Some(saved) = saved {
                    for (pair, saved) in strip.chunks_exact(2 * S::LANES).zip(saved.chunks_mut(beside * unit)) {
                        save::<S, F>(s, (s.load(pair), s.load(&pair[S::LANES..])), S::LANES, streamed, saved);
                    }
                }
            }
            let left = LeftTiles::some(block, a_depth, &*a);
            let y = &mut self.y[row * out..];
            multiply_panels::<S, F>(s, left, (self.down, a_depth, 0), out, T::ONE, false, (y, out));
            if let Some(epilogue) = &mut self.epilogue {
                epilogue.rows(s, out, row, &mut self.y[row * out..][..rows * out]);
            }
        }
        s.fence();
    }
}

/// One tile: `strip [height, vector of g | vector of u]`, rows `stride` apart, of which `gates` lanes count, becomes
/// `silu(g)·u` as that many steps of a left tile, from a unit on.
#[inline(always)]
fn activate<S: Simd, F: Format<S>>(
    s: S,
    strip: &[S::T],
    stride: usize,
    (height, gates): (usize, usize),
    mut to: LeftTile<'_, S::T>,
    unit: usize,
) {
    for row in (0..height).step_by(S::LANES) {
        let rows = S::LANES.min(height - row);
        let mut block = s.block();
        for (i, block) in block.as_mut().chunks_exact_mut(ABREAST).enumerate() {
            let r = i * ABREAST;
            if r >= rows {
                break;
            }
            let (mut g, mut u) = ([s.zero(); ABREAST], [s.zero(); ABREAST]);
            for j in 0..ABREAST {
                // Rows beyond the last are that one again.
                let pair = &strip[(row + (r + j).min(rows - 1)) * stride..][..2 * S::LANES];
                (g[j], u[j]) = (s.load(pair), s.load(&pair[S::LANES..]));
            }
            block.copy_from_slice(&silu_mul(s, g, u, F::USE));
        }
        to.put_rows::<S, F>(s, block, (rows, gates), (row, unit));
    }
}

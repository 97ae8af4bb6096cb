//! Forward over the columns of a sequence: a panel of columns goes through both products.

use super::super::Real;
use super::super::format::Format;
use super::super::gemm::{LeftTiles, PanelOutput, multiply_panel};
use super::super::math::{ABREAST, silu_mul};
use super::super::pack::{Strided, Tiles, pack_panel, panel_width};
use super::super::scratch::Scratch;
use super::super::vector::Simd;
use super::{Saved, Shape, SwigluForward, save, saved_unit, store_units, unit_at};

/// Tiles of a strip, at most, and rows: with 2 vectors 24 KiB.
const STRIP_TILES: usize = 16;
const STRIP_ROWS: usize = 192;

impl<T: Real> SwigluForward<'_, T> {
    #[inline(always)]
    pub(super) fn cols<S: Simd<T = T>, F: Format<S>>(mut self, s: S) {
        let (Shape { width, inner, out }, n) = (self.shape, self.vectors);
        let (x_depth, a_depth) = (width.div_ceil(F::STEPS), inner.div_ceil(F::STEPS));
        let tiles = Tiles::gated(inner, F::TILE_ROWS, F::STEPS);
        let out_tiles = Tiles::new(out, F::TILE_ROWS);
        let strip_tiles = STRIP_TILES.min(STRIP_ROWS / F::TILE_ROWS);
        let strips = Tiles::new(tiles.count, strip_tiles);
        let Scratch { left, right, out: strip, .. } = self.scratch;
        let x = left.at_least(x_depth * 2 * S::LANES);
        let a = right.at_least(a_depth * 2 * S::LANES);
        let keeps = self.saved.is_some();
        let streamed = self.saved.is_some_and(|saved| saved.all.is_streamed());
        let strip = strip.at_least(strip_tiles * F::TILE_ROWS * 2 * S::LANES);
        let mut column = 0;
        while column < n {
            let panel = panel_width::<S>(n, column);
            let columns = panel.min(n - column);
            let from = Strided::columns(self.x, n);
            pack_panel::<S, F>(s, from, (column, columns, panel), (0, width), x);
            for block in 0..strips.count {
                let (first, last) = (strips.start(block), strips.start(block) + strips.height(block));
                let left =
                    LeftTiles::some((tiles, first, last), x_depth, &self.gate_up[x_depth * tiles.start(first)..]);
                let (gate, gates) = (tiles.start(first) / 2, (tiles.start(last) - tiles.start(first)) / 2);
                // The strip: rows of g and of u in turn; what is saved in full precision is the strip itself.
                let saved = self.saved.map(|Saved { all, first, .. }| {
                    let (unit, vectors) = (saved_unit::<S>(F::STEPS), panel / S::LANES);
                    let at = ((first + column) / S::LANES * inner + gate * vectors) * unit;
                    // SAFETY: the panels of this part's columns.
                    unsafe { all.slice(at..at + gates * vectors * unit) }
                });
                let (strip, saved) = match saved {
                    Some(saved) if F::AS_IS => (saved, &mut [][..]),
                    saved => (&mut strip[..2 * gates * panel], saved.unwrap_or_default()),
                };
                let is_near = !(F::AS_IS && keeps);
                multiply_panel::<S, F>(s, left, x, PanelOutput { is_near, ..PanelOutput::strip(&mut *strip, panel) });
                let a = &mut a[gate / F::STEPS * panel..];
                if panel == S::LANES {
                    activate::<S, F, 1>(s, strip, (saved, streamed), a);
                } else {
                    activate::<S, F, 2>(s, strip, (saved, streamed), a);
                }
            }
            let to = PanelOutput {
                out: &mut self.y[column..],
                stride: n,
                columns,
                alpha: T::ONE,
                accumulate: false,
                is_near: false,
                prefetch: &[],
            };
            multiply_panel::<S, F>(s, LeftTiles::all(out_tiles, a_depth, self.down), a, to);
            column += panel;
        }
        if let Some(epilogue) = &mut self.epilogue {
            epilogue.sequence(s, n, self.y);
        }
        s.fence();
    }
}

/// Rows of g and of u in turn, `VECTORS` vectors wide, become `silu(g)·u` as units of a right panel, and are saved unless `saved`
/// is empty.
#[inline(always)]
fn activate<S: Simd, F: Format<S>, const VECTORS: usize>(
    s: S,
    strip: &[S::T],
    (saved, streamed): (&mut [S::T], bool),
    to: &mut [S::T],
) {
    let count = strip.len() / (2 * S::LANES);
    let saved_size = if saved.is_empty() { 0 } else { ABREAST * saved_unit::<S>(F::STEPS) };
    let size = ABREAST / F::STEPS * S::LANES;
    let whole = count / ABREAST;
    for i in 0..whole {
        let strip = &strip[i * 2 * ABREAST * S::LANES..][..2 * ABREAST * S::LANES];
        let (saved, to) = (&mut saved[i * saved_size..][..saved_size], &mut to[i * size..][..size]);
        abreast::<S, F, VECTORS>(s, strip, ABREAST, (saved, streamed), to);
    }
    if count % ABREAST > 0 {
        let (strip, saved) = (&strip[whole * 2 * ABREAST * S::LANES..], &mut saved[whole * saved_size..]);
        abreast::<S, F, VECTORS>(s, strip, count % ABREAST, (saved, streamed), &mut to[whole * size..]);
    }
}

/// As [`activate`], the first `valid` vectors of g and of u.
#[inline(always)]
fn abreast<S: Simd, F: Format<S>, const VECTORS: usize>(
    s: S,
    strip: &[S::T],
    valid: usize,
    (saved, streamed): (&mut [S::T], bool),
    to: &mut [S::T],
) {
    let panel = VECTORS * S::LANES;
    let (mut g, mut u) = ([s.zero(); ABREAST], [s.zero(); ABREAST]);
    for i in 0..valid {
        let at = i / VECTORS * 2 * panel + i % VECTORS * S::LANES;
        (g[i], u[i]) = (s.load(&strip[at..]), s.load(&strip[at + panel..]));
    }
    if !saved.is_empty() {
        for i in 0..valid {
            let at = unit_at::<S, F>(i, VECTORS, panel);
            save::<S, F>(s, (g[i], u[i]), panel, streamed, &mut saved[at..]);
        }
    }
    let a = silu_mul(s, g, u, F::USE);
    store_units::<S, F, VECTORS>(s, a, valid, false, to);
}

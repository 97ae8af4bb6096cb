//! Forward over the columns of a sequence: a panel of columns goes through both products.

use super::super::Real;
use super::super::format::Format;
use super::super::gemm::{LeftTiles, PanelOutput, multiply_panel};
use super::super::math::silu;
use super::super::pack::{Strided, Tiles, pack_panel, panel_width};
use super::super::scratch::Scratch;
use super::super::vector::Simd;
use super::{Saved, Shape, SwigluForward, save, saved_unit};

/// Tiles of a strip, at most, and rows: with 2 vectors 24 KiB.
const STRIP_TILES: usize = 16;
const STRIP_ROWS: usize = 192;

impl<T: Real> SwigluForward<'_, T> {
    #[inline(always)]
    pub(super) fn cols<S: Simd<T = T>, F: Format<S>>(mut self, s: S) {
        let (Shape { width, inner, out }, n) = (self.shape, self.vectors);
        let (x_depth, a_depth) = (width.div_ceil(F::STEPS), inner.div_ceil(F::STEPS));
        let tiles = Tiles::gated(inner, F::TILE_ROWS);
        let out_tiles = Tiles::new(out, F::TILE_ROWS);
        let strip_tiles = STRIP_TILES.min(STRIP_ROWS / F::TILE_ROWS);
        let strips = Tiles::new(tiles.count, strip_tiles);
        let Scratch { left, right, out: strip } = self.scratch;
        let x = left.at_least(x_depth * 2 * S::LANES);
        let a = right.at_least(a_depth * 2 * S::LANES);
        let strip = strip.at_least(strip_tiles * F::TILE_ROWS * 2 * S::LANES);
        let mut column = 0;
        while column < n {
            let panel = panel_width::<S>(n, column);
            let columns = panel.min(n - column);
            let from = Strided::columns(self.x, n);
            pack_panel::<S, F>(s, from, (column, columns, panel), (0, width), x);
            // In bf16 two activations share a unit: the one that waits for its odd neighbour.
            let mut even = [s.zero(); 2];
            for block in 0..strips.count {
                let (first, last) = (strips.start(block), strips.start(block) + strips.height(block));
                let left =
                    LeftTiles::some((tiles, first, last), x_depth, &self.gate_up[x_depth * tiles.start(first)..]);
                let to = PanelOutput::strip(&mut *strip, panel);
                multiply_panel::<S, F>(s, left, x, to);
                for tile in first..last {
                    let at = tiles.start(tile) - tiles.start(first);
                    let (gate, gates) = (tiles.start(tile) / 2, tiles.height(tile) / 2);
                    let (g, u) = strip[at * panel..][..2 * gates * panel].split_at(gates * panel);
                    if let Some(Saved { all, first, .. }) = self.saved {
                        let unit = saved_unit::<S>(F::STEPS);
                        let (streamed, vectors) = (all.is_streamed(), panel / S::LANES);
                        let at = ((first + column) / S::LANES * inner + gate * vectors) * unit;
                        // SAFETY: the panels of this part's columns.
                        let saved = unsafe { all.slice(at..at + gates * vectors * unit) }.chunks_exact_mut(unit);
                        let lanes = g.chunks_exact(S::LANES).zip(u.chunks_exact(S::LANES));
                        for ((g, u), saved) in lanes.zip(saved) {
                            save::<S, F>(s, (s.load(g), s.load(u)), streamed, saved);
                        }
                    }
                    activate::<S, F>(s, (gate, inner), (g, u), panel, &mut even, a);
                }
            }
            let to = PanelOutput {
                out: &mut self.y[column..],
                stride: n,
                columns,
                alpha: T::ONE,
                accumulate: false,
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

/// Rows `gate..` of a right panel: `silu(g)·u` of g and u `[rows, panel]`; `inner` rows in all.
#[inline(always)]
fn activate<S: Simd, F: Format<S>>(
    s: S,
    (gate, inner): (usize, usize),
    (g, u): (&[S::T], &[S::T]),
    panel: usize,
    even: &mut [S::V; 2],
    to: &mut [S::T],
) {
    for (row, (g, u)) in g.chunks_exact(panel).zip(u.chunks_exact(panel)).enumerate() {
        let step = gate + row;
        let to = &mut to[step / F::STEPS * panel..][..panel];
        for (j, even) in even.iter_mut().enumerate().take(panel / S::LANES) {
            let at = j * S::LANES;
            let a = s.mul(silu(s, s.load(&g[at..])), s.load(&u[at..]));
            if F::STEPS == 1 || step % 2 == 1 || step + 1 == inner {
                // A unit of two steps holds an even one and the odd one after it, or zero after the last.
                let (low, high) = if F::STEPS == 2 && step % 2 == 1 { (*even, a) } else { (a, s.zero()) };
                s.store(&mut to[at..], F::pack(s, low, high));
            } else {
                *even = a;
            }
        }
    }
}

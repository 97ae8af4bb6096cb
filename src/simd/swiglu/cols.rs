//! Forward over the columns of a sequence: a panel of columns goes through both products.

use super::super::Real;
use super::super::gemm::{LeftTiles, PanelOutput, multiply_panel};
use super::super::math::silu;
use super::super::pack::{PAIRS, ROUNDED, Strided, Tiles, pack_panel, panel_width, per_unit};
use super::super::scratch::Scratch;
use super::super::vector::{Simd, past_caches};
use super::{Forward, Shape, save, saved_unit};

/// Tiles of a strip: with 12 rows of 2 vectors 24 KiB.
const STRIP_TILES: usize = 16;

impl<T: Real> Forward<'_, T> {
    #[inline(always)]
    pub(super) fn cols<S: Simd<T = T>, const FORMAT: u8>(mut self, s: S) {
        let (Shape { width, inner, out }, n) = (self.shape, self.vectors);
        let (x_depth, a_depth) = (width.div_ceil(per_unit(FORMAT)), inner.div_ceil(per_unit(FORMAT)));
        let tiles = Tiles::gated(inner, S::TILE_ROWS);
        let out_tiles = Tiles::new(out, S::TILE_ROWS);
        let strips = Tiles::new(tiles.count, STRIP_TILES);
        let Scratch { left, right, out: strip } = self.scratch;
        let x = left.at_least(x_depth * 2 * S::LANES);
        let a = right.at_least(a_depth * 2 * S::LANES);
        let strip = strip.at_least(STRIP_TILES * S::TILE_ROWS * 2 * S::LANES);
        let mut column = 0;
        while column < n {
            let panel = panel_width::<S>(n, column);
            let columns = panel.min(n - column);
            let from = Strided::columns(self.x, n);
            pack_panel::<S, FORMAT>(s, from, (column, columns, panel), (0, width), x);
            // In bf16 two activations share a unit: the one that waits for its odd neighbour.
            let mut even = [s.zero(); 2];
            for block in 0..strips.count {
                let (first, last) = (strips.start(block), strips.start(block) + strips.height(block));
                let left =
                    LeftTiles::some((tiles, first, last), x_depth, &self.gate_up[x_depth * tiles.start(first)..]);
                let to = PanelOutput::strip(&mut *strip, panel);
                multiply_panel::<S, FORMAT>(s, left, x_depth, x, to);
                for tile in first..last {
                    let at = tiles.start(tile) - tiles.start(first);
                    let (gate, gates) = (tiles.start(tile) / 2, tiles.height(tile) / 2);
                    let (g, u) = strip[at * panel..][..2 * gates * panel].split_at(gates * panel);
                    if let Some(saved) = self.saved.as_deref_mut() {
                        let unit = saved_unit::<S>(FORMAT);
                        let (past, vectors) = (past_caches(saved), panel / S::LANES);
                        let at = (column / S::LANES * inner + gate * vectors) * unit;
                        let saved = saved[at..][..gates * vectors * unit].chunks_exact_mut(unit);
                        let lanes = g.chunks_exact(S::LANES).zip(u.chunks_exact(S::LANES));
                        for ((g, u), saved) in lanes.zip(saved) {
                            save::<S, FORMAT>(s, (s.load(g), s.load(u)), past, saved);
                        }
                    }
                    activate::<S, FORMAT>(s, (gate, inner), (g, u), panel, &mut even, a);
                }
            }
            let to = PanelOutput {
                out: &mut self.y[column..],
                stride: n,
                columns,
                alpha: T::ONE,
                accumulate: false,
                ahead: &[],
            };
            multiply_panel::<S, FORMAT>(s, LeftTiles::all(out_tiles, a_depth, self.down), a_depth, a, to);
            column += panel;
        }
        if let Some(then) = &mut self.then {
            then.sequence(s, n, self.y);
        }
        s.fence();
    }
}

/// Rows `gate..` of a right panel: `silu(g)·u` of g and u `[rows, panel]`; `inner` rows in all.
#[inline(always)]
fn activate<S: Simd, const FORMAT: u8>(
    s: S,
    (gate, inner): (usize, usize),
    (g, u): (&[S::T], &[S::T]),
    panel: usize,
    even: &mut [S::V; 2],
    to: &mut [S::T],
) {
    for (row, (g, u)) in g.chunks_exact(panel).zip(u.chunks_exact(panel)).enumerate() {
        let step = gate + row;
        let to = &mut to[step / per_unit(FORMAT) * panel..][..panel];
        for (j, even) in even.iter_mut().enumerate().take(panel / S::LANES) {
            let at = j * S::LANES;
            let a = s.mul(silu(s, s.load(&g[at..])), s.load(&u[at..]));
            match FORMAT {
                PAIRS if step % 2 == 1 => s.store(&mut to[at..], s.pair(*even, a)),
                PAIRS if step + 1 == inner => s.store(&mut to[at..], s.pair(a, s.zero())),
                PAIRS => *even = a,
                ROUNDED => s.store(&mut to[at..], s.round_bf16(a)),
                _ => s.store(&mut to[at..], a),
            }
        }
    }
}

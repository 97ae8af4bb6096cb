//! Backward over rows: gradients of g and u go from a strip in L1 straight into the three packed operands that want them.

use super::super::Real;
use super::super::format::Format;
use super::super::gemm::{LeftTiles, PanelOutput, multiply_panel, multiply_panels};
use super::super::left::LeftTile;
use super::super::math::ABREAST;
use super::super::pack::{Strided, Tiles, pack_tiles, padded, panel_width};
use super::super::panels::GATED_STEPS;
use super::super::scratch::Scratch;
use super::super::vector::Simd;
use super::{Shape, SwigluBackward, backward_abreast, saved_unit, store_abreast, store_units};

/// Units of the packed output gradient and of a chunk of the gradients of g and u, for a block of rows: half of L2 (1 MiB).
const ROW_BLOCK: usize = 128 << 10;
/// Units of gates in a chunk: their gradients and those of the ups make one pass of the product with W_gate_up.
const CHUNK: usize = 256;

impl<T: Real> SwigluBackward<'_, T> {
    #[inline(always)]
    pub(super) fn rows<S: Simd<T = T>, F: Format<S>>(mut self, s: S) {
        let (Shape { width, inner, out }, all, part) = (self.shape, self.vectors, self.part.clone());
        let m = part.len();
        if m == 0 {
            return;
        }
        let per_unit = F::STEPS;
        assert!(part.start.is_multiple_of(per_unit) && part.end <= all, "whole units");
        let rows_depth = all.div_ceil(per_unit);
        let ([_, packed_a], [_, packed_dh]) = (&self.operands.down, &self.operands.gate_up);
        let half = rows_depth * padded::<S>(inner);
        assert!(packed_a.len() == half && packed_dh.len() == 2 * half, "room for packed operands");
        let streamed = packed_dh.is_streamed();
        let (dy_depth, inner_depth) = (out.div_ceil(per_unit), 2 * inner.div_ceil(per_unit));
        let chunk = CHUNK * per_unit;
        const { assert!(CHUNK.is_multiple_of(GATED_STEPS) && GATED_STEPS.is_multiple_of(2 * S::LANES)) };
        let deepest = 2 * chunk.min(inner).div_ceil(per_unit);
        let tiles = Tiles::even(m, F::TILE_ROWS);
        let blocks = Tiles::new(tiles.count, (ROW_BLOCK / ((dy_depth + deepest) * F::TILE_ROWS)).max(1));
        let Scratch { left, right, out: strips, .. } = self.scratch;
        for block in 0..blocks.count {
            let (first, last) = (blocks.start(block), blocks.start(block) + blocks.height(block));
            let (row, rows) = (tiles.start(first), tiles.start(last) - tiles.start(first));
            let dy = left.at_least(dy_depth * rows);
            let dh = right.at_least(deepest * rows);
            let (dg, du) = strips.at_least(2 * rows * 2 * S::LANES).split_at_mut(rows * 2 * S::LANES);
            let block = (tiles, first, last);
            pack_tiles::<S, F>(s, Strided::rows(self.dy, out), block, (0, out), dy);
            for start in (0..inner).step_by(chunk) {
                let end = inner.min(start + chunk);
                let depth = 2 * (end - start).div_ceil(per_unit);
                for gate in (start..end).step_by(2 * S::LANES) {
                    let panel = panel_width::<S>(inner, gate);
                    let gates = panel.min(inner - gate);
                    let (dg, du) = (&mut dg[..rows * panel], &mut du[..rows * panel]);
                    let per_row = panel / S::LANES * saved_unit::<S>(F::STEPS);
                    let saved = &self.saved[gate / S::LANES * all * saved_unit::<S>(F::STEPS)..]
                        [(part.start + row) * per_row..][..rows * per_row];
                    let to = PanelOutput { prefetch: saved, ..PanelOutput::strip(&mut *dg, panel) };
                    let left = LeftTiles::some(block, dy_depth, dy);
                    multiply_panel::<S, F>(s, left, &self.down[dy_depth * gate..], to);
                    let steps = rows_depth * gate + (part.start + row) / per_unit * panel;
                    let operands = [(packed_dh, steps), (packed_dh, half + steps), (packed_a, steps)];
                    // SAFETY: of a panel, the steps that this part's rows are.
                    let operands =
                        operands.map(|(to, at)| unsafe { to.slice(at..at + rows.div_ceil(per_unit) * panel) });
                    if panel == S::LANES {
                        activate::<S, F, 1>(s, saved, streamed, [&mut *dg, &mut *du], operands);
                    } else {
                        activate::<S, F, 2>(s, saved, streamed, [&mut *dg, &mut *du], operands);
                    }
                    let (before, within) = ((gate - start) / GATED_STEPS * GATED_STEPS, (gate - start) % GATED_STEPS);
                    let group = GATED_STEPS.min(inner - start - before);
                    for (half, strip) in [&*dg, &*du].into_iter().enumerate() {
                        let unit = 2 * before / per_unit + half * group.div_ceil(per_unit) + within / per_unit;
                        for tile in first..last {
                            let (start, height) = (tiles.start(tile) - row, tiles.height(tile));
                            let strip = Strided::rows(&strip[start * panel..], panel);
                            let mut to = LeftTile::new(&mut dh[depth * start..], (height, depth));
                            to.pack::<S, F>(s, strip, (0, height), (0, gates), (0, unit));
                        }
                    }
                }
                let Some(dx) = self.dx.as_deref_mut() else { continue };
                let left = LeftTiles::some(block, depth, dh);
                let steps = (self.gate_up, inner_depth, 2 * (start / per_unit));
                multiply_panels::<S, F>(s, left, steps, width, T::ONE, true, (&mut dx[row * width..], width));
            }
        }
        s.fence();
    }
}

/// The gradient of the activation `[rows, panel]` in `dg` becomes those of g and of u; these and the activation itself also
/// become steps of right panels. `from` holds g and u as the forward pass saved them.
#[inline(always)]
fn activate<S: Simd, F: Format<S>, const VECTORS: usize>(
    s: S,
    from: &[S::T],
    streamed: bool,
    [dg, du]: [&mut [S::T]; 2],
    operands: [&mut [S::T]; 3],
) {
    let (size, saved_size) = (ABREAST * S::LANES, ABREAST * saved_unit::<S>(F::STEPS));
    let (count, unit_size) = (dg.len() / S::LANES, size / F::STEPS);
    let whole = count / ABREAST;
    let [to_dg, to_du, to_a] = operands;
    for i in 0..whole {
        let strips = [&mut *dg, &mut *du].map(|strip| &mut strip[i * size..][..size]);
        let operands = [&mut *to_dg, &mut *to_du, &mut *to_a].map(|to| &mut to[i * unit_size..][..unit_size]);
        let from = &from[i * saved_size..][..saved_size];
        abreast::<S, F, VECTORS>(s, from, streamed, ABREAST, strips, operands);
    }
    if count % ABREAST > 0 {
        let strips = [dg, du].map(|strip| &mut strip[whole * size..]);
        let operands = [to_dg, to_du, to_a].map(|to| &mut to[whole * unit_size..]);
        abreast::<S, F, VECTORS>(s, &from[whole * saved_size..], streamed, count % ABREAST, strips, operands);
    }
}

/// As [`activate`], the first `valid` vectors.
#[inline(always)]
fn abreast<S: Simd, F: Format<S>, const VECTORS: usize>(
    s: S,
    from: &[S::T],
    streamed: bool,
    valid: usize,
    [dg, du]: [&mut [S::T]; 2],
    [to_dg, to_du, to_a]: [&mut [S::T]; 3],
) {
    let [g, u, a] = backward_abreast::<S, F, VECTORS>(s, (dg, from), S::LANES, valid);
    store_abreast(s, g, valid, dg);
    store_abreast(s, u, valid, du);
    store_units::<S, F, VECTORS>(s, g, valid, streamed, to_dg);
    store_units::<S, F, VECTORS>(s, u, valid, streamed, to_du);
    store_units::<S, F, VECTORS>(s, a, valid, streamed, to_a);
}

//! Backward over the columns of a sequence: a panel of columns goes through everything; what lies between the products
//! (192 KiB at an inner width of 512) stays in L2.

use super::super::Real;
use super::super::format::Format;
use super::super::gemm::{LeftTiles, PanelOutput, multiply_panel};
use super::super::pack::{Strided, Tiles, pack_panel, pack_part, pack_tiles, padded, panel_width};
use super::super::scratch::Scratch;
use super::super::vector::{Simd, is_streamed};
use super::{
    ABREAST, Shape, SwigluBackward, backward_abreast, saved_unit, store_abreast, store_units, vectors_in_panel,
};

impl<T: Real> SwigluBackward<'_, T> {
    #[inline(always)]
    pub(super) fn cols<S: Simd<T = T>, F: Format<S>>(mut self, s: S) {
        let (Shape { width, inner, out }, n) = (self.shape, self.vectors);
        // SAFETY: one part has all columns.
        let [packed_dy, packed_a] = self.operands.down.each_ref().map(|to| unsafe { to.slice(0..to.len()) });
        // SAFETY: as above.
        let [packed_x, packed_dh] = self.operands.gate_up.each_ref().map(|to| unsafe { to.slice(0..to.len()) });
        let (x_tiles, a_tiles) = (Tiles::new(width, F::TILE_ROWS), Tiles::new(inner, F::TILE_ROWS));
        let dy_tiles = Tiles::new(out, F::TILE_ROWS);
        pack_tiles::<S, F>(s, Strided::rows(self.dy, n), (dy_tiles, 0, dy_tiles.count), (0, n), packed_dy);
        pack_tiles::<S, F>(s, Strided::rows(self.x, n), (x_tiles, 0, x_tiles.count), (0, n), packed_x);

        let per_unit = F::STEPS;
        let (dy_depth, dh_depth) = (out.div_ceil(per_unit), 2 * inner.div_ceil(per_unit));
        let Scratch { left: dy, right: steps, out: between, .. } = self.scratch;
        let dy = dy.at_least(dy_depth * 2 * S::LANES);
        let steps = steps.at_least(dh_depth * 2 * S::LANES);
        let (a, dh) = between.at_least(3 * inner * 2 * S::LANES).split_at_mut(inner * 2 * S::LANES);
        let mut column = 0;
        while column < n {
            let panel = panel_width::<S>(n, column);
            let columns = panel.min(n - column);
            let (a, dh) = (&mut a[..inner * panel], &mut dh[..2 * inner * panel]);
            pack_panel::<S, F>(s, Strided::columns(self.dy, n), (column, columns, panel), (0, out), dy);
            let to = PanelOutput::strip(&mut *a, panel);
            multiply_panel::<S, F>(s, LeftTiles::all(a_tiles, dy_depth, self.down), dy, to);
            let from = &self.saved[column / S::LANES * inner * saved_unit::<S>(F::STEPS)..];
            if panel == S::LANES {
                activate::<S, F, 1>(s, from, a, dh, steps);
            } else {
                activate::<S, F, 2>(s, from, a, dh, steps);
            }
            let (packed_dg, packed_du) = packed_dh.split_at_mut(packed_dh.len() / 2);
            let (dg, du) = dh.split_at(a.len());
            for (strip, to) in [(&*a, &mut *packed_a), (dg, packed_dg), (du, packed_du)] {
                if is_streamed(to) {
                    pack_steps::<S, F, true>(s, strip, (panel, columns), (column, n), to);
                } else {
                    pack_steps::<S, F, false>(s, strip, (panel, columns), (column, n), to);
                }
            }
            if let Some(dx) = self.dx.as_deref_mut() {
                let right = if F::AS_IS { &*dh } else { &*steps };
                let next = (column + panel) / S::LANES * inner * saved_unit::<S>(F::STEPS);
                let prefetch = &self.saved[next.min(self.saved.len())..];
                let prefetch = &prefetch
                    [..prefetch.len().min(vectors_in_panel::<S>(n, column) * inner * saved_unit::<S>(F::STEPS))];
                let to = PanelOutput {
                    out: &mut dx[column..],
                    stride: n,
                    columns,
                    alpha: T::ONE,
                    accumulate: true,
                    is_near: false,
                    prefetch,
                };
                multiply_panel::<S, F>(s, LeftTiles::all(x_tiles, dh_depth, self.gate_up), right, to);
            }
            column += panel;
        }
        s.fence();
    }
}

/// The gradient of the activation `[inner, panel]` in `a` becomes the activation, and `dh` the gradients of g and u, in bf16
/// also `steps`, as those of a right panel.
#[inline(always)]
fn activate<S: Simd, F: Format<S>, const VECTORS: usize>(
    s: S,
    from: &[S::T],
    a: &mut [S::T],
    dh: &mut [S::T],
    steps: &mut [S::T],
) {
    let (dg, du) = dh.split_at_mut(a.len());
    let size = ABREAST * S::LANES;
    let (saved_size, unit_size) = (ABREAST * saved_unit::<S>(F::STEPS), size / F::STEPS);
    let count = a.len() / S::LANES;
    let whole = count / ABREAST;
    let half = (count / VECTORS).div_ceil(F::STEPS) * VECTORS * S::LANES;
    let (dg_steps, du_steps) = steps.split_at_mut(half);
    for i in 0..whole {
        let strips = [&mut *a, &mut *dg, &mut *du].map(|strip| &mut strip[i * size..][..size]);
        let steps = [&mut *dg_steps, &mut *du_steps].map(|steps| &mut steps[i * unit_size..][..unit_size]);
        abreast::<S, F, VECTORS>(s, &from[i * saved_size..][..saved_size], ABREAST, strips, steps);
    }
    if count % ABREAST > 0 {
        let strips = [a, dg, du].map(|strip| &mut strip[whole * size..]);
        let steps = [dg_steps, du_steps].map(|steps| &mut steps[whole * unit_size..]);
        abreast::<S, F, VECTORS>(s, &from[whole * saved_size..], count % ABREAST, strips, steps);
    }
}

/// As [`activate`], the first `valid` vectors.
#[inline(always)]
fn abreast<S: Simd, F: Format<S>, const VECTORS: usize>(
    s: S,
    from: &[S::T],
    valid: usize,
    [a, dg, du]: [&mut [S::T]; 3],
    [dg_steps, du_steps]: [&mut [S::T]; 2],
) {
    let [g, u, activation] = backward_abreast::<S, F, VECTORS>(s, (a, from), VECTORS * S::LANES, valid);
    for (strip, of) in [(a, activation), (dg, g), (du, u)] {
        store_abreast(s, of, valid, strip);
    }
    if !F::AS_IS {
        store_units::<S, F, VECTORS>(s, g, valid, false, dg_steps);
        store_units::<S, F, VECTORS>(s, u, valid, false, du_steps);
    }
}

/// Rows of a strip become vectors of right panels, its columns their steps from `column` on, of `n`.
#[inline(always)]
fn pack_steps<S: Simd, F: Format<S>, const STREAM: bool>(
    s: S,
    strip: &[S::T],
    (panel, columns): (usize, usize),
    (column, n): (usize, usize),
    to: &mut [S::T],
) {
    let rows = strip.len() / panel;
    let depth = n.div_ceil(F::STEPS);
    assert!(to.len() == depth * padded::<S>(rows), "room for the packed operand");
    let mut row = 0;
    while row < rows {
        let width = panel_width::<S>(rows, row);
        let vectors = (row, width.min(rows - row), width);
        let to = &mut to[depth * row + column / F::STEPS * width..];
        pack_part::<S, F, STREAM>(s, Strided::rows(strip, panel), vectors, width, (0, columns), to);
        row += width;
    }
}

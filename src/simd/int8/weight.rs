//! Weights as whole numbers: packed for the forward product alone, with scales beside the panels.
//!
//! For rows, the slots of all vectors of right panels lie one after the other, of gate and up projections those of a vector of gates
//! and of their ups in turn; for columns, the scales lie in the order of the left tiles' rows.

use super::super::Real;
use super::super::format::UnitFormat;
use super::super::pack::{Side, Tiles, padded, panel_width};
use super::super::panels::Form;
use super::super::vector::{Kernel, Simd};
use super::quantize::{Along, pack_right_along, pack_tiles};

/// Elements of the panels, and of the scales.
pub fn panel_lens<S: Simd>(form: &Form) -> [usize; 2] {
    let &Form { n_out, n_in, side, gated, .. } = form;
    let depth = n_in.div_ceil(<S::Int8 as UnitFormat<S>>::STEPS);
    match side {
        Side::Rows => {
            let columns = if gated { 2 * padded::<S>(n_out / 2) } else { padded::<S>(n_out) };
            [depth * columns, 2 * columns]
        }
        Side::Cols => [depth * n_out, n_out],
    }
}

/// The panels and slots of so many rows of a weight, or of its gates and ups, which begin at whole panels. (A kernel of its own, so
/// that it is compiled once.)
pub struct PackRows<'a, T> {
    pub n_in: usize,
    pub gated: bool,
    pub count: usize,
    /// The rows' elements.
    pub pieces: [&'a [T]; 2],
    /// Where those of the first row are.
    pub panels: &'a mut [T],
    pub slots: &'a mut [T],
}

impl<T: Real> Kernel<T> for PackRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        pack_rows(s, self);
    }
}

#[inline(always)]
fn pack_rows<S: Simd>(s: S, PackRows { n_in, gated, count, pieces: [gates, ups], panels, slots }: PackRows<'_, S::T>) {
    let depth = n_in.div_ceil(<S::Int8 as UnitFormat<S>>::STEPS);
    let slot = 2 * S::LANES;
    for first in (0..count).step_by(S::LANES) {
        let vectors = (first, S::LANES.min(count - first));
        if gated {
            let panel = &mut panels[2 * depth * first..];
            for (half, piece) in [gates, ups].into_iter().enumerate() {
                let to = (&mut panel[half * S::LANES..], &mut slots[(2 * first / S::LANES + half) * slot..][..slot]);
                let from = Along::rows::<S>(piece, n_in);
                pack_right_along::<S, S::Int8>(s, from, vectors, 2 * S::LANES, to.0, to.1);
            }
        } else {
            let at = first % (2 * S::LANES);
            let width = panel_width::<S>(count, first - at);
            let panel = &mut panels[depth * (first - at) + at..];
            let slot = &mut slots[first / S::LANES * slot..][..slot];
            pack_right_along::<S, S::Int8>(s, Along::rows::<S>(gates, n_in), vectors, width, panel, slot);
        }
    }
}

/// The left tiles of a weight whose rows lie in the tiles' order, and their scales.
#[inline(always)]
pub fn pack_cols<S: Simd>(
    s: S,
    rows: &[S::T],
    (n_out, n_in, gated): (usize, usize, bool),
    (panels, scales): (&mut [S::T], &mut [S::T]),
) {
    let tiles = tiles_of::<S>(n_out, gated);
    pack_tiles::<S>(s, Along::rows::<S>(rows, n_in), (tiles, 0, tiles.count), panels, scales);
}

/// Left tiles of a weight for columns.
#[inline(always)]
pub fn tiles_of<S: Simd>(n_out: usize, gated: bool) -> Tiles {
    let limit = <S::Int8 as UnitFormat<S>>::TILE_ROWS;
    if gated { Tiles::even(n_out, limit) } else { Tiles::new(n_out, limit) }
}

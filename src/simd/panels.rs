//! The panels of a weight matrix, packed part by part. A part is a stretch of the weight's rows that is whole panels in
//! every layout, so threads pack parts side by side, each while what the optimizer has made of it is in its cache.

use std::ops::Range;

use rayon::prelude::*;

use super::Real;
use super::format::{Format, Precision, in_format};
use super::int8;
use super::isa::Isa;
use super::left::LeftTile;
use super::pack::{Side, Strided, Tiles, pack_panel, pack_panels, pack_part, pack_tiles, padded, panel_width};
use super::scratch::Aligned;
use super::shared::Shared;
use super::vector::{Kernel, Simd, dispatch_on};

/// Among the steps of the backward product with a gate and up projection, so many gates are followed by their ups: whole
/// panels of every instruction set.
pub const GATED_STEPS: usize = 32;

/// Rows of a part of a weight (gates or ups: so many of each): whole panels of every instruction set, and whole groups of
/// [`GATED_STEPS`].
const PART_ROWS: usize = 32;

const _: () = assert!(PART_ROWS.is_multiple_of(GATED_STEPS));

/// What a weight `[out, in]` is packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub n_out: usize,
    pub n_in: usize,
    pub side: Side,
    /// Gates above, ups below.
    pub gated: bool,
    pub precision: Precision,
    /// Whether it is packed as whole numbers of eight bits too (`int8/`).
    pub int8: bool,
    /// The panels' layout is this instruction set's.
    pub isa: Isa,
}

/// Panels for the forward product and for the backward one; panels of whole numbers and their scales, or nothing.
pub type Panels<T> = [Aligned<T>; 4];

impl Form {
    /// Parts that can be packed by themselves: tiles of left operands are cut as rows fall, so a weight for columns is one.
    pub fn parts(&self) -> usize {
        if self.side == Side::Rows { self.half().div_ceil(PART_ROWS).max(1) } else { 1 }
    }

    /// Rows of the weight, or of its gates.
    fn half(&self) -> usize {
        if self.gated { self.n_out / 2 } else { self.n_out }
    }

    /// Rows of a part among those of the weight, or among gates and ups.
    fn rows(&self, part: usize) -> Range<usize> {
        let half = self.half();
        if self.parts() == 1 { 0..half } else { part * PART_ROWS..half.min((part + 1) * PART_ROWS) }
    }

    /// Elements of a part: its rows, or its gates' and its ups' rows. All of the weight is in one piece.
    fn pieces(&self, part: usize) -> [Range<usize>; 2] {
        let all = self.n_out * self.n_in;
        if self.parts() == 1 {
            return [0..all, all..all];
        }
        let Range { start, end } = self.rows(part);
        let ups = if self.gated { self.half() + start..self.half() + end } else { self.n_out..self.n_out };
        [start..end, ups].map(|rows| rows.start * self.n_in..rows.end * self.n_in)
    }

    /// Zeroed panels.
    pub fn panels<T: Real>(&self) -> Panels<T> {
        let lens = dispatch_on::<T, _>(self.isa, Lens { form: *self });
        lens.map(|len| {
            let mut panels = Aligned::new();
            panels.at_least(len);
            panels
        })
    }
}

struct Lens {
    form: Form,
}

impl<T: Real> Kernel<T> for Lens {
    type Output = [usize; 4];
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, _: S) -> Self::Output {
        let Form { n_out, n_in, side, gated, precision, .. } = self.form;
        let per_unit = precision.steps::<S>();
        let (depth, half) = (n_in.div_ceil(per_unit), n_out / 2);
        let back = if gated { 2 * half.div_ceil(per_unit) } else { n_out.div_ceil(per_unit) };
        let columns = if gated { 2 * padded::<S>(half) } else { padded::<S>(n_out) };
        let [forward, backward] = match side {
            Side::Rows => [depth * columns, back * padded::<S>(n_in)],
            Side::Cols => [depth * n_out, back * n_in],
        };
        let [int8, scales] = if self.form.int8 { int8::panel_lens::<S>(&self.form) } else { [0, 0] };
        [forward, backward, int8, scales]
    }
}

/// Packs all values, row-major `[out, in]`.
pub fn pack_all<T: Real>(form: &Form, values: &[T], panels: &mut Panels<T>) {
    assert_eq!(values.len(), form.n_out * form.n_in, "weight shape");
    let destination = Destination::new(panels);
    for part in 0..form.parts() {
        let pieces = form.pieces(part).map(|range| &values[range]);
        // SAFETY: one part after the other.
        unsafe { destination.pack(form, part, pieces) };
    }
}

/// Changes a weight's values, and arrays of the same shape that go with them, and packs it again: part by part, in parallel.
/// `change` is given elements of the weight, by their places and, of each array, themselves.
pub fn update_panels<T: Real, const N: usize>(
    form: &Form,
    panels: &mut Panels<T>,
    arrays: [&mut [T]; N],
    change: impl Fn(Range<usize>, [&mut [T]; N]) + Sync,
) {
    assert!(N > 0 && arrays.iter().all(|array| array.len() == form.n_out * form.n_in), "weight shape");
    let arrays = arrays.map(|array| Shared::new(array));
    let destination = Destination::new(panels);
    (0..form.parts()).into_par_iter().for_each(|part| {
        let pieces = form.pieces(part);
        for range in pieces.clone().into_iter().filter(|range| !range.is_empty()) {
            // SAFETY: the pieces of all parts are disjoint, and each part is worked on once.
            let elements = arrays.each_ref().map(|array| unsafe { array.slice(range.clone()) });
            change(range, elements);
        }
        // SAFETY: as above; the exclusive slices of before are gone.
        let pieces = pieces.map(|range| unsafe { &*arrays[0].slice(range) });
        // SAFETY: each part is packed once.
        unsafe { destination.pack(form, part, pieces) };
    });
}

/// Panels whose parts threads write.
struct Destination<'a, T>([Shared<'a, T>; 4]);

impl<'a, T: Real> Destination<'a, T> {
    fn new(panels: &'a mut Panels<T>) -> Self {
        Self(panels.each_mut().map(|panels| Shared::new(panels.at_least(0))))
    }

    /// Packs one part from its pieces.
    /// # Safety
    /// Nobody else packs this part at the same time.
    unsafe fn pack(&self, form: &Form, part: usize, pieces: [&[T]; 2]) {
        T::pack_part(form.isa, PackPart { form, part, pieces, to: self });
    }
}

/// Made by [`Destination::pack`] only, whose contract makes its stretches of the panels its own.
pub struct PackPart<'a, T> {
    form: &'a Form,
    part: usize,
    pieces: [&'a [T]; 2],
    to: &'a Destination<'a, T>,
}

impl<T: Real> Kernel<T> for PackPart<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        match self.form.side {
            Side::Rows => in_format!(self.form.precision, S, self.rows(s)),
            Side::Cols => in_format!(self.form.precision, S, self.cols(s)),
        }
    }
}

impl<T: Real> PackPart<'_, T> {
    /// The part's gates and ups; of another weight its rows, and nothing.
    #[inline(always)]
    fn halves(&self) -> [&[T]; 2] {
        match self.pieces {
            [all, []] if self.form.gated => all.split_at(all.len() / 2).into(),
            pieces => pieces,
        }
    }

    /// Right panels of the part's rows, and the part's steps of the transposed weight's.
    #[inline(always)]
    fn rows<S: Simd<T = T>, F: Format<S>>(&self, s: S) {
        let &Form { n_out, n_in, gated, .. } = self.form;
        let per_unit = F::STEPS;
        let depth = n_in.div_ceil(per_unit);
        let Range { start, end } = self.form.rows(self.part);
        let rows = end - start;
        let [forward, backward, int8, slots] = &self.to.0;
        let [gates, ups] = self.halves();
        if self.form.int8 {
            let [panels, slot_len] =
                int8::panel_lens::<S>(&Form { n_out: end * if gated { 2 } else { 1 }, ..*self.form });
            let [panels_before, slots_before] =
                int8::panel_lens::<S>(&Form { n_out: start * if gated { 2 } else { 1 }, ..*self.form });
            // SAFETY: the panels of the part's own rows.
            let (panels, slots) = unsafe { (int8.slice(panels_before..panels), slots.slice(slots_before..slot_len)) };
            s.call(int8::PackRows { n_in, gated, count: rows, pieces: [gates, ups], panels, slots });
        }
        if gated {
            for first in (start..end).step_by(S::LANES) {
                let gates_here = S::LANES.min(end - first);
                // SAFETY: the panel of the part's own rows.
                let to = unsafe { forward.slice(2 * depth * first..2 * depth * (first + S::LANES)) };
                for (half, piece) in [gates, ups].into_iter().enumerate() {
                    let (from, to) = (Strided::rows(piece, n_in), &mut to[half * S::LANES..]);
                    let vectors = (first - start, gates_here, S::LANES);
                    pack_part::<S, F, false>(s, from, vectors, 2 * S::LANES, (0, n_in), to);
                }
            }
        } else {
            // SAFETY: the panels of the part's own rows.
            let to = unsafe { forward.slice(depth * start..depth * (start + padded::<S>(rows))) };
            pack_panels::<S, F, false>(s, Strided::rows(gates, n_in), (0, rows), (0, n_in), to);
        }
        let whole = if gated { 2 * (n_out / 2).div_ceil(per_unit) } else { n_out.div_ceil(per_unit) };
        let mut column = 0;
        while column < n_in {
            let width = panel_width::<S>(n_in, column);
            let vectors = (column, width.min(n_in - column), width);
            // Gates and ups take turns; other rows are one run.
            let (run, halves) = if gated { (GATED_STEPS, 2) } else { (rows.max(1), 1) };
            for first in (0..rows).step_by(run) {
                let steps = run.min(rows - first);
                let units = steps.div_ceil(per_unit);
                let at = whole * column + halves * (start + first) / per_unit * width;
                // SAFETY: the steps of the part's own rows.
                let to = unsafe { backward.slice(at..at + halves * units * width) };
                for (piece, to) in [gates, ups].into_iter().zip(to.chunks_exact_mut(units * width)) {
                    pack_panel::<S, F>(s, Strided::columns(piece, n_in), vectors, (first, steps), to);
                }
            }
            column += width;
        }
    }

    /// Left tiles of the weight and of the transposed one; the part is all of it.
    #[inline(always)]
    fn cols<S: Simd<T = T>, F: Format<S>>(&self, s: S) {
        let &Form { n_out, n_in, gated, .. } = self.form;
        let depth = n_in.div_ceil(F::STEPS);
        // The steps of gates and of ups are whole units each.
        let (halves, half) = if gated { (2, n_out / 2) } else { (1, n_out) };
        let (half_units, back) = (half.div_ceil(F::STEPS), halves * half.div_ceil(F::STEPS));
        let [forward, backward, ..] = &self.to.0;
        // SAFETY: the part is all of the weight.
        let (forward, backward) = unsafe { (forward.slice(0..depth * n_out), backward.slice(0..back * n_in)) };
        let tiles =
            if gated { Tiles::gated(n_out / 2, F::TILE_ROWS, F::STEPS) } else { Tiles::new(n_out, F::TILE_ROWS) };
        if gated {
            let [gates, ups] = self.halves();
            T::with_scratch(|scratch| {
                let in_turn = &mut scratch.left.at_least(n_out * n_in)[..n_out * n_in];
                let pairs = in_turn.chunks_exact_mut(2 * n_in);
                for ((gate, up), pair) in gates.chunks_exact(n_in).zip(ups.chunks_exact(n_in)).zip(pairs) {
                    pair[..n_in].copy_from_slice(gate);
                    pair[n_in..].copy_from_slice(up);
                }
                self.left_tiles::<S, F>(s, in_turn, tiles, forward);
            });
        } else {
            self.left_tiles::<S, F>(s, self.pieces[0], tiles, forward);
        }
        let tiles = Tiles::new(n_in, F::TILE_ROWS);
        for tile in 0..tiles.count {
            let (start, height) = (tiles.start(tile), tiles.height(tile));
            let mut to = LeftTile::new(&mut backward[back * start..], (height, back));
            for (i, piece) in self.halves().into_iter().enumerate().take(halves) {
                to.pack::<S, F>(s, Strided::columns(piece, n_in), (start, height), (0, half), (0, i * half_units));
            }
        }
    }

    /// Left tiles of the rows of a weight, which lie in the tiles' order.
    #[inline(always)]
    fn left_tiles<S: Simd<T = T>, F: Format<S>>(&self, s: S, rows: &[T], tiles: Tiles, forward: &mut [T]) {
        let &Form { n_out, n_in, gated, .. } = self.form;
        pack_tiles::<S, F>(s, Strided::rows(rows, n_in), (tiles, 0, tiles.count), (0, n_in), forward);
        if self.form.int8 {
            let ([panels, scale_len], [.., int8, scales]) = (int8::panel_lens::<S>(self.form), &self.to.0);
            // SAFETY: the part is all of the weight.
            let to = unsafe { (int8.slice(0..panels), scales.slice(0..scale_len)) };
            int8::pack_cols::<S>(s, rows, (n_out, n_in, gated), to);
        }
    }
}

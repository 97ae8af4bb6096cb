//! From elements to whole numbers and scales, and back.

use super::super::Real;
use super::super::left::LeftTile;
use super::super::pack::Tiles;
use super::super::vector::{Kernel, Simd};
use super::format::WholeNumbers;

/// The largest whole number.
const LARGEST: f64 = 127.0;

/// A vector whose magnitudes are all below this counts as zeros: one over its scale might overflow.
const LEAST: f64 = 1e-30;

/// What the elements of a vector with this largest magnitude are multiplied by to become whole numbers, and what these are
/// multiplied by to become elements.
#[inline(always)]
pub fn factor_and_scale<S: Simd>(s: S, largest: S::V) -> (S::V, S::V) {
    let (limit, least) = (s.splat(S::T::from_f64(LARGEST)), s.splat(S::T::from_f64(LEAST)));
    let factor = s.select_gt(largest, least, s.div(limit, largest), s.zero());
    (factor, s.select_gt(largest, least, s.div(largest, limit), s.zero()))
}

/// Vectors that lie along: vector r's elements from `i·LANES` on begin at `r·row + i·piece`, and there are k of them.
#[derive(Clone, Copy)]
pub struct Along<'a, T> {
    pub data: &'a [T],
    pub row: usize,
    pub piece: usize,
    pub k: usize,
}

impl<'a, T: Real> Along<'a, T> {
    /// The rows of a matrix.
    #[inline(always)]
    pub fn rows<S: Simd<T = T>>(data: &'a [T], width: usize) -> Self {
        Self { data, row: width, piece: S::LANES, k: width }
    }

    /// Piece `i` of vector `r`; zeros behind its end.
    #[inline(always)]
    fn piece<S: Simd<T = T>>(&self, s: S, r: usize, i: usize) -> S::V {
        let count = self.k.saturating_sub(i * S::LANES).min(S::LANES);
        if count == 0 {
            return s.zero();
        }
        let from = &self.data[r * self.row + i * self.piece..][..count];
        if count == S::LANES {
            s.load(from)
        } else {
            // SAFETY: exactly the slice is read.
            unsafe { s.load_first_ptr(from.as_ptr(), count) }
        }
    }

    #[inline(always)]
    fn largest<S: Simd<T = T>>(&self, s: S, r: usize) -> S::V {
        let mut largest = [s.zero(); 2];
        for i in (0..self.k.div_ceil(S::LANES)).step_by(2) {
            largest[0] = s.max(s.abs(self.piece(s, r, i)), largest[0]);
            largest[1] = s.max(s.abs(self.piece(s, r, i + 1)), largest[1]);
        }
        s.splat(s.maximum(s.max(largest[0], largest[1])))
    }
}

/// The steps of `rows` vectors from `first` on, those of LANES units from `unit` on, multiplied by their factors.
macro_rules! units {
    ($s:ident, $from:ident, ($first:expr, $rows:expr), $unit:expr, $factors:ident, $pack:path) => {{
        let mut block = $s.block();
        let steps = <F as super::super::format::UnitFormat<S>>::STEPS;
        for (r, units) in block.as_mut().iter_mut().enumerate().take($rows) {
            let mut elements = [$s.zero(); 4];
            for (i, elements) in elements.iter_mut().enumerate().take(steps) {
                let piece = $from.piece($s, $first + r, $unit * steps / S::LANES + i);
                *elements = $s.mul(piece, $factors.as_ref()[r]);
            }
            *units = $pack($s, elements);
        }
        block
    }};
}

/// Vectors become the rows of left tiles, and their scales. (A kernel of its own, so that it is compiled once for all that pack.)
#[inline(always)]
pub fn pack_tiles<S: Simd>(
    s: S,
    from: Along<'_, S::T>,
    some: (Tiles, usize, usize),
    to: &mut [S::T],
    scales: &mut [S::T],
) {
    s.call(PackTiles { from, some, to, scales });
}

struct PackTiles<'a, T> {
    from: Along<'a, T>,
    some: (Tiles, usize, usize),
    to: &'a mut [T],
    scales: &'a mut [T],
}

impl<T: Real> Kernel<T> for PackTiles<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        tiles::<S, S::Int8>(s, self.from, self.some, self.to, self.scales);
    }
}

#[inline(always)]
fn tiles<S: Simd, F: WholeNumbers<S>>(
    s: S,
    from: Along<'_, S::T>,
    (tiles, first, last): (Tiles, usize, usize),
    to: &mut [S::T],
    scales: &mut [S::T],
) {
    let (row0, depth) = (tiles.start(first), from.k.div_ceil(F::STEPS));
    for tile in first..last {
        let (start, height) = (tiles.start(tile) - row0, tiles.height(tile));
        let mut to = LeftTile::new(&mut to[depth * start..], (height, depth));
        for row in (0..height).step_by(S::LANES) {
            let rows = S::LANES.min(height - row);
            let mut factors = s.block();
            for (r, factor) in factors.as_mut().iter_mut().enumerate().take(rows) {
                let scale;
                (*factor, scale) = factor_and_scale(s, from.largest(s, start + row + r));
                scales[start + row + r] = s.maximum(scale);
            }
            for unit in (0..depth).step_by(S::LANES) {
                let block = units!(s, from, (start + row, rows), unit, factors, F::left_along);
                to.put_units::<S, F>(s, block, (rows, S::LANES.min(depth - unit)), (row, unit));
            }
        }
    }
}

/// The `count ≤ LANES` vectors from `first` on become the first LANES of every `pitch` columns of a right panel, zeros where there
/// are fewer; `slot` receives their scales and offsets, LANES each.
#[inline(always)]
pub fn pack_right_along<S: Simd, F: WholeNumbers<S>>(
    s: S,
    from: Along<'_, S::T>,
    (first, count): (usize, usize),
    pitch: usize,
    panel: &mut [S::T],
    slot: &mut [S::T],
) {
    let depth = from.k.div_ceil(F::STEPS);
    let (mut factors, mut scales) = (s.block(), s.block());
    for (r, (factor, scale)) in factors.as_mut().iter_mut().zip(scales.as_mut()).enumerate().take(count) {
        (*factor, *scale) = factor_and_scale(s, from.largest(s, first + r));
    }
    let mut offset = s.zero();
    for unit in (0..depth).step_by(S::LANES) {
        let block = units!(s, from, (first, count), unit, factors, F::right_along);
        let block = s.transpose(block);
        for (u, &units) in block.as_ref().iter().enumerate().take(S::LANES.min(depth - unit)) {
            offset = F::add_offset(s, units, offset);
            s.store(&mut panel[(unit + u) * pitch..], units);
        }
    }
    // Every vector of the block holds one scale in all lanes.
    s.store(slot, s.transpose(scales).as_ref()[0]);
    s.store(&mut slot[S::LANES..], offset);
}

/// Columns of a matrix `[k, …]`, `count` of them, whose rows lie `stride` apart.
#[derive(Clone, Copy)]
pub struct Across<'a, T> {
    pub data: &'a [T],
    pub stride: usize,
    pub k: usize,
    pub count: usize,
}

impl<T: Real> Across<'_, T> {
    /// Vector `j` of row `row`; zeros in columns that do not exist, and in rows.
    #[inline(always)]
    fn row<S: Simd<T = T>>(&self, s: S, row: usize, j: usize) -> S::V {
        let count = if row < self.k { self.count.saturating_sub(j * S::LANES).min(S::LANES) } else { 0 };
        if count == 0 {
            return s.zero();
        }
        let from = &self.data[row * self.stride + j * S::LANES..][..count];
        if count == S::LANES {
            s.load(from)
        } else {
            // SAFETY: exactly the slice is read.
            unsafe { s.load_first_ptr(from.as_ptr(), count) }
        }
    }

    /// The largest magnitudes of the columns of vector `j`.
    #[inline(always)]
    pub fn largest<S: Simd<T = T>>(&self, s: S, j: usize) -> S::V {
        let mut largest = s.zero();
        for row in 0..self.k {
            largest = s.max(s.abs(self.row(s, row, j)), largest);
        }
        largest
    }
}

/// Columns with these largest magnitudes, of `VECTORS` vectors, become a right panel; `slots` receives the scales and offsets of each vector.
#[inline(always)]
pub fn pack_right_across<S: Simd, F: WholeNumbers<S>, const VECTORS: usize>(
    s: S,
    from: Across<'_, S::T>,
    largest: [S::V; VECTORS],
    panel: &mut [S::T],
    slots: &mut [S::T],
) {
    let mut factors = largest;
    for ((factor, slot), largest) in factors.iter_mut().zip(slots.chunks_exact_mut(2 * S::LANES)).zip(largest) {
        let scale;
        (*factor, scale) = factor_and_scale(s, largest);
        s.store(slot, scale);
    }
    let mut offsets = [s.zero(); VECTORS];
    let rows = panel.chunks_exact_mut(VECTORS * S::LANES);
    for (unit, to) in rows.enumerate().take(from.k.div_ceil(F::STEPS)) {
        for j in 0..VECTORS {
            let mut elements = [s.zero(); 4];
            for (i, elements) in elements.iter_mut().enumerate().take(F::STEPS) {
                *elements = s.mul(from.row(s, unit * F::STEPS + i, j), factors[j]);
            }
            let units = F::right_across(s, elements);
            offsets[j] = F::add_offset(s, units, offsets[j]);
            s.store(&mut to[j * S::LANES..], units);
        }
    }
    for (slot, offset) in slots.chunks_exact_mut(2 * S::LANES).zip(offsets) {
        s.store(&mut slot[S::LANES..], offset);
    }
}

/// The element that a sum stands for: of a left vector with this scale, and of the right ones of a slot.
#[inline(always)]
pub fn element<S: Simd, F: WholeNumbers<S>>(s: S, sum: S::V, left_scale: S::V, slot: &[S::T]) -> S::V {
    s.mul(F::value(s, sum, s.load(&slot[S::LANES..])), s.mul(left_scale, s.load(slot)))
}

/// A row of sums becomes elements, in place, for right vectors that have these slots.
#[inline(always)]
pub fn elements_of_row<S: Simd, F: WholeNumbers<S>>(s: S, row: &mut [S::T], left_scale: S::T, slots: &[S::T]) {
    let left_scale = s.splat(left_scale);
    for (to, slot) in row.chunks_mut(S::LANES).zip(slots.chunks_exact(2 * S::LANES)) {
        if to.len() == S::LANES {
            s.store(to, element::<S, F>(s, s.load(to), left_scale, slot));
        } else {
            // SAFETY: exactly the slice is read and written.
            unsafe {
                let sum = s.load_first_ptr(to.as_ptr(), to.len());
                s.store_first_ptr(to.as_mut_ptr(), element::<S, F>(s, sum, left_scale, slot), to.len());
            }
        }
    }
}

//! Left tiles: a few rows of a left operand, in the order in which the micro-kernel of a format reads them.
//!
//! A tile of `height` rows that is `depth` units deep has `height · depth` elements, block after block along the depth. A
//! block holds [`UnitFormat::ROW_UNITS`] units of every row, row after row, and the last one what is left. With one unit to a
//! block the rows are interleaved: the micro-kernel in registers broadcasts one element after the other. With as many as a
//! tile register's row holds, a block is what one instruction loads, from as many cache lines as it has rows.

use super::Real;
use super::format::{Format, UnitFormat};
use super::pack::{Strided, pack_part};
use super::vector::Simd;

/// A left tile to be filled.
pub struct LeftTile<'a, T> {
    units: &'a mut [T],
    height: usize,
    depth: usize,
}

impl<'a, T: Real> LeftTile<'a, T> {
    /// The first elements of `units` as a tile of so many rows and units.
    #[inline(always)]
    pub fn new(units: &'a mut [T], (height, depth): (usize, usize)) -> Self {
        Self { units: &mut units[..height * depth], height, depth }
    }

    /// The `count` vectors from `first` on, steps `k0..k0 + k`, become the rows from `row` on, from `unit` on.
    #[inline(always)]
    pub fn pack<S: Simd<T = T>, F: Format<S>>(
        &mut self,
        s: S,
        from: Strided<T>,
        (first, count): (usize, usize),
        (k0, k): (usize, usize),
        (row, unit): (usize, usize),
    ) {
        if k == 0 || count == 0 {
            return;
        }
        if F::ROW_UNITS == 1 {
            let to = &mut self.units[unit * self.height + row..];
            return pack_part::<S, F, false>(s, from, (first, count, count), self.height, (k0, k), to);
        }
        from.check(k0 + k, first + count);
        assert!(row + count <= self.height && unit + k.div_ceil(F::STEPS) <= self.depth);
        if from.across == 1 {
            self.pack_columns::<S, F>(s, from, (first, count), (k0, k), (row, unit));
        } else {
            self.pack_rows::<S, F>(s, from, (first, count), (k0, k), (row, unit));
        }
    }

    /// Vectors are rows of the source: their steps lie side by side as the units do.
    #[inline(always)]
    fn pack_rows<S: Simd<T = T>, F: Format<S>>(
        &mut self,
        s: S,
        from: Strided<T>,
        (first, count): (usize, usize),
        (k0, k): (usize, usize),
        (row, unit): (usize, usize),
    ) {
        let per_vector = F::STEPS * S::LANES;
        for i in 0..count {
            let vector = &from.data[(first + i) * from.across + k0..][..k];
            for (j, steps) in vector.chunks(per_vector).enumerate() {
                let low = steps.len().min(S::LANES);
                // SAFETY: as many elements as the slice has.
                let v = unsafe {
                    let second = s.load_first_ptr(steps.as_ptr().add(low), steps.len() - low);
                    F::pack_along(s, s.load_first_ptr(steps.as_ptr(), low), second)
                };
                self.put::<S, F>(s, (row + i, unit + j * S::LANES), v, steps.len().div_ceil(F::STEPS));
            }
        }
    }

    /// Vectors are columns of the source: blocks of LANES × LANES units are transposed in registers.
    #[inline(always)]
    fn pack_columns<S: Simd<T = T>, F: Format<S>>(
        &mut self,
        s: S,
        from: Strided<T>,
        (first, count): (usize, usize),
        (k0, k): (usize, usize),
        (row, unit): (usize, usize),
    ) {
        let units = k.div_ceil(F::STEPS);
        for at in (0..count).step_by(S::LANES) {
            let valid = S::LANES.min(count - at);
            // Elements of a step of the vectors from `at` on; zeros where there is no such step.
            let load = |step: usize| {
                let here = if step < k { valid } else { 0 };
                let from = &from.data[(k0 + step.min(k - 1)) * from.along + first + at..][..here];
                // SAFETY: as many elements as the slice has.
                unsafe { s.load_first_ptr(from.as_ptr(), here) }
            };
            for start in (0..units).step_by(S::LANES) {
                let here = S::LANES.min(units - start);
                let mut block = s.block();
                for (u, v) in block.as_mut().iter_mut().enumerate().take(here) {
                    let step = (start + u) * F::STEPS;
                    *v = F::pack(s, load(step), if F::STEPS == 2 { load(step + 1) } else { s.zero() });
                }
                let block = s.transpose(block);
                for (r, &v) in block.as_ref().iter().enumerate().take(valid) {
                    self.put::<S, F>(s, (row + at + r, unit + start), v, here);
                }
            }
        }
    }

    /// Rows that are in registers: vector r of the block holds `steps ≤ LANES` steps of row `row + r`, for the units from
    /// `unit` on.
    #[inline(always)]
    pub fn put_rows<S: Simd<T = T>, F: Format<S>>(
        &mut self,
        s: S,
        block: S::Block,
        (rows, steps): (usize, usize),
        (row, unit): (usize, usize),
    ) {
        let units = steps.div_ceil(F::STEPS);
        assert!(steps <= S::LANES && row + rows <= self.height && unit + units <= self.depth);
        if F::ROW_UNITS > 1 {
            for (r, &v) in block.as_ref().iter().enumerate().take(rows) {
                let (low, high) = if F::STEPS == 2 { (v, s.zero()) } else { (v, v) };
                self.put::<S, F>(s, (row + r, unit), F::pack_along(s, low, high), units);
            }
            return;
        }
        let block = s.transpose(block);
        let block = block.as_ref();
        for u in 0..units {
            let step = u * F::STEPS;
            let high = if F::STEPS == 2 && step + 1 < steps { block[step + 1] } else { s.zero() };
            let v = F::pack(s, block[step], high);
            let to = &mut self.units[(unit + u) * self.height + row..][..rows];
            // SAFETY: exactly the slice is written.
            unsafe { s.store_first_ptr(to.as_mut_ptr(), v, rows) }
        }
    }

    /// Units that are in registers: vector r of the block holds `units ≤ LANES` units of row `row + r`, from `unit` on.
    #[inline(always)]
    pub fn put_units<S: Simd<T = T>, F: UnitFormat<S>>(
        &mut self,
        s: S,
        block: S::Block,
        (rows, units): (usize, usize),
        (row, unit): (usize, usize),
    ) {
        assert!(units <= S::LANES && row + rows <= self.height && unit + units <= self.depth);
        if F::ROW_UNITS > 1 {
            for (r, &v) in block.as_ref().iter().enumerate().take(rows) {
                self.put::<S, F>(s, (row + r, unit), v, units);
            }
            return;
        }
        let block = s.transpose(block);
        for (u, &v) in block.as_ref().iter().enumerate().take(units) {
            let to = &mut self.units[(unit + u) * self.height + row..][..rows];
            // SAFETY: exactly the slice is written.
            unsafe { s.store_first_ptr(to.as_mut_ptr(), v, rows) }
        }
    }

    /// Stores `count` units of a row, side by side as far as blocks allow. (Lanes beyond the last step of an odd number are
    /// zero: sources are loaded with zeros behind their end, and the lanes of a strip behind its last gate are never packed.)
    #[inline(always)]
    fn put<S: Simd<T = T>, F: UnitFormat<S>>(&mut self, s: S, (row, unit): (usize, usize), v: S::V, count: usize) {
        let (at, width) = self.block::<S, F>(row, unit);
        let within = unit % F::ROW_UNITS;
        if within + count <= width {
            let to = &mut self.units[at + within..][..count];
            // SAFETY: exactly the slice is written.
            return unsafe { s.store_first_ptr(to.as_mut_ptr(), v, count) };
        }
        let mut lanes = [T::ZERO; 16];
        s.store(&mut lanes, v);
        for (i, &lane) in lanes[..count].iter().enumerate() {
            let unit = unit + i;
            let (at, _) = self.block::<S, F>(row, unit);
            self.units[at + unit % F::ROW_UNITS] = lane;
        }
    }

    /// Where the part of a row begins that is in the block of a unit, and how many units it has.
    #[inline(always)]
    fn block<S: Simd<T = T>, F: UnitFormat<S>>(&self, row: usize, unit: usize) -> (usize, usize) {
        let start = unit - unit % F::ROW_UNITS;
        let width = F::ROW_UNITS.min(self.depth - start);
        (start * self.height + row * width, width)
    }
}

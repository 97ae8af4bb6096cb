//! Panels: the order in which the micro-kernel reads its operands.
//!
//! Both operands of a product are collections of vectors along the summed index k: the left one's rows, the right
//! one's columns. A panel interleaves a few of them, k outermost: `[k, width]`. Left panels are the micro-kernel's
//! tile high ([`tile_heights`]), right panels its tile wide, the last one padded to whole vectors.
//! What a unit of a panel holds is its [`Format`]: one k, or two consecutive ones (an odd last one is
//! paired with zero), so that the depth halves.

use super::Real;
use super::format::Format;
use super::left::LeftTile;
use super::vector::Simd;

/// What a weight is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Rows, `Y = X Wᵀ`: the weight is the right operand of products.
    Rows,
    /// Columns of a sequence, `Y = W X`, as [`swiglu`](super::swiglu()) over positions does: the weight is the left operand.
    Cols,
}

/// Element (k, vector) of an operand lies at `k·along + vector·across`; one of the strides is 1.
#[derive(Clone, Copy, Debug)]
pub struct Strided<'a, T> {
    pub data: &'a [T],
    pub along: usize,
    pub across: usize,
}

impl<'a, T: Real> Strided<'a, T> {
    /// Vectors are the columns of a row-major matrix with `stride` elements a row (k runs down).
    pub fn columns(data: &'a [T], stride: usize) -> Self {
        Self { data, along: stride, across: 1 }
    }

    /// Vectors are the rows of a row-major matrix with `stride` elements a row (k runs along).
    pub fn rows(data: &'a [T], stride: usize) -> Self {
        Self { data, along: 1, across: stride }
    }

    /// Panics unless `k` elements of `vectors` vectors lie inside the slice.
    #[inline(always)]
    pub fn check(&self, k: usize, vectors: usize) {
        assert!(self.along == 1 || self.across == 1);
        let reach = if k == 0 || vectors == 0 { 0 } else { (k - 1) * self.along + (vectors - 1) * self.across + 1 };
        assert!(reach <= self.data.len(), "operand out of bounds");
    }
}

/// How `rows` rows are cut into tiles of at most `limit`: as equal as can be, the higher ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    pub count: usize,
    rows: usize,
    low: usize,
    higher: usize,
    /// Rows of a tile for each row counted in `low`: 2 where rows stay together by twos, 4 where by fours.
    per_row: usize,
}

impl Tiles {
    #[inline(always)]
    pub fn new(rows: usize, limit: usize) -> Self {
        let count = rows.div_ceil(limit).max(1);
        Self { count, rows, low: rows / count, higher: rows % count, per_row: 1 }
    }
    /// Tiles that start with an even row; the last row may be alone.
    #[inline(always)]
    pub fn even(rows: usize, limit: usize) -> Self {
        Self { rows, per_row: 2, ..Self::new(rows.div_ceil(2), limit / 2) }
    }
    /// Tiles of `inner` gates and their ups in turn, at most `limit` rows high, whose activations are whole units of so many
    /// steps.
    #[inline(always)]
    pub fn gated(inner: usize, limit: usize, steps: usize) -> Self {
        let (rows, per_row) = (2 * inner, 2 * steps);
        Self { rows, per_row, ..Self::new(rows.div_ceil(per_row), limit / per_row) }
    }
    #[inline(always)]
    pub fn height(&self, tile: usize) -> usize {
        self.start(tile + 1) - self.start(tile)
    }
    /// First row of the tile; of the one behind the last, the number of rows.
    #[inline(always)]
    pub fn start(&self, tile: usize) -> usize {
        (self.per_row * (tile * self.low + tile.min(self.higher))).min(self.rows)
    }
}

/// Width of the right panel that starts at column `start` of `n`, padding included: two vectors, or one.
#[inline(always)]
pub fn panel_width<S: Simd>(n: usize, start: usize) -> usize {
    if n - start <= S::LANES { S::LANES } else { 2 * S::LANES }
}

/// Columns of all right panels, padding included.
#[inline(always)]
pub fn padded<S: Simd>(n: usize) -> usize {
    n.next_multiple_of(S::LANES)
}

/// Packs the `count ≤ width` vectors from `first` on, steps `k0..k0 + k`, into one panel of the given width.
#[inline(always)]
pub fn pack_panel<S: Simd, F: Format<S>>(
    s: S,
    from: Strided<S::T>,
    (first, count, width): (usize, usize, usize),
    steps: (usize, usize),
    panel: &mut [S::T],
) {
    pack_part::<S, F, false>(s, from, (first, count, width), width, steps, panel);
}

/// As [`pack_panel`], into the first `width` of every `pitch` elements: a part of a wider panel. With `STREAM`,
/// by non-temporal stores where vectors are the rows of the source: a fence must follow.
#[inline(always)]
pub fn pack_part<S: Simd, F: Format<S>, const STREAM: bool>(
    s: S,
    from: Strided<S::T>,
    (first, count, width): (usize, usize, usize),
    pitch: usize,
    (k0, k): (usize, usize),
    panel: &mut [S::T],
) {
    let depth = k.div_ceil(F::STEPS);
    from.check(k0 + k, first + count);
    assert!(count <= width && width < count + S::LANES && width <= pitch);
    if k == 0 || count == 0 {
        return;
    }
    assert!(panel.len() >= (depth - 1) * pitch + width);
    // SAFETY: the source was checked to hold `count` vectors of `k` elements from here, the panel `depth` rows of
    // `width` elements, one every `pitch`.
    unsafe {
        let source = from.data.as_ptr().add(k0 * from.along + first * from.across);
        let to = (panel.as_mut_ptr(), pitch);
        if from.across == 1 {
            copy_rows::<S, F>(s, source, from.along, (count, width), k, to);
        } else {
            transpose_rows::<S, F, STREAM>(s, source, from.across, (count, width), k, to);
        }
    }
}

/// Row `unit` of one panel, from the source row at `row` (in bf16: two rows, the second where `has_next`).
/// # Safety
/// `count` elements of the source rows are readable, `width` elements of the panel's row writable.
#[inline(always)]
unsafe fn copy_unit<S: Simd, F: Format<S>, const STREAM: bool>(
    s: S,
    row: *const S::T,
    (stride, has_next): (usize, bool),
    count: usize,
    width: usize,
    to: *mut S::T,
) {
    let mut at = 0;
    while at < width {
        let valid = (count - at).min(S::LANES);
        let room = (width - at).min(S::LANES);
        // SAFETY: `valid` elements of the source rows, `room` of the panel's.
        unsafe {
            let p = row.add(at);
            if valid == S::LANES {
                let next = if F::STEPS == 2 && has_next { s.load_ptr(p.add(stride)) } else { s.zero() };
                let v = F::pack(s, s.load_ptr(p), next);
                if STREAM { s.stream_ptr(to.add(at), v) } else { s.store_ptr(to.add(at), v) }
            } else {
                let next = if F::STEPS == 2 && has_next { s.load_first_ptr(p.add(stride), valid) } else { s.zero() };
                let v = F::pack(s, s.load_first_ptr(p, valid), next);
                s.store_first_ptr(to.add(at), v, room);
            }
        }
        at += S::LANES;
    }
}

/// The panel's rows lie in the source as they are.
/// # Safety
/// `k` rows of `count` elements are readable, one every `stride`; `depth` rows of `width` elements are writable, one
/// every `pitch`.
#[inline(always)]
unsafe fn copy_rows<S: Simd, F: Format<S>>(
    s: S,
    source: *const S::T,
    stride: usize,
    (count, width): (usize, usize),
    k: usize,
    (panel, pitch): (*mut S::T, usize),
) {
    let per_unit = F::STEPS;
    for unit in 0..k.div_ceil(per_unit) {
        let row = unit * per_unit;
        // SAFETY: rows `row` and, where it exists, `row + 1` of the source; row `unit` of the panel.
        unsafe {
            let next = (stride, row + 1 < k);
            copy_unit::<S, F, false>(s, source.add(row * stride), next, count, width, panel.add(unit * pitch));
        }
    }
}

/// The panel's columns lie in the source as rows: blocks of LANES × LANES are transposed in registers.
/// # Safety
/// `count` rows of `k` elements are readable, one every `stride`; `depth` rows of `width` elements are writable, one
/// every `pitch`.
#[inline(always)]
unsafe fn transpose_rows<S: Simd, F: Format<S>, const STREAM: bool>(
    s: S,
    source: *const S::T,
    stride: usize,
    (count, width): (usize, usize),
    k: usize,
    (panel, pitch): (*mut S::T, usize),
) {
    let depth = k.div_ceil(F::STEPS);
    let per_unit = F::STEPS;
    let mut at = 0;
    while at < width {
        let valid = (count - at).min(S::LANES);
        let room = (width - at).min(S::LANES);
        let mut unit = 0;
        while unit < depth {
            let units = (depth - unit).min(S::LANES);
            let left = (k - unit * per_unit).min(S::LANES * per_unit);
            let mut block = s.block();
            // SAFETY: `left` elements of `valid` source rows (the last one again in the lanes behind them, which the
            // tile never stores); `units` rows of `room` elements of the panel.
            unsafe {
                let p = source.add(at * stride + unit * per_unit);
                let whole = left == S::LANES * per_unit;
                for (r, v) in block.as_mut().iter_mut().enumerate() {
                    let p = p.add(r.min(valid - 1) * stride);
                    let first = if whole { s.load_ptr(p) } else { s.load_first_ptr(p, left.min(S::LANES)) };
                    let second = match F::STEPS {
                        2 if whole => s.load_ptr(p.add(S::LANES)),
                        2 => s.load_first_ptr(p.add(left.min(S::LANES)), left.saturating_sub(S::LANES)),
                        _ => first,
                    };
                    *v = F::pack_along(s, first, second);
                }
                let block = s.transpose(block);
                let to = panel.add(unit * pitch + at);
                if room == S::LANES && units == S::LANES {
                    for (u, &v) in block.as_ref().iter().enumerate() {
                        if STREAM { s.stream_ptr(to.add(u * pitch), v) } else { s.store_ptr(to.add(u * pitch), v) }
                    }
                } else {
                    for (u, &v) in block.as_ref().iter().enumerate() {
                        if u < units {
                            s.store_first_ptr(to.add(u * pitch), v, room);
                        }
                    }
                }
            }
            unit += S::LANES;
        }
        at += S::LANES;
    }
}

/// Packs the tiles `first..last` of a left operand, one after the other: tile t starts at `depth · (its first row)`,
/// counted from the first row of tile `first`.
#[inline(always)]
pub fn pack_tiles<S: Simd, F: Format<S>>(
    s: S,
    from: Strided<S::T>,
    (tiles, first, last): (Tiles, usize, usize),
    (k0, k): (usize, usize),
    to: &mut [S::T],
) {
    let per_unit = F::STEPS;
    let depth = k.div_ceil(per_unit);
    let row0 = tiles.start(first);
    if from.across != 1 || F::ROW_UNITS > 1 {
        for tile in first..last {
            let (start, rows) = (tiles.start(tile), tiles.height(tile));
            let mut to = LeftTile::new(&mut to[depth * (start - row0)..], (rows, depth));
            to.pack::<S, F>(s, from, (start, rows), (k0, k), (0, 0));
        }
        return;
    }
    let vectors = tiles.start(last) - row0;
    from.check(k0 + k, row0 + vectors);
    assert!(to.len() >= depth * vectors);
    // A source row holds a unit of every tile: read each once, along.
    for unit in 0..depth {
        let row = unit * per_unit;
        let mut at = 0;
        for tile in first..last {
            let rows = tiles.height(tile);
            // SAFETY: checked above: the source rows hold all vectors, the tiles all units.
            unsafe {
                let p = from.data.as_ptr().add((k0 + row) * from.along + row0 + at);
                let to = to.as_mut_ptr().add(depth * at + unit * rows);
                copy_unit::<S, F, false>(s, p, (from.along, row + 1 < k), rows, rows, to);
            }
            at += rows;
        }
    }
}

/// Packs the vectors `first..end` of a right operand: the panel of column c starts at `depth · (c − first)`. With
/// `STREAM`, by non-temporal stores: a fence must follow.
#[inline(always)]
pub fn pack_panels<S: Simd, F: Format<S>, const STREAM: bool>(
    s: S,
    from: Strided<S::T>,
    (first, end): (usize, usize),
    (k0, k): (usize, usize),
    to: &mut [S::T],
) {
    let per_unit = F::STEPS;
    let depth = k.div_ceil(per_unit);
    let n = end - first;
    if from.across != 1 {
        let mut at = 0;
        while at < n {
            let width = panel_width::<S>(n, at);
            let count = width.min(n - at);
            let part = (first + at, count, width);
            pack_part::<S, F, STREAM>(s, from, part, width, (k0, k), &mut to[depth * at..]);
            at += width;
        }
        return;
    }
    from.check(k0 + k, end);
    assert!(to.len() >= depth * padded::<S>(n));
    // A source row holds a unit of every panel: read each once, along.
    for unit in 0..depth {
        let row = unit * per_unit;
        let mut at = 0;
        while at < n {
            let width = panel_width::<S>(n, at);
            // SAFETY: checked above: the source rows hold all vectors, the panels all units.
            unsafe {
                let p = from.data.as_ptr().add((k0 + row) * from.along + first + at);
                let to = to.as_mut_ptr().add(depth * at + unit * width);
                copy_unit::<S, F, STREAM>(s, p, (from.along, row + 1 < k), width.min(n - at), width, to);
            }
            at += width;
        }
    }
}

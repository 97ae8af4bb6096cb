//! GEMM: the loops around the micro-kernel.
//!
//! | level: Zen 4 / Zen 5, a core | holds | size |
//! |---|---|---|
//! | registers: 32 of 64 bytes | a tile of sums: `TILE_ROWS` × 2 vectors | AVX-512 12×32, AVX2 6×16 |
//! | tile registers: 8 of 1 KiB | a tile of sums (4), two blocks of either operand (`registers.rs`) | AMX 32×32 |
//! | L1: 32 / 48 KiB | a right panel's block: [`DEPTH_BLOCK`] units × 2 vectors; a left tile passes through | AVX-512 32 KiB, AVX2 16 KiB |
//! | | SwiGLU over positions: a strip of g and u, `STRIP_TILES` tiles (`swiglu/cols.rs`) | 24 KiB |
//! | | attention: scores of `QUERIES` queries and `KEYS` keys, and a little beyond (`attention/operands.rs`) | 72 KiB |
//! | L2: 1 / 1 MiB | a block of left tiles, up to [`ROW_PASS`] deep where it is packed on the way: [`LEFT_BLOCK`] units | 448 KiB |
//! | | SwiGLU: input and activation of a block of rows (`ROW_BLOCK` in `swiglu/rows.rs`), a little beyond in f32 | 1 MiB |
//! | | its backward pass: gradient of the output and a `CHUNK` of those of g and u (`swiglu/backward_rows.rs`) | 512 KiB |
//! | | weight gradients: a block of the gradient, `BLOCK_TILES` × `BLOCK_COLUMNS` (`deferred.rs`) | 384 KiB |
//! | L3: 4 MiB a core | a lane's shard: 400 rows or so (`shard` in `engine/lane.rs`), three or four such matrices | 0.8 MB each at D 512 |
//! | L3, memory | all right panels, read once per block of left tiles | weights: 7 MB |
//!
//! (A unit is four bytes: an element of f32, or a pair of bf16.)
//!
//! The loops, from the outside: blocks of left tiles, right panels, depth blocks, tiles. While a tile is computed it prefetches
//! its part of the next depth block of the panel, and of what is read after the product.
//!
//! The parts into which the depth is cut depend on the depth alone. So an element of the result is the same sum in the same
//! order wherever its row lies and however many rows there are.
//!
//! A shard is so large because weight panels from L3 serve all blocks of its rows, and no larger, so that its states stay in
//! a core's share of L3.
//!
//! Ragged edges: output rows and columns that do not exist are neither computed (rows) nor stored (columns, by masks). Only
//! what is packed anyway is filled up: the last right panel to whole vectors, with zeros, in the copy that packing makes.

use super::Real;
use super::format::{Format, Precision, UnitFormat, in_format};
use super::norm::AddRmsNorm;
use super::pack::{Strided, Tiles, pack_tiles, panel_width};
use super::scratch::Scratch;
use super::tile::{Strip, TileLayout, prefetched};
use super::vector::{Kernel, Simd};

/// Units of the summed index per pass over a panel, at most.
const DEPTH_BLOCK: usize = 256;

/// Units of packed left operand kept in L2.
const LEFT_BLOCK: usize = 112 << 10;
/// Units of the summed index of a left operand packed at a time. A block of [`LEFT_BLOCK`] units then has a dozen tiles or
/// more, each of which prefetches a part of the next right panel.
const ROW_PASS: usize = 512;
/// `out ← left·right (+ out)`: left is `m × k`, packed on the way; right is all panels of a `k × n` operand; `out` is
/// `[m, n]`.
pub struct Gemm<'a, T> {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub left: Strided<'a, T>,
    pub right: &'a [T],
    pub accumulate: bool,
    pub precision: Precision,
    pub out: &'a mut [T],
    /// What becomes of rows of `out` as soon as they are whole.
    pub epilogue: Option<AddRmsNorm<'a, T>>,
    pub scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for Gemm<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, self.multiply(s))
    }
}

impl<T: Real> Gemm<'_, T> {
    #[inline(always)]
    fn multiply<S: Simd<T = T>, F: Format<S>>(mut self, s: S) {
        let (m, k, n) = (self.m, self.k, self.n);
        if m == 0 || n == 0 {
            return;
        }
        assert_eq!(self.out.len(), m * n, "result shape");
        if let Some(epilogue) = &self.epilogue {
            epilogue.check(m, m * n);
        }
        if k == 0 {
            if !self.accumulate {
                self.out.fill(T::ZERO);
            }
            if let Some(epilogue) = &mut self.epilogue {
                epilogue.rows(s, n, 0, self.out);
            }
            return;
        }
        // The left operand is packed a stretch of the depth at a time.
        let passes = Cuts::new::<S, F>(k.div_ceil(F::STEPS), ROW_PASS);
        for pass in 0..passes.count() {
            let (start, units) = passes.part(pass);
            self.pass::<S, F>(s, start, units);
            self.accumulate = true;
        }
    }

    /// The units `d0..d0 + depth` of the sum.
    #[inline(always)]
    fn pass<S: Simd<T = T>, F: Format<S>>(&mut self, s: S, d0: usize, depth: usize) {
        let (m, n) = (self.m, self.n);
        let per_unit = F::STEPS;
        let whole_depth = self.k.div_ceil(per_unit);
        let steps = (d0 * per_unit, (depth * per_unit).min(self.k - d0 * per_unit));
        let tiles = Tiles::new(m, F::TILE_ROWS);
        let blocks = Tiles::new(tiles.count, (LEFT_BLOCK / (depth * F::TILE_ROWS)).max(1));
        // One panel, as a head's tokens: every row is read once, where it lies.
        let is_read_once = n <= 2 * S::LANES && self.precision == Precision::F32 && self.left.along == 1;
        for block in 0..blocks.count {
            let first = blocks.start(block);
            let last = first + blocks.height(block);
            let (row, end) = (tiles.start(first), tiles.start(last));
            let some = (tiles, first, last);
            let left = if is_read_once {
                LeftTiles::rows(some, depth, &self.left.data[row * self.left.across + d0..], self.left.across)
            } else {
                let packed = self.scratch.left.at_least(depth * (end - row));
                pack_tiles::<S, F>(s, self.left, some, steps, packed);
                LeftTiles::some(some, depth, packed)
            };
            let out = &mut self.out[row * n..end * n];
            let right = (self.right, whole_depth, d0);
            multiply_panels::<S, F>(s, left, right, n, T::ONE, self.accumulate, (&mut *out, n));
            if let Some(epilogue) = &mut self.epilogue
                && d0 + depth == whole_depth
            {
                epilogue.rows(s, n, row, out);
            }
        }
    }
}

/// A depth in units, cut at whole rows of a left tile's blocks ([`UnitFormat::ROW_UNITS`]) into parts as equal as can be.
#[derive(Clone, Copy)]
struct Cuts {
    rows: Tiles,
    row_units: usize,
    depth: usize,
}

impl Cuts {
    #[inline(always)]
    fn new<S: Simd, F: UnitFormat<S>>(depth: usize, limit: usize) -> Self {
        let row_units = F::ROW_UNITS;
        Self { rows: Tiles::new(depth.div_ceil(row_units), limit / row_units), row_units, depth }
    }

    #[inline(always)]
    fn count(&self) -> usize {
        self.rows.count
    }

    /// The first unit of a part, and how many it has.
    #[inline(always)]
    fn part(&self, part: usize) -> (usize, usize) {
        let [start, end] = [part, part + 1].map(|part| (self.rows.start(part) * self.row_units).min(self.depth));
        (start, end - start)
    }
}

/// Where the product of left tiles with one right panel goes: `columns` columns of rows `stride` apart.
pub struct PanelOutput<'a, T> {
    pub out: &'a mut [T],
    pub stride: usize,
    pub columns: usize,
    pub alpha: T,
    pub accumulate: bool,
    /// Whether it is in L1 anyway, so that it need not be prefetched.
    pub is_near: bool,
    /// What is read after this product, to be prefetched meanwhile.
    pub prefetch: &'a [T],
}

impl<'a, T: Real> PanelOutput<'a, T> {
    /// Overwrites a strip `[rows, panel]` in L1.
    #[inline(always)]
    pub fn strip(out: &'a mut [T], panel: usize) -> Self {
        Self { out, stride: panel, columns: panel, alpha: T::ONE, accumulate: false, is_near: true, prefetch: &[] }
    }
}

/// The left tiles `first..last`, `depth` units deep; the slice starts with tile `first`.
#[derive(Clone, Copy)]
pub struct LeftTiles<'a, T> {
    pub tiles: Tiles,
    pub first: usize,
    pub last: usize,
    pub panels: &'a [T],
    pub depth: usize,
    pub layout: TileLayout,
}

impl<'a, T> LeftTiles<'a, T> {
    /// All tiles.
    #[inline(always)]
    pub fn all(tiles: Tiles, depth: usize, panels: &'a [T]) -> Self {
        Self::some((tiles, 0, tiles.count), depth, panels)
    }

    /// The tiles `first..last`.
    #[inline(always)]
    pub fn some((tiles, first, last): (Tiles, usize, usize), depth: usize, panels: &'a [T]) -> Self {
        Self { tiles, first, last, panels, depth, layout: TileLayout::Packed }
    }

    /// Tiles of an operand that lies as a matrix: its rows `pitch` apart.
    #[inline(always)]
    pub fn rows(some: (Tiles, usize, usize), depth: usize, matrix: &'a [T], pitch: usize) -> Self {
        Self { layout: TileLayout::Strided { step: 1, pitch }, ..Self::some(some, depth, matrix) }
    }

    /// Tiles of an operand that lies as a matrix, transposed: the rows of that matrix, `step` apart, are steps of the sum.
    #[inline(always)]
    pub fn columns(some: (Tiles, usize, usize), depth: usize, matrix: &'a [T], step: usize) -> Self {
        Self { layout: TileLayout::Strided { step, pitch: 1 }, ..Self::some(some, depth, matrix) }
    }
}

/// `out ← alpha·left·right (+ out)`: `right` is all panels of `columns` columns, `whole` units deep, of which those from
/// `from` on, `left`'s depth, are used; rows of `out` lie `stride` apart.
#[inline(always)]
pub fn multiply_panels<S: Simd, F: UnitFormat<S>>(
    s: S,
    left: LeftTiles<'_, S::T>,
    (right, whole, from): (&[S::T], usize, usize),
    columns: usize,
    alpha: S::T,
    accumulate: bool,
    (out, stride): (&mut [S::T], usize),
) {
    let mut column = 0;
    while column < columns {
        let panel = panel_width::<S>(columns, column);
        let to = PanelOutput {
            out: &mut out[column..],
            stride,
            columns: panel.min(columns - column),
            alpha,
            accumulate,
            is_near: false,
            prefetch: &[],
        };
        multiply_panel::<S, F>(s, left, &right[whole * column + from * panel..], to);
        column += panel;
    }
}

/// Left tiles times one right panel, which starts with the first of their units. The output starts with the first row of
/// the first tile.
#[inline(always)]
pub fn multiply_panel<S: Simd, F: UnitFormat<S>>(
    s: S,
    left: LeftTiles<'_, S::T>,
    right: &[S::T],
    to: PanelOutput<'_, S::T>,
) {
    let LeftTiles { tiles, first, last, panels, depth, layout } = left;
    let row0 = tiles.start(first);
    let rows = tiles.start(last) - row0;
    let width = if to.columns <= S::LANES { S::LANES } else { 2 * S::LANES };
    assert!(first < last && last <= tiles.count && tiles.height(0) <= F::TILE_ROWS);
    let reach = match layout {
        TileLayout::Packed => depth * rows,
        TileLayout::Strided { step, pitch } => (depth.max(1) - 1) * step + (rows - 1) * pitch + 1,
    };
    assert!(panels.len() >= reach && right.len() >= depth * width);
    assert!(0 < to.columns && to.columns <= width && (to.columns <= to.stride || rows == 1));
    assert!(rows == 0 || (rows - 1) * to.stride + to.columns <= to.out.len(), "result out of bounds");
    let depths = Cuts::new::<S, F>(depth, DEPTH_BLOCK);
    let ends = [panels.as_ptr_range().end, right.as_ptr_range().end, to.out.as_ptr_range().end];
    for d in 0..depths.count() {
        let (d0, units) = depths.part(d);
        let mut tile = first;
        while tile < last {
            // A run of tiles of one height.
            let height = tiles.height(tile);
            let mut end = tile + 1;
            while end < last && tiles.height(end) == height {
                end += 1;
            }
            let row = tiles.start(tile) - row0;
            let (start, left_stride) = match layout {
                TileLayout::Packed => (depth * row + d0 * height, depth * height),
                TileLayout::Strided { step, pitch } => (d0 * step + row * pitch, height * pitch),
            };
            let prefetched = prefetched::<S::T>((last - first) * d + tile - first, depths.part(0).1);
            // SAFETY: asserted above: `panels` holds the tiles and `right` the panel, whole depth each, and the output
            // every row of the tiles.
            unsafe {
                let strip = Strip {
                    tiles: end - tile,
                    before: tile - first,
                    all: last - first,
                    depth: units,
                    left: panels.as_ptr().add(start),
                    left_stride,
                    layout,
                    right: right.as_ptr().add(d0 * width),
                    out: to.out.as_mut_ptr().add(row * to.stride),
                    out_stride: to.stride,
                    columns: to.columns,
                    alpha: to.alpha,
                    accumulate: to.accumulate || d > 0,
                    is_near: to.is_near,
                    ends,
                    prefetch: [to.prefetch.as_ptr().wrapping_add(prefetched), to.prefetch.as_ptr_range().end],
                };
                F::multiply(s, height, width / S::LANES, strip);
            }
            tile = end;
        }
    }
}

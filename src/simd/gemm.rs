//! `C ← alpha·A·B` or `C ← C + alpha·A·B`: the loops around the micro-kernel.
//!
//! | level: Zen 4 / Zen 5, a core | holds | size |
//! |---|---|---|
//! | registers: 32 of 64 bytes | a tile of sums: `TILE_ROWS` × 2 vectors | AVX-512 12×32, AVX2 6×16 |
//! | L1: 32 / 48 KiB | a right panel's block: [`DEPTH_BLOCK`] units × 2 vectors; a left tile passes through | AVX-512 32 KiB, AVX2 16 KiB |
//! | | SwiGLU over positions: a strip of g and u, `STRIP_TILES` tiles (`swiglu/cols.rs`) | 24 KiB |
//! | | attention: scores of `QUERIES` queries and `KEYS` keys, and a little beyond (`attention/operands.rs`) | 72 KiB |
//! | L2: 1 / 1 MiB | a block of left tiles, up to [`ROW_PASS`] deep where it is packed on the way: [`LEFT_BLOCK`] units | 448 KiB |
//! | | SwiGLU: input and activation of a block of rows (`ROW_BLOCK` in `swiglu/rows.rs`), a little beyond in f32 | 1 MiB |
//! | | its backward pass: gradient of the output and a `CHUNK` of those of g and u (`swiglu/backward_rows.rs`) | 512 KiB |
//! | | weight gradients: a block of the gradient, `BLOCK_TILES` × `BLOCK_COLUMNS` (`gathered.rs`) | 384 KiB |
//! | L3: 4 MiB a core | a lane's shard: 400 rows or so (`shard` in `train/lane.rs`), three or four such matrices | 0.8 MB each at D 512 |
//! | L3, memory | all right panels, read once per block of left tiles | weights: 7 MB |
//!
//! (A unit is four bytes: a number of f32, or a pair of bf16.)
//!
//! For each block of left tiles, for each right panel, for each depth block, for each tile (which asks for its share of the
//! next block of the panel while it computes, and for what is read after the product). The parts into which the depth is cut
//! depend on the depth alone, so an element of the result is the same sum in the same order wherever its row lies and
//! however many rows there are. A shard is as large as it is for the sake of weight panels from L3, which serve all of its
//! rows' blocks, and no larger, so that its states stay in a core's share of it.
//!
//! Ragged edges: output rows and columns that do not exist are neither computed (rows) nor stored (columns, by masks). Only
//! what is packed anyway is filled up: the last right panel to whole vectors, with zeros, in the copy that packing makes.

use super::Real;
use super::norm::AddRmsNorm;
use super::pack::{Precision, Strided, Tiles, in_format, pack_panels, pack_tiles, padded, panel_width, per_unit};
use super::scratch::{Aligned, Scratch};
use super::tile::{Strip, asked_for, multiply};
use super::vector::{Kernel, Simd};

/// Units of the summed index per pass over a panel, at most.
const DEPTH_BLOCK: usize = 256;
/// Units of the summed index per pass over a panel, for an operand so deep. A depth of up to two halves is summed in
/// halves, as the published code's library does: see "Orders of summation" in `ARCHITECTURE.md`.
fn depth_block(depth: usize) -> usize {
    if depth <= DEPTH_BLOCK { DEPTH_BLOCK / 2 } else { DEPTH_BLOCK }
}

/// Units of packed left operand kept in L2.
const LEFT_BLOCK: usize = 112 << 10;
/// Units of the summed index of a left operand packed at a time, so that a block of it has a dozen tiles or more: a right
/// panel is fetched while the one before it is used by that many.
const ROW_PASS: usize = 512;
/// Right panels packed at a time: a stretch of a source row that the processor's prefetchers follow.
const GROUP: usize = 4;

/// One operand: packed beforehand (whole depth), or to be packed on the way.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a, T> {
    Packed(&'a Aligned<T>),
    Strided(Strided<'a, T>),
}

/// `out ← alpha·left·right (+ out)`: left is `m × k`, right `k × n`; rows of `out` lie `out_stride` apart.
pub struct Product<'a, T> {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub left: Operand<'a, T>,
    pub right: Operand<'a, T>,
    pub alpha: T,
    pub accumulate: bool,
    pub precision: Precision,
    pub out: &'a mut [T],
    pub out_stride: usize,
    /// What becomes of rows of `out`, which follow each other then, as soon as they are whole.
    pub then: Option<AddRmsNorm<'a, T>>,
    pub scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for Product<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, |FORMAT| self.multiply::<S, FORMAT>(s))
    }
}

impl<T: Real> Product<'_, T> {
    #[inline(always)]
    fn multiply<S: Simd<T = T>, const FORMAT: u8>(mut self, s: S) {
        let (m, k, n) = (self.m, self.k, self.n);
        if m == 0 || n == 0 {
            return;
        }
        assert!(n <= self.out_stride || m == 1, "rows of the result overlap");
        assert!((m - 1) * self.out_stride + n <= self.out.len(), "result out of bounds");
        if let Some(then) = &self.then {
            assert_eq!(n, self.out_stride, "rows follow each other");
            then.check(m, m * n);
        }
        if k == 0 {
            if !self.accumulate {
                for row in 0..m {
                    self.out[row * self.out_stride..][..n].fill(T::ZERO);
                }
            }
            if let Some(then) = &mut self.then {
                then.rows(s, n, 0, &mut self.out[..m * n]);
            }
            return;
        }
        // Operands packed on the way are packed a stretch of the depth at a time.
        let limit = match (self.left, self.right) {
            (Operand::Packed(_), Operand::Strided(_)) => DEPTH_BLOCK,
            (Operand::Strided(_), Operand::Packed(_)) => ROW_PASS,
            _ => usize::MAX,
        };
        let passes = Tiles::new(k.div_ceil(per_unit(FORMAT)), limit);
        for pass in 0..passes.count {
            self.pass::<S, FORMAT>(s, passes.start(pass), passes.height(pass));
            self.accumulate = true;
        }
    }

    /// The units `d0..d0 + depth` of the sum.
    #[inline(always)]
    fn pass<S: Simd<T = T>, const FORMAT: u8>(&mut self, s: S, d0: usize, depth: usize) {
        let (m, n) = (self.m, self.n);
        let per_unit = per_unit(FORMAT);
        let whole_depth = self.k.div_ceil(per_unit);
        let steps = (d0 * per_unit, (depth * per_unit).min(self.k - d0 * per_unit));
        let tiles = Tiles::new(m, S::TILE_ROWS);
        let blocks = Tiles::new(tiles.count, (LEFT_BLOCK / (depth * S::TILE_ROWS)).max(1));
        let Scratch { left: left_scratch, right: right_scratch, .. } = &mut *self.scratch;
        // Right panels packed on the way are packed in groups, and kept only if another block of left tiles comes.
        let group = GROUP * 2 * S::LANES;
        let keep_panels = blocks.count > 1;
        if let Operand::Strided(_) = self.right {
            right_scratch.at_least(depth * if keep_panels { padded::<S>(n) } else { group });
        }
        for block in 0..blocks.count {
            let first = blocks.start(block);
            let last = first + blocks.height(block);
            let (row, end) = (tiles.start(first), tiles.start(last));
            let left = match self.left {
                Operand::Packed(panels) => {
                    let panels = &panels.as_slice()[whole_depth * row..whole_depth * end];
                    LeftTiles { whole_depth, from: d0, ..LeftTiles::some((tiles, first, last), depth, panels) }
                }
                Operand::Strided(from) => {
                    let to = left_scratch.at_least(depth * (end - row));
                    pack_tiles::<S, FORMAT>(s, from, (tiles, first, last), steps, to);
                    LeftTiles::some((tiles, first, last), depth, to)
                }
            };
            let mut column = 0;
            while column < n {
                let width = panel_width::<S>(n, column);
                let columns = width.min(n - column);
                let right: &[T] = match self.right {
                    Operand::Packed(panels) => &panels.as_slice()[whole_depth * column + d0 * width..],
                    Operand::Strided(from) => {
                        let to = right_scratch.at_least(0);
                        let group_start = column - column % group;
                        let to = if keep_panels { &mut to[depth * group_start..] } else { to };
                        if block == 0 && column == group_start {
                            let end = n.min(column + group);
                            pack_panels::<S, FORMAT, false>(s, from, (column, end), steps, to);
                        }
                        &to[depth * (column - group_start)..]
                    }
                };
                let out = &mut self.out[row * self.out_stride + column..];
                let to = PanelOutput {
                    out,
                    stride: self.out_stride,
                    columns,
                    alpha: self.alpha,
                    accumulate: self.accumulate,
                    ahead: &[],
                };
                multiply_panel::<S, FORMAT>(s, left, depth, right, to);
                column += width;
            }
            if let Some(then) = &mut self.then
                && d0 + depth == whole_depth
            {
                then.rows(s, n, row, &mut self.out[row * n..end * n]);
            }
        }
    }
}

/// Where the product of left tiles with one right panel goes: `columns` columns of rows `stride` apart.
pub struct PanelOutput<'a, T> {
    pub out: &'a mut [T],
    pub stride: usize,
    pub columns: usize,
    pub alpha: T,
    pub accumulate: bool,
    /// What is read after this product: asked for meanwhile.
    pub ahead: &'a [T],
}

impl<'a, T: Real> PanelOutput<'a, T> {
    /// Overwrites a strip `[rows, panel]`.
    #[inline(always)]
    pub fn strip(out: &'a mut [T], panel: usize) -> Self {
        Self { out, stride: panel, columns: panel, alpha: T::ONE, accumulate: false, ahead: &[] }
    }
}

/// The left tiles `first..last`; the slice starts with tile `first`. Tiles hold `whole_depth` units, of which those from
/// `from` on are used.
#[derive(Clone, Copy)]
pub struct LeftTiles<'a, T> {
    pub tiles: Tiles,
    pub first: usize,
    pub last: usize,
    pub panels: &'a [T],
    pub whole_depth: usize,
    pub from: usize,
    pub layout: Layout,
}

/// How the units of left tiles lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Tile by tile, a tile's rows interleaved.
    Packed,
    /// This far apart: those of a row, and those of a step of the sum.
    Strided { step: usize, pitch: usize },
}

impl<'a, T> LeftTiles<'a, T> {
    /// All tiles in their whole depth.
    #[inline(always)]
    pub fn all(tiles: Tiles, depth: usize, panels: &'a [T]) -> Self {
        Self::some((tiles, 0, tiles.count), depth, panels)
    }

    /// The tiles `first..last` in their whole depth.
    #[inline(always)]
    pub fn some((tiles, first, last): (Tiles, usize, usize), depth: usize, panels: &'a [T]) -> Self {
        Self { tiles, first, last, panels, whole_depth: depth, from: 0, layout: Layout::Packed }
    }

    /// Tiles of an operand that lies as a matrix: its rows `pitch` apart.
    #[inline(always)]
    pub fn rows(some: (Tiles, usize, usize), depth: usize, matrix: &'a [T], pitch: usize) -> Self {
        Self { layout: Layout::Strided { step: 1, pitch }, ..Self::some(some, depth, matrix) }
    }

    /// Tiles of an operand that lies as a matrix, transposed: the rows of that matrix, `step` apart, are steps of the sum.
    #[inline(always)]
    pub fn columns(some: (Tiles, usize, usize), depth: usize, matrix: &'a [T], step: usize) -> Self {
        Self { layout: Layout::Strided { step, pitch: 1 }, ..Self::some(some, depth, matrix) }
    }
}

/// `out ← alpha·left·right (+ out)`: `right` is all panels of `columns` columns, `whole` units deep, of which those from
/// `from` on, `left`'s depth, are used; rows of `out` lie `stride` apart.
#[inline(always)]
pub fn multiply_panels<S: Simd, const FORMAT: u8>(
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
            ahead: &[],
        };
        multiply_panel::<S, FORMAT>(s, left, left.whole_depth, &right[whole * column + from * panel..], to);
        column += panel;
    }
}

/// `depth` units of left tiles times one right panel, which starts with the first of these units.
/// The output starts with the first row of the first tile.
#[inline(always)]
pub fn multiply_panel<S: Simd, const FORMAT: u8>(
    s: S,
    left: LeftTiles<'_, S::T>,
    depth: usize,
    right: &[S::T],
    to: PanelOutput<'_, S::T>,
) {
    let LeftTiles { tiles, first, last, panels, whole_depth, from, layout } = left;
    let row0 = tiles.start(first);
    let rows = tiles.start(last) - row0;
    let width = if to.columns <= S::LANES { S::LANES } else { 2 * S::LANES };
    assert!(first < last && last <= tiles.count && tiles.height(0) <= S::TILE_ROWS);
    let reach = match layout {
        Layout::Packed => whole_depth * rows,
        Layout::Strided { step, pitch } => (whole_depth.max(1) - 1) * step + (rows - 1) * pitch + 1,
    };
    assert!(from + depth <= whole_depth && panels.len() >= reach && right.len() >= depth * width);
    assert!(0 < to.columns && to.columns <= width && (to.columns <= to.stride || rows == 1));
    assert!(rows == 0 || (rows - 1) * to.stride + to.columns <= to.out.len(), "result out of bounds");
    let depths = Tiles::new(depth, depth_block(whole_depth));
    let ends = [panels.as_ptr_range().end, right.as_ptr_range().end, to.out.as_ptr_range().end];
    for d in 0..depths.count {
        let d0 = depths.start(d);
        let mut tile = first;
        while tile < last {
            // A run of tiles of one height.
            let height = tiles.height(tile);
            let mut end = tile + 1;
            while end < last && tiles.height(end) == height {
                end += 1;
            }
            let row = tiles.start(tile) - row0;
            let (start, left_stride, left_steps) = match layout {
                Layout::Packed => (whole_depth * row + (from + d0) * height, whole_depth * height, (height, 1)),
                Layout::Strided { step, pitch } => ((from + d0) * step + row * pitch, height * pitch, (step, pitch)),
            };
            let asked_for = asked_for::<S::T>((last - first) * d + tile - first, depths.height(0));
            // SAFETY: asserted above: `panels` holds the tiles and `right` the panel, whole depth each, and the output
            // every row of the tiles.
            unsafe {
                let strip = Strip {
                    tiles: end - tile,
                    depth: depths.height(d),
                    left: panels.as_ptr().add(start),
                    left_stride,
                    left_steps,
                    right: right.as_ptr().add(d0 * width),
                    out: to.out.as_mut_ptr().add(row * to.stride),
                    out_stride: to.stride,
                    columns: to.columns,
                    alpha: to.alpha,
                    accumulate: to.accumulate || d > 0,
                    ends,
                    ahead: [to.ahead.as_ptr().wrapping_add(asked_for), to.ahead.as_ptr_range().end],
                };
                multiply::<S, FORMAT>(s, height, width / S::LANES, strip);
            }
            tile = end;
        }
    }
}

/// `out [m, n] ← fromᵀ (+ out)`, from `[n, m]` with rows `from_stride` apart.
#[inline(always)]
pub fn add_transposed<S: Simd>(
    s: S,
    (m, n): (usize, usize),
    from: &[S::T],
    from_stride: usize,
    out: &mut [S::T],
    out_stride: usize,
    accumulate: bool,
) {
    assert!((n - 1) * from_stride + m <= from.len() && (m - 1) * out_stride + n <= out.len());
    let mut i = 0;
    while i < m {
        let rows = (m - i).min(S::LANES);
        let mut j = 0;
        while j < n {
            let columns = (n - j).min(S::LANES);
            let mut block = s.block();
            for (c, v) in block.as_mut().iter_mut().enumerate() {
                let from = &from[(j + c.min(columns - 1)) * from_stride + i..][..rows];
                // SAFETY: exactly the slice is read.
                *v = unsafe { s.load_first_ptr(from.as_ptr(), rows) };
            }
            let block = s.transpose(block);
            for (r, &v) in block.as_ref().iter().enumerate().take(rows) {
                let to = &mut out[(i + r) * out_stride + j..][..columns];
                // SAFETY: exactly the slice is read and written.
                unsafe {
                    let v = if accumulate { s.add(v, s.load_first_ptr(to.as_ptr(), columns)) } else { v };
                    s.store_first_ptr(to.as_mut_ptr(), v, columns);
                }
            }
            j += S::LANES;
        }
        i += S::LANES;
    }
}

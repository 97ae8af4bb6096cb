//! The micro-kernel: one right panel times a run of left tiles, sums in registers.

use std::marker::PhantomData;

use super::Real;
use super::format::{UnitFormat, Units};
use super::vector::{Kernel, Simd};

/// Steps of the summed index per cache line that a tile prefetches: eight tiles of 12×32 prefetch a whole panel.
pub const PREFETCH_STEPS: usize = 4;

/// Elements that `tiles` tiles of `depth` steps prefetch.
pub const fn prefetched<T>(tiles: usize, depth: usize) -> usize {
    tiles * (depth / PREFETCH_STEPS) * line::<T>()
}

/// Elements of a cache line.
const fn line<T>() -> usize {
    64 / size_of::<T>()
}

/// How the units of left tiles lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TileLayout {
    /// Tile by tile, in the order that the format's micro-kernel reads (`left.rs`).
    Packed,
    /// This far apart: those of a row, and those of a step of the sum.
    Strided { step: usize, pitch: usize },
}

/// Where the micro-kernel finds and leaves its elements. `tiles` tiles of one height lie one after the other, in the
/// left operand (`left_stride` apart) and in the output.
#[derive(Clone, Copy)]
pub struct Strip<T> {
    pub tiles: usize,
    /// Tiles before these that the same panel is multiplied with, and all that there are.
    pub before: usize,
    pub all: usize,
    pub depth: usize,
    pub left: *const T,
    pub left_stride: usize,
    pub layout: TileLayout,
    pub right: *const T,
    pub out: *mut T,
    pub out_stride: usize,
    /// Columns of the output that exist.
    pub columns: usize,
    pub alpha: T,
    /// Whether the output is added to or written.
    pub accumulate: bool,
    /// Whether the output is in L1 anyway, so that it need not be prefetched.
    pub is_near: bool,
    /// Ends of the left operand, the right one and the output, for debug builds to check.
    pub ends: [*const T; 3],
    /// Range to prefetch, start and end; each tile takes its part, as far as it goes.
    pub prefetch: [*const T; 2],
}

/// What a tile prefetches while it is computed: its part of what follows the panel, which all tiles use next, and of what
/// is read after the product.
pub struct Ahead<T> {
    next: *const T,
    /// The same of what would be nobody's where tiles are few.
    rest: *const T,
    has_rest: bool,
    later: *const T,
    end: *const T,
}

impl<T: Real> Ahead<T> {
    /// Of a tile of the strip, whose right panel has `panel` elements.
    #[inline(always)]
    pub fn of(strip: &Strip<T>, tile: usize, panel: usize) -> Self {
        let share = strip.depth / PREFETCH_STEPS * line::<T>();
        // The last tiles take it on, or what they read would push it out of L1 again.
        let idle = strip.all.saturating_sub(panel.div_ceil(share.max(1)));
        let nth = (strip.before + tile).checked_sub(idle);
        let place = |first: usize| nth.map(|nth| (first + nth) * share).filter(|&at| at < panel);
        let [next, rest] = [place(0), place(strip.all)];
        let follows = |at: Option<usize>| strip.right.wrapping_add(at.map_or(0, |at| panel + at));
        let [start, end] = strip.prefetch;
        Self {
            next: follows(next),
            rest: follows(rest),
            has_rest: rest.is_some(),
            later: start.wrapping_add(tile * share),
            end,
        }
    }

    /// The part of [`PREFETCH_STEPS`] steps.
    #[inline(always)]
    pub fn advance<S: Simd<T = T>>(&mut self, s: S) {
        s.prefetch(self.next);
        self.next = self.next.wrapping_add(line::<T>());
        if self.has_rest {
            s.prefetch(self.rest);
            self.rest = self.rest.wrapping_add(line::<T>());
        }
        if self.later < self.end {
            s.prefetch_l2(self.later);
            self.later = self.later.wrapping_add(line::<T>());
        }
    }
}

impl<T> Strip<T> {
    /// Whether the tiles of so many rows reach beyond no operand's end, the last step and row of the left one lying
    /// `within` from its tile's start.
    pub fn is_within(&self, rows: usize, within: usize, panel: usize) -> bool {
        let left = self.left.wrapping_add((self.tiles - 1) * self.left_stride + within);
        let right = self.right.wrapping_add(panel);
        let out = self.out.cast_const().wrapping_add((self.tiles * rows - 1) * self.out_stride + self.columns);
        [left, right, out].iter().zip(&self.ends).all(|(reach, end)| reach <= end)
    }
}

/// Runs the micro-kernel in registers, for tiles of `rows ≤ 12` rows and `vectors` (1 or 2) vectors of columns.
/// # Safety
/// Left tiles hold `depth × rows` elements at the given steps, the right panel `depth × vectors·LANES`, and `columns ≤
/// vectors·LANES` elements of every output row of the tiles are writable.
#[inline(always)]
pub unsafe fn multiply<S: Simd, F: UnitFormat<S>>(s: S, rows: usize, vectors: usize, strip: Strip<S::T>) {
    debug_assert!(rows <= S::TILE_ROWS && strip.columns <= vectors * S::LANES);
    macro_rules! heights {
        ($($rows:literal)*) => {
            match (rows, vectors) {
                $(($rows, 1) if $rows <= S::TILE_ROWS => s.call(Tile::<S::T, F::Units, $rows, 1>(strip, PhantomData)),
                ($rows, 2) if $rows <= S::TILE_ROWS => s.call(Tile::<S::T, F::Units, $rows, 2>(strip, PhantomData)),)*
                _ => unreachable!("a tile has 1 to {} rows and 1 or 2 vectors", S::TILE_ROWS),
            }
        };
    }
    heights!(1 2 3 4 5 6 7 8 9 10 11 12)
}

struct Tile<T, U, const ROWS: usize, const VECTORS: usize>(Strip<T>, PhantomData<U>);

impl<T: Real, U: Units, const ROWS: usize, const VECTORS: usize> Kernel<T> for Tile<T, U, ROWS, VECTORS> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let strip = self.0;
        let alpha = s.splat(strip.alpha);
        let (step, pitch) = match strip.layout {
            TileLayout::Packed => (ROWS, 1),
            TileLayout::Strided { step, pitch } => (step, pitch),
        };
        if cfg!(debug_assertions) && strip.tiles > 0 && strip.depth > 0 {
            let within = (strip.depth - 1) * step + (ROWS - 1) * pitch + 1;
            assert!(strip.is_within(ROWS, within, strip.depth * VECTORS * S::LANES), "tile out of bounds");
        }
        for tile in 0..strip.tiles {
            // SAFETY: the contract of `multiply`.
            unsafe {
                // A pointer for every three rows, so that each row is one of them, it and a pitch, or it and two.
                let mut left = [strip.left.add(tile * strip.left_stride); 4];
                for (group, left) in left.iter_mut().enumerate() {
                    *left = left.wrapping_add(3 * group * pitch);
                }
                let mut right = strip.right;
                let out = strip.out.add(tile * ROWS * strip.out_stride);
                if !strip.is_near {
                    for i in 0..ROWS {
                        for j in 0..VECTORS {
                            s.prefetch(out.wrapping_add(i * strip.out_stride + j * S::LANES));
                        }
                    }
                }
                let mut ahead = Ahead::of(&strip, tile, strip.depth * VECTORS * S::LANES);
                let mut sums = [[s.zero(); VECTORS]; ROWS];
                // A macro and not a closure, which would lose the instruction set.
                macro_rules! steps {
                    ($n:expr) => {
                        for _ in 0..$n {
                            let mut b = [s.zero(); VECTORS];
                            for (j, b) in b.iter_mut().enumerate() {
                                *b = s.load_ptr(right.add(j * S::LANES));
                            }
                            for (i, sums) in sums.iter_mut().enumerate() {
                                let a = s.splat(left[i / 3].add(i % 3 * pitch).read());
                                for (j, sum) in sums.iter_mut().enumerate() {
                                    *sum = U::On::<S>::multiply_add(s, a, b[j], *sum);
                                }
                            }
                            for left in &mut left {
                                *left = left.wrapping_add(step);
                            }
                            right = right.add(VECTORS * S::LANES);
                        }
                    };
                }
                for _ in 0..strip.depth / PREFETCH_STEPS {
                    ahead.advance(s);
                    steps!(PREFETCH_STEPS);
                }
                steps!(strip.depth % PREFETCH_STEPS);
                let whole = strip.columns == VECTORS * S::LANES;
                // Without a factor the multipliers are free for the next tile.
                let plain = strip.alpha == T::ONE;
                // Each `$sum` is what becomes of a `$value`, and of what lies there.
                macro_rules! leave {
                    (whole, |$value:ident $(, $old:ident)?| $sum:expr) => {
                        for (i, sums) in sums.iter().enumerate() {
                            for (j, &$value) in sums.iter().enumerate() {
                                let to = out.add(i * strip.out_stride + j * S::LANES);
                                $(let $old = s.load_ptr(to);)?
                                s.store_ptr(to, $sum);
                            }
                        }
                    };
                    (edge, |$value:ident $(, $old:ident)?| $sum:expr) => {
                        for (i, sums) in sums.iter().enumerate() {
                            for (j, &$value) in sums.iter().enumerate() {
                                let to = out.add(i * strip.out_stride + j * S::LANES);
                                let n = strip.columns.saturating_sub(j * S::LANES).min(S::LANES);
                                $(let $old = s.load_first_ptr(to, n);)?
                                s.store_first_ptr(to, $sum, n);
                            }
                        }
                    };
                }
                match (whole, strip.accumulate) {
                    (true, false) if plain => leave!(whole, |sum| sum),
                    (true, true) if plain => leave!(whole, |sum, old| U::On::<S>::join(s, sum, old)),
                    (true, false) => leave!(whole, |sum| U::On::<S>::scale(s, alpha, sum)),
                    (true, true) => leave!(whole, |sum, old| U::On::<S>::scale_add(s, alpha, sum, old)),
                    (false, false) => leave!(edge, |sum| U::On::<S>::scale(s, alpha, sum)),
                    (false, true) => leave!(edge, |sum, old| U::On::<S>::scale_add(s, alpha, sum, old)),
                }
            }
        }
    }
}

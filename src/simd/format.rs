//! Number formats of packed operands: what a unit of a panel holds, and how two units are multiplied.

use super::limit;
use super::tile::{self, Strip};
use super::vector::{Dots, Simd, TileUnit};

/// Number format of the operands of products. Sums are always f32; f64 ignores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16 (to nearest, ties to even; the dot product instructions take denormals for 0).
    Bf16,
}

impl Precision {
    /// Bytes of an element of packed operands on the active path: rounded ones stay f32 where pairs are not multiplied.
    pub fn element_bytes(self) -> usize {
        if self == Self::Bf16 && super::isa().multiplies_pairs() { 2 } else { 4 }
    }

    /// Steps of the summed index in a unit, on an instruction set.
    #[inline(always)]
    pub(super) fn steps<S: Simd>(self) -> usize {
        match self {
            Self::F32 => <Plain as Format<S>>::STEPS,
            Self::Bf16 => <S::Bf16 as Format<S>>::STEPS,
        }
    }
}

/// What a lane of a packed vector, a unit, holds on an instruction set.
pub trait Format<S: Simd>: Sized {
    /// Steps of the summed index in a unit: 1 or 2.
    const STEPS: usize;
    /// Rows of the micro-kernel's tile.
    const TILE_ROWS: usize = S::TILE_ROWS;
    /// Units of a row that lie side by side in a left tile (`left.rs`).
    const ROW_UNITS: usize = 1;
    /// Whether a unit is an element as it is.
    const AS_IS: bool = false;
    /// Units of a step (`low`) and, where they hold two, of the step after it (`high`).
    fn pack(s: S, low: S::V, high: S::V) -> S::V;
    /// Units of consecutive elements: of LANES, or, where a unit holds two, of 2·LANES.
    fn pack_along(s: S, first: S::V, second: S::V) -> S::V;
    /// What [`Format::pack`] packed, rounded; `high` only where a unit holds two.
    #[inline(always)]
    fn unpack(_: S, units: S::V) -> (S::V, S::V) {
        (units, units)
    }
    /// `sum + a·b`, over the steps of a unit.
    #[inline(always)]
    fn multiply_add(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
        s.fma(a, b, sum)
    }
    /// Runs the micro-kernel for tiles of `rows` rows and `vectors` (1 or 2) vectors of columns.
    /// # Safety
    /// Left tiles hold all units of the strip's depth in all rows, as its layout says, the right panel `depth ×
    /// vectors·LANES`, and `columns ≤ vectors·LANES` elements of every output row of the tiles are writable.
    #[inline(always)]
    unsafe fn multiply(s: S, rows: usize, vectors: usize, strip: Strip<S::T>) {
        // SAFETY: the caller's contract.
        unsafe { tile::multiply::<S, Self>(s, rows, vectors, strip) }
    }
    /// Multiplies and adds what is in registers, over and over; returns how many FLOPs that were.
    #[inline(always)]
    fn busy(s: S) -> usize {
        limit::chains::<S, Self>(s)
    }
}

/// An element as it is.
pub struct Plain;

impl<S: Simd> Format<S> for Plain {
    const STEPS: usize = 1;
    const AS_IS: bool = true;
    #[inline(always)]
    fn pack(_: S, low: S::V, _: S::V) -> S::V {
        low
    }
    #[inline(always)]
    fn pack_along(_: S, first: S::V, _: S::V) -> S::V {
        first
    }
}

/// An element rounded to bf16, kept in f32.
pub struct Rounded;

impl<S: Simd> Format<S> for Rounded {
    const STEPS: usize = 1;
    #[inline(always)]
    fn pack(s: S, low: S::V, _: S::V) -> S::V {
        s.round_bf16(low)
    }
    #[inline(always)]
    fn pack_along(s: S, first: S::V, _: S::V) -> S::V {
        s.round_bf16(first)
    }
}

/// Two elements in bf16, for processors that multiply such pairs.
pub struct Pairs;

impl<S: Dots> Format<S> for Pairs {
    const STEPS: usize = 2;
    #[inline(always)]
    fn pack(s: S, low: S::V, high: S::V) -> S::V {
        s.pair(low, high)
    }
    #[inline(always)]
    fn pack_along(s: S, first: S::V, second: S::V) -> S::V {
        s.narrow(first, second)
    }
    #[inline(always)]
    fn unpack(s: S, units: S::V) -> (S::V, S::V) {
        s.unpair(units)
    }
    #[inline(always)]
    fn multiply_add(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
        s.dot_pairs(a, b, sum)
    }
}

/// Pairs as above, for processors that multiply tiles of them.
pub struct TilePairs;

impl<S: TileUnit> Format<S> for TilePairs {
    const STEPS: usize = 2;
    const TILE_ROWS: usize = 2 * S::LANES;
    const ROW_UNITS: usize = S::LANES;
    #[inline(always)]
    fn pack(s: S, low: S::V, high: S::V) -> S::V {
        s.pair(low, high)
    }
    #[inline(always)]
    fn pack_along(s: S, first: S::V, second: S::V) -> S::V {
        s.narrow(first, second)
    }
    #[inline(always)]
    fn unpack(s: S, units: S::V) -> (S::V, S::V) {
        s.unpair(units)
    }
    #[inline(always)]
    unsafe fn multiply(s: S, rows: usize, vectors: usize, strip: Strip<f32>) {
        // SAFETY: the caller's contract.
        unsafe { s.multiply_tiles(rows, vectors, strip) }
    }
    #[inline(always)]
    fn busy(s: S) -> usize {
        s.busy_tiles()
    }
}

/// `in_format!(precision, S, object.method(arguments))`: calls `method::<S, F>` with the format F that the precision is on S.
macro_rules! in_format {
    ($precision:expr, $simd:ty, $object:ident.$method:ident($($argument:expr),*)) => {
        match $precision {
            $crate::format::Precision::F32 => $object.$method::<$simd, $crate::format::Plain>($($argument),*),
            $crate::format::Precision::Bf16 => $object.$method::<$simd, <$simd>::Bf16>($($argument),*),
        }
    };
}
pub(super) use in_format;

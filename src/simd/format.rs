//! Number formats of packed operands: what a unit of a panel holds, and how two units are multiplied.

use super::limit;
use super::math::Use;
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
            Self::F32 => <Plain as UnitFormat<S>>::STEPS,
            Self::Bf16 => <S::Bf16 as UnitFormat<S>>::STEPS,
        }
    }
}

/// What a lane of a packed vector, a unit, holds on an instruction set, and how two units are multiplied.
pub trait UnitFormat<S: Simd>: Sized {
    /// Steps of the summed index in a unit: 1, 2 or 4.
    const STEPS: usize;
    /// Rows of the micro-kernel's tile.
    const TILE_ROWS: usize = S::TILE_ROWS;
    /// Units of a row that lie side by side in a left tile (`left.rs`).
    const ROW_UNITS: usize = 1;
    /// The same units, by a name that needs no instruction set.
    type Units: Units;
    /// `sum + a·b`, over the steps of a unit; a is of the left operand.
    #[inline(always)]
    fn multiply_add(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
        s.fma(a, b, sum)
    }
    /// What is written of a product: `alpha·sum`.
    #[inline(always)]
    fn scale(s: S, alpha: S::V, sum: S::V) -> S::V {
        s.mul(alpha, sum)
    }
    /// The same, added to what lies there: `alpha·sum + old`.
    #[inline(always)]
    fn scale_add(s: S, alpha: S::V, sum: S::V, old: S::V) -> S::V {
        s.fma(alpha, sum, old)
    }
    /// The same without a factor: `sum + old`.
    #[inline(always)]
    fn join(s: S, sum: S::V, old: S::V) -> S::V {
        s.add(sum, old)
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

/// A format of elements, which become units as they are or rounded. (Whole numbers, which have scales: `int8.rs`.)
pub trait Format<S: Simd>: UnitFormat<S> {
    /// Whether a unit is an element as it is.
    const AS_IS: bool = false;
    /// What becomes of elements.
    const USE: Use = if Self::AS_IS { Use::Exact } else { Use::Rounded };
    /// Units of a step (`low`) and, where they hold two, of the step after it (`high`).
    fn pack(s: S, low: S::V, high: S::V) -> S::V;
    /// Units of consecutive elements: of LANES, or, where a unit holds two, of 2·LANES.
    fn pack_along(s: S, first: S::V, second: S::V) -> S::V;
    /// What [`Format::pack`] packed, rounded; `high` only where a unit holds two.
    #[inline(always)]
    fn unpack(_: S, units: S::V) -> (S::V, S::V) {
        (units, units)
    }
}

/// Units, whatever the instruction set.
pub trait Units {
    /// Their format on an instruction set.
    type On<S: Simd>: UnitFormat<S>;
}

/// [`Plain`], and [`Rounded`], which is multiplied like it.
pub struct ElementUnits;

impl Units for ElementUnits {
    type On<S: Simd> = Plain;
}

/// [`Simd::Bf16`].
pub struct PairUnits;

impl Units for PairUnits {
    type On<S: Simd> = S::Bf16;
}

/// An element as it is.
pub struct Plain;

impl<S: Simd> UnitFormat<S> for Plain {
    const STEPS: usize = 1;
    type Units = ElementUnits;
}

impl<S: Simd> Format<S> for Plain {
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

impl<S: Simd> UnitFormat<S> for Rounded {
    const STEPS: usize = 1;
    type Units = ElementUnits;
}

impl<S: Simd> Format<S> for Rounded {
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

impl<S: Dots> UnitFormat<S> for Pairs {
    const STEPS: usize = 2;
    type Units = PairUnits;
    #[inline(always)]
    fn multiply_add(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
        s.dot_pairs(a, b, sum)
    }
}

impl<S: Dots> Format<S> for Pairs {
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
}

/// Pairs as above, for processors that multiply tiles of them.
pub struct TilePairs;

impl<S: TileUnit> UnitFormat<S> for TilePairs {
    const STEPS: usize = 2;
    const TILE_ROWS: usize = 2 * S::LANES;
    const ROW_UNITS: usize = S::LANES;
    type Units = PairUnits;
    #[inline(always)]
    unsafe fn multiply(s: S, rows: usize, vectors: usize, strip: Strip<f32>) {
        // SAFETY: the caller's contract.
        unsafe { s.multiply_tiles::<PairUnits>(rows, vectors, strip) }
    }
    #[inline(always)]
    fn busy(s: S) -> usize {
        s.busy_tiles::<PairUnits>()
    }
}

impl<S: TileUnit> Format<S> for TilePairs {
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

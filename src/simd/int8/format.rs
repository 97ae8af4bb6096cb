//! Formats of whole numbers.

use super::super::format::{ElementUnits, UnitFormat, Units};
use super::super::tile::Strip;
use super::super::vector::{Quads, Simd, TileUnit};

/// A format of whole numbers. Elements come divided by their scale; those of a unit in as many vectors as it has steps, of
/// four.
pub trait WholeNumbers<S: Simd>: UnitFormat<S> {
    /// Units of a left operand from consecutive elements.
    fn left_along(s: S, elements: [S::V; 4]) -> S::V;
    /// Units of a right operand from consecutive elements.
    fn right_along(s: S, elements: [S::V; 4]) -> S::V;
    /// Units of a right operand, each from the elements of its lane.
    fn right_across(s: S, elements: [S::V; 4]) -> S::V;
    /// Adds to the offsets of right vectors what a unit of each of them adds to sums because of how left operands are packed.
    fn add_offset(s: S, units: S::V, offset: S::V) -> S::V;
    /// What a sum is without the offset.
    fn value(s: S, sum: S::V, offset: S::V) -> S::V;
}

/// [`Simd::Int8`].
pub struct QuadUnits;

impl Units for QuadUnits {
    type On<S: Simd> = S::Int8;
}

/// Quads, for processors that multiply them, or do so by other instructions.
pub struct ByQuads;

/// Quads, for processors that multiply tiles of them.
pub struct TileQuads;

/// Whole numbers as elements.
pub struct Numbers;

/// What quads have in common; sums are whole numbers, for which a product has no factor.
macro_rules! sums {
    () => {
        const STEPS: usize = 4;
        type Units = QuadUnits;
        #[inline(always)]
        fn multiply_add(s: S, a: S::V, b: S::V, sum: S::V) -> S::V {
            s.dot_quads(a, b, sum)
        }
        #[inline(always)]
        fn scale(_: S, _: S::V, sum: S::V) -> S::V {
            sum
        }
        #[inline(always)]
        fn scale_add(s: S, _: S::V, sum: S::V, old: S::V) -> S::V {
            s.add_sums(sum, old)
        }
        #[inline(always)]
        fn join(s: S, sum: S::V, old: S::V) -> S::V {
            s.add_sums(sum, old)
        }
    };
}

impl<S: Quads> UnitFormat<S> for ByQuads {
    sums!();
}

impl<S: TileUnit> UnitFormat<S> for TileQuads {
    sums!();
    const TILE_ROWS: usize = 2 * S::LANES;
    const ROW_UNITS: usize = S::LANES;
    #[inline(always)]
    unsafe fn multiply(s: S, rows: usize, vectors: usize, strip: Strip<f32>) {
        // SAFETY: the caller's contract.
        unsafe { s.multiply_tiles::<QuadUnits>(rows, vectors, strip) }
    }
    #[inline(always)]
    fn busy(s: S) -> usize {
        s.busy_tiles::<QuadUnits>()
    }
}

macro_rules! quads {
    ($Format:ident, $Token:ident) => {
        impl<S: $Token> WholeNumbers<S> for $Format {
            #[inline(always)]
            fn left_along(s: S, elements: [S::V; 4]) -> S::V {
                s.offset_quads(s.quads_along(elements))
            }
            #[inline(always)]
            fn right_along(s: S, elements: [S::V; 4]) -> S::V {
                s.quads_along(elements)
            }
            #[inline(always)]
            fn right_across(s: S, elements: [S::V; 4]) -> S::V {
                s.quads_across(elements)
            }
            #[inline(always)]
            fn add_offset(s: S, units: S::V, offset: S::V) -> S::V {
                s.weigh_quads(units, offset)
            }
            #[inline(always)]
            fn value(s: S, sum: S::V, offset: S::V) -> S::V {
                s.difference(sum, offset)
            }
        }
    };
}

quads!(ByQuads, Quads);
quads!(TileQuads, TileUnit);

impl<S: Simd> UnitFormat<S> for Numbers {
    const STEPS: usize = 1;
    type Units = ElementUnits;
}

impl<S: Simd> WholeNumbers<S> for Numbers {
    #[inline(always)]
    fn left_along(s: S, elements: [S::V; 4]) -> S::V {
        s.round(elements[0])
    }
    #[inline(always)]
    fn right_along(s: S, elements: [S::V; 4]) -> S::V {
        s.round(elements[0])
    }
    #[inline(always)]
    fn right_across(s: S, elements: [S::V; 4]) -> S::V {
        s.round(elements[0])
    }
    #[inline(always)]
    fn add_offset(_: S, _: S::V, offset: S::V) -> S::V {
        offset
    }
    #[inline(always)]
    fn value(_: S, sum: S::V, _: S::V) -> S::V {
        sum
    }
}

//! What both passes of attention share: blocks, operands that lie as matrices, rotation.
//!
//! Nothing of the size of the scores is ever transposed. Scores are `[queries, keys]`; as rows they are the left
//! operand of products that sum over keys (`O = P V`, `dQ = dS K`), and with two queries to a unit, `[queries / 2, keys]`,
//! the left operand, read by columns, of those that sum over queries (`dV = Pᵀ dO`, `dK = dSᵀ Q`). Right operands are the
//! rows of v, k, q and dO as they come; only k and v, for the scores and for dP, are packed transposed.

use crate::Real;
use crate::format::Format;
use crate::gemm::{LeftTiles, multiply_panels};
use crate::pack::{Strided, Tiles, padded};
use crate::scratch::{Aligned, LINE};
use crate::vector::{Simd, sweep};

/// Keys whose scores are computed at a time: with a few dozen queries they stay in L1 or little beyond.
pub const KEYS: usize = 256;

/// Queries whose scores are computed at a time.
pub const QUERIES: usize = 72;

/// Elements from one row of scores to the next: an odd number of vectors, so that rows do not fall into the same L1 sets.
#[inline(always)]
pub fn pitch<S: Simd>(len: usize) -> usize {
    (len.min(KEYS).div_ceil(S::LANES) | 1) * S::LANES
}

/// The first `rows` vectors, `columns` long, as a left operand that lies as a matrix: in the format, one after the other.
#[inline(always)]
pub fn pack_rows<S: Simd, F: Format<S>>(
    s: S,
    from: Strided<'_, S::T>,
    (rows, columns): (usize, usize),
    to: &mut [S::T],
) {
    assert_eq!(from.along, 1, "vectors are rows of the source");
    let units = columns.div_ceil(F::STEPS);
    for (row, to) in to.chunks_exact_mut(units).enumerate().take(rows) {
        let from = &from.data[row * from.across..][..columns];
        sweep!(S, units, at => {
            let v = if F::STEPS == 2 {
                let from = &from[2 * at.start()..];
                let first = from.len().min(S::LANES);
                let second = (from.len() - first).min(S::LANES);
                // SAFETY: as many elements as the slice has.
                unsafe {
                    F::pack_along(s, s.load_first_ptr(from.as_ptr(), first), s.load_first_ptr(from.as_ptr().add(first), second))
                }
            } else {
                let v = at.load(s, from);
                F::pack_along(s, v, v)
            };
            at.store(s, to, v);
        });
    }
}

/// Scores of a block of queries with the keys `k0..k0 + count`, lanes behind the last key included (they repeat it).
#[inline(always)]
pub fn scores<S: Simd, F: Format<S>>(
    s: S,
    queries: LeftTiles<'_, S::T>,
    keys: &[S::T],
    (k0, count): (usize, usize),
    alpha: S::T,
    (out, pitch): (&mut [S::T], usize),
) {
    let depth = queries.depth;
    let keys = (&keys[depth * k0..], depth, 0);
    multiply_panels::<S, F>(s, queries, keys, padded::<S>(count), alpha, false, (out, pitch));
}

/// The additive mask of the last vector of `count` scores: 0 in lanes that hold a key, minus infinity in the tail.
#[inline(always)]
pub fn tail_mask<S: Simd>(s: S, count: usize) -> S::V {
    let last = count - (count.div_ceil(S::LANES) - 1) * S::LANES;
    let mut lanes = [-S::T::ONE / S::T::ZERO; 16];
    lanes[..last].fill(S::T::ZERO);
    s.load(&lanes)
}

/// The tiles `first..last` of `tiles`: their first row and how many rows they have.
#[inline(always)]
pub fn rows_of(tiles: Tiles, first: usize, last: usize) -> (usize, usize) {
    (tiles.start(first), tiles.start(last) - tiles.start(first))
}

/// Pieces of memory of the given sizes, each of which starts on a cache line.
#[inline(always)]
pub fn pieces<T: Real, const N: usize>(memory: &mut Aligned<T>, sizes: [usize; N]) -> [&mut [T]; N] {
    let mut rest = memory.at_least(sizes.iter().map(|size| size.next_multiple_of(LINE)).sum());
    sizes.map(|size| {
        let (piece, after) = std::mem::take(&mut rest).split_at_mut(size.next_multiple_of(LINE));
        rest = after;
        &mut piece[..size]
    })
}

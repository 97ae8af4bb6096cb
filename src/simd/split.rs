//! One product on several threads, where others would be idle: a puzzle that is alone, or the last groups of a batch. Every
//! row's and column's sums are the same, whoever computes them.
//!
//! What waits for another thread's part may be given any other part meanwhile, so nobody waits with a thread's scratch
//! borrowed.

use std::ops::Range;

use rayon::prelude::*;

use super::Real;
use super::norm::{AddRmsNorm, add_rmsnorm_cols};

/// Parts begin at a multiple of so many rows: whole tiles of every instruction set.
pub(super) const TILE: usize = 12;

/// … or of so many columns: whole panels.
const PANEL: usize = 32;

/// Multiplications below which a product is not worth another thread's attention: a tenth of a millisecond or so.
const LEAST: usize = 4 << 20;

/// What an element costs that is read, changed and written, in multiplications.
pub(super) const ELEMENT: usize = 64;

/// Elements of a part of an array, at least a multiple of: cache lines, and vectors of every instruction set.
const ELEMENTS: usize = 64;

/// Into how many of `parts` to cut `vectors` rows or columns, at whole `unit`s, of `weights` multiplications each.
pub(super) fn worthwhile(parts: usize, vectors: usize, unit: usize, weights: usize) -> usize {
    if vectors * weights < LEAST { 1 } else { parts.min(vectors.div_ceil(unit)) }
}

/// Runs `work` for every part of `parts`, on this thread and on others of its pool.
pub(super) fn each_part(parts: usize, work: &(impl Fn(usize) + Sync)) {
    fn fork(parts: Range<usize>, work: &(impl Fn(usize) + Sync)) {
        let middle = parts.start + parts.len() / 2;
        match parts.len() {
            0 => {}
            1 => work(parts.start),
            _ => {
                rayon::join(|| fork(parts.start..middle, work), || fork(middle..parts.end, work));
            }
        }
    }
    fork(0..parts, work);
}

/// Runs `work` on every item, each worth so many multiplications, on this thread and up to `parts` of its pool in all.
pub fn each_item<I: Send>(items: &mut [I], multiplications: usize, parts: usize, work: &(impl Fn(&mut I) + Sync)) {
    fn fork<I: Send>(items: &mut [I], parts: usize, work: &(impl Fn(&mut I) + Sync)) {
        if parts <= 1 || items.len() <= 1 {
            return items.iter_mut().for_each(work);
        }
        let (few, (left, right)) = (parts / 2, items.split_at_mut(items.len() / 2));
        rayon::join(|| fork(left, few, work), || fork(right, parts - few, work));
    }
    let parts = worthwhile(parts, items.len(), 1, multiplications);
    fork(items, parts, work);
}

/// Arrays that lie item by item, as many elements of each array to every one of `count` items (or an array to none), each worth so
/// many multiplications: hands all of them to `work`, or every one of up to `parts` parts. `work` is told which items it has.
pub fn share_items<T: Real, const R: usize, const W: usize>(
    (count, multiplications): (usize, usize),
    parts: usize,
    reads: [&[T]; R],
    writes: [&mut [T]; W],
    work: impl Fn(Range<usize>, [&[T]; R], [&mut [T]; W]) + Sync,
) {
    let parts = worthwhile(parts, count, 1, multiplications);
    stretches((0..count, 1), parts, reads, writes, &work);
}

/// Arrays that lie item by item, as many elements of each array to every item (or an array to none): hands all of them to
/// `work`, or every one of up to `parts` parts, which begin at whole `unit`s of items. `work` is told which items it has.
pub fn stretches<T: Real, const R: usize, const W: usize>(
    (items, unit): (Range<usize>, usize),
    parts: usize,
    reads: [&[T]; R],
    writes: [&mut [T]; W],
    work: &(impl Fn(Range<usize>, [&[T]; R], [&mut [T]; W]) + Sync),
) {
    let count = items.len();
    if parts <= 1 || count <= unit {
        return work(items, reads, writes);
    }
    let few = parts / 2;
    // Its share, to the nearest unit: of 97 rows in whole tiles 48, not 60.
    let first = (2 * count * few + parts * unit) / (2 * parts * unit) * unit;
    let first = if first == 0 || first >= count { unit } else { first };
    let at = |len: usize| len / count * first;
    let (left, right) = (reads.map(|array| &array[..at(array.len())]), reads.map(|array| &array[at(array.len())..]));
    let mut lefts: [&mut [T]; W] = std::array::from_fn(|_| Default::default());
    let mut place = lefts.iter_mut();
    let rights = writes.map(|array| {
        let (left, right) = array.split_at_mut(at(array.len()));
        if let Some(place) = place.next() {
            *place = left;
        }
        right
    });
    let middle = items.start + first;
    rayon::join(
        || stretches((items.start..middle, unit), few, left, lefts, work),
        || stretches((middle..items.end, unit), parts - few, right, rights, work),
    );
}

/// As [`stretches`], of arrays whose elements do not know each other.
pub(super) fn elements<T: Real, const R: usize>(
    parts: usize,
    reads: [&[T]; R],
    to: &mut [T],
    work: impl Fn([&[T]; R], &mut [T]) + Sync,
) {
    let parts = worthwhile(parts, to.len(), ELEMENTS, ELEMENT);
    stretches((0..to.len(), ELEMENTS), parts, reads, [to], &|_, reads, [to]| work(reads, to));
}

/// As [`stretches`], of `count` rows or sequences, each of which is swept over.
pub(super) fn sweeps<T: Real, const R: usize, const W: usize>(
    count: usize,
    parts: usize,
    reads: [&[T]; R],
    writes: [&mut [T]; W],
    work: impl Fn([&[T]; R], [&mut [T]; W]) + Sync,
) {
    let elements = writes.iter().map(|array| array.len()).max().unwrap_or(0);
    let parts = worthwhile(parts, count, 1, elements / count.max(1) * ELEMENT);
    stretches((0..count, 1), parts, reads, writes, &|_, reads, writes| work(reads, writes));
}

/// Rows on their way through a product: x `[m, width]` to y `[m, out]`, or the columns of x `[width, n]` to those of y
/// `[out, n]`; residual and norm after it.
pub(super) struct Vectors<'a, T> {
    /// The first of these rows or columns among all.
    pub first: usize,
    pub x: &'a [T],
    pub y: &'a mut [T],
    pub epilogue: Option<AddRmsNorm<'a, T>>,
}

/// Hands all `m` rows to `product`, which makes `weights` multiplications for each, or every one of up to `parts` parts of
/// them on its own thread.
pub(super) fn by_rows<T: Real>(
    rows: Vectors<'_, T>,
    m: usize,
    weights: usize,
    parts: usize,
    product: impl Fn(Vectors<'_, T>) + Sync,
) {
    let Vectors { first, x, y, epilogue } = rows;
    let has_epilogue = epilogue.is_some();
    let AddRmsNorm { h, inv_rms } = epilogue.unwrap_or(AddRmsNorm { h: &[], inv_rms: &mut [] });
    let parts = worthwhile(parts, m, TILE, weights);
    stretches((first..first + m, TILE), parts, [x, h], [y, inv_rms], &|rows, [x, h], [y, inv_rms]| {
        let epilogue = has_epilogue.then_some(AddRmsNorm { h, inv_rms });
        product(Vectors { first: rows.start, x, y, epilogue });
    });
}

/// As [`by_rows`], of columns: every part copies those it takes, x and y, so that threads share no row.
pub(super) fn by_columns<T: Real>(
    columns: Vectors<'_, T>,
    (n, width, out): (usize, usize, usize),
    weights: usize,
    parts: usize,
    product: impl Fn(Vectors<'_, T>) + Sync,
) {
    let parts = worthwhile(parts, n, PANEL, weights);
    if parts <= 1 {
        return product(columns);
    }
    let Vectors { x, y, epilogue, .. } = columns;
    let step = n.div_ceil(parts).next_multiple_of(PANEL);
    let part = |at: usize| {
        let first = at * step;
        let count = step.min(n - first);
        let own: Vec<T> = x.chunks_exact(n).flat_map(|row| &row[first..first + count]).copied().collect();
        debug_assert_eq!(own.len(), width * count);
        let mut made = vec![T::ZERO; out * count];
        product(Vectors { first, x: &own, y: &mut made, epilogue: None });
        (first, count, made)
    };
    let made: Vec<_> = (0..n.div_ceil(step)).into_par_iter().with_max_len(1).map(part).collect();
    for (first, count, made) in made {
        for (row, made) in y.chunks_exact_mut(n).zip(made.chunks_exact(count)) {
            row[first..first + count].copy_from_slice(made);
        }
    }
    if let Some(AddRmsNorm { h, inv_rms }) = epilogue {
        add_rmsnorm_cols(out, n, h, y, inv_rms);
    }
}

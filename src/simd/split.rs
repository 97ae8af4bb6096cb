//! One product on several threads, for a puzzle that is alone and would leave them idle. Every row's and column's sums are the
//! same, whoever computes them.

use rayon::prelude::*;

use super::Real;
use super::norm::{AddRmsNorm, add_rmsnorm_cols};

/// Parts begin at a multiple of so many rows: whole tiles of every instruction set.
const TILE: usize = 12;

/// … or of so many columns: whole panels.
const PANEL: usize = 32;

/// Multiplications below which a product is not worth another thread's attention: a tenth of a millisecond or so.
const LEAST: usize = 4 << 20;

/// Into how many of `parts` to cut `vectors` rows or columns, at whole `unit`s, of `weights` multiplications each.
fn worthwhile(parts: usize, vectors: usize, unit: usize, weights: usize) -> usize {
    if vectors * weights < LEAST { 1 } else { parts.min(vectors.div_ceil(unit)) }
}

/// Rows on their way through a product: x `[m, width]` to y `[m, out]`, or the columns of x `[width, n]` to those of y
/// `[out, n]`; residual and norm after it.
pub(super) struct Vectors<'a, T> {
    pub x: &'a [T],
    pub y: &'a mut [T],
    pub epilogue: Option<AddRmsNorm<'a, T>>,
}

/// Hands all rows to `product`, which makes `weights` multiplications for each, or every one of up to `parts` parts of them
/// on its own thread.
pub(super) fn by_rows<T: Real>(
    rows: Vectors<'_, T>,
    (m, width, out): (usize, usize, usize),
    weights: usize,
    parts: usize,
    product: impl Fn(Vectors<'_, T>) + Sync,
) {
    share(rows, (m, width, out), worthwhile(parts, m, TILE, weights), &product);
}

fn share<T: Real>(
    rows: Vectors<'_, T>,
    (m, width, out): (usize, usize, usize),
    parts: usize,
    product: &(impl Fn(Vectors<'_, T>) + Sync),
) {
    if parts <= 1 || m <= TILE {
        return product(rows);
    }
    let few = parts / 2;
    let first = (m * few).div_ceil(parts * TILE).max(1) * TILE;
    let first = if first >= m { TILE } else { first };
    let Vectors { x, y, epilogue } = rows;
    let ((x0, x1), (y0, y1)) = (x.split_at(first * width), y.split_at_mut(first * out));
    let (epilogue0, epilogue1) = match epilogue {
        Some(AddRmsNorm { h, inv_rms }) => {
            let ((h0, h1), (inv0, inv1)) = (h.split_at(first * out), inv_rms.split_at_mut(first));
            (Some(AddRmsNorm { h: h0, inv_rms: inv0 }), Some(AddRmsNorm { h: h1, inv_rms: inv1 }))
        }
        None => (None, None),
    };
    rayon::join(
        || share(Vectors { x: x0, y: y0, epilogue: epilogue0 }, (first, width, out), few, product),
        || share(Vectors { x: x1, y: y1, epilogue: epilogue1 }, (m - first, width, out), parts - few, product),
    );
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
    let Vectors { x, y, epilogue } = columns;
    let step = n.div_ceil(parts).next_multiple_of(PANEL);
    let part = |at: usize| {
        let first = at * step;
        let count = step.min(n - first);
        let own: Vec<T> = x.chunks_exact(n).flat_map(|row| &row[first..first + count]).copied().collect();
        debug_assert_eq!(own.len(), width * count);
        let mut made = vec![T::ZERO; out * count];
        product(Vectors { x: &own, y: &mut made, epilogue: None });
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

//! Tables whose rows are looked up or added, and runs of elements.

use std::ops::Range;

use crate::device::{Real, Runs};

/// Calls `each` with the elements of each of `count` runs of `len` elements, in both blocks.
pub(crate) fn each_run(
    (count, len): (usize, usize),
    from: Runs,
    to: Runs,
    mut each: impl FnMut(Range<usize>, Range<usize>),
) {
    for run in 0..count {
        let [x, y] = [from, to].map(|runs| runs.start + run * runs.stride);
        each(x..x + len, y..y + len);
    }
}

/// Every row of y becomes the vector.
pub(crate) fn broadcast<T: Real>(vector: &[T], y: &mut [T]) {
    for row in y.chunks_exact_mut(vector.len()) {
        row.copy_from_slice(vector);
    }
}

/// `y[b, prefix + s] ← scale · table[token[b, s]]`, `y[b, l < prefix] ← 0`; the table is `width` wide.
pub(crate) fn embed<T: Real>(
    table: &[T],
    width: usize,
    tokens: &[i32],
    (seq_len, prefix): (usize, usize),
    scale: f64,
    y: &mut [T],
) {
    let scale = T::from_f64(scale);
    for (sequence, tokens) in y.chunks_exact_mut((prefix + seq_len) * width).zip(tokens.chunks_exact(seq_len)) {
        let (before, rows) = sequence.split_at_mut(prefix * width);
        before.fill(T::ZERO);
        for (row, &token) in rows.chunks_exact_mut(width).zip(tokens) {
            for (y, &e) in row.iter_mut().zip(&table[token as usize * width..][..width]) {
                *y = scale * e;
            }
        }
    }
}

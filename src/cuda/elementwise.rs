//! Kernels that go over elements, and over rows that are looked up or added.

use super::queue::enqueue;
use super::{Backend, GradientSums, Integers, Queue, View, ffi};

impl<B: Backend> Queue<B> {
    /// `y ← value`.
    pub fn fill(self, y: View<'_>, value: f64) {
        enqueue!(self, fill(y.array, value, y.len() as i64));
    }

    /// `y ← x`, converted where the formats differ.
    pub fn copy(self, x: View<'_>, y: View<'_>) {
        assert_eq!(x.len(), y.len());
        enqueue!(self, copy(x.array, y.array, y.len() as i64));
    }

    /// `y ← y + alpha · x`.
    pub fn axpy(self, alpha: f64, x: View<'_>, y: View<'_>) {
        assert_eq!(x.len(), y.len());
        enqueue!(self, axpy(alpha, x.array, y.array, y.len() as i64));
    }

    /// `y ← x₀ + x₁ + …`, all of one format.
    pub fn sum(self, summands: &[View<'_>], y: View<'_>) {
        assert!(summands.iter().all(|x| x.len() == y.len()));
        assert!(summands.iter().all(|x| x.format() == y.format()), "summands of one format");
        enqueue!(self, sum(ffi::Summands::of(summands), y.array, y.len() as i64));
    }

    /// `count` runs of `len` elements, at equal distances in x and in y: `y ← x`, or with `alpha`, `y ← y + alpha · x`.
    pub fn runs(
        self,
        (count, len): (usize, usize),
        alpha: Option<f64>,
        (x, x_stride): (View<'_>, usize),
        (y, y_stride): (View<'_>, usize),
    ) {
        let fits = |view: View<'_>, stride: usize| count == 0 || (count - 1) * stride + len <= view.len();
        assert!(fits(x, x_stride) && fits(y, y_stride), "runs lie inside");
        let [x_stride, y_stride, count, len] = [x_stride, y_stride, count, len].map(|size| size as i64);
        match alpha {
            None => enqueue!(self, copy_runs(x.array, x_stride, y.array, y_stride, count, len)),
            Some(alpha) => enqueue!(self, add_runs(alpha, x.array, x_stride, y.array, y_stride, count, len)),
        }
    }

    /// Every row of y becomes the vector.
    pub fn broadcast(self, vector: View<'_>, y: View<'_>) {
        let width = vector.len();
        assert!(y.len().is_multiple_of(width));
        enqueue!(self, broadcast(vector.array, y.array, (y.len() / width) as i64, width as i64));
    }

    /// For each sequence b of y: where `anew[b]` is not 0, every row becomes the vector `start`; else the sequence is the
    /// carried one of place `place[b]`.
    ///
    /// Places are the caller's to keep below the number of sequences that are carried.
    pub fn start_states(
        self,
        start: View<'_>,
        carried: View<'_>,
        (place, anew): (Integers<'_>, Integers<'_>),
        y: View<'_>,
    ) {
        let (sequences, width) = (place.len(), start.len());
        let rows = y.len() / width;
        assert!(anew.len() == sequences && rows * width == y.len() && rows.is_multiple_of(sequences));
        assert!(carried.format() == y.format() && carried.len().is_multiple_of(y.len() / sequences));
        let (sequences, len, width) = (sequences as i64, (rows / sequences) as i64, width as i64);
        enqueue!(self, start_states(start.array, carried.array, place.data, anew.data, y.array, sequences, len, width));
    }

    /// The carried sequence of place `place[b]` becomes sequence b of y; places as in [`Queue::start_states`].
    pub fn keep_states(self, y: View<'_>, place: Integers<'_>, carried: View<'_>) {
        let sequences = place.len();
        let size = y.len() / sequences;
        assert!(size * sequences == y.len() && carried.len().is_multiple_of(size) && carried.format() == y.format());
        enqueue!(self, keep_states(y.array, place.data, carried.array, sequences as i64, size as i64));
    }

    /// `x ← x + scale · table` at the start of every stretch of `every` elements.
    pub fn add_table(self, table: View<'_>, scale: f64, every: usize, x: View<'_>) {
        assert!(table.len() <= every && x.len().is_multiple_of(every));
        enqueue!(self, add_table(table.array, table.len() as i64, scale, every as i64, x.array, x.len() as i64));
    }

    /// `d_table ← d_table + scale · Σ stretches dy`; rows of the sums are stretches.
    pub fn table_grad(self, dy: View<'_>, scale: f64, every: usize, d_table: GradientSums<'_>) {
        let (n, len) = (dy.len(), d_table.len());
        assert!(len <= every && n.is_multiple_of(every));
        let sums = d_table.of_rows(n / every);
        enqueue!(self, table_grad(dy.array, n as i64, every as i64, len as i64, scale, sums));
    }

    /// Rows of a table `[vocab, width]` behind an empty prefix: y `[sequences, prefix + seq_len, width]`.
    ///
    /// Tokens are the caller's to keep below `vocab`.
    pub fn embed(
        self,
        (table, width): (View<'_>, usize),
        tokens: Integers<'_>,
        (seq_len, prefix): (usize, usize),
        scale: f64,
        y: View<'_>,
    ) {
        let sequences = tokens.len() / seq_len;
        assert!(tokens.len() == sequences * seq_len && y.len() == sequences * (prefix + seq_len) * width);
        let [width, sequences, seq_len, prefix] = [width, sequences, seq_len, prefix].map(|size| size as i64);
        enqueue!(self, embed(table.array, width, tokens.data, sequences, seq_len, prefix, scale, y.array));
    }

    /// The gradient of the table in [`Queue::embed`]; rows of the sums are sequences.
    pub fn embed_backward(
        self,
        dy: View<'_>,
        width: usize,
        tokens: Integers<'_>,
        (seq_len, prefix): (usize, usize),
        scale: f64,
        d_table: GradientSums<'_>,
    ) {
        let (sequences, vocab) = (tokens.len() / seq_len, d_table.len() / width);
        assert!(tokens.len() == sequences * seq_len && dy.len() == sequences * (prefix + seq_len) * width);
        let sums = d_table.of_rows(sequences);
        let [width, vocab, sequences, seq_len, prefix] =
            [width, vocab, sequences, seq_len, prefix].map(|size| size as i64);
        enqueue!(self, embed_backward(dy.array, width, vocab, tokens.data, sequences, seq_len, prefix, scale, sums));
    }
}

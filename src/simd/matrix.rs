//! A plain GEMM: matrices as they lie in memory, of any size, packed on the way.

use rayon::prelude::*;

use super::Real;
use super::format::{Plain, Precision, UnitFormat};
use super::gemm::Gemm;
use super::isa::{Isa, isa};
use super::pack::{Strided, pack_panels, padded};
use super::vector::{Kernel, Simd, dispatch_on};

/// Columns of the right operand that one task packs: whole panels of every instruction set.
const PACKED_COLUMNS: usize = 256;

/// Rows of the result that one thread computes, at least: a few tiles.
const LEAST_ROWS: usize = 48;

/// A matrix for [`gemm`]: row-major values, or the transpose of such.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    transposed: bool,
}

impl<'a, T: Real> Matrix<'a, T> {
    /// `values` `[rows, columns]`, row-major.
    ///
    /// # Panics
    /// If that is not their number.
    pub fn new(values: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns, "a matrix of {rows} × {columns}");
        Self { values, rows, columns, transposed: false }
    }

    /// The transpose; nothing is moved.
    pub fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, transposed: !self.transposed, ..self }
    }

    /// Elements from one row to the next, and from one column to the next.
    fn strides(&self) -> (usize, usize) {
        if self.transposed { (1, self.rows) } else { (self.columns, 1) }
    }

    /// The rows from `first` on as vectors of a left operand.
    fn rows_from(&self, first: usize) -> Strided<'a, T> {
        let (across, along) = self.strides();
        Strided { data: &self.values[(first * across).min(self.values.len())..], along, across }
    }

    /// The columns as vectors of a right operand.
    fn as_columns(&self) -> Strided<'a, T> {
        let (along, across) = self.strides();
        Strided { data: self.values, along, across }
    }
}

/// `c ← a·b`, or with `accumulate` `c ← c + a·b`: a is m × k, b k × n, c `[m, n]` row-major.
///
/// Up to `threads` threads of the rayon pool that this is called in share the rows of c; the result is the same for any
/// number. In f64 this is the crate `matrixmultiply`, which serves better there than our portable vectors.
///
/// # Panics
/// If the shapes disagree.
///
/// ```
/// use trm_simd::{Matrix, gemm};
///
/// let (a, b) = ([1.0f32, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
/// let mut c = [0.0; 4];
/// gemm(Matrix::new(&a, 2, 2), Matrix::new(&b, 2, 2).transposed(), &mut c, false, 1);
/// assert_eq!(c, [17.0, 23.0, 39.0, 53.0]);
/// ```
pub fn gemm<T: Real>(a: Matrix<'_, T>, b: Matrix<'_, T>, c: &mut [T], accumulate: bool, threads: usize) {
    let (m, k, n) = (a.rows, a.columns, b.columns);
    assert_eq!(k, b.rows, "columns of a and rows of b");
    assert_eq!(c.len(), m * n, "a result of {m} × {n}");
    if c.is_empty() {
        return;
    }
    if k == 0 {
        if !accumulate {
            c.fill(T::ZERO);
        }
        return;
    }
    let rows = m.div_ceil(threads.max(1)).max(LEAST_ROWS);
    let Some(library) = T::LIBRARY_GEMM else {
        // Threads that help take this thread's path. The scratch is not borrowed while they are waited for: this thread may
        // be given other work meanwhile.
        let isa = isa();
        let mut panels = T::with_scratch(|scratch| std::mem::take(&mut scratch.right));
        let len = k * dispatch_on::<T, _>(isa, PaddedColumns { n });
        pack(isa, b.as_columns(), (k, n), &mut panels.at_least(len)[..len], threads);
        let (right, precision) = (&panels.as_slice()[..len], Precision::F32);
        each(c.chunks_mut(rows * n), threads, |i, out| {
            let (m, left) = (out.len() / n, a.rows_from(i * rows));
            T::with_scratch(|scratch| {
                let gemm = Gemm { m, k, n, left, right, accumulate, precision, out, epilogue: None, scratch };
                T::gemm(isa, gemm);
            });
        });
        return T::with_scratch(|scratch| scratch.right = panels);
    };
    let beta = if accumulate { T::ONE } else { T::ZERO };
    let [(a_row, a_column), (b_row, b_column)] = [a.strides(), b.strides()].map(|(r, c)| (r as isize, c as isize));
    each(c.chunks_mut(rows * n), threads, |i, c| {
        let (left, c_row) = (a.rows_from(i * rows).data.as_ptr(), n as isize);
        let (m, right) = (c.len() / n, b.values.as_ptr());
        // SAFETY: `a` holds its rows from the first of this part on, `b` is whole and `c` holds m rows of n, at these
        // strides; `c` is exclusive.
        unsafe {
            library(m, k, n, T::ONE, left, a_row, a_column, right, b_row, b_column, beta, c.as_mut_ptr(), c_row, 1)
        }
    });
}

/// Runs `work` on every chunk, by its number, on this thread or on several.
fn each<T: Real>(chunks: std::slice::ChunksMut<'_, T>, threads: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    if threads <= 1 {
        chunks.enumerate().for_each(|(i, chunk)| work(i, chunk));
    } else {
        let chunks: Vec<_> = chunks.enumerate().collect();
        chunks.into_par_iter().with_max_len(1).for_each(|(i, chunk)| work(i, chunk));
    }
}

/// Packs all `n` columns of a right operand, `k` deep.
fn pack<T: Real>(isa: Isa, from: Strided<'_, T>, (k, n): (usize, usize), panels: &mut [T], threads: usize) {
    each(panels.chunks_mut(k * PACKED_COLUMNS), threads, |i, to| {
        let first = i * PACKED_COLUMNS;
        dispatch_on(isa, PackColumns { from, columns: (first, n.min(first + PACKED_COLUMNS)), k, to });
    });
}

/// Columns of all panels of `n`, padding included.
struct PaddedColumns {
    n: usize,
}

impl<T: Real> Kernel<T> for PaddedColumns {
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, _: S) -> usize {
        padded::<S>(self.n)
    }
}

struct PackColumns<'a, T> {
    from: Strided<'a, T>,
    columns: (usize, usize),
    k: usize,
    to: &'a mut [T],
}

impl<T: Real> Kernel<T> for PackColumns<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        const { assert!(PACKED_COLUMNS.is_multiple_of(2 * S::LANES) && <Plain as UnitFormat<S>>::STEPS == 1) };
        pack_panels::<S, Plain, false>(s, self.from, self.columns, (0, self.k), self.to);
    }
}

//! Residual + RMSNorm, over rows (features) and over columns (positions); no weights (specification, "Block").

use super::Real;
use super::elementwise::dot_product;
use super::isa::isa;
use super::split::sweeps;
use super::vector::{Kernel, Simd, dispatch, dispatch_on, sweep};

/// The epsilon inside the norm.
pub const NORM_EPSILON: f64 = 1e-5;

/// `x ← rmsnorm(h + x)` for each row of `width`; `inv_rms[row]` receives the factor, for the backward pass.
pub fn add_rmsnorm_rows<T: Real>(width: usize, h: &[T], x: &mut [T], inv_rms: &mut [T]) {
    assert!(width > 0 && h.len() == x.len() && x.len() == width * inv_rms.len());
    dispatch(AddNormRows { width, h, x, inv_rms });
}

/// The backward pass of [`add_rmsnorm_rows`], in place: with y the output and d its gradient,
/// `d ← inv_rms · (d − y · mean(d·y))`, the gradient of both summands. So many threads of the pool that this runs in share the
/// rows (`parts` 1: the caller does all).
pub fn rmsnorm_backward_rows<T: Real>(width: usize, y: &[T], inv_rms: &[T], d: &mut [T], parts: usize) {
    assert!(width > 0 && y.len() == d.len() && d.len() == width * inv_rms.len());
    let isa = isa();
    sweeps(inv_rms.len(), parts, [y, inv_rms], [d], |[y, inv_rms], [d]| {
        dispatch_on(isa, NormRowsBackward { width, y, inv_rms, d });
    });
}

/// `x ← rmsnorm(h + x)` over the positions of each sequence: x is `[sequences, positions, width]`, the mean of
/// squares runs over positions; `inv_rms` is `[sequences, width]`.
pub fn add_rmsnorm_cols<T: Real>(positions: usize, width: usize, h: &[T], x: &mut [T], inv_rms: &mut [T]) {
    assert!(positions > 0 && width > 0);
    assert!(h.len() == x.len() && x.len() == positions * inv_rms.len() && inv_rms.len().is_multiple_of(width));
    dispatch(AddNormCols { positions, width, h, x, inv_rms });
}

/// The backward pass of [`add_rmsnorm_cols`], in place, as [`rmsnorm_backward_rows`]; `mean` is scratch `[sequences, width]`.
/// Threads share the sequences.
pub fn rmsnorm_backward_cols<T: Real>(
    positions: usize,
    width: usize,
    y: &[T],
    inv_rms: &[T],
    d: &mut [T],
    mean: &mut [T],
    parts: usize,
) {
    assert!(positions > 0 && width > 0 && inv_rms.len().is_multiple_of(width));
    assert!(y.len() == d.len() && d.len() == positions * inv_rms.len() && mean.len() == inv_rms.len());
    let isa = isa();
    sweeps(inv_rms.len() / width, parts, [y, inv_rms], [d, mean], |[y, inv_rms], [d, mean]| {
        dispatch_on(isa, NormColsBackward { positions, width, y, inv_rms, d, mean });
    });
}

struct AddNormRows<'a, T> {
    width: usize,
    h: &'a [T],
    x: &'a mut [T],
    inv_rms: &'a mut [T],
}

impl<T: Real> Kernel<T> for AddNormRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        rows(s, self.width, self.h, self.x, self.inv_rms);
    }
}

/// [`add_rmsnorm_rows`].
#[inline(always)]
fn rows<S: Simd>(s: S, width: usize, h: &[S::T], x: &mut [S::T], inv_rms: &mut [S::T]) {
    let epsilon = S::T::from_f64(NORM_EPSILON);
    let count = S::T::from_f64(width as f64);
    for ((x, h), inv) in x.chunks_exact_mut(width).zip(h.chunks_exact(width)).zip(inv_rms) {
        sweep!(S, x.len(), at => { at.store(s, x, s.add(at.load(s, x), at.load(s, h))) });
        *inv = S::T::ONE / Real::sqrt(dot_product(s, x, x) / count + epsilon);
        let factor = s.splat(*inv);
        sweep!(S, x.len(), at => { at.store(s, x, s.mul(at.load(s, x), factor)) });
    }
}

/// The epilogue of a kernel that makes `x`: residual and norm, `x ← rmsnorm(h + x)`, of rows or of a sequence while they are
/// in the cache.
pub struct AddRmsNorm<'a, T> {
    /// The residual, of the shape of x.
    pub h: &'a [T],
    /// Receives `1 / rms`, for the backward pass: one element a row, or per column of the sequence.
    pub inv_rms: &'a mut [T],
}

impl<T: Real> AddRmsNorm<'_, T> {
    /// Panics unless this goes with `vectors` rows, or columns of a sequence, of `len` elements together.
    pub fn check(&self, vectors: usize, len: usize) {
        assert!(self.h.len() == len && self.inv_rms.len() == vectors, "shapes of residual and norm");
    }

    /// Of the rows from `first` on, which `x` holds.
    #[inline(always)]
    pub fn rows<S: Simd<T = T>>(&mut self, s: S, width: usize, first: usize, x: &mut [T]) {
        let count = x.len() / width;
        let (h, inv_rms) = (&self.h[first * width..][..x.len()], &mut self.inv_rms[first..first + count]);
        rows(s, width, h, x, inv_rms);
    }

    /// Of a sequence `[positions, width]`.
    #[inline(always)]
    pub fn sequence<S: Simd<T = T>>(&mut self, s: S, width: usize, x: &mut [T]) {
        sequence(s, width, self.h, x, self.inv_rms);
    }
}

struct NormRowsBackward<'a, T> {
    width: usize,
    y: &'a [T],
    inv_rms: &'a [T],
    d: &'a mut [T],
}

impl<T: Real> Kernel<T> for NormRowsBackward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let inv_width = T::from_f64(1.0 / self.width as f64);
        for ((d, y), &inv) in self.d.chunks_exact_mut(self.width).zip(self.y.chunks_exact(self.width)).zip(self.inv_rms)
        {
            let mean = s.splat(dot_product(s, d, y) * inv_width);
            let inv = s.splat(inv);
            sweep!(S, d.len(), at => {
                let centred = s.sub(at.load(s, d), s.mul(at.load(s, y), mean));
                at.store(s, d, s.mul(inv, centred));
            });
        }
    }
}

struct AddNormCols<'a, T> {
    positions: usize,
    width: usize,
    h: &'a [T],
    x: &'a mut [T],
    inv_rms: &'a mut [T],
}

impl<T: Real> Kernel<T> for AddNormCols<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let Self { positions, width, .. } = self;
        let per_sequence = positions * width;
        let sequences = self.x.chunks_exact_mut(per_sequence).zip(self.h.chunks_exact(per_sequence));
        for ((x, h), inv) in sequences.zip(self.inv_rms.chunks_exact_mut(width)) {
            sequence(s, width, h, x, inv);
        }
    }
}

/// [`add_rmsnorm_cols`] of one sequence.
#[inline(always)]
fn sequence<S: Simd>(s: S, width: usize, h: &[S::T], x: &mut [S::T], inv: &mut [S::T]) {
    /// Rows whose squares go into different sums.
    const SUMS: usize = 4;
    sweep!(S, width, at => {
        let mut sums = [s.zero(); SUMS];
        for (x, h) in x.chunks_mut(SUMS * width).zip(h.chunks(SUMS * width)) {
            for ((x, h), sum) in x.chunks_exact_mut(width).zip(h.chunks_exact(width)).zip(&mut sums) {
                let value = s.add(at.load(s, x), at.load(s, h));
                at.store(s, x, value);
                *sum = s.fma(value, value, *sum);
            }
        }
        at.store(s, inv, s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])));
    });
    let (epsilon, one) = (s.splat(S::T::from_f64(NORM_EPSILON)), s.splat(S::T::ONE));
    let count = s.splat(S::T::from_f64((x.len() / width) as f64));
    sweep!(S, width, at => {
        at.store(s, inv, s.div(one, s.sqrt(s.add(s.div(at.load(s, inv), count), epsilon))));
    });
    for x in x.chunks_exact_mut(width) {
        sweep!(S, width, at => { at.store(s, x, s.mul(at.load(s, x), at.load(s, inv))) });
    }
}

struct NormColsBackward<'a, T> {
    positions: usize,
    width: usize,
    y: &'a [T],
    inv_rms: &'a [T],
    d: &'a mut [T],
    mean: &'a mut [T],
}

impl<T: Real> Kernel<T> for NormColsBackward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let Self { positions, width, mean, .. } = self;
        let factor = s.splat(T::from_f64(1.0 / positions as f64));
        let per_sequence = positions * width;
        let sequences = self.d.chunks_exact_mut(per_sequence).zip(self.y.chunks_exact(per_sequence));
        for (((d, y), inv), mean) in sequences.zip(self.inv_rms.chunks_exact(width)).zip(mean.chunks_exact_mut(width)) {
            mean.fill(T::ZERO);
            for (d, y) in d.chunks_exact(width).zip(y.chunks_exact(width)) {
                sweep!(S, width, at => {
                    at.store(s, mean, s.fma(at.load(s, d), at.load(s, y), at.load(s, mean)));
                });
            }
            sweep!(S, width, at => { at.store(s, mean, s.mul(at.load(s, mean), factor)) });
            for (d, y) in d.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
                sweep!(S, width, at => {
                    let centred = s.sub(at.load(s, d), s.mul(at.load(s, y), at.load(s, mean)));
                    at.store(s, d, s.mul(at.load(s, inv), centred));
                });
            }
        }
    }
}

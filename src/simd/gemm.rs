//! Matrix products with weights, in the two orientations the model needs, and the gradients of those weights.

use super::Real;

/// A weight matrix `[out, in]` in the form the products want it; packed once per update, read by every lane.
#[derive(Clone, Debug)]
pub struct Weight<T> {
    n_out: usize,
    n_in: usize,
    panels: Vec<T>,
}

impl<T: Real> Weight<T> {
    /// An all-zero weight of the given shape.
    pub fn new(n_out: usize, n_in: usize) -> Self {
        Self { n_out, n_in, panels: vec![T::ZERO; n_out * n_in] }
    }

    /// Takes over new values, row-major `[out, in]`.
    pub fn pack(&mut self, values: &[T]) {
        self.panels.copy_from_slice(values);
    }

    /// `(out, in)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.n_out, self.n_in)
    }

    /// `y ← x Wᵀ`: x is `[m, in]`, y `[m, out]`.
    pub fn forward_rows(&self, x: &[T], y: &mut [T]) {
        let (n, k) = self.shape();
        let m = rows_of(x.len(), k);
        assert_eq!(y.len(), m * n, "output shape");
        gemm((m, k, n), T::ONE, x, (k, 1), &self.panels, (1, k), T::ZERO, y, (n, 1));
    }

    /// `dx ← dx + dy W`: dy is `[m, out]`, dx `[m, in]`.
    pub fn backward_rows(&self, dy: &[T], dx: &mut [T]) {
        let (k, n) = self.shape();
        let m = rows_of(dy.len(), k);
        assert_eq!(dx.len(), m * n, "input gradient shape");
        gemm((m, k, n), T::ONE, dy, (k, 1), &self.panels, (n, 1), T::ONE, dx, (n, 1));
    }

    /// `y ← W x`: x is `[in, n]`, y `[out, n]`.
    pub fn forward_cols(&self, x: &[T], y: &mut [T]) {
        let (m, k) = self.shape();
        let n = rows_of(x.len(), k);
        assert_eq!(y.len(), m * n, "output shape");
        gemm((m, k, n), T::ONE, &self.panels, (k, 1), x, (n, 1), T::ZERO, y, (n, 1));
    }

    /// `dx ← dx + Wᵀ dy`: dy is `[out, n]`, dx `[in, n]`.
    pub fn backward_cols(&self, dy: &[T], dx: &mut [T]) {
        let (k, m) = self.shape();
        let n = rows_of(dy.len(), k);
        assert_eq!(dx.len(), m * n, "input gradient shape");
        gemm((m, k, n), T::ONE, &self.panels, (1, m), dy, (n, 1), T::ONE, dx, (n, 1));
    }
}

/// `dw ← dw + scale · dyᵀ x`: dy is `[m, out]`, x `[m, in]`, dw `[out, in]`.
pub fn weight_grad_rows<T: Real>((n_out, n_in): (usize, usize), scale: T, dy: &[T], x: &[T], dw: &mut [T]) {
    let m = rows_of(dy.len(), n_out);
    assert!(x.len() == m * n_in && dw.len() == n_out * n_in, "weight gradient shapes");
    gemm((n_out, m, n_in), scale, dy, (1, n_out), x, (n_in, 1), T::ONE, dw, (n_in, 1));
}

/// `dw ← dw + scale · dy xᵀ`: dy is `[out, n]`, x `[in, n]`, dw `[out, in]`.
pub fn weight_grad_cols<T: Real>((n_out, n_in): (usize, usize), scale: T, dy: &[T], x: &[T], dw: &mut [T]) {
    let n = rows_of(dy.len(), n_out);
    assert!(x.len() == n * n_in && dw.len() == n_out * n_in, "weight gradient shapes");
    gemm((n_out, n, n_in), scale, dy, (n, 1), x, (1, n), T::ONE, dw, (n_in, 1));
}

fn rows_of(len: usize, width: usize) -> usize {
    assert!(width > 0 && len.is_multiple_of(width), "a slice of {len} is not a whole number of rows of {width}");
    len / width
}

/// Bounds-checked strided product: `C ← alpha·A·B + beta·C`.
#[allow(clippy::too_many_arguments)]
pub(super) fn gemm<T: Real>(
    (m, k, n): (usize, usize, usize),
    alpha: T,
    a: &[T],
    a_strides: (usize, usize),
    b: &[T],
    b_strides: (usize, usize),
    beta: T,
    c: &mut [T],
    c_strides: (usize, usize),
) {
    let reach = |rows: usize, cols: usize, (rs, cs): (usize, usize)| {
        if rows == 0 || cols == 0 { 0 } else { (rows - 1) * rs + (cols - 1) * cs + 1 }
    };
    assert!(reach(m, k, a_strides) <= a.len(), "left operand out of bounds");
    assert!(reach(k, n, b_strides) <= b.len(), "right operand out of bounds");
    assert!(reach(m, n, c_strides) <= c.len(), "result out of bounds");
    // SAFETY: the last element addressed in each operand lies inside its slice, and `c` is borrowed exclusively.
    unsafe {
        for k0 in (0..k).step_by(128) {
            let kb = (k - k0).min(128);
            let a = a.as_ptr().add(k0 * a_strides.1);
            let b = b.as_ptr().add(k0 * b_strides.0);
            let beta = if k0 == 0 { beta } else { T::ONE };
            T::gemm((m, kb, n), alpha, a, a_strides, b, b_strides, beta, c.as_mut_ptr(), c_strides);
        }
    }
}

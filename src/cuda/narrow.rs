//! Linear layers to a few numbers: those of heads and routers.

use super::queue::enqueue;
use super::{Backend, GradientSums, Queue, View};

impl<B: Backend> Queue<B> {
    /// Whether the narrow kernels take a weight of n rows of k.
    pub fn narrow_linear_fits(self, (n, k): (usize, usize)) -> bool {
        // SAFETY: it only looks at the numbers.
        unsafe { (B::functions().narrow_linear_fits)(n as i64, k as i64) != 0 }
    }

    /// `y ← x wᵀ` of few columns: x is bf16, w and y are f32.
    pub fn narrow_linear(self, x: View<'_>, w: View<'_>, y: View<'_>, (n, k): (usize, usize)) {
        let m = x.len() / k;
        assert!(x.len() == m * k && w.len() == n * k && y.len() == m * n);
        enqueue!(self, narrow_linear(x.array, w.array, y.array, m as i64, n as i64, k as i64));
    }

    /// `dx ← dy w`, or `dx ← dx + dy w`: dx is bf16, dy and w are f32.
    pub fn narrow_linear_backward(
        self,
        dy: View<'_>,
        w: View<'_>,
        dx: View<'_>,
        accumulate: bool,
        (n, k): (usize, usize),
    ) {
        let m = dx.len() / k;
        assert!(dx.len() == m * k && w.len() == n * k && dy.len() == m * n);
        let [m, n, k] = [m, n, k].map(|size| size as i64);
        enqueue!(self, narrow_linear_backward(dy.array, w.array, dx.array, accumulate.into(), m, n, k));
    }

    /// `dw ← dw + dyᵀ x`, slice by slice of rows: x is bf16, dy is f32.
    pub fn narrow_weight_grad(self, dy: View<'_>, x: View<'_>, dw: GradientSums<'_>, (n, k): (usize, usize)) {
        let m = x.len() / k;
        assert!(x.len() == m * k && dy.len() == m * n && dw.len() == n * k);
        enqueue!(self, narrow_weight_grad(dy.array, x.array, dw.of_rows(m), m as i64, n as i64, k as i64));
    }
}

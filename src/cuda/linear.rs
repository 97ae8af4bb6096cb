//! Linear maps on tensor cores, with residual and norm forward and backward, and the gradients of their weights.

use super::queue::enqueue;
use super::{Backend, GradientSums, Queue, View, ffi};

impl<B: Backend> Queue<B> {
    /// `y ← x wᵀ`, or `y ← base + x wᵀ`, on tensor cores: w `[n, k]`.
    pub fn linear_bf16(self, x: View<'_>, w: View<'_>, base: Option<View<'_>>, y: View<'_>, (n, k): (usize, usize)) {
        let m = x.len() / k;
        assert!(
            x.len() == m * k && w.len() == n * k && y.len() == m * n && base.is_none_or(|base| base.len() == m * n)
        );
        let base = base.map_or(ffi::RawArray::NONE, |base| base.array);
        enqueue!(self, linear_bf16(x.array, w.array, base, y.array, m as i64, n as i64, k as i64));
    }

    /// Whether [`Queue::linear_rope_bf16`] takes a weight `[n, k]` for heads of this size.
    pub fn linear_rope_fits(self, (n, k): (usize, usize), head_dim: usize) -> bool {
        // SAFETY: it only looks at the numbers, and at the device.
        unsafe { (B::functions().linear_rope_fits)(n as i64, k as i64, head_dim as i64) != 0 }
    }

    /// `y ← x wᵀ` on tensor cores, y being q, k and v of heads of 64 features; q and k rotated by the angles of `cos_sin`
    /// `[len, 32, 2]`.
    pub fn linear_rope_bf16(self, x: View<'_>, w: View<'_>, cos_sin: View<'_>, y: View<'_>, (n, k): (usize, usize)) {
        const ANGLES: usize = 64;
        let (m, len) = (x.len() / k, cos_sin.len() / ANGLES);
        assert!(x.len() == m * k && w.len() == n * k && y.len() == m * n && n.is_multiple_of(3 * ANGLES));
        assert!(len > 0 && cos_sin.len() == len * ANGLES && m.is_multiple_of(len));
        let [len, m, n, k] = [len, m, n, k].map(|size| size as i64);
        enqueue!(self, linear_rope_bf16(x.array, w.array, cos_sin.array, len, y.array, m, n, k));
    }

    /// Whether one block can hold rows of n, as [`Queue::linear_add_rmsnorm_bf16`] needs.
    pub fn linear_norm_fits(self, n: usize) -> bool {
        // SAFETY: it only looks at the number.
        unsafe { (B::functions().linear_norm_fits)(n as i64) != 0 }
    }

    /// Whether [`Queue::linear_add_rmsnorm_bf16`] can add to what it makes, with a weight `[n, k]`.
    pub fn linear_norm_sum_fits(self, (n, k): (usize, usize)) -> bool {
        // SAFETY: it only looks at the numbers, and at the device.
        unsafe { (B::functions().linear_norm_sum_fits)(n as i64, k as i64) != 0 }
    }

    /// `y ← rmsnorm(h + x wᵀ)` on tensor cores; and `sum ← y + added₀`, or `(y + added₀) + added₁`, beside y or instead of it.
    pub fn linear_add_rmsnorm_bf16(
        self,
        x: View<'_>,
        w: View<'_>,
        h: View<'_>,
        (y, inv_rms): (Option<View<'_>>, View<'_>),
        sum: Option<(&[View<'_>], View<'_>)>,
        (n, k): (usize, usize),
    ) {
        let m = x.len() / k;
        assert!(x.len() == m * k && w.len() == n * k && h.len() == m * n && inv_rms.len() == m);
        let (added, sum) = sum.map_or((&[][..], None), |(added, sum)| (added, Some(sum)));
        assert!(added.len() <= 2 && (sum.is_some() || y.is_some()) && sum.is_none() == added.is_empty());
        assert!(added.iter().chain(&y).chain(&sum).all(|view| view.len() == m * n));
        let [y, sum] = [y, sum].map(|view| view.map_or(ffi::RawArray::NONE, |view| view.array));
        let added = ffi::Summands::of(added);
        let [m, n, k] = [m, n, k].map(|size| size as i64);
        enqueue!(self, linear_add_rmsnorm_bf16(x.array, w.array, h.array, y, inv_rms.array, added, sum, m, n, k));
    }

    /// Whether [`Queue::linear_rmsnorm_backward_bf16`] takes a weight `[n, k]`.
    pub fn linear_norm_backward_fits(self, (n, k): (usize, usize)) -> bool {
        // SAFETY: it only looks at the numbers, and at the device.
        unsafe { (B::functions().linear_norm_backward_fits)(n as i64, k as i64) != 0 }
    }

    /// `d ← r (s − y · mean(s·y))`, `s = base + x wᵀ`, on tensor cores: a gradient, and on through the norm that made y.
    pub fn linear_rmsnorm_backward_bf16(
        self,
        x: View<'_>,
        w: View<'_>,
        base: View<'_>,
        (y, inv_rms): (View<'_>, View<'_>),
        d: View<'_>,
        (n, k): (usize, usize),
    ) {
        let m = x.len() / k;
        assert!(x.len() == m * k && w.len() == n * k && inv_rms.len() == m);
        assert!([base, y, d].iter().all(|view| view.len() == m * n));
        let [m, n, k] = [m, n, k].map(|size| size as i64);
        enqueue!(
            self,
            linear_rmsnorm_backward_bf16(x.array, w.array, base.array, y.array, inv_rms.array, d.array, m, n, k)
        );
    }

    /// `dw ← dw + dyᵀ x`, slice by slice, on tensor cores.
    pub fn weight_grad_bf16(
        self,
        dy: View<'_>,
        x: View<'_>,
        dw: GradientSums<'_>,
        interleaved: bool,
        (n_out, n_in): (usize, usize),
    ) {
        let m = dy.len() / n_out;
        assert!(dy.len() == m * n_out && x.len() == m * n_in && dw.len() == n_out * n_in);
        let sums = dw.of_rows(m);
        let [m, n_out, n_in] = [m, n_out, n_in].map(|size| size as i64);
        enqueue!(self, weight_grad_bf16(dy.array, x.array, sums, interleaved.into(), m, n_out, n_in));
    }
}

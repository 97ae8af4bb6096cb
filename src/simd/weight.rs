//! Products with weights, in the two orientations the model needs, and the gradients of those weights.

use super::Real;
use super::gemm::{Operand, Product};
use super::isa::{Isa, isa};
use super::norm::AddRmsNorm;
use super::pack::{Precision, Strided};
use super::panels::{Form, Panels, pack_all};
use super::scratch::Aligned;
use super::split::{Vectors, by_rows};
use super::vector::dispatch_on;

/// Which products a weight is packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// `forward_rows` and `backward_rows`: the weight is the right operand.
    Rows,
    /// `forward_cols` and `backward_cols`: the weight is the left operand.
    Cols,
    /// All four, at twice the memory.
    Both,
}

/// A weight matrix `[out, in]` in the form the products want it; packed once per update, read by every lane.
#[derive(Clone, Debug)]
pub struct Weight<T> {
    form: Form,
    panels: Panels<T>,
}

impl<T: Real> Weight<T> {
    /// An all-zero weight of the given shape, for both orientations, in full precision.
    pub fn new(n_out: usize, n_in: usize) -> Self {
        Self::with(n_out, n_in, Side::Both, Precision::F32)
    }

    /// An all-zero weight of the given shape.
    pub fn with(n_out: usize, n_in: usize, side: Side, precision: Precision) -> Self {
        Self::zeros(Form { n_out, n_in, side, gated: false, precision, isa: isa() })
    }

    /// An all-zero gate and up projection `[2·inner, in]`, for [`swiglu`](super::swiglu()) and its backward
    /// pass.
    pub fn gate_up(inner: usize, n_in: usize, side: Side, precision: Precision) -> Self {
        Self::zeros(Form { n_out: 2 * inner, n_in, side, gated: true, precision, isa: isa() })
    }

    fn zeros(form: Form) -> Self {
        Self { form, panels: form.panels() }
    }

    /// Takes over new values, row-major `[out, in]`.
    pub fn pack(&mut self, values: &[T]) {
        pack_all(&self.form, values, &mut self.panels);
    }

    pub(super) fn form(&self) -> &Form {
        &self.form
    }

    pub(super) fn panels_mut(&mut self) -> &mut Panels<T> {
        &mut self.panels
    }

    /// Takes over the panels of a weight of the same form, into memory of its own.
    pub(super) fn copy_panels(&mut self, from: &Self) {
        assert_eq!(self.form, from.form, "copies of one weight");
        for (to, from) in self.panels.as_flattened_mut().iter_mut().zip(from.panels.as_flattened()) {
            to.at_least(0).copy_from_slice(from.as_slice());
        }
    }

    /// Panels for the forward product with rows or columns.
    pub(super) fn forward_panels(&self, side: Side) -> &[T] {
        self.side(side)[0].as_slice()
    }

    /// Panels for the backward product with rows or columns.
    pub(super) fn backward_panels(&self, side: Side) -> &[T] {
        self.side(side)[1].as_slice()
    }

    fn side(&self, side: Side) -> &[Aligned<T>; 2] {
        if side == Side::Cols {
            assert_ne!(self.form.side, Side::Rows, "the weight is packed for rows only");
            &self.panels[1]
        } else {
            assert_ne!(self.form.side, Side::Cols, "the weight is packed for columns only");
            &self.panels[0]
        }
    }

    /// The instruction set the panels are laid out for.
    pub(super) fn isa(&self) -> Isa {
        self.form.isa
    }

    /// Whether gates and ups stand side by side.
    pub fn is_gated(&self) -> bool {
        self.form.gated
    }

    /// `(out, in)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.form.n_out, self.form.n_in)
    }

    /// Number format of the products.
    pub fn precision(&self) -> Precision {
        self.form.precision
    }

    /// `y ← x Wᵀ`, then residual and norm if there are any: x is `[m, in]`, y `[m, out]`.
    pub fn forward_rows(&self, x: &[T], y: &mut [T], then: Option<AddRmsNorm<'_, T>>) {
        assert!(!self.form.gated, "a gate and up projection is used by SwiGLU");
        let (n, k) = self.shape();
        let m = rows_of(x.len(), k);
        assert_eq!(y.len(), m * n, "output shape");
        if let Some(then) = &then {
            then.check(m, y.len());
        }
        by_rows(Vectors { x, y, then }, (m, k, n), k * n, |Vectors { x, y, then }| {
            self.rows((rows_of(x.len(), k), k, n), 0, x, false, then, y);
        });
    }

    /// `dx ← dx + dy W`, or without `accumulate` `dx ← dy W`: dy is `[m, out]`, dx `[m, in]`.
    pub fn backward_rows(&self, dy: &[T], dx: &mut [T], accumulate: bool) {
        assert!(!self.form.gated, "a gate and up projection is used by SwiGLU");
        let (k, n) = self.shape();
        let m = rows_of(dy.len(), k);
        assert_eq!(dx.len(), m * n, "input gradient shape");
        self.rows((m, k, n), 1, dy, accumulate, None, dx);
    }

    /// `y ← W x`: x is `[in, n]`, y `[out, n]`.
    pub fn forward_cols(&self, x: &[T], y: &mut [T]) {
        assert!(!self.form.gated, "a gate and up projection is used by SwiGLU");
        let (m, k) = self.shape();
        let n = rows_of(x.len(), k);
        assert_eq!(y.len(), m * n, "output shape");
        self.cols((m, k, n), 0, x, false, y);
    }

    /// `dx ← dx + Wᵀ dy`, or without `accumulate` `dx ← Wᵀ dy`: dy is `[out, n]`, dx `[in, n]`.
    pub fn backward_cols(&self, dy: &[T], dx: &mut [T], accumulate: bool) {
        let (k, m) = self.shape();
        let n = rows_of(dy.len(), k);
        assert_eq!(dx.len(), m * n, "input gradient shape");
        self.cols((m, k, n), 1, dy, accumulate, dx);
    }

    fn rows(
        &self,
        (m, k, n): (usize, usize, usize),
        direction: usize,
        x: &[T],
        accumulate: bool,
        then: Option<AddRmsNorm<'_, T>>,
        out: &mut [T],
    ) {
        let left = Operand::Strided(Strided::rows(x, k));
        self.product((m, k, n), left, Operand::Packed(&self.side(Side::Rows)[direction]), accumulate, then, out);
    }

    fn cols(&self, (m, k, n): (usize, usize, usize), direction: usize, x: &[T], accumulate: bool, out: &mut [T]) {
        let right = Operand::Strided(Strided::columns(x, n));
        self.product((m, k, n), Operand::Packed(&self.side(Side::Cols)[direction]), right, accumulate, None, out);
    }

    fn product(
        &self,
        (m, k, n): (usize, usize, usize),
        left: Operand<'_, T>,
        right: Operand<'_, T>,
        accumulate: bool,
        then: Option<AddRmsNorm<'_, T>>,
        out: &mut [T],
    ) {
        let (alpha, precision, out_stride) = (T::ONE, self.form.precision, n);
        T::with_scratch(|scratch| {
            let p = Product { m, k, n, left, right, alpha, accumulate, precision, out, out_stride, then, scratch };
            dispatch_on(self.form.isa, p);
        });
    }
}

fn rows_of(len: usize, width: usize) -> usize {
    assert!(width > 0 && len.is_multiple_of(width), "a slice of {len} is not a whole number of rows of {width}");
    len / width
}

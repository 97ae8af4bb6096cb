//! Weights in the form that the kernels read, and products of rows with them.

use std::ops::Range;

use super::Real;
use super::format::Precision;
use super::gemm::Gemm;
use super::int8::{LinearInt8, MOST_STEPS};
use super::isa::{Isa, isa};
use super::norm::AddRmsNorm;
use super::pack::{Side, Strided};
use super::panels::{Form, Panels, pack_all, update_panels};
use super::split::{Vectors, by_rows};

/// A weight matrix `[out, in]` in the micro-kernel's panels, for the forward product and for the backward one; packed once
/// per update, read by every thread.
#[derive(Clone, Debug)]
pub struct PackedWeight<T> {
    form: Form,
    panels: Panels<T>,
}

impl<T: Real> PackedWeight<T> {
    /// An all-zero weight `[out, in]`.
    pub fn new(n_out: usize, n_in: usize, side: Side, precision: Precision) -> Self {
        Self::zeros(Form { n_out, n_in, side, gated: false, precision, int8: false, isa: isa() })
    }

    /// An all-zero gate and up projection `[2·inner, in]`, for [`swiglu`](super::swiglu()) and its backward
    /// pass.
    pub fn gate_up(inner: usize, n_in: usize, side: Side, precision: Precision) -> Self {
        Self::zeros(Form { n_out: 2 * inner, n_in, side, gated: true, precision, int8: false, isa: isa() })
    }

    /// The same, packed as whole numbers of eight bits too, for [`PackedWeight::forward_rows_int8`] and
    /// [`swiglu_int8`](super::swiglu_int8).
    ///
    /// # Panics
    /// If `in` is so large that a sum might not fit into 32 bits.
    pub fn with_int8(self) -> Self {
        assert!(self.form.n_in <= MOST_STEPS, "sums of whole numbers fit into 32 bits");
        Self::zeros(Form { int8: true, ..self.form })
    }

    fn zeros(form: Form) -> Self {
        Self { form, panels: form.panels() }
    }

    /// Takes over new values, row-major `[out, in]`.
    pub fn pack(&mut self, values: &[T]) {
        pack_all(&self.form, values, &mut self.panels);
    }

    /// Takes over the panels of a weight of the same form, into memory of its own.
    fn copy_panels(&mut self, from: &Self) {
        assert_eq!(self.form, from.form, "copies of one weight");
        for (to, from) in self.panels.iter_mut().zip(&from.panels) {
            to.at_least(0).copy_from_slice(from.as_slice());
        }
    }

    /// Panels for the forward product.
    pub(super) fn forward_panels(&self) -> &[T] {
        self.panels[0].as_slice()
    }

    /// Panels for the backward product.
    pub(super) fn backward_panels(&self) -> &[T] {
        self.panels[1].as_slice()
    }

    /// Panels of whole numbers, and their slots or scales.
    ///
    /// # Panics
    /// If the weight is not packed so.
    #[doc(hidden)]
    pub fn int8_panels(&self) -> [&[T]; 2] {
        assert!(self.form.int8, "the weight is packed as whole numbers");
        [self.panels[2].as_slice(), self.panels[3].as_slice()]
    }

    /// The instruction set the panels are laid out for.
    pub(super) fn isa(&self) -> Isa {
        self.form.isa
    }

    /// What the weight is packed for.
    pub fn side(&self) -> Side {
        self.form.side
    }

    /// Whether it is a gate and up projection.
    pub fn is_gated(&self) -> bool {
        self.form.gated
    }

    /// `(out, in)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.form.n_out, self.form.n_in)
    }

    /// Number format of the operands of products.
    pub fn precision(&self) -> Precision {
        self.form.precision
    }

    /// `y ← x Wᵀ`, then residual and norm if there are any: x is `[m, in]`, y `[m, out]`. So many threads of the pool that
    /// this runs in share the rows (1: the caller does all of it); the result is the same for any number.
    ///
    /// # Panics
    /// If shapes disagree, or the weight is a gate and up projection or packed for columns.
    pub fn forward_rows(&self, x: &[T], y: &mut [T], epilogue: Option<AddRmsNorm<'_, T>>, parts: usize) {
        let (m, k, n) = self.forward_sizes(x, y, epilogue.as_ref());
        by_rows(Vectors { first: 0, x, y, epilogue }, m, k * n, parts, |Vectors { x, y, epilogue, .. }| {
            self.product((rows_of(x.len(), k), k, n), self.forward_panels(), x, false, epilogue, y);
        });
    }

    /// As [`PackedWeight::forward_rows`], with whole numbers of eight bits for the elements of weight and input.
    ///
    /// # Panics
    /// As [`PackedWeight::forward_rows`], and if the weight is not packed so.
    pub fn forward_rows_int8(&self, x: &[T], y: &mut [T], epilogue: Option<AddRmsNorm<'_, T>>, parts: usize) {
        let (m, k, n) = self.forward_sizes(x, y, epilogue.as_ref());
        let weight = self.int8_panels();
        by_rows(Vectors { first: 0, x, y, epilogue }, m, k * n, parts, |Vectors { x, y, epilogue, .. }| {
            let m = rows_of(x.len(), k);
            T::with_scratch(|scratch| {
                T::linear_int8(self.form.isa, LinearInt8 { m, k, n, x, weight, y, epilogue, scratch });
            });
        });
    }

    /// `dx ← dx + dy W`, or without `accumulate` `dx ← dy W`: dy is `[m, out]`, dx `[m, in]`. Threads share the rows as in
    /// [`PackedWeight::forward_rows`].
    ///
    /// # Panics
    /// As [`PackedWeight::forward_rows`].
    pub fn backward_rows(&self, dy: &[T], dx: &mut [T], accumulate: bool, parts: usize) {
        let (k, n) = self.shape();
        let m = rows_of(dy.len(), k);
        assert_eq!(dx.len(), m * n, "input gradient shape");
        self.check_rows();
        by_rows(Vectors { first: 0, x: dy, y: dx, epilogue: None }, m, k * n, parts, |Vectors { x, y, .. }| {
            self.product((rows_of(x.len(), k), k, n), self.backward_panels(), x, accumulate, None, y);
        });
    }

    /// Rows, their elements, and those of a result, of a forward product that was asked for with these.
    fn forward_sizes(&self, x: &[T], y: &[T], epilogue: Option<&AddRmsNorm<'_, T>>) -> (usize, usize, usize) {
        let (n, k) = self.shape();
        let m = rows_of(x.len(), k);
        assert_eq!(y.len(), m * n, "output shape");
        if let Some(epilogue) = epilogue {
            epilogue.check(m, y.len());
        }
        self.check_rows();
        (m, k, n)
    }

    fn check_rows(&self) {
        assert!(!self.form.gated, "a gate and up projection is used by SwiGLU");
        assert!(self.form.side == Side::Rows, "the weight is packed for columns");
    }

    fn product(
        &self,
        (m, k, n): (usize, usize, usize),
        right: &[T],
        x: &[T],
        accumulate: bool,
        epilogue: Option<AddRmsNorm<'_, T>>,
        out: &mut [T],
    ) {
        let (left, precision) = (Strided::rows(x, k), self.form.precision);
        T::with_scratch(|scratch| {
            let gemm = Gemm { m, k, n, left, right, accumulate, precision, out, epilogue, scratch };
            T::gemm(self.form.isa, gemm);
        });
    }
}

/// Changes a weight's values, and arrays of the same shape that go with them (moments, EMA), and packs all copies of the weight
/// again. In parallel, part by part: `change` is given elements of the weight, by their places and, of each array,
/// themselves. The first array holds the values.
///
/// # Panics
/// If shapes disagree.
pub fn update_weight<T: Real, const N: usize>(
    copies: &mut [PackedWeight<T>],
    arrays: [&mut [T]; N],
    change: impl Fn(Range<usize>, [&mut [T]; N]) + Sync,
) {
    // One copy is the rule; the others are copied when it is done.
    let Some((first, others)) = copies.split_first_mut() else { return };
    update_panels(&first.form, &mut first.panels, arrays, change);
    for copy in others {
        copy.copy_panels(first);
    }
}

fn rows_of(len: usize, width: usize) -> usize {
    assert!(width > 0 && len.is_multiple_of(width), "a slice of {len} is not a whole number of rows of {width}");
    len / width
}

//! GEMMs, by `matrixmultiply`, and the rounding of their operands.

use std::borrow::Cow;

use crate::device::{Precision, Real};

/// A matrix in a slice: element (i, j) lies at `i·rows + j·columns`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    pub data: &'a [T],
    pub rows: usize,
    pub columns: usize,
}

impl<'a, T> Matrix<'a, T> {
    /// Row-major, `width` columns.
    pub fn new(data: &'a [T], width: usize) -> Self {
        Self { data, rows: width, columns: 1 }
    }

    /// The transposed matrix.
    pub fn transposed(self) -> Self {
        Self { data: self.data, rows: self.columns, columns: self.rows }
    }
}

/// Scalars that `matrixmultiply` multiplies.
pub(crate) trait Multiply: Real {
    /// `A·B` of sizes `[m, k]` and `[k, n]`, row-major.
    fn product(size: [usize; 3], a: Matrix<'_, Self>, b: Matrix<'_, Self>) -> Vec<Self>;
}

macro_rules! multiply {
    ($T:ty, $gemm:path) => {
        impl Multiply for $T {
            fn product([m, k, n]: [usize; 3], a: Matrix<'_, Self>, b: Matrix<'_, Self>) -> Vec<Self> {
                let reach = |matrix: Matrix<'_, Self>, rows: usize, columns: usize| match rows * columns {
                    0 => 0,
                    _ => (rows - 1) * matrix.rows + (columns - 1) * matrix.columns + 1,
                };
                assert!(reach(a, m, k) <= a.data.len() && reach(b, k, n) <= b.data.len(), "operands out of bounds");
                let mut c = vec![0.0; m * n];
                let strides = |matrix: Matrix<'_, Self>| (matrix.rows as isize, matrix.columns as isize);
                let ((ra, ca), (rb, cb)) = (strides(a), strides(b));
                // SAFETY: both operands were checked to lie in their slices, and c is `[m, n]`, row-major.
                unsafe {
                    let (a, b) = (a.data.as_ptr(), b.data.as_ptr());
                    $gemm(m, k, n, 1.0, a, ra, ca, b, rb, cb, 0.0, c.as_mut_ptr(), n as isize, 1);
                }
                c
            }
        }
    };
}

multiply!(f32, matrixmultiply::sgemm);
multiply!(f64, matrixmultiply::dgemm);

/// The operand of a GEMM: as it is, or each element rounded to the nearest bf16, ties to even. f64 is never rounded.
pub(crate) fn operand<T: Real>(precision: Precision, values: &[T]) -> Cow<'_, [T]> {
    match precision {
        Precision::Bf16 if size_of::<T>() == size_of::<f32>() => values.iter().map(|&x| round_bf16(x)).collect(),
        _ => Cow::Borrowed(values),
    }
}

/// How operands of forward products are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// As [`operand`] does.
    To(Precision),
    /// To whole numbers times a scale, one for each row.
    Int8,
}

impl Rounding {
    /// The operand of a GEMM whose rows of so many elements are summed over.
    pub fn of<T: Real>(self, values: &[T], width: usize) -> Cow<'_, [T]> {
        match self {
            Self::To(precision) => operand(precision, values),
            Self::Int8 => values.chunks_exact(width).flat_map(whole_numbers).collect(),
        }
    }

    /// What is kept for a backward pass.
    pub fn kept<T: Real>(self, values: &[T]) -> Cow<'_, [T]> {
        match self {
            Self::To(precision) => operand(precision, values),
            Self::Int8 => Cow::Borrowed(values),
        }
    }
}

/// `s·round(x/s)` with s, the scale, the largest magnitude of the row over 127.
fn whole_numbers<T: Real>(row: &[T]) -> Vec<T> {
    let largest = row.iter().fold(T::ZERO, |largest, x| largest.maximum(x.copysign(T::ONE)));
    let limit = T::from_f64(127.0);
    let (factor, scale) = (limit / largest, largest / limit);
    let round = |x: &T| T::from_f64((*x * factor).to_f64().round_ties_even()) * scale;
    if largest.to_f64() > 1e-30 { row.iter().map(round).collect() } else { vec![T::ZERO; row.len()] }
}

/// The nearest bf16: the upper half of an f32, ties to even.
fn round_bf16<T: Real>(x: T) -> T {
    let x = x.to_f64() as f32;
    if !x.is_finite() {
        return T::from_f64(f64::from(x));
    }
    let bits = x.to_bits();
    let up = 0x7fff + ((bits >> 16) & 1);
    T::from_f64(f64::from(f32::from_bits((bits + up) & 0xffff_0000)))
}

/// The transposed of a row-major matrix `[rows, columns]`.
pub(crate) fn transposed<T: Real>(matrix: &[T], columns: usize) -> Vec<T> {
    (0..columns).flat_map(|j| matrix.iter().skip(j).step_by(columns).copied()).collect()
}

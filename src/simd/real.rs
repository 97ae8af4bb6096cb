//! The scalar types a tape can run in.

use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

/// A real scalar the kernels are instantiated for: `f32` (training) and `f64` (checking).
pub trait Real:
    Copy
    + Debug
    + Display
    + Default
    + PartialEq
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + Sum
{
    const ZERO: Self;
    const ONE: Self;

    /// Rounds to the nearest representable value.
    fn from_f64(x: f64) -> Self;
    fn to_f64(self) -> f64;
    fn sqrt(self) -> Self;
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn atan2(self, x: Self) -> Self;
    fn maximum(self, other: Self) -> Self;
    fn is_finite(self) -> bool;

    /// `C ← alpha·A·B + beta·C` for strided matrices: A is `m×k`, B `k×n`, C `m×n`; a stride pair is (row, column).
    ///
    /// # Safety
    /// Every element the shapes and strides address must lie inside its allocation, and C must not alias A or B.
    #[allow(clippy::too_many_arguments)]
    unsafe fn gemm(
        shape: (usize, usize, usize),
        alpha: Self,
        a: *const Self,
        a_strides: (usize, usize),
        b: *const Self,
        b_strides: (usize, usize),
        beta: Self,
        c: *mut Self,
        c_strides: (usize, usize),
    );
}

macro_rules! real {
    ($t:ty, $gemm:path) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            fn from_f64(x: f64) -> Self {
                x as $t
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            fn atan2(self, x: Self) -> Self {
                <$t>::atan2(self, x)
            }
            fn maximum(self, other: Self) -> Self {
                self.max(other)
            }
            fn is_finite(self) -> bool {
                <$t>::is_finite(self)
            }

            unsafe fn gemm(
                (m, k, n): (usize, usize, usize),
                alpha: Self,
                a: *const Self,
                (ars, acs): (usize, usize),
                b: *const Self,
                (brs, bcs): (usize, usize),
                beta: Self,
                c: *mut Self,
                (crs, ccs): (usize, usize),
            ) {
                // SAFETY: the caller's contract is matrixmultiply's own.
                unsafe {
                    $gemm(
                        m,
                        k,
                        n,
                        alpha,
                        a,
                        ars as isize,
                        acs as isize,
                        b,
                        brs as isize,
                        bcs as isize,
                        beta,
                        c,
                        crs as isize,
                        ccs as isize,
                    )
                }
            }
        }
    };
}

real!(f32, matrixmultiply::sgemm);
real!(f64, matrixmultiply::dgemm);

//! The scalar types a tape can run in.

use std::cell::RefCell;
use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use super::array::Array;
use super::isa::Isa;
use super::large::Large;
use super::scratch::Scratch;
use super::vector::Kernel;

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
    + Large
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;

    /// Rounds to the nearest representable value.
    fn from_f64(x: f64) -> Self;
    /// The same value in f64.
    fn to_f64(self) -> f64;
    /// √self.
    fn sqrt(self) -> Self;
    /// e to the power self.
    fn exp(self) -> Self;
    /// 2 to the power self.
    fn exp2(self) -> Self;
    /// Logarithm to the base 2.
    fn log2(self) -> Self;
    /// The angle of the point (x, self).
    fn atan2(self, x: Self) -> Self;
    /// `self·a + b`; in f32 the product is never rounded: one rounding fewer is what `mlp_t` models are sensitive to.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The magnitude of self with the sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// The larger one; the other one where one is NaN.
    fn maximum(self, other: Self) -> Self;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;

    /// A library's product for operands that are not packed, where it serves better than our own.
    #[doc(hidden)]
    const LIBRARY_GEMM: Option<LibraryGemm<Self>>;
    /// Runs a kernel compiled for the instruction set, which must be available.
    #[doc(hidden)]
    fn run_kernel<K: Kernel<Self>>(isa: Isa, kernel: K) -> K::Output;
    /// The same, of a kernel that multiplies whole numbers of eight bits: by instructions for them that are no part of the path,
    /// where the processor has them. They change no result.
    #[doc(hidden)]
    fn run_int8_kernel<K: Kernel<Self>>(isa: Isa, kernel: K) -> K::Output;
    /// Lends this thread's packing buffers.
    #[doc(hidden)]
    fn with_scratch<R>(work: impl FnOnce(&mut Scratch<Self>) -> R) -> R;
}

/// `C ← alpha·A·B + beta·C`: sizes (m, k, n), alpha, A, B, beta, C; each matrix with its row and column stride.
type LibraryGemm<T> =
    unsafe fn(usize, usize, usize, T, *const T, isize, isize, *const T, isize, isize, T, *mut T, isize, isize);

macro_rules! real {
    ($t:ident, $library:expr, |$isa:ident, $kernel:ident| $run:expr, $run_int8:expr) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            fn exp(self) -> Self {
                $t::exp(self)
            }
            fn exp2(self) -> Self {
                $t::exp2(self)
            }
            fn log2(self) -> Self {
                $t::log2(self)
            }
            fn atan2(self, x: Self) -> Self {
                $t::atan2(self, x)
            }
            #[inline(always)]
            fn mul_add(self, a: Self, b: Self) -> Self {
                if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                    $t::mul_add(self, a, b)
                } else {
                    // Without the instruction, `mul_add` is a call into libm.
                    (f64::from(self) * f64::from(a) + f64::from(b)) as $t
                }
            }
            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                $t::copysign(self, sign)
            }
            #[inline(always)]
            fn maximum(self, other: Self) -> Self {
                self.max(other)
            }
            fn is_finite(self) -> bool {
                $t::is_finite(self)
            }
            const LIBRARY_GEMM: Option<LibraryGemm<Self>> = $library;

            #[inline]
            fn run_kernel<K: Kernel<Self>>($isa: Isa, $kernel: K) -> K::Output {
                $run
            }
            #[inline]
            fn run_int8_kernel<K: Kernel<Self>>($isa: Isa, $kernel: K) -> K::Output {
                $run_int8
            }
            #[inline]
            fn with_scratch<R>(work: impl FnOnce(&mut Scratch<Self>) -> R) -> R {
                thread_local! {
                    static SCRATCH: RefCell<Scratch<$t>> = const { RefCell::new(Scratch::new()) };
                }
                SCRATCH.with_borrow_mut(work)
            }
        }
    };
}

real!(
    f32,
    None,
    |isa, kernel| {
        debug_assert!(isa.is_available());
        match isa {
            // SAFETY: an `Isa` comes from detection or from a forced choice checked against it.
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => {
                let token = unsafe { super::x86::Amx::new(super::x86::Tiles::Processor) };
                let output = super::vector::Simd::call(token, kernel);
                super::x86::amx::release();
                output
            }
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::AmxTwin => super::vector::Simd::call(unsafe { super::x86::Amx::new(super::x86::Tiles::Twin) }, kernel),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => super::vector::Simd::call(unsafe { super::x86::Avx512Bf16::new(()) }, kernel),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => super::vector::Simd::call(unsafe { super::x86::Avx512::new(()) }, kernel),
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => super::vector::Simd::call(unsafe { super::x86::Avx2::new() }, kernel),
            _ => super::vector::Simd::call(Array::<f32>::default(), kernel),
        }
    },
    match isa {
        // SAFETY: as above, and the processor has VNNI.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if is_x86_feature_detected!("avx512vnni") => {
            super::vector::Simd::call(unsafe { super::x86::Avx512Vnni::new(()) }, kernel)
        }
        _ => Self::run_kernel(isa, kernel),
    }
);
real!(
    f64,
    Some(matrixmultiply::dgemm),
    |isa, kernel| {
        let _ = isa;
        super::vector::Simd::call(Array::<f64>::default(), kernel)
    },
    Self::run_kernel(isa, kernel)
);

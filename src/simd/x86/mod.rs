//! The x86 instruction sets: AVX2 + FMA, AVX-512 with or without bf16 dot products, and AMX.

/// Wraps intrinsics.
macro_rules! intrinsics {
    ($($body:tt)*) => {{
        // SAFETY: `self` is a token, made only where the processor has the instructions used here; the
        // pointers among the arguments are covered by the contract of the surrounding function; the transmutes are
        // between vectors of plain numbers of equal size.
        #[allow(unused_unsafe)]
        unsafe { $($body)* }
    }};
}

pub mod amx;
mod avx2;
mod avx512;

pub use avx2::Avx2;
pub use avx512::{Amx, Avx512, Avx512Bf16, Avx512Vnni, Tiles};

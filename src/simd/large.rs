//! The large kernels, each compiled in this crate for f32 and f64. A generic function is compiled by whoever calls it, so every
//! library, program and test would compile them again, for all instruction sets.

use super::attention::{AttentionBackward, AttentionForward};
use super::deferred::{PackOperands, SumPart};
use super::gemm::Gemm;
use super::int8::{LinearInt8, SwigluInt8};
use super::isa::Isa;
use super::optimizer::Step;
use super::panels::PackPart;
use super::real::Real;
use super::swiglu::{PackLeft, SwigluBackward, SwigluForward};

macro_rules! large {
    ($($name:ident: $kernel:ty, $run:ident;)*) => {
        /// Runs a kernel compiled for the instruction set, which must be available.
        pub trait Large: Sized {
            $(#[doc(hidden)] fn $name(isa: Isa, kernel: $kernel);)*
        }
        large!(f32, $($name: $kernel, $run;)*);
        large!(f64, $($name: $kernel, $run;)*);
    };
    ($t:ty, $($name:ident: $kernel:ty, $run:ident;)*) => {
        impl Large for $t {
            $(fn $name(isa: Isa, kernel: $kernel) {
                Self::$run(isa, kernel)
            })*
        }
    };
}

large! {
    gemm: Gemm<'_, Self>, run_kernel;
    attention_forward: AttentionForward<'_, Self>, run_kernel;
    attention_backward: AttentionBackward<'_, Self>, run_kernel;
    swiglu_forward: SwigluForward<'_, Self>, run_kernel;
    swiglu_backward: SwigluBackward<'_, Self>, run_kernel;
    sum_part: SumPart<'_, '_, Self>, run_kernel;
    pack_part: PackPart<'_, Self>, run_kernel;
    pack_left: PackLeft<'_, Self>, run_kernel;
    pack_operands: PackOperands<'_, Self>, run_kernel;
    optimizer_step: Step<'_, Self>, run_kernel;
    linear_int8: LinearInt8<'_, Self>, run_int8_kernel;
    swiglu_int8: SwigluInt8<'_, Self>, run_int8_kernel;
}

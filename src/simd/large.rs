//! The large kernels, each compiled in this crate for f32 and f64. A generic function is compiled by whoever calls it, so every
//! library, program and test would compile them again, for all instruction sets.

use super::attention::{AttentionBackward, AttentionForward};
use super::deferred::{PackOperands, SumPart};
use super::gemm::Gemm;
use super::isa::Isa;
use super::optimizer::Step;
use super::panels::PackPart;
use super::real::Real;
use super::swiglu::{PackLeft, SwigluBackward, SwigluForward};

macro_rules! large {
    ($($name:ident: $kernel:ty,)*) => {
        /// Runs a kernel compiled for the instruction set, which must be available.
        pub trait Large: Sized {
            $(#[doc(hidden)] fn $name(isa: Isa, kernel: $kernel);)*
        }
        large!(f32, $($name: $kernel,)*);
        large!(f64, $($name: $kernel,)*);
    };
    ($t:ty, $($name:ident: $kernel:ty,)*) => {
        impl Large for $t {
            $(fn $name(isa: Isa, kernel: $kernel) {
                Self::run_kernel(isa, kernel)
            })*
        }
    };
}

large! {
    gemm: Gemm<'_, Self>,
    attention_forward: AttentionForward<'_, Self>,
    attention_backward: AttentionBackward<'_, Self>,
    swiglu_forward: SwigluForward<'_, Self>,
    swiglu_backward: SwigluBackward<'_, Self>,
    sum_part: SumPart<'_, '_, Self>,
    pack_part: PackPart<'_, Self>,
    pack_left: PackLeft<'_, Self>,
    pack_operands: PackOperands<'_, Self>,
    optimizer_step: Step<'_, Self>,
}

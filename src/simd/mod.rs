//! CPU kernels: everything that touches every number, behind safe functions that check shapes.
//!
//! The room knows nothing of tapes or models: it sees row-major slices. Two orientations occur everywhere, named
//! after what a weight `W: [out, in]` multiplies:
//!
//! * **rows**: activations are `[rows, features]` and each *row* is mapped, `Y = X Wᵀ`;
//! * **cols**: activations are `[positions, features]` of one sequence and each *column* is mapped, `Y = W X`
//!   (mixing over positions needs no transposition that way).
//!
//! Every kernel is one body over the tokens of `vector.rs` and is compiled for each instruction set ([`isa`]); the path
//! is chosen once, by a short measurement ([`choose_isa`]), and can be forced by `TRM_SIMD`. Products with weights run on panels packed once per
//! update (`pack.rs`, `tile.rs`, `gemm.rs`). All results are functions of the inputs and the instruction set alone: sums
//! have a fixed order that depends neither on the number of threads nor on where a row lies. f64 runs the same bodies
//! on plain arrays, with libm's elementary functions.

#![warn(missing_docs)]

#[doc(hidden)]
pub mod array;
mod attention;
mod choice;
mod deferred;
mod elementwise;
mod format;
mod gemm;
#[doc(hidden)]
pub mod int8;
mod isa;
#[doc(hidden)]
pub mod kept;
mod large;
mod left;
mod limit;
#[doc(hidden)]
pub mod math;
mod matrix;
mod norm;
mod optimizer;
mod pack;
mod panels;
mod real;
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub mod registers;
mod scratch;
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub mod self_test;
mod shared;
#[doc(hidden)]
pub mod split;
mod swiglu;
mod tile;
mod transpose;
#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
pub mod twin;
#[doc(hidden)]
pub mod vector;
mod weight;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use attention::{AttentionShape, RopeTable, attention_backward, attention_forward};
pub use choice::{ChosenPath, Rates, choose, chosen, preferred_precision};
pub use deferred::{
    DeferredGrad, add_deferred, add_deferred_gate_up, add_weight_grad, deferred_gate_up_len, deferred_len,
    pack_deferred,
};
pub use elementwise::{add, add_assign, add_shared, axpy, axpy_shared, dot, scale, sum_squares};
pub use format::Precision;
pub use int8::swiglu_int8;
pub use isa::{ISA_VARIABLE, Isa, NoSuchPath, choose_isa, int8_bytes, isa};
pub use kept::KeptRates;
pub use limit::{copy_limit, fma_limit, int8_limit};
pub use matrix::{Matrix, gemm};
pub use norm::{
    AddRmsNorm, NORM_EPSILON, add_rmsnorm_cols, add_rmsnorm_rows, rmsnorm_backward_cols, rmsnorm_backward_rows,
};
pub use optimizer::{AdamCoefficients, Update, adam_step};
pub use pack::Side;
pub use real::Real;
pub use scratch::{Aligned, LINE, prefer_large_pages, reserve};
pub use split::{each_item, share_items};
pub use swiglu::{SwigluOperands, swiglu, swiglu_backward, swiglu_saved_len};
pub use weight::{PackedWeight, update_weight};

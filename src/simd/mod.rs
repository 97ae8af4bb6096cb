//! CPU kernels: everything that touches every number, behind safe functions that check shapes.
//!
//! The room knows nothing of tapes or models: it sees row-major slices. Two orientations occur everywhere, named
//! after what a weight `W: [out, in]` multiplies:
//!
//! * **rows**: activations are `[rows, features]` and each *row* is mapped, `Y = X Wᵀ`;
//! * **cols**: activations are `[positions, features]` of one sequence and each *column* is mapped, `Y = W X`
//!   (mixing over positions needs no transposition that way).

mod attention;
mod elementwise;
mod gemm;
mod norm;
mod optimizer;
mod real;

pub use attention::{AttentionShape, RopeTable, attention_backward, attention_forward};
pub use elementwise::{add, add_assign, axpy, dot, scale, silu_mul, silu_mul_backward, sum_squares};
pub use gemm::{Weight, weight_grad_cols, weight_grad_rows};
pub use norm::{NORM_EPSILON, add_rmsnorm_cols, add_rmsnorm_rows, rmsnorm_backward_cols, rmsnorm_backward_rows};
pub use optimizer::{AdamCoefficients, Update, adam_step};
pub use real::Real;

//! Products of whole numbers of eight bits, for calls that carry no gradient.
//!
//! Every row of x and every row of a weight W becomes whole numbers from −127 to 127 and a scale, its largest magnitude
//! over 127: `x[i, k] ≈ a[i]·p[i, k]`, `W[j, k] ≈ b[j]·q[j, k]`. Then
//!
//! ```text
//! y[i, j] = a[i]·b[j]·Σ_k p[i, k]·q[j, k]
//! ```
//!
//! and the sum of whole numbers is exact, whatever the order. (Paths without instructions for it multiply the numbers in f32,
//! which is exact to 2²⁴.)
//!
//! Processors multiply bytes without a sign by bytes with one. So the left operand of a product is packed with 128 added to
//! each number, and its right operand says what that adds to the sum, `128·Σ_k q[j, k]`: the *offset* of each of its vectors,
//! which lies beside its scale . Which of weight and activation is left is a matter of [`Side`](super::Side), as
//! elsewhere.
//!
//! The activation between SwiGLU's products has no scale before all of its row is known. It is written in f32, for
//! so many rows or columns as L2 holds, and packed from there.

/// Products of a number of 0 to 255 and one of −127 to 127 that a sum of 32 bits holds for sure.
pub const MOST_STEPS: usize = 66_311;

const _: () = assert!(MOST_STEPS * 255 * 127 <= i32::MAX as usize);

mod cols;
mod format;
mod linear;
mod quantize;
mod rows;
mod swiglu;
mod weight;

pub use format::{ByQuads, Numbers, TileQuads, WholeNumbers};
pub use linear::LinearInt8;
pub use swiglu::{SwigluInt8, swiglu_int8};
pub(super) use weight::{PackRows, pack_cols, panel_lens};

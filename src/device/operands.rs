//! What kernels are told beside their blocks.

use super::{Block, ParamId};
use crate::simd::Precision;

/// The axis of `[sequences·len, width]` along which a kernel works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Each row by itself.
    Features,
    /// Each column of a sequence of so many positions.
    Positions(usize),
}

/// Residual and norm as the epilogue of a kernel that makes y: `y ← rmsnorm(h + y)`.
#[derive(Clone, Copy, Debug)]
pub struct NormEpilogue {
    /// The residual, of y's shape.
    pub h: Block,
    /// Receives the norm's factors: one a row, or with [`Over::Positions`] one a column of each sequence.
    pub inv_rms: Block,
    /// Only where [`Device::fuses_sum`](super::Device::fuses_sum) says so.
    pub sum: Option<SumEpilogue>,
}

impl NormEpilogue {
    /// Residual and norm alone.
    pub fn new(h: Block, inv_rms: Block) -> Self {
        Self { h, inv_rms, sum: None }
    }
}

/// A sum whose first summand is what a kernel makes, y; made by that kernel as well.
#[derive(Clone, Copy, Debug)]
pub struct SumEpilogue {
    /// What is added to y, of its shape.
    pub added: Block,
    /// What is added then.
    pub then: Option<Block>,
    /// Receives the sum. It may be y's block: then y itself is not kept.
    pub out: Block,
}

/// What a norm has made: its output y, and its factors.
#[derive(Clone, Copy, Debug)]
pub struct Normed {
    /// Rows of the output.
    pub y: Block,
    /// One factor a row.
    pub inv_rms: Block,
}

/// Where a backward pass puts the gradient of an input.
#[derive(Clone, Copy, Debug)]
pub struct InputGrad {
    /// Receives it.
    pub to: Block,
    /// What it is added to, of the same shape: nothing, `to` itself, or another block.
    pub base: Option<Block>,
    /// The norm over features that the input comes from, where the gradient goes on through it. Only where
    /// [`Device::norms_input_grad`](super::Device::norms_input_grad) says so.
    pub norm: Option<Normed>,
}

impl InputGrad {
    /// The gradient by itself, overwriting a block.
    pub fn overwriting(to: Block) -> Self {
        Self { to, base: None, norm: None }
    }

    /// Added to what is in a block.
    pub fn added_to(to: Block) -> Self {
        Self { to, base: Some(to), norm: None }
    }
}

/// Number formats of the operands of products with weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Formats {
    /// Of all that has no other one.
    pub precision: Precision,
    /// Of the calls that carry no gradient, on devices that distinguish them.
    pub detached: Detached,
}

/// Number format of the operands of products with weights in calls that carry no gradient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detached {
    /// That of the others.
    #[default]
    Same,
    /// Whole numbers of eight bits, with a scale for each row of the weight and each vector that it is applied to.
    Int8,
}

impl From<Precision> for Formats {
    fn from(precision: Precision) -> Self {
        Self { precision, detached: Detached::Same }
    }
}

/// A SwiGLU of x `[rows, width]`: `y = W_down (silu(g) ⊙ u)`, `[g; u] = W_gate_up x`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwiGlu {
    /// `[2·inner, in]`, gates first.
    pub gate_up: ParamId,
    /// `[out, inner]`.
    pub down: ParamId,
    /// What is mapped: rows, or columns of sequences.
    pub over: Over,
    /// Columns of x.
    pub width: usize,
}

impl SwiGlu {
    /// For x of `len` elements: how many pieces one call of a kernel takes (all rows are one, each sequence is one), and how
    /// many rows or columns are mapped in each.
    pub fn pieces(&self, len: usize) -> (usize, usize) {
        match self.over {
            Over::Features => (1, len / self.width),
            Over::Positions(positions) => (len / (positions * self.width), self.width),
        }
    }
}

/// Runs of elements at equal distances: run r begins at `start + r·stride` of the block.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    /// Where the runs are.
    pub block: Block,
    /// First element of run 0.
    pub start: usize,
    /// Elements from one run to the next.
    pub stride: usize,
}

/// From logits to probabilities (specification, "Loss").
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Likelihood {
    /// `s(a) = a + 1` for a ≥ 0, `1/(1 − a)` below; `p = s/Σs`.
    Stablemax,
    /// The usual softmax; this share of the target is spread evenly over the vocabulary.
    Softmax {
        /// ε: 0 is the plain cross-entropy.
        label_smoothing: f64,
    },
}

/// One of the states that a device keeps between supervision steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptState {
    /// Which of them, from 0.
    pub state: usize,
    /// How many there are.
    pub states: usize,
    /// Elements of each, of all sequences that there are places for.
    pub len: usize,
}

/// What one expert was chosen for.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The rows, in order.
    pub rows: &'a [u32],
    /// Columns of a row.
    pub width: usize,
    /// `[all rows, experts]`.
    pub gates: Block,
    /// Which expert.
    pub expert: usize,
    /// Of how many.
    pub experts: usize,
}

/// Where q and k of attention turn by their rotary positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rope {
    /// They do not.
    Nowhere,
    /// In [`Device::attention`](super::Device::attention).
    InAttention,
    /// They have been rotated by [`Device::linear_rope`](super::Device::linear_rope).
    InProduct,
}

impl Rope {
    /// Whether attention turns them.
    pub fn in_attention(self) -> bool {
        self == Self::InAttention
    }
}

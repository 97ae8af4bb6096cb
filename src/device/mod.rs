//! The seam below the tape: what can be computed, on handles; a device says how.
//!
//! A [`Device`] owns memory and kernels. Operations of the tape see [`Block`]s, which are indices, and ask for kernels by
//! name; they never touch an element. So the same operations, recursion and training step run on every device:
//!
//! | device | what it is | scalars |
//! |---|---|---|
//! | [`Cpu`] | packed weights, fused SIMD kernels, deferred weight gradients | f32 (GEMMs also in bf16), f64 |
//! | [`Reference`] | the naive twin of everything: plain loops under their formulas, GEMMs by `matrixmultiply` | f32, f64 |
//! | `Cuda`, with the feature `cuda` or `cuda-twin` | the kernels of the folder `kernels`, on an NVIDIA GPU or on its twin | f32 (activations also in bf16), f64 |
//!
//! A device belongs to one lane (see [`crate::engine`]) and is used by one thread at a time. The weights are shared by all
//! lanes: [`Params`] holds the flat vector and, for each tensor, the form in which the device's kernels read it.

mod block;
pub(crate) mod control_group;
pub mod cpu;
#[cfg(cuda)]
pub mod cuda;
mod host;
mod layout;
mod measure;
mod memory;
mod operands;
mod params;
pub mod reference;
mod team;
mod topology;

pub use block::{ALIGNMENT, Block, Indices, Space, Store};
pub use cpu::Cpu;
#[cfg(cuda)]
pub use cuda::Cuda;
pub use host::{HostDevice, Slices};
pub use layout::{Layout, ParamId, Tensor, Usage};
pub use measure::{Mark, Measured};
pub use operands::{
    Choice, Detached, Formats, InputGrad, KeptState, Likelihood, NormEpilogue, Normed, Over, Rope, Runs, SumEpilogue,
    SwiGlu,
};
pub use params::{Change, DeviceWeight, Grads, Params, change_in_pieces};
pub use reference::Reference;
pub use team::{Leader, Team};
pub use topology::{Place, Topology, available};

use crate::simd::preferred_precision;
pub use crate::simd::{AdamCoefficients, AttentionShape, NORM_EPSILON, Precision, Real, Update};

/// The label of positions that no loss and no metric counts.
pub use crate::config::IGNORE_LABEL;

/// What one lane computes with. Blocks are row-major matrices; sizes follow from their lengths and the arguments.
///
/// Kernels *add* to gradients (`d…` arguments that are written) unless they say otherwise. Results are functions of the
/// inputs, the device and its settings alone: every sum has a fixed order.
///
/// # Panics
/// Kernels panic when shapes do not fit; no input of a user can bring that about.
pub trait Device: Measured + Sized + Send {
    /// Scalars of values, weights, gradients and losses.
    type T: Real;
    /// One tensor in the form that the kernels read.
    type Weight: DeviceWeight<Self::T>;
    /// A flat array of the device's, such as the gradients of all weights.
    type Buffer: Clone + Send + Sync;

    /// The name under which `--device` knows it.
    const NAME: &'static str;

    /// Whether one lane is all that there is to it, however many cores the host has.
    const IS_ACCELERATOR: bool = false;

    /// What the bits of a run's results depend on beside the settings: the path of the CPU's kernels, else the device's name.
    fn path() -> &'static str {
        Self::NAME
    }

    /// A device without memory.
    fn new() -> Self;

    /// The number format that a run gets which leaves it to the device: bf16 where the processor multiplies pairs or tiles of
    /// them, unless f32 is clearly faster; f32 everywhere else (bf16 rounds operands there and multiplies in f32, so it is
    /// slower).
    fn preferred_precision() -> Precision {
        preferred_precision()
    }

    /// Sequences of `len` positions that are worked on at a time: enough rows to keep the kernels busy, and no more than stay
    /// in fast memory. Four of 97 give 388 rows, while their activations stay a few megabytes per recorded call; one of
    /// 916 does so by itself.
    fn shard(len: usize) -> usize {
        const ROWS: usize = 400;
        (ROWS / len).clamp(1, 4)
    }

    /// Says on which NUMA node, counted from 0, the lane runs; it then reads that node's copy of the weights.
    fn set_node(&mut self, _node: usize) {}

    /// Lets kernels use as many threads of the pool as `team` says at the time: they would be idle otherwise.
    fn join_team(&mut self, _team: &Team) {}

    /// Has at most so many sequences worked on at a time; 0 leaves it to the device.
    fn set_micro_batch(&mut self, _sequences: usize) {}

    /// [`Device::shard`], within what has been set.
    fn shard_now(&self, len: usize) -> usize {
        Self::shard(len)
    }

    /// Keeps copies of the weights, one for each NUMA node; thread i of the pool that this is called in runs on
    /// `node_of_thread[i]`.
    fn replicate(_params: &mut Params<Self>, _node_of_thread: &[usize]) {}

    // Memory.

    /// A flat array of zeros.
    fn buffer(len: usize) -> Self::Buffer;

    /// Sets a flat array to zero.
    fn clear_buffer(buffer: &mut Self::Buffer);

    /// The elements of a flat array, in host memory of their own.
    fn read_buffer(buffer: &Self::Buffer) -> Vec<Self::T>;

    /// Overwrites a flat array of that length.
    fn write_buffer(buffer: &mut Self::Buffer, values: &[Self::T]);

    /// What is in use.
    fn space(&mut self) -> &mut Space;

    /// Grows the memory to what [`Device::space`] has handed out.
    fn reserve(&mut self);

    /// Bytes of the memory, working space included.
    fn size_bytes(&self) -> usize;

    /// Bytes in which an element is kept.
    fn element_bytes(&self, _store: Store) -> usize {
        size_of::<Self::T>()
    }

    /// A block of `len` elements with arbitrary contents (NaN in debug builds, so that a read before a write shows).
    fn alloc(&mut self, len: usize, store: Store) -> Block {
        let element = self.element_bytes(store);
        let block = self.space().alloc(len, element);
        self.reserve();
        if cfg!(debug_assertions) {
            self.fill(block, Self::T::from_f64(f64::NAN));
        }
        block
    }

    /// Takes a block back for reuse.
    fn release(&mut self, block: Block) {
        self.space().release(block);
    }

    /// Takes everything back, integers too, and forgets what has been deferred; what follows is computed with weights of
    /// that precision.
    fn reset(&mut self, precision: Precision);

    /// Says whether the products that follow belong to a call without gradient; they then have the format that the weights were
    /// made for ([`Formats::detached`]). Not so after a [`Device::reset`].
    fn set_detached(&mut self, _detached: bool) {}

    /// Whether operands of products with these weights are whole numbers of eight bits now.
    fn is_int8(&self, _params: &Params<Self>) -> bool {
        false
    }

    /// Keeps integers until the next [`Device::reset`].
    fn put(&mut self, values: impl Iterator<Item = i32>) -> Indices;

    /// Copies from the host.
    fn upload(&mut self, from: &[Self::T], to: Block);

    /// Copies to the host, after all kernels called before.
    fn download(&self, from: Block, to: &mut [Self::T]);

    /// The elements of a block, in host memory of their own.
    fn read(&self, from: Block) -> Vec<Self::T> {
        let mut values = vec![Self::T::ZERO; from.len()];
        self.download(from, &mut values);
        values
    }

    // States that an accelerator keeps between supervision steps; other devices leave them to their callers.

    /// A state of some sequences at the start of a supervision step. Of sequence b, every row becomes the vector `start` where
    /// `anew[b]` is not 0; else it is what was kept at `places[b]`.
    fn load_state(
        &mut self,
        _params: &Params<Self>,
        _start: ParamId,
        _state: KeptState,
        _places: Indices,
        _anew: Indices,
        _y: Block,
    ) {
        unreachable!("the host keeps the states of this device");
    }

    /// Keeps state number `state` of some sequences at `places`; it has been loaded before.
    fn keep_state(&self, _state: usize, _places: Indices, _y: Block) {
        unreachable!("the host keeps the states of this device");
    }

    // Elementwise.

    /// `to ← value`.
    fn fill(&mut self, to: Block, value: Self::T);

    /// `to ← from`.
    fn copy(&mut self, from: Block, to: Block);

    /// `to ← to + alpha · from`.
    fn axpy(&mut self, alpha: Self::T, from: Block, to: Block);

    /// `out ← a + b + …`.
    fn sum(&mut self, summands: &[Block], out: Block);

    /// `to ← from`, `count` runs of `len` elements.
    fn copy_runs(&mut self, shape: (usize, usize), from: Runs, to: Runs);

    /// `to ← to + alpha · from`, `count` runs of `len` elements.
    fn add_runs(&mut self, shape: (usize, usize), alpha: Self::T, from: Runs, to: Runs);

    // Tables: tensors whose rows are looked up or added.

    /// Every row of `y` becomes the vector `table` (a start vector).
    fn broadcast(&mut self, params: &Params<Self>, table: ParamId, y: Block);

    /// `x ← x + scale · table`, at the start of every stretch of `every` elements (a bias, positions, a prefix).
    fn add_table(&mut self, params: &Params<Self>, table: ParamId, scale: f64, every: usize, x: Block);

    /// The table's gradient in [`Device::add_table`]: `d_table ← d_table + scale · Σ stretches dy`.
    fn table_grad(&mut self, grads: &mut Grads<Self>, table: ParamId, scale: f64, every: usize, dy: Block);

    /// Token embedding behind an empty prefix, `y[b, prefix + s] ← scale · table[token[b, s]]`, `y[b, l < prefix] ← 0`;
    /// tokens are `[sequences, seq_len]`, the shape is `(seq_len, prefix)`.
    fn embed(
        &mut self,
        params: &Params<Self>,
        table: ParamId,
        tokens: Indices,
        shape: (usize, usize),
        scale: f64,
        y: Block,
    );

    /// `d_table[token] ← d_table[token] + scale · dy`, row by row in order.
    fn embed_backward(
        &mut self,
        grads: &mut Grads<Self>,
        table: ParamId,
        tokens: Indices,
        shape: (usize, usize),
        scale: f64,
        dy: Block,
    );

    // GEMMs with weights.

    /// `y ← x Wᵀ`, then residual and norm if there are any: x `[m, in]`, W `[out, in]`, y `[m, out]`.
    fn linear(&mut self, params: &Params<Self>, weight: ParamId, x: Block, y: Block, epilogue: Option<NormEpilogue>);

    /// Whether [`Device::swiglu`] of this one, with residual and norm, can make the sum that comes next as well ([`SumEpilogue`]).
    /// The blocks are those that it reads.
    fn fuses_sum(&self, _params: &Params<Self>, _swiglu: SwiGlu, _blocks: &[Block]) -> bool {
        false
    }

    /// `dx ← base + dy W`.
    fn linear_backward(&mut self, params: &Params<Self>, weight: ParamId, dy: Block, dx: InputGrad);

    /// Whether the gradient of what the first of an operation's weights is applied to can go on through a norm in the kernel
    /// that makes it: in [`Device::linear_backward`], or in [`Device::swiglu_backward`] over features. The blocks are those
    /// that the operation reads.
    fn norms_input_grad(&self, _params: &Params<Self>, _weights: &[ParamId], _blocks: &[Block]) -> bool {
        false
    }

    /// For kernels that can only overwrite or add in place: brings what a gradient is added to where it goes. The value says
    /// whether there is anything to add to.
    fn begin_input_grad(&mut self, dx: InputGrad) -> bool {
        debug_assert!(dx.norm.is_none(), "only where norms_input_grad says so");
        if let Some(base) = dx.base.filter(|&base| base != dx.to) {
            self.copy(base, dx.to);
        }
        dx.base.is_some()
    }

    /// The same for kernels that can only add in place.
    fn begin_sum(&mut self, dx: InputGrad) -> Block {
        if !self.begin_input_grad(dx) {
            self.fill(dx.to, Self::T::ZERO);
        }
        dx.to
    }

    /// `dW ← dW + dyᵀ x`, now or by [`Device::finish_weight_grads`] at the latest.
    fn weight_grad(&mut self, params: &Params<Self>, grads: &mut Grads<Self>, weight: ParamId, dy: Block, x: Block);

    /// Adds the weight gradients that were deferred. Returns the bytes of their operands.
    fn finish_weight_grads(&mut self, _params: &Params<Self>, _grads: &mut Grads<Self>) -> usize {
        0
    }

    /// Model FLOPs of the weight gradients deferred at this moment.
    fn deferred_flops(&self, _params: &Params<Self>) -> f64 {
        0.0
    }

    // Fused operations.

    /// Elements in which [`Device::swiglu`] saves what its backward pass needs, for an x of `len` elements.
    fn swiglu_saved_len(&self, params: &Params<Self>, swiglu: SwiGlu, len: usize) -> usize;

    /// `y ← W_down (silu(g) ⊙ u)`, `[g; u] = W_gate_up x`, for each row of x or each column of its sequences; then residual
    /// and norm over the same axis, if there are any.
    fn swiglu(
        &mut self,
        params: &Params<Self>,
        swiglu: SwiGlu,
        x: Block,
        saved: Option<Block>,
        y: Block,
        epilogue: Option<NormEpilogue>,
    );

    /// With `a = σ(g)`, `d = W_downᵀ dy`: `dg = d·u·a(1 + g(1 − a))`, `du = d·g·a`; `dx ← base + W_gate_upᵀ [dg; du]`, and the
    /// gradients of both weights as [`Device::weight_grad`] does.
    #[allow(clippy::too_many_arguments)]
    fn swiglu_backward(
        &mut self,
        params: &Params<Self>,
        grads: &mut Grads<Self>,
        swiglu: SwiGlu,
        dy: Block,
        saved: Block,
        x: Block,
        dx: Option<InputGrad>,
    );

    /// Whether the product that makes q, k and v for [`Device::attention`] can turn q and k: [`Device::linear_rope`]. The blocks
    /// are those that the product and attention read.
    fn fuses_rope(&self, _params: &Params<Self>, _weight: ParamId, _shape: &AttentionShape, _blocks: &[Block]) -> bool {
        false
    }

    /// `qkv ← x Wᵀ` with q and k rotated by their positions, only where [`Device::fuses_rope`] says so.
    fn linear_rope(&mut self, _: &Params<Self>, _weight: ParamId, _shape: &AttentionShape, _x: Block, _qkv: Block) {
        unreachable!("this device's products turn nothing")
    }

    /// `out ← softmax(q kᵀ/√head_dim) v` per head, not causal; qkv `[sequences·len, 3·width]` holds q of all heads, then k,
    /// then v, and may be overwritten. `lse` `[sequences·heads, len]` receives a statistic of each score row, for the backward
    /// pass.
    fn attention(
        &mut self,
        precision: Precision,
        shape: &AttentionShape,
        rope: Rope,
        qkv: Block,
        out: Block,
        lse: Block,
    );

    /// Overwrites `d_qkv` with the gradient of q, k and v before they were rotated, from what [`Device::attention`] left.
    #[allow(clippy::too_many_arguments)]
    fn attention_backward(
        &mut self,
        precision: Precision,
        shape: &AttentionShape,
        rope: Rope,
        qkv: Block,
        out: Block,
        lse: Block,
        d_out: Block,
        d_qkv: Block,
    );

    /// `x ← rmsnorm(h + x)`, `rmsnorm(v) = v·r`, `r = (mean v² + ε)^(−1/2)`; rows are `width` wide, `inv_rms` receives r.
    fn add_rmsnorm(&mut self, over: Over, width: usize, h: Block, x: Block, inv_rms: Block);

    /// With y and r of [`Device::add_rmsnorm`], in place: `d ← r (d − y · mean(d·y))`, the gradient of both summands.
    fn rmsnorm_backward(&mut self, over: Over, width: usize, y: Block, inv_rms: Block, d: Block);

    // Losses and metrics, one element a sequence.

    /// `loss[b] ← Σ nll / c`, c = max(1, labelled positions); labels are `[sequences, seq_len]`, logits
    /// `[sequences·seq_len, vocab]`; `unit_grad`, of the logits' shape, receives `∂loss[b]/∂logits`.
    fn cross_entropy(
        &mut self,
        likelihood: Likelihood,
        labels: Indices,
        seq_len: usize,
        logits: Block,
        loss: Block,
        unit_grad: Block,
    );

    /// `loss[b] ← max(q, 0) − q·t + ln(1 + e^(−|q|))` of column `column` of x `[rows, columns]`, the
    /// place being `(column, columns)`; `unit_grad[b]` receives
    /// `σ(q) − t`.
    fn bce_with_logits(&mut self, place: (usize, usize), x: Block, target: Block, loss: Block, unit_grad: Block);

    /// `d_x[b, column] ← d_x[b, column] + d_loss[b] · unit_grad[b]`.
    fn bce_backward(&mut self, place: (usize, usize), d_loss: Block, unit_grad: Block, d_x: Block);

    /// `d_x ← d_x + d_loss[b] · unit_grad`, for the elements of each sequence b.
    fn loss_backward(&mut self, d_loss: Block, unit_grad: Block, d_x: Block);

    /// For each sequence, how many labelled tokens the logits get right, how many there are, and 1 where that is all of
    /// them, else 0. The token of a row of logits is the first of the largest.
    fn score(&mut self, labels: Indices, seq_len: usize, logits: Block, correct: Block, labelled: Block, exact: Block);

    /// The token of each row of logits: the first of the largest.
    fn predict(&self, logits: Block, tokens: &mut [u8]);

    /// `target[b] ← σ(is_last[b] ≠ 0 ? q_halt : max(q_halt, q_continue))`, from q `[sequences, 2]` of the step after
    /// (specification, "Deep supervision", step 4).
    fn continue_target(&mut self, is_last: Indices, q: Block, target: Block);

    // Mixture of experts.

    /// Gates: softmax over the `per_row` largest of each row of logits `[rows, experts]` (the first of equals counts as the
    /// larger), never 0 where chosen, 0 elsewhere.
    fn route(&mut self, experts: usize, per_row: usize, logits: Block, gates: Block);

    /// Over the chosen: `d_logits[e] ← d_logits[e] + g[e] (dg[e] − Σ g·dg)`.
    fn route_backward(&mut self, experts: usize, gates: Block, d_gates: Block, d_logits: Block);

    /// The rows that each expert was chosen for: appended to `lists` one expert after the other, the end of each expert's
    /// list, counted from the first row's place, in front of them.
    fn chosen(&self, experts: usize, gates: Block, lists: &mut Vec<u32>);

    /// `y[p] ← x[rows[p]]`, then rows of zeros.
    fn gather(&mut self, rows: &[u32], width: usize, x: Block, y: Block);

    /// `dx[rows[p]] ← dx[rows[p]] + dy[p]`.
    fn scatter(&mut self, rows: &[u32], width: usize, dy: Block, dx: Block);

    /// `y[rows[p]] ← y[rows[p]] + gates[rows[p], expert] · x[p]`.
    fn add_expert(&mut self, choice: Choice<'_>, x: Block, y: Block);

    /// `dx[p] ← dx[p] + gate · dy[row]`, `d_gates[row, expert] ← d_gates[row, expert] + dy[row]·x[p]`.
    fn add_expert_backward(
        &mut self,
        choice: Choice<'_>,
        dy: Block,
        x: Block,
        dx: Option<Block>,
        d_gates: Option<Block>,
    );

    /// `loss[b] ← weight · E · Σ_e f[e]·P[e]`: `f[e]` is the share of the sequence's picks that went to expert e (choices are
    /// `(E, picks [sequences, experts])`), `P[e]` the mean of `softmax(logits)[e]`; `unit_grad` receives `∂loss[b]/∂logits`.
    fn load_balance(&mut self, choices: (usize, &[u32]), weight: f64, logits: Block, loss: Block, unit_grad: Block);

    // Fixed point.

    /// Adds, for each sequence, `‖after − before‖²` and `‖after‖²` to `sums`.
    fn distance(&self, before: Block, after: Block, sequences: usize, sums: &mut [[f64; 2]]);

    /// Adds, for each sequence, the inner product of two residuals `after − before` to `sums`.
    fn residual_product(&self, p: [Block; 2], q: [Block; 2], sequences: usize, sums: &mut [f64]);
}

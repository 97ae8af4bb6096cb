//! `kernels/trm_kernels.h` in Rust, line by line, and the table of functions of each build of the kernels.

use std::ffi::{c_char, c_int, c_void};

use super::View;

/// An array in device memory, and its format: bytes of an element.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawArray {
    pub data: *mut c_void,
    pub format: i64,
}

impl RawArray {
    /// No array.
    pub const NONE: Self = Self { data: std::ptr::null_mut(), format: 0 };
}

/// Gradients of a weight tensor, one array for each slice of the batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sums {
    pub data: *mut c_void,
    pub format: i64,
    pub stride: i64,
    pub rows: i64,
}

pub type Stream = *mut c_void;

/// What a device is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawDescription {
    pub name: [c_char; 256],
    pub memory: u64,
    pub major: i64,
    pub minor: i64,
    pub processors: i64,
    pub driver: i64,
    pub runtime: i64,
}

/// Most arrays that one sum takes.
pub const SUMMANDS: usize = 9;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Summands {
    pub x: [RawArray; SUMMANDS],
    pub count: i64,
}

impl Summands {
    pub fn of(views: &[View<'_>]) -> Self {
        assert!(views.len() <= SUMMANDS);
        let mut x = [RawArray::NONE; SUMMANDS];
        x.iter_mut().zip(views).for_each(|(x, view)| *x = view.array);
        Self { x, count: views.len() as i64 }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub a: RawArray,
    pub b: RawArray,
    pub c: RawArray,
    pub m: i64,
    pub n: i64,
    pub k: i64,
    pub a_row: i64,
    pub a_col: i64,
    pub b_row: i64,
    pub b_col: i64,
    pub c_row: i64,
    pub c_col: i64,
    pub batch: i64,
    pub a_batch: i64,
    pub b_batch: i64,
    pub c_batch: i64,
    pub parts: i64,
    pub a_part: i64,
    pub b_part: i64,
    pub k_last: i64,
    pub parts_last: i64,
    pub accumulate: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Pack {
    pub from: RawArray,
    pub to: RawArray,
    pub rows: i64,
    pub cols: i64,
    pub interleave: i64,
    pub transpose: i64,
    pub run: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    pub sequences: i64,
    pub len: i64,
    pub heads: i64,
    pub head_dim: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawAdam {
    pub beta1: f64,
    pub beta2: f64,
    pub decay: f64,
    pub step: f64,
    pub inv_sqrt_correction2: f64,
    pub ema_rate: f64,
    pub grad_scale: f64,
    pub ratio: i64,
}

/// Most weight tensors that one launch of Adam takes.
pub const TENSORS: usize = 32;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawTensor {
    pub p: RawArray,
    pub first: i64,
    pub rows: i64,
    pub cols: i64,
    pub interleave: i64,
    pub transposed_run: i64,
    pub packed: *mut c_void,
    pub transposed: *mut c_void,
}

impl RawTensor {
    /// None.
    pub const NONE: Self = {
        let null = std::ptr::null_mut();
        Self {
            p: RawArray::NONE,
            first: 0,
            rows: 0,
            cols: 0,
            interleave: 0,
            transposed_run: 0,
            packed: null,
            transposed: null,
        }
    };
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RawTensors {
    pub of: [RawTensor; TENSORS],
    pub count: i64,
}

macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $Type:ty),* $(,)?) -> $Result:ty;)*) => {
        /// The functions of one build of the kernels.
        #[allow(missing_docs)] // the header says what they do
        pub struct Functions {
            $(pub $name: unsafe extern "C" fn($($argument: $Type),*) -> $Result),*
        }

        functions!(@build cuda, cuda_gpu, "trm_gpu_", $(fn $name($($argument: $Type),*) -> $Result;)*);
        functions!(@build twin, cuda_twin, "trm_twin_", $(fn $name($($argument: $Type),*) -> $Result;)*);
    };
    (@build $module:ident, $build:ident, $prefix:literal, $(fn $name:ident($($argument:ident: $Type:ty),*) -> $Result:ty;)*) => {
        #[cfg($build)]
        #[allow(clippy::too_many_arguments)]
        pub mod $module {
            use super::*;

            unsafe extern "C" {
                $(
                    #[link_name = concat!($prefix, stringify!($name))]
                    fn $name($($argument: $Type),*) -> $Result;
                )*
            }

            /// This build's.
            pub static FUNCTIONS: Functions = Functions { $($name),* };
        }
    };
}

functions! {
    fn error_string(status: c_int) -> *const c_char;
    fn driver_version(version: *mut i64) -> c_int;
    fn device_count(count: *mut i64) -> c_int;
    fn device_describe(device: i64, description: *mut RawDescription) -> c_int;
    fn device_use(device: i64) -> c_int;
    fn memory_free(free: *mut u64, total: *mut u64) -> c_int;
    fn allocate(data: *mut *mut c_void, bytes: usize) -> c_int;
    fn release(data: *mut c_void) -> c_int;
    fn host_allocate(data: *mut *mut c_void, bytes: usize) -> c_int;
    fn host_release(data: *mut c_void) -> c_int;
    fn upload(to: *mut c_void, from: *const c_void, bytes: usize, stream: Stream) -> c_int;
    fn download(to: *mut c_void, from: *const c_void, bytes: usize, stream: Stream) -> c_int;
    fn clear(data: *mut c_void, byte: c_int, bytes: usize, stream: Stream) -> c_int;
    fn stream_create(stream: *mut Stream) -> c_int;
    fn stream_wait(stream: Stream) -> c_int;
    fn event_create(event: *mut *mut c_void) -> c_int;
    fn event_destroy(event: *mut c_void) -> c_int;
    fn event_record(event: *mut c_void, stream: Stream) -> c_int;
    fn event_wait(event: *mut c_void) -> c_int;
    fn event_elapsed(from: *mut c_void, to: *mut c_void, milliseconds: *mut f32) -> c_int;
    fn graph_begin(stream: Stream) -> c_int;
    fn graph_end(stream: Stream, graph: *mut *mut c_void) -> c_int;
    fn graph_launch(graph: *mut c_void, stream: Stream) -> c_int;
    fn graph_destroy(graph: *mut c_void) -> c_int;

    fn fill(y: RawArray, value: f64, n: i64, stream: Stream) -> c_int;
    fn copy(x: RawArray, y: RawArray, n: i64, stream: Stream) -> c_int;
    fn axpy(alpha: f64, x: RawArray, y: RawArray, n: i64, stream: Stream) -> c_int;
    fn sum(x: Summands, y: RawArray, n: i64, stream: Stream) -> c_int;
    fn copy_runs(x: RawArray, x_stride: i64, y: RawArray, y_stride: i64, count: i64, len: i64, stream: Stream) -> c_int;
    fn add_runs(
        alpha: f64, x: RawArray, x_stride: i64, y: RawArray, y_stride: i64, count: i64, len: i64, stream: Stream,
    ) -> c_int;

    fn broadcast(table: RawArray, y: RawArray, rows: i64, width: i64, stream: Stream) -> c_int;
    fn start_states(
        start: RawArray, carried: RawArray, place: *const i32, anew: *const i32, y: RawArray, sequences: i64, len: i64, width: i64,
        stream: Stream,
    ) -> c_int;
    fn keep_states(y: RawArray, place: *const i32, carried: RawArray, sequences: i64, size: i64, stream: Stream) -> c_int;
    fn add_table(
        table: RawArray, table_len: i64, scale: f64, every: i64, x: RawArray, n: i64, stream: Stream,
    ) -> c_int;
    fn table_grad(
        dy: RawArray, n: i64, every: i64, table_len: i64, scale: f64, d_table: Sums, stream: Stream,
    ) -> c_int;
    fn embed(
        table: RawArray, width: i64, tokens: *const i32, sequences: i64, seq_len: i64, prefix: i64, scale: f64, y: RawArray,
        stream: Stream,
    ) -> c_int;
    fn embed_backward(
        dy: RawArray, width: i64, vocab: i64, tokens: *const i32, sequences: i64, seq_len: i64, prefix: i64, scale: f64,
        d_table: Sums, stream: Stream,
    ) -> c_int;

    fn product(product: *const Product, stream: Stream) -> c_int;

    fn add_rmsnorm(
        over: i64, h: RawArray, x: RawArray, inv_rms: RawArray, sequences: i64, len: i64, width: i64, stream: Stream,
    ) -> c_int;
    fn rmsnorm_backward(
        over: i64, y: RawArray, inv_rms: RawArray, d: RawArray, sequences: i64, len: i64, width: i64, stream: Stream,
    ) -> c_int;

    fn swiglu_hidden(gu: RawArray, hidden: RawArray, outer: i64, inner: i64, stream: Stream) -> c_int;
    fn swiglu_hidden_backward(gu: RawArray, d: RawArray, d_gu: RawArray, outer: i64, inner: i64, stream: Stream) -> c_int;

    fn linear_bf16(
        x: RawArray, w: RawArray, base: RawArray, y: RawArray, m: i64, n: i64, k: i64, stream: Stream,
    ) -> c_int;
    fn linear_rope_fits(n: i64, k: i64, head_dim: i64) -> c_int;
    fn linear_rope_bf16(
        x: RawArray, w: RawArray, cos_sin: RawArray, len: i64, y: RawArray, m: i64, n: i64, k: i64, stream: Stream,
    ) -> c_int;
    fn linear_norm_fits(n: i64) -> c_int;
    fn linear_norm_sum_fits(n: i64, k: i64) -> c_int;
    fn linear_add_rmsnorm_bf16(
        x: RawArray, w: RawArray, h: RawArray, y: RawArray, inv_rms: RawArray, added: Summands, sum: RawArray, m: i64, n: i64, k: i64,
        stream: Stream,
    ) -> c_int;
    fn linear_norm_backward_fits(n: i64, k: i64) -> c_int;
    fn linear_rmsnorm_backward_bf16(
        x: RawArray, w: RawArray, base: RawArray, y: RawArray, inv_rms: RawArray, d: RawArray, m: i64, n: i64, k: i64, stream: Stream,
    ) -> c_int;
    fn swiglu_bf16(
        x: RawArray, w_gate_up: RawArray, hidden: RawArray, kept: RawArray, m: i64, inner: i64, k: i64, stream: Stream,
    ) -> c_int;
    fn swiglu_backward_bf16(
        dy: RawArray, w_down_t: RawArray, kept: RawArray, d_gu: RawArray, hidden: RawArray, m: i64, inner: i64, n: i64, stream: Stream,
    ) -> c_int;
    fn weight_grad_bf16(
        dy: RawArray, x: RawArray, dw: Sums, interleaved: i64, m: i64, n_out: i64, n_in: i64, stream: Stream,
    ) -> c_int;
    fn narrow_linear_fits(n: i64, k: i64) -> c_int;
    fn narrow_linear(x: RawArray, w: RawArray, y: RawArray, m: i64, n: i64, k: i64, stream: Stream) -> c_int;
    fn narrow_linear_backward(
        dy: RawArray, w: RawArray, dx: RawArray, accumulate: i64, m: i64, n: i64, k: i64, stream: Stream,
    ) -> c_int;
    fn narrow_weight_grad(dy: RawArray, x: RawArray, dw: Sums, m: i64, n: i64, k: i64, stream: Stream) -> c_int;
    fn pack(pack: *const Pack, stream: Stream) -> c_int;

    fn mix_packed_bytes(len: i64, width: i64, inner: i64) -> i64;
    fn mix_pack(gate_up: RawArray, down: RawArray, packed: *mut c_void, len: i64, inner: i64, stream: Stream) -> c_int;
    fn mix_bf16(
        x: RawArray, packed: *const c_void, y: RawArray, inv_rms: RawArray, sequences: i64, len: i64, width: i64, inner: i64,
        stream: Stream,
    ) -> c_int;
    fn mix_backward_input_bf16(
        x: RawArray, packed: *const c_void, dy: RawArray, base: RawArray, dx: RawArray, sequences: i64, len: i64, width: i64,
        inner: i64, stream: Stream,
    ) -> c_int;
    fn mix_backward_weights_bf16(
        x: RawArray, packed: *const c_void, dy: RawArray, d_gate_up: Sums, d_down: Sums, sequences: i64, len: i64, width: i64,
        inner: i64, stream: Stream,
    ) -> c_int;

    fn rope(qkv: RawArray, cos_sin: RawArray, inverse: i64, shape: Attention, stream: Stream) -> c_int;
    fn attention(qkv: RawArray, out: RawArray, lse: RawArray, shape: Attention, stream: Stream) -> c_int;
    fn attention_backward(
        qkv: RawArray, out: RawArray, lse: RawArray, d_out: RawArray, d_qkv: RawArray, means: RawArray, shape: Attention, stream: Stream,
    ) -> c_int;
    fn attention_fits(head_dim: i64) -> c_int;
    fn attention_bf16(qkv: RawArray, out: RawArray, lse: RawArray, shape: Attention, stream: Stream) -> c_int;
    fn attention_backward_bf16(
        qkv: RawArray, cos_sin: RawArray, out: RawArray, lse: RawArray, d_out: RawArray, d_qkv: RawArray, means: RawArray,
        shape: Attention, stream: Stream,
    ) -> c_int;
    fn attention_short_fits(len: i64, head_dim: i64) -> c_int;
    fn attention_short(
        qkv: RawArray, cos_sin: RawArray, out: RawArray, lse: RawArray, shape: Attention, stream: Stream,
    ) -> c_int;
    fn attention_short_backward(
        qkv: RawArray, cos_sin: RawArray, turns: i64, out: RawArray, lse: RawArray, d_out: RawArray, d_qkv: RawArray, shape: Attention,
        stream: Stream,
    ) -> c_int;

    fn cross_entropy(
        softmax: i64, label_smoothing: f64, labels: *const i32, logits: RawArray, loss: RawArray, unit_grad: RawArray,
        sequences: i64, seq_len: i64, vocab: i64, stream: Stream,
    ) -> c_int;
    fn bce_with_logits(
        x: RawArray, column: i64, columns: i64, target: RawArray, loss: RawArray, unit_grad: RawArray, sequences: i64,
        stream: Stream,
    ) -> c_int;
    fn bce_backward(
        d_loss: RawArray, unit_grad: RawArray, column: i64, columns: i64, d_x: RawArray, sequences: i64, stream: Stream,
    ) -> c_int;
    fn loss_backward(
        d_loss: RawArray, unit_grad: RawArray, d_x: RawArray, sequences: i64, size: i64, stream: Stream,
    ) -> c_int;
    fn score(
        labels: *const i32, logits: RawArray, correct: RawArray, labelled: RawArray, exact: RawArray, sequences: i64, seq_len: i64,
        vocab: i64, stream: Stream,
    ) -> c_int;
    fn predict(logits: RawArray, tokens: *mut u8, rows: i64, vocab: i64, stream: Stream) -> c_int;
    fn continue_target(is_last: *const i32, q: RawArray, target: RawArray, sequences: i64, stream: Stream) -> c_int;

    fn route(logits: RawArray, gates: RawArray, rows: i64, experts: i64, per_row: i64, stream: Stream) -> c_int;
    fn route_backward(
        gates: RawArray, d_gates: RawArray, d_logits: RawArray, rows: i64, experts: i64, stream: Stream,
    ) -> c_int;
    fn gather(
        rows: *const i32, count: i64, x: RawArray, y: RawArray, y_rows: i64, width: i64, stream: Stream,
    ) -> c_int;
    fn scatter(rows: *const i32, count: i64, dy: RawArray, dx: RawArray, width: i64, stream: Stream) -> c_int;
    fn add_expert(
        rows: *const i32, count: i64, gates: RawArray, experts: i64, expert: i64, x: RawArray, y: RawArray, width: i64,
        stream: Stream,
    ) -> c_int;
    fn add_expert_backward(
        rows: *const i32, count: i64, gates: RawArray, experts: i64, expert: i64, dy: RawArray, x: RawArray, dx: RawArray,
        d_gates: RawArray, width: i64, stream: Stream,
    ) -> c_int;
    fn load_balance(
        picks: *const i32, weight: f64, logits: RawArray, loss: RawArray, unit_grad: RawArray, sequences: i64,
        rows_per_sequence: i64, experts: i64, stream: Stream,
    ) -> c_int;

    fn distance(
        before: RawArray, after: RawArray, sums: *mut f64, sequences: i64, size: i64, stream: Stream,
    ) -> c_int;
    fn residual_product(
        p_before: RawArray, p_after: RawArray, q_before: RawArray, q_after: RawArray, sums: *mut f64, sequences: i64, size: i64,
        stream: Stream,
    ) -> c_int;

    fn sum_slices(x: RawArray, slices: i64, stride: i64, out: RawArray, n: i64, stream: Stream) -> c_int;
    fn sum_squares(x: RawArray, n: i64, partials: *mut f64, sum: *mut f64, stream: Stream) -> c_int;
    fn adam(
        adam: *const RawAdam, tensors: *const RawTensors, m: RawArray, v: RawArray, e: RawArray, g: RawArray, stream: Stream,
    ) -> c_int;

    fn multiply_limit(format: i64, blocks: i64, rounds: i64, counts: *mut f64, stream: Stream) -> c_int;
    fn multiply_limit_round(format: i64) -> i64;
    fn copy_limit(x: *const c_void, y: *mut c_void, bytes: i64, stream: Stream) -> c_int;
}

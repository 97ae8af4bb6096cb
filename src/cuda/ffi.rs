//! `kernels/trm_kernels.h` in Rust, line by line, and the table of functions of each build of the kernels.

use std::ffi::{c_char, c_int, c_void};

/// An array in device memory, and its format: bytes of an element.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Array {
    pub data: *mut c_void,
    pub format: i64,
}

impl Array {
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
pub struct Description {
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
    pub x: [Array; SUMMANDS],
    pub count: i64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Product {
    pub a: Array,
    pub b: Array,
    pub c: Array,
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
    pub from: Array,
    pub to: Array,
    pub rows: i64,
    pub cols: i64,
    pub interleave: i64,
    pub transpose: i64,
    pub pitch: i64,
    pub padded: i64,
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
pub struct Adam {
    pub beta1: f64,
    pub beta2: f64,
    pub decay: f64,
    pub step: f64,
    pub inv_sqrt_correction2: f64,
    pub ema_rate: f64,
    pub grad_scale: f64,
    pub ratio: i64,
}

macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $Type:ty),* $(,)?) -> $Result:ty;)*) => {
        /// The functions of one build of the kernels.
        #[allow(missing_docs)] // the header says what they do
        pub struct Functions {
            $(pub $name: unsafe extern "C" fn($($argument: $Type),*) -> $Result),*
        }

        functions!(@build cuda, "cuda", "trm_gpu_", $(fn $name($($argument: $Type),*) -> $Result;)*);
        functions!(@build twin, "cuda-twin", "trm_twin_", $(fn $name($($argument: $Type),*) -> $Result;)*);
    };
    (@build $module:ident, $feature:literal, $prefix:literal, $(fn $name:ident($($argument:ident: $Type:ty),*) -> $Result:ty;)*) => {
        #[cfg(feature = $feature)]
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
    fn device_describe(device: i64, description: *mut Description) -> c_int;
    fn device_use(device: i64) -> c_int;
    fn memory_free(free: *mut u64, total: *mut u64) -> c_int;
    fn allocate(data: *mut *mut c_void, bytes: usize) -> c_int;
    fn release(data: *mut c_void) -> c_int;
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

    fn fill(y: Array, value: f64, n: i64, stream: Stream) -> c_int;
    fn copy(x: Array, y: Array, n: i64, stream: Stream) -> c_int;
    fn axpy(alpha: f64, x: Array, y: Array, n: i64, stream: Stream) -> c_int;
    fn sum(x: Summands, y: Array, n: i64, stream: Stream) -> c_int;
    fn copy_runs(x: Array, x_stride: i64, y: Array, y_stride: i64, count: i64, len: i64, stream: Stream) -> c_int;
    fn add_runs(
        alpha: f64, x: Array, x_stride: i64, y: Array, y_stride: i64, count: i64, len: i64, stream: Stream,
    ) -> c_int;

    fn broadcast(table: Array, y: Array, rows: i64, width: i64, stream: Stream) -> c_int;
    fn start_states(
        start: Array, carried: Array, place: *const i32, anew: *const i32, y: Array, sequences: i64, len: i64, width: i64,
        stream: Stream,
    ) -> c_int;
    fn keep_states(y: Array, place: *const i32, carried: Array, sequences: i64, size: i64, stream: Stream) -> c_int;
    fn add_table(
        table: Array, table_len: i64, scale: f64, every: i64, x: Array, n: i64, stream: Stream,
    ) -> c_int;
    fn table_grad(
        dy: Array, n: i64, every: i64, table_len: i64, scale: f64, d_table: Sums, stream: Stream,
    ) -> c_int;
    fn embed(
        table: Array, width: i64, tokens: *const i32, sequences: i64, seq_len: i64, prefix: i64, scale: f64, y: Array,
        stream: Stream,
    ) -> c_int;
    fn embed_backward(
        dy: Array, width: i64, vocab: i64, tokens: *const i32, sequences: i64, seq_len: i64, prefix: i64, scale: f64,
        d_table: Sums, stream: Stream,
    ) -> c_int;

    fn product(product: *const Product, stream: Stream) -> c_int;

    fn add_rmsnorm(
        over: i64, h: Array, x: Array, inv_rms: Array, sequences: i64, len: i64, width: i64, stream: Stream,
    ) -> c_int;
    fn rmsnorm_backward(
        over: i64, y: Array, inv_rms: Array, d: Array, sequences: i64, len: i64, width: i64, stream: Stream,
    ) -> c_int;

    fn swiglu_hidden(gu: Array, hidden: Array, outer: i64, inner: i64, stream: Stream) -> c_int;
    fn swiglu_hidden_backward(gu: Array, d: Array, d_gu: Array, outer: i64, inner: i64, stream: Stream) -> c_int;

    fn linear_bf16(
        x: Array, w: Array, y: Array, accumulate: i64, m: i64, n: i64, k: i64, stream: Stream,
    ) -> c_int;
    fn linear_norm_fits(n: i64) -> c_int;
    fn linear_add_rmsnorm_bf16(
        x: Array, w: Array, h: Array, y: Array, inv_rms: Array, m: i64, n: i64, k: i64, stream: Stream,
    ) -> c_int;
    fn swiglu_bf16(
        x: Array, w_gate_up: Array, hidden: Array, kept: Array, m: i64, inner: i64, k: i64, stream: Stream,
    ) -> c_int;
    fn swiglu_backward_bf16(
        dy: Array, w_down_t: Array, kept: Array, d_gu: Array, hidden: Array, m: i64, inner: i64, n: i64, stream: Stream,
    ) -> c_int;
    fn weight_grad_bf16(
        dy: Array, x: Array, dw: Sums, interleaved: i64, m: i64, n_out: i64, n_in: i64, stream: Stream,
    ) -> c_int;
    fn pack(pack: *const Pack, stream: Stream) -> c_int;

    fn mix_packed_bytes(len: i64, width: i64, inner: i64) -> i64;
    fn mix_pack(gate_up: Array, down: Array, packed: *mut c_void, len: i64, inner: i64, stream: Stream) -> c_int;
    fn mix_bf16(
        x: Array, packed: *const c_void, y: Array, inv_rms: Array, sequences: i64, len: i64, width: i64, inner: i64,
        stream: Stream,
    ) -> c_int;
    fn mix_backward_input_bf16(
        x: Array, packed: *const c_void, dy: Array, dx: Array, sequences: i64, len: i64, width: i64, inner: i64,
        stream: Stream,
    ) -> c_int;
    fn mix_backward_weights_bf16(
        x: Array, packed: *const c_void, dy: Array, d_gate_up: Sums, d_down: Sums, sequences: i64, len: i64, width: i64,
        inner: i64, stream: Stream,
    ) -> c_int;

    fn rope(qkv: Array, turns: Array, inverse: i64, shape: Attention, stream: Stream) -> c_int;
    fn attention(qkv: Array, out: Array, lse: Array, shape: Attention, stream: Stream) -> c_int;
    fn attention_backward(
        qkv: Array, out: Array, lse: Array, d_out: Array, d_qkv: Array, means: Array, shape: Attention, stream: Stream,
    ) -> c_int;
    fn attention_fits(head_dim: i64) -> c_int;
    fn attention_bf16(qkv: Array, out: Array, lse: Array, shape: Attention, stream: Stream) -> c_int;
    fn attention_backward_bf16(
        qkv: Array, out: Array, lse: Array, d_out: Array, d_qkv: Array, means: Array, shape: Attention, stream: Stream,
    ) -> c_int;

    fn cross_entropy(
        softmax: i64, label_smoothing: f64, labels: *const i32, logits: Array, loss: Array, unit_grad: Array,
        sequences: i64, seq_len: i64, vocab: i64, stream: Stream,
    ) -> c_int;
    fn bce_with_logits(
        x: Array, column: i64, columns: i64, target: Array, loss: Array, unit_grad: Array, sequences: i64,
        stream: Stream,
    ) -> c_int;
    fn bce_backward(
        d_loss: Array, unit_grad: Array, column: i64, columns: i64, d_x: Array, sequences: i64, stream: Stream,
    ) -> c_int;
    fn loss_backward(
        d_loss: Array, unit_grad: Array, d_x: Array, sequences: i64, size: i64, stream: Stream,
    ) -> c_int;
    fn score(
        labels: *const i32, logits: Array, correct: Array, labelled: Array, exact: Array, sequences: i64, seq_len: i64,
        vocab: i64, stream: Stream,
    ) -> c_int;
    fn predict(logits: Array, tokens: *mut u8, rows: i64, vocab: i64, stream: Stream) -> c_int;
    fn continue_target(is_last: *const i32, q: Array, target: Array, sequences: i64, stream: Stream) -> c_int;

    fn route(logits: Array, gates: Array, rows: i64, experts: i64, per_row: i64, stream: Stream) -> c_int;
    fn route_backward(
        gates: Array, d_gates: Array, d_logits: Array, rows: i64, experts: i64, stream: Stream,
    ) -> c_int;
    fn gather(
        rows: *const i32, count: i64, x: Array, y: Array, y_rows: i64, width: i64, stream: Stream,
    ) -> c_int;
    fn scatter(rows: *const i32, count: i64, dy: Array, dx: Array, width: i64, stream: Stream) -> c_int;
    fn add_expert(
        rows: *const i32, count: i64, gates: Array, experts: i64, expert: i64, x: Array, y: Array, width: i64,
        stream: Stream,
    ) -> c_int;
    fn add_expert_backward(
        rows: *const i32, count: i64, gates: Array, experts: i64, expert: i64, dy: Array, x: Array, dx: Array,
        d_gates: Array, width: i64, stream: Stream,
    ) -> c_int;
    fn load_balance(
        picks: *const i32, weight: f64, logits: Array, loss: Array, unit_grad: Array, sequences: i64,
        rows_per_sequence: i64, experts: i64, stream: Stream,
    ) -> c_int;

    fn distance(
        before: Array, after: Array, sums: *mut f64, sequences: i64, size: i64, stream: Stream,
    ) -> c_int;
    fn residual_product(
        p_before: Array, p_after: Array, q_before: Array, q_after: Array, sums: *mut f64, sequences: i64, size: i64,
        stream: Stream,
    ) -> c_int;

    fn sum_slices(x: Array, slices: i64, stride: i64, out: Array, n: i64, stream: Stream) -> c_int;
    fn sum_squares(x: Array, n: i64, partials: *mut f64, sum: *mut f64, stream: Stream) -> c_int;
    fn adam(adam: *const Adam, p: Array, m: Array, v: Array, e: Array, g: Array, n: i64, stream: Stream) -> c_int;
}

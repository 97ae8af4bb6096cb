// The one C interface of the kernels: what `src/cuda/ffi.rs` declares again in Rust, line by line.
//
// Every function returns a status: 0, or the number of a CUDA error (`trm_error_string` says what it means). None of them
// waits for the device unless it says so; work is queued on a stream. No kernel allocates, no kernel uses atomics: every sum
// has a fixed order, so the same inputs give the same bits.
//
// The same sources are compiled twice: by nvcc (names begin with trm_gpu_) and, against host/twin.h, by any C++20 compiler
// (names begin with trm_twin_).
//
// Words used throughout: a batch has `sequences` of `len` positions; a position has `width` features. Matrices are row-major.
// Sums of products are made in f32 where operands are bf16 or f32, in f64 where they are f64.
#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef TRM_TWIN
#define TRM_API(name) trm_twin_##name
#else
#define TRM_API(name) trm_gpu_##name
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Formats of elements, by their bytes.
enum { TRM_BF16 = 2, TRM_F32 = 4, TRM_F64 = 8 };

// An array in device memory, and its format.
typedef struct {
    void *data;
    int64_t format;
} trm_array;

// Where gradients of a weight tensor are summed: one array of the tensor's shape for each slice of the batch, `stride` elements
// apart. Slice s takes `rows` rows (or sequences, where a kernel counts those) from s·rows on; the last one takes what is left.
typedef struct {
    void *data;
    int64_t format;
    int64_t stride;
    int64_t rows;
} trm_sums;

typedef void *trm_stream;

// ---- runtime.cu: devices, memory, streams, events, graphs ------------------------------------------------------------------

typedef struct {
    char name[256];
    uint64_t memory;       // bytes
    int64_t major, minor;  // compute capability
    int64_t processors;    // streaming multiprocessors
    int64_t driver;        // 1000·major + 10·minor, 0 where there is none
    int64_t runtime;
} trm_device;

const char *TRM_API(error_string)(int status);
// The driver's version alone (0: no driver): can be asked where there is none.
int TRM_API(driver_version)(int64_t *version);
int TRM_API(device_count)(int64_t *count);
int TRM_API(device_describe)(int64_t device, trm_device *description);
// Makes a device the calling thread's.
int TRM_API(device_use)(int64_t device);
int TRM_API(memory_free)(uint64_t *free, uint64_t *total);
int TRM_API(allocate)(void **data, size_t bytes);
int TRM_API(release)(void *data);
// Memory of the host that stays where it is: the device copies from and to it by itself, and neither `upload` nor `download` waits
// until it has.
int TRM_API(host_allocate)(void **data, size_t bytes);
int TRM_API(host_release)(void *data);
int TRM_API(upload)(void *to, const void *from, size_t bytes, trm_stream stream);
int TRM_API(download)(void *to, const void *from, size_t bytes, trm_stream stream);
int TRM_API(clear)(void *data, int byte, size_t bytes, trm_stream stream);
int TRM_API(stream_create)(trm_stream *stream);
// Waits until everything queued is done; says what went wrong in it.
int TRM_API(stream_wait)(trm_stream stream);
int TRM_API(event_create)(void **event);
int TRM_API(event_destroy)(void *event);
int TRM_API(event_record)(void *event, trm_stream stream);
int TRM_API(event_wait)(void *event);
// Milliseconds between two recorded events, both of which have come to pass.
int TRM_API(event_elapsed)(void *from, void *to, float *milliseconds);
// From begin to end, work on the stream is not done but remembered; launch does all of it.
int TRM_API(graph_begin)(trm_stream stream);
int TRM_API(graph_end)(trm_stream stream, void **graph);
int TRM_API(graph_launch)(void *graph, trm_stream stream);
int TRM_API(graph_destroy)(void *graph);

// ---- elementwise.cu --------------------------------------------------------------------------------------------------------

// y = value
int TRM_API(fill)(trm_array y, double value, int64_t n, trm_stream stream);
// y = x, converted where formats differ
int TRM_API(copy)(trm_array x, trm_array y, int64_t n, trm_stream stream);
// y += alpha x
int TRM_API(axpy)(double alpha, trm_array x, trm_array y, int64_t n, trm_stream stream);
// y = x[0] + x[1] + … (left to right), at most TRM_SUMMANDS of one format
enum { TRM_SUMMANDS = 9 };
typedef struct {
    trm_array x[TRM_SUMMANDS];
    int64_t count;
} trm_summands;
int TRM_API(sum)(trm_summands x, trm_array y, int64_t n, trm_stream stream);
// Run r of `count`: y[r·y_stride + i] = x[r·x_stride + i], i < len
int TRM_API(copy_runs)(trm_array x, int64_t x_stride, trm_array y, int64_t y_stride, int64_t count, int64_t len, trm_stream stream);
// … += alpha · x[…]
int TRM_API(add_runs)(double alpha, trm_array x, int64_t x_stride, trm_array y, int64_t y_stride, int64_t count, int64_t len, trm_stream stream);

// ---- tables.cu: rows that are looked up or added ---------------------------------------------------------------------------

// Every row of y [rows, width] = table [width]
int TRM_API(broadcast)(trm_array table, trm_array y, int64_t rows, int64_t width, trm_stream stream);
// States at the start of a supervision step: y[b] = start, row by row, where anew[b] is not 0, else carried[place[b]];
// y and carried are [·, len·width], start is [width].
int TRM_API(start_states)(trm_array start, trm_array carried, const int32_t *place, const int32_t *anew, trm_array y, int64_t sequences, int64_t len, int64_t width, trm_stream stream);
// carried[place[b]] = y[b], rows of `size` elements
int TRM_API(keep_states)(trm_array y, const int32_t *place, trm_array carried, int64_t sequences, int64_t size, trm_stream stream);
// x[s·every + i] += scale · table[i], i < table_len, for each stretch s of n / every
int TRM_API(add_table)(trm_array table, int64_t table_len, double scale, int64_t every, trm_array x, int64_t n, trm_stream stream);
// d_table[i] += scale · Σ stretches dy[s·every + i]; d_table.rows counts stretches
int TRM_API(table_grad)(trm_array dy, int64_t n, int64_t every, int64_t table_len, double scale, trm_sums d_table, trm_stream stream);
// y[b, prefix + s] = scale · table[tokens[b, s]], y[b, l < prefix] = 0; y [sequences, prefix + seq_len, width]
int TRM_API(embed)(trm_array table, int64_t width, const int32_t *tokens, int64_t sequences, int64_t seq_len, int64_t prefix, double scale, trm_array y, trm_stream stream);
// d_table[token] += scale · dy, in the order of the rows; d_table [vocab, width], d_table.rows counts sequences
int TRM_API(embed_backward)(trm_array dy, int64_t width, int64_t vocab, const int32_t *tokens, int64_t sequences, int64_t seq_len, int64_t prefix, double scale, trm_sums d_table, trm_stream stream);

// ---- product.cu: plain products of any format and any strides --------------------------------------------------------------

// c[z] = Σ parts p of a[z, p] b[z, p], or c[z] += …: a is m×k, b is k×n, c is m×n; strides are in elements.
typedef struct {
    trm_array a, b, c;
    int64_t m, n, k;
    int64_t a_row, a_col, b_row, b_col, c_row, c_col;
    int64_t batch, a_batch, b_batch, c_batch;  // z
    int64_t parts, a_part, b_part;             // p
    int64_t k_last, parts_last;                // k and parts of the last z
    int64_t accumulate;
} trm_product;
int TRM_API(product)(const trm_product *product, trm_stream stream);

// ---- norm.cu ---------------------------------------------------------------------------------------------------------------

enum { TRM_OVER_FEATURES = 0, TRM_OVER_POSITIONS = 1 };
// x = rmsnorm(h + x), rmsnorm(v) = v·r, r = (mean v² + 1e-5)^(−1/2), over the features of each row (inv_rms [sequences·len]) or the
// positions of each sequence (inv_rms [sequences, width]); x, h [sequences, len, width]
int TRM_API(add_rmsnorm)(int64_t over, trm_array h, trm_array x, trm_array inv_rms, int64_t sequences, int64_t len, int64_t width, trm_stream stream);
// d = r (d − y · mean(d·y)), in place
int TRM_API(rmsnorm_backward)(int64_t over, trm_array y, trm_array inv_rms, trm_array d, int64_t sequences, int64_t len, int64_t width, trm_stream stream);

// ---- swiglu.cu -------------------------------------------------------------------------------------------------------------

// Plain. Of each of `outer` stretches, gu holds `inner` gates and then `inner` ups: hidden = silu(g)·u, silu(g) = g·σ(g)
int TRM_API(swiglu_hidden)(trm_array gu, trm_array hidden, int64_t outer, int64_t inner, trm_stream stream);
// d_gu from d, the gradient of hidden: dg = d·u·σ(g)(1 + g(1 − σ(g))), du = d·g·σ(g)
int TRM_API(swiglu_hidden_backward)(trm_array gu, trm_array d, trm_array d_gu, int64_t outer, int64_t inner, trm_stream stream);

// ---- gemm.cuh, linear.cu, swiglu.cu: tensor cores, operands bf16, sums f32 -------------------------------------------------
// Widths (k, n, inner) are multiples of 8; m is anything. Weights are packed by `pack`.

// y [m, n] = x [m, k] w [n, k]ᵀ, or base + … unless base.data is null; base may be y. y and base are bf16 or f32, x and w are bf16
int TRM_API(linear_bf16)(trm_array x, trm_array w, trm_array base, trm_array y, int64_t m, int64_t n, int64_t k, trm_stream stream);
// y = x wᵀ, y being q, k and v of heads of 64 features at the positions of sequences of len; q and k rotated (see rope). Only where
// linear_rope_fits(n, k, head_dim), which depends on the device
int TRM_API(linear_rope_fits)(int64_t n, int64_t k, int64_t head_dim);
int TRM_API(linear_rope_bf16)(trm_array x, trm_array w, trm_array cos_sin, int64_t len, trm_array y, int64_t m, int64_t n, int64_t k, trm_stream stream);
// y = rmsnorm(h + x wᵀ) over rows; inv_rms [m] f32. Only where linear_norm_fits(n). Where linear_norm_sum_fits(n, k), which depends on
// the device, sum [m, n] may receive y + added[0], or (y + added[0]) + added[1], and y may then be null
int TRM_API(linear_norm_fits)(int64_t n);
int TRM_API(linear_norm_sum_fits)(int64_t n, int64_t k);
int TRM_API(linear_add_rmsnorm_bf16)(trm_array x, trm_array w, trm_array h, trm_array y, trm_array inv_rms, trm_summands added, trm_array sum, int64_t m, int64_t n, int64_t k, trm_stream stream);
// d = r (s − y · mean(s·y)) over rows, s = base + x wᵀ, y [m, n] and r (inv_rms) being what a norm has made; base may be d. Only where
// linear_norm_backward_fits(n, k), which depends on the device
int TRM_API(linear_norm_backward_fits)(int64_t n, int64_t k);
int TRM_API(linear_rmsnorm_backward_bf16)(trm_array x, trm_array w, trm_array base, trm_array y, trm_array inv_rms, trm_array d, int64_t m, int64_t n, int64_t k, trm_stream stream);
// hidden [m, inner] = silu(g)·u, columns 2i and 2i + 1 of x w_gate_upᵀ being g and u of i (w_gate_up [2·inner, k] packed
// interleaved); kept [m, 2·inner] receives the two, interleaved, unless it is null
int TRM_API(swiglu_bf16)(trm_array x, trm_array w_gate_up, trm_array hidden, trm_array kept, int64_t m, int64_t inner, int64_t k, trm_stream stream);
// With d = dy w_down (w_down_t [inner, n] packed transposed): d_gu [m, 2·inner] interleaved, and hidden again
int TRM_API(swiglu_backward_bf16)(trm_array dy, trm_array w_down_t, trm_array kept, trm_array d_gu, trm_array hidden, int64_t m, int64_t inner, int64_t n, trm_stream stream);
// dw [n_out, n_in] f32 += dyᵀ x, slice by slice of rows; with `interleaved`, column c of dy belongs to row c / 2 + c % 2 · n_out / 2
int TRM_API(weight_grad_bf16)(trm_array dy, trm_array x, trm_sums dw, int64_t interleaved, int64_t m, int64_t n_out, int64_t n_in, trm_stream stream);

// ---- narrow.cu: few outputs, x and dx bf16, everything else f32 --------------------------------------------------------------
// Only where narrow_linear_fits(n, k). w [n, k] as it lies.

int TRM_API(narrow_linear_fits)(int64_t n, int64_t k);
// y [m, n] = x [m, k] wᵀ
int TRM_API(narrow_linear)(trm_array x, trm_array w, trm_array y, int64_t m, int64_t n, int64_t k, trm_stream stream);
// dx [m, k] = dy [m, n] w, or dx += …
int TRM_API(narrow_linear_backward)(trm_array dy, trm_array w, trm_array dx, int64_t accumulate, int64_t m, int64_t n, int64_t k, trm_stream stream);
// dw [n, k] += dyᵀ x, slice by slice of rows
int TRM_API(narrow_weight_grad)(trm_array dy, trm_array x, trm_sums dw, int64_t m, int64_t n, int64_t k, trm_stream stream);

// ---- pack.cu ---------------------------------------------------------------------------------------------------------------

// A weight tensor [rows, cols] f32 as bf16 operand: `interleave` alternates the rows of the two halves (gate 0, up 0, gate 1, …), then
// `transpose` swaps rows and columns, then rows get the order of spread.cuh for `run`, which is what the product with it wants: 4 where
// swiglu_backward_bf16 multiplies, else 8. There is room up to a multiple of 32 rows, with zeros where no row goes.
typedef struct {
    trm_array from, to;
    int64_t rows, cols;
    int64_t interleave, transpose, run;
} trm_pack;
int TRM_API(pack)(const trm_pack *pack, trm_stream stream);

// ---- mix.cuh, mix_forward.cu, mix_backward.cu: SwiGLU over positions, tensor cores, operands bf16, sums f32 -----------------
// For each sequence x [len, width]: swiglu(x) = w_down (silu(G) ⊙ U), [G; U] = w_gate_up x; gate_up [2·inner, len], down [len, inner].

// Bytes of packed weights, 0 where the kernels do not take these sizes: len ≤ 128, width % 64 = 0, inner % 32 = 0. Arrays begin at multiples of 16.
int64_t TRM_API(mix_packed_bytes)(int64_t len, int64_t width, int64_t inner);
int TRM_API(mix_pack)(trm_array gate_up, trm_array down, void *packed, int64_t len, int64_t inner, trm_stream stream);
// y = rmsnorm over positions (x + swiglu(x)), inv_rms [sequences, width] f32; or y = swiglu(x) where inv_rms.data is null
int TRM_API(mix_bf16)(trm_array x, const void *packed, trm_array y, trm_array inv_rms, int64_t sequences, int64_t len, int64_t width, int64_t inner, trm_stream stream);
// dx = base + gradient of swiglu(x) for dy; base may be dx or dy; G and U are made again
int TRM_API(mix_backward_input_bf16)(trm_array x, const void *packed, trm_array dy, trm_array base, trm_array dx, int64_t sequences, int64_t len, int64_t width, int64_t inner, trm_stream stream);
// gradients of both weights, in the plain layout, += ; rows of the sums count sequences
int TRM_API(mix_backward_weights_bf16)(trm_array x, const void *packed, trm_array dy, trm_sums d_gate_up, trm_sums d_down, int64_t sequences, int64_t len, int64_t width, int64_t inner, trm_stream stream);

// ---- attention.cu, attention_bf16.cu, attention_short.cu ---------------------------------------------------------------------
// qkv [sequences·len, 3·heads·head_dim]: q of all heads, then k, then v.

typedef struct {
    int64_t sequences, len, heads, head_dim;
} trm_attention;
// Pairs (i, i + head_dim/2) of q and k at position l turn by the angle whose cosine and sine are cos_sin[l, i, 0 … 1]; back with `inverse`
int TRM_API(rope)(trm_array qkv, trm_array cos_sin, int64_t inverse, trm_attention shape, trm_stream stream);
// out [sequences·len, heads·head_dim] = softmax(q kᵀ/√head_dim) v; lse [sequences·heads, len] = logarithm of the sum of exponentials.
// Every device takes head_dim up to 512 in f64 and 1024 in other formats, some take more.
int TRM_API(attention)(trm_array qkv, trm_array out, trm_array lse, trm_attention shape, trm_stream stream);
// d_qkv is overwritten (not yet turned back); `means` [sequences·heads, len] is scratch of lse's format
int TRM_API(attention_backward)(trm_array qkv, trm_array out, trm_array lse, trm_array d_out, trm_array d_qkv, trm_array means, trm_attention shape, trm_stream stream);
// The same on tensor cores; lse and means f32, the rest bf16. Only where attention_fits(head_dim). The gradients of q and k are
// turned back by cos_sin, f32, unless its data is null.
int TRM_API(attention_fits)(int64_t head_dim);
int TRM_API(attention_bf16)(trm_array qkv, trm_array out, trm_array lse, trm_attention shape, trm_stream stream);
int TRM_API(attention_backward_bf16)(trm_array qkv, trm_array cos_sin, trm_array out, trm_array lse, trm_array d_out, trm_array d_qkv, trm_array means, trm_attention shape, trm_stream stream);
// The same for short sequences. Only where attention_short_fits: len ≤ 128, head_dim ≤ 64. q and k turn inside, qkv stays as it was.
// Backward they turn only with `turns`; their gradients turn back either way.
int TRM_API(attention_short_fits)(int64_t len, int64_t head_dim);
int TRM_API(attention_short)(trm_array qkv, trm_array cos_sin, trm_array out, trm_array lse, trm_attention shape, trm_stream stream);
int TRM_API(attention_short_backward)(trm_array qkv, trm_array cos_sin, int64_t turns, trm_array out, trm_array lse, trm_array d_out, trm_array d_qkv, trm_attention shape, trm_stream stream);

// ---- losses.cu: losses and metrics, one element a sequence; labels below 0 are not counted ---------------------------------

// loss[b] = Σ nll / max(1, labelled), in f64 inside; unit_grad, of the logits' shape, receives its gradient. softmax: 0 is stablemax
int TRM_API(cross_entropy)(int64_t softmax, double label_smoothing, const int32_t *labels, trm_array logits, trm_array loss, trm_array unit_grad, int64_t sequences, int64_t seq_len, int64_t vocab, trm_stream stream);
// loss[b] = max(q, 0) − q·t + ln(1 + e^(−|q|)), q = x[b, column]; unit_grad[b] = σ(q) − t
int TRM_API(bce_with_logits)(trm_array x, int64_t column, int64_t columns, trm_array target, trm_array loss, trm_array unit_grad, int64_t sequences, trm_stream stream);
// d_x[b, column] += d_loss[b] · unit_grad[b]
int TRM_API(bce_backward)(trm_array d_loss, trm_array unit_grad, int64_t column, int64_t columns, trm_array d_x, int64_t sequences, trm_stream stream);
// d_x[b, i] += d_loss[b] · unit_grad[b, i], i < size
int TRM_API(loss_backward)(trm_array d_loss, trm_array unit_grad, trm_array d_x, int64_t sequences, int64_t size, trm_stream stream);
// correct, labelled and exact of each sequence; the token of a row is the first of its largest logits
int TRM_API(score)(const int32_t *labels, trm_array logits, trm_array correct, trm_array labelled, trm_array exact, int64_t sequences, int64_t seq_len, int64_t vocab, trm_stream stream);
int TRM_API(predict)(trm_array logits, uint8_t *tokens, int64_t rows, int64_t vocab, trm_stream stream);
// target[b] = σ(is_last[b] ? q[b, 0] : max(q[b, 0], q[b, 1]))
int TRM_API(continue_target)(const int32_t *is_last, trm_array q, trm_array target, int64_t sequences, trm_stream stream);

// ---- experts.cu ------------------------------------------------------------------------------------------------------------

// gates[r, e] = softmax over the per_row largest of logits[r] (of equals the first is larger), 0 elsewhere, at least the smallest f32 where chosen
int TRM_API(route)(trm_array logits, trm_array gates, int64_t rows, int64_t experts, int64_t per_row, trm_stream stream);
// d_logits[e] += g[e] (dg[e] − Σ g·dg)
int TRM_API(route_backward)(trm_array gates, trm_array d_gates, trm_array d_logits, int64_t rows, int64_t experts, trm_stream stream);
// y[p] = x[rows[p]], p < count, then zeros up to y_rows
int TRM_API(gather)(const int32_t *rows, int64_t count, trm_array x, trm_array y, int64_t y_rows, int64_t width, trm_stream stream);
// dx[rows[p]] += dy[p]; rows are distinct
int TRM_API(scatter)(const int32_t *rows, int64_t count, trm_array dy, trm_array dx, int64_t width, trm_stream stream);
// y[rows[p]] += gates[rows[p], expert] · x[p]
int TRM_API(add_expert)(const int32_t *rows, int64_t count, trm_array gates, int64_t experts, int64_t expert, trm_array x, trm_array y, int64_t width, trm_stream stream);
// dx[p] += gate · dy[rows[p]] (unless dx.data is null), d_gates[rows[p], expert] += dy[rows[p]]·x[p] (unless d_gates.data is null)
int TRM_API(add_expert_backward)(const int32_t *rows, int64_t count, trm_array gates, int64_t experts, int64_t expert, trm_array dy, trm_array x, trm_array dx, trm_array d_gates, int64_t width, trm_stream stream);
// loss[b] = weight · E · Σ f[e]·P[e], f = picks[b, e] / Σ picks[b], P the mean of softmax(logits); unit_grad its gradient
int TRM_API(load_balance)(const int32_t *picks, double weight, trm_array logits, trm_array loss, trm_array unit_grad, int64_t sequences, int64_t rows_per_sequence, int64_t experts, trm_stream stream);

// ---- fixed_point.cu --------------------------------------------------------------------------------------------------------

// sums[b] = (‖after − before‖², ‖after‖²) of each sequence of `size` elements, f64
int TRM_API(distance)(trm_array before, trm_array after, double *sums, int64_t sequences, int64_t size, trm_stream stream);
// sums[b] = Σ (p_after − p_before)(q_after − q_before), f64
int TRM_API(residual_product)(trm_array p_before, trm_array p_after, trm_array q_before, trm_array q_after, double *sums, int64_t sequences, int64_t size, trm_stream stream);

// ---- optimizer.cu ----------------------------------------------------------------------------------------------------------

// out[i] = Σ slices x[s·stride + i], in a binary tree: pairs of neighbours first, then pairs of those; an odd one waits
int TRM_API(sum_slices)(trm_array x, int64_t slices, int64_t stride, trm_array out, int64_t n, trm_stream stream);
// *sum = Σ x², f64; partials has room for 1024 f64
int TRM_API(sum_squares)(trm_array x, int64_t n, double *partials, double *sum, trm_stream stream);
// m += (1 − β1)(g' − m), v += (1 − β2)(g'² − v), g' = grad_scale·g, d = √v·inv_sqrt_correction2; p = decay·p − step·atan2(m, d), or with `ratio`
// m / (d + 1e-8); e = ema_rate·e + (1 − ema_rate) p. All of one format, f32 or f64.
typedef struct {
    double beta1, beta2, decay, step, inv_sqrt_correction2, ema_rate, grad_scale;
    int64_t ratio;
} trm_adam;
// A weight tensor [rows, cols]: its values p, what they are of the flat arrays m, v, e and g (the elements from `first` on), and the two forms
// that tensor cores read, as `pack` makes them (the first with a run of 8), where it has them (else null).
typedef struct {
    trm_array p;
    int64_t first, rows, cols, interleave, transposed_run;
    void *packed, *transposed;
} trm_tensor;
enum { TRM_TENSORS = 32 };
typedef struct {
    trm_tensor of[TRM_TENSORS];
    int64_t count;
} trm_tensors;
int TRM_API(adam)(const trm_adam *adam, const trm_tensors *tensors, trm_array m, trm_array v, trm_array e, trm_array g, trm_stream stream);

// ---- limit.cu: what the device can do at most ------------------------------------------------------------------------------

// `blocks` blocks make `rounds` rounds of multiply-adds on registers: on tensor cores for bf16, else in the FMA units.
// counts[b], unless counts is null, receives how many block b made, exactly while they are few (no element of a sum reaches 2^24)
int TRM_API(multiply_limit)(int64_t format, int64_t blocks, int64_t rounds, double *counts, trm_stream stream);
// Multiply-adds of a block in a round
int64_t TRM_API(multiply_limit_round)(int64_t format);
// y = x, a multiple of 16 bytes
int TRM_API(copy_limit)(const void *x, void *y, int64_t bytes, trm_stream stream);

#ifdef __cplusplus
}
#endif

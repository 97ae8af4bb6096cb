// What happens to the gradients of all weights: slices of the batch are summed, their norm is taken, Adam makes its step.
//
//   sum_slices   out[i] = Σ slices x[s·stride + i], in a binary tree: pairs of neighbours, then pairs of those; an odd one waits
//   sum_squares  Σ x², in f64
//   adam         g' = grad_scale·g,  m += (1 − β1)(g' − m),  v += (1 − β2)(g'² − v),  d = √v·inv_sqrt_correction2
//                p = decay·p − step·atan2(m, d), or with `ratio` m / (d + 1e-8);  e = ema_rate·e + (1 − ema_rate) p;
//                in the same sweep the forms of p that tensor cores read
#include "spread.cuh"

namespace {
constexpr int THREADS = 256;

__device__ __forceinline__ float root(float x) { return sqrtf(x); }
__device__ __forceinline__ double root(double x) { return sqrt(x); }
__device__ __forceinline__ float angle(float y, float x) { return atan2f(y, x); }
__device__ __forceinline__ double angle(double y, double x) { return atan2(y, x); }

// ---- Sum over slices -------------------------------------------------------------------------------------------------------

// AT_ONCE slices are loaded together and summed in their part of the tree. The sums of groups go into the rest of it as in
// counting: level l of `waiting` holds the sum of 2^l groups where bit l of their number so far is set, and one more carries
// over.
constexpr int AT_ONCE = 8, LEVELS = 12;

template <class S>
__global__ void __launch_bounds__(THREADS) sum_slices_elements(const S *x, int slices, int64_t stride, S *out, int64_t n) {
    const int64_t i = dev::thread_index();
    if (i >= n) return;
    const int groups = (slices + AT_ONCE - 1) / AT_ONCE;
    S waiting[LEVELS] = {};
    for (int group = 0; group < groups; group++) {
        const int first = group * AT_ONCE;
        S part[AT_ONCE];
#pragma unroll
        for (int s = 0; s < AT_ONCE; s++) part[s] = first + s < slices ? x[(first + s) * stride + i] : S(0);
#pragma unroll
        for (int by = 1; by < AT_ONCE; by *= 2)
#pragma unroll
            for (int s = 0; s + by < AT_ONCE; s += 2 * by)
                if (first + s + by < slices) part[s] += part[s + by];
        S sum = part[0];
        bool carries = true;
#pragma unroll
        for (int l = 0; l < LEVELS; l++) {
            if (!carries) continue;
            carries = group >> l & 1;
            if (carries)
                sum = waiting[l] + sum;
            else
                waiting[l] = sum;
        }
    }
    // What still waits has no neighbour of its size: the smallest are summed first.
    S total = 0;
    bool any = false;
#pragma unroll
    for (int l = 0; l < LEVELS; l++) {
        if (!(groups >> l & 1)) continue;
        total = any ? waiting[l] + total : waiting[l];
        any = true;
    }
    out[i] = total;
}

// ---- Sum of squares --------------------------------------------------------------------------------------------------------

// As many blocks as give each thread EACH elements, at most PARTIALS; a block leaves one sum, and a second launch of one block
// adds them.
constexpr int EACH = 8, PARTIALS = 1024;

template <class T> __global__ void __launch_bounds__(THREADS) sum_squares_partials(const T *x, int64_t n, double *partials) {
    __shared__ double warps[THREADS / 32];
    const int64_t all = (int64_t)gridDim.x * THREADS;
    double sum = 0;
#pragma unroll 8
    for (int64_t i = dev::thread_index(); i < n; i += all) {
        const double value = dev::get(x + i);
        sum += value * value;
    }
    sum = dev::block_sum<THREADS>(sum, warps);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(THREADS) sum_partials(const double *partials, int count, double *result) {
    __shared__ double warps[THREADS / 32];
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += partials[i];
    sum = dev::block_sum<THREADS>(sum, warps);
    if (threadIdx.x == 0) *result = sum;
}

// ---- Adam ------------------------------------------------------------------------------------------------------------------

// A block has 32×32 cells of a tensor: 8 warps, four rows each. The forms that tensor cores read are written in the same sweep. The
// transposed one goes through shared memory, so that both reading and writing go along rows.
constexpr int TILE = 32, WARPS = THREADS / 32;

// The tensors of a launch, their first blocks, and the runs of their two forms (spread.cuh).
struct Sweep {
    trm_tensors tensors;
    int64_t first_block[TRM_TENSORS + 1];
    struct {
        int packed, transposed;
    } runs[TRM_TENSORS];
};

template <bool RATIO, class S>
__global__ void __launch_bounds__(THREADS)
    adam_tiles(const __grid_constant__ trm_adam c, const __grid_constant__ Sweep sweep, S *__restrict__ m, S *__restrict__ v,
               S *__restrict__ e, const S *__restrict__ g) {
    __shared__ float tile[TILE][TILE + 1]; // one more, so that the cells of a column lie in different banks
    int number = 0;
    while (blockIdx.x >= sweep.first_block[number + 1]) number++;
    const trm_tensor &tensor = sweep.tensors.of[number];
    const int64_t rows = tensor.rows, cols = tensor.cols;
    const auto [down, across] = dev::divide(blockIdx.x - sweep.first_block[number], (cols + TILE - 1) / TILE);
    const int64_t top = down * TILE, left = across * TILE;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // Where a row of the tensor is among those of the forms, before they are spread.
    auto place = [&](int64_t row) { return !tensor.interleave ? row : row < rows / 2 ? 2 * row : 2 * (row - rows / 2) + 1; };
    S *const p = (S *)tensor.p.data;
#pragma unroll
    for (int k = 0; k < TILE / WARPS; k++) {
        const int64_t row = top + warp + k * WARPS, col = left + lane;
        if (row >= rows || col >= cols) continue;
        const int64_t at = row * cols + col, i = tensor.first + at;
        const S grad = g[i] * (S)c.grad_scale;
        const S first = m[i] + (1 - (S)c.beta1) * (grad - m[i]);
        const S second = v[i] + (1 - (S)c.beta2) * (grad * grad - v[i]);
        const S d = root(second) * (S)c.inv_sqrt_correction2;
        const S direction = RATIO ? first / (d + (S)1e-8) : angle(first, d);
        const S weight = p[at] * (S)c.decay - (S)c.step * direction;
        m[i] = first;
        v[i] = second;
        p[at] = weight;
        e[i] = (S)c.ema_rate * e[i] + (1 - (S)c.ema_rate) * weight;
        if (!tensor.packed) continue;
        dev::set((bf16 *)tensor.packed + spread_place(place(row), sweep.runs[number].packed) * cols + col, (float)weight);
        tile[lane][warp + k * WARPS] = (float)weight;
    }
    if (!tensor.packed) return;
    __syncthreads();
    const int64_t row = top + lane;
#pragma unroll
    for (int k = 0; k < TILE / WARPS; k++) {
        const int64_t col = left + warp + k * WARPS;
        if (row < rows && col < cols)
            dev::set((bf16 *)tensor.transposed + spread_place(col, sweep.runs[number].transposed) * rows + place(row),
                     tile[warp + k * WARPS][lane]);
    }
}
} // namespace

extern "C" {
int TRM_API(sum_slices)(trm_array x, int64_t slices, int64_t stride, trm_array out, int64_t n, trm_stream stream) {
    if (x.format != out.format || slices < 0 || slices > ((int64_t)AT_ONCE << LEVELS) - AT_ONCE) return 1;
    if (n <= 0) return 0;
    return with_sum_format(x.format, [&](auto of_x) {
        typedef decltype(of_x) S;
        return TRM_LAUNCH((sum_slices_elements<S>), blocks_for(n, THREADS), THREADS, 0, stream, (const S *)x.data, (int)slices,
                          stride, (S *)out.data, n);
    });
}

int TRM_API(sum_squares)(trm_array x, int64_t n, double *partials, double *sum, trm_stream stream) {
    const int64_t wanted = n > 0 ? (n + THREADS * EACH - 1) / (THREADS * EACH) : 0;
    const int blocks = (int)(wanted < PARTIALS ? wanted : PARTIALS);
    if (blocks > 0) {
        const int status = with_format(x.format, [&](auto of_x) {
            typedef decltype(of_x) T;
            return TRM_LAUNCH((sum_squares_partials<T>), blocks, THREADS, 0, stream, (const T *)x.data, n, partials);
        });
        if (status) return status;
    }
    return TRM_LAUNCH(sum_partials, 1, THREADS, 0, stream, partials, blocks, sum);
}

int TRM_API(adam)(const trm_adam *adam, const trm_tensors *tensors, trm_array m, trm_array v, trm_array e, trm_array g,
                  trm_stream stream) {
    if (tensors->count < 0 || tensors->count > TRM_TENSORS || m.format != g.format || v.format != g.format || e.format != g.format)
        return 1;
    Sweep sweep = {*tensors, {}, {}};
    int64_t blocks = 0;
    for (int t = 0; t < TRM_TENSORS; t++) {
        sweep.first_block[t] = blocks;
        if (t >= tensors->count) continue;
        const trm_tensor &w = tensors->of[t];
        if (w.p.format != g.format || !w.packed != !w.transposed || (w.interleave && w.rows % 2)) return 1;
        sweep.runs[t] = {packed_run(w.rows, w.cols, 8), packed_run(w.cols, w.rows, w.transposed_run)};
        blocks += (w.rows + TILE - 1) / TILE * ((w.cols + TILE - 1) / TILE);
    }
    sweep.first_block[TRM_TENSORS] = blocks;
    if (blocks == 0) return 0;
    if (blocks > INT32_MAX) return 1;
    return with_sum_format(g.format, [&](auto of_g) {
        typedef decltype(of_g) S;
        const auto kernel = adam->ratio ? adam_tiles<true, S> : adam_tiles<false, S>;
        return TRM_LAUNCH(kernel, (unsigned)blocks, THREADS, 0, stream, *adam, sweep, (S *)m.data, (S *)v.data, (S *)e.data,
                          (const S *)g.data);
    });
}
}

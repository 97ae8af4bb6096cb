// Linear maps to a few numbers, like those of the heads and of routers: y = x wᵀ with at most MOST rows of w. x and its gradient
// are bf16, everything else is f32:
//
//     narrow_linear            y [m, n]  = x [m, k] wᵀ
//     narrow_linear_backward   dx [m, k] = dy [m, n] w,  or dx += …
//     narrow_weight_grad       dw [n, k] += dyᵀ x, slice by slice of the rows
//
// There is next to nothing to multiply: what takes time is to read x, or to write dx. So a warp has 256 neighbours of a row at a
// time, 8 a lane, and ROWS rows, for which it reads w from shared memory once. Sums over k go over a lane's elements first, then
// over lanes; sums over rows over those of a slice that a warp has (every sixteenth), then over warps. So neither depends on how
// many rows or slices there are.
#include "device.cuh"

namespace {
constexpr int MOST = 16, WARPS = 8, ROWS = 4, PACK = 8, SPAN = 32 * PACK;
// Of w in shared memory, which every device has without being asked for more.
constexpr int MOST_BYTES = 48 << 10;

// w in shared memory. A lane's 8 elements lie in two halves, each beside those of its neighbours.
struct Weights {
    float *data;
    int pitch; // k, up to a multiple of SPAN

    __device__ Weights(unsigned char *shared, const float *w, int n, int k) : data((float *)shared), pitch((k + SPAN - 1) / SPAN * SPAN) {
        for (int j = 0; j < n; j++)
            for (int i = threadIdx.x; i < pitch; i += blockDim.x) {
                const int lane = i % SPAN / PACK, half = i % PACK / 4;
                data[j * pitch + i / SPAN * SPAN + (half * 32 + lane) * 4 + i % 4] = i < k ? w[j * k + i] : 0.0f;
            }
        __syncthreads();
    }
    // Of row j, the calling lane's elements of the span that begins at `start`.
    __device__ __forceinline__ void load(float (&to)[PACK], int j, int start) const {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const dev::Pack<float, 4> pack = *(const dev::Pack<float, 4> *)(data + j * pitch + start + (half * 32 + lane) * 4);
#pragma unroll
            for (int e = 0; e < 4; e++) to[half * 4 + e] = pack.of[e];
        }
    }
};

__global__ void __launch_bounds__(WARPS * 32)
    linear(const bf16 *__restrict__ x, const float *__restrict__ w, float *__restrict__ y, int64_t m, int n, int k) {
    TRM_SHARED(shared);
    const Weights weights(shared, w, n, k);
    const int lane = threadIdx.x % 32;
    for (int64_t row = dev::thread_index() / 32 * ROWS; row < m; row += (int64_t)gridDim.x * WARPS * ROWS) {
        float sum[ROWS][MOST] = {};
        for (int start = 0; start < k; start += SPAN) {
            float from[ROWS][PACK] = {}, of_w[PACK];
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                if (row + r < m && start + lane * PACK < k) dev::load(from[r], x + (row + r) * k + start + lane * PACK);
#pragma unroll
            for (int j = 0; j < MOST; j++) {
                if (j >= n) break;
                weights.load(of_w, j, start);
#pragma unroll
                for (int r = 0; r < ROWS; r++)
#pragma unroll
                    for (int e = 0; e < PACK; e++) sum[r][j] += from[r][e] * of_w[e];
            }
        }
#pragma unroll
        for (int j = 0; j < MOST; j++) {
            if (j >= n) break;
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                const float total = dev::warp_sum(sum[r][j]);
                if (lane == j && row + r < m) y[(row + r) * n + j] = total;
            }
        }
    }
}

template <bool ACCUMULATE>
__global__ void __launch_bounds__(WARPS * 32)
    linear_backward(const float *__restrict__ dy, const float *__restrict__ w, bf16 *__restrict__ dx, int64_t m, int n, int k) {
    TRM_SHARED(shared);
    const Weights weights(shared, w, n, k);
    const int lane = threadIdx.x % 32;
    for (int64_t row = dev::thread_index() / 32 * ROWS; row < m; row += (int64_t)gridDim.x * WARPS * ROWS) {
        // Lane j has the j-th number of each row.
        float own[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; r++) own[r] = row + r < m && lane < n ? dy[(row + r) * n + lane] : 0.0f;
        for (int start = 0; start < k; start += SPAN) {
            const bool inside = start + lane * PACK < k;
            bf16 *const to = dx + row * k + start + lane * PACK;
            float sum[ROWS][PACK] = {}, of_w[PACK];
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                if (ACCUMULATE && inside && row + r < m) dev::load(sum[r], to + r * k);
            for (int j = 0; j < n; j++) {
                weights.load(of_w, j, start);
#pragma unroll
                for (int r = 0; r < ROWS; r++) {
                    const float d = __shfl_sync(~0u, own[r], j);
#pragma unroll
                    for (int e = 0; e < PACK; e++) sum[r][e] += d * of_w[e];
                }
            }
#pragma unroll
            for (int r = 0; r < ROWS; r++)
                if (inside && row + r < m) dev::store(to + r * k, sum[r]);
        }
    }
}

// Block (i, s) has columns 32·EACH·i … of slice s, EACH a lane.
template <int EACH>
__global__ void __launch_bounds__(2 * WARPS * 32)
    weight_grad(const float *__restrict__ dy, const bf16 *__restrict__ x, trm_sums dw, int64_t m, int n, int k) {
    constexpr int OF_BLOCK = 2 * WARPS, AHEAD = 4;
    __shared__ float partial[OF_BLOCK][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = (blockIdx.x * 32 + lane) * EACH;
    const int64_t first = blockIdx.y * dw.rows, end = first + dw.rows < m ? first + dw.rows : m;
    float sum[MOST][EACH] = {};
    for (int64_t row = first + warp; row < end; row += OF_BLOCK * AHEAD) {
        float from[AHEAD][EACH] = {}, own[AHEAD];
#pragma unroll
        for (int a = 0; a < AHEAD; a++) {
            const int64_t at = row + a * OF_BLOCK;
            own[a] = at < end && lane < n ? dy[at * n + lane] : 0.0f;
            if (at < end && column < k) dev::load(from[a], x + at * k + column);
        }
#pragma unroll
        for (int a = 0; a < AHEAD; a++)
#pragma unroll
            for (int j = 0; j < MOST; j++) {
                if (j >= n) break;
                const float d = __shfl_sync(~0u, own[a], j);
#pragma unroll
                for (int e = 0; e < EACH; e++) sum[j][e] += d * from[a][e];
            }
    }
    float *const to = (float *)dw.data + blockIdx.y * dw.stride + column;
#pragma unroll
    for (int j = 0; j < MOST; j++) {
        if (j >= n) break;
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            const float total = dev::sum_over_warps<OF_BLOCK>(sum[j][e], partial);
            if (warp == 0 && column < k) to[(int64_t)j * k + e] += total;
        }
    }
}

int shared_bytes(int64_t n, int64_t k) { return (int)(n * ((k + SPAN - 1) / SPAN * SPAN) * 4); }
// As many as are busy at once: each reads all of w.
dim3 blocks_of(int64_t m) {
    const int64_t wanted = (m + WARPS * ROWS - 1) / (WARPS * ROWS), most = 2 * dev::processors();
    return dim3((unsigned)(wanted < most ? wanted : most));
}
} // namespace

extern "C" {
int TRM_API(narrow_linear_fits)(int64_t n, int64_t k) {
    return n > 0 && n <= MOST && k > 0 && k <= MOST_BYTES && k % PACK == 0 && shared_bytes(n, k) <= MOST_BYTES;
}

int TRM_API(narrow_linear)(trm_array x, trm_array w, trm_array y, int64_t m, int64_t n, int64_t k, trm_stream stream) {
    if (m == 0) return 0;
    if (!TRM_API(narrow_linear_fits)(n, k) || x.format != TRM_BF16 || w.format != TRM_F32 || y.format != TRM_F32 || !aligned<PACK>(x))
        return 1;
    return TRM_LAUNCH(linear, blocks_of(m), dim3(WARPS * 32), shared_bytes(n, k), stream, (const bf16 *)x.data, (const float *)w.data,
                      (float *)y.data, m, (int)n, (int)k);
}

int TRM_API(narrow_linear_backward)(trm_array dy, trm_array w, trm_array dx, int64_t accumulate, int64_t m, int64_t n, int64_t k,
                                    trm_stream stream) {
    if (m == 0) return 0;
    if (!TRM_API(narrow_linear_fits)(n, k) || dy.format != TRM_F32 || w.format != TRM_F32 || dx.format != TRM_BF16 || !aligned<PACK>(dx))
        return 1;
    const auto kernel = accumulate ? linear_backward<true> : linear_backward<false>;
    return TRM_LAUNCH(kernel, blocks_of(m), dim3(WARPS * 32), shared_bytes(n, k), stream, (const float *)dy.data, (const float *)w.data,
                      (bf16 *)dx.data, m, (int)n, (int)k);
}

int TRM_API(narrow_weight_grad)(trm_array dy, trm_array x, trm_sums dw, int64_t m, int64_t n, int64_t k, trm_stream stream) {
    constexpr int EACH = 4;
    if (m == 0) return 0;
    if (!TRM_API(narrow_linear_fits)(n, k) || dy.format != TRM_F32 || x.format != TRM_BF16 || dw.format != TRM_F32 || dw.rows < 1 ||
        !aligned<EACH>(x))
        return 1;
    const int64_t slices = (m + dw.rows - 1) / dw.rows;
    if (slices > 65535) return 1;
    return TRM_LAUNCH(weight_grad<EACH>, dim3(blocks_for(k, 32 * EACH), (unsigned)slices), dim3(2 * WARPS * 32), 0, stream,
                      (const float *)dy.data, (const bf16 *)x.data, dw, m, (int)n, (int)k);
}
}

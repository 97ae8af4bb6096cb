// RMSNorm without weights, after a residual:
//
//   forward    v = h + x,  r = (mean v² + 1e-5)^(−1/2),  x = v·r
//   backward   d = r (d − y·mean(d·y)),  y and r being what the forward pass has made
//
// Both are the same walk along an axis: the mean of a term over the axis, then a new value for each element. With a and b
// standing for h and x, or for y and d, the term is (a + b)² or a·b, and b is what changes. Elements are read again for the
// second half: they are in a cache, and sums in the precision of sum_t come out the same.
//
// Over features the axis is a row, and a warp has a row. Over positions it is a column of a sequence, and a block has as many
// columns as its lanes hold, every eighth position a warp. Neither order of summation depends on how many rows or sequences
// there are, or on whether elements can be loaded side by side.
#include "device.cuh"

namespace {
constexpr int WARPS = 8;

__device__ __forceinline__ float inverse_root(float x) { return 1.0f / sqrtf(x); }
__device__ __forceinline__ double inverse_root(double x) { return 1.0 / sqrt(x); }

template <bool BACKWARD, class S> __device__ __forceinline__ S term(S a, S b) { return BACKWARD ? a * b : (a + b) * (a + b); }
template <bool BACKWARD, class S> __device__ __forceinline__ S changed(S a, S b, S mean, S r) {
    return BACKWARD ? r * (b - a * mean) : (a + b) * r;
}
// r, which the forward pass makes and the backward pass reads; `mine` is set for the one thread that keeps it.
template <bool BACKWARD, class S> __device__ __forceinline__ S factor(S mean, S *inv_rms, bool mine) {
    if (BACKWARD) return *inv_rms;
    const S r = inverse_root(mean + (S)1e-5);
    if (mine) *inv_rms = r;
    return r;
}

// Lane l has PACK elements from PACK·(l + 32 i) on of a row, and a sum for each. They are loaded at once where ALIGNED, else
// one by one, with zeros beyond the end of the row.
template <bool ALIGNED, int PACK, class T>
__device__ __forceinline__ void load_part(sum_t<T> (&x)[PACK], const T *row, int64_t i, int64_t width) {
    if constexpr (ALIGNED)
        dev::load(x, row + i);
    else
        for (int e = 0; e < PACK; e++) x[e] = i + e < width ? dev::get(row + i + e) : sum_t<T>(0);
}
template <bool ALIGNED, int PACK, class T>
__device__ __forceinline__ void store_part(T *row, const sum_t<T> (&x)[PACK], int64_t i, int64_t width) {
    if constexpr (ALIGNED)
        dev::store(row + i, x);
    else
        for (int e = 0; e < PACK && i + e < width; e++) dev::set(row + i + e, x[e]);
}

template <bool BACKWARD, bool ALIGNED, class T>
__global__ void __launch_bounds__(WARPS * 32)
    over_features(const T *__restrict__ a, T *__restrict__ b, sum_t<T> *inv_rms, int64_t rows, int64_t width) {
    typedef sum_t<T> S;
    constexpr int PACK = in_16_bytes<T>();
    const int64_t row = dev::thread_index() / 32, first = threadIdx.x % 32 * PACK;
    if (row >= rows) return;
    a += row * width;
    b += row * width;
    S x[PACK], y[PACK], sum[PACK] = {};
#pragma unroll 2
    for (int64_t i = first; i < width; i += 32 * PACK) {
        load_part<ALIGNED>(x, a, i, width);
        load_part<ALIGNED>(y, b, i, width);
        for (int e = 0; e < PACK; e++) sum[e] += term<BACKWARD>(x[e], y[e]);
    }
#pragma unroll
    for (int by = PACK / 2; by > 0; by /= 2)
        for (int e = 0; e < by; e++) sum[e] += sum[e + by];
    const S mean = dev::warp_sum(sum[0]) / (S)width;
    const S r = factor<BACKWARD>(mean, inv_rms + row, threadIdx.x % 32 == 0);
    for (int64_t i = first; i < width; i += 32 * PACK) {
        load_part<ALIGNED>(x, a, i, width);
        load_part<ALIGNED>(y, b, i, width);
        for (int e = 0; e < PACK; e++) y[e] = changed<BACKWARD>(x[e], y[e], mean, r);
        store_part<ALIGNED>(b, y, i, width);
    }
}

// A lane has EACH neighbouring columns. It goes through its positions BATCH at a time, so that their loads are on their way
// together.
template <bool BACKWARD, int EACH, class T>
__global__ void __launch_bounds__(WARPS * 32)
    over_positions(const T *__restrict__ a, T *__restrict__ b, sum_t<T> *inv_rms, int64_t len, int64_t width, int64_t blocks) {
    typedef sum_t<T> S;
    constexpr int BATCH = 4;
    __shared__ S partial[WARPS][32];
    const int warp = threadIdx.x / 32;
    const int64_t sequence = blockIdx.x / blocks, column = (blockIdx.x % blocks * 32 + threadIdx.x % 32) * EACH;
    a += sequence * len * width + column;
    b += sequence * len * width + column;
    inv_rms += sequence * width + column;
    const int64_t end = column < width ? len : 0;
    auto each_position = [&](auto work) {
        for (int64_t start = warp; start < end; start += WARPS * BATCH) {
            S x[BATCH][EACH], y[BATCH][EACH];
#pragma unroll
            for (int k = 0; k < BATCH; k++) {
                const int64_t l = start + k * WARPS;
                if (l >= end) continue;
                dev::load(x[k], a + l * width);
                dev::load(y[k], b + l * width);
            }
#pragma unroll
            for (int k = 0; k < BATCH; k++)
                if (start + k * WARPS < end) work(x[k], y[k], b + (start + k * WARPS) * width);
        }
    };
    S mean[EACH] = {}, r[EACH] = {};
    each_position([&](const S(&x)[EACH], const S(&y)[EACH], T *) {
        for (int e = 0; e < EACH; e++) mean[e] += term<BACKWARD>(x[e], y[e]);
    });
    for (int e = 0; e < EACH; e++) {
        mean[e] = dev::sum_over_warps<WARPS>(mean[e], partial) / (S)len;
        if (column < width) r[e] = factor<BACKWARD>(mean[e], inv_rms + e, warp == 0);
    }
    each_position([&](const S(&x)[EACH], S(&y)[EACH], T *to) {
        for (int e = 0; e < EACH; e++) y[e] = changed<BACKWARD>(x[e], y[e], mean[e], r[e]);
        dev::store(to, y);
    });
}

template <bool BACKWARD>
int launch(int64_t over, trm_array a, trm_array b, trm_array inv_rms, int64_t sequences, int64_t len, int64_t width,
           trm_stream stream) {
    if (a.format != b.format || (over != TRM_OVER_FEATURES && over != TRM_OVER_POSITIONS)) return 1;
    if (sequences <= 0 || len <= 0 || width <= 0) return 0;
    return with_format(b.format, [&](auto of_b) {
        typedef decltype(of_b) T;
        typedef sum_t<T> S;
        if (inv_rms.format != (int64_t)sizeof(S)) return 1;
        if (over == TRM_OVER_FEATURES) {
            constexpr int PACK = in_16_bytes<T>();
            const int64_t rows = sequences * len;
            return with_packs<PACK>(width % PACK == 0 && aligned<PACK>(a) && aligned<PACK>(b), [&](auto each) {
                constexpr bool ALIGNED = decltype(each)::value > 1;
                return TRM_LAUNCH((over_features<BACKWARD, ALIGNED, T>), blocks_for(rows, WARPS), WARPS * 32, 0, stream,
                                  (const T *)a.data, (T *)b.data, (S *)inv_rms.data, rows, width);
            });
        }
        constexpr int PACK = sizeof(T) < 4 ? 2 : 1; // four bytes: the lanes of a warp fill a line of the cache
        return with_packs<PACK>(width % PACK == 0 && aligned<PACK>(a) && aligned<PACK>(b), [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t blocks = blocks_for(width, 32 * EACH);
            return TRM_LAUNCH((over_positions<BACKWARD, EACH, T>), (unsigned)(sequences * blocks), WARPS * 32, 0, stream,
                              (const T *)a.data, (T *)b.data, (S *)inv_rms.data, len, width, blocks);
        });
    });
}
} // namespace

extern "C" {
int TRM_API(add_rmsnorm)(int64_t over, trm_array h, trm_array x, trm_array inv_rms, int64_t sequences, int64_t len, int64_t width,
                         trm_stream stream) {
    return launch<false>(over, h, x, inv_rms, sequences, len, width, stream);
}

int TRM_API(rmsnorm_backward)(int64_t over, trm_array y, trm_array inv_rms, trm_array d, int64_t sequences, int64_t len,
                              int64_t width, trm_stream stream) {
    return launch<true>(over, y, d, inv_rms, sequences, len, width, stream);
}
}

// RMSNorm without weights, after a residual:
//
//   forward    v = h + x,  r = (mean v² + 1e-5)^(−1/2),  x = v·r
//   backward   d = r (d − y·mean(d·y)),  y and r being what the forward pass has made
//
// Both are the same walk along an axis: the mean of a term over the axis, then a new value for each element. With a and b
// standing for h and x, or for y and d, the term is (a + b)² or a·b, and b is what changes. Memory is what limits them: what a
// thread has of an axis is on its way all at once and stays in its registers for the second half. Axes that are too long for
// that are gone through twice.
//
// Over features the axis is a row, and a warp has a row. Over positions it is a column of a sequence, and a block has as many
// columns as its lanes hold, every eighth position a warp. Blocks begin at the end of the array: the kernel before has written
// that last, so it is still in the L2 cache; and what is written last here is where the next kernel begins. Neither order of
// summation depends on how many rows or sequences there are, or on whether elements can be loaded side by side.
#include "device.cuh"

namespace {
constexpr int WARPS = 8;

__device__ __forceinline__ float inverse_root(float x) { return 1.0f / sqrtf(x); }
__device__ __forceinline__ double inverse_root(double x) { return 1.0 / sqrt(x); }

template <bool BACKWARD, class S> __device__ __forceinline__ S term(S a, S b) { return BACKWARD ? a * b : (a + b) * (a + b); }
template <bool BACKWARD, class S> __device__ __forceinline__ S changed(S a, S b, S mean, S r) {
    return BACKWARD ? r * (b - a * mean) : (a + b) * r;
}
// r, which the forward pass makes of the mean, and keeps by the one thread that has `mine`. The backward pass has read it, long
// before there is a mean.
template <bool BACKWARD, class S> __device__ __forceinline__ S factor(S read, S mean, S *inv_rms, bool mine) {
    if (BACKWARD) return read;
    const S r = inverse_root(mean + (S)1e-5);
    if (mine) *inv_rms = r;
    return r;
}

// Keeps the compiler from holding elements as numbers from one half to the other, which takes twice the registers of bf16.
template <class T, int N> __device__ __forceinline__ void forget(dev::Pack<T, N> &pack) {
    if constexpr (sizeof pack % 4 == 0)
#pragma unroll
        for (int i = 0; i < (int)sizeof pack / 4; i++) dev::forget(((int *)pack.of)[i]);
}

// Neighbouring elements of a and of b, as they lie.
template <class T, int N> struct Part {
    dev::Pack<T, N> a, b;

    template <bool BACKWARD> __device__ __forceinline__ void add_terms(sum_t<T> (&sum)[N]) const {
        for (int e = 0; e < N; e++) sum[e] += term<BACKWARD>(dev::get(&a.of[e]), dev::get(&b.of[e]));
    }
    template <bool BACKWARD> __device__ __forceinline__ void change(const sum_t<T> (&mean)[N], const sum_t<T> (&r)[N]) {
        forget(a), forget(b);
        for (int e = 0; e < N; e++) dev::set(&b.of[e], changed<BACKWARD>(dev::get(&a.of[e]), dev::get(&b.of[e]), mean[e], r[e]));
    }
};

// PACK elements from the i-th of a row on: at once where ALIGNED, else one by one, with zeros beyond the end of the row.
template <bool ALIGNED, int PACK, class T>
__device__ __forceinline__ void load_pack(dev::Pack<T, PACK> &to, const T *row, int64_t i, int64_t width) {
    if constexpr (ALIGNED)
        to = *(const dev::Pack<T, PACK> *)(row + i);
    else
        for (int e = 0; e < PACK; e++) dev::set(&to.of[e], i + e < width ? dev::get(row + i + e) : sum_t<T>(0));
}
template <bool ALIGNED, int PACK, class T>
__device__ __forceinline__ void store_pack(T *row, const dev::Pack<T, PACK> &from, int64_t i, int64_t width) {
    if constexpr (ALIGNED)
        *(dev::Pack<T, PACK> *)(row + i) = from;
    else
        for (int e = 0; e < PACK && i + e < width; e++) row[i + e] = from.of[e];
}

// Lane l has PACK elements from PACK·(l + 32 i) on of a row, and a sum for each. A warp has SPAN elements in its registers.
template <bool BACKWARD, bool ALIGNED, class T>
__global__ void __launch_bounds__(WARPS * 32)
    over_features(const T *__restrict__ a, T *__restrict__ b, sum_t<T> *inv_rms, int64_t rows, int64_t width) {
    typedef sum_t<T> S;
    constexpr int PACK = in_16_bytes<T>(), PARTS = 512 / (32 * PACK), SPAN = PARTS * 32 * PACK;
    const int64_t row = rows - 1 - dev::thread_index() / 32, first = threadIdx.x % 32 * PACK;
    if (row < 0) return;
    a += row * width;
    b += row * width;
    const S read = BACKWARD ? inv_rms[row] : S(0);
    Part<T, PACK> parts[PARTS];
    auto each_part = [&](int64_t start, auto work) {
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            const int64_t i = start + first + p * 32 * PACK;
            if (i < width) work(parts[p], i);
        }
    };
    auto load = [&](Part<T, PACK> &part, int64_t i) {
        load_pack<ALIGNED>(part.a, a, i, width);
        load_pack<ALIGNED>(part.b, b, i, width);
    };
    S sum[PACK] = {};
    for (int64_t start = 0; start < width; start += SPAN) {
        each_part(start, load);
        each_part(start, [&](const Part<T, PACK> &part, int64_t) { part.template add_terms<BACKWARD>(sum); });
    }
#pragma unroll
    for (int by = PACK / 2; by > 0; by /= 2)
        for (int e = 0; e < by; e++) sum[e] += sum[e + by];
    S mean[PACK], r[PACK];
    mean[0] = dev::warp_sum(sum[0]) / (S)width;
    r[0] = factor<BACKWARD>(read, mean[0], inv_rms + row, threadIdx.x % 32 == 0);
    for (int e = 1; e < PACK; e++) mean[e] = mean[0], r[e] = r[0];
    for (int64_t start = 0; start < width; start += SPAN) {
        if (width > SPAN) each_part(start, load);
        each_part(start, [&](Part<T, PACK> &part, int64_t i) {
            part.template change<BACKWARD>(mean, r);
            store_pack<ALIGNED>(b, part.b, i, width);
        });
    }
}

// A lane has EACH neighbouring columns, of up to PARTS positions at a time.
template <bool BACKWARD, int EACH, class T>
__global__ void __launch_bounds__(WARPS * 32, sizeof(T) < 8 ? 3 : 2)
    over_positions(const T *__restrict__ a, T *__restrict__ b, sum_t<T> *inv_rms, int len, int width, int blocks) {
    typedef sum_t<T> S;
    constexpr int PARTS = 16, SPAN = PARTS * WARPS;
    __shared__ S partial[WARPS][32];
    const unsigned block = gridDim.x - 1 - blockIdx.x;
    const int64_t sequence = block / blocks;
    const int column = (block % blocks * 32 + threadIdx.x % 32) * EACH, end = column < width ? len : 0;
    int warp = threadIdx.x / 32;
    a += sequence * len * width + column;
    b += sequence * len * width + column;
    inv_rms += sequence * width + column;
    S read[EACH] = {}, mean[EACH] = {}, r[EACH] = {};
    if (BACKWARD && column < width)
        for (int e = 0; e < EACH; e++) read[e] = inv_rms[e];
    Part<T, EACH> parts[PARTS];
    auto each_part = [&](int start, auto work) {
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            const int l = start + warp + p * WARPS;
            if (l < end) work(parts[p], l * width);
        }
    };
    auto load = [&](Part<T, EACH> &part, int at) {
        part.a = *(const dev::Pack<T, EACH> *)(a + at);
        part.b = *(const dev::Pack<T, EACH> *)(b + at);
    };
    for (int start = 0; start < end; start += SPAN) {
        each_part(start, load);
        each_part(start, [&](const Part<T, EACH> &part, int) { part.template add_terms<BACKWARD>(mean); });
    }
    for (int e = 0; e < EACH; e++) {
        mean[e] = dev::sum_over_warps<WARPS>(mean[e], partial) / (S)len;
        if (column < width) r[e] = factor<BACKWARD>(read[e], mean[e], inv_rms + e, warp == 0);
    }
    dev::forget(warp); // and the addresses that it made
    for (int start = 0; start < end; start += SPAN) {
        if (len > SPAN) each_part(start, load);
        each_part(start, [&](Part<T, EACH> &part, int at) {
            part.template change<BACKWARD>(mean, r);
            *(dev::Pack<T, EACH> *)(b + at) = part.b;
        });
    }
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
        if (len > INT32_MAX / width) return 1;
        constexpr int PACK = sizeof(T) < 4 ? 2 : 1; // four bytes: the lanes of a warp fill a line of the cache
        return with_packs<PACK>(width % PACK == 0 && aligned<PACK>(a) && aligned<PACK>(b), [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t blocks = blocks_for(width, 32 * EACH);
            return TRM_LAUNCH((over_positions<BACKWARD, EACH, T>), (unsigned)(sequences * blocks), WARPS * 32, 0, stream,
                              (const T *)a.data, (T *)b.data, (S *)inv_rms.data, (int)len, (int)width, (int)blocks);
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

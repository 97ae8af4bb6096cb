// What the device can do at most: the yardstick that times of other kernels are held against.
//
//   multiply_limit   independent multiply-adds on registers and nothing else: on tensor cores for bf16 (by the instruction that
//                    all products here use), else in the FMA units
//   copy_limit       y = x, 16 bytes at a time
//
// A multiply-add waits for the sum that it adds to, so each thread (each warp, on tensor cores) has many sums and takes them in
// turn. In a round, every sum is added to DEPTH times, which is often enough that the loop itself costs nothing. Factors are 1,
// which only the caller knows, and sum s begins at s: so the compiler can neither leave out any of them nor take two for the
// same. What the sums have grown by in the end is the number of multiply-adds, as long as an f32 can count them.
#include "device.cuh"

namespace {
constexpr int THREADS = 256;

__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// A thread's sums in the FMA units.
template <class S> struct Plain {
    static constexpr int SUMS = 16, DEPTH = 16, PER_ROUND = SUMS * DEPTH;
    S sums[SUMS];

    __device__ explicit Plain(S) {
        for (int s = 0; s < SUMS; s++) sums[s] = (S)s;
    }
    __device__ __forceinline__ void round(S one) {
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
#pragma unroll
            for (int s = 0; s < SUMS; s++) sums[s] = multiply_add(one, one, sums[s]);
    }
    __device__ double grown() const {
        double all = 0;
        for (int s = 0; s < SUMS; s++) all += sums[s] - (S)s;
        return all;
    }
};

// A lane's share of its warp's sums on tensor cores: four elements of each of SUMS tiles 16×8, to which products of 16×16 and
// 16×8 ones are added; each of them is 2048 multiply-adds, 64 a lane.
struct Tiles {
    static constexpr int SUMS = 8, DEPTH = 4, PER_ROUND = SUMS * DEPTH * 64;
    float sums[SUMS][4];
    uint32_t ones;

    __device__ explicit Tiles(float one) : ones(dev::pack(one, one)) {
        for (int s = 0; s < SUMS; s++)
            for (int e = 0; e < 4; e++) sums[s][e] = (float)s;
    }
    __device__ __forceinline__ void round(float) {
        const uint32_t a[4] = {ones, ones, ones, ones};
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
#pragma unroll
            for (int s = 0; s < SUMS; s++) dev::mma_16816(sums[s], a, ones, ones);
    }
    __device__ double grown() const {
        double all = 0;
        for (int s = 0; s < SUMS; s++)
            for (int e = 0; e < 4; e++) all += sums[s][e] - (float)s;
        return all;
    }
};

template <class Sums, class S> __global__ void __launch_bounds__(THREADS) multiply_adds(S one, int64_t rounds, double *counts) {
    __shared__ double warps[THREADS / 32];
    Sums sums(one);
    for (int64_t round = 0; round < rounds; round++) sums.round(one);
    const double all = dev::block_sum<THREADS>(sums.grown(), warps);
    if (counts && threadIdx.x == 0) counts[blockIdx.x] = all;
}

// Of each format: its sums, and the type of its factors.
template <class F> static int with_sums(int64_t format, F f) {
    switch (format) {
    case TRM_BF16: return f((Tiles *)nullptr, float());
    case TRM_F32: return f((Plain<float> *)nullptr, float());
    case TRM_F64: return f((Plain<double> *)nullptr, double());
    }
    return 1;
}

// A block copies a stretch of THREADS · EACH packs of 16 bytes. All loads of a thread are on their way before its first store.
constexpr int EACH = 4;

__global__ void __launch_bounds__(THREADS) copy_packs(const uint4 *__restrict__ x, uint4 *__restrict__ y, int64_t packs) {
    const int64_t first = (int64_t)blockIdx.x * THREADS * EACH + threadIdx.x;
    uint4 values[EACH];
#pragma unroll
    for (int e = 0; e < EACH; e++)
        if (first + e * THREADS < packs) values[e] = x[first + e * THREADS];
#pragma unroll
    for (int e = 0; e < EACH; e++)
        if (first + e * THREADS < packs) y[first + e * THREADS] = values[e];
}
} // namespace

extern "C" {
int64_t TRM_API(multiply_limit_round)(int64_t format) {
    int64_t of_block = 0;
    with_sums(format, [&](auto *sums, auto) {
        of_block = (int64_t)THREADS * std::remove_pointer_t<decltype(sums)>::PER_ROUND;
        return 0;
    });
    return of_block;
}

int TRM_API(multiply_limit)(int64_t format, int64_t blocks, int64_t rounds, double *counts, trm_stream stream) {
    if (blocks <= 0) return 0;
    return with_sums(format, [&](auto *sums, auto zero) {
        typedef std::remove_pointer_t<decltype(sums)> Sums;
        typedef decltype(zero) S;
        return TRM_LAUNCH((multiply_adds<Sums, S>), (unsigned)blocks, THREADS, 0, stream, (S)1, rounds, counts);
    });
}

int TRM_API(copy_limit)(const void *x, void *y, int64_t bytes, trm_stream stream) {
    const int64_t packs = bytes / (int64_t)sizeof(uint4);
    if (packs * (int64_t)sizeof(uint4) != bytes) return 1;
    if (packs <= 0) return 0;
    return TRM_LAUNCH(copy_packs, blocks_for(packs, THREADS * EACH), THREADS, 0, stream, (const uint4 *)x, (uint4 *)y, packs);
}
}

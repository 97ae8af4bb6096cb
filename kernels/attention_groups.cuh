// Products of warpgroups as attention needs them, for heads of 64 features: a group has 64 rows. Rows of an operand in shared memory are
// 128 bytes, a head's features, swizzled.
#pragma once
#include "attention_tiles.cuh"
#include "hopper.cuh"
#include <cstdlib>

namespace {
constexpr int GROUP_DIM = 64, GROUP_ROWS = 64; // features of a head, and rows of a group
typedef uint32_t GroupRows[GROUP_DIM / 16][4]; // a group's rows as left operands
typedef float GroupSums[GROUP_DIM / 2];        // fragment f has its sums at 4f, as `d` of mma_16816

// Places of shared memory that are filled and read step after step, step i at place i % STAGES: their barriers.
template <int STAGES> struct Ring {
    static constexpr int BYTES = 2 * STAGES * 8;
    uint64_t *barriers;

    __device__ __forceinline__ uint64_t *full(int step) const { return barriers + step % STAGES; }
    __device__ __forceinline__ uint64_t *vacant(int step) const { return full(step) + STAGES; }
    // For one thread: so many fill a place, and so many warps read it.
    __device__ __forceinline__ void begin(int fill, int warps) const {
        for (int s = 0; s < STAGES; s++) {
            dev::barrier_init(full(s), fill);
            dev::barrier_init(vacant(s), warps);
        }
    }
    // The same, where a block has no other barriers; all threads call it.
    __device__ __forceinline__ void begin_block(int fill, int warps) const {
        if (threadIdx.x == 0) {
            begin(fill, warps);
            dev::fence_barrier_init();
        }
        __syncthreads();
    }
    // Waits until the place of a step is free.
    __device__ __forceinline__ void wait_for_place(int step) const {
        if (step >= STAGES) dev::barrier_wait(vacant(step), (step / STAGES - 1) & 1);
    }
    // Waits until it is filled.
    __device__ __forceinline__ void wait_for(int step) const { dev::barrier_wait(full(step), step / STAGES & 1); }
    // The calling warp has read what it wants. Each warp says so: a product keeps a group together, but numbers are read by threads.
    __device__ __forceinline__ void release(int step) const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) dev::barrier_arrive(vacant(step));
    }
};

// The calling group's rows of a box.
__device__ __forceinline__ void load_rows(GroupRows &x, const unsigned char *box) {
    const int row = threadIdx.x % GROUP / 32 * 16 + threadIdx.x % 16, half = threadIdx.x % 32 / 16;
#pragma unroll
    for (int k = 0; k < GROUP_DIM / 16; k++) dev::load_matrix_x4(x[k], box + row * 128 + ((k * 2 + half) ^ row % 8) * 16);
}
// Begins s = x uᵀ for N columns, which are the rows u of a tile.
template <int N> __device__ __forceinline__ void begin_scores(float (&s)[N / 2], const GroupRows &x, const unsigned char *u) {
    const uint64_t right = dev::descriptor(u, 0, 1024, true);
#pragma unroll
    for (int k = 0; k < GROUP_DIM / 16; k++) dev::Wgmma<N>::template multiply<0>(s, x[k], right + k * (32 / 16), k > 0);
    dev::wgmma_commit();
}
// Begins sums += w u, w being rounded weights of N columns; sums = w u where `keep` is 0.
template <int N>
__device__ __forceinline__ void begin_sums(GroupSums &sums, const uint32_t (&w)[N / 16][4], const unsigned char *u, int keep) {
    const uint64_t right = dev::descriptor(u, 0, 1024, true);
#pragma unroll
    for (int k = 0; k < N / 16; k++)
        dev::Wgmma<GROUP_DIM>::template multiply<1>(sums, w[k], right + k * (16 * 128 / 16), k > 0 || keep);
    dev::wgmma_commit();
}
// Rounds weights of N columns.
template <int N> __device__ __forceinline__ void round_weights(uint32_t (&w)[N / 16][4], const float (&s)[N / 2]) {
#pragma unroll
    for (int k = 0; k < N / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) w[k][i] = dev::pack(s[k * 8 + i * 2], s[k * 8 + i * 2 + 1]);
}
// Takes all weight from columns that are not there: only the first `left` of the N are, and at least KNOWN.
template <int N, int KNOWN = 0> __device__ __forceinline__ void mask_scores(float (&s)[N / 2], int left) {
    if (left >= N) return;
    __syncwarp(); // keeps the compiler from testing every column of every tile instead
#pragma unroll
    for (int i = KNOWN / 8 * 4; i < N / 2; i++)
        if (i / 4 * 8 + (int)threadIdx.x % 4 * 2 + i % 2 >= left) s[i] = -INFINITY;
}

// From the largest exponent of two and the sum of powers, of the lane's two rows, of which four lanes have a part each: writes the lse of
// rows first + …, and returns what the sums of the rows have to be multiplied by.
__device__ __forceinline__ void finish_softmax(float (&factor)[2], const Head &head, float *lse, const float (&exponent)[2],
                                               const float (&part)[2], int first) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = first + threadIdx.x % GROUP / 32 * 16 + lane / 4 + r * 8;
        const float sum = dev::quad_sum(part[r]);
        factor[r] = 1.0f / sum;
        if (lane % 4 == 0 && row < head.len) head.statistics(lse)[row] = LN_2 * exponent[r] + logf(sum);
    }
}
// Rows first + … of a head = sums times the factor of each of the lane's two rows, turned back unless cos_sin is null. A lane has both
// numbers of a pair that turns, and after an exchange 16 bytes of a row.
__device__ __forceinline__ void store_sums(const Rows<bf16> &to, const GroupSums &sums, const float (&factor)[2], int first, int len,
                                           const float *cos_sin) {
    const int lane = threadIdx.x % 32, t = lane % 4;
    first += threadIdx.x % GROUP / 32 * 16 + lane / 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = first + r * 8;
        uint32_t words[GROUP_DIM / 8];
#pragma unroll
        for (int f = 0; f < GROUP_DIM / 16; f++) {
            float cos[2] = {1, 1}, sin[2] = {0, 0}, low[2], high[2];
            if (cos_sin) {
                const float4 angles = *(const float4 *)(cos_sin + ((row < len ? row : len - 1) * (GROUP_DIM / 2) + f * 8 + t * 2) * 2);
                cos[0] = angles.x, sin[0] = angles.y, cos[1] = angles.z, sin[1] = angles.w;
            }
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const float a = factor[r] * sums[f * 4 + r * 2 + e], b = factor[r] * sums[(f + GROUP_DIM / 16) * 4 + r * 2 + e];
                low[e] = a * cos[e] + b * sin[e];
                high[e] = b * cos[e] - a * sin[e];
            }
            words[f] = dev::pack(low[0], low[1]);
            words[f + GROUP_DIM / 16] = dev::pack(high[0], high[1]);
        }
        transpose_quads(words);
        if (row >= len) continue;
#pragma unroll
        for (int i = 0; i < GROUP_DIM / 8; i += 4) *(uint4 *)(to[row] + (i + t) * 8) = {words[i], words[i + 1], words[i + 2], words[i + 3]};
    }
}

// ---- For launchers -----------------------------------------------------------------------------------------------------------

// Whether there are warpgroups that multiply. With TRM_ATTENTION_BY_WARPS in the environment there are none, to compare.
static inline bool by_warpgroups() { return dev::has_wgmma() && !getenv("TRM_ATTENTION_BY_WARPS"); }
// Boxes of so many rows of an array [sequences, len, width].
static inline int boxes_of(dev::TensorMap *map, trm_array x, const trm_attention &shape, int64_t width, int rows) {
    return dev::tensor_map_3d(map, x.data, {width, shape.len, shape.sequences}, {width * 2, shape.len * width * 2}, rows);
}
} // namespace

// SwiGLU over positions by the instructions of compute capability 9.0: what its kernels share. (mix.cuh says what is computed.)
//
// A warpgroup's product has 64 rows, and takes its right operand, and the left one too if it likes, from shared memory. Weights are
// packed in the same steps of 32 hidden units, but as core matrices: 8 hidden units by 8 positions, 128 bytes without a gap.
//
//     for each step:   gate, up, downᵀ   of 8 hidden units each 4 times;   for each of them the core matrices of all positions
//
// Such an operand can be read both ways. For a sum over positions it is one whose neighbours lie along k, and for a sum over hidden
// units one whose neighbours lie along n.
#pragma once
#include "hopper.cuh"
#include "mix.cuh"

namespace {
constexpr int MOST_BYTES = 227 << 10; // of shared memory, wherever there is wgmma

template <int LEN> struct GroupSizes {
    static constexpr int ROWS = Sizes<LEN>::ROWS, BLOCKS = Sizes<LEN>::BLOCKS;
    static constexpr int UNITS_8 = ROWS * 16;            // bytes of 8 hidden units of one matrix
    static constexpr int STEP_BYTES = 3 * STEP / 8 * UNITS_8;
    static constexpr int BOX_BYTES = ROWS * 128;         // of 64 features at all positions
    static constexpr int NEXT_16 = 2 * 128 / 16;         // 16 more positions, and
    static constexpr int NEXT_UNITS = 2 * UNITS_8 / 16;  // 16 more hidden units, in the 16 bytes that descriptors count in

    // The right operand from a matrix of a step on, n being hidden units and k positions, or the other way round.
    static __device__ __forceinline__ uint64_t over_positions(const unsigned char *step, int weight) {
        return dev::descriptor(step + weight * (STEP / 8) * UNITS_8, 128, UNITS_8, false);
    }
    static __device__ __forceinline__ uint64_t over_units(const unsigned char *step, int weight) {
        return dev::descriptor(step + weight * (STEP / 8) * UNITS_8, UNITS_8, 128, false);
    }
};

// Left operands [64 features, 16 positions] from a box, one after the other; of a warp, as mma_16816 wants them.
template <int BLOCKS> __device__ __forceinline__ void load_box(uint32_t (&a)[BLOCKS][4], const unsigned char *box) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x % GROUP / 32;
    const int row = lane / 16 * 8 + lane % 8, piece = (warp * 2 + lane / 8 % 2) ^ lane % 8;
#pragma unroll
    for (int k = 0; k < BLOCKS; k++) dev::load_matrix_x4_trans(a[k], box + (k * 16 + row) * 128 + piece * 16);
}

// The boxes of an array [sequences, len, width]. Positions from len on arrive as zeros.
static inline int boxes_of(dev::TensorMap *map, trm_array x, int64_t sequences, int64_t len, int64_t width, int rows) {
    return dev::tensor_map_3d(map, x.data, {width, len, sequences}, {width * 2, len * width * 2}, rows);
}

// ---- Blocks that live as long as their launch --------------------------------------------------------------------------------
// 64 features of one sequence are an item. In round r, group g of GROUPS of block b takes item (r · GROUPS + g) · blocks + b. The
// weights pass by once in each round, and what a group does in a step is its turn.

template <int GROUPS> struct Items {
    int count, parts; // parts: items of a sequence
    __device__ __forceinline__ int number(int round, int group) const { return (round * GROUPS + group) * gridDim.x + blockIdx.x; }
    // Rounds of the block's first group, which has most.
    __device__ __forceinline__ int rounds() const {
        const int apart = GROUPS * gridDim.x;
        return (count - (int)blockIdx.x + apart - 1) / apart;
    }
};

// Steps of weights on their way through STAGES places of shared memory.
template <int LEN, int STAGES, int GROUPS> struct Steps {
    static constexpr int BYTES = GroupSizes<LEN>::STEP_BYTES;
    unsigned char *places;
    uint64_t *full, *vacant; // of each place

    __device__ __forceinline__ void begin() const {
        for (int s = 0; s < STAGES; s++) {
            dev::barrier_init(full + s, 1);
            dev::barrier_init(vacant + s, GROUPS);
        }
    }
    __device__ __forceinline__ void fetch(const unsigned char *packed, int steps, int turns) const {
#pragma unroll 1
        for (int turn = 0, step = 0; turn < turns; turn++) {
            const int s = turn % STAGES;
            if (turn >= STAGES) dev::barrier_wait(vacant + s, (turn / STAGES - 1) & 1);
            dev::barrier_expect(full + s, BYTES);
            dev::bulk_load(places + s * BYTES, packed + (size_t)step * BYTES, BYTES, full + s);
            step = step + 1 < steps ? step + 1 : 0;
        }
    }
    __device__ __forceinline__ const unsigned char *arrived(int turn) const {
        dev::barrier_wait(full + turn % STAGES, turn / STAGES & 1);
        return places + turn % STAGES * BYTES;
    }
    __device__ __forceinline__ void release(int turn) const {
        if (threadIdx.x % GROUP == 0) dev::barrier_arrive(vacant + turn % STAGES);
    }
    // For a group that has no item in the last round. One thread does it: others, with no product to keep them together, could miss
    // a phase and wait for one that never comes.
    __device__ __forceinline__ void pass(int turn, int turns) const {
        for (; turn < turns && threadIdx.x % GROUP == 0; turn++) {
            arrived(turn);
            release(turn);
        }
    }
};

// A box for each group, which is filled again when all that ask for it have arrived.
template <int LEN, int GROUPS> struct BoxOfGroup {
    static constexpr int BYTES = GroupSizes<LEN>::BOX_BYTES;
    unsigned char *places;
    uint64_t *full, *vacant;

    __device__ __forceinline__ void begin(int arrivals) const {
        for (int g = 0; g < GROUPS; g++) {
            dev::barrier_init(full + g, 1);
            dev::barrier_init(vacant + g, arrivals);
        }
    }
    __device__ __forceinline__ void fetch(const dev::TensorMap *map, Items<GROUPS> items) const {
#pragma unroll 1
        for (int round = 0; round < items.rounds(); round++)
#pragma unroll 1
            for (int g = 0; g < GROUPS; g++) {
                const int item = items.number(round, g);
                if (item >= items.count) break;
                if (round > 0) dev::barrier_wait(vacant + g, (round - 1) & 1);
                dev::barrier_expect(full + g, BYTES);
                dev::tensor_load_3d(places + g * BYTES, map, item % items.parts * 64, 0, item / items.parts, full + g);
            }
    }
    __device__ __forceinline__ const unsigned char *arrived(int group, int round) const {
        dev::barrier_wait(full + group, round & 1);
        return places + group * BYTES;
    }
};

// A warp's 16 features of all positions, on their way between registers and rows of global memory. The two pieces of a row
// change places in every other four rows, for the banks' sake.
struct Strip {
    unsigned char *data;
    __device__ __forceinline__ unsigned char *at(int l, int piece) const { return data + l * 32 + (piece ^ l / 4 % 2) * 16; }
    // Calls f(l, piece) for all pieces, by all lanes.
    template <class F> static __device__ __forceinline__ void for_each(int len, F f) {
        for (int l = threadIdx.x % 32 / 2; l < len; l += 16) f(l, threadIdx.x % 2);
    }
    // Where results [16 features, positions] are left operands, they are 16 positions at a time.
    __device__ __forceinline__ void load(uint32_t (&a)[4], int l) const {
        const int lane = threadIdx.x % 32;
        dev::load_matrix_x4_trans(a, at(l + lane / 16 * 8 + lane % 8, lane / 8 % 2));
    }
    // Two results of positions l and l + 1 and the lane's feature in that half of the 16.
    __device__ __forceinline__ void store(int l, int half, float v0, float v1) const {
        dev::set((bf16 *)at(l, half) + threadIdx.x % 32 / 4, v0);
        dev::set((bf16 *)at(l + 1, half) + threadIdx.x % 32 / 4, v1);
    }
    __device__ __forceinline__ void write(bf16 *to, int len, int width) const {
        __syncwarp();
        for_each(len, [&](int l, int piece) { *(uint4 *)(to + (size_t)l * width + piece * 8) = *(const uint4 *)at(l, piece); });
        __syncwarp();
    }
};
} // namespace

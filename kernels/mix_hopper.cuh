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
constexpr int GROUP = 128;        // threads of a warpgroup
constexpr int FEATURES_OF_64 = 64; // features of a box of x: one swizzled row of 128 bytes for each position
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

// Work of a launch of groups that live as long as it does: 64 features of one sequence are an item. In round r, group g of block b takes
// item (r · groups + g) · blocks + b.
struct Items {
    int count, parts; // parts: items of a sequence
    __device__ __forceinline__ int number(int round, int groups, int group) const {
        return (round * groups + group) * gridDim.x + blockIdx.x;
    }
    // Rounds of the block's first group, which has most.
    __device__ __forceinline__ int rounds(int groups) const {
        const int apart = groups * gridDim.x;
        return (count - (int)blockIdx.x + apart - 1) / apart;
    }
};
} // namespace

// The order of a packed weight's rows. The four lanes that share a row of a product's fragment hold columns 2t and 2t + 1 of it, but should
// move `run` neighbours at once, 8 or 4. So of each 4·run rows of a weight the product gets
//
//     as number 8j + 2t + e    row run·t + 2j + e,    t < 4, e < 2, j < run / 2,
//
// and lane t has in the same places of its fragments 0 … run / 2 − 1 what belongs to columns run·t … run·t + run − 1. Warps fetch rows of a
// weight in that order (gemm.cuh). Warpgroups fetch boxes: weights of theirs are packed in that order, and end with a whole 4·run.
#pragma once
#include "hopper.cuh"

namespace {
// Whether warpgroups multiply. A tile of theirs is large: where there is little to do, small ones reach more processors. It depends
// on the weights alone, because the two loops may round differently.
static inline bool takes_groups(int64_t n, int64_t k) { return n >= 256 && k >= 64 && n * k >= 512 * 512 && dev::has_wgmma(); }

// The run of a weight [n, k] whose product wants that one.
static inline int packed_run(int64_t n, int64_t k, int64_t run) { return takes_groups(n, k) ? (int)run : 0; }

// Where a row lies. A run of 0 is the order there was.
static __device__ __forceinline__ int64_t spread_place(int64_t row, int run) {
    if (!run) return row;
    const int in_block = (int)row & (4 * run - 1), t = in_block / run, of_run = in_block & (run - 1);
    return row - in_block + of_run / 2 * 8 + 2 * t + of_run % 2;
}
} // namespace

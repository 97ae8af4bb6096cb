// A weight tensor [rows, cols] f32 becomes an operand of tensor-core kernels, bf16:
//
//   `interleave`  row 2i is row i of the first half, row 2i + 1 row i of the second: gate 0, up 0, gate 1, …
//   `transpose`   then swaps rows and columns
//   `run`         then puts rows into the order of spread.cuh, where warpgroups multiply
//
// A block makes a tile of 32×32 cells with 8 warps, four rows a warp; rows are exchanged inside of it. A transposed tile goes
// through shared memory, so that both reading and writing go along rows.
#include "spread.cuh"

namespace {
constexpr int TILE = 32, WARPS = 8;

template <bool TRANSPOSE>
__global__ void __launch_bounds__(WARPS * 32) pack_tiles(const float *from, int64_t rows, int64_t cols, bool interleave, int run, bf16 *to,
                                                         int64_t tiles_across) {
    __shared__ float tile[TILE][TILE + 1]; // one more, so that the cells of a column lie in different banks
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t top = blockIdx.x / tiles_across * TILE, left = blockIdx.x % tiles_across * TILE;
    const int64_t pitch = TRANSPOSE ? rows : cols, whole = TRANSPOSE ? cols : rows;
    // Cell (row, col) of the interleaved tensor.
    auto cell = [&](int64_t row, int64_t col) {
        if (row >= rows || col >= cols) return 0.0f;
        return from[(interleave ? row / 2 + row % 2 * (rows / 2) : row) * cols + col];
    };
    if (TRANSPOSE) {
        for (int i = warp; i < TILE; i += WARPS) tile[i][lane] = cell(left + i, top + lane);
        __syncthreads();
    }
    for (int i = warp; i < TILE; i += WARPS) {
        const float value = TRANSPOSE ? tile[lane][i] : cell(top + i, left + lane);
        if (top + i < whole && left + lane < pitch) dev::set(to + spread_place(top + i, run) * pitch + left + lane, value);
    }
}
} // namespace

extern "C" int TRM_API(pack)(const trm_pack *pack, trm_stream stream) {
    const trm_pack &w = *pack;
    const int64_t rows = w.transpose ? w.cols : w.rows, cols = w.transpose ? w.rows : w.cols;
    if (w.from.format != TRM_F32 || w.to.format != TRM_BF16 || (w.interleave && w.rows % 2) || (w.run != 8 && w.run != 4)) return 1;
    const int64_t across = (cols + TILE - 1) / TILE, down = (rows + TILE - 1) / TILE;
    if (across * down <= 0) return 0;
    const auto kernel = w.transpose ? pack_tiles<true> : pack_tiles<false>;
    return TRM_LAUNCH(kernel, (unsigned)(across * down), WARPS * 32, 0, stream, (const float *)w.from.data, w.rows, w.cols,
                      w.interleave != 0, packed_run(rows, cols, w.run), (bf16 *)w.to.data, across);
}

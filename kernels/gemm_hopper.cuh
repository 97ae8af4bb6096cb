// The products of gemm.cuh by the instructions of compute capability 9.0, with the same epilogues.
//
// A block has three warpgroups. One thread of the first fetches: for each step of 64 along k, the tensor copy engine brings a box of
// both operands to one of STAGES buffers, as soon as it is free. The two others multiply, each 64 of the tile's 128 rows, and
// announce what they have used up. Neither waits for the other. So they drift apart, up to as many steps as there are buffers:
// while one is in its epilogue, the other has the tensor cores to itself.
//
// An element is the sum of the same products in the same order whatever the width of the tile.
#pragma once
#include "gemm.cuh"
#include "hopper.cuh"

namespace {
template <int BN_, int STAGES_, int SPEED_> struct GroupShape {
    static constexpr int BM = 128, BN = BN_, BK = 64, STAGES = STAGES_, SPEED = SPEED_, BLOCKS = 1;
    static constexpr int A_BYTES = BM * BK * 2, STAGE_BYTES = (BM + BN) * BK * 2;
};
constexpr int GROUP = 128; // threads of a warpgroup

// What the calling lane holds of its group's 64 × BN of c: like Held, but in 2 rows. In K_MAJOR, `exchange` comes first: of 32
// columns, a lane holds two in each of four fragments, and afterwards the eight of one.
template <class S, Layout LAYOUT> struct GroupHeld {
    static constexpr int RUN = LAYOUT == K_MAJOR ? 8 : 2, ROWS = 2, RUNS = S::BN / (4 * RUN), AHEAD = 4;
    float sum[S::BN / 2];
    int slice, first_row, first_column, m, n;

    __device__ __forceinline__ int row(int r) const { return first_row + 8 * r; }
    __device__ __forceinline__ int column(int run) const { return first_column + 4 * RUN * run; }
    __device__ __forceinline__ bool inside(int r, int run) const { return row(r) < m && column(run) < n; }
    __device__ __forceinline__ float &at(int r, int run, int e) { return sum[(run * (RUN / 2) + e / 2) * 4 + r * 2 + e % 2]; }

    // Transposes, in each row, what lane t of four holds of fragment f.
    __device__ __forceinline__ void exchange() {
        const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
        auto swap = [&](float &low, float &high, bool is_high, int by) {
            const float received = __shfl_xor_sync(~0u, is_high ? low : high, by);
            (is_high ? low : high) = received;
        };
#pragma unroll
        for (int run = 0; run < S::BN / 32; run++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float *const of = sum + run * 16 + e; // of fragment f at 4f
                swap(of[0], of[4], odd, 1);
                swap(of[8], of[12], odd, 1);
                swap(of[0], of[8], upper, 2);
                swap(of[4], of[12], upper, 2);
            }
    }
};

// The boxes of an operand. In MN_MAJOR its rows are cut into slices, which end where no box does: what lies behind a slice's end
// has to arrive as zeros, and so a slice is a dimension; the last one, where it is shorter, has a map of its own.
struct Boxes {
    dev::TensorMap whole, last;
};

// The tiles of a block, in the order in which it makes them: `together` neighbours, then those of grid blocks further on.
struct Order {
    int made = 0;
    __device__ __forceinline__ int number(int together) const {
        return (blockIdx.x + made / together * gridDim.x) * together + made % together;
    }
};

template <class S, Layout LAYOUT, class E>
__global__ void __launch_bounds__(3 * GROUP, 1)
    gemm_by_groups(const __grid_constant__ Problem p, const __grid_constant__ Boxes boxes_a, const __grid_constant__ Boxes boxes_b,
                   const __grid_constant__ E epilogue) {
#if TRM_SM90A
    constexpr int ALONG_MN = LAYOUT == MN_MAJOR;
    TRM_SHARED(shared); // STAGES times A and B, the epilogue's scratch, barriers
    unsigned char *const scratch = shared + S::STAGES * S::STAGE_BYTES;
    uint64_t *const full = (uint64_t *)(scratch + E::SCRATCH_BYTES), *const vacant = full + S::STAGES;
    const int group = threadIdx.x / GROUP - 1, together = E::WHOLE_ROWS ? p.tiles_n : 1;
    if (threadIdx.x == 0) {
        for (int s = 0; s < S::STAGES; s++) {
            dev::barrier_init(full + s, 1);
            dev::barrier_init(vacant + s, 2);
        }
        dev::fence_barrier_init();
    }
    __syncthreads();

    int step = 0; // of all tiles
    if (group < 0) {
        dev::registers_down<24>();
        if (threadIdx.x != 0) return;
        for (Order order; order.number(together) < p.tiles; order.made++) {
            const Tile tile(p, order.number(together), S::BM, S::BN);
            const bool is_last = tile.slice > 0 && tile.slice == p.tiles / p.tiles_of_slice - 1;
            const dev::TensorMap *map_a = is_last ? &boxes_a.last : &boxes_a.whole, *map_b = is_last ? &boxes_b.last : &boxes_b.whole;
            const int z = is_last ? 0 : tile.slice;
            for (int k = 0; k < tile.k_end - tile.k; k += S::BK, step++) {
                const int s = step % S::STAGES;
                if (step >= S::STAGES) dev::barrier_wait(vacant + s, (step / S::STAGES - 1) & 1);
                unsigned char *const a = shared + s * S::STAGE_BYTES, *const b = a + S::A_BYTES;
                dev::barrier_expect(full + s, S::STAGE_BYTES);
                if (LAYOUT == K_MAJOR) {
                    dev::tensor_load_3d(a, map_a, k, tile.row, z, full + s);
                    dev::tensor_load_3d(b, map_b, k, tile.column, z, full + s);
                } else {
                    for (int i = 0; i < S::BM; i += 64) dev::tensor_load_3d(a + i * 128, map_a, tile.row + i, k, z, full + s);
                    for (int i = 0; i < S::BN; i += 64) dev::tensor_load_3d(b + i * 128, map_b, tile.column + i, k, z, full + s);
                }
            }
        }
        return;
    }
    dev::registers_up<240>();
    const int thread = threadIdx.x % GROUP;
    // 16 more of k, in the 16 bytes that descriptors count in.
    constexpr int NEXT = LAYOUT == K_MAJOR ? 32 / 16 : 16 * 128 / 16;
    typename E::Carry carry;
    for (Order order; order.number(together) < p.tiles; order.made++) {
        const Tile tile(p, order.number(together), S::BM, S::BN);
        prefetch_tile<64, S::BN, GROUP>(epilogue, p, tile.slice, tile.row + group * 64, tile.column);
        GroupHeld<S, LAYOUT> held;
        dev::wgmma_registers(held.sum);
        for (int k = tile.k; k < tile.k_end; k += S::BK, step++) {
            const int s = step % S::STAGES;
            const unsigned char *const a = shared + s * S::STAGE_BYTES + group * 64 * 128;
            const unsigned char *const b = shared + s * S::STAGE_BYTES + S::A_BYTES;
            dev::barrier_wait(full + s, step / S::STAGES & 1);
            dev::wgmma_fence();
            const uint64_t of_a = dev::descriptor(a, 0, 1024, true), of_b = dev::descriptor(b, ALONG_MN * 64 * 128, 1024, true);
#pragma unroll
            for (int kk = 0; kk < S::BK / 16; kk++)
                dev::Wgmma<S::BN>::template multiply<ALONG_MN, ALONG_MN>(held.sum, of_a + kk * NEXT, of_b + kk * NEXT,
                                                                         k > tile.k || kk > 0);
            dev::wgmma_commit();
            dev::wgmma_wait<1>(); // the step before this one has been read
            if (thread == 0 && k > tile.k) dev::barrier_arrive(vacant + (step - 1) % S::STAGES);
        }
        dev::wgmma_wait<0>();
        dev::wgmma_registers(held.sum);
        if (thread == 0) dev::barrier_arrive(vacant + (step - 1) % S::STAGES);

        const int lane = threadIdx.x % 32;
        held.slice = tile.slice;
        held.first_row = tile.row + group * 64 + thread / 32 * 16 + lane / 4;
        held.first_column = tile.column + lane % 4 * GroupHeld<S, LAYOUT>::RUN;
        held.m = p.m;
        held.n = p.n;
        if (LAYOUT == K_MAJOR) held.exchange();
        if constexpr (E::WHOLE_ROWS) epilogue.finish(held, carry, scratch + group * (E::SCRATCH_BYTES / 2));
        else finish_runs(epilogue, held);
    }
#endif
}

// ---- Launches ----------------------------------------------------------------------------------------------------------------

// The boxes of `matrix`: rows of `inner` elements, `slice` of them in each slice.
static inline int boxes_of(Boxes *boxes, const void *matrix, int64_t inner, int64_t rows, int64_t slice, int box) {
    const int64_t whole = rows / slice, rest = rows % slice, strides[2] = {inner * 2, inner * 2 * slice};
    const unsigned char *const end = (const unsigned char *)matrix + whole * strides[1];
    if (int status = dev::tensor_map_3d(&boxes->whole, matrix, {inner, slice, whole}, {strides[0], strides[1]}, box)) return status;
    const void *const last = rest ? end : end - strides[1];
    return dev::tensor_map_3d(&boxes->last, last, {inner, rest ? rest : slice, 1}, {strides[0], strides[1]}, box);
}

// As launch_shape.
template <class S, Layout LAYOUT, class E>
int launch_by_groups(const void *a, const void *b, int64_t m, int64_t n, int64_t k, int64_t slice, const E &epilogue,
                     trm_stream stream) {
    constexpr int BYTES = shared_bytes<S, E>() + 2 * S::STAGES * 8;
    Problem problem;
    Boxes boxes_a, boxes_b;
    int status = problem_of<S>(&problem, a, b, m, n, k, slice);
    if (LAYOUT == K_MAJOR) {
        if (!status) status = boxes_of(&boxes_a, a, k, m, m, S::BM);
        if (!status) status = boxes_of(&boxes_b, b, k, n, n, S::BN);
    } else {
        if (!status) status = boxes_of(&boxes_a, a, m, k, problem.slice, 64);
        if (!status) status = boxes_of(&boxes_b, b, n, k, problem.slice, 64);
    }
    if (status) return status;
    auto kernel = gemm_by_groups<S, LAYOUT, E>;
    if (int status = TRM_ALLOW_SHARED(kernel, BYTES)) return status;
    const int64_t pieces_of_work = E::WHOLE_ROWS ? problem.tiles / problem.tiles_n : problem.tiles, most = dev::processors();
    const dim3 blocks((unsigned)(pieces_of_work < most ? pieces_of_work : most));
    return TRM_LAUNCH(kernel, blocks, dim3(3 * GROUP), BYTES, stream, problem, boxes_a, boxes_b, epilogue);
}
} // namespace

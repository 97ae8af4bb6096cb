// The products of gemm.cuh by the instructions of compute capability 9.0, with the same epilogues.
//
// A block has three warpgroups. One thread of the first fetches: for each step of 64 along k, the tensor copy engine brings a box of
// both operands to one of STAGES buffers, as soon as it is free. The two others multiply, each 64 of the tile's 128 rows, and
// announce what they have used up. Neither waits for the other. So they drift apart, up to as many steps as there are buffers:
// while one is in its epilogue, the other has the tensor cores to itself.
//
// An epilogue with WHOLE_ROWS needs sums over rows, which are longer than a tile is wide. The tiles of a row then belong to the
// blocks of a cluster, and the groups that have the same rows send each other what their columns add up to (RowSums).
//
// An element is the sum of the same products in the same order whatever the width of the tile.
#pragma once
#include "gemm.cuh"
#include "spread.cuh"
#include <cstdlib>

namespace {
template <int BN_, int STAGES_, int SPEED_> struct GroupShape {
    static constexpr int BM = 128, BN = BN_, BK = 64, STAGES = STAGES_, SPEED = SPEED_, BLOCKS = 1;
    static constexpr int A_BYTES = BM * BK * 2, STAGE_BYTES = (BM + BN) * BK * 2;
};

// What the calling lane holds of its group's 64 × BN of c: like Held, but in 2 rows. A run of 8 or 4 columns is neighbours because of the
// order of the weight's rows (spread.cuh); without that, it is 2. A tile that is WHOLE has no row or column outside: nothing has to be
// asked, and so nothing keeps instructions of one run from being mixed with those of another.
template <class S, int RUN_, bool WHOLE_> struct GroupHeld {
    static constexpr bool WHOLE = WHOLE_;
    static constexpr int RUN = RUN_, ROWS = 2, COLUMNS = S::BN, RUNS = COLUMNS / (4 * RUN), ALL = ROWS * RUNS;
    static constexpr int MOST = S::BN <= 128 ? 16 : 4, AHEAD = ALL < MOST ? ALL : MOST; // as there are registers for
    float (&sum)[S::BN / 2];
    int slice, first_row, first_column, m, n;

    __device__ __forceinline__ explicit GroupHeld(float (&sum)[S::BN / 2]) : sum(sum) {}
    __device__ __forceinline__ int row(int r) const { return first_row + 8 * r; }
    __device__ __forceinline__ int column(int run) const { return first_column + 4 * RUN * run; }
    __device__ __forceinline__ bool inside(int r, int run) const { return WHOLE || (row(r) < m && column(run) < n); }
    __device__ __forceinline__ float &at(int r, int run, int e) { return sum[(run * (RUN / 2) + e / 2) * 4 + r * 2 + e % 2]; }
};

// What groups of a cluster's blocks that have the same rows tell each other: of each of 64 rows one number, tile after tile. There
// are two places for it. Nobody writes to one before all have read what was there: they write a tile's numbers after they have read
// those of the tile before, and who has received them from all knows that.
struct RowSums {
    static constexpr int MOST = 4; // blocks of a cluster
    static constexpr int PLACE = MOST * 64 * 4, BARRIERS = 2 * 2 * PLACE, BYTES = BARRIERS + 2 * 2 * 8; // of both groups
    unsigned char *memory; // places of both groups [2, 2, MOST, 64], then their barriers [2, 2]
    int blocks, tile;

    static __device__ __forceinline__ void begin(unsigned char *memory) {
        for (int i = 0; i < 4; i++) dev::barrier_init((uint64_t *)(memory + BARRIERS) + i, 1);
    }
    // The sums over all blocks of what they have for the lane's two rows of the tile, in a binary tree; the four lanes that share a row
    // have the same.
    __device__ __forceinline__ void add_up(float (&mine)[2]) {
        if (blocks == 1) return;
        const int thread = threadIdx.x % GROUP, lane = thread % 32, of_group = (threadIdx.x / GROUP - 1) * 2 + tile % 2;
        const int row = thread / 32 * 16 + lane / 4, own = dev::cluster_rank();
        float *const place = (float *)(memory + of_group * PLACE) + row;
        uint64_t *const all = (uint64_t *)(memory + BARRIERS) + of_group;
        if (thread == 0) dev::barrier_expect(all, (blocks - 1) * 64 * 4);
        __syncwarp(); // all lanes have read what the sums of the tile before were made from
        if (lane % 4 < 2)
            for (int other = 0; other < blocks; other++)
                if (other != own) dev::send(place + own * 64 + lane % 4 * 8, lane % 4 ? mine[1] : mine[0], all, other);
        dev::barrier_wait_cluster(all, tile / 2 & 1);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            auto of = [&](int block) { return block == own ? mine[r] : block < blocks ? place[block * 64 + r * 8] : 0.0f; };
            mine[r] = (of(0) + of(1)) + (of(2) + of(3));
        }
        tile++;
    }
};

// The boxes of an operand. In MN_MAJOR its rows are cut into slices, which end where no box does: what lies behind a slice's end
// has to arrive as zeros, and so a slice is a dimension; the last one, where it is shorter, has a map of its own.
struct Boxes {
    dev::TensorMap whole, last;
};

template <class S, Layout LAYOUT, class E>
__global__ void __launch_bounds__(3 * GROUP, 1)
    gemm_by_groups(const __grid_constant__ Problem p, const __grid_constant__ Boxes boxes_a, const __grid_constant__ Boxes boxes_b,
                   const __grid_constant__ E epilogue) {
#if TRM_SM90A
    constexpr int ALONG_MN = LAYOUT == MN_MAJOR;
    TRM_SHARED(shared); // STAGES times A and B, then barriers, then what RowSums needs
    uint64_t *const full = (uint64_t *)(shared + S::STAGES * S::STAGE_BYTES), *const vacant = full + S::STAGES;
    unsigned char *const of_rows = (unsigned char *)(vacant + S::STAGES);
    const int group = threadIdx.x / GROUP - 1;
    if (threadIdx.x == 0) {
        for (int s = 0; s < S::STAGES; s++) {
            dev::barrier_init(full + s, 1);
            dev::barrier_init(vacant + s, 2);
        }
        if (E::WHOLE_ROWS) RowSums::begin(of_rows);
        dev::fence_barrier_init();
    }
    if (E::WHOLE_ROWS) dev::cluster_begin();
    else __syncthreads();
    // Nothing of global memory has been touched so far.
    dev::launch_dependents();
    dev::wait_for_dependencies();

    int step = 0; // of all tiles
    if (group < 0) {
        dev::registers_down<24>();
        if (threadIdx.x != 0) return;
        for (int number = blockIdx.x; number < p.tiles; number += gridDim.x) {
            const Tile tile(p, number, S::BM, S::BN);
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
    constexpr int RUN = LAYOUT == K_MAJOR ? E::RUN : 2;
    RowSums row_sums{of_rows, p.tiles_n, 0};
    for (int number = blockIdx.x; number < p.tiles; number += gridDim.x) {
        const Tile tile(p, number, S::BM, S::BN);
        prefetch_tile<64, S::BN, GROUP>(epilogue, p, tile.slice, tile.row + group * 64, tile.column);
        float sum[S::BN / 2];
        dev::wgmma_registers(sum);
        for (int k = tile.k; k < tile.k_end; k += S::BK, step++) {
            const int s = step % S::STAGES;
            const unsigned char *const a = shared + s * S::STAGE_BYTES + group * 64 * 128;
            const unsigned char *const b = shared + s * S::STAGE_BYTES + S::A_BYTES;
            dev::barrier_wait(full + s, step / S::STAGES & 1);
            dev::wgmma_fence();
            const uint64_t of_a = dev::descriptor(a, 0, 1024, true), of_b = dev::descriptor(b, ALONG_MN * 64 * 128, 1024, true);
#pragma unroll
            for (int kk = 0; kk < S::BK / 16; kk++)
                dev::Wgmma<S::BN>::template multiply<ALONG_MN, ALONG_MN>(sum, of_a + kk * NEXT, of_b + kk * NEXT,
                                                                         k > tile.k || kk > 0);
            dev::wgmma_commit();
            dev::wgmma_wait<1>(); // the step before this one has been read
            if (thread == 0 && k > tile.k) dev::barrier_arrive(vacant + (step - 1) % S::STAGES);
        }
        dev::wgmma_wait<0>();
        dev::wgmma_registers(sum);
        if (thread == 0) dev::barrier_arrive(vacant + (step - 1) % S::STAGES);

        const int lane = threadIdx.x % 32;
        auto end = [&](auto is_whole) {
            typedef GroupHeld<S, RUN, decltype(is_whole)::value> Held;
            Held held(sum);
            held.slice = tile.slice;
            held.first_row = tile.row + group * 64 + thread / 32 * 16 + lane / 4;
            held.first_column = tile.column + thread % 4 * RUN;
            held.m = p.m;
            held.n = p.n;
            if constexpr (E::WHOLE_ROWS) epilogue.finish(held, row_sums);
            else if constexpr (E::ROW_BY_ROW && LAYOUT == K_MAJOR) epilogue.finish(held);
            else finish_runs(epilogue, held);
        };
        if (E::MIXES && tile.row + S::BM <= p.m && tile.column + S::BN <= p.n) end(std::bool_constant<E::MIXES>());
        else end(std::false_type());
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

// Whether blocks begin while those of the launch before end: with TRM_EARLY_LAUNCHES in the environment, to compare.
static inline bool begins_early() {
    static const bool early = getenv("TRM_EARLY_LAUNCHES") != nullptr;
    return early;
}

// As launch_shape.
template <class S, Layout LAYOUT, class E>
int launch_by_groups(const void *a, const void *b, int64_t m, int64_t n, int64_t k, int64_t slice, const E &epilogue,
                     trm_stream stream) {
    constexpr int BYTES = S::STAGES * S::STAGE_BYTES + 2 * S::STAGES * 8 + (E::WHOLE_ROWS ? RowSums::BYTES : 0);
    Problem problem;
    Boxes boxes_a, boxes_b;
    int status = problem_of<S>(&problem, a, b, m, n, k, slice);
    if (LAYOUT == K_MAJOR) {
        if (!status) status = boxes_of(&boxes_a, a, k, m, m, S::BM);
        const int64_t rows = pieces(n, 4 * E::RUN) * 4 * E::RUN; // of the packed weight
        if (!status) status = boxes_of(&boxes_b, b, k, rows, rows, S::BN);
    } else {
        if (!status) status = boxes_of(&boxes_a, a, m, k, problem.slice, 64);
        if (!status) status = boxes_of(&boxes_b, b, n, k, problem.slice, 64);
    }
    if (status) return status;
    auto kernel = gemm_by_groups<S, LAYOUT, E>;
    if (int status = TRM_ALLOW_SHARED(kernel, BYTES)) return status;
    const dim3 threads(3 * GROUP);
    const int cluster = E::WHOLE_ROWS ? problem.tiles_n : 1, clusters = problem.tiles / cluster;
    if (cluster > RowSums::MOST) return 1;
    const int at_once = E::WHOLE_ROWS ? dev::clusters_at_once(kernel, cluster, threads, BYTES) : dev::processors();
    const dim3 blocks((unsigned)((clusters < at_once ? clusters : at_once) * cluster));
    return TRM_LAUNCH_CLUSTERS(kernel, cluster, begins_early(), blocks, threads, BYTES, stream, problem, boxes_a, boxes_b, epilogue);
}
} // namespace

// Attention by the instructions of compute capability 9.0, for heads of 64 features, as attention_bf16.cu says it: rows of one side
// own sums, which run over the rows of the other side, its columns. What the passes share, and the forward pass.
//
// One thread of a block fetches, GROUPS warpgroups multiply. Each of them has 64 rows, as left operands in registers from
// beginning to end; weights become left operands where they are made. Columns come in tiles, which all groups read from the
// same places; whoever needs time for exponentials leaves the tensor cores to the others.
//
//                           group 1                     group 2          …           64 rows each
//     tile of columns       S = x uᵀ, weights, += w u   the same                     one of STAGES places, 128 bytes a row, swizzled
//
// Blocks live as long as their launch and take items, GROUPS · 64 rows of a head, in turn; the first tiles of an item are on their
// way while sums of the one before are written.
#pragma once
#include "attention_groups.cuh"

namespace {
// The items of a launch.
struct HeadItems {
    int count, per_head;
    static HeadItems of(const trm_attention &shape, int rows) {
        const int per_head = (int)((shape.len + rows - 1) / rows);
        return {(int)(shape.sequences * shape.heads) * per_head, per_head};
    }
};
// Two boxes of 64 features: where their features begin in the rows of an array.
struct BoxPair {
    const dev::TensorMap *maps[2];
    int features[2];
};

// How a block is laid out: OWN operands of GROUP_ROWS rows for each group, then the tiles, pairs of COLUMNS rows, then what there is
// for each column besides, two numbers, then barriers.
template <int GROUPS_, int OWN_, int COLUMNS_, int STAGES_, bool HAS_NUMBERS_> struct Walk {
    static constexpr int GROUPS = GROUPS_, OWN = OWN_, COLUMNS = COLUMNS_, STAGES = STAGES_, ROWS = GROUPS * GROUP_ROWS;
    static constexpr bool HAS_NUMBERS = HAS_NUMBERS_;
    static constexpr int THREADS = (GROUPS + 1) * GROUP, OWN_BYTES = GROUP_ROWS * 128, TILE_BYTES = COLUMNS * 128;
    static constexpr int TILES = GROUPS * OWN * OWN_BYTES, NUMBERS = TILES + STAGES * 2 * TILE_BYTES;
    static constexpr int BARRIERS = NUMBERS + HAS_NUMBERS * STAGES * 2 * COLUMNS * 4, SHARED = BARRIERS + Ring<STAGES>::BYTES + 2 * GROUPS * 8;
    static_assert(SHARED <= 227 << 10, "a block has room for it");
    // Registers of the threads that fetch and of those that multiply. Together they are what the block is launched with.
    static constexpr int FEW = GROUPS == 2 ? 40 : 32, MANY = GROUPS == 2 ? 232 : 160;
    unsigned char *shared;

    __device__ __forceinline__ unsigned char *own(int group, int operand) const { return shared + (group * OWN + operand) * OWN_BYTES; }
    __device__ __forceinline__ unsigned char *tile(int step, int operand) const {
        return shared + TILES + (step % STAGES * 2 + operand) * TILE_BYTES;
    }
    __device__ __forceinline__ float *numbers(int step, int which) const {
        return (float *)(shared + NUMBERS) + (step % STAGES * 2 + which) * COLUMNS;
    }
    __device__ __forceinline__ Ring<STAGES> ring() const { return {(uint64_t *)(shared + BARRIERS)}; } // of the tiles
    __device__ __forceinline__ uint64_t *has_own(int group) const {
        return (uint64_t *)(shared + BARRIERS + Ring<STAGES>::BYTES) + group;
    }
    __device__ __forceinline__ uint64_t *has_read_own(int group) const { return has_own(group) + GROUPS; }

    // All threads of the block call it.
    __device__ __forceinline__ void begin() const {
        if (threadIdx.x == 0) {
            ring().begin(1 + HAS_NUMBERS, GROUPS * GROUP / 32);
            for (int g = 0; g < GROUPS; g++) {
                dev::barrier_init(has_own(g), 1);
                dev::barrier_init(has_read_own(g), GROUP / 32);
            }
            dev::fence_barrier_init();
        }
        __syncthreads();
    }
    static __device__ __forceinline__ int tiles_of(int len) { return (len + COLUMNS - 1) / COLUMNS; }

    // What one thread does for all: it fetches all rows and columns. `of` gives an item's head the boxes of rows and of columns.
    template <class Of> __device__ __forceinline__ void fetch(const trm_attention &shape, HeadItems items, Of of) const {
        const int heads = (int)shape.heads, len = (int)shape.len;
        int step = 0, round = 0;
#pragma unroll 1
        for (int item = blockIdx.x; item < items.count; item += gridDim.x, round++) {
            const int head = item / items.per_head, first = item % items.per_head * ROWS, sequence = head / heads;
            BoxPair rows, columns;
            of(head % heads * GROUP_DIM, rows, columns);
#pragma unroll 1
            for (int g = 0; g < GROUPS; g++) {
                if (round > 0) dev::barrier_wait(has_read_own(g), (round - 1) & 1);
                dev::barrier_expect(has_own(g), OWN * OWN_BYTES);
                for (int i = 0; i < OWN; i++)
                    dev::tensor_load_3d(own(g, i), rows.maps[i], rows.features[i], first + g * GROUP_ROWS, sequence, has_own(g));
            }
#pragma unroll 1
            for (int t = 0; t < tiles_of(len); t++, step++) {
                ring().wait_for_place(step);
                dev::barrier_expect(ring().full(step), 2 * TILE_BYTES);
                for (int i = 0; i < 2; i++)
                    dev::tensor_load_3d(tile(step, i), columns.maps[i], columns.features[i], t * COLUMNS, sequence, ring().full(step));
            }
        }
    }
    // What one warp does for all: it brings two numbers of each column, which `read` makes of what all heads have, and its place
    // there; 0 where there is no column.
    template <class Read> __device__ __forceinline__ void fetch_numbers(int len, HeadItems items, Read read) const {
        constexpr int EACH = COLUMNS / 32;
        const int lane = threadIdx.x % 32;
        int step = 0;
#pragma unroll 1
        for (int item = blockIdx.x; item < items.count; item += gridDim.x) {
            const int64_t before = (int64_t)(item / items.per_head) * len;
#pragma unroll 1
            for (int first = 0; first < len; first += COLUMNS, step++) {
                float x[EACH][2] = {};
#pragma unroll
                for (int i = 0; i < EACH; i++)
                    if (first + i * 32 + lane < len) read(before + first + i * 32 + lane, x[i]);
                ring().wait_for_place(step);
#pragma unroll
                for (int i = 0; i < EACH; i++)
                    for (int which = 0; which < 2; which++) numbers(step, which)[i * 32 + lane] = x[i][which];
                __syncwarp();
                if (lane == 0) dev::barrier_arrive(ring().full(step));
            }
        }
    }

    // ---- Of the groups that multiply; groups count from 0 ----

    // The calling warp has loaded its own rows.
    __device__ __forceinline__ void release_own(int group) const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) dev::barrier_arrive(has_read_own(group));
    }
    // Lets a warp without rows pass by an item's tiles.
    __device__ __forceinline__ void pass(int step, int tiles) const {
        for (int last = step + tiles; step < last; step++) {
            ring().wait_for(step);
            ring().release(step);
        }
    }
};

// ---- Forward -----------------------------------------------------------------------------------------------------------------

typedef Walk<3, 1, 96, 6, false> ForwardWalk;

// The softmax is made online, as in attention_bf16.cu. The scores of the next tile are made while this one's weights are still being
// multiplied; so a tile's exponentials have the other products of their own group beside them, too.
__global__ void __launch_bounds__(ForwardWalk::THREADS, 1)
    attend_by_groups(const __grid_constant__ dev::TensorMap row_boxes, const __grid_constant__ dev::TensorMap column_boxes,
                     bf16 *__restrict__ out, float *__restrict__ lse, trm_attention shape, HeadItems items, float scale) {
#if TRM_SM90A
    typedef ForwardWalk W;
    constexpr int N = W::COLUMNS;
    TRM_SHARED(shared);
    const W walk{shared};
    walk.begin();
    const int group = threadIdx.x / GROUP - 1, width = (int)(shape.heads * shape.head_dim);
    if (group < 0) {
        dev::registers_down<W::FEW>();
        if (threadIdx.x == 0)
            walk.fetch(shape, items, [&](int feature, BoxPair &rows, BoxPair &columns) {
                rows = {{&row_boxes, nullptr}, {QUERY * width + feature, 0}};
                columns = {{&column_boxes, &column_boxes}, {KEY * width + feature, VALUE * width + feature}};
            });
        return;
    }
    dev::registers_up<W::MANY>();
    const int len = (int)shape.len, tiles = W::tiles_of(len);
    int step = 0, round = 0;
#pragma unroll 1
    for (int item = blockIdx.x; item < items.count; item += gridDim.x, round++) {
        const Head head(shape, item / items.per_head);
        const int first = item % items.per_head * W::ROWS + group * GROUP_ROWS;
        dev::barrier_wait(walk.has_own(group), round & 1);
        GroupRows queries;
        load_rows(queries, walk.own(group, 0));
        walk.release_own(group);
        if (first >= len) {
            walk.pass(step, tiles);
            step += tiles;
            continue;
        }
        float s[N / 2], max[2] = {-INFINITY, -INFINITY}, total[2] = {}, shrink[2];
        uint32_t weights[N / 16][4];
        GroupSums sums;
        auto to_weights = [&](int tile) {
            mask_scores<N>(s, len - tile * N);
#pragma unroll
            for (int r = 0; r < 2; r++) { // row g, then row g + 8
                float new_max = max[r], sum[2] = {};
#pragma unroll
                for (int i = r * 2; i < N / 2; i += 4) new_max = fmaxf(new_max, fmaxf(s[i], s[i + 1]));
                new_max = dev::quad_max(new_max);
                const float exponent = scale * new_max;
                shrink[r] = dev::exp2_approx(scale * max[r] - exponent);
                max[r] = new_max;
#pragma unroll
                for (int i = r * 2; i < N / 2; i += 4)
#pragma unroll
                    for (int e = 0; e < 2; e++) {
                        s[i + e] = dev::exp2_approx(scale * s[i + e] - exponent);
                        sum[e] += s[i + e];
                    }
                total[r] = total[r] * shrink[r] + (sum[0] + sum[1]);
            }
        };
        walk.ring().wait_for(step);
        dev::wgmma_registers(s);
        dev::wgmma_fence();
        begin_scores<N>(s, queries, walk.tile(step, 0));
        dev::wgmma_wait<0>();
        dev::wgmma_registers(s);
        to_weights(0);
        round_weights<N>(weights, s);
#pragma unroll 1
        for (int tile = 1; tile < tiles; tile++, step++) {
            walk.ring().wait_for(step + 1);
            dev::wgmma_registers(s), dev::wgmma_registers(sums);
            dev::wgmma_fence();
            begin_scores<N>(s, queries, walk.tile(step + 1, 0));
            begin_sums<N>(sums, weights, walk.tile(step, 1), tile > 1);
            dev::wgmma_wait<1>();
            dev::wgmma_registers(s);
            to_weights(tile);
            dev::before_wait(total[0] + total[1], walk.own(group, 0));
            dev::wgmma_wait<0>();
            dev::wgmma_registers(sums);
            walk.ring().release(step);
#pragma unroll
            for (int i = 0; i < GROUP_DIM / 2; i++) sums[i] *= shrink[i / 2 % 2];
            round_weights<N>(weights, s);
        }
        dev::wgmma_registers(sums);
        dev::wgmma_fence();
        begin_sums<N>(sums, weights, walk.tile(step, 1), tiles > 1);
        dev::wgmma_wait<0>();
        dev::wgmma_registers(sums);
        walk.ring().release(step);
        step++;

        const float exponent[2] = {scale * max[0], scale * max[1]};
        float factor[2];
        finish_softmax(factor, head, lse, exponent, total, first);
        store_sums(head.output(out), sums, factor, first, len, nullptr);
    }
#endif
}

// ---- Launches ----------------------------------------------------------------------------------------------------------------

// A block for each multiprocessor, or for each item.
template <class W, class Kernel, class... A>
int launch_walk(Kernel kernel, const trm_attention &shape, trm_stream stream, const A &...arguments) {
    const HeadItems items = HeadItems::of(shape, W::ROWS);
    const dim3 blocks((unsigned)(items.count < dev::processors() ? items.count : dev::processors()));
    if (int status = TRM_ALLOW_SHARED(kernel, W::SHARED)) return status;
    return TRM_LAUNCH(kernel, blocks, dim3(W::THREADS), W::SHARED, stream, arguments..., shape, items, scale_of(shape));
}

static inline int launch_attend_by_groups(trm_array qkv, trm_array out, trm_array lse, const trm_attention &shape, trm_stream stream) {
    dev::TensorMap rows, columns;
    const int64_t width = 3 * shape.heads * GROUP_DIM;
    if (int status = boxes_of(&rows, qkv, shape, width, GROUP_ROWS)) return status;
    if (int status = boxes_of(&columns, qkv, shape, width, ForwardWalk::COLUMNS)) return status;
    return launch_walk<ForwardWalk>(attend_by_groups, shape, stream, rows, columns, (bf16 *)out.data, (float *)lse.data);
}
} // namespace

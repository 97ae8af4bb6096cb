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
#include "attention_tiles.cuh"
#include "hopper.cuh"

namespace {
constexpr int GROUP_DIM = 64, GROUP_ROWS = 64; // features of a head, and rows of a group
typedef uint32_t GroupRows[GROUP_DIM / 16][4]; // a group's rows as left operands
typedef float GroupSums[GROUP_DIM / 2];        // fragment f has its sums at 4f, as `d` of mma_16816

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
    static constexpr int BARRIERS = NUMBERS + HAS_NUMBERS * STAGES * 2 * COLUMNS * 4, SHARED = BARRIERS + (2 * STAGES + 2 * GROUPS) * 8;
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
    __device__ __forceinline__ uint64_t *full(int step) const { return (uint64_t *)(shared + BARRIERS) + step % STAGES; }
    __device__ __forceinline__ uint64_t *vacant(int step) const { return full(step) + STAGES; }
    __device__ __forceinline__ uint64_t *has_own(int group) const { return (uint64_t *)(shared + BARRIERS) + 2 * STAGES + group; }
    __device__ __forceinline__ uint64_t *has_read_own(int group) const { return has_own(group) + GROUPS; }

    // All threads of the block call it.
    __device__ __forceinline__ void begin() const {
        if (threadIdx.x == 0) {
            for (int s = 0; s < STAGES; s++) {
                dev::barrier_init(full(s), 1 + HAS_NUMBERS);
                dev::barrier_init(vacant(s), GROUPS * GROUP / 32);
            }
            for (int g = 0; g < GROUPS; g++) {
                dev::barrier_init(has_own(g), 1);
                dev::barrier_init(has_read_own(g), GROUP / 32);
            }
            dev::fence_barrier_init();
        }
        __syncthreads();
    }
    static __device__ __forceinline__ int tiles_of(int len) { return (len + COLUMNS - 1) / COLUMNS; }
    // Waits until the place of a step is free.
    __device__ __forceinline__ void wait_for_place(int step) const {
        if (step >= STAGES) dev::barrier_wait(vacant(step), (step / STAGES - 1) & 1);
    }

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
                wait_for_place(step);
                dev::barrier_expect(full(step), 2 * TILE_BYTES);
                for (int i = 0; i < 2; i++)
                    dev::tensor_load_3d(tile(step, i), columns.maps[i], columns.features[i], t * COLUMNS, sequence, full(step));
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
                wait_for_place(step);
#pragma unroll
                for (int i = 0; i < EACH; i++)
                    for (int which = 0; which < 2; which++) numbers(step, which)[i * 32 + lane] = x[i][which];
                __syncwarp();
                if (lane == 0) dev::barrier_arrive(full(step));
            }
        }
    }

    // ---- Of the groups that multiply; groups count from 0 ----

    __device__ __forceinline__ void wait_for_tile(int step) const { dev::barrier_wait(full(step), step / STAGES & 1); }
    // The calling warp has read what it wants of a tile. Each warp says so: a product keeps a group together, but numbers are read
    // by threads.
    __device__ __forceinline__ void release(int step) const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) dev::barrier_arrive(vacant(step));
    }
    // The calling warp has loaded its own rows.
    __device__ __forceinline__ void release_own(int group) const {
        __syncwarp();
        if (threadIdx.x % 32 == 0) dev::barrier_arrive(has_read_own(group));
    }
    // Lets a warp without rows pass by an item's tiles.
    __device__ __forceinline__ void pass(int step, int tiles) const {
        for (int last = step + tiles; step < last; step++) {
            wait_for_tile(step);
            release(step);
        }
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
// Takes all weight from columns that are not there: only the first `left` of the N are.
template <int N> __device__ __forceinline__ void mask_scores(float (&s)[N / 2], int left) {
    if (left >= N) return;
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        if (i / 4 * 8 + (int)threadIdx.x % 4 * 2 + i % 2 >= left) s[i] = -INFINITY;
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
    const int len = (int)shape.len, tiles = W::tiles_of(len), lane = threadIdx.x % 32;
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
        walk.wait_for_tile(step);
        dev::wgmma_registers(s);
        dev::wgmma_fence();
        begin_scores<N>(s, queries, walk.tile(step, 0));
        dev::wgmma_wait<0>();
        dev::wgmma_registers(s);
        to_weights(0);
        round_weights<N>(weights, s);
#pragma unroll 1
        for (int tile = 1; tile < tiles; tile++, step++) {
            walk.wait_for_tile(step + 1);
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
            walk.release(step);
#pragma unroll
            for (int i = 0; i < GROUP_DIM / 2; i++) sums[i] *= shrink[i / 2 % 2];
            round_weights<N>(weights, s);
        }
        dev::wgmma_registers(sums);
        dev::wgmma_fence();
        begin_sums<N>(sums, weights, walk.tile(step, 1), tiles > 1);
        dev::wgmma_wait<0>();
        dev::wgmma_registers(sums);
        walk.release(step);
        step++;

        float factor[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int row = first + threadIdx.x % GROUP / 32 * 16 + lane / 4 + r * 8;
            total[r] = dev::quad_sum(total[r]);
            factor[r] = 1.0f / total[r];
            if (lane % 4 == 0 && row < len) head.statistics(lse)[row] = scale * LN_2 * max[r] + logf(total[r]);
        }
        store_sums(head.output(out), sums, factor, first, len, nullptr);
    }
#endif
}

// ---- Launches ----------------------------------------------------------------------------------------------------------------

// Boxes of so many rows of an array [sequences, len, width].
static inline int boxes_of(dev::TensorMap *map, trm_array x, const trm_attention &shape, int64_t width, int rows) {
    return dev::tensor_map_3d(map, x.data, {width, shape.len, shape.sequences}, {width * 2, shape.len * width * 2}, rows);
}
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

// The backward pass of attention by the instructions of compute capability 9.0: attention_hopper.cuh says how its blocks work.
//
// Rows (x, y) meet columns (u, v), as in attention_bf16.cu: (q, d) meet (k, v) for dq; with KEYS (k, v) meet (q, d) for dk and dv.
// Of a tile, in the order in which tensor cores (left) and everything else (right) have it:
//
//     S = x uᵀ
//     y vᵀ                          p = 2^(scale·S − log2(e)·lse)
//     dy += p v  (with KEYS)        ds = p (y vᵀ − mean)
//     dx += ds u
//
// Two groups do this, so that one has the tensor cores while the other one waits for its sums or for exponentials. No product is left
// running from one tile to the next: the compiler would wait after each instruction.
#pragma once
#include "attention_hopper.cuh"

namespace {
template <bool KEYS> using BackwardWalk = Walk<2, 2, KEYS ? 64 : 96, KEYS ? 6 : 5, KEYS>;

template <bool KEYS>
__global__ void __launch_bounds__(BackwardWalk<KEYS>::THREADS, 1)
    attend_backward_by_groups(const __grid_constant__ dev::TensorMap row_boxes, const __grid_constant__ dev::TensorMap column_boxes,
                              const __grid_constant__ dev::TensorMap d_boxes, const float *__restrict__ cos_sin,
                              const float *__restrict__ lse, const float *__restrict__ means, bf16 *__restrict__ d_qkv,
                              trm_attention shape, HeadItems items, float scale) {
#if TRM_SM90A
    typedef BackwardWalk<KEYS> W;
    constexpr int N = W::COLUMNS;
    TRM_SHARED(shared);
    const W walk{shared};
    walk.begin();
    const int group = threadIdx.x / GROUP - 1, width = (int)(shape.heads * shape.head_dim), len = (int)shape.len;
    if (group < 0) {
        dev::registers_down<W::FEW>();
        if (threadIdx.x == 0)
            walk.fetch(shape, items, [&](int feature, BoxPair &rows, BoxPair &columns) {
                const int query = QUERY * width + feature, key = KEY * width + feature, value = VALUE * width + feature;
                if (KEYS) {
                    rows = {{&row_boxes, &row_boxes}, {key, value}};
                    columns = {{&column_boxes, &d_boxes}, {query, feature}};
                } else {
                    rows = {{&row_boxes, &d_boxes}, {query, feature}};
                    columns = {{&column_boxes, &column_boxes}, {key, value}};
                }
            });
        if (KEYS && threadIdx.x / 32 == 1)
            walk.fetch_numbers(len, items, [&](int64_t query, float (&x)[2]) { x[0] = LOG2_E * lse[query], x[1] = means[query]; });
        return;
    }
    dev::registers_up<W::MANY>();
    const int tiles = W::tiles_of(len), lane = threadIdx.x % 32;
    int step = 0, round = 0;
#pragma unroll 1
    for (int item = blockIdx.x; item < items.count; item += gridDim.x, round++) {
        const Head head(shape, item / items.per_head);
        const int first = item % items.per_head * W::ROWS + group * GROUP_ROWS;
        dev::barrier_wait(walk.has_own(group), round & 1);
        GroupRows x, y;
        load_rows(x, walk.own(group, 0));
        load_rows(y, walk.own(group, 1));
        walk.release_own(group);
        if (first >= len) {
            walk.pass(step, tiles);
            step += tiles;
            continue;
        }
        float of_row[2][2] = {}; // of the lane's two rows: log2(e)·lse and mean, where rows are queries
#pragma unroll
        for (int r = 0; r < 2 && !KEYS; r++) {
            const int row = first + threadIdx.x % GROUP / 32 * 16 + lane / 4 + r * 8;
            if (row >= len) continue;
            of_row[r][0] = LOG2_E * head.statistics(lse)[row];
            of_row[r][1] = head.statistics(means)[row];
        }
        float s[N / 2], ds[N / 2];
        uint32_t of_s[N / 16][4], of_ds[N / 16][4];
        GroupSums dx, dy;
#pragma unroll 1
        for (int tile = 0; tile < tiles; tile++, step++) {
            const float *const numbers = walk.numbers(step, 0) + lane % 4 * 2;
            walk.ring().wait_for(step);
            dev::wgmma_registers(s), dev::wgmma_registers(ds);
            dev::wgmma_fence();
            begin_scores<N>(s, x, walk.tile(step, 0));
            begin_scores<N>(ds, y, walk.tile(step, 1));
            dev::wgmma_wait<1>();
            dev::wgmma_registers(s);
            // Queries that are not there need no mask: all that is known of them is 0, so they add p·0 to dy and 0 to dx.
            if (!KEYS) mask_scores<N>(s, len - tile * N);
#pragma unroll
            for (int f = 0; f < N / 8; f++) {
                float2 of_columns = {};
                if (KEYS) of_columns = *(const float2 *)(numbers + f * 8);
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float l = KEYS ? (e % 2 ? of_columns.y : of_columns.x) : of_row[e / 2][0];
                    s[f * 4 + e] = dev::exp2_approx(scale * s[f * 4 + e] - l);
                }
            }
            if (KEYS) {
                round_weights<N>(of_s, s);
                dev::wgmma_registers(dy);
                dev::wgmma_fence();
                begin_sums<N>(dy, of_s, walk.tile(step, 1), tile > 0);
                dev::wgmma_wait<1>();
            } else {
                uint32_t all = 0;
#pragma unroll
                for (int i = 0; i < N / 2; i++) all |= __float_as_uint(s[i]);
                dev::before_wait(__uint_as_float(all), walk.own(group, 0));
                dev::wgmma_wait<0>();
            }
            dev::wgmma_registers(ds);
#pragma unroll
            for (int f = 0; f < N / 8; f++) {
                float2 of_columns = {};
                if (KEYS) of_columns = *(const float2 *)(numbers + N + f * 8);
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const float mean = KEYS ? (e % 2 ? of_columns.y : of_columns.x) : of_row[e / 2][1];
                    ds[f * 4 + e] = s[f * 4 + e] * (ds[f * 4 + e] - mean);
                }
            }
            round_weights<N>(of_ds, ds);
            dev::wgmma_registers(dx);
            dev::wgmma_fence();
            begin_sums<N>(dx, of_ds, walk.tile(step, 0), tile > 0);
            dev::wgmma_wait<0>();
            dev::wgmma_registers(dx), dev::wgmma_registers(dy);
            walk.ring().release(step);
        }
        const float of_dx[2] = {scale * LN_2, scale * LN_2}, of_dy[2] = {1, 1};
        store_sums(head.part(d_qkv, KEYS ? KEY : QUERY), dx, of_dx, first, len, cos_sin);
        if (KEYS) store_sums(head.part(d_qkv, VALUE), dy, of_dy, first, len, nullptr);
    }
#endif
}

template <bool KEYS>
int launch_attend_backward_by_groups(trm_array qkv, trm_array cos_sin, trm_array lse, trm_array d_out, trm_array d_qkv, trm_array means,
                                     const trm_attention &shape, trm_stream stream) {
    typedef BackwardWalk<KEYS> W;
    dev::TensorMap rows, columns, d;
    const int64_t width = shape.heads * GROUP_DIM;
    if (int status = boxes_of(&rows, qkv, shape, 3 * width, GROUP_ROWS)) return status;
    if (int status = boxes_of(&columns, qkv, shape, 3 * width, W::COLUMNS)) return status;
    if (int status = boxes_of(&d, d_out, shape, width, KEYS ? W::COLUMNS : GROUP_ROWS)) return status;
    return launch_walk<W>(attend_backward_by_groups<KEYS>, shape, stream, rows, columns, d, (const float *)cos_sin.data,
                          (const float *)lse.data, (const float *)means.data, (bf16 *)d_qkv.data);
}
} // namespace

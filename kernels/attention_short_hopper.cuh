// Attention of short sequences by the instructions of compute capability 9.0, for heads of 64 features whose q and k have turned
// already. As in attention_short.cu, memory limits it, and a head is done at once. Here one thread of a block asks for the heads
// after next while warpgroups compute, so that memory always has something to do; rows are not copied by threads, and a tile is read
// from shared memory by an instruction of four warps, where each warp read it by itself.
//
//                 a head in shared memory                       each of two groups does          and waits for
//     forward     q [128, 64], k and v [LEN, 64]                64 queries                       nobody
//     backward    k and v [128, 64], q, d and out [LEN, 64]     64 keys, then 64 queries         the other group: statistics, dsᵀ
//
// LEN is the sequence's length in whole sixteens. Rows behind its end are zeros.
#pragma once
#include "attention_groups.cuh"

namespace {
constexpr int TALL = 2 * GROUP_ROWS; // rows of an operand of which each group has half
// Boxes of so many places fit, with what else a block needs.
constexpr int places(int bytes, int besides, int most) {
    return (((227 << 10) - besides) / bytes < most) ? ((227 << 10) - besides) / bytes : most;
}
// The boxes of an array at a head: which of its features, of which sequence.
struct BoxOfHead {
    const dev::TensorMap *map;
    int feature, bytes;
};
// What one thread does for all: it fetches the boxes of head after head, into places that are `bytes` long. `of` says which they are.
template <int STAGES, int BOXES, class Of>
__device__ __forceinline__ void fetch_heads(Ring<STAGES> ring, unsigned char *places, int bytes, const trm_attention &shape, Of of) {
    const int heads = (int)shape.heads, count = (int)(shape.sequences * shape.heads);
    int step = 0;
#pragma unroll 1
    for (int head = blockIdx.x; head < count; head += gridDim.x, step++) {
        BoxOfHead boxes[BOXES];
        of(head % heads * GROUP_DIM, boxes);
        unsigned char *to = places + step % STAGES * bytes;
        ring.wait_for_place(step);
        dev::barrier_expect(ring.full(step), bytes);
#pragma unroll
        for (int i = 0; i < BOXES; i++) {
            dev::tensor_load_3d(to, boxes[i].map, boxes[i].feature, 0, head / heads, ring.full(step));
            to += boxes[i].bytes;
        }
    }
}
// Begins s = x uᵀ for N columns, which are the rows u of a tile; x are the 64 rows from `rows` on, in shared memory as well.
template <int N> __device__ __forceinline__ void begin_scores(float (&s)[N / 2], const unsigned char *rows, const unsigned char *u) {
    const uint64_t left = dev::descriptor(rows, 0, 1024, true), right = dev::descriptor(u, 0, 1024, true);
#pragma unroll
    for (int k = 0; k < GROUP_DIM / 16; k++)
        dev::Wgmma<N>::template multiply<0, 0>(s, left + k * (32 / 16), right + k * (32 / 16), k > 0);
    dev::wgmma_commit();
}

// ---- Forward -----------------------------------------------------------------------------------------------------------------

template <int LEN> struct ShortForward {
    static constexpr int THREADS = 3 * GROUP;
    static constexpr int Q_BYTES = TALL * 128, BYTES = Q_BYTES + 2 * LEN * 128, STAGES = places(BYTES, 128, 5);
    static constexpr int SHARED = STAGES * BYTES + Ring<STAGES>::BYTES;
};

template <int LEN>
__global__ void __launch_bounds__(ShortForward<LEN>::THREADS, 1)
    attend_heads(const __grid_constant__ dev::TensorMap tall_boxes, const __grid_constant__ dev::TensorMap boxes, bf16 *__restrict__ out,
                 float *__restrict__ lse, trm_attention shape, float scale) {
#if TRM_SM90A
    typedef ShortForward<LEN> F;
    TRM_SHARED(shared);
    const Ring<F::STAGES> ring{(uint64_t *)(shared + F::STAGES * F::BYTES)};
    ring.begin_block(1, 2 * GROUP / 32);
    const int group = threadIdx.x / GROUP - 1, width = (int)(shape.heads * shape.head_dim);
    if (group < 0) {
        dev::registers_down<24>();
        if (threadIdx.x == 0)
            fetch_heads<F::STAGES, 3>(ring, shared, F::BYTES, shape, [&](int feature, BoxOfHead (&of)[3]) {
                of[0] = {&tall_boxes, QUERY * width + feature, F::Q_BYTES};
                of[1] = {&boxes, KEY * width + feature, LEN * 128};
                of[2] = {&boxes, VALUE * width + feature, LEN * 128};
            });
        return;
    }
    dev::registers_up<240>();
    const int len = (int)shape.len, first = group * GROUP_ROWS;
    int step = 0;
#pragma unroll 1
    for (int item = blockIdx.x; item < shape.sequences * shape.heads; item += gridDim.x, step++) {
        const unsigned char *const queries = shared + step % F::STAGES * F::BYTES, *const keys = queries + F::Q_BYTES;
        float s[LEN / 2];
        ring.wait_for(step);
        dev::wgmma_registers(s);
        dev::wgmma_fence();
        begin_scores<LEN>(s, queries + first * 128, keys);
        dev::wgmma_wait<0>();
        dev::wgmma_registers(s);
        mask_scores<LEN, LEN - 16>(s, len);
        float max[2] = {-INFINITY, -INFINITY}, sum[2] = {}; // of row g, of row g + 8
#pragma unroll
        for (int i = 0; i < LEN / 2; i++) max[i / 2 % 2] = fmaxf(max[i / 2 % 2], s[i]);
        max[0] = scale * dev::quad_max(max[0]);
        max[1] = scale * dev::quad_max(max[1]);
#pragma unroll
        for (int i = 0; i < LEN / 2; i++) {
            s[i] = dev::exp2_approx(scale * s[i] - max[i / 2 % 2]);
            sum[i / 2 % 2] += s[i];
        }
        uint32_t weights[LEN / 16][4];
        round_weights<LEN>(weights, s);
        GroupSums sums;
        dev::wgmma_registers(sums);
        dev::wgmma_fence();
        begin_sums<LEN>(sums, weights, keys + LEN * 128, 0);
        const Head head(shape, item);
        float factor[2];
        finish_softmax(factor, head, lse, max, sum, first);
        dev::wgmma_wait<0>();
        dev::wgmma_registers(sums);
        ring.release(step);
        store_sums(head.output(out), sums, factor, first, len, nullptr);
    }
#endif
}

// ---- Backward ----------------------------------------------------------------------------------------------------------------

template <int LEN> struct ShortBackward {
    static constexpr int THREADS = 3 * GROUP, TALL_BYTES = TALL * 128, SHORT_BYTES = LEN * 128;
    static constexpr int BYTES = 2 * TALL_BYTES + 3 * SHORT_BYTES, DS_BYTES = 2 * SHORT_BYTES; // dsᵀ: 64 queries of each key, then 64 more
    static constexpr int NUMBERS_BYTES = LEN * 8, STAGES = places(BYTES, DS_BYTES + NUMBERS_BYTES + 128, 2);
    static constexpr int DS = STAGES * BYTES, NUMBERS = DS + DS_BYTES, BARRIERS = NUMBERS + NUMBERS_BYTES;
    static constexpr int SHARED = BARRIERS + Ring<STAGES>::BYTES;
    static_assert(STAGES == 2, "one is filled while the other one is read");
};

template <int LEN>
__global__ void __launch_bounds__(ShortBackward<LEN>::THREADS, 1)
    attend_heads_backward(const __grid_constant__ dev::TensorMap tall_boxes, const __grid_constant__ dev::TensorMap boxes,
                          const __grid_constant__ dev::TensorMap d_boxes, const __grid_constant__ dev::TensorMap out_boxes,
                          const float *__restrict__ cos_sin, const float *__restrict__ lse, bf16 *__restrict__ d_qkv,
                          trm_attention shape, float scale) {
#if TRM_SM90A
    typedef ShortBackward<LEN> S;
    TRM_SHARED(shared);
    const Ring<S::STAGES> ring{(uint64_t *)(shared + S::BARRIERS)};
    ring.begin_block(1, 2 * GROUP / 32);
    const int group = threadIdx.x / GROUP - 1, width = (int)(shape.heads * shape.head_dim);
    if (group < 0) {
        dev::registers_down<24>();
        if (threadIdx.x == 0)
            fetch_heads<S::STAGES, 5>(ring, shared, S::BYTES, shape, [&](int feature, BoxOfHead (&of)[5]) {
                of[0] = {&tall_boxes, KEY * width + feature, S::TALL_BYTES};
                of[1] = {&tall_boxes, VALUE * width + feature, S::TALL_BYTES};
                of[2] = {&boxes, QUERY * width + feature, S::SHORT_BYTES};
                of[3] = {&d_boxes, feature, S::SHORT_BYTES};
                of[4] = {&out_boxes, feature, S::SHORT_BYTES};
            });
        return;
    }
    dev::registers_up<240>();
    constexpr int BOTH = 2 * GROUP, BARRIER = 1; // threads of both groups, and where they meet
    const int len = (int)shape.len, thread = threadIdx.x % GROUP, lane = thread % 32, first = group * GROUP_ROWS;
    const int own = first + thread / 32 * 16 + lane / 4; // the lane's first key; the other one is 8 further
    unsigned char *const ds_t = shared + S::DS;
    float *const numbers = (float *)(shared + S::NUMBERS); // of queries: lse·log2(e), Σ d·out
    // Two threads have a query's numbers; they ask for its lse a head ahead. A query that is not there has no weight for any key.
    const int query = (threadIdx.x - GROUP) / 2, half = threadIdx.x % 2;
    auto lse_of = [&](int item) {
        if (query >= len || item >= shape.sequences * shape.heads) return INFINITY;
        return LOG2_E * lse[(int64_t)item * len + query];
    };
    float next_lse = lse_of(blockIdx.x);
    int step = 0;
#pragma unroll 1
    for (int item = blockIdx.x; item < shape.sequences * shape.heads; item += gridDim.x, step++) {
        const unsigned char *const keys = shared + step % S::STAGES * S::BYTES, *const values = keys + S::TALL_BYTES;
        const unsigned char *const queries = values + S::TALL_BYTES, *const d = queries + S::SHORT_BYTES, *const outs = d + S::SHORT_BYTES;
        ring.wait_for(step);
        float s[LEN / 2], ds[LEN / 2];
        dev::wgmma_registers(s), dev::wgmma_registers(ds);
        dev::wgmma_fence();
        begin_scores<LEN>(s, keys + first * 128, queries);
        begin_scores<LEN>(ds, values + first * 128, d);
        float mean = 0;
        if (query < LEN) {
#pragma unroll
            for (int i = 0; i < 4; i++) { // of the row's 8 pieces
                const int at = query * 128 + ((half * 4 + i) ^ query % 8) * 16;
                float a[8], b[8];
                dev::load(a, (const bf16 *)(d + at));
                dev::load(b, (const bf16 *)(outs + at));
#pragma unroll
                for (int e = 0; e < 8; e++) mean += a[e] * b[e];
            }
        }
        mean += __shfl_xor_sync(~0u, mean, 1);
        if (query < LEN && half == 0) *(float2 *)(numbers + query * 2) = {next_lse, mean};
        next_lse = lse_of(item + gridDim.x);
        dev::threads_sync(BARRIER, BOTH); // and nobody needs the last head's dsᵀ any more

        dev::wgmma_wait<1>();
        dev::wgmma_registers(s);
        auto of_columns = [&](int f) { return *(const float4 *)(numbers + (f * 8 + lane % 4 * 2) * 2); }; // of two of them
#pragma unroll
        for (int f = 0; f < LEN / 8; f++) {
            const float4 columns = of_columns(f);
#pragma unroll
            for (int e = 0; e < 4; e++) s[f * 4 + e] = dev::exp2_approx(scale * s[f * 4 + e] - (e % 2 ? columns.z : columns.x));
        }
        uint32_t of_s[LEN / 16][4], of_ds[LEN / 16][4];
        GroupSums dq, dk, dv;
        round_weights<LEN>(of_s, s);
        dev::wgmma_registers(dv);
        dev::wgmma_fence();
        begin_sums<LEN>(dv, of_s, d, 0);
        dev::wgmma_wait<1>();
        dev::wgmma_registers(ds);
#pragma unroll
        for (int f = 0; f < LEN / 8; f++) {
            const float4 columns = of_columns(f);
#pragma unroll
            for (int e = 0; e < 4; e++) ds[f * 4 + e] = s[f * 4 + e] * (ds[f * 4 + e] - (e % 2 ? columns.w : columns.y));
        }
        round_weights<LEN>(of_ds, ds);
        dev::wgmma_registers(dk);
        dev::wgmma_fence();
        begin_sums<LEN>(dk, of_ds, queries, 0);
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int key = own + r * 8;
            if (key >= LEN) continue;
#pragma unroll
            for (int f = 0; f < LEN / 8; f++) {
                unsigned char *const piece = ds_t + f / 8 * S::SHORT_BYTES + key * 128 + (f % 8 ^ key % 8) * 16;
                // For a key that is not there, exp may have been infinite.
                *(uint32_t *)(piece + lane % 4 * 4) = key < len ? of_ds[f / 2][f % 2 * 2 + r] : 0;
            }
        }
        dev::fence_products();
        dev::threads_sync(BARRIER, BOTH);
        const uint64_t left = dev::descriptor(ds_t + group * S::SHORT_BYTES, 0, 1024, true), right = dev::descriptor(keys, 0, 1024, true);
        dev::wgmma_registers(dq);
        dev::wgmma_fence();
#pragma unroll
        for (int k = 0; k < LEN / 16; k++)
            dev::Wgmma<GROUP_DIM>::template multiply<1, 1>(dq, left + k * (16 * 128 / 16), right + k * (16 * 128 / 16), k > 0);
        dev::wgmma_commit();
        dev::wgmma_wait<0>();
        dev::wgmma_registers(dv), dev::wgmma_registers(dk), dev::wgmma_registers(dq);
        ring.release(step);

        const Head head(shape, item);
        const float turned[2] = {scale * LN_2, scale * LN_2}, plain[2] = {1, 1};
        store_sums(head.part(d_qkv, VALUE), dv, plain, first, len, nullptr);
        store_sums(head.part(d_qkv, KEY), dk, turned, first, len, cos_sin);
        store_sums(head.part(d_qkv, QUERY), dq, turned, first, len, cos_sin);
    }
#endif
}

// ---- Launches ----------------------------------------------------------------------------------------------------------------

// `f` with LEN as a constant.
template <int LEN = GROUP_ROWS + 16, class F> int with_len_of_groups(int64_t len, F f) {
    if constexpr (LEN < TALL)
        if (len > LEN) return with_len_of_groups<LEN + 16>(len, f);
    return f(std::integral_constant<int, LEN>());
}
template <class Kernel, class... A>
int launch_heads(Kernel kernel, int threads, int bytes, const trm_attention &shape, trm_stream stream, const A &...arguments) {
    const int64_t count = shape.sequences * shape.heads, processors = dev::processors();
    if (int status = TRM_ALLOW_SHARED(kernel, bytes)) return status;
    return TRM_LAUNCH(kernel, dim3((unsigned)(count < processors ? count : processors)), dim3(threads), bytes, stream, arguments..., shape,
                      scale_of(shape));
}
static inline int launch_attend_heads(trm_array qkv, trm_array out, trm_array lse, const trm_attention &shape, trm_stream stream) {
    return with_len_of_groups(shape.len, [&](auto len) {
        constexpr int LEN = decltype(len)::value;
        typedef ShortForward<LEN> F;
        dev::TensorMap tall, boxes;
        const int64_t width = 3 * shape.heads * GROUP_DIM;
        if (int status = boxes_of(&tall, qkv, shape, width, TALL)) return status;
        if (int status = boxes_of(&boxes, qkv, shape, width, LEN)) return status;
        return launch_heads(attend_heads<LEN>, F::THREADS, F::SHARED, shape, stream, tall, boxes, (bf16 *)out.data, (float *)lse.data);
    });
}
static inline int launch_attend_heads_backward(trm_array qkv, trm_array cos_sin, trm_array out, trm_array lse, trm_array d_out,
                                               trm_array d_qkv, const trm_attention &shape, trm_stream stream) {
    return with_len_of_groups(shape.len, [&](auto len) {
        constexpr int LEN = decltype(len)::value;
        typedef ShortBackward<LEN> S;
        dev::TensorMap tall, boxes, d, outs;
        const int64_t width = shape.heads * GROUP_DIM;
        if (int status = boxes_of(&tall, qkv, shape, 3 * width, TALL)) return status;
        if (int status = boxes_of(&boxes, qkv, shape, 3 * width, LEN)) return status;
        if (int status = boxes_of(&d, d_out, shape, width, LEN)) return status;
        if (int status = boxes_of(&outs, out, shape, width, LEN)) return status;
        return launch_heads(attend_heads_backward<LEN>, S::THREADS, S::SHARED, shape, stream, tall, boxes, d, outs,
                            (const float *)cos_sin.data, (const float *)lse.data, (bf16 *)d_qkv.data);
    });
}
} // namespace

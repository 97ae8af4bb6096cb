// Attention of short sequences on tensor cores: operands bf16, sums and softmax f32. The formulas are those of attention.cu.
//
// Memory is what limits it, and everything here is for reading and writing each array once. A block has one head of one
// sequence, all of it: so no row of scores is ever rescaled, and one kernel makes all three gradients. q and k turn by their
// rotary positions in shared memory, dq and dk turn back on their way out of it; qkv itself stays as it was.
//
// Work goes by sixteen positions. A warp copies those rows of each array and turns them, so that the block has to meet just once
// before the first product. In the forward pass they are queries. In the backward pass they are keys,
//
//     pᵀ [16 keys, 16 queries] = exp(k qᵀ − lse)      dsᵀ = pᵀ (v dᵀ − Σ d·out)      dv += pᵀ d,  dk += dsᵀ q
//
// sixteen queries after the other, with pᵀ and dsᵀ in registers, where they are left operands at once. dsᵀ is laid down in shared
// memory besides. When everybody has done that, the warp's positions are queries: dq = ds k, where ldmatrix turns ds over. So no
// product is made twice, and each sum belongs to one warp and runs over positions in their order.
//
// For a head of 97 positions, in seven sixteens, and 64 features:
//
//                  reads, writes    shared memory                        warps, registers       blocks at once (228 KB)
//     forward      37 KB, 12 KB     q, k, v: 48 KB                       4 (two rounds), 128    4
//     backward     62 KB, 37 KB     q, k, d, dsᵀ in v's place: 76 KB     7, 128                 2
//
// All that a block reads is on its way from its beginning, and meanwhile other blocks compute. 32 positions for a warp would halve
// what it loads from shared memory, but with dk and dv of so many there would be room for 8 warps and not for 14. By count, the
// backward pass moves 820 KB through shared memory for a head, 6,400 clocks at 128 bytes each. Global memory has 99 KB to move,
// which at 3 TB/s for 132 multiprocessors of 1.7 GHz are 7,600 clocks. The forward pass: 330 KB and 2,550, 50 KB and 3,800.
#include "attention_short_hopper.cuh"

namespace {
constexpr int MOST_LEN = 128, MOST_DIM = 64;

// ---- A warp's rows -----------------------------------------------------------------------------------------------------------

// Starts to copy rows first … first + 15 of a head into a tile; what is not there becomes 0.
template <int D>
__device__ __forceinline__ void fetch(bf16 *tile, const Rows<const bf16> &rows, int first, int len, int head_dim) {
    each_eight<D>(first, len, head_dim, [&](int, int row, int feature, bool is_there) {
        dev::copy16_async(tile + row * PITCH<D> + feature, rows[first + row] + feature, is_there ? 16 : 0);
    });
}
// Turns the warp's rows of q and k, after waiting for all of its copies but the newest group.
template <int D>
__device__ __forceinline__ void turn_rows(bf16 *q, bf16 *k, const float *cos_sin, int first, int len, int half) {
    const Angles<D> angles(cos_sin, first, len, half);
    Piece of_q[D / 16], of_k[D / 16];
    dev::copies_wait<1>();
    __syncwarp();
    each_piece<D>(half, [&](int n, int row, int i) {
        of_q[n].load(q + row * PITCH<D> + i, half);
        of_k[n].load(k + row * PITCH<D> + i, half);
    });
    each_piece<D>(half, [&](int n, int row, int i) {
        of_q[n].turn(angles.cos_sin[n], 1.0f);
        of_k[n].turn(angles.cos_sin[n], 1.0f);
        of_q[n].store(q + row * PITCH<D> + i, half);
        of_k[n].store(k + row * PITCH<D> + i, half);
    });
}

// ---- Forward -----------------------------------------------------------------------------------------------------------------

// A thread keeps 16 · LEN / 32 scores, which is why LEN, a multiple of 16, is a constant. Four warps take the sixteens in turn.
template <int D, int LEN> struct Forward {
    static constexpr int WARPS = LEN < 64 ? LEN / 16 : 4, AT_ONCE = WARPS * 16;
    static constexpr int TILE = LEN * PITCH<D>, SHARED = 3 * TILE * 2;
};
template <int D, int LEN>
__global__ void __launch_bounds__(Forward<D, LEN>::WARPS * 32, 4)
    attend(const bf16 *__restrict__ qkv, const float *__restrict__ cos_sin, bf16 *__restrict__ out, float *__restrict__ lse,
           trm_attention shape, float scale) {
    constexpr int TILE = Forward<D, LEN>::TILE, AT_ONCE = Forward<D, LEN>::AT_ONCE;
    TRM_SHARED(shared);
    bf16 *queries = (bf16 *)shared, *keys = queries + TILE, *values = keys + TILE;
    const Head head(shape, (int)blockIdx.x);
    const int len = head.len, head_dim = (int)shape.head_dim, lane = threadIdx.x % 32, of_warp = threadIdx.x / 32 * 16;
    for (int first = of_warp; first < LEN; first += AT_ONCE) {
        fetch<D>(queries + first * PITCH<D>, head.part(qkv, QUERY), first, len, head_dim);
        fetch<D>(keys + first * PITCH<D>, head.part(qkv, KEY), first, len, head_dim);
    }
    dev::copies_commit();
    for (int first = of_warp; first < LEN; first += AT_ONCE)
        fetch<D>(values + first * PITCH<D>, head.part(qkv, VALUE), first, len, head_dim);
    dev::copies_commit();
    for (int first = of_warp; cos_sin && first < LEN; first += AT_ONCE)
        turn_rows<D>(queries + first * PITCH<D>, keys + first * PITCH<D>, cos_sin, first, len, head_dim / 2);
    dev::copies_wait<0>();
    __syncthreads();

#pragma unroll 1
    for (int first = of_warp; first < LEN; first += AT_ONCE) {
        Sums<1, LEN> s;
        make_products<D, LEN>(s, Operand<D, 1>(queries + first * PITCH<D>), keys);
#pragma unroll
        for (int j = LEN / 8 - 2; j < LEN / 8; j++) // keys that are not there
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (j * 8 + lane % 4 * 2 + e % 2 >= len) s[0][j][e] = -INFINITY;
        float max[2] = {-INFINITY, -INFINITY}, sum[2] = {}; // of row g, of row g + 8
#pragma unroll
        for (int j = 0; j < LEN / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) max[e / 2] = fmaxf(max[e / 2], s[0][j][e]);
        max[0] = scale * dev::quad_max(max[0]);
        max[1] = scale * dev::quad_max(max[1]);
        Left<1> p[LEN / 16];
#pragma unroll
        for (int k = 0; k < LEN / 16; k++) {
#pragma unroll
            for (int j = 2 * k; j < 2 * k + 2; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    s[0][j][e] = dev::exp2_approx(scale * s[0][j][e] - max[e / 2]);
                    sum[e / 2] += s[0][j][e];
                }
            to_left(p[k], s, k);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            sum[half] = dev::quad_sum(sum[half]);
            const int row = first + half * 8 + lane / 4;
            if (lane % 4 == 0 && row < len) head.statistics(lse)[row] = LN_2 * max[half] + logf(sum[half]);
            sum[half] = 1.0f / sum[half];
        }
        Sums<1, D> sums = {};
#pragma unroll
        for (int k = 0; k < LEN / 16; k++) add_product<D>(sums, p[k], values + k * 16 * PITCH<D>);
#pragma unroll
        for (int j = 0; j < D / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums[0][j][e] *= sum[e / 2];
        write_rows<D>(head.output(out), sums, 1.0f, queries + first * PITCH<D>, first, len, head_dim, nullptr);
    }
}

// ---- Backward ----------------------------------------------------------------------------------------------------------------

// Of sequences of so many positions, which are `rows` in whole sixteens. Sizes are in elements.
template <int D> struct Backward {
    int rows, tile, ds_pitch, ds_size;
    // Rows of dsᵀ lie an odd multiple of 16 bytes apart, too. Before it v is in its place, which may need more room.
    __host__ __device__ constexpr explicit Backward(int64_t len)
        : rows(((int)len + 15) / 16 * 16), tile(rows * PITCH<D>), ds_pitch(rows + 8),
          ds_size(rows * (ds_pitch > PITCH<D> ? ds_pitch : PITCH<D>)) {}
    constexpr int threads() const { return 2 * rows; }
    constexpr int shared() const { return (3 * tile + ds_size) * 2 + 2 * rows * (int)sizeof(float); }
};
static_assert(Backward<MOST_DIM>(MOST_LEN).shared() <= SHARED_EVERYWHERE, "every length fits on every device");

template <int D>
__global__ void __launch_bounds__(2 * MOST_LEN, 2)
    attend_backward(const bf16 *__restrict__ qkv, const float *__restrict__ cos_sin, bool turns, const bf16 *__restrict__ out,
                    const float *__restrict__ lse, const bf16 *__restrict__ d_out, bf16 *__restrict__ d_qkv,
                    trm_attention shape, float scale) {
    constexpr int STEP = 16;
    const Backward<D> sizes(shape.len);
    TRM_SHARED(shared);
    bf16 *queries = (bf16 *)shared, *keys = queries + sizes.tile, *gradients = keys + sizes.tile;
    bf16 *values = gradients + sizes.tile, *ds_t = values;
    float *statistics = (float *)(ds_t + sizes.ds_size); // of queries: lse·log2(e), Σ d·out
    Head head(shape, (int)blockIdx.x);
    const int len = head.len, head_dim = (int)shape.head_dim, lane = threadIdx.x % 32;
    int first = threadIdx.x / 32 * 16, own = first * PITCH<D>;
    fetch<D>(queries + own, head.part(qkv, QUERY), first, len, head_dim);
    fetch<D>(keys + own, head.part(qkv, KEY), first, len, head_dim);
    dev::copies_commit();
    fetch<D>(values + own, head.part(qkv, VALUE), first, len, head_dim);
    fetch<D>(gradients + own, head.output(d_out), first, len, head_dim);
    dev::copies_commit();
    dev::Pack<bf16, 8> own_out[D / 16] = {};
    each_eight<D>(first, len, head_dim, [&](int i, int row, int feature, bool is_there) {
        if (is_there) own_out[i] = *(const dev::Pack<bf16, 8> *)(head.output(out)[first + row] + feature);
    });
    // A query that is not there has no weight for any key.
    if (lane < 16)
        statistics[(first + lane) * 2] = first + lane < len ? LOG2_E * head.statistics(lse)[first + lane] : INFINITY;
    if (cos_sin && turns) turn_rows<D>(queries + own, keys + own, cos_sin, first, len, head_dim / 2);
    dev::copies_wait<0>();
    each_eight<D>(first, len, head_dim, [&](int i, int row, int feature, bool) { // the lane's own copies
        float d[8], mean = 0.0f;
        dev::load(d, gradients + own + row * PITCH<D> + feature);
#pragma unroll
        for (int e = 0; e < 8; e++) mean += d[e] * dev::get(&own_out[i].of[e]);
#pragma unroll
        for (int by = D / 16; by > 0; by /= 2) mean += __shfl_xor_sync(~0u, mean, by);
        if (feature == 0) statistics[(first + row) * 2 + 1] = mean;
    });
    __syncwarp();
    const Operand<D, 1> v(values + own);
    const Operand<D, 1, 2> k(keys + own); // there are no registers for all of 64 features
    __syncthreads(); // v is not needed any more

    Sums<1, D> dk = {}, dv = {};
#pragma unroll 1
    for (int query = 0; query < sizes.rows; query += STEP) {
        const bf16 *q = queries + query * PITCH<D>, *d = gradients + query * PITCH<D>;
        Sums<1, STEP> p, ds;
        make_products<D, STEP>(p, k, q);
        make_products<D, STEP>(ds, v, d);
#pragma unroll
        for (int j = 0; j < STEP / 8; j++) {
            const float4 columns = *(const float4 *)(statistics + (query + j * 8 + lane % 4 * 2) * 2); // two of them
#pragma unroll
            for (int e = 0; e < 4; e++) {
                p[0][j][e] = dev::exp2_approx(scale * p[0][j][e] - (e % 2 ? columns.z : columns.x));
                ds[0][j][e] = p[0][j][e] * (ds[0][j][e] - (e % 2 ? columns.w : columns.y));
            }
        }
        Left<1> a;
        to_left(a, p, 0);
        add_product<D>(dv, a, d);
        to_left(a, ds, 0);
        add_product<D>(dk, a, q);
        if (first + 16 > len) { // rows of keys that are not there, for which exp may have been infinite
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (first + i % 2 * 8 + lane / 4 >= len) a[0][i] = 0;
        }
        bf16 *pairs = ds_t + (first + lane / 4) * sizes.ds_pitch + query + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < 4; i++) *(uint32_t *)(pairs + i % 2 * 8 * sizes.ds_pitch + i / 2 * 8) = a[0][i];
    }
    __syncthreads(); // ds is complete; of q and d everybody has its own rows for itself
    dev::forget(first);
    dev::forget(head.column);
    own = first * PITCH<D>;
    const float factor = scale * LN_2;
    write_rows<D>(head.part(d_qkv, VALUE), dv, 1.0f, gradients + own, first, len, head_dim, nullptr);
    write_rows<D>(head.part(d_qkv, KEY), dk, factor, queries + own, first, len, head_dim, cos_sin);
    Sums<1, D> dq = {};
    const bf16 *ds = ds_t + (lane % 8 + lane / 16 * 8) * sizes.ds_pitch + first + lane / 8 % 2 * 8;
#pragma unroll 2
    for (int key = 0; key < sizes.rows; key += STEP) {
        Left<1> a;
        dev::load_matrix_x4_trans(a[0], ds + key * sizes.ds_pitch);
        add_product<D>(dq, a, keys + key * PITCH<D>);
    }
    write_rows<D>(head.part(d_qkv, QUERY), dq, factor, queries + own, first, len, head_dim, cos_sin);
}

// ---- Launches ----------------------------------------------------------------------------------------------------------------

// `f` with D, a number of features that kernels are made for, and with len in whole sixteens as constants.
template <class F> int with_dim(int64_t head_dim, F f) {
    return head_dim <= 32 ? f(std::integral_constant<int, 32>()) : f(std::integral_constant<int, MOST_DIM>());
}
template <int LEN = 16, class F> int with_len(int64_t len, F f) {
    if constexpr (LEN < MOST_LEN)
        if (len > LEN) return with_len<LEN + 16>(len, f);
    return f(std::integral_constant<int, LEN>());
}
bool takes(const trm_attention &shape, trm_array cos_sin) {
    return TRM_API(attention_short_fits)(shape.len, shape.head_dim) && counts_in_32_bits(shape) &&
           is_angles(cos_sin);
}
// Whether warpgroups do it: they do not turn.
bool takes_heads(const trm_attention &shape, bool turns) {
    return !turns && shape.head_dim == GROUP_DIM && shape.len > GROUP_ROWS && by_warpgroups();
}
} // namespace

extern "C" int TRM_API(attention_short_fits)(int64_t len, int64_t head_dim) {
    return len <= MOST_LEN && head_dim > 0 && head_dim <= MOST_DIM && head_dim % 8 == 0;
}

extern "C" int TRM_API(attention_short)(trm_array qkv, trm_array cos_sin, trm_array out, trm_array lse, trm_attention shape,
                                        trm_stream stream) {
    if (is_empty(shape)) return 0;
    if (!takes(shape, cos_sin) || !is_operand(qkv) || !is_operand(out) || lse.format != TRM_F32) return 1;
    if (takes_heads(shape, cos_sin.data)) return launch_attend_heads(qkv, out, lse, shape, stream);
    return with_dim(shape.head_dim, [&](auto dim) {
        return with_len(shape.len, [&](auto len) {
            typedef Forward<decltype(dim)::value, decltype(len)::value> F;
            auto kernel = attend<decltype(dim)::value, decltype(len)::value>;
            if (int status = TRM_ALLOW_SHARED(kernel, F::SHARED)) return status;
            return TRM_LAUNCH(kernel, dim3((unsigned)(shape.sequences * shape.heads)), dim3(F::WARPS * 32), F::SHARED, stream,
                              (const bf16 *)qkv.data, (const float *)cos_sin.data, (bf16 *)out.data, (float *)lse.data, shape,
                              scale_of(shape));
        });
    });
}

extern "C" int TRM_API(attention_short_backward)(trm_array qkv, trm_array cos_sin, int64_t turns, trm_array out, trm_array lse,
                                                 trm_array d_out, trm_array d_qkv, trm_attention shape, trm_stream stream) {
    if (is_empty(shape)) return 0;
    if (!takes(shape, cos_sin) || !is_operand(qkv) || !is_operand(out) || !is_operand(d_out) || !is_operand(d_qkv)) return 1;
    if (lse.format != TRM_F32) return 1;
    if (takes_heads(shape, cos_sin.data && turns))
        return launch_attend_heads_backward(qkv, cos_sin, out, lse, d_out, d_qkv, shape, stream);
    return with_dim(shape.head_dim, [&](auto dim) {
        const Backward<decltype(dim)::value> sizes(shape.len);
        auto kernel = attend_backward<decltype(dim)::value>;
        if (int status = TRM_ALLOW_SHARED(kernel, sizes.shared())) return status;
        return TRM_LAUNCH(kernel, dim3((unsigned)(shape.sequences * shape.heads)), dim3(sizes.threads()), sizes.shared(), stream,
                          (const bf16 *)qkv.data, (const float *)cos_sin.data, turns != 0, (const bf16 *)out.data,
                          (const float *)lse.data, (const bf16 *)d_out.data, (bf16 *)d_qkv.data, shape, scale_of(shape));
    });
}

// Attention on tensor cores: operands bf16, sums and softmax f32. The formulas are those of attention.cu; scores are made where
// they are needed, in the backward pass once more, and never stored.
//
// A block takes 128 rows of one head and walks over the rows of the other side, its columns, 64 at a time. In the forward pass
// and for dq, rows are queries and columns are keys; for dk and dv it is the other way round, so that pᵀ and dsᵀ come about the
// way they are needed. Whatever is summed belongs to a row, and its sum runs over the columns in their order: there are no
// atomics, and nothing depends on what else is in the batch.
//
// A warp owns 32 rows, or 16 where heads have more than 64 features (attention_tiles.cuh). Shared memory holds the block's rows
// and two tiles of columns: while one is in use, the next is on its way. Short sequences are attention_short.cu's; heads of 64
// features belong to warpgroups where there are some (attention_hopper.cuh).
#include "attention_backward_hopper.cuh"

namespace {
constexpr int ROWS = 128, COLUMNS = 64;

// Of kernels for heads of D features.
template <int D> struct Sizes {
    static constexpr int FRAGMENTS = D <= 64 ? 2 : 1; // of a warp's rows
    static constexpr int WARP_ROWS = 16 * FRAGMENTS, THREADS = ROWS / WARP_ROWS * 32;
    static constexpr int TILE = COLUMNS * PITCH<D>; // in elements
};

// Starts to copy rows first … first + COUNT − 1 of a head into a tile; what is not there becomes 0. A thread copies the same 8
// features of every STEP-th row. Addresses behind the last row are made, but not read.
template <int D, int COUNT>
__device__ __forceinline__ void fetch(bf16 *tile, const Rows<const bf16> &rows, int first, int len, int head_dim) {
    constexpr int STEP = Sizes<D>::THREADS / (D / 8);
    const int row = threadIdx.x / (D / 8), feature = threadIdx.x % (D / 8) * 8;
    const int left = feature < head_dim ? len - first - row : 0;
    const bf16 *from = rows[first + row] + feature;
    bf16 *to = tile + row * PITCH<D> + feature;
#pragma unroll
    for (int i = 0; i < COUNT; i += STEP) {
        dev::copy16_async(to + i * PITCH<D>, from, i < left ? 16 : 0);
        from += STEP * rows.pitch;
    }
}

// sums += p u, where p are weights of N columns, and these are rows u of a tile
template <int D, int N, int F>
__device__ __forceinline__ void add_products(Sums<F, D> &sums, const Sums<F, N> &p, const bf16 *u) {
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        Left<F> a;
        to_left(a, p, k);
        add_product<D>(sums, a, u + k * 16 * PITCH<D>);
    }
}

// Takes all weight from columns that are not there: only the first `left` of the N are.
template <int N, int F> __device__ __forceinline__ void mask(Sums<F, N> &s, int left) {
    if (left >= N) return;
    __syncwarp(); // keeps the compiler from testing every column of every tile instead
#pragma unroll
    for (int j = 0; j < N / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (j * 8 + (int)threadIdx.x % 4 * 2 + e % 2 >= left) {
#pragma unroll
                for (int m = 0; m < F; m++) s[m][j][e] = -INFINITY;
            }
}

// ---- Forward ---------------------------------------------------------------------------------------------------------------

template <int D> constexpr int forward_bytes() { return (ROWS * PITCH<D> + 4 * Sizes<D>::TILE) * 2; }

// The softmax is made online: `total` and `sums` are relative to 2^(scale·max) of the scores so far, and shrink when a larger one
// appears. Here s = q kᵀ, and scale is log2(e)/√head_dim, which turns exponentials into powers of two.
template <int D>
__global__ void __launch_bounds__(Sizes<D>::THREADS)
    forward(const bf16 *__restrict__ qkv, bf16 *__restrict__ out, float *__restrict__ lse, trm_attention shape,
            int blocks_per_head, float scale) {
    constexpr int TILE = Sizes<D>::TILE, FRAGMENTS = Sizes<D>::FRAGMENTS;
    TRM_SHARED(shared);
    bf16 *query_tile = (bf16 *)shared, *key_tiles = query_tile + ROWS * PITCH<D>, *value_tiles = key_tiles + 2 * TILE;
    const Head head(shape, (int)blockIdx.x / blocks_per_head);
    const int len = head.len, head_dim = (int)shape.head_dim, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int block_row = (int)blockIdx.x % blocks_per_head * ROWS, first_row = block_row + warp * Sizes<D>::WARP_ROWS;
    bf16 *own_tile = query_tile + warp * Sizes<D>::WARP_ROWS * PITCH<D>;

    auto fetch_columns = [&](int tile) {
        fetch<D, COLUMNS>(key_tiles + tile % 2 * TILE, head.part(qkv, KEY), tile * COLUMNS, len, head_dim);
        fetch<D, COLUMNS>(value_tiles + tile % 2 * TILE, head.part(qkv, VALUE), tile * COLUMNS, len, head_dim);
        dev::copies_commit();
    };
    fetch<D, ROWS>(query_tile, head.part(qkv, QUERY), block_row, len, head_dim);
    fetch_columns(0);
    dev::copies_wait<0>();
    __syncthreads();
    const Operand<D, FRAGMENTS> queries(own_tile);

    Sums<FRAGMENTS, D> sums = {};
    float max[FRAGMENTS][2], total[FRAGMENTS][2] = {};
    for (int m = 0; m < FRAGMENTS; m++) max[m][0] = max[m][1] = -INFINITY;
    const int tiles = (len + COLUMNS - 1) / COLUMNS;
    for (int tile = 0; tile < tiles; tile++) {
        dev::copies_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) fetch_columns(tile + 1);
        if (first_row >= len) continue; // this warp has no rows
        Sums<FRAGMENTS, COLUMNS> s;
        make_products<D, COLUMNS>(s, queries, key_tiles + tile % 2 * TILE);
        mask<COLUMNS>(s, len - tile * COLUMNS);
#pragma unroll
        for (int m = 0; m < FRAGMENTS; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) { // row g, then row g + 8
                float new_max = max[m][half];
#pragma unroll
                for (int j = 0; j < COLUMNS / 8; j++) new_max = fmaxf(new_max, fmaxf(s[m][j][half * 2], s[m][j][half * 2 + 1]));
                new_max = dev::quad_max(new_max);
                const float shrink = dev::exp2_approx(scale * (max[m][half] - new_max)), exponent = scale * new_max;
                max[m][half] = new_max;
                total[m][half] *= shrink;
#pragma unroll
                for (int j = 0; j < D / 8; j++) {
                    sums[m][j][half * 2] *= shrink;
                    sums[m][j][half * 2 + 1] *= shrink;
                }
#pragma unroll
                for (int j = 0; j < COLUMNS / 8; j++)
#pragma unroll
                    for (int e = half * 2; e < half * 2 + 2; e++) {
                        s[m][j][e] = dev::exp2_approx(scale * s[m][j][e] - exponent);
                        total[m][half] += s[m][j][e];
                    }
            }
        add_products<D, COLUMNS>(sums, s, value_tiles + tile % 2 * TILE);
    }
    if (first_row >= len) return;
#pragma unroll
    for (int m = 0; m < FRAGMENTS; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float sum = dev::quad_sum(total[m][half]), factor = 1.0f / sum;
            const int row = first_row + m * 16 + half * 8 + lane / 4;
            if (lane % 4 == 0 && row < len) head.statistics(lse)[row] = scale * LN_2 * max[m][half] + logf(sum);
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                sums[m][j][half * 2] *= factor;
                sums[m][j][half * 2 + 1] *= factor;
            }
        }
    write_rows<D>(head.output(out), sums, 1.0f, own_tile, first_row, len, head_dim, nullptr);
}

// ---- Backward --------------------------------------------------------------------------------------------------------------

template <int D> constexpr int backward_bytes() {
    return (2 * ROWS * PITCH<D> + 4 * Sizes<D>::TILE) * 2 + 2 * 2 * COLUMNS * (int)sizeof(float);
}

// Rows (x, y) meet columns (u, v): with s = x·u, p = 2^(scale·s − log2(e)·lse) and ds = p (y·v − mean), dx = Σ ds u/√head_dim and
// dy = Σ p v over the columns. (q, d) meet (k, v), and dx is dq; or with KEYS (k, v) meet (q, d), dx is dk and dy is dv.
//
// lse and means belong to the queries: lanes hold those of their rows in registers, and those of columns come to shared memory
// with their tile. A warp works on 16 columns of a tile at a time, which leaves registers for its rows and its sums; for dk and
// dv of 64 features they do not suffice, and half of y is read from shared memory again and again.
template <int D, bool KEYS>
__global__ void __launch_bounds__(Sizes<D>::THREADS)
    backward(const bf16 *__restrict__ qkv, const float *__restrict__ cos_sin, const bf16 *__restrict__ d_out,
             const float *__restrict__ lse, const float *__restrict__ means, bf16 *__restrict__ d_qkv, trm_attention shape,
             int blocks_per_head, float scale) {
    constexpr int TILE = Sizes<D>::TILE, FRAGMENTS = Sizes<D>::FRAGMENTS;
    constexpr int STEP = 16, KEPT_OF_Y = KEYS && D == 64 ? D / 32 : D / 16;
    TRM_SHARED(shared);
    bf16 *x_tile = (bf16 *)shared, *y_tile = x_tile + ROWS * PITCH<D>;
    bf16 *u_tiles = y_tile + ROWS * PITCH<D>, *v_tiles = u_tiles + 2 * TILE;
    float *statistics = (float *)(v_tiles + 2 * TILE); // lse, then means of a tile's columns
    Head head(shape, (int)blockIdx.x / blocks_per_head);
    const int len = head.len, head_dim = (int)shape.head_dim, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int block_row = (int)blockIdx.x % blocks_per_head * ROWS;
    int first_row = block_row + warp * Sizes<D>::WARP_ROWS;
    bf16 *own_x = x_tile + warp * Sizes<D>::WARP_ROWS * PITCH<D>, *own_y = y_tile + warp * Sizes<D>::WARP_ROWS * PITCH<D>;
    const Rows<const bf16> queries = head.part(qkv, QUERY), keys = head.part(qkv, KEY), values = head.part(qkv, VALUE);
    const Rows<const bf16> d = head.output(d_out);

    auto fetch_columns = [&](int tile) {
        fetch<D, COLUMNS>(u_tiles + tile % 2 * TILE, KEYS ? queries : keys, tile * COLUMNS, len, head_dim);
        fetch<D, COLUMNS>(v_tiles + tile % 2 * TILE, KEYS ? d : values, tile * COLUMNS, len, head_dim);
        if (KEYS && threadIdx.x < 2 * COLUMNS) {
            const float *from = head.statistics(threadIdx.x < COLUMNS ? lse : means);
            const int column = tile * COLUMNS + threadIdx.x % COLUMNS;
            dev::copy4_async(statistics + tile % 2 * 2 * COLUMNS + threadIdx.x, from + column, column < len ? 4 : 0);
        }
        dev::copies_commit();
    };
    fetch<D, ROWS>(x_tile, KEYS ? keys : queries, block_row, len, head_dim);
    fetch<D, ROWS>(y_tile, KEYS ? values : d, block_row, len, head_dim);
    fetch_columns(0);
    dev::copies_wait<0>();
    __syncthreads();
    const Operand<D, FRAGMENTS> x(own_x);
    const Operand<D, FRAGMENTS, KEPT_OF_Y> y(own_y);
    float row_lse[FRAGMENTS][2], row_mean[FRAGMENTS][2];
#pragma unroll
    for (int m = 0; m < FRAGMENTS; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int row = first_row + m * 16 + half * 8 + lane / 4;
            row_lse[m][half] = !KEYS && row < len ? head.statistics(lse)[row] : 0.0f;
            row_mean[m][half] = !KEYS && row < len ? head.statistics(means)[row] : 0.0f;
        }

    Sums<FRAGMENTS, D> dx = {}, dy = {};
    const int tiles = (len + COLUMNS - 1) / COLUMNS;
    for (int tile = 0; tile < tiles; tile++) {
        dev::copies_wait<0>();
        __syncthreads();
        if (tile + 1 < tiles) fetch_columns(tile + 1);
        if (first_row >= len) continue; // this warp has no rows
        const int left = len - tile * COLUMNS, columns = left < COLUMNS ? left : COLUMNS;
#pragma unroll 1
        for (int first = 0; first < columns; first += STEP) {
            const bf16 *u = u_tiles + tile % 2 * TILE + first * PITCH<D>, *v = v_tiles + tile % 2 * TILE + first * PITCH<D>;
            Sums<FRAGMENTS, STEP> p, ds;
            make_products<D, STEP>(p, x, u);
            make_products<D, STEP>(ds, y, v);
            // Queries that are not there need no mask: all that is known of them is 0, so they add p·0 to dy and 0 to dx.
            if (!KEYS) mask<STEP>(p, columns - first);
#pragma unroll
            for (int j = 0; j < STEP / 8; j++) {
                float2 column_lse = {}, column_mean = {}; // of columns t and t + 1
                if (KEYS) {
                    const float *of_columns = statistics + tile % 2 * 2 * COLUMNS + first + j * 8 + lane % 4 * 2;
                    column_lse = *(const float2 *)of_columns;
                    column_mean = *(const float2 *)(of_columns + COLUMNS);
                }
#pragma unroll
                for (int m = 0; m < FRAGMENTS; m++)
#pragma unroll
                    for (int e = 0; e < 4; e++) {
                        const float l = KEYS ? (e % 2 ? column_lse.y : column_lse.x) : row_lse[m][e / 2];
                        const float mean = KEYS ? (e % 2 ? column_mean.y : column_mean.x) : row_mean[m][e / 2];
                        p[m][j][e] = dev::exp2_approx(scale * p[m][j][e] - LOG2_E * l);
                        ds[m][j][e] = p[m][j][e] * (ds[m][j][e] - mean);
                    }
            }
            add_products<D, STEP>(dx, ds, u);
            if (KEYS) add_products<D, STEP>(dy, p, v);
        }
    }
    if (first_row >= len) return;
    dev::forget(first_row);
    dev::forget(head.column);
    write_rows<D>(head.part(d_qkv, KEYS ? KEY : QUERY), dx, scale * LN_2, own_x, first_row, len, head_dim, cos_sin);
    if (KEYS) write_rows<D>(head.part(d_qkv, VALUE), dy, 1.0f, own_y, first_row, len, head_dim, nullptr);
}

// ---- Launches --------------------------------------------------------------------------------------------------------------

// `f` with D, a number of features that kernels are made for, as a constant.
template <class F> int with_head_dim(int64_t head_dim, F f) {
    if (head_dim <= 32) return f(std::integral_constant<int, 32>());
    if (head_dim <= 64) return f(std::integral_constant<int, 64>());
    return f(std::integral_constant<int, 128>());
}
int64_t blocks_per_head(const trm_attention &shape) { return (shape.len + ROWS - 1) / ROWS; }
bool takes_groups(const trm_attention &shape) { return shape.head_dim == GROUP_DIM && by_warpgroups(); }
bool takes(const trm_attention &shape) { return TRM_API(attention_fits)(shape.head_dim) && counts_in_32_bits(shape); }
} // namespace

// The backward kernels have the most in shared memory. Up to 64 features that fits everywhere; 128 need more than 99 KB.
extern "C" int TRM_API(attention_fits)(int64_t head_dim) {
    static_assert(backward_bytes<64>() <= SHARED_EVERYWHERE, "64 features fit on every device");
    if (head_dim <= 0 || head_dim > 128 || head_dim % 8) return 0;
    return with_head_dim(head_dim, [](auto size) { return backward_bytes<decltype(size)::value>() <= dev::most_shared(); });
}

extern "C" int TRM_API(attention_bf16)(trm_array qkv, trm_array out, trm_array lse, trm_attention shape, trm_stream stream) {
    if (is_empty(shape)) return 0;
    if (!takes(shape) || !is_operand(qkv) || !is_operand(out) || lse.format != TRM_F32) return 1;
    if (takes_groups(shape)) return launch_attend_by_groups(qkv, out, lse, shape, stream);
    return with_head_dim(shape.head_dim, [&](auto size) {
        constexpr int D = decltype(size)::value, BYTES = forward_bytes<D>();
        const int64_t per_head = blocks_per_head(shape);
        const dim3 blocks((unsigned)(shape.sequences * shape.heads * per_head));
        auto kernel = forward<D>;
        if (int status = TRM_ALLOW_SHARED(kernel, BYTES)) return status;
        return TRM_LAUNCH(kernel, blocks, dim3(Sizes<D>::THREADS), BYTES, stream, (const bf16 *)qkv.data, (bf16 *)out.data,
                          (float *)lse.data, shape, (int)per_head, scale_of(shape));
    });
}

extern "C" int TRM_API(attention_backward_bf16)(trm_array qkv, trm_array cos_sin, trm_array out, trm_array lse, trm_array d_out,
                                                trm_array d_qkv, trm_array means, trm_attention shape, trm_stream stream) {
    if (is_empty(shape)) return 0;
    if (!takes(shape) || !is_operand(qkv) || !is_operand(out) || !is_operand(d_out) || !is_operand(d_qkv)) return 1;
    if (lse.format != TRM_F32 || means.format != TRM_F32 || !is_angles(cos_sin)) return 1;
    if (int status = launch_means<bf16>(out, d_out, means, shape, stream)) return status;
    if (takes_groups(shape)) {
        if (int status = launch_attend_backward_by_groups<false>(qkv, cos_sin, lse, d_out, d_qkv, means, shape, stream)) return status;
        return launch_attend_backward_by_groups<true>(qkv, cos_sin, lse, d_out, d_qkv, means, shape, stream);
    }
    return with_head_dim(shape.head_dim, [&](auto size) {
        constexpr int D = decltype(size)::value, BYTES = backward_bytes<D>();
        const int64_t per_head = blocks_per_head(shape);
        const dim3 blocks((unsigned)(shape.sequences * shape.heads * per_head));
        int status = 0;
        for (auto kernel : {backward<D, false>, backward<D, true>}) {
            if (status == 0) status = TRM_ALLOW_SHARED(kernel, BYTES);
            if (status == 0)
                status = TRM_LAUNCH(kernel, blocks, dim3(Sizes<D>::THREADS), BYTES, stream, (const bf16 *)qkv.data,
                                    (const float *)cos_sin.data, (const bf16 *)d_out.data, (const float *)lse.data,
                                    (const float *)means.data, (bf16 *)d_qkv.data, shape, (int)per_head, scale_of(shape));
        }
        return status;
    });
}

// Rotary positions and plain attention, for elements of any format and heads of any size.
//
// Of each head of each sequence, with scores s = q kᵀ/√head_dim (every query sees every key) and d the gradient of out:
//
//     forward    out = softmax(s) v,  lse = ln Σ_keys exp(s)
//     backward   p = exp(s − lse),  dp = d vᵀ,  ds = p (dp − Σ d·out)/√head_dim,  dq = ds k,  dk = dsᵀ q,  dv = pᵀ d
//
// Both passes work alike. A block has 8 warps; each warp owns one row of a head (a query, or a key where dk and dv are made)
// and walks over the rows of the other side, which the block brings to shared memory 32 at a time. Lane i of a warp makes the
// score of the warp's row with row i of this tile, and from it a weight, which goes to shared memory; then lanes are features,
// and add up the rows of the tile with these weights. So each sum runs over the rows of one sequence in their order, whatever
// else is in the batch, and len is anything.
//
// All of this must fit in shared memory. Where heads are too large for it, there are 4 warps and 4 rows at a time, and most lanes
// have no score to make. That is enough for 512 features in f64 and 1024 in other formats on every device.
#include "attention.cuh"

namespace {
constexpr int THREADS = 256; // of a block that rotates

// Warps of a block, rows of a tile, and how many blocks are to share the registers of a multiprocessor. 0 leaves that to the
// compiler; 1 keeps it from saving registers for more blocks than there is shared memory for.
template <int WARPS_, int TILE_, int BLOCKS_> struct Plan {
    static constexpr int WARPS = WARPS_, TILE = TILE_, BLOCKS = BLOCKS_, THREADS = WARPS * 32;
    // Numbers in shared memory: two tiles, and for each warp so many rows of features and of weights.
    static constexpr int64_t numbers(int64_t dim, int rows, int weights) {
        return 2 * TILE * (dim + 1) + WARPS * (rows * dim + weights * TILE);
    }
};
typedef Plan<8, 32, 0> Usual;
typedef Plan<4, 4, 1> Frugal;
static_assert(Frugal::numbers(512, 4, 2) * 8 <= SHARED_EVERYWHERE, "512 features in f64");
static_assert(Frugal::numbers(1024, 4, 2) * 4 <= SHARED_EVERYWHERE, "1024 in other formats");

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

template <class S> __device__ __forceinline__ S warp_max(S x) {
    for (int by = 16; by > 0; by /= 2) {
        const S other = __shfl_xor_sync(~0u, x, by);
        x = other > x ? other : x;
    }
    return x;
}

// ---- Rotary positions ------------------------------------------------------------------------------------------------------

// (a, b) = (a cos − b sin, b cos + a sin) for the pairs (i, i + half) of q and k. A thread takes EACH neighbouring pairs of one of the
// 2·heads heads of a position.
template <class T, int EACH>
__global__ void __launch_bounds__(THREADS)
    rotate(T *__restrict__ qkv, const sum_t<T> *__restrict__ cos_sin, sum_t<T> sign, trm_attention shape) {
    typedef sum_t<T> S;
    const unsigned heads = (unsigned)shape.heads, head_dim = (unsigned)shape.head_dim, half = head_dim / 2, packs = half / EACH;
    const int64_t i = dev::thread_index();
    const int64_t position = i / (2 * heads * packs);
    if (position >= shape.sequences * shape.len) return;
    const unsigned pack = (unsigned)(i - position * (2 * heads * packs)), first = pack % packs * EACH;
    T *low = qkv + position * (3 * heads * head_dim) + pack / packs * head_dim + first, *high = low + half;
    cos_sin += ((unsigned)position % (unsigned)shape.len * half + first) * 2;
    S a[EACH], b[EACH], x[EACH], y[EACH];
    dev::load<EACH>(a, low);
    dev::load<EACH>(b, high);
    for (int e = 0; e < EACH; e++) {
        const S cos = cos_sin[e * 2], sin = sign * cos_sin[e * 2 + 1];
        x[e] = a[e] * cos - b[e] * sin;
        y[e] = b[e] * cos + a[e] * sin;
    }
    dev::store<EACH>(low, x);
    dev::store<EACH>(high, y);
}

// ---- Attention -------------------------------------------------------------------------------------------------------------

// A warp copies a row of `dim` numbers; zeros where there is none.
template <class T, class S>
__device__ __forceinline__ void load_row(S *to, const Rows<const T> &rows, int row, int len, int dim) {
#pragma unroll 1
    for (int i = threadIdx.x % 32; i < dim; i += 32) to[i] = row < len ? dev::get(rows[row] + i) : S(0);
}
// A block copies a tile. Its rows lie dim + 1 numbers apart, so that lanes that read one feature of 32 rows meet different banks.
template <class P, class T, class S>
__device__ __forceinline__ void load_tile(S *tile, const Rows<const T> &rows, int first, int len, int dim) {
#pragma unroll
    for (int row = threadIdx.x / 32; row < P::TILE; row += P::WARPS)
        load_row(tile + row * (dim + 1), rows, first + row, len, dim);
}
template <class S> __device__ __forceinline__ S dot(const S *a, const S *b, int dim) {
    S sum = 0;
    for (int i = 0; i < dim; i++) sum += a[i] * b[i];
    return sum;
}
// sums = factor·sums + Σ_rows weights[row]·tile[row]; each lane does its features
template <class P, class S>
__device__ __forceinline__ void add_rows(S *sums, S factor, const S *weights, const S *tile, int dim) {
#pragma unroll 1
    for (int i = threadIdx.x % 32; i < dim; i += 32) {
        S sum = factor * sums[i];
        for (int row = 0; row < P::TILE; row++) sum += weights[row] * tile[row * (dim + 1) + i];
        sums[i] = sum;
    }
}

// What a warp works on. A warp behind the last row does that row once more and keeps the result to itself.
template <class P> struct Place {
    Head head;
    int row;
    bool is_own;
    __device__ __forceinline__ Place(const trm_attention &shape, int blocks_per_head)
        : head(shape, (int)blockIdx.x / blocks_per_head) {
        const int wanted = (int)blockIdx.x % blocks_per_head * P::WARPS + (int)threadIdx.x / 32;
        is_own = wanted < head.len;
        row = is_own ? wanted : head.len - 1;
    }
};

// The softmax is made online: `total` and `sums` are relative to exp(max) of the scores so far, and shrink when a larger one
// appears.
template <class P, class T>
__global__ void __launch_bounds__(P::THREADS, P::BLOCKS)
    forward(const T *__restrict__ qkv, T *__restrict__ out, sum_t<T> *__restrict__ lse, trm_attention shape,
            int blocks_per_head, sum_t<T> scale) {
    typedef sum_t<T> S;
    constexpr int TILE = P::TILE;
    TRM_SHARED(shared);
    const Place<P> place(shape, blocks_per_head);
    const Head &head = place.head;
    const int len = head.len, dim = (int)shape.head_dim, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    S *keys = (S *)shared, *values = keys + TILE * (dim + 1);
    S *query = values + TILE * (dim + 1) + warp * (2 * dim + TILE), *sums = query + dim, *weights = sums + dim;

    load_row(query, head.part(qkv, QUERY), place.row, len, dim);
    for (int i = lane; i < dim; i += 32) sums[i] = 0;
    S max = -INFINITY, total = 0;
    for (int first = 0; first < len; first += TILE) {
        __syncthreads();
        load_tile<P>(keys, head.part(qkv, KEY), first, len, dim);
        load_tile<P>(values, head.part(qkv, VALUE), first, len, dim);
        __syncthreads();
        const bool has_key = lane < TILE && first + lane < len;
        const S score = has_key ? scale * dot(query, keys + lane * (dim + 1), dim) : S(-INFINITY);
        const S tile_max = warp_max(score), new_max = tile_max > max ? tile_max : max;
        const S weight = exponential(score - new_max), shrink = exponential(max - new_max);
        if (lane < TILE) weights[lane] = weight;
        __syncwarp();
        total = shrink * total + dev::warp_sum(weight);
        add_rows<P>(sums, shrink, weights, values, dim);
        max = new_max;
    }
    if (!place.is_own) return;
    T *to = head.output(out)[place.row];
    for (int i = lane; i < dim; i += 32) dev::set(to + i, sums[i] / total);
    if (lane == 0) head.statistics(lse)[place.row] = max + logarithm(total);
}

// Rows (x, y) meet columns (u, v): with s = x·u/√head_dim and dp = y·v, dx = Σ ds u and dy = Σ p v over the columns.
// (q, d) meet (k, v), and dx is dq; or with KEYS (k, v) meet (q, d), dx is dk and dy is dv.
template <class P, class T, bool KEYS>
__global__ void __launch_bounds__(P::THREADS, P::BLOCKS)
    backward(const T *__restrict__ qkv, const T *__restrict__ d_out, const sum_t<T> *__restrict__ lse,
             const sum_t<T> *__restrict__ means, T *__restrict__ d_qkv, trm_attention shape, int blocks_per_head,
             sum_t<T> scale) {
    typedef sum_t<T> S;
    constexpr int TILE = P::TILE;
    TRM_SHARED(shared);
    const Place<P> place(shape, blocks_per_head);
    const Head &head = place.head;
    const int len = head.len, dim = (int)shape.head_dim, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    S *u = (S *)shared, *v = u + TILE * (dim + 1);
    S *x = v + TILE * (dim + 1) + warp * (4 * dim + 2 * TILE), *y = x + dim, *dx = y + dim, *dy = dx + dim;
    S *p = dy + dim, *ds = p + TILE;

    const Rows<const T> queries = head.part(qkv, QUERY), keys = head.part(qkv, KEY), values = head.part(qkv, VALUE);
    const Rows<const T> d = head.output(d_out);
    load_row(x, KEYS ? keys : queries, place.row, len, dim);
    load_row(y, KEYS ? values : d, place.row, len, dim);
    for (int i = lane; i < dim; i += 32) dx[i] = dy[i] = 0;
    for (int first = 0; first < len; first += TILE) {
        __syncthreads();
        load_tile<P>(u, KEYS ? queries : keys, first, len, dim);
        load_tile<P>(v, KEYS ? d : values, first, len, dim);
        __syncthreads();
        S probability = 0, gradient = 0;
        if (lane < TILE && first + lane < len) {
            const int query = KEYS ? first + lane : place.row;
            const S score = scale * dot(x, u + lane * (dim + 1), dim), dp = dot(y, v + lane * (dim + 1), dim);
            probability = exponential(score - head.statistics(lse)[query]);
            gradient = scale * probability * (dp - head.statistics(means)[query]);
        }
        if (lane < TILE) {
            p[lane] = probability;
            ds[lane] = gradient;
        }
        __syncwarp();
        add_rows<P>(dx, S(1), ds, u, dim);
        if (KEYS) add_rows<P>(dy, S(1), p, v, dim);
    }
    if (!place.is_own) return;
    T *to_dx = head.part(d_qkv, KEYS ? KEY : QUERY)[place.row], *to_dy = head.part(d_qkv, VALUE)[place.row];
    for (int i = lane; i < dim; i += 32) {
        dev::set(to_dx + i, dx[i]);
        if (KEYS) dev::set(to_dy + i, dy[i]);
    }
}

// ---- Launches --------------------------------------------------------------------------------------------------------------

// What cos_sin, lse and means are kept in where activations have a format.
int64_t format_of_sums(int64_t format) { return format == TRM_F64 ? TRM_F64 : TRM_F32; }
template <class P> int64_t blocks_per_head(const trm_attention &shape) { return (shape.len + P::WARPS - 1) / P::WARPS; }

// `f` with the type of a format, and with a plan that has room for so many rows of features and of weights of each warp.
template <class F> int with_plan(int64_t format, int64_t dim, int rows, int weights, F f) {
    return with_format(format, [&](auto element) {
        const int64_t bytes = Usual::numbers(dim, rows, weights) * (int64_t)sizeof(sum_t<decltype(element)>);
        return bytes <= dev::most_shared() ? f(element, Usual()) : f(element, Frugal());
    });
}
} // namespace

extern "C" int TRM_API(rope)(trm_array qkv, trm_array cos_sin, int64_t inverse, trm_attention shape, trm_stream stream) {
    const int64_t half = shape.head_dim / 2;
    if (is_empty(shape) || half == 0) return 0;
    if (cos_sin.format != format_of_sums(qkv.format) || !counts_in_32_bits(shape)) return 1;
    return with_format(qkv.format, [&](auto element) {
        using T = decltype(element);
        constexpr int EACH = in_16_bytes<T>();
        return with_packs<EACH>(half % EACH == 0 && aligned<EACH>(qkv), [&](auto each) {
            constexpr int WIDE = decltype(each)::value;
            auto kernel = rotate<T, WIDE>;
            const sum_t<T> sign = inverse ? -1 : 1;
            const unsigned blocks = blocks_for(shape.sequences * shape.len * 2 * shape.heads * (half / WIDE), THREADS);
            return TRM_LAUNCH(kernel, dim3(blocks), dim3(THREADS), 0, stream, (T *)qkv.data, (const sum_t<T> *)cos_sin.data, sign,
                              shape);
        });
    });
}

extern "C" int TRM_API(attention)(trm_array qkv, trm_array out, trm_array lse, trm_attention shape, trm_stream stream) {
    if (is_empty(shape)) return 0;
    if (out.format != qkv.format || lse.format != format_of_sums(qkv.format) || !counts_in_32_bits(shape)) return 1;
    return with_plan(qkv.format, shape.head_dim, 2, 1, [&](auto element, auto plan) {
        using P = decltype(plan);
        using T = decltype(element);
        using S = sum_t<T>;
        const S scale = (S)(1.0 / sqrt((double)shape.head_dim));
        const int64_t bytes = P::numbers(shape.head_dim, 2, 1) * sizeof(S), per_head = blocks_per_head<P>(shape);
        const dim3 blocks((unsigned)(shape.sequences * shape.heads * per_head));
        auto kernel = forward<P, T>;
        if (int status = TRM_ALLOW_SHARED(kernel, bytes)) return status;
        return TRM_LAUNCH(kernel, blocks, dim3(P::THREADS), bytes, stream, (const T *)qkv.data, (T *)out.data, (S *)lse.data,
                          shape, (int)per_head, scale);
    });
}

extern "C" int TRM_API(attention_backward)(trm_array qkv, trm_array out, trm_array lse, trm_array d_out, trm_array d_qkv,
                                           trm_array means, trm_attention shape, trm_stream stream) {
    if (is_empty(shape)) return 0;
    const int64_t format = qkv.format, sums = format_of_sums(format);
    if (out.format != format || d_out.format != format || d_qkv.format != format) return 1;
    if (lse.format != sums || means.format != sums || !counts_in_32_bits(shape)) return 1;
    return with_plan(format, shape.head_dim, 4, 2, [&](auto element, auto plan) {
        using P = decltype(plan);
        using T = decltype(element);
        using S = sum_t<T>;
        const S scale = (S)(1.0 / sqrt((double)shape.head_dim));
        const int64_t bytes = P::numbers(shape.head_dim, 4, 2) * sizeof(S), per_head = blocks_per_head<P>(shape);
        const dim3 blocks((unsigned)(shape.sequences * shape.heads * per_head));
        int status = launch_means<T>(out, d_out, means, shape, stream);
        for (auto kernel : {backward<P, T, false>, backward<P, T, true>}) {
            if (status == 0) status = TRM_ALLOW_SHARED(kernel, bytes);
            if (status == 0)
                status = TRM_LAUNCH(kernel, blocks, dim3(P::THREADS), bytes, stream, (const T *)qkv.data, (const T *)d_out.data,
                                    (const S *)lse.data, (const S *)means.data, (T *)d_qkv.data, shape, (int)per_head, scale);
        }
        return status;
    });
}

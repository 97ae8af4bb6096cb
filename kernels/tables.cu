// Tables: weights whose rows are looked up or added, and states that live in a table of slots.
//
//   broadcast      y[r] = table                              embed   y[b, prefix + s] = scale·table[tokens[b, s]], zeros before
//   start_states   y[b] = start in every row, or carried[place[b]]
//   keep_states    carried[place[b]] = y[b]
//   add_table      x[s·every + i] += scale·table[i]          table_grad       d_table[i] += scale·Σ stretches dy[s·every + i]
//                                                            embed_backward   d_table[t] += scale·Σ rows of token t dy
//
// Tables and sums of gradients are f32 (f64 where everything is); what is looked up or added to may be bf16 as well. The first
// five move memory, EACH neighbouring elements a thread. The two gradients are sums over the rows of a slice of the batch: each
// slice has its own array, and blocks of threads share the columns of the slices, so that an order of summation depends on its
// slice alone.
#include "device.cuh"

namespace {
constexpr int THREADS = 256;

// ---- Lookups ---------------------------------------------------------------------------------------------------------------

// Rows of y are `width` elements; sequences are prefix + seq_len rows. Without tokens all of them are row 0.
template <int EACH, class A, class Y>
__global__ void __launch_bounds__(THREADS) look_up(const A *table, const int32_t *tokens, int64_t seq_len, int64_t prefix,
                                                   sum_t<A> scale, Y *y, int64_t width, int64_t packs) {
    const int64_t pack = dev::thread_index();
    if (pack >= packs) return;
    const auto [row, column] = dev::divide(pack * EACH, width);
    const auto [sequence, place] = dev::divide(row, prefix + seq_len);
    sum_t<A> from[EACH] = {};
    if (place >= prefix) {
        const int64_t token = tokens ? tokens[sequence * seq_len + place - prefix] : 0;
        dev::load(from, table + token * width + column);
    }
    sum_t<Y> to[EACH];
    for (int e = 0; e < EACH; e++) to[e] = (sum_t<Y>)(scale * from[e]);
    dev::store(y + pack * EACH, to);
}

template <int EACH, class A, class Y>
__global__ void __launch_bounds__(THREADS) start_packs(const A *start, const Y *carried, const int32_t *place,
                                                       const int32_t *anew, Y *y, int64_t size, int64_t width, int64_t packs) {
    const int64_t pack = dev::thread_index();
    if (pack >= packs) return;
    const auto [sequence, i] = dev::divide(pack * EACH, size);
    sum_t<Y> to[EACH];
    if (anew[sequence]) {
        sum_t<A> from[EACH];
        dev::load(from, start + dev::divide(i, width).rest);
        for (int e = 0; e < EACH; e++) to[e] = (sum_t<Y>)from[e];
    } else {
        dev::load(to, carried + place[sequence] * size + i);
    }
    dev::store(y + pack * EACH, to);
}

template <int EACH, class Y>
__global__ void __launch_bounds__(THREADS) keep_packs(const Y *y, const int32_t *place, Y *carried, int64_t size, int64_t packs) {
    const int64_t pack = dev::thread_index();
    if (pack >= packs) return;
    const auto [sequence, i] = dev::divide(pack * EACH, size);
    sum_t<Y> states[EACH];
    dev::load(states, y + pack * EACH);
    dev::store(carried + place[sequence] * size + i, states);
}

// ---- A table added at the start of every stretch ---------------------------------------------------------------------------

template <int EACH, class A, class X>
__global__ void __launch_bounds__(THREADS)
    add_packs(const A *table, int64_t table_len, sum_t<A> scale, int64_t every, X *x, int64_t packs) {
    const int64_t pack = dev::thread_index();
    if (pack >= packs) return;
    const auto [stretch, i] = dev::divide(pack * EACH, table_len);
    X *at = x + stretch * every + i;
    sum_t<A> from[EACH];
    sum_t<X> to[EACH];
    dev::load(from, table + i);
    dev::load(to, at);
    for (int e = 0; e < EACH; e++) to[e] = (sum_t<X>)(to[e] + scale * from[e]);
    dev::store(at, to);
}

// A block has 32 elements of the table, one a lane, and one slice of the stretches, every eighth stretch a warp.
constexpr int GRAD_WARPS = 8;

template <class X, class D>
__global__ void __launch_bounds__(GRAD_WARPS * 32)
    table_grad_columns(const X *dy, int64_t stretches, int64_t every, int64_t table_len, D scale, D *d_table, int64_t stride,
                       int64_t rows, int64_t columns) {
    __shared__ D partial[GRAD_WARPS][32];
    const int64_t slice = blockIdx.x / columns, i = blockIdx.x % columns * 32 + threadIdx.x % 32;
    const int64_t first = slice * rows, last = first + rows < stretches ? first + rows : stretches;
    D sum = 0;
    if (i < table_len) {
#pragma unroll 8
        for (int64_t stretch = first + threadIdx.x / 32; stretch < last; stretch += GRAD_WARPS)
            sum += dev::get(dy + stretch * every + i);
    }
    sum = dev::sum_over_warps<GRAD_WARPS>(sum, partial);
    if (threadIdx.x < 32 && i < table_len) d_table[slice * stride + i] += scale * sum;
}

// ---- Gradient of the embedding ---------------------------------------------------------------------------------------------

// A block has one slice, one token and 128 columns of the table, four a lane. A warp looks at every 16th 32 tokens of the
// slice, one a lane, and all its lanes go through the hits among them, HITS at a time to have so many loads on their way.
constexpr int EMBED_WARPS = 16, LANE_COLUMNS = 4, EMBED_COLUMNS = LANE_COLUMNS * 32, HITS = 4;

template <class X, class D>
__global__ void __launch_bounds__(EMBED_WARPS * 32)
    embed_columns(const X *dy, int64_t width, int64_t vocab, const int32_t *tokens, int64_t sequences, int64_t seq_len,
                  int64_t prefix, D scale, D *d_table, int64_t stride, int64_t rows, int64_t columns) {
    __shared__ D partial[EMBED_WARPS][32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int64_t column = blockIdx.x % columns * EMBED_COLUMNS + lane;
    const int64_t token = blockIdx.x / columns % vocab, slice = blockIdx.x / columns / vocab;
    const int64_t last_sequence = (slice + 1) * rows < sequences ? (slice + 1) * rows : sequences;
    const int64_t first = slice * rows * seq_len, last = last_sequence * seq_len;
    // Token i of the batch belongs to this row of dy: its sequence and those before have a prefix.
    auto row_of = [&](int64_t i) { return dy + (i + (i / seq_len + 1) * prefix) * width + column; };
    D sum[LANE_COLUMNS] = {};
    for (int64_t start = first + warp * 32; start < last; start += EMBED_WARPS * 32) {
        unsigned hits = __ballot_sync(~0u, start + lane < last && tokens[start + lane] == token);
        while (hits) {
            D x[HITS][LANE_COLUMNS] = {};
#pragma unroll
            for (int h = 0; h < HITS; h++) {
                if (!hits) continue;
                const X *row = row_of(start + __ffs(hits) - 1);
                hits &= hits - 1;
#pragma unroll
                for (int c = 0; c < LANE_COLUMNS; c++)
                    if (column + c * 32 < width) x[h][c] = dev::get(row + c * 32);
            }
#pragma unroll
            for (int h = 0; h < HITS; h++)
#pragma unroll
                for (int c = 0; c < LANE_COLUMNS; c++) sum[c] += x[h][c];
        }
    }
#pragma unroll
    for (int c = 0; c < LANE_COLUMNS; c++) {
        const D total = dev::sum_over_warps<EMBED_WARPS>(sum[c], partial);
        if (warp == 0 && column + c * 32 < width) d_table[slice * stride + token * width + column + c * 32] += scale * total;
    }
}

// ---- Launches --------------------------------------------------------------------------------------------------------------

// `f` with the types of a table, or of a sum of gradients, and of what its rows become: the same, or bf16.
template <class F> int with_table(int64_t table, int64_t rows, F f) {
    return with_sum_format(table, [&](auto of_table) {
        if (rows == TRM_BF16) return f(of_table, bf16());
        return rows == table ? f(of_table, of_table) : 1;
    });
}

int launch_look_up(trm_array table, const int32_t *tokens, int64_t sequences, int64_t seq_len, int64_t prefix, double scale,
                   trm_array y, int64_t width, trm_stream stream) {
    const int64_t n = sequences * (prefix + seq_len) * width;
    if (n <= 0) return 0;
    return with_table(table.format, y.format, [&](auto of_table, auto of_y) {
        typedef decltype(of_table) A;
        typedef decltype(of_y) Y;
        constexpr int PACK = in_16_bytes<A, Y>();
        return with_packs<PACK>(width % PACK == 0 && aligned<PACK>(table) && aligned<PACK>(y), [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t packs = n / EACH;
            return TRM_LAUNCH((look_up<EACH, A, Y>), blocks_for(packs, THREADS), THREADS, 0, stream, (const A *)table.data,
                              tokens, seq_len, prefix, (A)scale, (Y *)y.data, width, packs);
        });
    });
}
} // namespace

extern "C" {
int TRM_API(broadcast)(trm_array table, trm_array y, int64_t rows, int64_t width, trm_stream stream) {
    return launch_look_up(table, nullptr, 1, rows, 0, 1, y, width, stream);
}

int TRM_API(embed)(trm_array table, int64_t width, const int32_t *tokens, int64_t sequences, int64_t seq_len, int64_t prefix,
                   double scale, trm_array y, trm_stream stream) {
    return launch_look_up(table, tokens, sequences, seq_len, prefix, scale, y, width, stream);
}

int TRM_API(start_states)(trm_array start, trm_array carried, const int32_t *place, const int32_t *anew, trm_array y,
                          int64_t sequences, int64_t len, int64_t width, trm_stream stream) {
    const int64_t size = len * width;
    if (carried.format != y.format) return 1;
    if (sequences * size <= 0) return 0;
    return with_table(start.format, y.format, [&](auto of_start, auto of_y) {
        typedef decltype(of_start) A;
        typedef decltype(of_y) Y;
        constexpr int PACK = in_16_bytes<A, Y>();
        const bool whole = width % PACK == 0 && aligned<PACK>(start) && aligned<PACK>(carried) && aligned<PACK>(y);
        return with_packs<PACK>(whole, [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t packs = sequences * size / EACH;
            return TRM_LAUNCH((start_packs<EACH, A, Y>), blocks_for(packs, THREADS), THREADS, 0, stream, (const A *)start.data,
                              (const Y *)carried.data, place, anew, (Y *)y.data, size, width, packs);
        });
    });
}

int TRM_API(keep_states)(trm_array y, const int32_t *place, trm_array carried, int64_t sequences, int64_t size,
                         trm_stream stream) {
    if (carried.format != y.format) return 1;
    if (sequences * size <= 0) return 0;
    return with_format(y.format, [&](auto of_y) {
        typedef decltype(of_y) Y;
        constexpr int PACK = in_16_bytes<Y>();
        return with_packs<PACK>(size % PACK == 0 && aligned<PACK>(y) && aligned<PACK>(carried), [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t packs = sequences * size / EACH;
            return TRM_LAUNCH((keep_packs<EACH, Y>), blocks_for(packs, THREADS), THREADS, 0, stream, (const Y *)y.data, place,
                              (Y *)carried.data, size, packs);
        });
    });
}

int TRM_API(add_table)(trm_array table, int64_t table_len, double scale, int64_t every, trm_array x, int64_t n,
                       trm_stream stream) {
    if (every <= 0 || table_len > every) return 1;
    const int64_t all = n / every * table_len;
    if (all <= 0) return 0;
    return with_table(table.format, x.format, [&](auto of_table, auto of_x) {
        typedef decltype(of_table) A;
        typedef decltype(of_x) X;
        constexpr int PACK = in_16_bytes<A, X>();
        const bool whole = table_len % PACK == 0 && every % PACK == 0 && aligned<PACK>(table) && aligned<PACK>(x);
        return with_packs<PACK>(whole, [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t packs = all / EACH;
            return TRM_LAUNCH((add_packs<EACH, A, X>), blocks_for(packs, THREADS), THREADS, 0, stream, (const A *)table.data,
                              table_len, (A)scale, every, (X *)x.data, packs);
        });
    });
}

int TRM_API(table_grad)(trm_array dy, int64_t n, int64_t every, int64_t table_len, double scale, trm_sums d_table,
                        trm_stream stream) {
    if (every <= 0 || table_len > every || d_table.rows <= 0) return 1;
    const int64_t stretches = n / every;
    if (stretches <= 0 || table_len <= 0) return 0;
    const int64_t slices = (stretches + d_table.rows - 1) / d_table.rows, columns = (table_len + 31) / 32;
    return with_table(d_table.format, dy.format, [&](auto of_sum, auto of_dy) {
        typedef decltype(of_sum) D;
        typedef decltype(of_dy) X;
        return TRM_LAUNCH((table_grad_columns<X, D>), (unsigned)(slices * columns), GRAD_WARPS * 32, 0, stream,
                          (const X *)dy.data, stretches, every, table_len, (D)scale, (D *)d_table.data, d_table.stride,
                          d_table.rows, columns);
    });
}

int TRM_API(embed_backward)(trm_array dy, int64_t width, int64_t vocab, const int32_t *tokens, int64_t sequences, int64_t seq_len,
                            int64_t prefix, double scale, trm_sums d_table, trm_stream stream) {
    if (d_table.rows <= 0) return 1;
    if (sequences <= 0 || seq_len <= 0 || width <= 0 || vocab <= 0) return 0;
    const int64_t slices = (sequences + d_table.rows - 1) / d_table.rows, columns = (width + EMBED_COLUMNS - 1) / EMBED_COLUMNS;
    return with_table(d_table.format, dy.format, [&](auto of_sum, auto of_dy) {
        typedef decltype(of_sum) D;
        typedef decltype(of_dy) X;
        return TRM_LAUNCH((embed_columns<X, D>), (unsigned)(slices * vocab * columns), EMBED_WARPS * 32, 0, stream,
                          (const X *)dy.data, width, vocab, tokens, sequences, seq_len, prefix, (D)scale, (D *)d_table.data,
                          d_table.stride, d_table.rows, columns);
    });
}
}

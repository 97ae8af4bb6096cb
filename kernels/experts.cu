// A mixture of experts. Of E experts each row of a batch uses a few; g[r, e] is the gate with which row r uses expert e, 0 where
// it does not. `rows` are the rows of one expert: its inputs are gathered, its answers added to the rows again.
//
//   route          g[r, e] = exp(a[r, e]) / Σ chosen exp(a[r, ·]) where e is one of the `per_row` largest of row r, else 0
//                  da[e] += g[e] (dg[e] − Σ g·dg)
//   gather         y[p] = x[rows[p]], then zeros           scatter, its gradient:  dx[rows[p]] += dy[p]
//   add_expert     y[r] += g[r, e] x[p], r = rows[p]       dx[p] += g[r, e] dy[r],  dg[r, e] += dy[r]·x[p]
//   load_balance   loss = w · E · Σ f[e]·P[e] of a sequence, f[e] the share of its picks that went to e, P[e] the mean of
//                  softmax(a)[e] over its rows (arXiv 2101.03961, eq. 4)
//                  ∂loss/∂a[r, e] = (w·E/rows) p[r, e] (f[e] − Σ f·p[r])
//
// Softmaxes are made in f64: they are small, and gates decide what is computed.
#include "device.cuh"
#include <float.h>

namespace {
constexpr int THREADS = 256, WARPS = THREADS / 32;

template <class T> __device__ __forceinline__ double largest_of(const T *a, int experts) {
    double largest = dev::get(a);
    for (int e = 1; e < experts; e++) largest = fmax(largest, (double)dev::get(a + e));
    return largest;
}

// ---- Gates: a thread takes a row -------------------------------------------------------------------------------------------

// How many of a row's logits are larger than that of expert e; of equals the first counts as larger.
template <class T> __device__ __forceinline__ int place_of(const T *a, int experts, int e) {
    const sum_t<T> mine = dev::get(a + e);
    int place = 0;
    for (int other = 0; other < experts; other++) {
        const sum_t<T> its = dev::get(a + other);
        place += its > mine || (its == mine && other < e);
    }
    return place;
}

template <class T>
__global__ void __launch_bounds__(THREADS, 1) route(const T *logits, T *gates, int64_t rows, int experts, int64_t per_row) {
    const int64_t row = dev::thread_index();
    if (row >= rows) return;
    const T *a = logits + row * experts;
    T *gate = gates + row * experts;
    const double largest = largest_of(a, experts);
    double total = 0;
    for (int e = 0; e < experts; e++)
        if (place_of(a, experts, e) < per_row) total += exp((double)dev::get(a + e) - largest);
    for (int e = 0; e < experts; e++) {
        double share = 0;
        // Never zero where chosen, however small: whoever is chosen is read off the gates.
        if (place_of(a, experts, e) < per_row) share = fmax(exp((double)dev::get(a + e) - largest) / total, (double)FLT_MIN);
        dev::set(gate + e, (sum_t<T>)share);
    }
}

template <class T>
__global__ void __launch_bounds__(THREADS)
    route_backward(const T *gates, const T *d_gates, T *d_logits, int64_t rows, int experts) {
    const int64_t row = dev::thread_index();
    if (row >= rows) return;
    const T *g = gates + row * experts, *dg = d_gates + row * experts;
    T *da = d_logits + row * experts;
    sum_t<T> mean = 0;
    for (int e = 0; e < experts; e++) mean += dev::get(g + e) * dev::get(dg + e);
    for (int e = 0; e < experts; e++) dev::set(da + e, dev::get(da + e) + dev::get(g + e) * (dev::get(dg + e) - mean));
}

// ---- Rows: a thread takes EACH neighbouring elements of a row --------------------------------------------------------------

enum Rows { GATHER, SCATTER, ADD_EXPERT, ADD_EXPERT_DX };
// Packed row p and row r = rows[p] of the batch: `from` and `to` are what the formulas above read and write. G is the gates' format;
// `gates` points to the expert's gate of row 0.
template <Rows WHAT, int EACH, class T, class G>
__global__ void __launch_bounds__(THREADS)
    move_rows(const int32_t *rows, int64_t count, const G *gates, int64_t experts, const T *from, T *to, int64_t width,
              int64_t packs) {
    constexpr bool FROM_BATCH = WHAT == GATHER || WHAT == ADD_EXPERT_DX, GATED = WHAT == ADD_EXPERT || WHAT == ADD_EXPERT_DX;
    const int64_t pack = dev::thread_index();
    if (pack >= packs) return;
    const int64_t of_row = width / EACH, p = pack / of_row, i = pack % of_row * EACH;
    sum_t<T> x[EACH] = {}, y[EACH] = {};
    int64_t at = p * width + i;
    if (p < count) {
        const int64_t row = rows[p];
        dev::load(x, from + (FROM_BATCH ? row : p) * width + i);
        if (!FROM_BATCH) at = row * width + i;
        if (WHAT != GATHER) dev::load(y, to + at);
        const sum_t<T> gate = GATED ? (sum_t<T>)dev::get(gates + row * experts) : 1;
        for (int e = 0; e < EACH; e++) y[e] += gate * x[e];
    }
    dev::store(to + at, y);
}

// dg[r, e] += dy[r]·x[p]: a warp takes a row, each lane every 32nd element.
template <class T, class G>
__global__ void __launch_bounds__(THREADS)
    gate_grad(const int32_t *rows, int64_t count, int64_t experts, const T *dy, const T *x, G *d_gates, int64_t width) {
    const int64_t p = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (p >= count) return;
    const int64_t row = rows[p];
    const int lane = threadIdx.x % 32;
    sum_t<T> sum = 0;
    for (int64_t i = lane; i < width; i += 32) sum += dev::get(dy + row * width + i) * dev::get(x + p * width + i);
    sum = dev::warp_sum(sum);
    G *to = d_gates + row * experts;
    if (lane == 0) dev::set(to, dev::get(to) + (sum_t<G>)sum);
}

// `f(T(), G())`: rows and gates are of one format, or rows are bf16 and gates f32.
template <class F> int with_row_formats(int64_t rows, int64_t gates, F f) {
    if (rows == TRM_BF16 && gates == TRM_F32) return f(bf16(), float());
    return rows == gates ? with_format(rows, [&](auto x) { return f(x, x); }) : 1;
}

template <Rows WHAT>
int launch_rows(const int32_t *rows, int64_t count, trm_array gates, int64_t experts, int64_t expert, trm_array from,
                trm_array to, int64_t to_rows, int64_t width, trm_stream stream) {
    if (from.format != to.format || to_rows < count) return 1;
    if (to_rows <= 0 || width <= 0) return 0;
    return with_row_formats(from.format, gates.format, [&](auto of_rows, auto of_gates) {
        typedef decltype(of_rows) T;
        typedef decltype(of_gates) G;
        constexpr int PACK = in_16_bytes<T>();
        return with_packs<PACK>(width % PACK == 0 && aligned<PACK>(from) && aligned<PACK>(to), [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t packs = to_rows * (width / EACH);
            return TRM_LAUNCH((move_rows<WHAT, EACH, T, G>), blocks_for(packs, THREADS), THREADS, 0, stream, rows, count,
                              (const G *)gates.data + expert, experts, (const T *)from.data, (T *)to.data, width, packs);
        });
    });
}

// ---- The load-balancing loss: a block takes a sequence, a thread every THREADS-th row of it ---------------------------------

template <class T>
__global__ void __launch_bounds__(THREADS)
    load_balance(const int32_t *picks, double scale, const T *logits, T *loss, T *unit_grad, int64_t rows, int experts) {
    TRM_SHARED(partial);
    const int64_t sequence = blockIdx.x, first = sequence * rows;
    picks += sequence * experts;
    int64_t all = 0;
    for (int e = 0; e < experts; e++) all += picks[e];
    double total = 0;
    for (int64_t row = first + threadIdx.x; row < first + rows; row += THREADS) {
        const T *a = logits + row * experts;
        const double largest = largest_of(a, experts);
        double sum = 0, picked = 0;
        for (int e = 0; e < experts; e++) {
            const double power = exp((double)dev::get(a + e) - largest);
            sum += power;
            picked += picks[e] * power;
        }
        const double expected = picked / (double)all / sum;
        total += expected;
        for (int e = 0; e < experts; e++) {
            const double p = exp((double)dev::get(a + e) - largest) / sum;
            dev::set(unit_grad + row * experts + e, (sum_t<T>)(scale * p * (picks[e] / (double)all - expected)));
        }
    }
    total = dev::block_sum<THREADS>(total, (double *)partial);
    if (threadIdx.x == 0) dev::set(loss + sequence, (sum_t<T>)(scale * total));
}
} // namespace

extern "C" {
int TRM_API(route)(trm_array logits, trm_array gates, int64_t rows, int64_t experts, int64_t per_row, trm_stream stream) {
    if (logits.format != gates.format || experts > INT32_MAX) return 1;
    if (rows <= 0 || experts <= 0) return 0;
    return with_format(gates.format, [&](auto format) {
        typedef decltype(format) T;
        return TRM_LAUNCH(route<T>, blocks_for(rows, THREADS), THREADS, 0, stream, (const T *)logits.data, (T *)gates.data, rows,
                          (int)experts, per_row);
    });
}

int TRM_API(route_backward)(trm_array gates, trm_array d_gates, trm_array d_logits, int64_t rows, int64_t experts,
                            trm_stream stream) {
    if (gates.format != d_gates.format || gates.format != d_logits.format || experts > INT32_MAX) return 1;
    if (rows <= 0 || experts <= 0) return 0;
    return with_format(gates.format, [&](auto format) {
        typedef decltype(format) T;
        return TRM_LAUNCH(route_backward<T>, blocks_for(rows, THREADS), THREADS, 0, stream, (const T *)gates.data,
                          (const T *)d_gates.data, (T *)d_logits.data, rows, (int)experts);
    });
}

int TRM_API(gather)(const int32_t *rows, int64_t count, trm_array x, trm_array y, int64_t y_rows, int64_t width,
                    trm_stream stream) {
    return launch_rows<GATHER>(rows, count, {nullptr, x.format}, 0, 0, x, y, y_rows, width, stream);
}

int TRM_API(scatter)(const int32_t *rows, int64_t count, trm_array dy, trm_array dx, int64_t width, trm_stream stream) {
    return launch_rows<SCATTER>(rows, count, {nullptr, dx.format}, 0, 0, dy, dx, count, width, stream);
}

int TRM_API(add_expert)(const int32_t *rows, int64_t count, trm_array gates, int64_t experts, int64_t expert, trm_array x,
                        trm_array y, int64_t width, trm_stream stream) {
    return launch_rows<ADD_EXPERT>(rows, count, gates, experts, expert, x, y, count, width, stream);
}

int TRM_API(add_expert_backward)(const int32_t *rows, int64_t count, trm_array gates, int64_t experts, int64_t expert,
                                 trm_array dy, trm_array x, trm_array dx, trm_array d_gates, int64_t width, trm_stream stream) {
    if (count <= 0 || width <= 0) return 0;
    if (dx.data) {
        const int status = launch_rows<ADD_EXPERT_DX>(rows, count, gates, experts, expert, dy, dx, count, width, stream);
        if (status != 0) return status;
    }
    if (!d_gates.data) return 0;
    if (dy.format != x.format) return 1;
    return with_row_formats(dy.format, d_gates.format, [&](auto of_rows, auto of_gates) {
        typedef decltype(of_rows) T;
        typedef decltype(of_gates) G;
        return TRM_LAUNCH((gate_grad<T, G>), blocks_for(count, WARPS), THREADS, 0, stream, rows, count, experts,
                          (const T *)dy.data, (const T *)x.data, (G *)d_gates.data + expert, width);
    });
}

int TRM_API(load_balance)(const int32_t *picks, double weight, trm_array logits, trm_array loss, trm_array unit_grad,
                          int64_t sequences, int64_t rows_per_sequence, int64_t experts, trm_stream stream) {
    if (logits.format != loss.format || logits.format != unit_grad.format || experts > INT32_MAX) return 1;
    if (sequences <= 0 || rows_per_sequence <= 0 || experts <= 0) return 0;
    const double scale = weight * (double)experts / (double)rows_per_sequence;
    return with_format(logits.format, [&](auto format) {
        typedef decltype(format) T;
        return TRM_LAUNCH(load_balance<T>, (unsigned)sequences, THREADS, WARPS * sizeof(double), stream, picks, scale,
                          (const T *)logits.data, (T *)loss.data, (T *)unit_grad.data, rows_per_sequence, (int)experts);
    });
}
}

// Elementwise kernels, and the same for runs of elements at equal distances:
//
//   fill        y = value
//   sum         y = x[0] + x[1] + …, left to right
//   copy_runs   y[r·y_stride + i] = x[r·x_stride + i] for each run r and i < len; `copy` is one run
//   add_runs    y[r·y_stride + i] += alpha x[r·x_stride + i]; `axpy` is one run
//
// Memory is what limits all of them. A thread takes EACH neighbouring elements at once, 16 bytes of the larger format, where
// sizes and addresses allow that, else one element.
#include "device.cuh"

namespace {
constexpr int THREADS = 256;

template <int EACH, class T> __global__ void __launch_bounds__(THREADS) fill_packs(T *y, sum_t<T> value, int64_t packs) {
    const int64_t pack = dev::thread_index();
    if (pack >= packs) return;
    sum_t<T> values[EACH];
    for (int e = 0; e < EACH; e++) values[e] = value;
    dev::store(y + pack * EACH, values);
}

template <class T> struct Summands {
    const T *x[TRM_SUMMANDS];
    int count;
};

// The loop over summands has a fixed length, so that all loads are on their way before the first is needed. There are up to MOST
// of them: where three are enough, as they mostly are, more threads fit on a processor.
template <int MOST, int EACH, class T>
__global__ void __launch_bounds__(THREADS) sum_packs(Summands<T> summands, T *y, int64_t packs) {
    const int64_t pack = dev::thread_index();
    if (pack >= packs) return;
    dev::Pack<T, EACH> x[MOST] = {};
#pragma unroll
    for (int s = 0; s < MOST; s++)
        if (s < summands.count) x[s] = *(const dev::Pack<T, EACH> *)(summands.x[s] + pack * EACH);
    sum_t<T> total[EACH];
    for (int e = 0; e < EACH; e++) total[e] = dev::get(&x[0].of[e]);
#pragma unroll
    for (int s = 1; s < MOST; s++)
        if (s < summands.count)
            for (int e = 0; e < EACH; e++) total[e] += dev::get(&x[s].of[e]);
    dev::store(y + pack * EACH, total);
}

// S is the wider of the formats in which sums over X and over Y are made.
template <bool ADD, int EACH, class X, class Y, class S>
__global__ void __launch_bounds__(THREADS)
    map_runs(S alpha, const X *x, int64_t x_stride, Y *y, int64_t y_stride, int64_t packs_of_run, int64_t packs) {
    const int64_t pack = dev::thread_index();
    if (pack >= packs) return;
    const auto [run, rest] = dev::divide(pack, packs_of_run);
    x += run * x_stride + rest * EACH;
    y += run * y_stride + rest * EACH;
    sum_t<X> from[EACH];
    sum_t<Y> to[EACH] = {};
    dev::load(from, x);
    if (ADD) dev::load(to, y);
    for (int e = 0; e < EACH; e++) to[e] = (sum_t<Y>)(ADD ? to[e] + alpha * from[e] : from[e]);
    dev::store(y, to);
}

template <bool ADD>
int launch_runs(double alpha, trm_array x, int64_t x_stride, trm_array y, int64_t y_stride, int64_t count, int64_t len,
                trm_stream stream) {
    if (count <= 0 || len <= 0) return 0;
    return with_formats(x.format, y.format, [&](auto of_x, auto of_y) {
        typedef decltype(of_x) X;
        typedef decltype(of_y) Y;
        typedef decltype(sum_t<X>() + sum_t<Y>()) S;
        constexpr int PACK = in_16_bytes<X, Y>();
        const bool whole = len % PACK == 0 && (count == 1 || (x_stride % PACK == 0 && y_stride % PACK == 0));
        return with_packs<PACK>(whole && aligned<PACK>(x) && aligned<PACK>(y), [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t of_run = len / EACH, packs = count * of_run;
            return TRM_LAUNCH((map_runs<ADD, EACH, X, Y, S>), blocks_for(packs, THREADS), THREADS, 0, stream, (S)alpha,
                              (const X *)x.data, x_stride, (Y *)y.data, y_stride, of_run, packs);
        });
    });
}
} // namespace

extern "C" {
int TRM_API(fill)(trm_array y, double value, int64_t n, trm_stream stream) {
    if (n <= 0) return 0;
    return with_format(y.format, [&](auto of_y) {
        typedef decltype(of_y) T;
        constexpr int PACK = in_16_bytes<T>();
        return with_packs<PACK>(n % PACK == 0 && aligned<PACK>(y), [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t packs = n / EACH;
            return TRM_LAUNCH((fill_packs<EACH, T>), blocks_for(packs, THREADS), THREADS, 0, stream, (T *)y.data, (sum_t<T>)value,
                              packs);
        });
    });
}

int TRM_API(sum)(trm_summands x, trm_array y, int64_t n, trm_stream stream) {
    if (x.count < 1 || x.count > TRM_SUMMANDS) return 1;
    for (int s = 0; s < x.count; s++)
        if (x.x[s].format != y.format) return 1;
    if (n <= 0) return 0;
    return with_format(y.format, [&](auto of_y) {
        typedef decltype(of_y) T;
        constexpr int PACK = in_16_bytes<T>();
        bool whole = n % PACK == 0 && aligned<PACK>(y);
        Summands<T> summands = {};
        summands.count = (int)x.count;
        for (int s = 0; s < x.count; s++) {
            summands.x[s] = (const T *)x.x[s].data;
            whole = whole && aligned<PACK>(x.x[s]);
        }
        return with_packs<PACK>(whole, [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t packs = n / EACH;
            const auto kernel = summands.count <= 3 ? sum_packs<3, EACH, T> : sum_packs<TRM_SUMMANDS, EACH, T>;
            return TRM_LAUNCH(kernel, blocks_for(packs, THREADS), THREADS, 0, stream, summands, (T *)y.data, packs);
        });
    });
}

int TRM_API(copy_runs)(trm_array x, int64_t x_stride, trm_array y, int64_t y_stride, int64_t count, int64_t len,
                       trm_stream stream) {
    return launch_runs<false>(1, x, x_stride, y, y_stride, count, len, stream);
}

int TRM_API(add_runs)(double alpha, trm_array x, int64_t x_stride, trm_array y, int64_t y_stride, int64_t count, int64_t len,
                      trm_stream stream) {
    return launch_runs<true>(alpha, x, x_stride, y, y_stride, count, len, stream);
}

int TRM_API(copy)(trm_array x, trm_array y, int64_t n, trm_stream stream) {
    return launch_runs<false>(1, x, 0, y, 0, 1, n, stream);
}

int TRM_API(axpy)(double alpha, trm_array x, trm_array y, int64_t n, trm_stream stream) {
    return launch_runs<true>(alpha, x, 0, y, 0, 1, n, stream);
}
}

// What lies between the two products of a SwiGLU, for any format and size. Of each of `outer` stretches, gu holds `inner` gates g
// and then `inner` ups u (stretches are rows, or the sequences of a SwiGLU over positions):
//
//   hidden = g·σ(g)·u
//   dg = d·u·σ(g) (1 + g (1 − σ(g))),   du = d·g·σ(g),   d being the gradient of hidden
//
// A thread takes EACH neighbouring elements: 16 bytes, where sizes and addresses allow that, else one element.
#include "device.cuh"

namespace {
constexpr int THREADS = 256;

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

// Where in gu the gates of a thread lie; the ups are `inner` elements behind them.
template <int EACH> __device__ __forceinline__ int64_t gates_of(int64_t pack, int64_t inner) {
    const int64_t packs_of_stretch = inner / EACH;
    return pack / packs_of_stretch * 2 * inner + pack % packs_of_stretch * EACH;
}

template <int EACH, class T>
__global__ void __launch_bounds__(THREADS) forward(const T *gu, T *hidden, int64_t inner, int64_t packs) {
    const int64_t pack = dev::thread_index();
    if (pack >= packs) return;
    const int64_t at = gates_of<EACH>(pack, inner);
    sum_t<T> g[EACH], u[EACH], h[EACH];
    dev::load(g, gu + at);
    dev::load(u, gu + at + inner);
    for (int e = 0; e < EACH; e++) h[e] = g[e] * sigmoid(g[e]) * u[e];
    dev::store(hidden + pack * EACH, h);
}

template <int EACH, class T>
__global__ void __launch_bounds__(THREADS) backward(const T *gu, const T *d_hidden, T *d_gu, int64_t inner, int64_t packs) {
    const int64_t pack = dev::thread_index();
    if (pack >= packs) return;
    const int64_t at = gates_of<EACH>(pack, inner);
    sum_t<T> g[EACH], u[EACH], d[EACH], dg[EACH], du[EACH];
    dev::load(g, gu + at);
    dev::load(u, gu + at + inner);
    dev::load(d, d_hidden + pack * EACH);
    for (int e = 0; e < EACH; e++) {
        const sum_t<T> s = sigmoid(g[e]);
        dg[e] = d[e] * u[e] * s * (1 + g[e] * (1 - s));
        du[e] = d[e] * g[e] * s;
    }
    dev::store(d_gu + at, dg);
    dev::store(d_gu + at + inner, du);
}
} // namespace

extern "C" {
int TRM_API(swiglu_hidden)(trm_array gu, trm_array hidden, int64_t outer, int64_t inner, trm_stream stream) {
    if (gu.format != hidden.format) return 1;
    if (outer <= 0 || inner <= 0) return 0;
    return with_format(gu.format, [&](auto of_gu) {
        typedef decltype(of_gu) T;
        constexpr int PACK = in_16_bytes<T>();
        return with_packs<PACK>(inner % PACK == 0 && aligned<PACK>(gu) && aligned<PACK>(hidden), [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t packs = outer * (inner / EACH);
            return TRM_LAUNCH((forward<EACH, T>), blocks_for(packs, THREADS), THREADS, 0, stream, (const T *)gu.data,
                              (T *)hidden.data, inner, packs);
        });
    });
}

int TRM_API(swiglu_hidden_backward)(trm_array gu, trm_array d, trm_array d_gu, int64_t outer, int64_t inner, trm_stream stream) {
    if (gu.format != d.format || gu.format != d_gu.format) return 1;
    if (outer <= 0 || inner <= 0) return 0;
    return with_format(gu.format, [&](auto of_gu) {
        typedef decltype(of_gu) T;
        constexpr int PACK = in_16_bytes<T>();
        const bool whole = inner % PACK == 0 && aligned<PACK>(gu) && aligned<PACK>(d) && aligned<PACK>(d_gu);
        return with_packs<PACK>(whole, [&](auto each) {
            constexpr int EACH = decltype(each)::value;
            const int64_t packs = outer * (inner / EACH);
            return TRM_LAUNCH((backward<EACH, T>), blocks_for(packs, THREADS), THREADS, 0, stream, (const T *)gu.data,
                              (const T *)d.data, (T *)d_gu.data, inner, packs);
        });
    });
}
}

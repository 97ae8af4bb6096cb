// SwiGLU over features on tensor cores. Gates and ups alternate: columns 2i and 2i + 1 of a product, or of an array, are g and
// u of i, so the lane that holds one of them holds the other (gemm.cuh).
//
//     forward    [g, u] = x w_gate_upᵀ,  hidden = silu(g)·u,  silu(g) = g·σ(g)
//     backward   d = dy w_down,  dg = d·u·σ(g)(1 + g(1 − σ(g))),  du = d·g·σ(g),  and hidden again
//
// Both are products with an epilogue; g and u reach memory only where they are kept, d never does.
#include "gemm_launch.cuh"

namespace {
template <bool KEEPS> struct StoreHidden : Elementwise {
    typedef int64_t Row; // the element of kept; that of hidden is half as far
    struct Beside {};
    bf16 *hidden, *kept;
    int64_t inner;

    __device__ __forceinline__ Row row(int, int row, int column) const { return row * 2 * inner + column; }
    __device__ __forceinline__ Beside read(Row, int) const { return {}; }
    __device__ __forceinline__ void write(Row row, int offset, const float (&v)[8], Beside) const {
        float hidden[4];
#pragma unroll
        for (int i = 0; i < 4; i++) hidden[i] = dev::sigmoid_approx(v[2 * i]).silu * v[2 * i + 1];
        dev::store<4>(this->hidden + (row + offset) / 2, hidden);
        if (KEEPS) dev::store<8>(kept + row + offset, v);
    }
    __device__ __forceinline__ void prefetch(int, int, int) const {}
};

// Columns of the product are those of d and hidden; the other arrays have two for each. RUN_ is 8 or 4: with 4, as
// warpgroups have it, a lane moves 16 neighbouring bytes of those at once, and so do the lanes beside it.
template <int RUN_> struct StoreGateUpGrad : ReadsMuch {
    static constexpr int RUN = RUN_;
    typedef int64_t Row; // the element of hidden; that of kept and d_gu is twice as far
    struct Beside {
        uint4 gu[RUN / 4]; // g and u of four columns each, packed
    };
    const bf16 *kept;
    bf16 *d_gu, *hidden;
    int64_t inner;

    __device__ __forceinline__ Row row(int, int row, int column) const { return row * inner + column; }
    __device__ __forceinline__ Beside read(Row row, int offset) const {
        const uint4 *from = (const uint4 *)(kept + 2 * (row + offset));
        Beside beside;
#pragma unroll
        for (int i = 0; i < RUN / 4; i++) beside.gu[i] = from[i];
        return beside;
    }
    __device__ __forceinline__ void write(Row row, int offset, const float (&d)[RUN], const Beside &beside) const {
        float activation[RUN];
#pragma unroll
        for (int i = 0; i < RUN / 4; i++) {
            const uint32_t gu[4] = {beside.gu[i].x, beside.gu[i].y, beside.gu[i].z, beside.gu[i].w};
            uint32_t gradient[4];
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float g = dev::lo(gu[e]), u = dev::hi(gu[e]), of = d[i * 4 + e];
                const auto [s, silu] = dev::sigmoid_approx(g);
                activation[i * 4 + e] = silu * u;
                gradient[e] = dev::pack(of * u * (s + silu * (1.0f - s)), of * silu);
            }
            ((uint4 *)(d_gu + 2 * (row + offset)))[i] = {gradient[0], gradient[1], gradient[2], gradient[3]};
        }
        dev::store<RUN>(hidden + row + offset, activation);
    }
    __device__ __forceinline__ void prefetch(int slice, int row, int column) const {
        const bf16 *from = kept + 2 * this->row(slice, row, column);
        dev::prefetch(from);
        if (column + 16 < inner) dev::prefetch(from + 32);
    }
};
} // namespace

extern "C" int TRM_API(swiglu_bf16)(trm_array x, trm_array w_gate_up, trm_array hidden, trm_array kept, int64_t m, int64_t inner,
                                    int64_t k, trm_stream stream) {
    if (m == 0 || inner == 0) return 0;
    if (!are_widths(inner, k) || !are_bf16({x, w_gate_up, hidden, kept})) return 1;
    auto launch = [&](auto keeps) {
        const StoreHidden<decltype(keeps)::value> epilogue = {{}, (bf16 *)hidden.data, (bf16 *)kept.data, inner};
        return launch_gemm<K_MAJOR>(x.data, w_gate_up.data, m, 2 * inner, k, k, epilogue, stream);
    };
    return kept.data ? launch(std::true_type()) : launch(std::false_type());
}

extern "C" int TRM_API(swiglu_backward_bf16)(trm_array dy, trm_array w_down_t, trm_array kept, trm_array d_gu, trm_array hidden,
                                             int64_t m, int64_t inner, int64_t n, trm_stream stream) {
    if (m == 0 || inner == 0) return 0;
    if (!are_widths(inner, n) || !are_bf16({dy, w_down_t, kept, d_gu, hidden})) return 1;
    auto epilogue = [&](auto run) {
        return StoreGateUpGrad<decltype(run)::value>{{}, (const bf16 *)kept.data, (bf16 *)d_gu.data, (bf16 *)hidden.data, inner};
    };
    return launch_gemm<K_MAJOR>(dy.data, w_down_t.data, m, inner, n, n, epilogue(std::integral_constant<int, 8>()),
                                epilogue(std::integral_constant<int, 4>()), stream);
}

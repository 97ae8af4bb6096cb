// SwiGLU over features on tensor cores. Gates and ups alternate: columns 2i and 2i + 1 of a product, or of an array, are g and
// u of i, so the lane that holds one of them holds the other (gemm.cuh).
//
//     forward    [g, u] = x w_gate_upᵀ,  hidden = silu(g)·u,  silu(g) = g·σ(g)
//     backward   d = dy w_down,  dg = d·u·σ(g)(1 + g(1 − σ(g))),  du = d·g·σ(g),  and hidden again
//
// Both are products with an epilogue; g and u reach memory only where they are kept, d never does.
#include "gemm_launch.cuh"

namespace {
struct StoreHidden : Elementwise {
    static constexpr bool PACKS = true;
    typedef int64_t Row; // the element of kept; that of hidden is half as far
    struct Beside {};
    bf16 *hidden, *kept; // kept is null where it is not wanted
    int64_t inner;

    static __device__ __forceinline__ float of(float g, float u) { return dev::sigmoid_approx(g).silu * u; }
    __device__ __forceinline__ Row row(int, int row, int column) const { return row * 2 * inner + column; }
    __device__ __forceinline__ Beside read(Row, int) const { return {}; }
    __device__ __forceinline__ void write(Row row, int offset, const float (&v)[8], Beside) const {
        float hidden[4];
#pragma unroll
        for (int i = 0; i < 4; i++) hidden[i] = of(v[2 * i], v[2 * i + 1]);
        dev::store<4>(this->hidden + (row + offset) / 2, hidden);
        if (kept) dev::store<8>(kept + row + offset, v);
    }
    // Columns 2t and 2t + 1 of a fragment are a gate and its up, and a word has a hidden number of each of two fragments. Lanes exchange
    // words until each has all of two fragments: 8 neighbouring numbers.
    template <class H> __device__ __forceinline__ void finish(const H &held) const {
        constexpr int WORDS = 2 * H::RUNS; // of a row
        if (kept)
            held.store_packed(kept + row(0, held.row(0), held.first_column), kept + row(0, held.row(1), held.first_column));
        const int place = H::place(), first = (held.first_column - place) / 2 + place; // of hidden's columns
#pragma unroll
        for (int r = 0; r < 2; r++) {
            uint32_t words[WORDS];
#pragma unroll
            for (int i = 0; i < WORDS; i++) {
                float two[2];
#pragma unroll
                for (int e = 0; e < 2; e++) two[e] = of(held.of_fragment(2 * i + e, r, 0), held.of_fragment(2 * i + e, r, 1));
                words[i] = dev::pack(two[0], two[1]);
            }
            transpose_quads(words);
            bf16 *const to = hidden + (int64_t)held.row(r) * inner + first;
#pragma unroll
            for (int i = 0; i < WORDS; i += 4) {
                const uint32_t *const four = words + i;
                auto lower = [&](int w) { return (four[w] & 0xffff) | four[w + 1] << 16; };
                auto upper = [&](int w) { return four[w] >> 16 | (four[w + 1] & 0xffff0000); };
                if (H::WHOLE || (held.row(r) < held.m && first + i / 4 * 32 < inner))
                    *(uint4 *)(to + i / 4 * 32) = {lower(0), lower(2), upper(0), upper(2)};
            }
        }
    }
    __device__ __forceinline__ void prefetch(int, int, int) const {}
};

// Columns of the product are those of d and hidden; the other arrays have two for each. RUN_ is 8 or 4: with 4, a lane moves 16
// neighbouring bytes of those at once, and so do the lanes beside it.
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
    const StoreHidden epilogue = {{}, (bf16 *)hidden.data, (bf16 *)kept.data, inner};
    return launch_gemm<K_MAJOR>(x.data, w_gate_up.data, m, 2 * inner, k, k, epilogue, stream);
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

// SwiGLU over positions on tensor cores: what its kernels share. For each sequence x [len, width]
//
//     [G; U] = W_gate_up x,    H = silu(G) ⊙ U,    swiglu(x) = W_down H,    silu(g) = g·σ(g)
//
// with W_gate_up [2·inner, len] and W_down [len, inner]. G, U and H, [inner, width] each, are several times as large as x,
// and no kernel writes them to memory: a warp makes a small piece of them in its registers, as the result of one product, and
// uses it right there as the left operand of the next one. The tensor core's fragments (dev::mma_16816) allow that. Of a
// result [16, 8], a lane holds pairs of neighbouring columns in the rows lane / 4 and lane / 4 + 8. Of a left operand, which
// is [16, 16], it wants the same pairs of the same rows. So two results side by side, rounded to bf16, are one left operand,
// and nothing moves between lanes:
//
//                         two results, f32                              one left operand, bf16
//                     columns 0 … 7   8 … 15                           columns 0 … 7   8 … 15
//     row lane / 4        t0[0 1]     t1[0 1]        pack_left              a[0]        a[2]
//     row lane / 4 + 8    t0[2 3]     t1[2 3]       ──────────▶             a[1]        a[3]
//
// All kernels read the weights in one packed layout, which is the image of what they want in shared memory, so that copying
// is linear:
//
//     for each step of 32 hidden units:   gate [32, pitch]   up [32, pitch]   downᵀ [32, pitch]
//
// A row belongs to a hidden unit j, a column to a position l; columns from len on are zeros. That one layout serves for
// products that sum over l and for those that sum over j, because ldmatrix can transpose on the way. Pitches, here and
// elsewhere in shared memory, are odd numbers of 16-byte pieces: so the eight rows that ldmatrix reads at once lie in
// different banks.
#pragma once
#include "device.cuh"

namespace {
// Hidden units in a step of the packed weights.
constexpr int STEP = 32;
// The matrices of a step, in their order: rows of matrix m begin at m · STEP.
enum Weight { GATE, UP, DOWN };

// Sizes for sequences of at most LEN positions, a multiple of 8.
template <int LEN> struct Sizes {
    static constexpr int TILES = LEN / 8;            // of 8 positions: columns of results
    static constexpr int BLOCKS = (LEN + 15) / 16;   // of 16 positions: the summed index of a product, or two tiles at once
    static constexpr int ROWS = BLOCKS * 16;         // positions in shared memory
    static constexpr int PITCH = ROWS + 8;           // elements in a row of the packed weights
    static constexpr int UNIT_BYTES = 3 * PITCH * 2; // of what is packed of one hidden unit
};

// `f(Sizes<LEN>())` for the least LEN that holds `len` positions; 1 (cudaErrorInvalidValue) where there is none. 104 is for
// the 97 positions of Sudoku, which need 13 tiles.
template <class F> static inline int with_sizes(int64_t len, F f) {
    if (len < 1) return 1;
    if (len <= 16) return f(Sizes<16>());
    if (len <= 32) return f(Sizes<32>());
    if (len <= 48) return f(Sizes<48>());
    if (len <= 64) return f(Sizes<64>());
    if (len <= 80) return f(Sizes<80>());
    if (len <= 96) return f(Sizes<96>());
    if (len <= 104) return f(Sizes<104>());
    if (len <= 112) return f(Sizes<112>());
    if (len <= 128) return f(Sizes<128>());
    return 1;
}

// ---- Tiles in shared memory ------------------------------------------------------------------------------------------------

// A matrix of bf16, rows PITCH elements apart.
template <int PITCH> struct Tile {
    unsigned char *data;
    __device__ __forceinline__ unsigned char *at(int row, int column) const { return data + (row * PITCH + column) * 2; }
    // The same matrix, counted from another corner.
    __device__ __forceinline__ Tile from(int row, int column) const { return {at(row, column)}; }
};
// Its pitch where it holds FEATURES features of each position.
template <int FEATURES> constexpr int pitch_of = FEATURES + 8;

// Features f0 … f0 + features − 1 of one sequence in an array [sequences, len, width].
struct Span {
    size_t sequence;
    int f0, features, len, width;
    __device__ __forceinline__ size_t at(int l, int f) const { return (sequence * len + l) * width + f0 + f; }
};
// Block (i, j) of a launch works on part j of sequence i, as many features as it has threads; the last part may be smaller.
__device__ __forceinline__ Span span_of_block(int len, int width) {
    const int f0 = blockIdx.y * blockDim.x, rest = width - f0;
    return {blockIdx.x, f0, rest < (int)blockDim.x ? rest : (int)blockDim.x, len, width};
}

// Copies a span into a tile, by all threads of the block; cells of the tile beyond the span become zeros. A thread takes one
// 16-byte place of a row, of PLACES, and every so many rows: blockDim.x is a multiple of PLACES.
template <int ROWS, int FEATURES>
__device__ __forceinline__ void fetch(Tile<pitch_of<FEATURES>> to, const bf16 *from, Span span) {
    constexpr int PLACES = FEATURES <= 64 ? 8 : FEATURES <= 128 ? 16 : 32;
    const int f = threadIdx.x % PLACES * 8, by = blockDim.x / PLACES;
    if (f >= FEATURES) return;
    const int len = f < span.features ? span.len : 0;
    int l = threadIdx.x / PLACES;
    const bf16 *source = from + span.at(l, f);
#pragma unroll 1
    for (; l < ROWS; l += by, source += by * span.width)
        dev::copy16_async(to.at(l, f), l < len ? source : from, l < len ? 16 : 0);
}
// Copies what is packed of UNITS hidden units from the j-th on, which is a step or a part of one. In the copy, rows of matrix m
// begin at m · UNITS.
template <int UNITS, int PITCH>
__device__ __forceinline__ void fetch_units(unsigned char *to, const unsigned char *packed, int j) {
    constexpr int ROW = PITCH * 2, MATRIX = UNITS * ROW, SKIP = (STEP - UNITS) * ROW;
    const unsigned char *from = packed + (size_t)(j / STEP) * (3 * STEP * ROW) + j % STEP * ROW;
    for (int i = threadIdx.x * 16; i < 3 * MATRIX; i += blockDim.x * 16)
        dev::copy16_async(to + i, from + i + i / MATRIX * SKIP, 16);
}
// Calls f(l, f) for every eighth feature f of every position l of a span, by all threads of the block, so that neighbouring
// threads take neighbouring features.
template <int FEATURES, class F> __device__ __forceinline__ void for_each_8(Span span, F f) {
    constexpr int PLACES = FEATURES / 8;
    for (int i = threadIdx.x; i < span.len * PLACES; i += blockDim.x)
        if (i % PLACES * 8 < span.features) f(i / PLACES, i % PLACES * 8);
}

// ---- Fragments -------------------------------------------------------------------------------------------------------------
// Operands are 16×16 blocks of a tile, loaded by one ldmatrix of four 8×8 matrices. m and n are row and column of the result,
// k is summed over. A left operand [m, k] wants the four matrices in the order (m, k) (m+8, k) (m, k+8) (m+8, k+8). Two right
// operands side by side, b[0 1] and b[2 3], want (n, k) (n, k+8) (n+8, k) (n+8, k+8). The plain functions are for tiles that
// have k along a row, the others for tiles that have k along a column. (A lane's own place comes first in the address, so
// that the loads of an unrolled loop differ by constants.)

template <class Tile> __device__ __forceinline__ void load_left(uint32_t (&a)[4], Tile tile, int m, int k) {
    const int lane = threadIdx.x % 32;
    dev::load_matrix_x4(a, tile.from(lane % 16, lane / 16 * 8).at(m, k));
}
template <class Tile> __device__ __forceinline__ void load_left_transposed(uint32_t (&a)[4], Tile tile, int k, int m) {
    const int lane = threadIdx.x % 32;
    dev::load_matrix_x4_trans(a, tile.from(lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8).at(k, m));
}
template <class Tile> __device__ __forceinline__ void load_right(uint32_t (&b)[4], Tile tile, int n, int k) {
    const int lane = threadIdx.x % 32;
    dev::load_matrix_x4(b, tile.from(lane / 16 * 8 + lane % 8, lane / 8 % 2 * 8).at(n, k));
}
template <class Tile> __device__ __forceinline__ void load_right_transposed(uint32_t (&b)[4], Tile tile, int k, int n) {
    const int lane = threadIdx.x % 32;
    dev::load_matrix_x4_trans(b, tile.from(lane % 16, lane / 16 * 8).at(k, n));
}

// Results [16, 8·TILES] of a warp, tile by tile: columns 16·block … 16·block + 15 += a b.
template <int TILES>
__device__ __forceinline__ void multiply(float (&d)[TILES][4], int block, const uint32_t (&a)[4], const uint32_t (&b)[4]) {
    dev::mma_16816(d[block * 2], a, b[0], b[1]);
    if (block * 2 + 1 < TILES) dev::mma_16816(d[block * 2 + 1], a, b[2], b[3]);
}
// The same columns as a left operand, which is [16, 16]. Results are an array of tiles, or of all their elements.
template <int N> __device__ __forceinline__ void pack_left(uint32_t (&a)[4], const float (&d)[N], int block) {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = dev::pack(d[block * 8 + i * 2], d[block * 8 + i * 2 + 1]);
}
template <int TILES> __device__ __forceinline__ void pack_left(uint32_t (&a)[4], const float (&d)[TILES][4], int block) {
    pack_left(a, (const float(&)[TILES * 4])d, block);
}
template <int TILES> __device__ __forceinline__ float (&elements(float (&d)[TILES][4]))[TILES * 4] {
    return (float(&)[TILES * 4])d;
}
// Where a lane's element e of tile t lies in such a result.
__device__ __forceinline__ int row_of(int e) { return threadIdx.x % 32 / 4 + e / 2 * 8; }
__device__ __forceinline__ int column_of(int t, int e) { return t * 8 + threadIdx.x % 4 * 2 + e % 2; }

// ---- Elements --------------------------------------------------------------------------------------------------------------

// D becomes H = silu(G) ⊙ U, G becomes dG = D ⊙ U ⊙ σ(G)(1 + G(1 − σ(G))), U becomes dU = D ⊙ silu(G).
template <int N> __device__ __forceinline__ void differentiate(float (&g)[N], float (&u)[N], float (&d)[N]) {
#pragma unroll
    for (int e = 0; e < N; e++) {
        const auto [s, silu] = dev::sigmoid_approx(g[e]);
        const float dh = d[e], d_silu = dh * u[e];
        d[e] = silu * u[e];
        u[e] = dh * silu;
        g[e] = d_silu * (s + silu * (1.0f - s));
    }
}

// ---- Launches --------------------------------------------------------------------------------------------------------------

// `f` with the plan of a kernel for `len` positions, as with_sizes. A plan says how much a block works on at a time, and so how
// much shared memory it needs (SHARED): with SMALL, no more than every device has for it. Bits are the same either way, but for
// the gradients of weights, where sums have another order.
template <template <int, bool> class Plan, class F> static inline int with_plan(int64_t len, F f) {
    return with_sizes(len, [&](auto sizes) {
        constexpr int LEN = decltype(sizes)::TILES * 8;
        typedef Plan<LEN, false> Usual;
        typedef Plan<LEN, (Usual::SHARED > SHARED_EVERYWHERE)> Fitting; // the usual one again, if that fits everywhere
        static_assert(Fitting::SHARED <= SHARED_EVERYWHERE, "there is a plan for every device");
        return Usual::SHARED <= dev::most_shared() ? f(Usual()) : f(Fitting());
    });
}

// A row of features in as few parts of at most `most` as there can be, all of the same size, which is a multiple of 32.
struct Parts {
    int64_t count, features;
    Parts(int64_t width, int64_t most) {
        count = (width + most - 1) / most;
        features = (width + count * 32 - 1) / (count * 32) * 32;
    }
};
// Whether the kernels take these sizes, which `with_sizes` completes.
static inline bool mix_takes(int64_t width, int64_t inner) {
    return width > 0 && width % 64 == 0 && inner > 0 && inner % STEP == 0;
}
} // namespace

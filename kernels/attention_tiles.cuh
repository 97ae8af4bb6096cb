// Products on tensor cores as attention needs them: operands bf16, sums f32.
//
// A warp owns fragments of 16 rows. Of each 16 × 8 of its sums, lane l holds columns t and t + 1 of rows g and g + 8, where
// g = l / 4 and t = 2 (l % 4). So a row's scores lie in four neighbouring lanes of one warp; and two neighbouring fragments of
// weights, rounded to bf16, are just the left operand of the tensor cores' next product, which sums over these 16 columns.
//
// Rows of a tile in shared memory lie D + 8 elements apart, an odd multiple of 16 bytes, so that the eight rows that ldmatrix
// reads at once lie in different banks. Heads of fewer than D features (any multiple of 8) have zeros behind them.
#pragma once
#include "attention.cuh"

namespace {
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.69314718f;

template <int D> constexpr int PITCH = D + 8; // in elements
// A warp's sums for N columns of F fragments of rows, and the left operand that 16 of these columns make.
template <int F, int N> using Sums = float[F][N / 8][4];
template <int F> using Left = uint32_t[F][4];

// A warp's rows of a tile as left operand: 16 features at a time, of which the first KEPT times stay in registers.
template <int D, int F, int KEPT = D / 16> struct Operand {
    const bf16 *row;
    uint32_t kept[F][KEPT][4];
    __device__ __forceinline__ explicit Operand(const bf16 *tile)
        : row(tile + threadIdx.x % 16 * PITCH<D> + threadIdx.x % 32 / 16 * 8) {
#pragma unroll
        for (int m = 0; m < F; m++)
#pragma unroll
            for (int k = 0; k < KEPT; k++) dev::load_matrix_x4(kept[m][k], row + m * 16 * PITCH<D> + k * 16);
    }
    __device__ __forceinline__ void get(uint32_t (&a)[4], int m, int k) const {
        if (k >= KEPT) return dev::load_matrix_x4(a, row + m * 16 * PITCH<D> + k * 16);
#pragma unroll
        for (int i = 0; i < 4; i++) a[i] = kept[m][k < KEPT ? k : 0][i];
    }
};

// Where a lane begins with right operands that are 16 rows and 16 features of a tile: loaded as they lie, or turned over.
template <int D> __device__ __forceinline__ const bf16 *of_lane(const bf16 *u) {
    const int lane = threadIdx.x % 32;
    return u + (lane / 16 * 8 + lane % 8) * PITCH<D> + lane / 8 % 2 * 8;
}

// s = x uᵀ for N columns, which are rows u of a tile
template <int D, int N, int F, int KEPT>
__device__ __forceinline__ void make_products(Sums<F, N> &s, const Operand<D, F, KEPT> &x, const bf16 *u) {
    u = of_lane<D>(u);
#pragma unroll
    for (int m = 0; m < F; m++)
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[m][j][e] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        Left<F> a;
#pragma unroll
        for (int m = 0; m < F; m++) x.get(a[m], m, k);
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            uint32_t b[4];
            dev::load_matrix_x4(b, u + j * 16 * PITCH<D> + k * 16);
#pragma unroll
            for (int m = 0; m < F; m++) {
                dev::mma_16816(s[m][2 * j], a[m], b[0], b[1]);
                dev::mma_16816(s[m][2 * j + 1], a[m], b[2], b[3]);
            }
        }
    }
}

// Columns 16 k … 16 k + 15 of weights, rounded
template <int F, int PAIRS> __device__ __forceinline__ void to_left(Left<F> &a, const float (&p)[F][PAIRS][4], int k) {
#pragma unroll
    for (int m = 0; m < F; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float *pair = &p[m][2 * k + i / 2][i % 2 * 2];
            a[m][i] = dev::pack(pair[0], pair[1]);
        }
}

// sums += p u, where p are weights of 16 columns, and these are rows u of a tile
template <int D, int F> __device__ __forceinline__ void add_product(Sums<F, D> &sums, const Left<F> &p, const bf16 *u) {
    u = of_lane<D>(u);
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
        uint32_t b[4];
        dev::load_matrix_x4_trans(b, u + j * 16);
#pragma unroll
        for (int m = 0; m < F; m++) {
            dev::mma_16816(sums[m][2 * j], p[m], b[0], b[2]);
            dev::mma_16816(sums[m][2 * j + 1], p[m], b[1], b[3]);
        }
    }
}

// ---- A warp's rows, element by element ---------------------------------------------------------------------------------------

// A lane has 8 features of D / 16 of 16 rows, which begin at `first`: f(i, row, feature, is_there) is called for each.
template <int D, class F> __device__ __forceinline__ void each_eight(int first, int len, int head_dim, F f) {
    constexpr int LANES = D / 8, AT_ONCE = 32 / LANES;
    const int lane = threadIdx.x % 32, feature = lane % LANES * 8;
#pragma unroll
    for (int i = 0; i < 16 / AT_ONCE; i++) {
        const int row = lane / LANES + i * AT_ONCE;
        f(i, row, feature, feature < head_dim && first + row < len);
    }
}

// Rotary positions turn pairs (i, i + half) of a row, four neighbouring ones at a time, which half is a multiple of. A lane has D / 16
// such pieces of 16 rows: f(n, row, i) is called for each. Rows that neighbouring lanes have are 4 apart, where the banks are others.
template <int D, class F> __device__ __forceinline__ void each_piece(int half, F f) {
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
        const int piece = threadIdx.x % 32 + n * 32, u = piece / (D / 8), i = piece % (D / 8) * 4;
        if (i < half) f(n, u / 8 * 8 + u % 2 * 4 + u % 8 / 2, i);
    }
}
// Cosines and sines of a lane's pieces, asked for together; rows begin at position `first`.
template <int D> struct Angles {
    float cos_sin[D / 16][8];
    __device__ __forceinline__ Angles(const float *all, int first, int len, int half) {
        each_piece<D>(half, [&](int n, int row, int i) {
            dev::load(cos_sin[n], all + ((first + row < len ? first + row : len - 1) * half + i) * 2);
        });
    }
};
// Four pairs.
struct Piece {
    uint32_t a[2], b[2];
    __device__ __forceinline__ void load(const bf16 *low, int half) {
        const uint2 x = *(const uint2 *)low, y = *(const uint2 *)(low + half);
        a[0] = x.x, a[1] = x.y, b[0] = y.x, b[1] = y.y;
    }
    __device__ __forceinline__ void store(bf16 *low, int half) const {
        *(uint64_t *)low = a[0] | (uint64_t)a[1] << 32;
        *(uint64_t *)(low + half) = b[0] | (uint64_t)b[1] << 32;
    }
    // (a, b) = (a cos − b sin, b cos + a sin), sines times `sign`
    __device__ __forceinline__ void turn(const float (&cos_sin)[8], float sign) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float c0 = cos_sin[e * 4], s0 = sign * cos_sin[e * 4 + 1], c1 = cos_sin[e * 4 + 2], s1 = sign * cos_sin[e * 4 + 3];
            const float a0 = dev::lo(a[e]), a1 = dev::hi(a[e]), b0 = dev::lo(b[e]), b1 = dev::hi(b[e]);
            a[e] = dev::pack(a0 * c0 - b0 * s0, a1 * c1 - b1 * s1);
            b[e] = dev::pack(b0 * c0 + a0 * s0, b1 * c1 + a1 * s1);
        }
    }
};

// Rows first … of a head = factor·sums, turned back unless cos_sin is null; by way of the warp's own rows of a tile, so that a
// lane writes neighbouring elements.
template <int D, int F>
__device__ __forceinline__ void write_rows(const Rows<bf16> &to, const Sums<F, D> &sums, float factor, bf16 *tile, int first,
                                           int len, int head_dim, const float *cos_sin) {
    const int lane = threadIdx.x % 32, half_dim = head_dim / 2;
    bf16 *pairs = tile + lane / 4 * PITCH<D> + lane % 4 * 2;
    __syncwarp();
#pragma unroll
    for (int m = 0; m < F; m++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int j = 0; j < D / 8; j++) {
                const float *pair = &sums[m][j][half * 2];
                *(uint32_t *)(pairs + (m * 16 + half * 8) * PITCH<D> + j * 8) = dev::pack(factor * pair[0], factor * pair[1]);
            }
    __syncwarp();
#pragma unroll 1
    for (int m = 0; m < F; m++, first += 16, tile += 16 * PITCH<D>) {
        if (!cos_sin) {
            each_eight<D>(first, len, head_dim, [&](int, int row, int feature, bool is_there) {
                if (is_there) *(uint4 *)(to[first + row] + feature) = *(const uint4 *)(tile + row * PITCH<D> + feature);
            });
            continue;
        }
        const Angles<D> angles(cos_sin, first, len, half_dim);
        each_piece<D>(half_dim, [&](int n, int row, int i) {
            Piece piece;
            piece.load(tile + row * PITCH<D> + i, half_dim);
            piece.turn(angles.cos_sin[n], -1.0f);
            if (first + row < len) piece.store(to[first + row] + i, half_dim);
        });
    }
}

// ---- For launchers -----------------------------------------------------------------------------------------------------------

// What turns exponentials of scores into powers of two of products
inline float scale_of(const trm_attention &shape) { return (float)(1.4426950408889634 / sqrt((double)shape.head_dim)); }
inline bool is_angles(trm_array x) { return !x.data || x.format == TRM_F32; }
inline bool is_operand(trm_array x) { return x.format == TRM_BF16 && aligned<8>(x); }
} // namespace

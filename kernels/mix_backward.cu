// SwiGLU over positions, backward (mix.cuh says how). For each sequence, dy [len, width] being the gradient of y = W_down H,
// H = silu(G) ⊙ U:
//
//     [G; U] = W_gate_up x,   D = W_downᵀ dy,   dG = D ⊙ U ⊙ σ(G)(1 + G(1 − σ(G))),   dU = D ⊙ G ⊙ σ(G)
//     dx = base + W_gateᵀ dG + W_upᵀ dU,   dW_gate += dG xᵀ,   dW_up += dU xᵀ,   dW_down += dy Hᵀ
//
// Two kernels, each of which makes G, U and D again: one for dx, which sums over hidden units, and one for the weights,
// which sums over features and sequences.
#include "mix_input_hopper.cuh"
#include "mix_weights_hopper.cuh"

namespace {
// ---- Gradient of the input -------------------------------------------------------------------------------------------------
// Like the forward kernel: a block takes up to 256 features of one sequence, each of its warps 32 of them, as two row tiles
// of 16, and the hidden units pass by in steps of 32. But xᵀ and dyᵀ are loaded again for each step: the registers are full
// of dX and of G, U and D. One warp, for 32 hidden units j (G, U, D and dX mean the transposed matrices here):
//
//       shared memory               registers of one warp                        shared memory
//
//     x [l, 32 f] ── ldmatrix ──▶ xᵀ [32 f, l]   left                         gate, up [32 j, l]
//                  transposed          │                                         │ ldmatrix
//                                      ▼                                         ▼ right
//                                 G, U [32 f, 32 j]  =  xᵀ · gateᵀ, xᵀ · upᵀ      (summed over l)
//
//     dy [l, 32 f] ─ ldmatrix ──▶ dyᵀ [32 f, l]  left                         downᵀ [32 j, l]
//                  transposed          │                                         │ ldmatrix
//                                      ▼                                         ▼ right
//                                 D [32 f, 32 j]     =  dyᵀ · down                (summed over l)
//                                      │
//                                      ▼  element by element, rounded to bf16
//                                 dG, dU [32 f, 32 j]   left                  gate, up [32 j, l]
//                                      │                                         │ ldmatrix transposed
//                                      ▼                                         ▼ right
//     dx [l, 32 f] ◀── + base ─── dX [32 f, l]  +=  dG · gate + dU · up           (summed over j)
//
// Beyond 112 positions it is 16 hidden units at a time, for want of registers, and 192 features, for want of shared memory.
// Where that is scarce (SMALL), it is 128 features, and steps of 16 hidden units.

template <int LEN_, bool SMALL = false> struct InputGrad {
    static constexpr int LEN = LEN_;
    static constexpr int FEATURES = SMALL ? 128 : LEN > 112 ? 192 : 256;
    static constexpr int UNITS = SMALL ? 16 : STEP;           // hidden units in a step
    static constexpr int EACH = LEN > 112 || SMALL ? 16 : 32; // hidden units at a time
    static constexpr int STAGES = 2;                          // steps of weights in shared memory
    static constexpr int TILE_BYTES = Sizes<LEN>::ROWS * pitch_of<FEATURES> * 2;
    static constexpr int STAGE_BYTES = UNITS * Sizes<LEN>::UNIT_BYTES;
    static constexpr int SHARED = 2 * TILE_BYTES + STAGES * STAGE_BYTES;
    static constexpr int SUMS_PITCH = FEATURES + 4; // floats in a row of dX
    static_assert(LEN * SUMS_PITCH * 4 <= 2 * TILE_BYTES, "dX takes the place of x and dy");
};

template <class I>
__global__ void __launch_bounds__(I::FEATURES, 1)
    mix_input_grad(const bf16 *x, const unsigned char *packed, const bf16 *dy, const bf16 *base, bf16 *dx, int len, int width, int inner) {
    using S = Sizes<I::LEN>;
    TRM_SHARED(shared);
    const int warp = threadIdx.x / 32;
    const Span span = span_of_block(len, width);
    const Tile<pitch_of<I::FEATURES>> x_tile{shared}, dy_tile{shared + I::TILE_BYTES};
    unsigned char *const stages = shared + 2 * I::TILE_BYTES;

    const int steps = inner / I::UNITS;
    auto fetch_step = [&](int step) {
        fetch_units<I::UNITS, S::PITCH>(stages + step % I::STAGES * I::STAGE_BYTES, packed, step * I::UNITS);
    };
    fetch<S::ROWS, I::FEATURES>(x_tile, x, span);
    fetch<S::ROWS, I::FEATURES>(dy_tile, dy, span);
    fetch_step(0);
    dev::copies_commit();
    for_each_8<I::FEATURES>(span, [&](int l, int f) {
        if (f % 64 == 0) dev::prefetch(base + span.at(l, f)); // it will be wanted in the end
    });

    float out[2][S::TILES][4] = {};
    for (int step = 0; step < steps; step++) {
        dev::copies_wait<0>();
        __syncthreads();
        if (step + 1 < steps) fetch_step(step + 1);
        dev::copies_commit();

        const Tile<S::PITCH> weights{stages + step % I::STAGES * I::STAGE_BYTES};
#pragma unroll 1
        for (int j = 0; j < I::UNITS; j += I::EACH) {
            constexpr int P = I::EACH / 16;
            float g[2][P * 2][4] = {}, u[2][P * 2][4] = {}, d[2][P * 2][4] = {};
#pragma unroll
            for (int k = 0; k < S::BLOCKS; k++) {
                uint32_t x_t[2][4];
#pragma unroll
                for (int i = 0; i < 2; i++) load_left_transposed(x_t[i], x_tile, k * 16, warp * 32 + i * 16);
#pragma unroll
                for (int p = 0; p < P; p++) {
                    uint32_t gate[4], up[4];
                    load_right(gate, weights, GATE * I::UNITS + j + p * 16, k * 16);
                    load_right(up, weights, UP * I::UNITS + j + p * 16, k * 16);
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        multiply(g[i], p, x_t[i], gate);
                        multiply(u[i], p, x_t[i], up);
                    }
                }
            }
#pragma unroll
            for (int k = 0; k < S::BLOCKS; k++) {
                uint32_t dy_t[2][4];
#pragma unroll
                for (int i = 0; i < 2; i++) load_left_transposed(dy_t[i], dy_tile, k * 16, warp * 32 + i * 16);
#pragma unroll
                for (int p = 0; p < P; p++) {
                    uint32_t down[4];
                    load_right(down, weights, DOWN * I::UNITS + j + p * 16, k * 16);
#pragma unroll
                    for (int i = 0; i < 2; i++) multiply(d[i], p, dy_t[i], down);
                }
            }
            uint32_t dg[2][P][4], du[2][P][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                differentiate(elements(g[i]), elements(u[i]), elements(d[i]));
#pragma unroll
                for (int p = 0; p < P; p++) {
                    pack_left(dg[i][p], g[i], p);
                    pack_left(du[i][p], u[i], p);
                }
            }
#pragma unroll
            for (int n = 0; n < S::BLOCKS; n++)
#pragma unroll
                for (int p = 0; p < P; p++) {
                    uint32_t gate[4], up[4];
                    load_right_transposed(gate, weights, GATE * I::UNITS + j + p * 16, n * 16);
                    load_right_transposed(up, weights, UP * I::UNITS + j + p * 16, n * 16);
#pragma unroll
                    for (int i = 0; i < 2; i++) {
                        multiply(out[i], n, dg[i][p], gate);
                        multiply(out[i], n, du[i][p], up);
                    }
                }
        }
    }

    // dX takes the place of x and dy, so that dx can be read and written in whole rows.
    __syncthreads();
    float *const sums = (float *)shared;
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int t = 0; t < S::TILES; t++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums[column_of(t, e) * I::SUMS_PITCH + warp * 32 + i * 16 + row_of(e)] = out[i][t][e];
    __syncthreads();
    for_each_8<I::FEATURES>(span, [&](int l, int f) {
        float v[8];
        dev::load(v, base + span.at(l, f));
#pragma unroll
        for (int e = 0; e < 8; e++) v[e] += sums[l * I::SUMS_PITCH + f + e];
        dev::store(dx + span.at(l, f), v);
    });
}

// ---- Gradients of the weights ----------------------------------------------------------------------------------------------
// A block owns 32 hidden units of one slice of the batch and passes over the slice's sequences in chunks of 128 features. Its
// eight warps are two groups of 16 hidden units by four quarters of each chunk. Here hidden units are the rows (m) of all
// results, and columns are features: so a lane holds pairs of neighbouring features, which is what the left operand of a
// product that sums over features wants. The block's weights stay in shared memory, and x and dy are copied one chunk ahead.
// One warp, for 32 features f:
//
//       shared memory               registers of one warp                        shared memory
//
//     gate, up [16 j, l] ───────▶ gate, up [16 j, l]   left                   x [l, 32 f]
//                  ldmatrix            │                                         │ ldmatrix transposed
//                                      ▼                                         ▼ right
//                                 G, U [16 j, 32 f]  =  gate · x, up · x          (summed over l)
//
//     downᵀ [16 j, l] ──────────▶ downᵀ [16 j, l]      left                   dy [l, 32 f]
//                  ldmatrix            │                                         │ ldmatrix transposed
//                                      ▼                                         ▼ right
//                                 D [16 j, 32 f]     =  downᵀ · dy                (summed over l)
//                                      │
//                                      ▼  element by element, rounded to bf16
//                                 dG, dU, H [16 j, 32 f]   left               x, dy [l, 32 f]
//                                      │                                         │ ldmatrix
//                                      ▼                                         ▼ right
//        in the end ◀──────────── dW_gate, dW_up, dW_downᵀ [16 j, l]  +=  dG · xᵀ, dU · xᵀ, H · dyᵀ     (summed over f)
//
// The last three stay in registers for the whole slice: of 97 positions, they take 156 registers of a lane. (Beyond 88
// positions it is 16 features at a time, for want of registers. With SMALL it is 16 as well, and chunks have 64 features.) In the
// end the four warps of the same hidden units add theirs in turn, in shared memory, and the block adds the total to the gradients.
// So the order of a slice's sums depends on the slice and the size of chunks alone.

constexpr int QUARTERS = 4;
constexpr int GRAD_THREADS = 256;

template <int LEN_, bool SMALL = false> struct WeightGrad {
    static constexpr int LEN = LEN_;
    static constexpr int CHUNK = SMALL ? 64 : 128;            // features of a chunk
    static constexpr int EACH = LEN > 88 || SMALL ? 16 : 32; // features of a warp at a time
    static constexpr int WEIGHT_BYTES = STEP * Sizes<LEN>::UNIT_BYTES;
    static constexpr int TILE_BYTES = Sizes<LEN>::ROWS * pitch_of<CHUNK> * 2;
    static constexpr int SHARED = WEIGHT_BYTES + 4 * TILE_BYTES; // weights; x and dy of two chunks
    static constexpr int TOTAL_PITCH = LEN + 4;                  // floats in a row of the total
    static_assert(3 * STEP * TOTAL_PITCH * 4 <= SHARED, "the total takes the place of everything else");
};

template <class W>
__global__ void __launch_bounds__(GRAD_THREADS, 1)
    mix_weight_grad(const bf16 *x, const unsigned char *packed, const bf16 *dy, trm_sums d_gate_up, trm_sums d_down,
                    int sequences, int rows, int len, int width, int inner) {
    using S = Sizes<W::LEN>;
    constexpr int CHUNK = W::CHUNK;
    TRM_SHARED(shared);
    const int warp = threadIdx.x / 32, j = warp / QUARTERS * 16, quarter = warp % QUARTERS;
    const int step = blockIdx.x, slice = blockIdx.y;
    const int first = slice * rows, count = sequences - first < rows ? sequences - first : rows;
    const int chunks_of_row = (width + CHUNK - 1) / CHUNK, chunks = count * chunks_of_row;

    const Tile<S::PITCH> weights{shared};
    auto tile = [&](int chunk, int which) {
        return Tile<pitch_of<CHUNK>>{shared + W::WEIGHT_BYTES + (chunk % 2 * 2 + which) * W::TILE_BYTES};
    };
    auto fetch_chunk = [&](int chunk) {
        const int f0 = chunk % chunks_of_row * CHUNK, features = width - f0 < CHUNK ? width - f0 : CHUNK;
        const Span span{(size_t)(first + chunk / chunks_of_row), f0, features, len, width};
        fetch<S::ROWS, CHUNK>(tile(chunk, 0), x, span);
        fetch<S::ROWS, CHUNK>(tile(chunk, 1), dy, span);
    };
    fetch_units<STEP, S::PITCH>(shared, packed, step * STEP);
    fetch_chunk(0);
    dev::copies_commit();

    float d_gate[S::TILES][4] = {}, d_up[S::TILES][4] = {}, d_down_t[S::TILES][4] = {};
    for (int chunk = 0; chunk < chunks; chunk++) {
        dev::copies_wait<0>();
        __syncthreads();
        if (chunk + 1 < chunks) fetch_chunk(chunk + 1);
        dev::copies_commit();

        const auto x_tile = tile(chunk, 0), dy_tile = tile(chunk, 1);
#pragma unroll 1
        for (int part = 0; part < CHUNK / QUARTERS; part += W::EACH) {
            const int f = quarter * (CHUNK / QUARTERS) + part;
            constexpr int P = W::EACH / 16;
            float g[P * 2][4] = {}, u[P * 2][4] = {}, d[P * 2][4] = {};
#pragma unroll
            for (int k = 0; k < S::BLOCKS; k++) {
                uint32_t gate[4], up[4];
                load_left(gate, weights, GATE * STEP + j, k * 16);
                load_left(up, weights, UP * STEP + j, k * 16);
#pragma unroll
                for (int p = 0; p < P; p++) {
                    uint32_t right[4];
                    load_right_transposed(right, x_tile, k * 16, f + p * 16);
                    multiply(g, p, gate, right);
                    multiply(u, p, up, right);
                }
            }
#pragma unroll
            for (int k = 0; k < S::BLOCKS; k++) {
                uint32_t down[4];
                load_left(down, weights, DOWN * STEP + j, k * 16);
#pragma unroll
                for (int p = 0; p < P; p++) {
                    uint32_t right[4];
                    load_right_transposed(right, dy_tile, k * 16, f + p * 16);
                    multiply(d, p, down, right);
                }
            }
            differentiate(elements(g), elements(u), elements(d));
            uint32_t dg[P][4], du[P][4], h[P][4];
#pragma unroll
            for (int p = 0; p < P; p++) {
                pack_left(dg[p], g, p);
                pack_left(du[p], u, p);
                pack_left(h[p], d, p);
            }
#pragma unroll
            for (int n = 0; n < S::BLOCKS; n++)
#pragma unroll
                for (int p = 0; p < P; p++) {
                    uint32_t right[4];
                    load_right(right, x_tile, n * 16, f + p * 16);
                    multiply(d_gate, n, dg[p], right);
                    multiply(d_up, n, du[p], right);
                    load_right(right, dy_tile, n * 16, f + p * 16);
                    multiply(d_down_t, n, h[p], right);
                }
        }
    }

    float *const total = (float *)shared;
    auto add = [&](int weight, const float(&sums)[S::TILES][4]) {
#pragma unroll
        for (int t = 0; t < S::TILES; t++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float &cell = total[(weight * STEP + j + row_of(e)) * W::TOTAL_PITCH + column_of(t, e)];
                cell = quarter == 0 ? sums[t][e] : cell + sums[t][e];
            }
    };
    for (int turn = 0; turn < QUARTERS; turn++) {
        __syncthreads();
        if (quarter != turn) continue;
        add(GATE, d_gate);
        add(UP, d_up);
        add(DOWN, d_down_t);
    }
    __syncthreads();
    float *const to_gate_up = (float *)d_gate_up.data + slice * d_gate_up.stride;
    for (int i = threadIdx.x; i < 2 * STEP * len; i += GRAD_THREADS) {
        const int row = i / len, l = i % len;
        const int64_t to = (int64_t)(row / STEP) * inner + step * STEP + row % STEP;
        to_gate_up[to * len + l] += total[row * W::TOTAL_PITCH + l];
    }
    float *const to_down = (float *)d_down.data + slice * d_down.stride;
    for (int i = threadIdx.x; i < STEP * len; i += GRAD_THREADS) {
        const int row = i % STEP, l = i / STEP;
        to_down[(int64_t)l * inner + step * STEP + row] += total[(DOWN * STEP + row) * W::TOTAL_PITCH + l];
    }
}
} // namespace

extern "C" int TRM_API(mix_backward_input_bf16)(trm_array x, const void *packed, trm_array dy, trm_array base, trm_array dx,
                                                int64_t sequences, int64_t len, int64_t width, int64_t inner, trm_stream stream) {
    for (int64_t format : {x.format, dy.format, base.format, dx.format})
        if (format != TRM_BF16) return 1;
    if (!mix_takes(width, inner)) return 1;
    if (sequences == 0) return 0;
    if (dev::has_wgmma())
        return with_sizes(len, [&](auto sizes) {
            typedef decltype(sizes) S;
            const void *const cores = (const unsigned char *)packed + inner * S::UNIT_BYTES;
            return launch_input_grad_by_groups<S::TILES * 8>(x, cores, dy, base, dx, sequences, len, width, inner, stream);
        });
    return with_plan<InputGrad>(len, [&](auto plan) {
        typedef decltype(plan) I;
        constexpr int SHARED = I::SHARED;
        const Parts parts(width, I::FEATURES);
        if (sequences > INT32_MAX || parts.count > 65535) return 1;
        auto kernel = mix_input_grad<I>;
        if (int status = TRM_ALLOW_SHARED(kernel, SHARED)) return status;
        const dim3 grid((unsigned)sequences, (unsigned)parts.count), block((unsigned)parts.features);
        return TRM_LAUNCH(kernel, grid, block, SHARED, stream, (const bf16 *)x.data, (const unsigned char *)packed,
                          (const bf16 *)dy.data, (const bf16 *)base.data, (bf16 *)dx.data, (int)len, (int)width, (int)inner);
    });
}

extern "C" int TRM_API(mix_backward_weights_bf16)(trm_array x, const void *packed, trm_array dy, trm_sums d_gate_up,
                                                  trm_sums d_down, int64_t sequences, int64_t len, int64_t width, int64_t inner,
                                                  trm_stream stream) {
    if (x.format != TRM_BF16 || dy.format != TRM_BF16 || !mix_takes(width, inner)) return 1;
    if (d_gate_up.format != TRM_F32 || d_down.format != TRM_F32 || d_gate_up.rows != d_down.rows || d_down.rows <= 0) return 1;
    if (sequences == 0) return 0;
    // Beyond 112 positions warpgroups lack the registers.
    if (dev::has_wgmma() && len <= 112)
        return with_sizes(len, [&](auto sizes) {
            typedef decltype(sizes) S;
            const void *const cores = (const unsigned char *)packed + inner * S::UNIT_BYTES;
            constexpr int LEN = S::TILES * 8 <= 112 ? S::TILES * 8 : 112;
            return launch_weight_grad_by_groups<LEN>(x, cores, dy, d_gate_up, d_down, sequences, len, width, inner, stream);
        });
    return with_plan<WeightGrad>(len, [&](auto plan) {
        typedef decltype(plan) W;
        constexpr int SHARED = W::SHARED;
        auto kernel = mix_weight_grad<W>;
        const int64_t rows = d_down.rows < sequences ? d_down.rows : sequences, slices = (sequences + rows - 1) / rows;
        if (sequences > INT32_MAX || slices > 65535 || rows * blocks_for(width, W::CHUNK) > INT32_MAX) return 1;
        if (int status = TRM_ALLOW_SHARED(kernel, SHARED)) return status;
        const dim3 grid((unsigned)(inner / STEP), (unsigned)slices);
        return TRM_LAUNCH(kernel, grid, dim3(GRAD_THREADS), SHARED, stream, (const bf16 *)x.data, (const unsigned char *)packed,
                          (const bf16 *)dy.data, d_gate_up, d_down, (int)sequences, (int)rows, (int)len, (int)width, (int)inner);
    });
}

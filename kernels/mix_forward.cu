// SwiGLU over positions, forward, and the packing of its weights (mix.cuh says how). For each sequence x [len, width]
//
//     [G; U] = W_gate_up x,   v = x + W_down (silu(G) ⊙ U),   y = v·r,   r = (mean v² + 1e-5)^(−1/2) over the positions,
//
// or y = W_down (silu(G) ⊙ U) alone. A block takes up to 256 features of one sequence, each of its warps 32 of them, as two
// row tiles of 16. Features are the rows (m) of all results: so all positions of a feature lie in one warp, and the norm
// needs no other warp. The hidden units pass by in steps of 32, whose weights are copied two steps ahead; in steps of 16 where
// shared memory is scarce (SMALL). One warp, for 16 hidden units j (G, U, H and Y mean the transposed matrices here):
//
//       shared memory               registers of one warp                        shared memory
//
//     x [l, 32 f] ── ldmatrix ──▶ xᵀ [32 f, l]   left                         gate, up [16 j, l]
//                transposed, once      │                                         │ ldmatrix
//                                      ▼                                         ▼ right
//                                 G, U [32 f, 16 j]  =  xᵀ · gateᵀ, xᵀ · upᵀ      (summed over l)
//                                      │
//                                      ▼  silu(G) ⊙ U, rounded to bf16
//                                 H [32 f, 16 j]   left                       downᵀ [16 j, l]
//                                      │                                         │ ldmatrix transposed
//                                      ▼                                         ▼ right
//     y [l, 32 f] ◀── norm ────── Y [32 f, l]  +=  H · downᵀ                      (summed over j)
//
// xᵀ and Y stay in registers from the first step to the last: of 97 positions, they take 56 and 104 registers of a lane.
#include "mix_forward_hopper.cuh"

namespace {
constexpr int FEATURES = 256; // of a block, at most
constexpr int KEPT = 7;       // blocks of 16 positions of xᵀ that stay in registers; an eighth is loaded each time

template <int LEN_, bool SMALL = false> struct Forward {
    static constexpr int LEN = LEN_;
    static constexpr int UNITS = SMALL ? 16 : STEP;           // hidden units in a step
    static constexpr int STAGES = SMALL && LEN > 112 ? 2 : 3; // steps of weights in shared memory
    static constexpr int X_BYTES = Sizes<LEN>::ROWS * pitch_of<FEATURES> * 2;
    static constexpr int STAGE_BYTES = UNITS * Sizes<LEN>::UNIT_BYTES;
    static constexpr int SHARED = X_BYTES + STAGES * STAGE_BYTES;
};

template <class F>
__global__ void __launch_bounds__(FEATURES, 1)
    mix_forward(const bf16 *x, const unsigned char *packed, bf16 *y, float *inv_rms, int len, int width, int inner) {
    using S = Sizes<F::LEN>;
    constexpr int STAGES = F::STAGES, UNITS = F::UNITS;
    TRM_SHARED(shared);
    const int warp = threadIdx.x / 32;
    const Span span = span_of_block(len, width);
    const Tile<pitch_of<FEATURES>> x_tile{shared};
    unsigned char *const stages = shared + F::X_BYTES;

    const int steps = inner / UNITS;
    auto fetch_step = [&](int step) {
        fetch_units<UNITS, S::PITCH>(stages + step % STAGES * F::STAGE_BYTES, packed, step * UNITS);
    };
    fetch<S::ROWS, FEATURES>(x_tile, x, span);
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < steps) fetch_step(step);
        dev::copies_commit();
    }
    dev::copies_wait<STAGES - 2>();
    __syncthreads();
    uint32_t x_t[2][S::BLOCKS][4];
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int k = 0; k < S::BLOCKS && k < KEPT; k++) load_left_transposed(x_t[i][k], x_tile, k * 16, warp * 32 + i * 16);

    float out[2][S::TILES][4] = {};
    for (int step = 0; step < steps; step++) {
        // After the barrier this step's weights are there, and nobody reads those of the step before, whose place is filled
        // next.
        dev::copies_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < steps) fetch_step(step + STAGES - 1);
        dev::copies_commit();

        const Tile<S::PITCH> weights{stages + step % STAGES * F::STAGE_BYTES};
#pragma unroll 1
        for (int j = 0; j < UNITS; j += 16) {
            float g[2][2][4] = {}, u[2][2][4] = {};
#pragma unroll
            for (int k = 0; k < S::BLOCKS; k++) {
                uint32_t gate[4], up[4];
                load_right(gate, weights, GATE * UNITS + j, k * 16);
                load_right(up, weights, UP * UNITS + j, k * 16);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    if (k >= KEPT) load_left_transposed(x_t[i][k], x_tile, k * 16, warp * 32 + i * 16);
                    multiply(g[i], 0, x_t[i][k], gate);
                    multiply(u[i], 0, x_t[i][k], up);
                }
            }
            uint32_t h[2][4];
#pragma unroll
            for (int i = 0; i < 2; i++) {
#pragma unroll
                for (int t = 0; t < 2; t++)
#pragma unroll
                    for (int e = 0; e < 4; e++) u[i][t][e] *= dev::sigmoid_approx(g[i][t][e]).silu;
                pack_left(h[i], u[i], 0);
            }
#pragma unroll
            for (int n = 0; n < S::BLOCKS; n++) {
                uint32_t down[4];
                load_right_transposed(down, weights, DOWN * UNITS + j, n * 16);
#pragma unroll
                for (int i = 0; i < 2; i++) multiply(out[i], n, h[i], down);
            }
        }
    }

    // A lane holds sums of four features, and the four lanes of one lane / 4 hold all positions of those. Each lane reads its
    // own cells of x and leaves y in their place.
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
        for (int half = 0; half < 4; half += 2) { // elements half and half + 1 of a tile are of one feature
            const int f = warp * 32 + i * 16 + row_of(half);
            auto cell = [&](int l) { return (bf16 *)x_tile.at(l, f); };
            float scale = 1;
            if (inv_rms) {
                float squares = 0;
#pragma unroll
                for (int t = 0; t < S::TILES; t++)
#pragma unroll
                    for (int e = half; e < half + 2; e++) {
                        float &v = out[i][t][e];
                        if (column_of(t, e) >= len) continue;
                        v += dev::get(cell(column_of(t, e)));
                        squares += v * v;
                    }
                scale = rsqrtf(dev::quad_sum(squares) / len + 1e-5f);
                if (threadIdx.x % 4 == 0 && f < span.features) inv_rms[span.sequence * width + span.f0 + f] = scale;
            }
#pragma unroll
            for (int t = 0; t < S::TILES; t++)
#pragma unroll
                for (int e = half; e < half + 2; e++)
                    if (column_of(t, e) < len) dev::set(cell(column_of(t, e)), out[i][t][e] * scale);
        }
    __syncthreads();
    for_each_8<FEATURES>(span, [&](int l, int f) { *(uint4 *)(y + span.at(l, f)) = *(const uint4 *)x_tile.at(l, f); });
}

// One thread for each element of the packed weights.
__global__ void mix_pack(const float *gate_up, const float *down, bf16 *packed, int len, int64_t inner, int pitch, bool in_cores) {
    const int64_t i = dev::thread_index(), core = i / 64;
    if (i >= 3 * inner * pitch) return;
    const int l = in_cores ? core % (pitch / 8) * 8 + i % 8 : i % pitch;
    const int64_t row = in_cores ? core / (pitch / 8) * 8 + i / 8 % 8 : i / pitch;
    const int weight = row / STEP % 3;
    const int64_t j = row / (3 * STEP) * STEP + row % STEP;
    float w = 0;
    if (l < len) w = weight == DOWN ? down[l * inner + j] : gate_up[(weight * inner + j) * len + l];
    dev::set(packed + i, w);
}
} // namespace

extern "C" int64_t TRM_API(mix_packed_bytes)(int64_t len, int64_t width, int64_t inner) {
    int64_t bytes = 0;
    with_sizes(len, [&](auto sizes) {
        if (mix_takes(width, inner)) bytes = inner * decltype(sizes)::UNIT_BYTES * 2;
        return 0;
    });
    return bytes;
}

extern "C" int TRM_API(mix_pack)(trm_array gate_up, trm_array down, void *packed, int64_t len, int64_t inner, trm_stream stream) {
    if (gate_up.format != TRM_F32 || down.format != TRM_F32 || inner <= 0 || inner % STEP) return 1;
    return with_sizes(len, [&](auto sizes) {
        const int pitch = decltype(sizes)::PITCH, rows = decltype(sizes)::ROWS;
        auto pack = [&](void *to, int pitch, bool in_cores) {
            return TRM_LAUNCH(mix_pack, dim3(blocks_for(3 * inner * pitch, 256)), dim3(256), 0, stream, (const float *)gate_up.data,
                              (const float *)down.data, (bf16 *)to, (int)len, inner, pitch, in_cores);
        };
        if (dev::has_wgmma())
            if (int status = pack((unsigned char *)packed + inner * decltype(sizes)::UNIT_BYTES, rows, true)) return status;
        return pack(packed, pitch, false);
    });
}

extern "C" int TRM_API(mix_bf16)(trm_array x, const void *packed, trm_array y, trm_array inv_rms, int64_t sequences, int64_t len,
                                 int64_t width, int64_t inner, trm_stream stream) {
    if (x.format != TRM_BF16 || y.format != TRM_BF16 || (inv_rms.data && inv_rms.format != TRM_F32)) return 1;
    const Parts parts(width, FEATURES);
    if (!mix_takes(width, inner) || sequences > INT32_MAX || parts.count > 65535) return 1;
    if (sequences == 0) return 0;
    if (dev::has_wgmma())
        return with_sizes(len, [&](auto sizes) {
            typedef decltype(sizes) S;
            const void *const cores = (const unsigned char *)packed + inner * S::UNIT_BYTES;
            return launch_forward_by_groups<S::TILES * 8>(x, cores, y, inv_rms, sequences, len, width, inner, stream);
        });
    return with_plan<Forward>(len, [&](auto plan) {
        typedef decltype(plan) F;
        constexpr int SHARED = F::SHARED;
        auto kernel = mix_forward<F>;
        if (int status = TRM_ALLOW_SHARED(kernel, SHARED)) return status;
        const dim3 grid((unsigned)sequences, (unsigned)parts.count), block((unsigned)parts.features);
        return TRM_LAUNCH(kernel, grid, block, SHARED, stream, (const bf16 *)x.data, (const unsigned char *)packed,
                          (bf16 *)y.data, (float *)inv_rms.data, (int)len, (int)width, (int)inner);
    });
}

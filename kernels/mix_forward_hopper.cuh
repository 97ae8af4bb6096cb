// The forward kernel of SwiGLU over positions for compute capability 9.0. Features are the rows, as in mix_forward.cu, and a
// warpgroup has 64 of them:
//
//     G, U [64 f, 32 j each]  =  xᵀ · [gateᵀ upᵀ]     xᵀ in registers, weights in shared memory   (summed over l)
//     H [64 f, 32 j]          =  silu(G) ⊙ U          in registers
//     Y [64 f, l]            +=  H · downᵀ            H in registers, weights in shared memory    (summed over j)
//
// A block lives as long as the launch. One thread of it fetches weights, step after step, and another one x, one item ahead. Three
// groups use them and do not wait for each other: so one computes silu, or ends its item, while another one's products run.
#pragma once
#include "mix_hopper.cuh"

namespace {
template <int LEN_> struct GroupForward {
    static constexpr int LEN = LEN_, GROUPS = LEN > 112 ? 2 : 3; // as many as there are registers for
    static constexpr int STEP_BYTES = GroupSizes<LEN>::STEP_BYTES, BOX_BYTES = GroupSizes<LEN>::BOX_BYTES;
    static constexpr int OUT_BYTES = LEN * 128; // of a group's y
    static constexpr int BARRIER_BYTES = 256;
    static constexpr int REST = GROUPS * (BOX_BYTES + OUT_BYTES) + BARRIER_BYTES;
    static constexpr int FIT = (MOST_BYTES - REST) / STEP_BYTES, STAGES = FIT < 6 ? FIT : 6; // steps of weights in shared memory
    static constexpr int SHARED = STAGES * STEP_BYTES + REST;
    static_assert(STAGES >= 3 && (2 * STAGES + 2 * GROUPS) * 8 <= BARRIER_BYTES, "there is room");
};

template <class F>
__global__ void __launch_bounds__((F::GROUPS + 1) * GROUP, 1)
    mix_forward_by_groups(const __grid_constant__ dev::TensorMap x, const unsigned char *packed, bf16 *y, float *inv_rms,
                          Items items, int len, int width, int inner) {
#if TRM_SM90A
    using S = GroupSizes<F::LEN>;
    constexpr int STAGES = F::STAGES, GROUPS = F::GROUPS;
    TRM_SHARED(shared); // boxes of x, steps of weights, y, barriers
    unsigned char *const stages = shared + GROUPS * F::BOX_BYTES, *const outs = stages + STAGES * F::STEP_BYTES;
    uint64_t *const full = (uint64_t *)(outs + GROUPS * F::OUT_BYTES), *const vacant = full + STAGES;
    uint64_t *const x_full = vacant + STAGES, *const x_vacant = x_full + GROUPS;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            dev::barrier_init(full + s, 1);
            dev::barrier_init(vacant + s, GROUPS);
        }
        for (int g = 0; g < GROUPS; g++) {
            dev::barrier_init(x_full + g, 1);
            dev::barrier_init(x_vacant + g, GROUP / 32);
        }
        dev::fence_barrier_init();
    }
    __syncthreads();

    const int steps = inner / STEP, rounds = items.rounds(GROUPS), group = threadIdx.x / GROUP - 1;
    if (group < 0) {
        dev::registers_down<24>();
        if (threadIdx.x == 0)
            for (int turn = 0; turn < rounds * steps; turn++) {
                const int s = turn % STAGES;
                if (turn >= STAGES) dev::barrier_wait(vacant + s, (turn / STAGES - 1) & 1);
                dev::barrier_expect(full + s, F::STEP_BYTES);
                dev::bulk_load(stages + s * F::STEP_BYTES, packed + (size_t)(turn % steps) * F::STEP_BYTES, F::STEP_BYTES, full + s);
            }
        if (threadIdx.x == 32)
            for (int round = 0; round < rounds; round++)
                for (int g = 0; g < GROUPS; g++) {
                    const int item = items.number(round, GROUPS, g);
                    if (item >= items.count) break;
                    if (round > 0) dev::barrier_wait(x_vacant + g, (round - 1) & 1);
                    dev::barrier_expect(x_full + g, F::BOX_BYTES);
                    dev::tensor_load_3d(shared + g * F::BOX_BYTES, &x, item % items.parts * 64, 0, item / items.parts, x_full + g);
                }
        return;
    }
    dev::registers_up<F::GROUPS == 3 ? 160 : 240>();
    const int thread = threadIdx.x % GROUP, lane = threadIdx.x % 32, warp = thread / 32;
    unsigned char *const out_rows = outs + group * F::OUT_BYTES + warp * (F::OUT_BYTES / 4); // of the warp's 16 features, 32 bytes
    int turn = 0;
    for (int round = 0, item; (item = items.number(round, GROUPS, group)) < items.count; round++) {
        uint32_t x_t[S::BLOCKS][4];
        dev::barrier_wait(x_full + group, round & 1);
        load_box(x_t, shared + group * F::BOX_BYTES);
        __syncwarp();
        if (lane == 0) dev::barrier_arrive(x_vacant + group);

        float out[F::LEN / 2];
        dev::wgmma_registers(out);
        for (int step = 0; step < steps; step++, turn++) {
            const unsigned char *const weights = stages + turn % STAGES * F::STEP_BYTES;
            float gu[2][STEP / 2]; // G, U
            dev::barrier_wait(full + turn % STAGES, turn / STAGES & 1);
            dev::wgmma_registers((float(&)[STEP])gu);
            dev::wgmma_fence();
#pragma unroll
            for (int k = 0; k < S::BLOCKS; k++)
                dev::Wgmma<2 * STEP>::template multiply<0>((float(&)[STEP])gu, x_t[k],
                                                           S::over_positions(weights, GATE) + k * S::NEXT_16, k > 0);
            dev::wgmma_commit();
            dev::wgmma_wait<0>();
            dev::wgmma_registers((float(&)[STEP])gu);
            if (thread == 0 && step > 0) dev::barrier_arrive(vacant + (turn - 1) % STAGES);
            uint32_t h[STEP / 16][4];
#pragma unroll
            for (int e = 0; e < STEP / 2; e += 2) {
                float s, t, &g0 = gu[0][e], &g1 = gu[0][e + 1];
                dev::sigmoids_approx(s, t, g0, g1);
                h[e / 8][e / 2 % 4] = dev::pack(g0 * s * gu[1][e], g1 * t * gu[1][e + 1]);
            }
            dev::wgmma_fence();
#pragma unroll
            for (int k = 0; k < STEP / 16; k++)
                dev::Wgmma<F::LEN>::template multiply<1>(out, h[k], S::over_units(weights, DOWN) + k * S::NEXT_UNITS,
                                                         step > 0 || k > 0);
            dev::wgmma_commit();
        }
        dev::wgmma_wait<0>();
        dev::wgmma_registers(out);
        if (thread == 0) dev::barrier_arrive(vacant + (turn - 1) % STAGES);

        // A left operand and two results side by side have their elements in the same lanes: x need not be read again. Where
        // there is no position, x and the sums are zeros.
        const int sequence = item / items.parts, f0 = item % items.parts * 64 + warp * 16;
        __syncwarp();
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float scale = 1;
            if (inv_rms) {
                float squares = 0;
#pragma unroll
                for (int t = 0; t < F::LEN / 8; t++) {
                    const uint32_t pair = x_t[t / 2][t % 2 * 2 + half];
                    float &v0 = out[t * 4 + half * 2], &v1 = out[t * 4 + half * 2 + 1];
                    v0 += dev::lo(pair);
                    v1 += dev::hi(pair);
                    squares += v0 * v0;
                    squares += v1 * v1;
                }
                scale = rsqrtf(dev::quad_sum(squares) / len + 1e-5f);
                if (lane % 4 == 0) inv_rms[(size_t)sequence * width + f0 + half * 8 + lane / 4] = scale;
            }
            // The two pieces of a row change places in every other four rows, for the banks' sake.
#pragma unroll
            for (int t = 0; t < F::LEN / 8; t++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const int l = t * 8 + lane % 4 * 2 + e, piece = half ^ l / 4 % 2;
                    dev::set((bf16 *)(out_rows + l * 32 + piece * 16) + lane / 4, out[t * 4 + half * 2 + e] * scale);
                }
        }
        __syncwarp();
        bf16 *const to = y + (size_t)sequence * len * width + f0;
        for (int l = lane / 2; l < len; l += 16) {
            const int piece = lane % 2;
            *(uint4 *)(to + (size_t)l * width + piece * 8) = *(const uint4 *)(out_rows + l * 32 + (piece ^ l / 4 % 2) * 16);
        }
    }
    // Others have a round that this group has not.
    for (; turn < rounds * steps; turn++) {
        dev::barrier_wait(full + turn % STAGES, turn / STAGES & 1);
        if (thread == 0) dev::barrier_arrive(vacant + turn % STAGES);
    }
#endif
}

template <int LEN>
int launch_forward_by_groups(trm_array x, const void *packed, trm_array y, trm_array inv_rms, int64_t sequences, int64_t len,
                             int64_t width, int64_t inner, trm_stream stream) {
    typedef GroupForward<LEN> F;
    auto kernel = mix_forward_by_groups<F>;
    const int64_t parts = width / 64, count = sequences * parts, most = dev::processors();
    if (count + most * F::GROUPS > INT32_MAX / 2) return 1;
    dev::TensorMap map;
    if (int status = boxes_of(&map, x, sequences, len, width, GroupSizes<LEN>::ROWS)) return status;
    if (int status = TRM_ALLOW_SHARED(kernel, F::SHARED)) return status;
    return TRM_LAUNCH(kernel, dim3((unsigned)(count < most ? count : most)), dim3((F::GROUPS + 1) * GROUP), F::SHARED, stream, map,
                      (const unsigned char *)packed, (bf16 *)y.data, (float *)inv_rms.data, Items{(int)count, (int)parts}, (int)len,
                      (int)width, (int)inner);
}
} // namespace

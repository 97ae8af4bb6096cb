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
    static constexpr int FIT = (MOST_BYTES - REST) / STEP_BYTES, STAGES = FIT < 4 ? FIT : 4; // steps of weights in shared memory
    static constexpr int SHARED = STAGES * STEP_BYTES + REST;
    static_assert(STAGES >= 3 && (2 * STAGES + 2 * GROUPS) * 8 <= BARRIER_BYTES, "there is room");
};

template <class F>
__global__ void __launch_bounds__((F::GROUPS + 1) * GROUP, 1)
    mix_forward_by_groups(const __grid_constant__ dev::TensorMap x, const unsigned char *packed, bf16 *y, float *inv_rms,
                          Items<F::GROUPS> items, int len, int width, int inner) {
#if TRM_SM90A
    using S = GroupSizes<F::LEN>;
    constexpr int STAGES = F::STAGES, GROUPS = F::GROUPS;
    TRM_SHARED(shared); // boxes of x, steps of weights, strips of y, barriers
    unsigned char *const places = shared + GROUPS * F::BOX_BYTES, *const strips = places + STAGES * F::STEP_BYTES;
    uint64_t *const barriers = (uint64_t *)(strips + GROUPS * F::OUT_BYTES), *const of_x = barriers + 2 * STAGES;
    const Steps<F::LEN, STAGES, GROUPS> weights{places, barriers, barriers + STAGES};
    const BoxOfGroup<F::LEN, GROUPS> x_box{shared, of_x, of_x + GROUPS};
    if (threadIdx.x == 0) {
        weights.begin();
        x_box.begin(GROUP / 32);
        dev::fence_barrier_init();
    }
    __syncthreads();

    const int steps = inner / STEP, turns = items.rounds() * steps, group = threadIdx.x / GROUP - 1;
    if (group < 0) {
        dev::registers_down<24>();
        if (threadIdx.x == 0) weights.fetch(packed, steps, turns);
        if (threadIdx.x == 32) x_box.fetch(&x, items);
        return;
    }
    dev::registers_up<GROUPS == 3 ? 160 : 240>();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 - GROUP / 32;
    const Strip strip{strips + warp * (F::OUT_BYTES / 4)};
    int turn = 0;
    for (int round = 0, item; (item = items.number(round, group)) < items.count; round++) {
        uint32_t x_t[S::BLOCKS][4];
        load_box(x_t, x_box.arrived(group, round));
        __syncwarp();
        if (lane == 0) dev::barrier_arrive(x_box.vacant + group);

        float out[F::LEN / 2];
        dev::wgmma_registers(out);
        for (int step = 0; step < steps; step++, turn++) {
            const unsigned char *const of_step = weights.arrived(turn);
            float gu[2][STEP / 2]; // G, U
            dev::wgmma_registers((float(&)[STEP])gu);
            dev::wgmma_fence();
#pragma unroll
            for (int k = 0; k < S::BLOCKS; k++)
                dev::Wgmma<2 * STEP>::template multiply<0>((float(&)[STEP])gu, x_t[k],
                                                           S::over_positions(of_step, GATE) + k * S::NEXT_16, k > 0);
            dev::wgmma_commit();
            dev::wgmma_wait<0>();
            dev::wgmma_registers((float(&)[STEP])gu);
            if (step > 0) weights.release(turn - 1);
            uint32_t h[STEP / 16][4];
#pragma unroll
            for (int e = 0; e < STEP / 2; e += 2) {
                float hidden[2];
#pragma unroll
                for (int i = 0; i < 2; i++) hidden[i] = dev::sigmoid_approx(gu[0][e + i]).silu * gu[1][e + i];
                h[e / 8][e / 2 % 4] = dev::pack(hidden[0], hidden[1]);
            }
            dev::wgmma_fence();
#pragma unroll
            for (int k = 0; k < STEP / 16; k++)
                dev::Wgmma<F::LEN>::template multiply<1>(out, h[k], S::over_units(of_step, DOWN) + k * S::NEXT_UNITS,
                                                         step > 0 || k > 0);
            dev::wgmma_commit();
        }
        dev::wgmma_wait<0>();
        dev::wgmma_registers(out);
        weights.release(turn - 1);

        // A left operand and two results side by side have their elements in the same lanes: x need not be read again. Where
        // there is no position, x and the sums are zeros.
        const int sequence = item / items.parts, f0 = item % items.parts * 64 + warp % 4 * 16;
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
#pragma unroll
            for (int t = 0; t < F::LEN / 8; t++)
                strip.store(column_of(t, 0), half, out[t * 4 + half * 2] * scale, out[t * 4 + half * 2 + 1] * scale);
        }
        strip.write(y + (size_t)sequence * len * width + f0, len, width);
    }
    weights.pass(turn, turns);
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
                      (const unsigned char *)packed, (bf16 *)y.data, (float *)inv_rms.data, Items<F::GROUPS>{(int)count, (int)parts}, (int)len,
                      (int)width, (int)inner);
}
} // namespace

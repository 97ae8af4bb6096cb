// The gradient of the input of a SwiGLU over positions for compute capability 9.0: the forward kernel's way of working (see
// mix_forward_hopper.cuh), with features as rows, and these products:
//
//     G, U, D [64 f, 32 j each]  =  xᵀ · [gateᵀ upᵀ], dyᵀ · down     xᵀ in registers, dyᵀ in shared memory   (summed over l)
//     dG, dU [64 f, 32 j]                                            in registers, element by element
//     dX [64 f, l]              +=  dG · gate + dU · up              left ones in registers                  (summed over j)
#pragma once
#include "mix_hopper.cuh"

namespace {
template <int LEN_> struct GroupInputGrad {
    static constexpr int LEN = LEN_, GROUPS = LEN > 112 ? 2 : 3; // as many as there are registers for
    static constexpr int BOX_BYTES = GroupSizes<LEN>::BOX_BYTES, BARRIER_BYTES = 256;
    static constexpr int REST = 3 * GROUPS * BOX_BYTES + BARRIER_BYTES;
    static constexpr int FIT = (MOST_BYTES - REST) / GroupSizes<LEN>::STEP_BYTES, STAGES = FIT < 4 ? FIT : 4;
    static constexpr int SHARED = STAGES * GroupSizes<LEN>::STEP_BYTES + REST;
    static_assert(STAGES >= 3 && (2 * STAGES + 4 * GROUPS) * 8 <= BARRIER_BYTES, "there is room");
};

template <class I>
__global__ void __launch_bounds__((I::GROUPS + 1) * GROUP, 1)
    mix_input_grad_by_groups(const __grid_constant__ dev::TensorMap x, const __grid_constant__ dev::TensorMap dy,
                             const unsigned char *packed, const bf16 *base, bf16 *dx, Items<I::GROUPS> items, int len, int width, int inner) {
#if TRM_SM90A
    using S = GroupSizes<I::LEN>;
    constexpr int STAGES = I::STAGES, GROUPS = I::GROUPS;
    TRM_SHARED(shared); // boxes of x and dy, strips of dx, steps of weights, barriers
    unsigned char *const strips = shared + 2 * GROUPS * I::BOX_BYTES, *const places = strips + GROUPS * I::BOX_BYTES;
    uint64_t *const barriers = (uint64_t *)(places + STAGES * S::STEP_BYTES), *const of_boxes = barriers + 2 * STAGES;
    const Steps<I::LEN, STAGES, GROUPS> weights{places, barriers, barriers + STAGES};
    const BoxOfGroup<I::LEN, GROUPS> x_box{shared, of_boxes, of_boxes + GROUPS};
    const BoxOfGroup<I::LEN, GROUPS> dy_box{shared + GROUPS * I::BOX_BYTES, of_boxes + 2 * GROUPS, of_boxes + 3 * GROUPS};
    if (threadIdx.x == 0) {
        weights.begin();
        x_box.begin(GROUP / 32);
        dy_box.begin(1);
        dev::fence_barrier_init();
    }
    __syncthreads();

    const int steps = inner / STEP, turns = items.rounds() * steps, group = threadIdx.x / GROUP - 1;
    if (group < 0) {
        dev::registers_down<24>();
        if (threadIdx.x == 0) weights.fetch(packed, steps, turns);
        if (threadIdx.x == 32) x_box.fetch(&x, items);
        if (threadIdx.x == 64) dy_box.fetch(&dy, items);
        return;
    }
    dev::registers_up<GROUPS == 3 ? 160 : 240>();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 - GROUP / 32;
    const Strip strip{strips + warp * (I::BOX_BYTES / 4)};
    int turn = 0;
    for (int round = 0, item; (item = items.number(round, group)) < items.count; round++) {
        const size_t first = (size_t)(item / items.parts) * len * width + item % items.parts * 64 + warp % 4 * 16;
        Strip::for_each(len, [&](int l, int piece) {
            dev::copy16_async(strip.at(l, piece), base + first + (size_t)l * width + piece * 8, 16);
        });
        dev::copies_commit();
        uint32_t x_t[S::BLOCKS][4];
        load_box(x_t, x_box.arrived(group, round));
        __syncwarp();
        if (lane == 0) dev::barrier_arrive(x_box.vacant + group);

        const uint64_t dy_t = dev::descriptor(dy_box.arrived(group, round), 0, 1024, true);
        float out[I::LEN / 2];
        dev::wgmma_registers(out);
        for (int step = 0; step < steps; step++, turn++) {
            const unsigned char *const of_step = weights.arrived(turn);
            float gu[2][STEP / 2], d[STEP / 2]; // G, U; D
            dev::wgmma_registers((float(&)[STEP])gu), dev::wgmma_registers(d);
            dev::wgmma_fence();
#pragma unroll
            for (int k = 0; k < S::BLOCKS; k++) {
                constexpr int NEXT_ROWS = 16 * 128 / 16;
                dev::Wgmma<2 * STEP>::template multiply<0>((float(&)[STEP])gu, x_t[k],
                                                           S::over_positions(of_step, GATE) + k * S::NEXT_16, k > 0);
                dev::Wgmma<STEP>::template multiply<1, 0>(d, dy_t + k * NEXT_ROWS, S::over_positions(of_step, DOWN) + k * S::NEXT_16,
                                                          k > 0);
            }
            dev::wgmma_commit();
            dev::wgmma_wait<0>();
            dev::wgmma_registers((float(&)[STEP])gu), dev::wgmma_registers(d);
            differentiate(gu[0], gu[1], d);
            uint32_t dg[STEP / 16][4], du[STEP / 16][4];
#pragma unroll
            for (int k = 0; k < STEP / 16; k++) {
                pack_left(dg[k], gu[0], k);
                pack_left(du[k], gu[1], k);
            }
            dev::wgmma_fence();
#pragma unroll
            for (int k = 0; k < STEP / 16; k++) {
                dev::Wgmma<I::LEN>::template multiply<1>(out, dg[k], S::over_units(of_step, GATE) + k * S::NEXT_UNITS,
                                                         step > 0 || k > 0);
                dev::Wgmma<I::LEN>::template multiply<1>(out, du[k], S::over_units(of_step, UP) + k * S::NEXT_UNITS, 1);
            }
            dev::wgmma_commit();
            dev::wgmma_wait<0>(); // there are no registers for the next G, U and D beside dG and dU
            dev::wgmma_registers(out);
            weights.release(turn);
        }
        if (threadIdx.x % GROUP == 0) dev::barrier_arrive(dy_box.vacant + group);

        dev::copies_wait<0>();
        __syncwarp();
#pragma unroll
        for (int k = 0; k < S::BLOCKS; k++) {
            uint32_t before[4]; // of the base
            strip.load(before, k * 16);
            __syncwarp();
#pragma unroll
            for (int i = 0; i < 4 && k * 2 + i / 2 < I::LEN / 8; i++) {
                const int t = k * 2 + i / 2, e = t * 4 + i % 2 * 2;
                strip.store(column_of(t, 0), i % 2, out[e] + dev::lo(before[i]), out[e + 1] + dev::hi(before[i]));
            }
        }
        strip.write(dx + first, len, width);
    }
    weights.pass(turn, turns);
#endif
}

template <int LEN>
int launch_input_grad_by_groups(trm_array x, const void *packed, trm_array dy, trm_array base, trm_array dx, int64_t sequences,
                                int64_t len, int64_t width, int64_t inner, trm_stream stream) {
    typedef GroupInputGrad<LEN> I;
    auto kernel = mix_input_grad_by_groups<I>;
    const int64_t parts = width / 64, count = sequences * parts, most = dev::processors();
    if (count + most * I::GROUPS > INT32_MAX / 2) return 1;
    dev::TensorMap x_map, dy_map;
    if (int status = boxes_of(&x_map, x, sequences, len, width, GroupSizes<LEN>::ROWS)) return status;
    if (int status = boxes_of(&dy_map, dy, sequences, len, width, GroupSizes<LEN>::ROWS)) return status;
    if (int status = TRM_ALLOW_SHARED(kernel, I::SHARED)) return status;
    return TRM_LAUNCH(kernel, dim3((unsigned)(count < most ? count : most)), dim3((I::GROUPS + 1) * GROUP), I::SHARED, stream, x_map,
                      dy_map, (const unsigned char *)packed, (const bf16 *)base.data, (bf16 *)dx.data,
                      Items<I::GROUPS>{(int)count, (int)parts}, (int)len, (int)width, (int)inner);
}
} // namespace

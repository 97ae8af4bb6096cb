// The gradients of the weights of a SwiGLU over positions for compute capability 9.0. Hidden units are the rows, as in
// mix_backward.cu, and a block owns 64 of them, of one slice of the batch:
//
//     G, U, D [64 j, 32 f each]              =  gate · x, up · x, downᵀ · dy    all in shared memory   (summed over l)
//     dG, dU, H [64 j, 32 f each]                                               in registers, element by element
//     dW_gate, dW_up, dW_downᵀ [64 j, l]    +=  dG · xᵀ, dU · xᵀ, H · dyᵀ       left ones in registers (summed over f)
//
// The slice's sequences pass by in boxes of 64 features of x and dy, which one thread fetches. Two warpgroups take boxes in turn, and
// add their sums in the end: one computes elements while the products of the other one run. So a slice's sums depend on the slice alone.
//
// 512 hidden units of 24 slices are 192 blocks, too few for 132 multiprocessors to be busy in two rounds. Therefore a slice has two
// halves, and each has a launch. The second one begins where the first one leaves multiprocessors idle, and adds its sums when
// the first one is over.
#pragma once
#include "mix_hopper.cuh"

namespace {
template <int LEN_> struct GroupWeightGrad {
    static constexpr int LEN = LEN_, GROUPS = 2, UNITS = 64;
    static constexpr int EACH = LEN > 104 ? 16 : 32; // features at a time: as many as there are registers for
    static constexpr int UNITS_BYTES = UNITS / 8 * GroupSizes<LEN>::UNITS_8; // of one matrix
    static constexpr int BOX_BYTES = GroupSizes<LEN>::BOX_BYTES, STAGES = 4;
    static constexpr int BARRIERS = STAGES * 2 * BOX_BYTES + 3 * UNITS_BYTES; // where they lie
    static constexpr int TOTAL_PITCH = LEN + 4;                               // floats in a row of the total
    static constexpr int SHARED = BARRIERS + 128;
    static_assert(SHARED <= MOST_BYTES && 3 * UNITS * TOTAL_PITCH * 4 <= BARRIERS, "the total takes the place of everything else");
};

template <class W>
__global__ void __launch_bounds__((W::GROUPS + 1) * GROUP, 1)
    mix_weight_grad_by_groups(const __grid_constant__ dev::TensorMap x, const __grid_constant__ dev::TensorMap dy,
                              const unsigned char *packed, trm_sums d_gate_up, trm_sums d_down, int64_t sequences, int rows, int half,
                              int len, int width, int inner) {
#if TRM_SM90A
    using S = GroupSizes<W::LEN>;
    constexpr int STAGES = W::STAGES, EACH = W::EACH, UNITS = W::UNITS;
    TRM_SHARED(shared); // boxes of x and dy, weights, barriers
    unsigned char *const weights = shared + STAGES * 2 * W::BOX_BYTES;
    uint64_t *const full = (uint64_t *)(shared + W::BARRIERS), *const vacant = full + STAGES, *const has_weights = vacant + STAGES;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            dev::barrier_init(full + s, 1);
            dev::barrier_init(vacant + s, 1);
        }
        dev::barrier_init(has_weights, 1);
        dev::fence_barrier_init();
    }
    __syncthreads();
    if (half == 0) dev::launch_dependents();

    const int j0 = blockIdx.x * UNITS, units = inner - j0 < UNITS ? inner - j0 : UNITS, slice = blockIdx.y;
    const int64_t begin = (int64_t)slice * rows, middle = begin + (rows + 1) / 2, end = begin + rows;
    const int64_t first = half ? middle : begin, last = half ? end : middle;
    const int parts = width / 64, boxes = (int)((last < sequences ? last : sequences) - first) * parts;
    const int group = threadIdx.x / GROUP - 1, thread = threadIdx.x % GROUP, lane = threadIdx.x % 32;
    if (group < 0) {
        dev::registers_down<24>();
        if (threadIdx.x == 0) {
            // Weights of the j-th step of the block lie behind those of the one before, in each matrix.
            constexpr int PIECE = STEP / 8 * S::UNITS_8;
            dev::barrier_expect(has_weights, 3 * PIECE * (units / STEP));
            for (int j = 0; j < units / STEP; j++)
                for (int m = 0; m < 3; m++)
                    dev::bulk_load(weights + m * W::UNITS_BYTES + j * PIECE, packed + (size_t)((j0 / STEP + j) * 3 + m) * PIECE, PIECE,
                                   has_weights);
            for (int box = 0; box < boxes; box++) {
                const int s = box % STAGES;
                unsigned char *const to = shared + s * 2 * W::BOX_BYTES;
                if (box >= STAGES) dev::barrier_wait(vacant + s, (box / STAGES - 1) & 1);
                dev::barrier_expect(full + s, 2 * W::BOX_BYTES);
                dev::tensor_load_3d(to, &x, box % parts * 64, 0, (int)first + box / parts, full + s);
                dev::tensor_load_3d(to + W::BOX_BYTES, &dy, box % parts * 64, 0, (int)first + box / parts, full + s);
            }
        }
        for (int turn = 0; turn <= W::GROUPS; turn++) __syncthreads(); // while others add
        return;
    }
    dev::registers_up<240>();
    float sums[3][W::LEN / 2]; // of gate, up, downᵀ
    dev::barrier_wait(has_weights, 0);
#pragma unroll
    for (int m = 0; m < 3; m++)
#pragma unroll
        for (int e = 0; e < W::LEN / 2; e++) sums[m][e] = 0;
    for (int box = group; box < boxes; box += W::GROUPS) {
        const int s = box % STAGES;
        const unsigned char *const x_box = shared + s * 2 * W::BOX_BYTES, *const dy_box = x_box + W::BOX_BYTES;
        dev::barrier_wait(full + s, box / STAGES & 1);
#pragma unroll 1
        for (int f = 0; f < 64; f += EACH) {
            float g[EACH / 2], u[EACH / 2], d[EACH / 2];
            auto of_weight = [&](int m) { return dev::descriptor(weights + m * W::UNITS_BYTES, 128, S::UNITS_8, false); };
            auto over_positions = [&](const unsigned char *box) { return dev::descriptor(box + f * 2, 0, 1024, true); };
            auto over_features = [&](const unsigned char *box) { return dev::descriptor(box + f * 2, 0, 1024, true); };
            dev::wgmma_registers(g), dev::wgmma_registers(u), dev::wgmma_registers(d);
            dev::wgmma_fence();
#pragma unroll
            for (int k = 0; k < S::BLOCKS; k++) {
                constexpr int NEXT_ROWS = 16 * 128 / 16;
                const uint64_t right = over_positions(x_box) + k * NEXT_ROWS;
                dev::Wgmma<EACH>::template multiply<0, 1>(g, of_weight(GATE) + k * S::NEXT_16, right, k > 0);
                dev::Wgmma<EACH>::template multiply<0, 1>(u, of_weight(UP) + k * S::NEXT_16, right, k > 0);
                dev::Wgmma<EACH>::template multiply<0, 1>(d, of_weight(DOWN) + k * S::NEXT_16,
                                                          over_positions(dy_box) + k * NEXT_ROWS, k > 0);
            }
            dev::wgmma_commit();
            dev::wgmma_wait<0>();
            dev::wgmma_registers(g), dev::wgmma_registers(u), dev::wgmma_registers(d);
            differentiate(g, u, d);
            uint32_t dg[EACH / 16][4], du[EACH / 16][4], h[EACH / 16][4];
#pragma unroll
            for (int k = 0; k < EACH / 16; k++) {
                pack_left(dg[k], g, k);
                pack_left(du[k], u, k);
                pack_left(h[k], d, k);
            }
            dev::wgmma_registers(sums[GATE]), dev::wgmma_registers(sums[UP]), dev::wgmma_registers(sums[DOWN]);
            dev::wgmma_fence();
#pragma unroll
            for (int k = 0; k < EACH / 16; k++) {
                const uint64_t x_right = over_features(x_box) + k * 2, dy_right = over_features(dy_box) + k * 2;
                dev::Wgmma<W::LEN>::template multiply<0>(sums[GATE], dg[k], x_right, 1);
                dev::Wgmma<W::LEN>::template multiply<0>(sums[UP], du[k], x_right, 1);
                dev::Wgmma<W::LEN>::template multiply<0>(sums[DOWN], h[k], dy_right, 1);
            }
            dev::wgmma_commit();
            dev::wgmma_wait<0>(); // dG, dU and H are where the next G, U and D will be
            dev::wgmma_registers(sums[GATE]), dev::wgmma_registers(sums[UP]), dev::wgmma_registers(sums[DOWN]);
        }
        if (thread == 0) dev::barrier_arrive(vacant + s);
    }

    float *const total = (float *)shared;
    for (int turn = 0; turn < W::GROUPS; turn++) {
        __syncthreads();
        if (group != turn) continue;
        const int row = thread / 32 * 16 + lane / 4;
#pragma unroll
        for (int m = 0; m < 3; m++)
#pragma unroll
            for (int e = 0; e < W::LEN / 2; e++) {
                float &cell = total[(m * UNITS + row + e / 2 % 2 * 8) * W::TOTAL_PITCH + column_of(e / 4, e % 4)];
                cell = turn == 0 ? sums[m][e] : cell + sums[m][e];
            }
    }
    __syncthreads();
    if (half == 1) dev::wait_for_dependencies();
    float *const to_gate_up = (float *)d_gate_up.data + slice * d_gate_up.stride;
    for (int i = threadIdx.x - GROUP; i < 2 * units * len; i += W::GROUPS * GROUP) {
        const int row = i / len, l = i % len, m = row / units, j = row % units;
        to_gate_up[((int64_t)m * inner + j0 + j) * len + l] += total[(m * UNITS + j) * W::TOTAL_PITCH + l];
    }
    float *const to_down = (float *)d_down.data + slice * d_down.stride;
    for (int i = threadIdx.x - GROUP; i < units * len; i += W::GROUPS * GROUP) {
        const int j = i % units, l = i / units;
        to_down[(int64_t)l * inner + j0 + j] += total[(DOWN * UNITS + j) * W::TOTAL_PITCH + l];
    }
#endif
}

template <int LEN>
int launch_weight_grad_by_groups(trm_array x, const void *packed, trm_array dy, trm_sums d_gate_up, trm_sums d_down,
                                 int64_t sequences, int64_t len, int64_t width, int64_t inner, trm_stream stream) {
    typedef GroupWeightGrad<LEN> W;
    auto kernel = mix_weight_grad_by_groups<W>;
    const int64_t rows = d_down.rows < INT32_MAX / width ? d_down.rows : INT32_MAX / width, slices = (sequences + rows - 1) / rows;
    if (sequences > INT32_MAX || slices > 65535) return 1;
    dev::TensorMap x_map, dy_map;
    if (int status = boxes_of(&x_map, x, sequences, len, width, GroupSizes<LEN>::ROWS)) return status;
    if (int status = boxes_of(&dy_map, dy, sequences, len, width, GroupSizes<LEN>::ROWS)) return status;
    if (int status = TRM_ALLOW_SHARED(kernel, W::SHARED)) return status;
    const dim3 grid(blocks_for(inner, W::UNITS), (unsigned)slices), block((W::GROUPS + 1) * GROUP);
    if (int status = TRM_LAUNCH(kernel, grid, block, W::SHARED, stream, x_map, dy_map, (const unsigned char *)packed, d_gate_up, d_down,
                                sequences, (int)rows, 0, (int)len, (int)width, (int)inner))
        return status;
    return TRM_LAUNCH_EARLY(kernel, grid, block, W::SHARED, stream, x_map, dy_map, (const unsigned char *)packed, d_gate_up, d_down,
                            sequences, (int)rows, 1, (int)len, (int)width, (int)inner);
}
} // namespace

// How long the kernels of a training step take, one by one, at the published Sudoku-Extreme sizes (batch 768), on a GPU:
//
//     nvcc -O3 -std=c++17 -gencode=arch=compute_90a,code=sm_90a -Ikernels -o kernel-times benches/gpu/kernels.cu \
//         kernels/{linear,narrow,swiglu,norm,elementwise,mix_forward,mix_backward,attention,attention_bf16,attention_short}.cu && \
//         ./kernel-times
//
// kernels/pack takes it along, and kernels/check puts its figures into the report. A median of ten groups of three launches each;
// `kernel-times once` launches each kernel once, for a profiler: `ncu --set full kernel-times once`.
// TFLOP/s are those that the kernel executes, GB/s what it has to read and write.
#include "trm_kernels.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cuda_runtime.h>
#include <string>
#include <vector>

// Numbers between −scale and scale.
template <class T> __global__ void fill(T *to, size_t count, uint32_t seed, float scale) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < count; i += gridDim.x * (size_t)blockDim.x) {
        uint32_t x = (uint32_t)i * 2654435761u + seed;
        x ^= x >> 15, x *= 2246822519u, x ^= x >> 13, x *= 3266489917u, x ^= x >> 16;
        const float number = ((float)x / 4294967296.0f * 2 - 1) * scale;
        if (sizeof(T) == 4) to[i] = (T)number;
        else to[i] = (T)(__float_as_uint(number) >> 16); // a bf16 is the upper half of an f32
    }
}
template <class T> trm_array array(int64_t format, size_t count, float scale) {
    static uint32_t seed = 0;
    T *data = nullptr;
    if (cudaMalloc(&data, count * sizeof(T)) != cudaSuccess) puts("out of memory"), exit(1);
    fill<<<1024, 256>>>(data, count, ++seed, scale);
    return {data, format};
}
trm_array bf16s(size_t count, float scale = 0.5f) { return array<uint16_t>(TRM_BF16, count, scale); }
trm_array floats(size_t count, float scale) { return array<float>(TRM_F32, count, scale); }

bool once = false;

template <class F> void measure(const char *name, double flops, double bytes, F launch) {
    if (once) {
        printf("%s: status %d\n", name, launch());
        return;
    }
    std::vector<float> times;
    cudaEvent_t begin, end;
    cudaEventCreate(&begin), cudaEventCreate(&end);
    int status = 0;
    for (int group = 0; group < 11 && !status; group++) { // the first one is thrown away
        cudaEventRecord(begin);
        for (int i = 0; i < 3 && !status; i++) status = launch();
        cudaEventRecord(end);
        if (!status) status = (int)cudaEventSynchronize(end);
        float ms = 0;
        cudaEventElapsedTime(&ms, begin, end);
        if (group > 0) times.push_back(ms / 3);
    }
    if (status) printf("%-28s status %d: %s\n", name, status, cudaGetErrorString((cudaError_t)status));
    else {
        std::sort(times.begin(), times.end());
        const double ms = times[times.size() / 2];
        printf("%-28s %8.4f ms %6.0f TFLOP/s %6.0f GB/s\n", name, ms, flops / ms * 1e-9, bytes / ms * 1e-6);
    }
    fflush(stdout);
}

int main(int count, char **words) {
    once = count > 1 && !strcmp(words[1], "once");
    const int64_t B = 768, L = 97, D = 512, I = 1536, J = 512, M = B * L; // sequences, positions, widths, rows
    const double state = 2.0 * M * D, product = 2.0 * M * D * I, mixed = 2.0 * B * D * J * L;
    trm_array x = bf16s(M * D), y = bf16s(M * D), h = bf16s(M * D), dy = bf16s(M * D), dx = bf16s(M * D), none = {nullptr, TRM_BF16};
    trm_array hidden = bf16s(M * I), gu = bf16s(M * 2 * I), d_gu = bf16s(M * 2 * I), w_gu = bf16s(2 * I * D, 0.04f), w = bf16s(I * D, 0.03f);
    trm_array rows = floats(M, 0), columns = floats(B * D, 0);
    measure("swiglu", 2 * product, 0, [&] { return TRM_API(swiglu_bf16)(x, w_gu, hidden, none, M, I, D, nullptr); });
    measure("swiglu, kept", 2 * product, 0, [&] { return TRM_API(swiglu_bf16)(x, w_gu, hidden, gu, M, I, D, nullptr); });
    measure("down", product, 0, [&] { return TRM_API(linear_bf16)(hidden, w, none, y, M, D, I, nullptr); });
    const trm_summands two = {{dy, dx}, 2};
    measure("down, residual, norm", product, 0, [&] { return TRM_API(linear_add_rmsnorm_bf16)(hidden, w, h, y, rows, {}, none, M, D, I, nullptr); });
    measure("down, residual, norm, sum", product, 0, [&] { return TRM_API(linear_add_rmsnorm_bf16)(hidden, w, h, y, rows, two, x, M, D, I, nullptr); });
    measure("down, residual, norm, sum alone", product, 0, [&] { return TRM_API(linear_add_rmsnorm_bf16)(hidden, w, h, none, rows, two, x, M, D, I, nullptr); });
    measure("swiglu backward", product, 5.5 * M * I * 2 + state, [&] { return TRM_API(swiglu_backward_bf16)(dy, w, gu, d_gu, hidden, M, I, D, nullptr); });
    measure("dx", 2 * product, 0, [&] { return TRM_API(linear_bf16)(gu, w_gu, dx, dx, M, D, 2 * I, nullptr); });
    measure("dx, norm backward", 2 * product, 0, [&] { return TRM_API(linear_rmsnorm_backward_bf16)(gu, w_gu, dx, y, rows, dx, M, D, 2 * I, nullptr); });
    trm_array sums = floats((size_t)24 * 2 * I * D, 0);
    const trm_sums dw = {sums.data, TRM_F32, 2 * I * D, 32 * L}, of_mixing = {sums.data, TRM_F32, 2 * I * D, 32};
    measure("dw of gate and up", 2 * product, 0, [&] { return TRM_API(weight_grad_bf16)(gu, x, dw, 1, M, 2 * I, D, nullptr); });
    measure("dw of down", product, 0, [&] { return TRM_API(weight_grad_bf16)(dy, hidden, dw, 0, M, D, I, nullptr); });

    measure("residual, norm", 0, 3 * state, [&] { return TRM_API(add_rmsnorm)(TRM_OVER_FEATURES, h, y, rows, B, L, D, nullptr); });
    measure("norm backward", 0, 3 * state, [&] { return TRM_API(rmsnorm_backward)(TRM_OVER_FEATURES, y, rows, dy, B, L, D, nullptr); });
    trm_summands three = {};
    three.count = 3, three.x[0] = x, three.x[1] = y, three.x[2] = h;
    measure("sum of three", 0, 4 * state, [&] { return TRM_API(sum)(three, dx, M * D, nullptr); });
    measure("norm backward, positions", 0, 3 * state, [&] { return TRM_API(rmsnorm_backward)(TRM_OVER_POSITIONS, y, columns, dy, B, L, D, nullptr); });

    const int64_t V = 11, N = B * 81; // tokens, and the positions that have one
    const trm_sums of_head = {sums.data, TRM_F32, 2 * I * D, 32 * 81};
    trm_array head = floats(V * D, 0.04f), logits = floats(N * V, 0.5f);
    measure("head", 2.0 * N * V * D, 2.0 * N * D, [&] { return TRM_API(narrow_linear)(x, head, logits, N, V, D, nullptr); });
    measure("head, dx", 2.0 * N * V * D, 2.0 * N * D, [&] { return TRM_API(narrow_linear_backward)(logits, head, dx, 0, N, V, D, nullptr); });
    measure("head, dw", 2.0 * N * V * D, 2.0 * N * D, [&] { return TRM_API(narrow_weight_grad)(logits, x, of_head, N, V, D, nullptr); });

    void *packed = nullptr;
    if (cudaMalloc(&packed, TRM_API(mix_packed_bytes)(L, D, J)) != cudaSuccess) return puts("out of memory"), 1;
    TRM_API(mix_pack)(floats(2 * J * L, 0.1f), floats(L * J, 0.04f), packed, L, J, nullptr);
    trm_sums of_down = of_mixing;
    of_down.data = (float *)sums.data + 2 * J * L;
    measure("mixing", 3 * mixed, 2 * state, [&] { return TRM_API(mix_bf16)(x, packed, y, columns, B, L, D, J, nullptr); });
    measure("mixing, dx", 5 * mixed, 4 * state, [&] { return TRM_API(mix_backward_input_bf16)(x, packed, dy, dx, dx, B, L, D, J, nullptr); });
    measure("mixing, dw", 6 * mixed, 2 * state, [&] { return TRM_API(mix_backward_weights_bf16)(x, packed, dy, of_mixing, of_down, B, L, D, J, nullptr); });

    const trm_attention sudoku = {B, L, 8, 64}, maze = {48, 916, 8, 64};
    trm_array lse = floats(M * 8, 0), means = floats(M * 8, 0), angles = floats(L * 64, 1), long_angles = floats(916 * 64, 1);
    auto scores = [](const trm_attention &a) { return 4.0 * a.sequences * a.heads * a.len * a.len * a.head_dim; };
    measure("attention's out, residual, norm", 2.0 * M * D * D, 4 * state, [&] { return TRM_API(linear_add_rmsnorm_bf16)(x, w, h, y, rows, {}, none, M, D, D, nullptr); });
    measure("qkv", product, 0, [&] { return TRM_API(linear_bf16)(x, w_gu, none, gu, M, 3 * D, D, nullptr); });
    measure("qkv, rope", product, 0, [&] { return TRM_API(linear_rope_bf16)(x, w_gu, angles, L, gu, M, 3 * D, D, nullptr); });
    measure("rotary positions", 0, 4 * state, [&] { return TRM_API(rope)(gu, angles, 0, sudoku, nullptr); });
    measure("attention", scores(sudoku), 4 * state, [&] { return TRM_API(attention_short)(gu, angles, y, lse, sudoku, nullptr); });
    measure("attention backward", 2.5 * scores(sudoku), 8 * state, [&] { return TRM_API(attention_short_backward)(gu, angles, 1, y, lse, dy, d_gu, sudoku, nullptr); });
    measure("attention, rope before", scores(sudoku), 4 * state, [&] { return TRM_API(attention_short)(gu, none, y, lse, sudoku, nullptr); });
    measure("attention backward, rope before", 2.5 * scores(sudoku), 8 * state, [&] { return TRM_API(attention_short_backward)(gu, angles, 0, y, lse, dy, d_gu, sudoku, nullptr); });
    measure("attention in tiles", scores(sudoku), 4 * state, [&] { return TRM_API(attention_bf16)(gu, y, lse, sudoku, nullptr); });
    measure("attention backward in tiles", 2.5 * scores(sudoku), 8 * state, [&] { return TRM_API(attention_backward_bf16)(gu, angles, y, lse, dy, d_gu, means, sudoku, nullptr); });
    for (const char *how : {"", ", by warps"}) {
        const auto name = [&](const char *what) { return std::string(what) + how; };
        if (*how) setenv("TRM_ATTENTION_BY_WARPS", "1", 1);
        measure(name("attention, L 916, 48").c_str(), scores(maze), 0, [&] { return TRM_API(attention_bf16)(gu, y, lse, maze, nullptr); });
        measure(name("attention backward, L 916").c_str(), 2.5 * scores(maze), 0, [&] { return TRM_API(attention_backward_bf16)(gu, long_angles, y, lse, dy, d_gu, means, maze, nullptr); });
    }
}

// What the plain kernels of attention and those for tensor cores share: where the rows of a head lie, and the sums Σ d·out
// that the backward pass needs before anything else.
#pragma once
#include "device.cuh"

namespace {
// Rows of one head: they begin at a column of rows that are `pitch` elements long.
template <class T> struct Rows {
    T *data;
    int first_row, column, pitch;
    __device__ __forceinline__ T *operator[](int row) const { return data + (int64_t)(first_row + row) * pitch + column; }
};

// The parts of a row of qkv, in their order.
enum Part { QUERY, KEY, VALUE };

// Head number `index` of all heads of all sequences.
struct Head {
    int index, first_row, column, len, width;
    __device__ __forceinline__ Head(const trm_attention &shape, int index)
        : index(index), first_row(index / (int)shape.heads * (int)shape.len),
          column(index % (int)shape.heads * (int)shape.head_dim), len((int)shape.len),
          width((int)(shape.heads * shape.head_dim)) {}
    // Rows of q, k or v in qkv or its gradient.
    template <class T> __device__ __forceinline__ Rows<T> part(T *qkv, Part part) const {
        return {qkv, first_row, part * width + column, 3 * width};
    }
    // Rows in the output or its gradient.
    template <class T> __device__ __forceinline__ Rows<T> output(T *out) const { return {out, first_row, column, width}; }
    // What there is one number of for each query: lse or means.
    template <class S> __device__ __forceinline__ S *statistics(S *all) const { return all + (int64_t)index * len; }
};

// means = Σ d·out over the features of each row of each head. A warp takes one row; row r of all of them is one of head r / len.
constexpr int MEANS_WARPS = 8;
template <class T>
__global__ void __launch_bounds__(MEANS_WARPS * 32)
    attention_means(const T *__restrict__ out, const T *__restrict__ d_out, sum_t<T> *__restrict__ means, trm_attention shape) {
    const int64_t row = (int64_t)blockIdx.x * MEANS_WARPS + threadIdx.x / 32;
    if (row >= shape.sequences * shape.heads * shape.len) return;
    const int lane = threadIdx.x % 32, position = (int)(row % shape.len);
    const Head head(shape, (int)(row / shape.len));
    const T *o = head.output(out)[position], *d = head.output(d_out)[position];
    sum_t<T> sum = 0;
    for (int i = lane; i < shape.head_dim; i += 32) sum += dev::get(d + i) * dev::get(o + i);
    sum = dev::warp_sum(sum);
    if (lane == 0) means[row] = sum;
}
template <class T>
int launch_means(trm_array out, trm_array d_out, trm_array means, const trm_attention &shape, trm_stream stream) {
    const dim3 blocks(blocks_for(shape.sequences * shape.heads * shape.len, MEANS_WARPS));
    auto kernel = attention_means<T>;
    return TRM_LAUNCH(kernel, blocks, dim3(MEANS_WARPS * 32), 0, stream, (const T *)out.data, (const T *)d_out.data,
                      (sum_t<T> *)means.data, shape);
}

inline bool is_empty(const trm_attention &shape) {
    return shape.sequences == 0 || shape.len == 0 || shape.heads == 0 || shape.head_dim == 0;
}
// Kernels count rows, features of a row, and blocks in 32 bits.
inline bool counts_in_32_bits(const trm_attention &shape) {
    return shape.sequences * shape.len <= 1 << 30 && shape.sequences * shape.heads * shape.len <= INT32_MAX &&
           3 * shape.heads * shape.head_dim <= 1 << 24;
}
} // namespace

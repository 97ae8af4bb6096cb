// The instructions that kernels use, each wrapped once: PTX for nvcc here, the documented fragment layouts for the C++ compiler in
// host/twin.h. And what all kernels share: elements of three formats, dispatch on a format, launches.
#pragma once
#include "trm_kernels.h"
#include <type_traits>

#ifdef TRM_TWIN
#include "host/twin.h"
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>

// Dynamic shared memory of a block, and launches; a launch is an expression whose value is the status.
#define TRM_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
#define TRM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    (kernel<<<grid, block, shared_bytes, (cudaStream_t)(stream)>>>(__VA_ARGS__), (int)cudaGetLastError())
#define TRM_ALLOW_SHARED(kernel, bytes) \
    (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)), (int)cudaGetLastError())

typedef __nv_bfloat16 bf16;

namespace dev {
__device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory, asynchronously; zeros where `bytes` is 0. Both sides lie on multiples of 16.
__device__ __forceinline__ void copy16_async(void *to, const void *from, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
// 4 bytes in the same way; both sides lie on multiples of 4.
__device__ __forceinline__ void copy4_async(void *to, const void *from, int bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
// Ends a group of this thread's copies; waits until at most N groups are still on their way.
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four 8×8 matrices of bf16 from shared memory: lane l names row l % 8 of matrix l / 8 and receives, of matrix i in r[i], elements
// (l / 4, 2 (l % 4)) and the next; of the transposed matrices with _trans.
__device__ __forceinline__ void load_matrix_x4(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}
__device__ __forceinline__ void load_matrix_x4_trans(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// d [16, 8] += a [16, 16] b [16, 8], operands bf16, sums f32. Lane l, g = l / 4, t = 2 (l % 4): d = (g, t) (g, t+1) (g+8, t) (g+8, t+1); a = pairs
// from (g, t) (g+8, t) (g, t+8) (g+8, t+8); b0, b1 = pairs down from (t, g) (t+8, g).
__device__ __forceinline__ void mma_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2^x to about 2 units in the last place.
__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// tanh x, off by 2^−11 of it at most.
__device__ __forceinline__ float tanh_approx(float x) {
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// Asks for the cache line around an address of global memory, so that a later load finds it in the L2 cache.
__device__ __forceinline__ void prefetch(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
// Keeps the compiler from holding on to what it has made from x, where making it again is cheaper than registers for it.
__device__ __forceinline__ void forget(int &x) { asm volatile("" : "+r"(x)); }
// 0, but only once x is there. What depends on it, such as an address, cannot be moved to where there are no registers for it.
__device__ __forceinline__ int zero_after(float x) { return __float_as_int(x) & (blockDim.z - 1); }
// *p += x, done by the memory: the thread does not wait for it. And the same for two neighbours, on a multiple of 8 bytes.
__device__ __forceinline__ void add_to(float *p, float x) { asm volatile("red.global.add.f32 [%0], %1;" ::"l"(p), "f"(x) : "memory"); }
__device__ __forceinline__ void add_to_pair(float *p, const float (&x)[2]) {
#if __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(p), "f"(x[0]), "f"(x[1]) : "memory");
#else
    add_to(p, x[0]);
    add_to(p + 1, x[1]);
#endif
}
// Sum over the four lanes that hold a row of a fragment.
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}
// Two bf16 in one register, the first one in the lower half.
__device__ __forceinline__ uint32_t pack(float lo, float hi) {
    __nv_bfloat162 v = __floats2bfloat162_rn(lo, hi);
    return *(uint32_t *)&v;
}
__device__ __forceinline__ float lo(uint32_t v) { return __uint_as_float(v << 16); }
__device__ __forceinline__ float hi(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }

// Streaming multiprocessors of the device that the calling thread uses.
static inline int processors() {
    int device = 0, count = 1;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return count;
}
// Bytes of dynamic shared memory that a block may have there.
static inline int most_shared() {
    static thread_local int asked = -1, bytes = 0; // the device that was asked last, and what it said
    int device = 0;
    cudaGetDevice(&device);
    if (device == asked) return bytes;
    const bool knows = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess;
    asked = knows ? device : -1;
    return bytes;
}
} // namespace dev
#endif

// What dev::most_shared() is at least, from compute capability 8.0 on. There are devices with 99, 163 and 227 KB.
constexpr int SHARED_EVERYWHERE = 99 << 10;

// ---- Elements ------------------------------------------------------------------------------------------------------------

// What sums over elements of a format are made in.
template <class T> struct sum_of { typedef float type; };
template <> struct sum_of<double> { typedef double type; };
template <class T> using sum_t = typename sum_of<T>::type;

namespace dev {
__device__ __forceinline__ float get(const bf16 *p) { return __bfloat162float(*p); }
__device__ __forceinline__ float get(const float *p) { return *p; }
__device__ __forceinline__ double get(const double *p) { return *p; }
__device__ __forceinline__ void set(bf16 *p, float x) { *p = __float2bfloat16(x); }
__device__ __forceinline__ void set(float *p, float x) { *p = x; }
__device__ __forceinline__ void set(double *p, double x) { *p = x; }

// σ(x) = ½ + ½ tanh ½x and x·σ(x), for what is rounded to bf16 afterwards: of normal numbers, silu(g)·u loses a tenth by this of what it
// loses by that rounding.
struct Sigmoid {
    float sigmoid, silu;
};
__device__ __forceinline__ Sigmoid sigmoid_approx(float x) {
    const float half = 0.5f * x, tanh = tanh_approx(half);
    return {0.5f + 0.5f * tanh, half + half * tanh};
}

// Index of the calling thread among all of a launch in one dimension.
__device__ __forceinline__ int64_t thread_index() { return (int64_t)blockIdx.x * blockDim.x + threadIdx.x; }

// i / by and i % by, both of them not negative. Numbers of 64 bits take a GPU some ten times as long to divide as those of 32, which
// nearly all of them fit into.
struct Division {
    int64_t quotient, rest;
};
__device__ __forceinline__ Division divide(int64_t i, int64_t by) {
    if ((uint64_t)(i | by) >> 32) return {i / by, i % by};
    const uint32_t quotient = (uint32_t)i / (uint32_t)by;
    return {quotient, (uint32_t)i - quotient * (uint32_t)by};
}

// N neighbouring elements, moved at once: they lie on a multiple of their size in bytes (`aligned`).
template <class T, int N> struct alignas(sizeof(T) * N) Pack {
    T of[N];
};
template <int N, class T> __device__ __forceinline__ void load(sum_t<T> (&x)[N], const T *from) {
    const Pack<T, N> pack = *(const Pack<T, N> *)from;
    for (int e = 0; e < N; e++) x[e] = get(&pack.of[e]);
}
template <int N, class T> __device__ __forceinline__ void store(T *to, const sum_t<T> (&x)[N]) {
    Pack<T, N> pack;
    for (int e = 0; e < N; e++) set(&pack.of[e], x[e]);
    *(Pack<T, N> *)to = pack;
}

// Sum over a warp, in a binary tree, for all its lanes.
template <class S> __device__ __forceinline__ S warp_sum(S x) {
    for (int by = 16; by > 0; by /= 2) x += __shfl_xor_sync(~0u, x, by);
    return x;
}

// Sum over the WARPS warps of a block, in a binary tree, of what their lanes of one number hold; all threads call it. `partial`
// may be used again after the call, because the call begins by waiting for everybody.
template <int WARPS, class S> __device__ __forceinline__ S sum_over_warps(S x, S (&partial)[WARPS][32]) {
    const int lane = threadIdx.x % 32;
    __syncthreads();
    partial[threadIdx.x / 32][lane] = x;
    __syncthreads();
    S sum[WARPS];
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum[w] = partial[w][lane];
#pragma unroll
    for (int by = 1; by < WARPS; by *= 2)
#pragma unroll
        for (int w = 0; w + by < WARPS; w += 2 * by) sum[w] += sum[w + by];
    return sum[0];
}

// Sum over a block of THREADS threads (a multiple of 32), in a fixed order, for all of them. `partial` has room for THREADS / 32 values of
// shared memory; it may be used again after the call, because the call begins by waiting for everybody.
template <int THREADS, class S> __device__ __forceinline__ S block_sum(S x, S *partial) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x = warp_sum(x);
    __syncthreads();
    if (lane == 0) partial[warp] = x;
    __syncthreads();
    S total = 0;
    for (int w = 0; w < THREADS / 32; w++) total += partial[w];
    return total;
}
} // namespace dev

// `f(T())` with T the type of a format; 1 (cudaErrorInvalidValue) where there is no such format.
template <class F> static inline int with_format(int64_t format, F f) {
    switch (format) {
    case TRM_BF16: return f(bf16());
    case TRM_F32: return f(float());
    case TRM_F64: return f(double());
    }
    return 1;
}
// The same with the types of two formats.
template <class F> static inline int with_formats(int64_t a, int64_t b, F f) {
    return with_format(a, [&](auto x) { return with_format(b, [&](auto y) { return f(x, y); }); });
}
// The same for weights and sums, which are f32 or f64.
template <class F> static inline int with_sum_format(int64_t format, F f) {
    return format == TRM_F64 ? f(double()) : format == TRM_F32 ? f(float()) : 1;
}
// `f` with EACH, the elements a thread takes at once, as a constant: N where arrays are aligned to that, else 1.
template <int N, class F> static inline int with_packs(bool are_aligned, F f) {
    return are_aligned ? f(std::integral_constant<int, N>()) : f(std::integral_constant<int, 1>());
}
// The elements of 16 bytes, of the larger of two types.
template <class T, class U = T> __host__ __device__ constexpr int in_16_bytes() {
    return 16 / (int)(sizeof(T) > sizeof(U) ? sizeof(T) : sizeof(U));
}
// Whether an array lies on a multiple of the size of N elements.
template <int N> static inline bool aligned(trm_array x) { return (uintptr_t)x.data % (N * x.format) == 0; }
static inline unsigned blocks_for(int64_t n, int64_t per_block) { return (unsigned)((n + per_block - 1) / per_block); }

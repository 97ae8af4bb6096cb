// The instructions that compute capability 9.0 has beyond device.cuh's, each wrapped once: PTX for nvcc here, for the C++ compiler
// in host/twin_hopper.h. They are in code for sm_90a alone: a kernel that uses them has a body only where TRM_SM90A is true, and
// its launcher asks dev::has_wgmma().
//
// An mbarrier is 64 bits in shared memory. It counts down arrivals and, with barrier_expect, bytes that bulk copies have to bring.
// At zero its phase changes, 0 to 1 or 1 to 0, and it begins again; barrier_wait(b, p) waits until phase p is over.
#pragma once
#include "device.cuh"

#if defined(TRM_TWIN) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define TRM_SM90A 1
#else
#define TRM_SM90A 0
#endif

namespace dev {
// An operand of wgmma in shared memory: 16 of k from `p` on, which begins a kilobyte where it is swizzled. Distances in bytes; one that
// is not named is not used. `leading` and `stride` are, for an operand
//
//                      neighbours along k                              neighbours along m or n
//     swizzled         rows of 128 bytes, 64 of k; 8 rows make         rows of 128 bytes, 64 of m; 8 rows make a kilobyte;
//                      a kilobyte; stride: to 8 more rows              stride: to 8 more of k, leading: to 64 more of m
//     not swizzled     8 rows of 16 bytes, 8 of k, make 128 bytes;     8 rows of 16 bytes, 8 of m, make 128 bytes;
//                      stride: to 8 more rows, leading: 8 more of k    stride: to 8 more of m, leading: to 8 more of k
//
// In a kilobyte, the 16-byte piece c of row r lies at place c ^ r where it is swizzled. The next 16 of k are `descriptor` of their
// own first byte, without regard to that.
__device__ __forceinline__ uint64_t descriptor(const void *p, int leading, int stride, bool swizzled);
} // namespace dev

#ifdef TRM_TWIN
#include "host/twin_hopper.h"
#else
#include "wgmma.cuh"
#include <cudaTypedefs.h>

namespace dev {
__device__ __forceinline__ uint64_t descriptor(const void *p, int leading, int stride, bool swizzled) {
    return (uint64_t)((shared_address(p) & 0x3ffff) >> 4) | (uint64_t)(leading >> 4) << 16 | (uint64_t)(stride >> 4) << 32 |
           (uint64_t)swizzled << 62;
}

// ---- Barriers and bulk copies ------------------------------------------------------------------------------------------------

__device__ __forceinline__ void barrier_init(uint64_t *b, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}
// After all barrier_init of a thread, before anybody else uses these barriers (and a __syncthreads or cluster_begin between).
__device__ __forceinline__ void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void barrier_arrive(uint64_t *b) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
// Arrives, and announces bytes.
__device__ __forceinline__ void barrier_expect(uint64_t *b, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void barrier_wait(uint64_t *b, int phase) {
    asm volatile("{ .reg .pred p;\n"
                 "AGAIN_%=: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
                 "@!p bra AGAIN_%=; }"
                 ::"r"(shared_address(b)), "r"(phase) : "memory");
}
// `bytes` (a multiple of 16) from global to shared memory; both sides lie on multiples of 16. One thread does it for all.
__device__ __forceinline__ void bulk_load(void *to, const void *from, int bytes, uint64_t *b) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(shared_address(to)), "l"(from), "r"(bytes), "r"(shared_address(b)) : "memory");
}

// Three dimensions of bf16, and the boxes that are copied out of them: 64 elements of the inner one, `box` of the middle one.
typedef CUtensorMap TensorMap;
// Copies the box whose first element is (x, y, z) to a kilobyte's beginning, in swizzled rows. What lies outside of the
// dimensions arrives as zeros. One thread does it for all.
__device__ __forceinline__ void tensor_load_3d(void *to, const TensorMap *map, int x, int y, int z, uint64_t *b) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];"
                 ::"r"(shared_address(to)), "l"(map), "r"(x), "r"(y), "r"(z), "r"(shared_address(b)) : "memory");
}
// `dims` from the inner one outwards; `strides` (bytes, multiples of 16) of the middle and the outer one.
static inline int tensor_map_3d(TensorMap *map, const void *base, const int64_t (&dims)[3], const int64_t (&strides)[2], int box) {
    static PFN_cuTensorMapEncodeTiled_v12000 encode = nullptr; // of the driver, which this library is not linked with
    if (!encode) {
        cudaDriverEntryPointQueryResult found;
        const cudaError_t status =
            cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", (void **)&encode, 12000, cudaEnableDefault, &found);
        if (status != cudaSuccess || !encode) return status != cudaSuccess ? (int)status : (int)cudaErrorNotSupported;
    }
    const cuuint64_t sizes[3] = {(cuuint64_t)dims[0], (cuuint64_t)dims[1], (cuuint64_t)dims[2]};
    const cuuint64_t distances[2] = {(cuuint64_t)strides[0], (cuuint64_t)strides[1]};
    const cuuint32_t boxes[3] = {64, (cuuint32_t)box, 1}, steps[3] = {1, 1, 1};
    return (int)encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void *>(base), sizes, distances, boxes, steps,
                       CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                       CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

// ---- A launch that begins before the one before it is over -------------------------------------------------------------------

// With TRM_LAUNCH_EARLY, blocks begin when every block of the launch before has called launch_dependents, and the device has room.
// All of them call wait_for_dependencies, after which that launch is over and what it wrote is there.
__device__ __forceinline__ void launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ __forceinline__ void wait_for_dependencies() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
static inline cudaLaunchAttribute beginning_early() {
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    return attribute;
}
static inline cudaLaunchConfig_t launch_config(dim3 grid, dim3 block, size_t shared, trm_stream stream, cudaLaunchAttribute *how,
                                               unsigned count) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = (cudaStream_t)stream;
    config.attrs = how;
    config.numAttrs = count;
    return config;
}
template <class... P, class... A>
static int launch_early(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, trm_stream stream, A... arguments) {
    cudaLaunchAttribute early = beginning_early();
    const cudaLaunchConfig_t config = launch_config(grid, block, shared, stream, &early, 1);
    return (int)cudaLaunchKernelEx(&config, kernel, P(arguments)...);
}
#define TRM_LAUNCH_EARLY dev::launch_early

// ---- Clusters: neighbouring blocks that run at the same time, and write into each other's shared memory ------------------------

static inline cudaLaunchAttribute in_clusters(unsigned cluster) {
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {cluster, 1, 1};
    return attribute;
}
// `grid` is a multiple of `cluster`, which is 8 at most; `early` as in TRM_LAUNCH_EARLY.
template <class... P, class... A>
static int launch_clusters(void (*kernel)(P...), unsigned cluster, bool early, dim3 grid, dim3 block, size_t shared, trm_stream stream,
                           A... arguments) {
    cudaLaunchAttribute attributes[2] = {in_clusters(cluster), beginning_early()};
    const cudaLaunchConfig_t config = launch_config(grid, block, shared, stream, attributes, early ? 2 : 1);
    return (int)cudaLaunchKernelEx(&config, kernel, P(arguments)...);
}
// How many clusters the device that the calling thread uses runs at a time, each of whose blocks has a multiprocessor for itself.
template <class... P> static int clusters_at_once(void (*kernel)(P...), unsigned cluster, dim3 block, size_t shared) {
    cudaLaunchAttribute attribute = in_clusters(cluster);
    const cudaLaunchConfig_t config = launch_config(dim3(cluster), block, shared, nullptr, &attribute, 1);
    int count = 0;
    cudaOccupancyMaxActiveClusters(&count, kernel, &config);
    return count;
}
__device__ __forceinline__ int cluster_rank() {
    int rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// Waits for all threads of a cluster: after fence_barrier_init, its barriers are ready. Of other memory it says nothing.
__device__ __forceinline__ void cluster_begin() {
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// Writes x to where block `rank` of the cluster has what the caller has at `to`, and brings 4 bytes to its mbarrier in the place of b.
__device__ __forceinline__ void send(float *to, float x, uint64_t *b, int rank) {
    asm volatile("{ .reg .b32 there, barrier;\n"
                 "mapa.shared::cluster.u32 there, %0, %3;\n"
                 "mapa.shared::cluster.u32 barrier, %2, %3;\n"
                 "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [there], %1, [barrier]; }"
                 ::"r"(shared_address(to)), "f"(x), "r"(shared_address(b)), "r"(rank) : "memory");
}
// barrier_wait for what other blocks of the cluster have sent.
__device__ __forceinline__ void barrier_wait_cluster(uint64_t *b, int phase) {
    asm volatile("{ .reg .pred p;\n"
                 "AGAIN_%=: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], %1;\n"
                 "@!p bra AGAIN_%=; }"
                 ::"r"(shared_address(b)), "r"(phase) : "memory");
}
#define TRM_LAUNCH_CLUSTERS dev::launch_clusters

// ---- Warpgroups: four warps from a multiple of four on -----------------------------------------------------------------------

// Waits for `threads` threads of a block, whole warps, who name the same barrier; 0 is __syncthreads'.
__device__ __forceinline__ void threads_sync(int barrier, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
// Before others are told, for instance by threads_sync, that products may read what the calling thread has written to shared memory.
__device__ __forceinline__ void fence_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Registers of each thread, from here on; all warps of a warpgroup say it. All warpgroups together have those that the block was
// launched with: three of them 168 each, which are 24 + 2·240, four of them 128 each. To ask for more is to wait for ever.
template <int N> __device__ __forceinline__ void registers_up() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> __device__ __forceinline__ void registers_down() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
// Before the first product that uses registers which were written by other instructions.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// Keeps the compiler from moving other uses of products' sums across this place: it takes a product for done where it begins.
template <int N> __device__ __forceinline__ void wgmma_registers(float (&d)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
}
// Ends a group of products; waits until at most N groups are not done.
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// Keeps what x is made from before the next wait: the compiler would have it wait first, and then begin what need not wait. x is never
// negative, so nothing is stored.
__device__ __forceinline__ void before_wait(float x, void *shared) {
    asm volatile("{ .reg .pred p; setp.lt.f32 p, %0, 0f00000000; @p st.volatile.shared.f32 [%1], %0; }"
                 ::"f"(x), "r"(shared_address(shared)) : "memory");
}

// Whether the device that the calling thread uses runs code for sm_90a.
static inline bool has_wgmma() {
    int device = 0, major = 0, minor = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    return major == 9 && minor == 0;
}
} // namespace dev
#endif

// ---- Between the four lanes that share a row of a fragment ---------------------------------------------------------------------

namespace {
constexpr int GROUP = 128; // threads of a warpgroup

// A lane keeps one of two numbers, and has the other one's place filled by the lane that is `by` away, which keeps the other one.
template <class T> __device__ __forceinline__ void swap_lanes(T &low, T &high, bool keeps_high, int by) {
    const T received = __shfl_xor_sync(~0u, keeps_high ? low : high, by);
    (keeps_high ? low : high) = received;
}
// Words, four by four: word i of lane t becomes word t of lane i.
template <int N> __device__ __forceinline__ void transpose_quads(uint32_t (&words)[N]) {
    const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
    for (int i = 0; i < N; i += 4) {
        swap_lanes(words[i], words[i + 1], odd, 1), swap_lanes(words[i + 2], words[i + 3], odd, 1);
        swap_lanes(words[i], words[i + 2], upper, 2), swap_lanes(words[i + 1], words[i + 3], upper, 2);
    }
}
} // namespace

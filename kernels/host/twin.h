// Host twin: runs kernels on the CPU. Each thread of a block is a cooperative fiber, blocks run side by side on OS threads, the blocks
// of a cluster on the same one.
//
// What it finds beside wrong results:
//   - lanes that meet in different instructions, and barriers that not all lanes reach;
//   - reads of dynamic shared memory that nobody wrote (it begins as NaN), with AddressSanitizer also accesses behind its end;
//   - asynchronous copies and products that are not waited for (TWIN_COPIES=late, the default: done when waited for), and copies
//     into buffers that are still in use (TWIN_COPIES=early: done at once);
//   - dependence on order (TWIN_SEED=n: blocks, warps and lanes run in another order, which is unfair to some warps if n is odd);
//   - launches that a device refuses, for instance with more shared memory than was asked for by TRM_ALLOW_SHARED;
//   - host code that does not wait for its stream (TWIN_STREAMS=late: work is done when the stream is waited for).
// TWIN_THREADS=n sets the number of OS threads, TWIN_PROCESSORS=n (2) that of multiprocessors, by which launchers choose. A block may
// have 227 KB of shared memory, as on an H100, or TWIN_SHARED=bytes; 101376 (99 KB) is what the smallest devices have. With
// TWIN_FAULT=n the n-th launch of the process fails as if its kernel had used an address that does not exist, and so does everything
// after it.
#pragma once
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <pthread.h>
#include <sys/mman.h>
#include <thread>
#include <tuple>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// ---- The words of CUDA C++ -------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__
#define __shared__ static thread_local
#define threadIdx (twin::self->thread)
#define blockIdx (twin::block->index)
#define blockDim (twin::block->size)
#define gridDim (twin::block->grid)
#define TRM_SHARED(name) unsigned char *const name = twin::block->shared
#define TRM_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    twin::launch(kernel, grid, block, shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__)
#define TRM_ALLOW_SHARED(kernel, bytes) twin::allow_shared((const void *)(kernel), bytes)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(8) float2 {
    float x, y;
};
struct bf16 {
    uint16_t bits;
};

inline float __uint_as_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline uint32_t __float_as_uint(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline float __bfloat162float(bf16 x) { return __uint_as_float((uint32_t)x.bits << 16); }
inline bf16 __float2bfloat16(float x) {
    if (x != x) return {0x7fff};
    uint32_t bits = __float_as_uint(x);
    return {(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
template <class T> inline T __ldg(const T *p) { return *p; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }

#include "twin_fibers.h"

namespace twin {

// ---- Launches --------------------------------------------------------------------------------------------------------------

struct Launch {
    dim3 grid, size;
    size_t shared;
    const std::function<void()> &kernel;
    unsigned cluster;  // blocks that run together
    uint64_t clusters; // how many of these there are
    std::atomic<uint64_t> next{0};
    bool has_more() const { return next.load() < clusters; }
};

// Makes a block ready to run. The value is a random number.
inline uint64_t begin_block(Block &b, const Launch &launch, uint64_t number) {
    const unsigned n = launch.size.x * launch.size.y * launch.size.z, warps = (n + 31) / 32;
    const dim3 size = launch.size, grid = launch.grid;
    b.size = size;
    b.grid = grid;
    b.kernel = &launch.kernel;
    b.index = dim3(number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y);
    b.all.size = n;
    b.all.arrived = 0;
    for (Group &group : b.named) group.arrived = 0;
    b.order.resize(warps);
    for (unsigned w = 0; w < warps; w++) {
        b.warps[w].size = std::min(32u, n - w * 32);
        b.warps[w].arrived = 0;
        b.order[w] = w;
    }
    for (unsigned g = 0; g < 8; g++) {
        Warpgroup &group = b.warpgroups[g];
        group.size = n > g * 128 ? std::min(128u, n - g * 128) : 0;
        group.arrived = 0;
        group.products.clear();
        group.ends.clear();
    }
    b.bulk_copies.clear();
    uint64_t random = mix(seed() + number);
    for (unsigned i = warps; seed() && i > 1; i--) {
        random = mix(random);
        std::swap(b.order[i - 1], b.order[random % i]);
    }
    for (unsigned i = 0; i < n; i++) {
        Lane &lane = b.lanes[i];
        lane.thread = dim3(i % size.x, i / size.x % size.y, i / size.x / size.y);
        lane.stack = nullptr;
        lane.waits = nullptr;
        lane.barrier = nullptr;
        lane.done = false;
    }
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(b.shared, launch.shared);
    __asan_poison_memory_region(b.shared + launch.shared, MOST_SHARED - launch.shared);
#endif
    memset(b.shared, 0xff, launch.shared); // NaN in every format
    b.place = 0;
    b.lane = b.order[0] * 32 + (seed() ? random % b.warps[b.order[0]].size : 0);
    return random;
}
inline void run_cluster(Stage &here, const Launch &launch, uint64_t number) {
    stage = &here;
    here.cluster = launch.cluster;
    here.all.size = here.all.arrived = 0;
    uint64_t random = 0;
    for (unsigned rank = 0; rank < launch.cluster; rank++) {
        random = begin_block(here.of_cluster(rank), launch, number * launch.cluster + rank);
        here.all.size += here.of_cluster(rank).all.size;
    }
    block = &here.of_cluster(seed() ? random % launch.cluster : 0);
    go(&here.scheduler, &block->lanes[block->lane], false);
}
inline void run_clusters(Launch &launch, uint64_t at_most) {
    static thread_local Stage here;
    for (uint64_t i; at_most-- > 0 && (i = launch.next++) < launch.clusters;)
        run_cluster(here, launch, seed() ? (i + mix(seed()) % launch.clusters) % launch.clusters : i);
}

// OS threads that help with one launch at a time. They live as long as the process.
struct Pool {
    std::mutex mutex;
    std::condition_variable wake, idle;
    Launch *launch = nullptr;
    unsigned inside = 0; // helpers that work on the launch
    std::atomic<bool> taken{false};

    explicit Pool(unsigned helpers) {
        for (unsigned i = 0; i < helpers; i++) std::thread([this] { help(); }).detach();
    }
    void help() {
        std::unique_lock lock(mutex);
        for (;;) {
            wake.wait(lock, [this] { return launch && launch->has_more(); });
            Launch *with = launch;
            inside++;
            lock.unlock();
            run_clusters(*with, UINT64_MAX);
            lock.lock();
            if (--inside == 0) idle.notify_one();
        }
    }
    // Runs what is left of a launch; on the calling thread alone if the pool is busy with another one.
    void share(Launch &with) {
        if (taken.exchange(true)) return run_clusters(with, UINT64_MAX);
        {
            std::lock_guard lock(mutex);
            launch = &with;
        }
        wake.notify_all();
        run_clusters(with, UINT64_MAX);
        {
            std::unique_lock lock(mutex);
            launch = nullptr;
            idle.wait(lock, [this] { return inside == 0; });
        }
        taken = false;
    }
};
inline void run(Launch &launch) {
    static const unsigned threads = (unsigned)setting("TWIN_THREADS", std::max(1u, std::thread::hardware_concurrency()));
    const auto start = std::chrono::steady_clock::now();
    run_clusters(launch, 1);
    if (!launch.has_more()) return;
    // The first block tells whether the others are worth waking helpers for.
    const std::chrono::duration<double> one = std::chrono::steady_clock::now() - start;
    if (threads < 2 || launch.clusters == 2 || one.count() * (double)launch.clusters < 50e-6) return run_clusters(launch, UINT64_MAX);
    static Pool *const pool = new Pool(threads - 1);
    pool->share(launch);
}

// ---- Streams ---------------------------------------------------------------------------------------------------------------

// Work is a function whose value is a status.
typedef std::vector<std::function<int()>> Work;
struct Stream {
    Work *recording = nullptr; // what is queued goes into a graph
    Work queued;               // with TWIN_STREAMS=late
    std::mutex mutex;          // of `queued`
};
// The number of the error that ended all work, or 0.
inline std::atomic<int> fault{0};

inline int queue(void *stream, std::function<int()> work) {
    if (fault) return fault;
    Stream *to = (Stream *)stream;
    if (to && to->recording) {
        to->recording->push_back(std::move(work));
        return 0;
    }
    if (to && late_streams()) {
        std::lock_guard lock(to->mutex);
        to->queued.push_back(std::move(work));
        return 0;
    }
    return work();
}

inline std::mutex allowed_mutex;
inline std::map<const void *, size_t> allowed; // bytes of dynamic shared memory, by kernel
inline int allow_shared(const void *kernel, size_t bytes) {
    if (bytes > most_shared()) return 1; // cudaErrorInvalidValue
    std::lock_guard lock(allowed_mutex);
    allowed[kernel] = bytes;
    return 0;
}
inline bool is_allowed(const void *kernel, size_t bytes) {
    if (bytes <= SHARED_WITHOUT_ASKING) return true;
    std::lock_guard lock(allowed_mutex);
    auto found = allowed.find(kernel);
    return found != allowed.end() && bytes <= found->second;
}

inline int launch_call(const void *kernel, unsigned cluster, dim3 grid, dim3 size, size_t shared, void *stream,
                       std::function<void()> call) {
    const uint64_t n = (uint64_t)size.x * size.y * size.z, blocks = (uint64_t)grid.x * grid.y * grid.z;
    if (n == 0 || n > MOST_LANES || blocks == 0 || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535) {
        fprintf(stderr, "twin: launch of %u x %u x %u blocks of %u x %u x %u threads\n", grid.x, grid.y, grid.z, size.x, size.y,
                size.z);
        return 9; // cudaErrorInvalidConfiguration
    }
    if (cluster < 1 || cluster > MOST_CLUSTER || cluster * n > MOST_FIBERS || grid.x % cluster) {
        fprintf(stderr, "twin: launch of %u blocks in clusters of %u\n", grid.x, cluster);
        return 912; // cudaErrorInvalidClusterSize
    }
    if (!is_allowed(kernel, shared)) {
        fprintf(stderr, "twin: launch with %zu bytes of shared memory, more than was allowed\n", shared);
        return 1; // cudaErrorInvalidValue
    }
    return queue(stream, [grid, size, shared, cluster, clusters = blocks / cluster, call = std::move(call)] {
        static const uint64_t faulty = setting("TWIN_FAULT", 0);
        static std::atomic<uint64_t> launches{0};
        if (++launches == faulty) fault = 700; // cudaErrorIllegalAddress
        if (fault) return fault.load();
        Launch launch{grid, size, shared, call, cluster, clusters};
        run(launch);
        return 0;
    });
}
// Parameters are copied here, as a device does, so that a recorded launch does not depend on the caller's variables.
template <class... P, class... A>
int launch_clusters(void (*kernel)(P...), unsigned cluster, dim3 grid, dim3 size, size_t shared, void *stream, A &&...arguments) {
    static_assert((sizeof(P) + ... + 0) <= 4096, "more parameters than a kernel can have");
    const std::tuple<P...> values(std::forward<A>(arguments)...);
    return launch_call((const void *)kernel, cluster, grid, size, shared, stream, [kernel, values] { std::apply(kernel, values); });
}
template <class... P, class... A>
int launch(void (*kernel)(P...), dim3 grid, dim3 size, size_t shared, void *stream, A &&...arguments) {
    return launch_clusters(kernel, 1, grid, size, shared, stream, std::forward<A>(arguments)...);
}
} // namespace twin

// ---- Instructions in which lanes meet --------------------------------------------------------------------------------------

inline void __syncthreads() {
    twin::meet(twin::block->all, "__syncthreads", [] {});
}
inline void __syncwarp(unsigned = ~0u) {
    twin::meet(twin::block->warps[twin::block->lane / 32], "__syncwarp", [] {});
}
// `source` says from which lane each one receives; its own value where there is no such lane.
template <class T, class Source> inline T twin_shuffle(const char *what, unsigned mask, T value, Source source) {
    if (mask != ~0u) twin::fail("the twin shuffles whole warps only:", what);
    struct Both {
        T in, out;
        Source source;
    } mine{value, value, source};
    twin::meet_warp(what, mine, [](auto of) {
        for (int i = 0; i < 32; i++) {
            int from = of(i).source(i);
            if (from >= 0 && from < 32) of(i).out = of(from).in;
        }
    });
    return mine.out;
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int by) {
    return twin_shuffle("shfl.xor", mask, value, [by](int lane) { return lane ^ by; });
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, int by) {
    return twin_shuffle("shfl.down", mask, value, [by](int lane) { return lane + by; });
}
template <class T> inline T __shfl_sync(unsigned mask, T value, int lane) {
    return twin_shuffle("shfl.idx", mask, value, [lane](int) { return lane % 32; });
}
inline unsigned __ballot_sync(unsigned mask, bool in) {
    if (mask != ~0u) twin::fail("the twin asks whole warps only: vote.ballot");
    struct Vote {
        bool in;
        unsigned out;
    } mine{in, 0};
    twin::meet_warp("vote.ballot", mine, [](auto of) {
        unsigned all = 0;
        for (int i = 0; i < 32; i++) all |= (unsigned)of(i).in << i;
        for (int i = 0; i < 32; i++) of(i).out = all;
    });
    return mine.out;
}

#include "twin_instructions.h"

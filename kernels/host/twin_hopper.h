// The instructions of hopper.cuh on the host twin, by the layouts that the PTX manual documents.
//
// As with other asynchronous copies, a bulk copy is done at once with TWIN_COPIES=early, else as late as possible: when nobody can
// go on without it. So is a product: at once, or when it is waited for, and until then it reads what others may overwrite.
#pragma once

namespace dev {

// ---- Barriers and bulk copies ------------------------------------------------------------------------------------------------

inline uint32_t shared_address(const void *p) {
    const ptrdiff_t at = (const unsigned char *)p - twin::block->shared;
    if (at < 0 || at >= (ptrdiff_t)twin::MOST_SHARED) twin::fail("not in shared memory");
    return (uint32_t)at;
}
inline void barrier_init(uint64_t *b, int arrivals) {
    const twin::Barrier fresh{(uint16_t)arrivals, (uint16_t)arrivals, 0, 0};
    memcpy(b, &fresh, 8);
}
inline void fence_barrier_init() {}
inline void barrier_change(uint64_t *b, int arrivals, int bytes) {
    twin::Barrier barrier = twin::Barrier::at(b);
    if (barrier.pending < arrivals) twin::fail("more arrivals than the mbarrier expects");
    barrier.pending -= arrivals;
    barrier.bytes += bytes;
    if (barrier.pending == 0 && barrier.bytes == 0) {
        barrier.pending = barrier.count;
        barrier.phase ^= 1;
    }
    memcpy(b, &barrier, 8);
}
inline void barrier_arrive(uint64_t *b) { barrier_change(b, 1, 0); }
inline void barrier_expect(uint64_t *b, int bytes) { barrier_change(b, 1, bytes); }
inline void barrier_wait(uint64_t *b, int phase) {
    if ((int)twin::Barrier::at(b).phase == phase) twin::wait_for(b, phase);
}
template <class Work> inline void bulk_copy(Work work) {
    if (twin::early_copies()) return work();
    twin::block->bulk_copies.push_back(work);
}
inline void bulk_load(void *to, const void *from, int bytes, uint64_t *b) {
    if ((uintptr_t)to % 16 || (uintptr_t)from % 16 || bytes % 16 || bytes <= 0) twin::fail("cp.async.bulk is not aligned");
    shared_address(to);
    bulk_copy([=] {
        memcpy(to, from, bytes);
        barrier_change(b, 0, -bytes);
    });
}

struct TensorMap {
    const unsigned char *base;
    int64_t dims[3], strides[2];
    int box;
};
inline int tensor_map_3d(TensorMap *map, const void *base, const int64_t (&dims)[3], const int64_t (&strides)[2], int box) {
    if ((uintptr_t)base % 16 || strides[0] % 16 || strides[1] % 16 || box < 1 || box > 256) return 1;
    for (int64_t dim : dims)
        if (dim < 1 || dim > (int64_t)1 << 32) return 1;
    *map = {(const unsigned char *)base, {dims[0], dims[1], dims[2]}, {strides[0], strides[1]}, box};
    return 0;
}
// In a kilobyte, the 16-byte piece c of row r lies at place c ^ r.
inline uint32_t swizzled_address(uint32_t at) { return at ^ (at >> 3 & 0x70); }
inline void tensor_load_3d(void *to, const TensorMap *map, int x, int y, int z, uint64_t *b) {
    const uint32_t at = shared_address(to);
    if (at % 1024) twin::fail("a swizzled box does not begin a kilobyte");
    bulk_copy([at, map = *map, x, y, z, b, shared = twin::block->shared] {
        for (int row = 0; row < map.box; row++)
            for (int e = 0; e < 64; e++) {
                const int64_t place[3] = {x + e, y + row, z};
                bool inside = true;
                for (int d = 0; d < 3; d++) inside &= place[d] >= 0 && place[d] < map.dims[d];
                const int64_t from = 2 * place[0] + map.strides[0] * place[1] + map.strides[1] * place[2];
                unsigned char *cell = shared + swizzled_address(at + row * 128 + e * 2);
                if (inside) memcpy(cell, map.base + from, 2);
                else memset(cell, 0, 2);
            }
        barrier_change(b, 0, -map.box * 128);
    });
}

// ---- A launch that begins before the one before it is over: not here ---------------------------------------------------------

#define TRM_LAUNCH_EARLY TRM_LAUNCH
inline void launch_dependents() {}
inline void wait_for_dependencies() {}

// ---- Clusters ----------------------------------------------------------------------------------------------------------------

#define TRM_LAUNCH_CLUSTERS(kernel, cluster, early, ...) ((void)(early), twin::launch_clusters(kernel, cluster, __VA_ARGS__))
template <class... P> int clusters_at_once(void (*)(P...), unsigned cluster, dim3, size_t) {
    return std::max(1, processors() / (int)cluster);
}
inline int cluster_rank() { return (int)(twin::block->index.x % twin::stage->cluster); }
inline void cluster_begin() {
    twin::meet(twin::stage->all, "barrier.cluster", [] {});
}
inline void send(float *to, float x, uint64_t *b, int rank) {
    if (rank < 0 || rank >= (int)twin::stage->cluster) twin::fail("the cluster has no such block");
    unsigned char *const shared = twin::stage->of_cluster(rank).shared;
    const uint32_t at = shared_address(to);
    uint64_t *const barrier = (uint64_t *)(shared + shared_address(b));
    if (at % 4) twin::fail("st.async is not aligned");
    bulk_copy([=] {
        memcpy(shared + at, &x, 4);
        barrier_change(barrier, 0, -4);
    });
}
inline void barrier_wait_cluster(uint64_t *b, int phase) { barrier_wait(b, phase); }

// ---- Warpgroups --------------------------------------------------------------------------------------------------------------

template <int N> inline void registers_up() { twin::meet_warpgroup("setmaxnreg"); }
template <int N> inline void registers_down() { twin::meet_warpgroup("setmaxnreg"); }
inline void threads_sync(int barrier, int threads) {
    twin::Group &group = twin::block->named.at(barrier);
    group.size = threads;
    twin::meet(group, "bar.sync", [] {});
}
inline void fence_products() {}
inline void wgmma_fence() { twin::meet_warpgroup("wgmma.fence"); }
template <int N> inline void wgmma_registers(float (&)[N]) {}
inline void before_wait(float, void *) {}
inline bool has_wgmma() { return twin::most_shared() == twin::MOST_SHARED; }

inline uint64_t descriptor(const void *p, int leading, int stride, bool swizzled) {
    return (uint64_t)(shared_address(p) >> 4) | (uint64_t)(leading >> 4) << 16 | (uint64_t)(stride >> 4) << 32 |
           (uint64_t)swizzled << 62;
}
// Element (i, k) of the operand that a descriptor names, i being the row of a or the column of b.
inline float operand_element(uint64_t descriptor, bool along_k, int i, int k) {
    const uint32_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4;
    const uint32_t stride = (descriptor >> 32 & 0x3fff) << 4;
    const bool swizzled = descriptor >> 62 == 1;
    uint32_t at;
    if (swizzled) at = along_k ? i / 8 * stride + i % 8 * 128 + k * 2 : i / 64 * leading + k / 8 * stride + k % 8 * 128 + i % 64 * 2;
    else at = along_k ? i / 8 * stride + i % 8 * 16 + k / 8 * leading + k % 8 * 2
                      : i / 8 * stride + k / 8 * leading + k % 8 * 16 + i % 8 * 2;
    at = swizzled ? swizzled_address(start + at) : start + at;
    uint16_t bits;
    memcpy(&bits, twin::block->shared + at, 2);
    return __uint_as_float((uint32_t)bits << 16);
}
__attribute__((noinline)) inline void multiply_product(const twin::Product &p) {
    static thread_local float A[64][16], B[16][256], D[64][256];
    auto d_cell = [](int t, int e) -> float & {
        return D[t / 32 * 16 + t % 32 / 4 + e / 2 % 2 * 8][e / 4 * 8 + t % 4 * 2 + e % 2];
    };
    for (int t = 0; t < 128; t++)
        for (int e = 0; e < p.n / 2; e++) d_cell(t, e) = p.keep ? p.d[t][e] : 0;
    for (int k = 0; k < 16; k++)
        for (int j = 0; j < p.n; j++) B[k][j] = operand_element(p.b, p.b_along_k, j, k);
    if (p.a_in_registers) {
        for (int t = 0; t < 128; t++)
            for (int i = 0; i < 4; i++) {
                const int row = t / 32 * 16 + t % 32 / 4 + i % 2 * 8, k = t % 4 * 2 + i / 2 * 8;
                A[row][k] = lo(p.a_registers[t][i]);
                A[row][k + 1] = hi(p.a_registers[t][i]);
            }
    } else {
        for (int i = 0; i < 64; i++)
            for (int k = 0; k < 16; k++) A[i][k] = operand_element(p.a, p.a_along_k, i, k);
    }
    for (int i = 0; i < 64; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < p.n; j++) D[i][j] += A[i][k] * B[k][j];
    for (int t = 0; t < 128; t++)
        for (int e = 0; e < p.n / 2; e++) p.d[t][e] = d_cell(t, e);
}
inline void issue_product(twin::Product p) {
    if (p.n % 8 || p.n < 8 || p.n > 256) twin::fail("wgmma has no such width");
    if (twin::early_copies()) return multiply_product(p);
    twin::warpgroup().products.push_back(p);
}
template <int N> struct Wgmma {
    struct Mine {
        float *d;
        const uint32_t *registers;
        uint64_t a, b;
        int keep;
    };
    static void multiply(Mine mine, bool a_along_k, bool b_along_k) {
        twin::meet_warpgroup("wgmma", mine, [=](auto of) {
            const Mine first = of(0);
            twin::Product p{{}, {}, N, first.keep, first.registers != nullptr, a_along_k, b_along_k, first.a, first.b};
            for (int t = 0; t < 128; t++) {
                const Mine &its = of(t);
                if (its.a != first.a || its.b != first.b || its.keep != first.keep)
                    twin::fail("wgmma's descriptors differ between lanes");
                p.d[t] = its.d;
                if (its.registers) memcpy(p.a_registers[t], its.registers, 16);
            }
            issue_product(p);
        });
    }
    template <int A_ALONG_M, int B_ALONG_N> static void multiply(float (&d)[N / 2], uint64_t a, uint64_t b, int keep) {
        multiply(Mine{d, nullptr, a, b, keep}, !A_ALONG_M, !B_ALONG_N);
    }
    template <int B_ALONG_N> static void multiply(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int keep) {
        multiply(Mine{d, a, 0, b, keep}, true, !B_ALONG_N);
    }
};
inline void wgmma_commit() {
    twin::meet_warpgroup("wgmma.commit", [](twin::Warpgroup &group) { group.ends.push_back(group.products.size()); });
}
template <int N> inline void wgmma_wait() {
    twin::meet_warpgroup("wgmma.wait", [](twin::Warpgroup &group) {
        auto &products = group.products;
        auto &ends = group.ends;
        if (ends.size() <= N) return;
        const size_t done = ends[ends.size() - 1 - N];
        for (size_t i = 0; i < done; i++) multiply_product(products[i]);
        products.erase(products.begin(), products.begin() + done);
        ends.erase(ends.begin(), ends.end() - N);
        for (size_t &end : ends) end -= done;
    });
}
} // namespace dev

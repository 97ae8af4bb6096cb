// The instructions of device.cuh on the host twin, by the layouts that the PTX manual documents.
#pragma once

namespace dev {

// ---- Asynchronous copies ---------------------------------------------------------------------------------------------------

inline twin::Copies &copies_of_lane() {
    twin::self->has_copies = true;
    return twin::block->copies[twin::block->lane];
}
inline void copy_async(twin::Copies::Copy copy) {
    const bool aligned = (uintptr_t)copy.to % copy.size == 0 && (copy.bytes == 0 || (uintptr_t)copy.from % copy.size == 0);
    if (!aligned) twin::fail("cp.async is not aligned");
    if (copy.bytes < 0 || copy.bytes > copy.size) twin::fail("cp.async of more bytes than it has");
    if (twin::early_copies()) return copy.run();
    copies_of_lane().begun.push_back(copy);
}
inline void copy16_async(void *to, const void *from, int bytes) { copy_async({to, from, bytes, 16}); }
inline void copy4_async(void *to, const void *from, int bytes) { copy_async({to, from, bytes, 4}); }
inline void copies_commit() {
    auto &[begun, groups] = copies_of_lane();
    groups.push_back(begun.size());
}
template <int N> inline void copies_wait() {
    auto &[begun, groups] = copies_of_lane();
    if (groups.size() <= N) return;
    const size_t done = groups[groups.size() - 1 - N];
    for (size_t i = 0; i < done; i++) begun[i].run();
    begun.erase(begun.begin(), begun.begin() + done);
    groups.erase(groups.begin(), groups.end() - N);
    for (size_t &end : groups) end -= done;
}

// ---- Matrix fragments ------------------------------------------------------------------------------------------------------

template <bool TRANSPOSED> inline void load_matrix(uint32_t (&r)[4], const void *row) {
    if ((uintptr_t)row % 16) twin::fail("ldmatrix is not aligned");
    struct Mine {
        uint32_t *r;
        const void *row;
    } mine{r, row};
    twin::meet_warp(TRANSPOSED ? "ldmatrix.trans" : "ldmatrix", mine, [](auto of) {
        for (int matrix = 0; matrix < 4; matrix++)
            for (int lane = 0; lane < 32; lane++)
                for (int e = 0; e < 2; e++) {
                    // The lane holds elements (i, j) of the matrix, or of its transpose.
                    const int i = lane / 4, j = lane % 4 * 2 + e;
                    const auto *from = (const uint16_t *)of(8 * matrix + (TRANSPOSED ? j : i)).row;
                    ((uint16_t *)(of(lane).r + matrix))[e] = from[TRANSPOSED ? i : j];
                }
    });
}
inline void load_matrix_x4(uint32_t (&r)[4], const void *row) { load_matrix<false>(r, row); }
inline void load_matrix_x4_trans(uint32_t (&r)[4], const void *row) { load_matrix<true>(r, row); }

inline float lo(uint32_t v) { return __uint_as_float(v << 16); }
inline float hi(uint32_t v) { return __uint_as_float(v & 0xffff0000u); }
inline uint32_t pack(float lo, float hi) {
    return (uint32_t)__float2bfloat16(hi).bits << 16 | __float2bfloat16(lo).bits;
}

inline void mma_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    struct Mine {
        float *d;
        const uint32_t *a;
        uint32_t b[2];
    } mine{d, a, {b0, b1}};
    twin::meet_warp("mma.m16n8k16", mine, [](auto of) {
        float A[16][16], B[16][8], D[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const Mine &m = of(lane);
            const int g = lane / 4, t = lane % 4 * 2;
            for (int i = 0; i < 4; i++) {
                const int row = g + i % 2 * 8, col = t + i / 2 * 8;
                A[row][col] = lo(m.a[i]);
                A[row][col + 1] = hi(m.a[i]);
                D[g + i / 2 * 8][t + i % 2] = m.d[i];
            }
            for (int i = 0; i < 2; i++) {
                B[t + i * 8][g] = lo(m.b[i]);
                B[t + i * 8 + 1][g] = hi(m.b[i]);
            }
        }
        for (int i = 0; i < 16; i++)
            for (int k = 0; k < 16; k++)
                for (int j = 0; j < 8; j++) D[i][j] += A[i][k] * B[k][j];
        for (int lane = 0; lane < 32; lane++)
            for (int i = 0; i < 4; i++) of(lane).d[i] = D[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
    });
}

// ---- The device ------------------------------------------------------------------------------------------------------------

// A byte is read, so that AddressSanitizer sees addresses that are out of bounds.
inline void add_to(float *p, float x) { *p += x; }
inline void add_to_pair(float *p, const float (&x)[2]) {
    if ((uintptr_t)p % 8) twin::fail("red.v2 is not aligned");
    for (int i = 0; i < 2; i++) p[i] += x[i];
}
inline void forget(int &) {}
inline int zero_after(float) { return 0; }
inline void prefetch(const void *p) { (void)*(const volatile char *)p; }
inline int processors() { return std::max(1, (int)twin::setting("TWIN_PROCESSORS", 2)); }
inline int most_shared() { return (int)twin::most_shared(); }

// ---- Numbers ---------------------------------------------------------------------------------------------------------------

inline float exp2_approx(float x) { return exp2f(x); }
inline float tanh_approx(float x) { return tanhf(x); }
inline float quad_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}
inline float quad_max(float x) {
    x = std::max(x, __shfl_xor_sync(~0u, x, 1));
    return std::max(x, __shfl_xor_sync(~0u, x, 2));
}
} // namespace dev

// Which loop and which tiles a product is made with.
#pragma once
#include "gemm_hopper.cuh"

namespace {
// The shape that takes the least time. The speeds are estimates. Of all operands that are multiplied, Wide reads the smallest share
// from the L2 cache; in Square, blocks that share a processor fill each other's pauses. Where a processor does not have the shared
// memory of BLOCKS blocks, some begin when others have ended.
typedef Shape<128, 256, 64, 64, 64, 3, 1, 100> Wide;
typedef Shape<128, 128, 64, 64, 64, 3, 2, 85> Square;
typedef Shape<64, 64, 64, 32, 32, 3, 4, 50> Small;
typedef GroupShape<256, 4, 100> WideGroups;
typedef GroupShape<128, 6, 80> NarrowGroups;

// c = epilogue(a bᵀ) by warpgroups, slice by slice of k.
template <Layout LAYOUT, class E>
int launch_groups(const void *a, const void *b, int64_t m, int64_t n, int64_t k, int64_t slice, const E &epilogue,
                  trm_stream stream) {
    const int64_t slices = pieces(k, slice);
    if constexpr (!E::NARROW)
        if (time_of<WideGroups, E>(m, n, slices) <= time_of<NarrowGroups, E>(m, n, slices))
            return launch_by_groups<WideGroups, LAYOUT>(a, b, m, n, k, slice, epilogue, stream);
    return launch_by_groups<NarrowGroups, LAYOUT>(a, b, m, n, k, slice, epilogue, stream);
}

// c = epilogue(a bᵀ), slice by slice of k. Warpgroups may have an epilogue of their own.
template <Layout LAYOUT, class E, class G>
int launch_gemm(const void *a, const void *b, int64_t m, int64_t n, int64_t k, int64_t slice, const E &epilogue,
                const G &epilogue_of_groups, trm_stream stream) {
    static_assert(shared_bytes<Square, E>() <= SHARED_EVERYWHERE, "this shape and Small fit on every device");
    if (k < 1 || slice < 1) return 1;
    const int64_t slices = pieces(k, slice);
    if (takes_groups(n, LAYOUT == K_MAJOR ? k : m))
        return launch_groups<LAYOUT>(a, b, m, n, k, slice, epilogue_of_groups, stream);
    const int64_t wide = time_of<Wide, E>(m, n, slices), square = time_of<Square, E>(m, n, slices);
    const int64_t small = time_of<Small, E>(m, n, slices);
    if (wide <= square && wide <= small) return launch_shape<Wide, LAYOUT>(a, b, m, n, k, slice, epilogue, stream);
    if (square <= small) return launch_shape<Square, LAYOUT>(a, b, m, n, k, slice, epilogue, stream);
    return launch_shape<Small, LAYOUT>(a, b, m, n, k, slice, epilogue, stream);
}
template <Layout LAYOUT, class E>
int launch_gemm(const void *a, const void *b, int64_t m, int64_t n, int64_t k, int64_t slice, const E &epilogue,
                trm_stream stream) {
    return launch_gemm<LAYOUT>(a, b, m, n, k, slice, epilogue, epilogue, stream);
}
} // namespace

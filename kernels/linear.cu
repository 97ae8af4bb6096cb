// Linear maps on tensor cores, and the gradients of their weights:
//
//     y = x wᵀ,  y = base + x wᵀ           linear_bf16; with the transposed w it makes dx from dy
//     y = x wᵀ, rotated                    linear_rope_bf16: q and k by rotary positions (attention.cu)
//     y = rmsnorm(h + x wᵀ)                linear_add_rmsnorm_bf16, rmsnorm(v) = v·r, r = (mean v² + 1e-5)^(−1/2); and, beside y or
//                                          instead of it, the next input of a network, y + a or (y + a) + b
//     d = r (s − y · mean(s·y))            linear_rmsnorm_backward_bf16, s = base + x wᵀ: dx, and on through the norm that made y
//     dw += dyᵀ x                          weight_grad_bf16, slice by slice of the rows
//
// The products are those of gemm.cuh; what is here are their epilogues.
#include "gemm_launch.cuh"
#include <cstdlib>

namespace {
// ---- y = x wᵀ ----------------------------------------------------------------------------------------------------------------

// y = …, or y = base + …
template <class T, bool ADDS> struct StoreLinear : Elementwise {
    static constexpr bool NARROW = ADDS && sizeof(T) == 4;
    static constexpr bool MIXES = !ADDS; // a little faster so (EXPERIMENTS.md, "On an H100")
    typedef int64_t Row; // the element
    typedef dev::Pack<T, 8> Beside;
    const T *base;
    T *y;
    int64_t n;

    __device__ __forceinline__ Row row(int, int row, int column) const { return row * n + column; }
    __device__ __forceinline__ Beside read(Row row, int offset) const {
        if constexpr (ADDS) return *(const Beside *)(base + row + offset);
        else return {};
    }
    __device__ __forceinline__ void write(Row row, int offset, float (&v)[8], const Beside &beside) const {
#pragma unroll
        for (int e = 0; e < 8 && ADDS; e++) v[e] += dev::get(&beside.of[e]);
        dev::store<8>(y + row + offset, v);
    }
    __device__ __forceinline__ void prefetch(int, int row, int column) const {
        if (!ADDS) return;
        dev::prefetch(base + this->row(0, row, column));
        if (sizeof(T) == 4 && column + 16 < n) dev::prefetch(base + this->row(0, row, column + 16));
    }
};

// ---- y = x wᵀ, rotated -------------------------------------------------------------------------------------------------------

// By warpgroups, for heads of 64 features, which are two blocks of 32 columns: a lane has both numbers of each pair that turns, and the same
// places of all heads of a row, so that their angles are read once.
struct StoreRotated : Elementwise {
    static constexpr bool ROW_BY_ROW = true;
    static constexpr int HALF = 32; // of a head
    bf16 *y;
    const float *cos_sin;
    int64_t n;
    int len;

    __device__ __forceinline__ void prefetch(int, int, int) const {}
    template <class H> __device__ __forceinline__ void finish(H &held) const {
        static_assert(4 * H::RUN == HALF, "halves of a head are blocks of a lane's runs");
        const int place = threadIdx.x % 4 * RUN, first = held.first_column - place;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            if (!H::WHOLE && held.row(r) >= held.m) break;
            const float4 *const of_row = (const float4 *)(cos_sin + (held.row(r) % len * HALF + place) * 2);
            float4 angles[RUN / 2]; // cos and sin of two pairs each
#pragma unroll
            for (int i = 0; i < RUN / 2; i++) angles[i] = of_row[i];
            bf16 *const to = y + held.row(r) * n + held.first_column;
#pragma unroll
            for (int run = 0; run < H::RUNS; run += 2) {
                float low[RUN], high[RUN];
#pragma unroll
                for (int e = 0; e < RUN; e++) low[e] = held.at(r, run, e), high[e] = held.at(r, run + 1, e);
                if (first + run * HALF < n / 3 * 2) // v does not turn
#pragma unroll
                    for (int e = 0; e < RUN; e++) {
                        const float4 two = angles[e / 2];
                        const float cos = e % 2 ? two.z : two.x, sin = e % 2 ? two.w : two.y, a = low[e], b = high[e];
                        low[e] = a * cos - b * sin;
                        high[e] = b * cos + a * sin;
                    }
                if (!held.inside(r, run)) break; // heads are whole
                dev::store<RUN>(to + run * HALF, low);
                dev::store<RUN>(to + (run + 1) * HALF, high);
            }
        }
    }
};

// ---- y = rmsnorm(h + x wᵀ) ---------------------------------------------------------------------------------------------------

// The warps of a block hold whole rows, 64 columns each. The squares of a row are summed over the 16 columns of a lane, then over
// the four lanes of a warp and the warps that hold the row; the last sum is over numbers in shared memory, one from each warp.
template <class S> struct StoreNormed {
    static constexpr bool WHOLE_ROWS = true;
    static constexpr int SCRATCH_BYTES = S::WARPS_N * S::BM * 4;
    const bf16 *h;
    bf16 *y;
    float *inv_rms;
    int64_t n;

    __device__ __forceinline__ void prefetch(int, int row, int column) const { dev::prefetch(h + row * n + column); }

    template <class H> __device__ __forceinline__ void finish(H &held, unsigned char *scratch) const {
        float(*squares)[S::BM] = (float(*)[S::BM])scratch;
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_n = warp % S::WARPS_N;
        auto row_of_block = [&](int r) { return warp / S::WARPS_N * S::WM + lane / 4 + 8 * r; };
#pragma unroll
        for (int r = 0; r < H::ROWS; r++) {
            float total = 0;
#pragma unroll
            for (int run = 0; run < H::RUNS; run++) {
                float beside[8] = {}; // beyond the last column the product is 0 as well
                if (held.inside(r, run)) dev::load<8>(beside, h + held.row(r) * n + held.column(run));
#pragma unroll
                for (int e = 0; e < 8; e++) {
                    float &v = held.at(r, run, e);
                    v += beside[e];
                    total += v * v;
                }
            }
            total = dev::quad_sum(total);
            if (lane % 4 == 0) squares[warp_n][row_of_block(r)] = total;
        }
        __syncthreads();
#pragma unroll
        for (int r = 0; r < H::ROWS; r++) {
            float total = 0;
#pragma unroll
            for (int w = 0; w < S::WARPS_N; w++) total += squares[w][row_of_block(r)];
            const float inverse = rsqrtf(total / n + 1e-5f);
            if (warp_n == 0 && lane % 4 == 0 && held.row(r) < held.m) inv_rms[held.row(r)] = inverse;
#pragma unroll
            for (int run = 0; run < H::RUNS; run++) {
                float v[8];
#pragma unroll
                for (int e = 0; e < 8; e++) v[e] = held.at(r, run, e) * inverse;
                if (held.inside(r, run)) dev::store<8>(y + held.row(r) * n + held.column(run), v);
            }
        }
        // The next writes to `squares` come after a barrier of the loop.
    }
};

// All runs of a row, and then those of the next, batch by batch: read(r, run, pace, Beside &), then use(r, run, Beside), which returns a
// number. The first batch is on its way when `meanwhile` is called, and the next one from when the first run of a batch has been
// used: `pace` is 0, but only then known. Else the compiler reads everything at once, for which there are no registers.
template <class Beside, int BATCH, class H, class Read, class Use, class Meanwhile>
__device__ __forceinline__ void for_each_batch(const H &, Read read, Use use, Meanwhile meanwhile) {
    constexpr int ALL = H::ROWS * H::RUNS;
    static_assert(ALL % BATCH == 0, "batches are whole");
    Beside beside[2][BATCH];
    auto read_batch = [&](int first, int pace) {
#pragma unroll
        for (int i = first; i < first + BATCH && i < ALL; i++) read(i / H::RUNS, i % H::RUNS, pace, beside[i / BATCH % 2][i % BATCH]);
    };
    read_batch(0, 0);
    meanwhile();
#pragma unroll
    for (int i = 0; i < ALL; i++) {
        const float used = use(i / H::RUNS, i % H::RUNS, beside[i / BATCH % 2][i % BATCH]);
        if (i % BATCH == 0) read_batch(i + BATCH, dev::zero_after(used));
    }
}

// The same by warpgroups, whose tiles are cut out of rows, and its backward pass. With s = x wᵀ + base,
//
//     forward     base is h:        term s²,   y = s r,   r = (mean of the terms + 1e-5)^(−1/2)
//     backward    base is d_base:   term s y,  d = r (s − y · mean of the terms),   r and y being what the forward pass has made
//
// Forward, `sum` may receive y, as it is rounded, plus ADDED arrays, one or two. y itself is then written only where there is an `out`.
//
// The terms are added up over 128 columns, whatever the width of the tile, and these sums in a binary tree.
template <bool BACKWARD, int ADDED = 0> struct NormRows {
    static constexpr bool WHOLE_ROWS = true, NARROW = false, MIXES = true;
    static constexpr int SCRATCH_BYTES = 0, RUN = 8;
    // What is read at once, before the sums are known and then.
    template <class H> static constexpr int BATCH = !H::WHOLE ? 1 : BACKWARD ? 2 : 8;
    template <class H> static constexpr int LATER = !H::WHOLE ? 1 : ADDED > 1 && H::COLUMNS > 128 ? 2 : 8;
    typedef dev::Pack<bf16, 8> Numbers;
    const bf16 *base, *y;
    bf16 *out; // null where nobody reads what is made, but only the sum
    float *inv_rms;
    int64_t n;
    const bf16 *added[2];
    bf16 *sum;

    __device__ __forceinline__ void prefetch(int, int row, int column) const {
        dev::prefetch(base + row * n + column);
        if (BACKWARD) dev::prefetch(y + row * n + column);
        for (int i = 0; i < ADDED; i++) dev::prefetch(added[i] + row * n + column);
    }
    template <class H> __device__ __forceinline__ void finish(H &held, RowSums &row_sums) const {
        struct Beside {
            Numbers base, y;
        };
        constexpr int PIECE = 128 / (4 * RUN), PIECES = H::RUNS / PIECE;
        static_assert(H::RUN == RUN && H::RUNS % PIECE == 0 && PIECES <= 2, "a lane has the same columns of each piece");
        const int64_t rows[2] = {held.row(0) * n + held.first_column, held.row(1) * n + held.first_column};
        auto at = [&](int r, int run) { return rows[r] + 4 * RUN * run; };
        float sums[2][2] = {}; // of rows, and pieces
        for_each_batch<Beside, BATCH<H>>(
            held,
            [&](int r, int run, int pace, Beside &beside) {
                if (!H::WHOLE) beside = {}; // beyond the last column the product is 0 as well
                if (!held.inside(r, run)) return;
                beside.base = *(const Numbers *)(base + at(r, run) + pace);
                if (BACKWARD) beside.y = *(const Numbers *)(y + at(r, run) + pace);
            },
            [&](int r, int run, const Beside &beside) {
#pragma unroll
                for (int e = 0; e < RUN; e++) {
                    float &s = held.at(r, run, e);
                    s += dev::get(&beside.base.of[e]);
                    sums[r][run / PIECE] += s * (BACKWARD ? dev::get(&beside.y.of[e]) : s);
                }
                return sums[r][run / PIECE];
            },
            [] {});
        float mean[2], scale[2];
#pragma unroll
        for (int r = 0; r < 2; r++) {
            mean[r] = dev::quad_sum(sums[r][0]) + (PIECES > 1 ? dev::quad_sum(sums[r][1]) : 0.0f);
            if (BACKWARD) scale[r] = held.row(r) < held.m ? inv_rms[held.row(r)] : 0.0f;
        }
        struct Later {
            Numbers of[ADDED > 1 ? 2 : 1];
        };
        for_each_batch<Later, LATER<H>>(
            held,
            [&](int r, int run, int pace, Later &later) {
                if (!held.inside(r, run)) return;
                if (BACKWARD) later.of[0] = *(const Numbers *)(y + at(r, run) + pace);
#pragma unroll
                for (int i = 0; i < ADDED; i++) later.of[i] = *(const Numbers *)(added[i] + at(r, run) + pace);
            },
            [&](int r, int run, const Later &later) {
                float v[RUN];
#pragma unroll
                for (int e = 0; e < RUN; e++) {
                    const float s = held.at(r, run, e);
                    v[e] = scale[r] * (BACKWARD ? s - dev::get(&later.of[0].of[e]) * mean[r] : s);
                }
                if (!held.inside(r, run)) return v[0];
                Numbers result;
                dev::store<RUN>(result.of, v);
                if (!ADDED || out) *(Numbers *)(out + at(r, run)) = result;
                if (!ADDED) return v[0];
#pragma unroll
                for (int e = 0; e < RUN; e++) {
                    v[e] = dev::get(&result.of[e]);
#pragma unroll
                    for (int i = 0; i < ADDED; i++) v[e] += dev::get(&later.of[i].of[e]);
                }
                dev::store<RUN>(sum + at(r, run), v);
                return v[0];
            },
            [&] {
                row_sums.add_up(mean);
#pragma unroll
                for (int r = 0; r < 2; r++) {
                    mean[r] /= n;
                    if (BACKWARD) continue;
                    scale[r] = rsqrtf(mean[r] + 1e-5f);
                    if (held.first_column == 0 && held.row(r) < held.m) inv_rms[held.row(r)] = scale[r];
                }
            });
    }
};

// Blocks of 64 rows, or of 32 where those would leave processors idle. In both a warp has 64 columns, so the sums of squares
// have the same order.
template <int BN, int STAGES> struct NormShapes {
    static constexpr int WM = BN == 128 ? 32 : 64, BLOCKS = BN == 512 ? 1 : 2;
    typedef Shape<64, BN, 32, WM, 64, STAGES, BLOCKS, 100> Tall;
    typedef Shape<32, BN, 32, 32, 64, STAGES, BLOCKS, 60> Flat;
    static constexpr int shared() { return shared_bytes<Tall, StoreNormed<Tall>>(); } // Flat has less
};

// ---- dw += dyᵀ x -------------------------------------------------------------------------------------------------------------

// Each element has one thread that adds to it in a launch, so the order of its sums is that of the launches. The memory adds, and
// nobody waits for it.
template <int EACH> struct AddWeightGrad : Elementwise {
    typedef float *Row;
    struct Beside {};
    float *dw;
    int64_t stride, n_out, n_in;
    int interleaved;

    __device__ __forceinline__ Row row(int slice, int row, int column) const {
        const int64_t output = interleaved ? row / 2 + row % 2 * (n_out / 2) : row;
        return dw + slice * stride + output * n_in + column;
    }
    __device__ __forceinline__ Beside read(Row, int) const { return {}; }
    __device__ __forceinline__ void write(Row dw, int offset, const float (&v)[2], const Beside &) const {
        if (EACH == 2) return dev::add_to_pair(dw + offset, v);
        dev::add_to(dw + offset, v[0]);
        dev::add_to(dw + offset + 1, v[1]);
    }
    __device__ __forceinline__ void prefetch(int, int, int) const {}
};
} // namespace

// ---- Launches ----------------------------------------------------------------------------------------------------------------

extern "C" int TRM_API(linear_bf16)(trm_array x, trm_array w, trm_array base, trm_array y, int64_t m, int64_t n, int64_t k,
                                    trm_stream stream) {
    if (m == 0 || n == 0) return 0;
    if (!are_widths(n, k) || !are_bf16({x, w}) || !aligned<8>(y)) return 1;
    if (base.data && (base.format != y.format || !aligned<8>(base))) return 1;
    auto launch = [&](auto *elements, auto adds) {
        typedef std::remove_pointer_t<decltype(elements)> T;
        const StoreLinear<T, decltype(adds)::value> epilogue = {{}, (const T *)base.data, elements, n};
        return launch_gemm<K_MAJOR>(x.data, w.data, m, n, k, k, epilogue, stream);
    };
    auto with_elements = [&](auto *elements) {
        return base.data ? launch(elements, std::true_type()) : launch(elements, std::false_type());
    };
    return y.format == TRM_BF16 ? with_elements((bf16 *)y.data) : y.format == TRM_F32 ? with_elements((float *)y.data) : 1;
}

extern "C" int TRM_API(linear_rope_fits)(int64_t n, int64_t k, int64_t head_dim) {
    return head_dim == 2 * StoreRotated::HALF && n % (3 * head_dim) == 0 && are_widths(n, k) && takes_groups(n, k);
}
extern "C" int TRM_API(linear_rope_bf16)(trm_array x, trm_array w, trm_array cos_sin, int64_t len, trm_array y, int64_t m, int64_t n,
                                           int64_t k, trm_stream stream) {
    if (m == 0) return 0;
    if (!TRM_API(linear_rope_fits)(n, k, 2 * StoreRotated::HALF) || len < 1 || len > m) return 1;
    if (!are_bf16({x, w, y}) || cos_sin.format != TRM_F32 || !aligned<4>(cos_sin)) return 1;
    const StoreRotated epilogue = {{}, (bf16 *)y.data, (const float *)cos_sin.data, n, (int)len};
    return launch_groups<K_MAJOR>(x.data, w.data, m, n, k, k, epilogue, stream);
}

// Warpgroups' products of whole rows. With TRM_NORMS_APART in the environment, norms are kernels of their own, to compare.
static bool groups_norm_rows(int64_t n, int64_t k) {
    static const bool apart = getenv("TRM_NORMS_APART") != nullptr;
    return !apart && n <= RowSums::MOST * NarrowGroups::BN && takes_groups(n, k);
}

extern "C" int TRM_API(linear_norm_fits)(int64_t n) { return n > 0 && n <= 512 && n % 8 == 0; }

// With TRM_SUMS_APART in the environment, sums are kernels of their own, to compare.
extern "C" int TRM_API(linear_norm_sum_fits)(int64_t n, int64_t k) {
    static const bool apart = getenv("TRM_SUMS_APART") != nullptr;
    return !apart && are_widths(n, k) && groups_norm_rows(n, k);
}

extern "C" int TRM_API(linear_add_rmsnorm_bf16)(trm_array x, trm_array w, trm_array h, trm_array y, trm_array inv_rms,
                                                trm_summands added, trm_array sum, int64_t m, int64_t n, int64_t k,
                                                trm_stream stream) {
    if (m == 0) return 0;
    if (!are_widths(n, k) || !TRM_API(linear_norm_fits)(n) || !are_bf16({x, w, h}) || inv_rms.format != TRM_F32) return 1;
    if (added.count < 0 || added.count > 2 || !(y.data ? are_bf16({y}) : added.count > 0)) return 1;
    for (int i = 0; i < added.count; i++)
        if (!groups_norm_rows(n, k) || !are_bf16({added.x[i], sum}) || !sum.data) return 1;
    if (groups_norm_rows(n, k)) {
        auto launch = [&](auto count) {
            const NormRows<false, decltype(count)::value> epilogue = {
                (const bf16 *)h.data, nullptr, (bf16 *)y.data, (float *)inv_rms.data, n,
                {(const bf16 *)added.x[0].data, (const bf16 *)added.x[1].data}, (bf16 *)sum.data};
            return launch_groups<K_MAJOR>(x.data, w.data, m, n, k, k, epilogue, stream);
        };
        if (added.count == 2) return launch(std::integral_constant<int, 2>());
        return added.count == 1 ? launch(std::integral_constant<int, 1>()) : launch(std::integral_constant<int, 0>());
    }
    if (takes_groups(n, k)) {
        if (int status = TRM_API(linear_bf16)(x, w, {nullptr, TRM_BF16}, y, m, n, k, stream)) return status;
        return TRM_API(add_rmsnorm)(TRM_OVER_FEATURES, h, y, inv_rms, m, 1, n, stream);
    }
    auto launch = [&](auto shape) {
        typedef decltype(shape) S;
        const StoreNormed<S> epilogue = {(const bf16 *)h.data, (bf16 *)y.data, (float *)inv_rms.data, n};
        return launch_shape<S, K_MAJOR>(x.data, w.data, m, n, k, k, epilogue, stream);
    };
    auto choose = [&](auto shapes) {
        typedef typename decltype(shapes)::Tall Tall;
        typedef typename decltype(shapes)::Flat Flat;
        const int64_t tall = time_of<Tall, StoreNormed<Tall>>(m, n, 1), flat = time_of<Flat, StoreNormed<Flat>>(m, n, 1);
        return tall <= flat ? launch(Tall()) : launch(Flat());
    };
    if (n <= 128) return choose(NormShapes<128, 4>());
    if (n <= 256) return choose(NormShapes<256, 4>());
    typedef NormShapes<512, 4> Four; // fits on some devices
    typedef NormShapes<512, 2> Two;  // fits on all
    static_assert(NormShapes<256, 4>::shared() <= SHARED_EVERYWHERE, "rows of up to 256 numbers fit on every device");
    static_assert(Two::shared() <= SHARED_EVERYWHERE, "and so do longer ones");
    return Four::shared() <= dev::most_shared() ? choose(Four()) : choose(Two());
}

extern "C" int TRM_API(linear_norm_backward_fits)(int64_t n, int64_t k) { return are_widths(n, k) && groups_norm_rows(n, k); }

extern "C" int TRM_API(linear_rmsnorm_backward_bf16)(trm_array x, trm_array w, trm_array base, trm_array y, trm_array inv_rms,
                                                     trm_array d, int64_t m, int64_t n, int64_t k, trm_stream stream) {
    if (m == 0) return 0;
    if (!TRM_API(linear_norm_backward_fits)(n, k) || !are_bf16({x, w, base, y, d}) || inv_rms.format != TRM_F32) return 1;
    const NormRows<true> epilogue = {(const bf16 *)base.data, (const bf16 *)y.data, (bf16 *)d.data, (float *)inv_rms.data, n};
    return launch_groups<K_MAJOR>(x.data, w.data, m, n, k, k, epilogue, stream);
}

extern "C" int TRM_API(weight_grad_bf16)(trm_array dy, trm_array x, trm_sums dw, int64_t interleaved, int64_t m, int64_t n_out,
                                         int64_t n_in, trm_stream stream) {
    if (m == 0 || n_out == 0 || n_in == 0) return 0;
    if (!are_widths(n_out, n_in) || !are_bf16({dy, x}) || dw.format != TRM_F32) return 1;
    // Nothing says that slices lie on multiples of two elements.
    return with_packs<2>(dw.stride % 2 == 0 && (uintptr_t)dw.data % 8 == 0, [&](auto each) {
        const AddWeightGrad<decltype(each)::value> epilogue = {{}, (float *)dw.data, dw.stride, n_out, n_in, interleaved != 0};
        return launch_gemm<MN_MAJOR>(dy.data, x.data, n_out, n_in, m, dw.rows, epilogue, stream);
    });
}

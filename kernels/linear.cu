// Linear maps on tensor cores, and the gradients of their weights:
//
//     y = x wᵀ,  y += x wᵀ                 linear_bf16; with the transposed w it makes dx from dy
//     y = rmsnorm(h + x wᵀ)                linear_add_rmsnorm_bf16, rmsnorm(v) = v·r, r = (mean v² + 1e-5)^(−1/2)
//     dw += dyᵀ x                          weight_grad_bf16, slice by slice of the rows
//
// The products are those of gemm.cuh; what is here are their epilogues.
#include "gemm_launch.cuh"

namespace {
// ---- y = x wᵀ ----------------------------------------------------------------------------------------------------------------

// y = …, or y += …
template <class T, bool ACCUMULATE> struct StoreLinear : Elementwise {
    static constexpr bool NARROW = ACCUMULATE && sizeof(T) == 4;
    typedef T *Row;
    typedef dev::Pack<T, 8> Beside;
    T *y;
    int64_t n;

    __device__ __forceinline__ Row row(int, int row, int column) const { return y + row * n + column; }
    __device__ __forceinline__ Beside read(Row y, int offset) const {
        if constexpr (ACCUMULATE) return *(const Beside *)(y + offset);
        else return {};
    }
    __device__ __forceinline__ void write(Row y, int offset, float (&v)[8], const Beside &beside) const {
#pragma unroll
        for (int e = 0; e < 8 && ACCUMULATE; e++) v[e] += dev::get(&beside.of[e]);
        dev::store<8>(y + offset, v);
    }
    __device__ __forceinline__ void prefetch(int slice, int row, int column) const {
        if (!ACCUMULATE) return;
        dev::prefetch(this->row(slice, row, column));
        if (sizeof(T) == 4 && column + 16 < n) dev::prefetch(this->row(slice, row, column + 16));
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

extern "C" int TRM_API(linear_bf16)(trm_array x, trm_array w, trm_array y, int64_t accumulate, int64_t m, int64_t n, int64_t k,
                                    trm_stream stream) {
    if (m == 0 || n == 0) return 0;
    if (!are_widths(n, k) || !are_bf16({x, w}) || !aligned<8>(y)) return 1;
    auto launch = [&](auto *elements, auto accumulates) {
        typedef std::remove_pointer_t<decltype(elements)> T;
        const StoreLinear<T, decltype(accumulates)::value> epilogue = {{}, elements, n};
        return launch_gemm<K_MAJOR>(x.data, w.data, m, n, k, k, epilogue, stream);
    };
    auto with_elements = [&](auto *elements) {
        return accumulate ? launch(elements, std::true_type()) : launch(elements, std::false_type());
    };
    return y.format == TRM_BF16 ? with_elements((bf16 *)y.data) : y.format == TRM_F32 ? with_elements((float *)y.data) : 1;
}

extern "C" int TRM_API(linear_norm_fits)(int64_t n) { return n > 0 && n <= 512 && n % 8 == 0; }

extern "C" int TRM_API(linear_add_rmsnorm_bf16)(trm_array x, trm_array w, trm_array h, trm_array y, trm_array inv_rms, int64_t m,
                                                int64_t n, int64_t k, trm_stream stream) {
    if (m == 0) return 0;
    if (!are_widths(n, k) || !TRM_API(linear_norm_fits)(n) || !are_bf16({x, w, h, y}) || inv_rms.format != TRM_F32) return 1;
    if (takes_groups(n, k)) {
        // Tiles of whole rows would be too flat for them; the norm passes over y once more.
        if (int status = TRM_API(linear_bf16)(x, w, y, 0, m, n, k, stream)) return status;
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

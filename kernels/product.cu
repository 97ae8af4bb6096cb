// Products of matrices of any format and any strides, without tensor cores: the path of f32 and f64, and of small or odd shapes.
//
//   c[z] = Σ parts p of a[z, p] b[z, p], or c[z] += …,   a: m×k, b: k×n, c: m×n
//
// A block of 256 threads makes a tile of 64×64 elements of one c[z]; thread t holds the 4×4 elements whose first row is 4 (t / 16)
// and whose first column is 4 (t % 16). It goes through k in steps of 16: the step's 64×16 elements of a and of b pass through
// shared memory, in two buffers, so that the next step is on its way from global memory while this one is multiplied.
//
// The 16 products of a step are summed by themselves before they are added to the total. That keeps the error of f32 small where k
// is large; and the order depends on k and the parts alone.
#include "device.cuh"

namespace {
constexpr int THREADS = 256, TILE = 64, STEP = 16, EACH = 4;
constexpr int PITCH = TILE + 4; // 4 more than needed: threads that write neighbouring k do not all meet in one bank

// Arrays of one format that the compiler knows, and of one that it does not.
template <class T> struct Typed {
    typedef sum_t<T> S;
    T *data;
    explicit Typed(trm_array x) : data((T *)x.data) {}
    __device__ __forceinline__ S get(int64_t i) const { return dev::get(data + i); }
    __device__ __forceinline__ void set(int64_t i, S x) const { dev::set(data + i, x); }
};
struct Mixed {
    typedef float S;
    void *data;
    bool is_bf16;
    explicit Mixed(trm_array x) : data(x.data), is_bf16(x.format == TRM_BF16) {}
    __device__ __forceinline__ S get(int64_t i) const {
        return is_bf16 ? dev::get((bf16 *)data + i) : dev::get((float *)data + i);
    }
    __device__ __forceinline__ void set(int64_t i, S x) const {
        if (is_bf16)
            dev::set((bf16 *)data + i, x);
        else
            dev::set((float *)data + i, x);
    }
};

// How a thread moves its part of an operand: four of the 64×16 elements of a step. `outer` counts rows of a, or columns of b.
// Neighbouring threads take neighbours in memory: along k, or along the other side.
template <class Elements> struct Operand {
    typedef typename Elements::S S;
    Elements elements;
    int64_t outer_stride, k_stride;
    int outer, k, outer_by, k_by, outer_left;
    S held[EACH];

    __device__ Operand(Elements elements, int64_t outer_stride, int64_t k_stride, int64_t outer_left)
        : elements(elements), outer_stride(outer_stride), k_stride(k_stride),
          outer_left((int)(outer_left < TILE ? outer_left : TILE)) {
        const int thread = threadIdx.x;
        const bool along_k = k_stride < outer_stride;
        outer = along_k ? thread / STEP : thread % TILE;
        k = along_k ? thread % STEP : thread / TILE;
        outer_by = along_k ? THREADS / STEP : 0;
        k_by = along_k ? 0 : THREADS / TILE;
    }
    // `from` is the step's first element; what lies behind the operand's end is 0.
    __device__ __forceinline__ void load(int64_t from, int64_t k_left) {
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            const int o = outer + e * outer_by, i = k + e * k_by;
            const bool is_there = o < outer_left && i < k_left;
            held[e] = is_there ? elements.get(from + o * outer_stride + i * k_stride) : (S)0;
        }
    }
    __device__ __forceinline__ void store(S (*tile)[PITCH]) const {
#pragma unroll
        for (int e = 0; e < EACH; e++) tile[k + e * k_by][outer + e * outer_by] = held[e];
    }
};

template <class Elements>
__global__ void __launch_bounds__(THREADS)
    multiply(const trm_product product, Elements a, Elements b, Elements c, int tiles_m, int tiles_n) {
    typedef typename Elements::S S;
    TRM_SHARED(memory);
    S(*tiles)[2][STEP][PITCH] = (S(*)[2][STEP][PITCH])memory; // two buffers of a and b
    const int64_t z = blockIdx.x / ((int64_t)tiles_m * tiles_n);
    const int64_t row0 = (int64_t)(blockIdx.x % tiles_m) * TILE, col0 = (int64_t)(blockIdx.x / tiles_m % tiles_n) * TILE;
    const bool is_last = z == product.batch - 1;
    const int64_t k = is_last ? product.k_last : product.k, parts = is_last ? product.parts_last : product.parts;
    const int64_t a0 = z * product.a_batch + row0 * product.a_row, b0 = z * product.b_batch + col0 * product.b_col;
    Operand<Elements> from_a(a, product.a_row, product.a_col, product.m - row0);
    Operand<Elements> from_b(b, product.b_col, product.b_row, product.n - col0);

    // The step that is loaded next: part p, from k0 on.
    int64_t p = 0, k0 = 0;
    const auto load = [&] {
        from_a.load(a0 + p * product.a_part + k0 * product.a_col, k - k0);
        from_b.load(b0 + p * product.b_part + k0 * product.b_row, k - k0);
        k0 += STEP;
        if (k0 >= k) {
            k0 = 0;
            p++;
        }
    };
    const int row = threadIdx.x / (TILE / EACH) * EACH, col = threadIdx.x % (TILE / EACH) * EACH;
    const bool has_elements = row0 + row < product.m && col0 + col < product.n;
    const int64_t steps = (k + STEP - 1) / STEP * parts;
    S total[EACH][EACH] = {};
    if (steps > 0) load();
    for (int64_t step = 0; step < steps; step++) {
        S(*const tile_a)[PITCH] = tiles[step % 2][0], (*const tile_b)[PITCH] = tiles[step % 2][1];
        from_a.store(tile_a);
        from_b.store(tile_b);
        __syncthreads(); // the buffer is full; and all have done the step before, so that its buffer may be filled again
        if (step + 1 < steps) load();
        if (!has_elements) continue;
        S sum[EACH][EACH] = {};
#pragma unroll
        for (int i = 0; i < STEP; i++) {
            S x[EACH], y[EACH];
#pragma unroll
            for (int e = 0; e < EACH; e++) {
                x[e] = tile_a[i][row + e];
                y[e] = tile_b[i][col + e];
            }
#pragma unroll
            for (int r = 0; r < EACH; r++)
#pragma unroll
                for (int j = 0; j < EACH; j++) sum[r][j] += x[r] * y[j];
        }
#pragma unroll
        for (int r = 0; r < EACH; r++)
#pragma unroll
            for (int j = 0; j < EACH; j++) total[r][j] += sum[r][j];
    }
#pragma unroll
    for (int r = 0; r < EACH; r++)
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            if (row0 + row + r >= product.m || col0 + col + j >= product.n) continue;
            const int64_t at = z * product.c_batch + (row0 + row + r) * product.c_row + (col0 + col + j) * product.c_col;
            c.set(at, product.accumulate ? c.get(at) + total[r][j] : total[r][j]);
        }
}

template <class Elements> int launch(const trm_product &product, trm_stream stream) {
    const int64_t tiles_m = (product.m + TILE - 1) / TILE, tiles_n = (product.n + TILE - 1) / TILE;
    if (tiles_m > INT32_MAX / tiles_n || tiles_m * tiles_n > INT32_MAX / product.batch) return 1;
    const unsigned blocks = (unsigned)(tiles_m * tiles_n * product.batch);
    const size_t shared = 2 * 2 * STEP * PITCH * sizeof(typename Elements::S);
    return TRM_LAUNCH(multiply<Elements>, blocks, THREADS, shared, stream, product, Elements(product.a), Elements(product.b),
                      Elements(product.c), (int)tiles_m, (int)tiles_n);
}
} // namespace

extern "C" int TRM_API(product)(const trm_product *product, trm_stream stream) {
    const int64_t a = product->a.format, b = product->b.format, c = product->c.format;
    if (product->m <= 0 || product->n <= 0 || product->batch <= 0) return 0;
    if (a == TRM_F64 && b == TRM_F64 && c == TRM_F64) return launch<Typed<double>>(*product, stream);
    if (a == TRM_F32 && b == TRM_F32 && c == TRM_F32) return launch<Typed<float>>(*product, stream);
    const auto is_small = [](int64_t format) { return format == TRM_BF16 || format == TRM_F32; };
    return is_small(a) && is_small(b) && is_small(c) ? launch<Mixed>(*product, stream) : 1;
}

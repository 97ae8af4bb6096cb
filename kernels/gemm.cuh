// Products of bf16 matrices on tensor cores: the one loop that linear.cu and swiglu.cu share.
//
//     c [m, n] = epilogue(Σ over k of a[row, k] · b[column, k]),  sums in f32
//
// Either both operands lie in memory with k along their rows, as activations and weights do (K_MAJOR), or both have a row for
// each k, as the two matrices of a weight's gradient do (MN_MAJOR).
//
// c is cut into tiles of BM × BN, one for a block at a time; a tile into parts of WM × WN, one for each of the block's warps; a
// part into fragments of 16 × 8, the results of mma.m16n8k16, of which each lane holds two rows of two numbers.
//
// A block loops over tiles. For each it walks along k in steps of BK: cp.async brings a step of both operands to one of STAGES
// buffers in shared memory while older steps are multiplied, 16 of k at a time. The sums stay in registers and go to the
// epilogue. Copies run ahead across the border between two tiles, so an epilogue overlaps with the loads for the tile that
// follows.
//
// An element is the sum of the same products in the same order whatever the shape of the tile: its bits do not depend on how many
// rows or slices there are.
#pragma once
#include "device.cuh"
#include <initializer_list>

namespace {
enum Layout { K_MAJOR, MN_MAJOR };

// BLOCKS of them share a multiprocessor. SPEED is what it then multiplies in a second, in percent of the fastest shape.
template <int BM_, int BN_, int BK_, int WM_, int WN_, int STAGES_, int BLOCKS_, int SPEED_> struct Shape {
    static constexpr int BM = BM_, BN = BN_, BK = BK_, WM = WM_, WN = WN_, STAGES = STAGES_, BLOCKS = BLOCKS_, SPEED = SPEED_;
    static constexpr int WARPS_M = BM / WM, WARPS_N = BN / WN, THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int STAGE_BYTES = (BM + BN) * BK * 2;
};

// What is multiplied. Slice s sums over `slice` numbers of k from s·slice on, the last one over what is left up to `k`. A slice
// has a result of its own, and so tiles of its own.
struct Problem {
    const bf16 *a, *b;
    int m, n, k, slice;
    int tiles_n, tiles_of_slice, tiles;
};

// ---- Operands in shared memory -----------------------------------------------------------------------------------------------

// One operand of a step: SIZE rows of c if it is the FIRST operand, else columns, and BK of k. It consists of lines of 16-byte
// chunks. In K_MAJOR a line belongs to a row or column, and its chunks run along k; in MN_MAJOR a line belongs to one k, and
// its chunks run along rows or columns. ldmatrix reads one chunk from each of 8 lines at once, and the places where these are
// stored must differ modulo 8, or they meet in the same banks. Hence chunk c of a line is stored at place c ^ swizzle(line).
//
// These 8 lines are neighbours, with one exception: columns in K_MAJOR. Four fragments make 32 columns, and column c of
// fragment f is column 8 (c / 2) + 2 f + c % 2 of the 32. For with t = lane % 4, a lane holds columns 2t and 2t + 1 of each
// fragment; this way, those of all four are columns 8t to 8t + 7, which it can store at once.
template <Layout LAYOUT, bool FIRST, int SIZE, int BK> struct Operand {
    static constexpr bool SPREAD = LAYOUT == K_MAJOR && !FIRST;
    static constexpr int CHUNKS = (LAYOUT == K_MAJOR ? BK : SIZE) / 8, LINES = LAYOUT == K_MAJOR ? SIZE : BK;
    static constexpr int BYTES = SIZE * BK * 2;
    static_assert(CHUNKS == 4 || CHUNKS % 8 == 0, "a line has 64 bytes, or a multiple of 128");

    static __device__ __forceinline__ int swizzle(int line) {
        if (CHUNKS == 4) return (SPREAD ? line >> 3 : line >> 1) & 3; // even lines take places 0 to 3, odd ones 4 to 7
        return SPREAD ? (line >> 2 & 6) | (line & 1) : line & 7;
    }
    static __device__ __forceinline__ int at(int line, int chunk) { return (line * CHUNKS + (chunk ^ swizzle(line))) * 16; }

    // Where the calling thread copies from. It copies one chunk of every ABREAST-th line; `from` is the first of these in the
    // next step. The matrix goes on for `room` rows or columns from there. Beyond them, and beyond the end of k, zeros are
    // copied.
    template <int THREADS> struct Source {
        static constexpr int ABREAST = THREADS / CHUNKS, EACH = (LINES + ABREAST - 1) / ABREAST;
        static_assert(THREADS % CHUNKS == 0, "threads copy whole lines");
        const bf16 *from;
        int room;

        static __device__ __forceinline__ int line() { return threadIdx.x / CHUNKS; }
        static __device__ __forceinline__ int chunk() { return threadIdx.x % CHUNKS; }

        // Goes to rows or columns from `index` on (of `size`), k from `k` on.
        __device__ __forceinline__ void begin(const bf16 *matrix, int index, int size, int k, int pitch) {
            if (LAYOUT == K_MAJOR) from = matrix + (int64_t)(index + line()) * pitch + k + chunk() * 8;
            else from = matrix + (int64_t)(k + line()) * pitch + index + chunk() * 8;
            room = size - index - (LAYOUT == K_MAJOR ? line() : chunk() * 8);
        }
        __device__ __forceinline__ void advance(int pitch) { from += LAYOUT == K_MAJOR ? BK : BK * (int64_t)pitch; }
        // Starts one part of PARTS of the step's copies; `left` of k are left.
        template <int PARTS> __device__ __forceinline__ void copy(unsigned char *tile, int pitch, int left, int part) const {
#pragma unroll
            for (int i = EACH * part / PARTS; i < EACH * (part + 1) / PARTS; i++) {
                const int to = line() + i * ABREAST;
                if (LINES % ABREAST != 0 && to >= LINES) break;
                const bool inside = LAYOUT == K_MAJOR ? i * ABREAST < room && chunk() * 8 < left : 0 < room && to < left;
                dev::copy16_async(tile + at(to, chunk()), from + (int64_t)i * ABREAST * pitch, inside ? 16 : 0);
            }
        }
    };

    // Loads 16 rows or columns from `first` on, 16 of k from 16·kk on, as fragments of mma_16816. To ldmatrix, lane l names row
    // l % 8 of matrix l / 8. The four matrices are, as (rows or columns, k):
    //
    //     first operand    (0–7, 0–7)  (8–15, 0–7)  (0–7, 8–15)  (8–15, 8–15)     r is `a` of 16 rows
    //     second           (0–7, 0–7)  (0–7, 8–15)  (8–15, 0–7)  (8–15, 8–15)     r[0 1] is `b` of 8 columns, r[2 3] of 8 more
    //
    // `first` is unsigned because what divides a signed number by 8 is more than a shift, and the registers are full.
    static __device__ __forceinline__ void load(uint32_t (&r)[4], const unsigned char *tile, unsigned first, int kk) {
        const int lane = threadIdx.x % 32, row = lane & 7, matrix = lane >> 3;
        const int upper = FIRST ? matrix & 1 : matrix >> 1, later = FIRST ? matrix >> 1 : matrix & 1; // 8–15, not 0–7
        if (LAYOUT == MN_MAJOR) {
            dev::load_matrix_x4_trans(r, tile + at(kk * 16 + later * 8 + row, first / 8 + upper));
        } else {
            int line = first + upper * 8 + row;
            if (SPREAD) line = first / 32 * 32 + (row >> 1) * 8 + (first % 32 / 8 + upper) * 2 + (row & 1);
            dev::load_matrix_x4(r, tile + at(line, kk * 2 + later));
        }
    }
};

// ---- Results in registers ----------------------------------------------------------------------------------------------------

// What the calling lane holds of a tile of c after the loop: ROWS rows, 8 apart, and in each, RUNS runs of RUN neighbouring
// columns. Runs are 4·RUN columns apart: between them lie those of the three other lanes that share a fragment's row.
template <class S, Layout LAYOUT> struct Held {
    static constexpr int RUN = LAYOUT == K_MAJOR ? 8 : 2, ROWS = S::WM / 8, RUNS = S::WN / (4 * RUN), AHEAD = RUNS;
    static constexpr bool WHOLE = false; // whether all of it is known to be inside
    float sum[S::WM / 16][S::WN / 8][4];
    int slice, first_row, first_column, m, n;

    __device__ __forceinline__ int row(int r) const { return first_row + 8 * r; }
    __device__ __forceinline__ int column(int run) const { return first_column + 4 * RUN * run; }
    __device__ __forceinline__ bool inside(int r, int run) const { return row(r) < m && column(run) < n; }
    __device__ __forceinline__ float &at(int r, int run, int e) { return sum[r / 2][run * (RUN / 2) + e / 2][r % 2 * 2 + e % 2]; }
};

// An epilogue is a struct. One that treats each element by itself derives from Elementwise and has
//
//     Row                                        where a row of its arrays lies, from some column on
//     row(slice, row, column) → Row
//     Beside                                     what it reads to go with a run
//     read(Row, offset) → Beside                 … of the columns from `offset` on
//     write(Row, offset, float[RUN], Beside)     stores the result of a run
//     prefetch(slice, row, column)               announces what `read` will read for 32 columns
//
// One that has `ROW_BY_ROW = true` has finish(held) in their place for warpgroups.
// Others have `WHOLE_ROWS = true`, SCRATCH_BYTES of shared memory, prefetch, and finish(held, scratch), which all threads call; those
// of warpgroups get a RowSums in place of scratch (gemm_hopper.cuh).
struct Elementwise {
    static constexpr bool WHOLE_ROWS = false;
    static constexpr int SCRATCH_BYTES = 0;
    static constexpr int RUN = 8;         // what warpgroups hand over in K_MAJOR: that of the packed weight
    static constexpr bool NARROW = false; // whether it reads so much that a wide tile has no registers for it
    static constexpr bool ROW_BY_ROW = false;
    static constexpr bool MIXES = true; // whether tiles without an edge do not ask what is inside (GroupHeld)
};
struct ReadsMuch : Elementwise {
    static constexpr bool NARROW = true;
};

// All runs, row by row, and AHEAD of them ahead what goes with them: read(r, run, Beside &), then use(r, run, Beside).
template <class Beside, int AHEAD, class H, class Read, class Use>
__device__ __forceinline__ void for_each_run(const H &, Read read, Use use) {
    constexpr int ALL = H::ROWS * H::RUNS;
    Beside beside[AHEAD + 1] = {};
#pragma unroll
    for (int i = 0; i < AHEAD; i++) read(i / H::RUNS, i % H::RUNS, beside[i]);
#pragma unroll
    for (int i = 0; i < ALL; i++) {
        const int next = i + AHEAD;
        if (next < ALL) read(next / H::RUNS, next % H::RUNS, beside[next % (AHEAD + 1)]);
        use(i / H::RUNS, i % H::RUNS, beside[i % (AHEAD + 1)]);
    }
}

// The end of an Elementwise epilogue.
template <class E, class H> __device__ __forceinline__ void finish_runs(const E &epilogue, H &held) {
    typedef typename E::Beside Beside;
    typename E::Row rows[2];
    auto read = [&](int r, int run, Beside &beside) {
        if (run == 0 && (H::WHOLE || held.row(r) < held.m)) rows[r % 2] = epilogue.row(held.slice, held.row(r), held.first_column);
        if (held.inside(r, run)) beside = epilogue.read(rows[r % 2], 4 * H::RUN * run);
    };
    auto use = [&](int r, int run, const Beside &beside) {
        float v[H::RUN];
#pragma unroll
        for (int e = 0; e < H::RUN; e++) v[e] = held.at(r, run, e);
        if (held.inside(r, run)) epilogue.write(rows[r % 2], 4 * H::RUN * run, v, beside);
    };
    for_each_run<Beside, H::AHEAD>(held, read, use);
}

// ---- The loop ----------------------------------------------------------------------------------------------------------------

// A tile of c. Numbers run along the columns first: tiles that are made at one time read the same rows of a, and all of b, from
// the L2 cache.
struct Tile {
    int slice, row, column, k, k_end;

    __device__ __forceinline__ Tile(const Problem &p, int number, int bm, int bn) {
        slice = number / p.tiles_of_slice;
        const int rest = number % p.tiles_of_slice;
        row = rest / p.tiles_n * bm;
        column = rest % p.tiles_n * bn;
        k = slice * p.slice;
        k_end = p.k - k > p.slice ? k + p.slice : p.k;
    }
};

// Announces what the epilogue of ROWS × COLUMNS elements reads, by THREADS threads. Not unrolled: that would cost registers in the
// loop.
template <int ROWS, int COLUMNS, int THREADS, class E>
__device__ __forceinline__ void prefetch_tile(const E &epilogue, const Problem &p, int slice, int first_row, int first_column) {
#pragma unroll 1
    for (int i = threadIdx.x % THREADS; i < ROWS * (COLUMNS / 32); i += THREADS) {
        const int row = first_row + i / (COLUMNS / 32), column = first_column + i % (COLUMNS / 32) * 32;
        if (row < p.m && column < p.n) epilogue.prefetch(slice, row, column);
    }
}

template <class S, Layout LAYOUT, class E>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS)
    gemm(const __grid_constant__ Problem p, const __grid_constant__ E epilogue) {
    typedef Operand<LAYOUT, true, S::BM, S::BK> A;
    typedef Operand<LAYOUT, false, S::BN, S::BK> B;
    constexpr int KK = S::BK / 16; // products of a step
    TRM_SHARED(shared);            // STAGES times A and B, then the epilogue's scratch
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int warp_row = warp / S::WARPS_N * S::WM, warp_column = warp % S::WARPS_N * S::WN;

    // Copies: of tile number `ahead`, `left` of k are left.
    const int pitch_a = LAYOUT == K_MAJOR ? p.k : p.m, pitch_b = LAYOUT == K_MAJOR ? p.k : p.n;
    int ahead = blockIdx.x, left;
    typename A::template Source<S::THREADS> source_a;
    typename B::template Source<S::THREADS> source_b;
    auto begin = [&] {
        const Tile tile(p, ahead, S::BM, S::BN);
        left = tile.k_end - tile.k;
        source_a.begin(p.a, tile.row, p.m, tile.k, pitch_a);
        source_b.begin(p.b, tile.column, p.n, tile.k, pitch_b);
    };
    auto copy = [&](int stage, int part) {
        if (ahead >= p.tiles) return;
        unsigned char *tile = shared + stage * S::STAGE_BYTES;
        source_a.template copy<KK>(tile, pitch_a, left, part);
        source_b.template copy<KK>(tile + A::BYTES, pitch_b, left, part);
    };
    // All parts of a step have been started; they are one group. There is one for every step, though empty after the last tile.
    auto copied = [&] {
        dev::copies_commit();
        source_a.advance(pitch_a);
        source_b.advance(pitch_b);
        left -= S::BK;
        if (left > 0) return;
        ahead += gridDim.x;
        if (ahead < p.tiles) begin();
    };

    // Fragments: of the product that is being made, and of the next one.
    uint32_t a[2][S::WM / 16][4], b[2][S::WN / 16][4];
    auto load = [&](int stage, int kk) {
        const unsigned char *tile = shared + stage * S::STAGE_BYTES;
#pragma unroll
        for (int i = 0; i < S::WM / 16; i++) A::load(a[kk % 2][i], tile, warp_row + i * 16, kk);
#pragma unroll
        for (int j = 0; j < S::WN / 16; j++) B::load(b[kk % 2][j], tile + A::BYTES, warp_column + j * 16, kk);
    };

    begin();
    for (int stage = 0; stage < S::STAGES - 1; stage++) {
#pragma unroll
        for (int part = 0; part < KK; part++) copy(stage, part);
        copied();
    }
    dev::copies_wait<S::STAGES - 2>();
    __syncthreads();
    int stage = 0, vacant = S::STAGES - 1; // the step that is multiplied; the one before it, whose place is free
    for (int number = blockIdx.x; number < p.tiles; number += gridDim.x) {
        const Tile tile(p, number, S::BM, S::BN);
        prefetch_tile<S::BM, S::BN, S::THREADS>(epilogue, p, tile.slice, tile.row, tile.column);
        Held<S, LAYOUT> held;
#pragma unroll
        for (int i = 0; i < S::WM / 16; i++)
#pragma unroll
            for (int j = 0; j < S::WN / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) held.sum[i][j][e] = 0;
        load(stage, 0); // after the last step of a tile this has been done already, but the epilogue needs the registers
        for (int k = tile.k; k < tile.k_end; k += S::BK) {
#pragma unroll
            for (int kk = 0; kk < KK; kk++) {
                copy(vacant, kk);
                if (kk == KK - 1) {
                    // After this, the next step has arrived from all threads, and all warps have the last fragments of this one.
                    copied();
                    dev::copies_wait<S::STAGES - 2>();
                    __syncthreads();
                    vacant = stage;
                    stage = stage + 1 == S::STAGES ? 0 : stage + 1;
                }
                load(stage, (kk + 1) % KK);
#pragma unroll
                for (int i = 0; i < S::WM / 16; i++)
#pragma unroll
                    for (int j = 0; j < S::WN / 8; j++) {
                        const uint32_t(&two)[4] = b[kk % 2][j / 2];
                        dev::mma_16816(held.sum[i][j], a[kk % 2][i], two[j % 2 * 2], two[j % 2 * 2 + 1]);
                    }
            }
        }
        held.slice = tile.slice;
        held.first_row = tile.row + warp_row + lane / 4;
        held.first_column = tile.column + warp_column + lane % 4 * Held<S, LAYOUT>::RUN;
        held.m = p.m;
        held.n = p.n;
        if constexpr (E::WHOLE_ROWS) epilogue.finish(held, shared + S::STAGES * S::STAGE_BYTES);
        else finish_runs(epilogue, held);
    }
}

// ---- Launches ----------------------------------------------------------------------------------------------------------------

static inline int64_t pieces(int64_t of, int64_t size) { return (of + size - 1) / size; }
template <class S> int64_t tiles_of(int64_t m, int64_t n, int64_t slices) { return pieces(m, S::BM) * pieces(n, S::BN) * slices; }
// Bytes of a block's shared memory.
template <class S, class E> constexpr int shared_bytes() { return S::STAGES * S::STAGE_BYTES + E::SCRATCH_BYTES; }
// How long a shape takes, in units that are the same for all shapes: as long as the processor that has most tiles. For ever,
// where a block has no room for it.
template <class S, class E> int64_t time_of(int64_t m, int64_t n, int64_t slices) {
    if (shared_bytes<S, E>() > dev::most_shared()) return INT64_MAX;
    return pieces(tiles_of<S>(m, n, slices), dev::processors()) * S::BM * S::BN * 100 / S::SPEED;
}

// The tiles that a problem makes of one shape; 1 where it is too large, or an operand does not lie on a multiple of 16 bytes.
template <class S>
int problem_of(Problem *problem, const void *a, const void *b, int64_t m, int64_t n, int64_t k, int64_t slice) {
    const int64_t tiles_of_slice = tiles_of<S>(m, n, 1), tiles = tiles_of_slice * pieces(k, slice);
    const int64_t most = INT32_MAX - 65536; // sums of these with sizes of tiles and numbers of blocks are still an int
    if (m > most || n > most || k > most || tiles > most || (uintptr_t)a % 16 || (uintptr_t)b % 16) return 1;
    *problem = {(const bf16 *)a, (const bf16 *)b, (int)m, (int)n, (int)k, (int)(slice < k ? slice : k),
                (int)pieces(n, S::BN), (int)tiles_of_slice, (int)tiles};
    return 0;
}

// c = epilogue(a bᵀ), slice by slice of k, in tiles of one shape.
template <class S, Layout LAYOUT, class E>
int launch_shape(const void *a, const void *b, int64_t m, int64_t n, int64_t k, int64_t slice, const E &epilogue,
                 trm_stream stream) {
    Problem problem;
    if (int status = problem_of<S>(&problem, a, b, m, n, k, slice)) return status;
    const int64_t resident = (int64_t)dev::processors() * S::BLOCKS;
    const dim3 blocks((unsigned)(problem.tiles < resident ? problem.tiles : resident));
    constexpr int BYTES = shared_bytes<S, E>();
    auto kernel = gemm<S, LAYOUT, E>;
    if (int status = TRM_ALLOW_SHARED(kernel, BYTES)) return status;
    return TRM_LAUNCH(kernel, blocks, dim3(S::THREADS), BYTES, stream, problem, epilogue);
}

// What launchers ask of their arguments. An array that is null is not asked.
static inline bool are_bf16(std::initializer_list<trm_array> arrays) {
    for (const trm_array &x : arrays)
        if (x.data && (x.format != TRM_BF16 || !aligned<8>(x))) return false;
    return true;
}
static inline bool are_widths(int64_t x, int64_t y) { return x > 0 && y > 0 && x % 8 == 0 && y % 8 == 0; }
} // namespace

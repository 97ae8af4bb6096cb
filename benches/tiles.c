// What Intel's tile registers reach with operands where they really lie: one thread, the best of many short runs, in % of products alone.
//
//     gcc -O2 -mamx-tile -mamx-bf16 -mavx512f -o tiles benches/tiles.c && taskset -c 2 ./tiles
//
// trm has no part in it: it says what loads, stores and caches leave of the registers' rate, before anything is packed or activated.
#define _GNU_SOURCE
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
struct cfg { uint8_t palette, start; uint8_t r[14]; uint16_t colsb[16]; uint8_t rows[16]; } __attribute__((aligned(64)));
static void configure(void) {
    struct cfg c; memset(&c, 0, sizeof c); c.palette = 1;
    for (int i = 0; i < 8; i++) c.colsb[i] = 64, c.rows[i] = 16;
    asm volatile("ldtilecfg %0" :: "m"(c));
}
#define FLOP (2.0 * 16 * 16 * 32)
static float *A, *B, *C, *S;
static double limit;
static void say(const char *name, double dots, double seconds) {
    double g = dots * FLOP / seconds / 1e9;
    printf("%-64s %8.1f GFLOP/s  %5.1f %%\n", name, g, limit ? 100 * g / limit : 100.0);
    fflush(stdout);
}
// Every test a little in each round: neighbours come and go. The best of all rounds.
static struct { const char *name; double dots, best; void (*run)(void); } tests[64];
static int count;
static void add(const char *name, double dots, void (*run)(void)) { tests[count].name = name, tests[count].dots = dots, tests[count].best = 1e9, tests[count++].run = run; }
#define BEST(name, dots, code) do { void run(void) { code; } add(name, dots, run); } while (0)

// One tile of 32 x 32 sums, `blocks` blocks deep. Left rows 64 bytes apart in blocks of 2 KB.
#define KERNEL(NAME, BODY) static inline __attribute__((always_inline)) void NAME(const char *a, const char *b, int blocks, const char *pf) { \
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); \
    for (int k = 0; k < blocks; k++, a += 2048, b += 2048) { BODY } }
// as trm: right rows 128 bytes apart, both vectors of columns in one row
KERNEL(trm_order, _tile_loadd(6, b, 128); _tile_loadd(4, a, 64); _tile_dpbf16ps(0, 4, 6); _tile_loadd(7, b + 64, 128); _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + 1024, 64); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);)
KERNEL(loads_first, _tile_loadd(6, b, 128); _tile_loadd(4, a, 64); _tile_loadd(7, b + 64, 128); _tile_loadd(5, a + 1024, 64);
    _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);)
// right registers contiguous, 64 bytes apart
KERNEL(contiguous, _tile_loadd(6, b, 64); _tile_loadd(4, a, 64); _tile_dpbf16ps(0, 4, 6); _tile_loadd(7, b + 1024, 64); _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, a + 1024, 64); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);)
// with a prefetch of the next tile's left block into L1, 32 lines a block
KERNEL(prefetching, _tile_loadd(6, b, 128); _tile_loadd(4, a, 64);
    for (int i = 0; i < 16; i++) _mm_prefetch(pf + k * 2048 + i * 64, _MM_HINT_T0);
    _tile_dpbf16ps(0, 4, 6); _tile_loadd(7, b + 64, 128); _tile_dpbf16ps(1, 4, 7);
    for (int i = 16; i < 32; i++) _mm_prefetch(pf + k * 2048 + i * 64, _MM_HINT_T0);
    _tile_loadd(5, a + 1024, 64); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);)
// left tiles as what passes
KERNEL(streaming, _tile_stream_loadd(4, a, 64); _tile_loadd(6, b, 128); _tile_dpbf16ps(0, 4, 6); _tile_loadd(7, b + 64, 128); _tile_dpbf16ps(1, 4, 7);
    _tile_stream_loadd(5, a + 1024, 64); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);)
static inline __attribute__((always_inline)) void store_direct(float *c, int pitch) {
    _tile_stored(0, c, pitch * 4); _tile_stored(1, c + 16, pitch * 4);
    _tile_stored(2, c + 16 * pitch, pitch * 4); _tile_stored(3, c + 16 * pitch + 16, pitch * 4);
}
static inline __attribute__((always_inline)) void store_added(float *c, int pitch) {
    store_direct(S, 32);
    for (int i = 0; i < 32; i++) for (int j = 0; j < 32; j += 16)
        _mm512_storeu_ps(c + i * pitch + j, _mm512_add_ps(_mm512_loadu_ps(c + i * pitch + j), _mm512_load_ps(S + 32 * i + j)));
}
// sums of the block before are loaded into the registers instead of zeros
static inline __attribute__((always_inline)) void carried(const char *a, const char *b, int blocks, float *c, int pitch) {
    _tile_loadd(0, c, pitch * 4); _tile_loadd(1, c + 16, pitch * 4); _tile_loadd(2, c + 16 * pitch, pitch * 4); _tile_loadd(3, c + 16 * pitch + 16, pitch * 4);
    for (int k = 0; k < blocks; k++, a += 2048, b += 2048) {
        _tile_loadd(6, b, 128); _tile_loadd(4, a, 64); _tile_dpbf16ps(0, 4, 6); _tile_loadd(7, b + 64, 128); _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + 1024, 64); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
    }
    store_direct(c, pitch);
}
#define SWEEP(name, fn, tiles, panels, blocks, N, epilogue) BEST(name, 4.0 * (tiles) * (panels) * (blocks), ({ \
    for (int p = 0; p < (panels); p++) for (int t = 0; t < (tiles); t++) { \
        const char *a = (char *)A + (size_t)t * (blocks) * 2048; \
        fn(a, (char *)B + (size_t)p * (blocks) * 2048, blocks, a + (blocks) * 2048); \
        epilogue(C + (size_t)t * 32 * (N) + p * 32, N); } }))
static inline __attribute__((always_inline)) void none(float *c, int pitch) { }
int main(void) {
    if (syscall(SYS_arch_prctl, 0x1023, 18)) return puts("this processor or system has no AMX"), 1;
    size_t bytes = 64 << 20;
    A = aligned_alloc(4096, bytes), B = aligned_alloc(4096, bytes), C = aligned_alloc(4096, bytes), S = aligned_alloc(4096, 4096);
    for (size_t i = 0; i < bytes / 4; i++) { uint32_t x = 0x3c003c00u + (uint32_t)(i * 2654435761u % 0x100) * 0x10001u; memcpy(A + i, &x, 4); memcpy(B + i, &x, 4); C[i] = 0; }
    configure();
    BEST("dots alone, 4 sums", 4.0 * 100000, ({ for (int i = 0; i < 100000; i++) { _tile_dpbf16ps(0, 4, 6); _tile_dpbf16ps(1, 4, 7); _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7); } }));
    BEST("loads alone, L1 (as dots)", 4.0 * 10000, ({ for (int i = 0; i < 10000; i++) { _tile_loadd(4, A, 64); _tile_loadd(5, A + 256, 64); _tile_loadd(6, B, 64); _tile_loadd(7, B + 256, 64); } }));
    BEST("stores alone, L1 (as dots)", 4.0 * 10000, ({ for (int i = 0; i < 10000; i++) store_direct(S, 32); }));
    SWEEP("L1: 1 tile, 4 blocks (8 + 8 KB), no epilogue", trm_order, 1, 1, 4, 32, none);
    SWEEP("L1: 1 tile, 8 blocks (16 + 16 KB), no epilogue", trm_order, 1, 1, 8, 32, none);
    SWEEP("L1: 1 tile, 16 blocks (32 + 32 KB), no epilogue", trm_order, 1, 1, 16, 32, none);
    SWEEP("L1: 8 blocks, loads first", loads_first, 1, 1, 8, 32, none);
    SWEEP("L1: 8 blocks, contiguous", contiguous, 1, 1, 8, 32, none);
    SWEEP("L1: 8 blocks, stored", trm_order, 1, 1, 8, 32, store_direct);
    SWEEP("L1: 8 blocks, added", trm_order, 1, 1, 8, 32, store_added);
    SWEEP("L2: 12 tiles x 48 panels, 16 blocks (as D 512), no epilogue", trm_order, 12, 48, 16, 1536, none);
    SWEEP("L2: the same, loads first", loads_first, 12, 48, 16, 1536, none);
    SWEEP("L2: the same, contiguous", contiguous, 12, 48, 16, 1536, none);
    SWEEP("L2: the same, next left tile prefetched", prefetching, 12, 48, 16, 1536, none);
    SWEEP("L2: the same, left by stream loads", streaming, 12, 48, 16, 1536, none);
    SWEEP("L2: the same, stored (rows 6 KB apart)", trm_order, 12, 48, 16, 1536, store_direct);
    SWEEP("L2: the same, added (rows 6 KB apart)", trm_order, 12, 48, 16, 1536, store_added);
    SWEEP("L2: the same, next left tile prefetched, stored", prefetching, 12, 48, 16, 1536, store_direct);
    SWEEP("L2: the same, stored (rows 128 bytes apart)", trm_order, 12, 48, 16, 32, store_direct);
    SWEEP("L2: 12 tiles x 48 panels, 8 blocks, no epilogue", trm_order, 12, 48, 8, 1536, none);
    SWEEP("L2: the same, stored", trm_order, 12, 48, 8, 1536, store_direct);
    SWEEP("L2: the same, next left tile prefetched, stored", prefetching, 12, 48, 8, 1536, store_direct);
    SWEEP("L2: 24 tiles x 48 panels, 12 blocks, no epilogue", trm_order, 24, 48, 12, 1536, none);
    SWEEP("L2: 12 tiles x 16 panels, 48 blocks (down, K 1536), no epilogue", trm_order, 12, 16, 48, 512, none);
    SWEEP("L2: the same, stored", trm_order, 12, 16, 48, 512, store_direct);
    SWEEP("L3: 400 rows (13 tiles) x 96 panels of 16 blocks: 3 MB of weights", trm_order, 13, 96, 16, 3072, none);
    BEST("L2: 12 x 48, 8 + 8 blocks, sums carried in memory", 4.0 * 12 * 48 * 16, ({ for (int p = 0; p < 48; p++) for (int d = 0; d < 2; d++) for (int t = 0; t < 12; t++)
        carried((char *)A + (t * 16 + d * 8) * 2048, (char *)B + (p * 16 + d * 8) * 2048, 8, C + (size_t)t * 32 * 32, 32); }));
    double end = now() + 12;
    while (now() < end)
        for (int i = 0; i < count; i++) {
            double t = now(), d;
            do { double b = now(); tests[i].run(); d = now() - b; if (d < tests[i].best) tests[i].best = d; } while (now() - t < 0.005);
        }
    for (int i = 0; i < count; i++) {
        if (!limit) limit = tests[i].dots * FLOP / tests[i].best / 1e9;
        say(tests[i].name, tests[i].dots, tests[i].best);
    }
    return 0;
}

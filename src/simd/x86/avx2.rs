//! AVX2 + FMA: 8 lanes of f32, a 6×16 tile in 12 of 16 registers.

use std::arch::x86_64::*;

use crate::format::Rounded;
use crate::int8::Numbers;
use crate::math;
use crate::vector::{Kernel, Simd};

/// AVX2 and FMA.
#[derive(Clone, Copy)]
pub struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor has AVX2 and FMA.
    #[inline(always)]
    pub unsafe fn new() -> Self {
        Self(())
    }
}

#[target_feature(enable = "avx2,fma")]
#[inline(never)]
fn call_avx2<K: Kernel<f32>>(s: Avx2, kernel: K) -> K::Output {
    kernel.run(s)
}

/// Lanes below `n` set.
#[inline(always)]
unsafe fn first_lanes(n: usize) -> __m256i {
    static STAIRS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    debug_assert!(n <= 8);
    // SAFETY: the caller has AVX2; 8 elements from index 8 − n lie inside the table.
    unsafe { _mm256_loadu_si256(STAIRS.as_ptr().add(8 - n).cast()) }
}

impl Simd for Avx2 {
    type T = f32;
    type V = __m256;
    type Block = [__m256; 8];
    const LANES: usize = 8;
    const TILE_ROWS: usize = 6;
    type Bf16 = Rounded;
    type Int8 = Numbers;

    #[inline(always)]
    fn call<K: Kernel<f32>>(self, kernel: K) -> K::Output {
        intrinsics!(call_avx2(self, kernel))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        intrinsics!(_mm256_set1_ps(x))
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        intrinsics!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        intrinsics!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        intrinsics!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        intrinsics!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        intrinsics!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        intrinsics!(_mm256_sqrt_ps(a))
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        intrinsics!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        intrinsics!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        intrinsics!(_mm256_andnot_ps(_mm256_set1_ps(-0.0), a))
    }
    #[inline(always)]
    fn with_sign(self, magnitude: __m256, sign: __m256) -> __m256 {
        intrinsics!(_mm256_or_ps(magnitude, _mm256_and_ps(sign, _mm256_set1_ps(-0.0))))
    }
    #[inline(always)]
    fn select_gt(self, a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
        intrinsics!(_mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b)))
    }
    #[inline(always)]
    fn round(self, a: __m256) -> __m256 {
        intrinsics!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }
    #[inline(always)]
    fn scale_by_power(self, a: __m256, n: __m256) -> __m256 {
        intrinsics! {
            // Two factors, so that both exponents are in range and only the last product rounds.
            let n = _mm256_cvtps_epi32(n);
            let bias = _mm256_set1_epi32(127);
            let half = _mm256_srai_epi32::<1>(n);
            let rest = _mm256_sub_epi32(n, half);
            let half = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
            let rest = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
            _mm256_mul_ps(_mm256_mul_ps(a, half), rest)
        }
    }
    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        intrinsics! {
            let quarter = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
    #[inline(always)]
    fn maximum(self, a: __m256) -> f32 {
        intrinsics! {
            let quarter = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pair = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
        }
    }
    #[inline(always)]
    fn exp<const N: usize>(self, x: [__m256; N]) -> [__m256; N] {
        math::exp(self, x)
    }
    #[inline(always)]
    fn exp2<const N: usize>(self, x: [__m256; N]) -> [__m256; N] {
        math::exp2(self, x)
    }
    #[inline(always)]
    fn atan2(self, y: __m256, x: __m256) -> __m256 {
        math::atan2(self, y, x)
    }

    #[inline(always)]
    unsafe fn load_ptr(self, p: *const f32) -> __m256 {
        intrinsics!(_mm256_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn load_first_ptr(self, p: *const f32, n: usize) -> __m256 {
        intrinsics!(_mm256_maskload_ps(p, first_lanes(n)))
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut f32, v: __m256) {
        intrinsics!(_mm256_storeu_ps(p, v))
    }
    #[inline(always)]
    unsafe fn store_first_ptr(self, p: *mut f32, v: __m256, n: usize) {
        intrinsics!(_mm256_maskstore_ps(p, first_lanes(n), v))
    }
    #[inline(always)]
    fn prefetch(self, p: *const f32) {
        intrinsics!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
    }

    #[inline(always)]
    fn block(self) -> Self::Block {
        [self.zero(); 8]
    }
    #[inline(always)]
    fn transpose(self, r: [__m256; 8]) -> [__m256; 8] {
        intrinsics! {
            let mut t = r;
            for g in 0..2 {
                let i = 4 * g;
                let (a, b) = (_mm256_unpacklo_ps(r[i], r[i + 1]), _mm256_unpackhi_ps(r[i], r[i + 1]));
                let (c, d) = (_mm256_unpacklo_ps(r[i + 2], r[i + 3]), _mm256_unpackhi_ps(r[i + 2], r[i + 3]));
                t[i] = _mm256_shuffle_ps::<0x44>(a, c);
                t[i + 1] = _mm256_shuffle_ps::<0xee>(a, c);
                t[i + 2] = _mm256_shuffle_ps::<0x44>(b, d);
                t[i + 3] = _mm256_shuffle_ps::<0xee>(b, d);
            }
            let mut out = r;
            for j in 0..4 {
                out[j] = _mm256_permute2f128_ps::<0x20>(t[j], t[j + 4]);
                out[j + 4] = _mm256_permute2f128_ps::<0x31>(t[j], t[j + 4]);
            }
            out
        }
    }

    #[inline(always)]
    fn round_bf16(self, a: __m256) -> __m256 {
        intrinsics! {
            let bits = _mm256_castps_si256(a);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
            let rounded = _mm256_and_si256(rounded, _mm256_set1_epi32(0xffff_0000u32 as i32));
            _mm256_blendv_ps(_mm256_castsi256_ps(rounded), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))
        }
    }
}

//! AVX-512: 16 lanes of f32, a 12×32 tile in 24 of 32 registers; bf16 dot products where the processor has them.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::Avx2;
use super::amx::AmxRegisters;
use crate::format::{Pairs, Rounded, TilePairs, Units};
use crate::int8::{ByQuads, TileQuads};
use crate::registers::{self, TileRegisters};
use crate::tile::Strip;
use crate::twin::TwinRegisters;
use crate::vector::{Dots, Kernel, Quads, Simd, TileUnit};
use crate::{limit, math};

/// A token of AVX-512 and its vectors, compiled with the features of its kind.
macro_rules! token {
    ($(#[$doc:meta])* $Token:ident($Field:ty), $safety:literal, $features:literal, $Bf16:ty, $Int8:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $Token($Field);

        impl $Token {
            /// # Safety
            #[doc = $safety]
            #[inline(always)]
            pub unsafe fn new(field: $Field) -> Self {
                Self(field)
            }
        }

        impl Simd for $Token {
            type T = f32;
            type V = __m512;
            type Block = [__m512; 16];
            const LANES: usize = 16;
            const TILE_ROWS: usize = 12;
            type Bf16 = $Bf16;
            type Int8 = $Int8;

            #[inline(always)]
            fn call<K: Kernel<f32>>(self, kernel: K) -> K::Output {
                #[target_feature(enable = $features)]
                #[inline(never)]
                fn call<K: Kernel<f32>>(s: $Token, kernel: K) -> K::Output {
                    kernel.run(s)
                }
                intrinsics!(call(self, kernel))
            }

            #[inline(always)]
            fn splat(self, x: f32) -> __m512 {
                intrinsics!(_mm512_set1_ps(x))
            }
            #[inline(always)]
            fn add(self, a: __m512, b: __m512) -> __m512 {
                intrinsics!(_mm512_add_ps(a, b))
            }
            #[inline(always)]
            fn sub(self, a: __m512, b: __m512) -> __m512 {
                intrinsics!(_mm512_sub_ps(a, b))
            }
            #[inline(always)]
            fn mul(self, a: __m512, b: __m512) -> __m512 {
                intrinsics!(_mm512_mul_ps(a, b))
            }
            #[inline(always)]
            fn div(self, a: __m512, b: __m512) -> __m512 {
                intrinsics!(_mm512_div_ps(a, b))
            }
            #[inline(always)]
            fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
                intrinsics!(_mm512_fmadd_ps(a, b, c))
            }
            #[inline(always)]
            fn sqrt(self, a: __m512) -> __m512 {
                intrinsics!(_mm512_sqrt_ps(a))
            }
            #[inline(always)]
            fn max(self, a: __m512, b: __m512) -> __m512 {
                intrinsics!(_mm512_max_ps(a, b))
            }
            #[inline(always)]
            fn min(self, a: __m512, b: __m512) -> __m512 {
                intrinsics!(_mm512_min_ps(a, b))
            }
            #[inline(always)]
            fn abs(self, a: __m512) -> __m512 {
                intrinsics!(_mm512_abs_ps(a))
            }
            #[inline(always)]
            fn with_sign(self, magnitude: __m512, sign: __m512) -> __m512 {
                intrinsics!(_mm512_or_ps(magnitude, _mm512_and_ps(sign, _mm512_set1_ps(-0.0))))
            }
            #[inline(always)]
            fn select_gt(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
                intrinsics!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), no, yes))
            }
            #[inline(always)]
            fn round(self, a: __m512) -> __m512 {
                intrinsics!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
            }
            #[inline(always)]
            fn scale_by_power(self, a: __m512, n: __m512) -> __m512 {
                intrinsics!(_mm512_scalef_ps(a, n))
            }
            #[inline(always)]
            fn sum(self, a: __m512) -> f32 {
                intrinsics! {
                    let half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
                    Avx2::new().sum(half)
                }
            }
            #[inline(always)]
            fn maximum(self, a: __m512) -> f32 {
                intrinsics!(_mm512_reduce_max_ps(a))
            }
            #[inline(always)]
            fn exp<const N: usize>(self, x: [__m512; N]) -> [__m512; N] {
                math::exp(self, x)
            }
            #[inline(always)]
            fn exp2<const N: usize>(self, x: [__m512; N]) -> [__m512; N] {
                math::exp2(self, x)
            }
            #[inline(always)]
            fn atan2(self, y: __m512, x: __m512) -> __m512 {
                math::atan2(self, y, x)
            }

            #[inline(always)]
            unsafe fn load_ptr(self, p: *const f32) -> __m512 {
                intrinsics!(_mm512_loadu_ps(p))
            }
            #[inline(always)]
            unsafe fn load_first_ptr(self, p: *const f32, n: usize) -> __m512 {
                debug_assert!(n <= 16);
                intrinsics!(_mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, p))
            }
            #[inline(always)]
            unsafe fn store_ptr(self, p: *mut f32, v: __m512) {
                intrinsics!(_mm512_storeu_ps(p, v))
            }
            #[inline(always)]
            unsafe fn store_first_ptr(self, p: *mut f32, v: __m512, n: usize) {
                debug_assert!(n <= 16);
                intrinsics!(_mm512_mask_storeu_ps(p, ((1u32 << n) - 1) as u16, v))
            }
            #[inline(always)]
            fn prefetch(self, p: *const f32) {
                intrinsics!(_mm_prefetch::<_MM_HINT_T0>(p.cast()))
            }
            #[inline(always)]
            fn prefetch_l2(self, p: *const f32) {
                intrinsics!(_mm_prefetch::<_MM_HINT_T1>(p.cast()))
            }
            #[inline(always)]
            unsafe fn stream_ptr(self, p: *mut f32, v: __m512) {
                if (p as usize).is_multiple_of(64) {
                    intrinsics!(_mm512_stream_ps(p, v))
                } else {
                    // SAFETY: the caller's contract.
                    unsafe { self.store_ptr(p, v) }
                }
            }
            #[inline(always)]
            fn fence(self) {
                intrinsics!(_mm_sfence())
            }

            #[inline(always)]
            fn block(self) -> Self::Block {
                [self.zero(); 16]
            }
            #[inline(always)]
            fn transpose(self, r: [__m512; 16]) -> [__m512; 16] {
                intrinsics! {
                    let mut t = r;
                    // Within 128-bit quarters: 4×4 transposes of 32-bit lanes.
                    for g in 0..4 {
                        let i = 4 * g;
                        let (a, b) = (_mm512_unpacklo_ps(r[i], r[i + 1]), _mm512_unpackhi_ps(r[i], r[i + 1]));
                        let (c, d) = (_mm512_unpacklo_ps(r[i + 2], r[i + 3]), _mm512_unpackhi_ps(r[i + 2], r[i + 3]));
                        t[i] = _mm512_shuffle_ps::<0x44>(a, c);
                        t[i + 1] = _mm512_shuffle_ps::<0xee>(a, c);
                        t[i + 2] = _mm512_shuffle_ps::<0x44>(b, d);
                        t[i + 3] = _mm512_shuffle_ps::<0xee>(b, d);
                    }
                    // Then a 4×4 transpose of the quarters themselves.
                    let mut out = r;
                    for j in 0..4 {
                        let a = _mm512_shuffle_f32x4::<0x88>(t[j], t[j + 4]);
                        let b = _mm512_shuffle_f32x4::<0xdd>(t[j], t[j + 4]);
                        let c = _mm512_shuffle_f32x4::<0x88>(t[j + 8], t[j + 12]);
                        let d = _mm512_shuffle_f32x4::<0xdd>(t[j + 8], t[j + 12]);
                        out[j] = _mm512_shuffle_f32x4::<0x88>(a, c);
                        out[j + 8] = _mm512_shuffle_f32x4::<0xdd>(a, c);
                        out[j + 4] = _mm512_shuffle_f32x4::<0x88>(b, d);
                        out[j + 12] = _mm512_shuffle_f32x4::<0xdd>(b, d);
                    }
                    out
                }
            }

            #[inline(always)]
            fn round_bf16(self, a: __m512) -> __m512 {
                intrinsics! {
                    let bits = _mm512_castps_si512(a);
                    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
                    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
                    let rounded = _mm512_and_si512(rounded, _mm512_set1_epi32(0xffff_0000u32 as i32));
                    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
                    _mm512_mask_blend_ps(nan, _mm512_castsi512_ps(rounded), a)
                }
            }
        }
    };
}

token!(
    /// AVX-512 F, BW, DQ, VL.
    Avx512(()),
    "The processor has AVX-512 F, BW, DQ and VL.",
    "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl",
    Rounded,
    ByQuads
);
token!(
    /// The same and VNNI, dot products of eight bits: the same results, for kernels that have such operands.
    Avx512Vnni(()),
    "The processor has AVX-512 F, BW, DQ, VL and VNNI.",
    "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni",
    Rounded,
    ByQuads
);
token!(
    /// AVX-512 F, BW, DQ, VL, VNNI and BF16.
    Avx512Bf16(()),
    "The processor has AVX-512 F, BW, DQ, VL, VNNI and BF16.",
    "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16",
    Pairs,
    ByQuads
);
token!(
    /// The same with tile registers, the processor's or their twin.
    Amx(Tiles),
    "The processor has AVX-512 F, BW, DQ, VL, VNNI and BF16, and the tile registers unless they are the twin.",
    "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16",
    TilePairs,
    TileQuads
);

/// Whose tile registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    /// The processor's.
    Processor,
    /// Plain Rust.
    Twin,
}

impl TileUnit for Amx {
    unsafe fn multiply_tiles<U: Units>(self, rows: usize, vectors: usize, strip: Strip<f32>) {
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
        #[inline(never)]
        unsafe fn call<R: TileRegisters, U: Units>(s: Amx, rows: usize, vectors: usize, strip: Strip<f32>) {
            // SAFETY: the contract of `multiply_tiles`; the token says that there are such registers.
            unsafe { registers::multiply::<_, R, U>(s, rows, vectors, strip) }
        }
        match self.0 {
            Tiles::Processor => intrinsics!(call::<AmxRegisters, U>(self, rows, vectors, strip)),
            Tiles::Twin => intrinsics!(call::<TwinRegisters, U>(self, rows, vectors, strip)),
        }
    }

    fn busy_tiles<U: Units>(self) -> usize {
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")]
        #[inline(never)]
        unsafe fn call<R: TileRegisters, U: Units>(rounds: usize) -> usize {
            // SAFETY: as above.
            unsafe { registers::busy::<Amx, R, U>(rounds) }
        }
        match self.0 {
            Tiles::Processor => intrinsics!(call::<AmxRegisters, U>(limit::ROUNDS)),
            // The twin takes a thousand times as long.
            Tiles::Twin => intrinsics!(call::<TwinRegisters, U>(limit::ROUNDS / 1024)),
        }
    }
}

/// What a token does with quads; `$dot` is `sum + Σ a·b`.
macro_rules! quads {
    ($Token:ident, |$sum:ident, $a:ident, $b:ident| $dot:expr) => {
        impl Quads for $Token {
            #[inline(always)]
            fn dot_quads(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
                intrinsics! {
                    let ($sum, $a, $b) = (_mm512_castps_si512(sum), _mm512_castps_si512(a), _mm512_castps_si512(b));
                    _mm512_castsi512_ps($dot)
                }
            }
            #[inline(always)]
            fn quads_along(self, elements: [__m512; 4]) -> __m512 {
                intrinsics! {
                    // Of every vector, the quads of a quarter lie together: quarter by quarter, vector after vector.
                    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                    _mm512_castsi512_ps(_mm512_permutexvar_epi32(order, narrow(elements)))
                }
            }
            #[inline(always)]
            fn quads_across(self, elements: [__m512; 4]) -> __m512 {
                intrinsics! {
                    // In every quarter, the numbers of four vectors become those of four lanes.
                    let order = _mm512_set4_epi32(0x0f0b_0703, 0x0e0a_0602, 0x0d09_0501, 0x0c08_0400);
                    _mm512_castsi512_ps(_mm512_shuffle_epi8(narrow(elements), order))
                }
            }
            #[inline(always)]
            fn offset_quads(self, quads: __m512) -> __m512 {
                intrinsics! {
                    let offset = _mm512_set1_epi8(i8::MIN);
                    _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(quads), offset))
                }
            }
            #[inline(always)]
            fn weigh_quads(self, quads: __m512, sum: __m512) -> __m512 {
                let offset = intrinsics!(_mm512_castsi512_ps(_mm512_set1_epi8(i8::MIN)));
                self.dot_quads(offset, quads, sum)
            }
            #[inline(always)]
            fn add_sums(self, a: __m512, b: __m512) -> __m512 {
                intrinsics!(_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))))
            }
            #[inline(always)]
            fn difference(self, a: __m512, b: __m512) -> __m512 {
                intrinsics!(_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b))))
            }
        }
    };
}

/// Four vectors of elements, rounded to whole numbers of eight bits (beyond them: the nearest of these): of every quarter the
/// four of the first vector, of the second, and so on.
/// # Safety
/// The processor has AVX-512 F and BW.
#[inline(always)]
unsafe fn narrow(elements: [__m512; 4]) -> __m512i {
    // SAFETY: the caller's contract.
    unsafe {
        let [a, b, c, d] = [
            _mm512_cvtps_epi32(elements[0]),
            _mm512_cvtps_epi32(elements[1]),
            _mm512_cvtps_epi32(elements[2]),
            _mm512_cvtps_epi32(elements[3]),
        ];
        _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d))
    }
}

/// `sum + Σ a·b` of quads without VNNI, exactly: even numbers and odd ones as pairs of 16 bits.
/// # Safety
/// The processor has AVX-512 F and BW.
#[inline(always)]
unsafe fn dot_by_pairs(sum: __m512i, a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the caller's contract.
    unsafe {
        let (a_even, a_odd) = (_mm512_and_si512(a, _mm512_set1_epi16(0xff)), _mm512_srli_epi16::<8>(a));
        let (b_even, b_odd) = (_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b)), _mm512_srai_epi16::<8>(b));
        let even = _mm512_add_epi32(sum, _mm512_madd_epi16(a_even, b_even));
        _mm512_add_epi32(even, _mm512_madd_epi16(a_odd, b_odd))
    }
}

quads!(Avx512, |sum, a, b| dot_by_pairs(sum, a, b));
quads!(Avx512Vnni, |sum, a, b| _mm512_dpbusd_epi32(sum, a, b));
quads!(Avx512Bf16, |sum, a, b| _mm512_dpbusd_epi32(sum, a, b));
quads!(Amx, |sum, a, b| _mm512_dpbusd_epi32(sum, a, b));

/// What a token of bf16 dot products does with pairs.
macro_rules! dots {
    ($Token:ident) => {
        impl Dots for $Token {
            #[inline(always)]
            fn pair(self, low: __m512, high: __m512) -> __m512 {
                intrinsics! {
                    // One conversion of both, then interleaving the two halves of 16 words.
                    let both: __m512i = transmute(_mm512_cvtne2ps_pbh(high, low));
                    _mm512_castsi512_ps(_mm512_permutexvar_epi16(INTERLEAVE_WORDS.vector(), both))
                }
            }
            #[inline(always)]
            fn narrow(self, first: __m512, second: __m512) -> __m512 {
                intrinsics!(transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(second, first)))
            }
            #[inline(always)]
            fn unpair(self, pairs: __m512) -> (__m512, __m512) {
                intrinsics! {
                    let bits = _mm512_castps_si512(pairs);
                    let high = _mm512_and_si512(bits, _mm512_set1_epi32(0xffff_0000u32 as i32));
                    (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)), _mm512_castsi512_ps(high))
                }
            }
            #[inline(always)]
            fn dot_pairs(self, a: __m512, b: __m512, sum: __m512) -> __m512 {
                intrinsics!(_mm512_dpbf16_ps(sum, transmute::<__m512, __m512bh>(a), transmute::<__m512, __m512bh>(b)))
            }
        }
    };
}

dots!(Avx512Bf16);
dots!(Amx);

/// Word order 0, 16, 1, 17 …
#[repr(C, align(64))]
struct Words([u16; 32]);

static INTERLEAVE_WORDS: Words = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        order[i] = (i / 2 + 16 * (i % 2)) as u16;
        i += 1;
    }
    Words(order)
};

impl Words {
    #[inline(always)]
    unsafe fn vector(&self) -> __m512i {
        // SAFETY: the caller has AVX-512; the array is 64 readable bytes.
        unsafe { _mm512_loadu_si512(self.0.as_ptr().cast()) }
    }
}

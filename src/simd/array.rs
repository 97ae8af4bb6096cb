//! The portable vectors: arrays that the compiler vectorises for whatever function they are inlined into.
//!
//! They are the portable path of f32, and all of f64 (checking), whose `exp`, `exp2` and `atan2` are libm's.

use super::Real;
use super::format::Rounded;
use super::int8::Numbers;
use super::math;
use super::vector::{Kernel, Simd};

/// Token of the portable path.
#[derive(Clone, Copy, Default)]
pub struct Array<T>(std::marker::PhantomData<T>);

const LANES: usize = 4;

/// Element-wise function of vectors. Written out: loops would be unrolled anyway, and take the compiler longer.
macro_rules! lanes {
    (|$($x:ident),+| $body:expr) => {
        [
            { $(let $x = $x[0];)+ $body },
            { $(let $x = $x[1];)+ $body },
            { $(let $x = $x[2];)+ $body },
            { $(let $x = $x[3];)+ $body },
        ]
    };
}

/// The bf16 nearest to `x`, ties to even; not-a-number stays so.
#[inline(always)]
pub fn round_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1))) & 0xffff_0000;
    if x.is_nan() { x } else { f32::from_bits(rounded) }
}

impl<T: Real> Simd for Array<T> {
    type T = T;
    type V = [T; LANES];
    type Block = [[T; LANES]; LANES];
    const LANES: usize = LANES;
    const TILE_ROWS: usize = 6;
    type Bf16 = Rounded;
    type Int8 = Numbers;

    #[inline(always)]
    fn call<K: Kernel<T>>(self, kernel: K) -> K::Output {
        #[inline(never)]
        fn call<T: Real, K: Kernel<T>>(s: Array<T>, kernel: K) -> K::Output {
            kernel.run(s)
        }
        call(self, kernel)
    }

    #[inline(always)]
    fn splat(self, x: T) -> Self::V {
        [x; LANES]
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(|a, b, c| Real::mul_add(a, b, c))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        lanes!(|a| Real::sqrt(a))
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(|a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn abs(self, a: Self::V) -> Self::V {
        lanes!(|a| a.copysign(T::ONE))
    }
    #[inline(always)]
    fn with_sign(self, magnitude: Self::V, sign: Self::V) -> Self::V {
        lanes!(|magnitude, sign| magnitude.copysign(sign))
    }
    #[inline(always)]
    fn select_gt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V {
        lanes!(|a, b, yes, no| if a > b { yes } else { no })
    }
    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // Adding 1.5·2²³ leaves no room for a fraction; integers this large do not occur.
        let magic = T::from_f64(if size_of::<T>() == 4 { 12_582_912.0 } else { 6_755_399_441_055_744.0 });
        lanes!(|a| a + magic - magic)
    }
    #[inline(always)]
    fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V {
        // In f64 the power is exact and the product of an f32 with it too, so the way back rounds once.
        lanes!(|a, n| {
            let power = f64::from_bits(((n.to_f64() as i64 + 1023) as u64) << 52);
            T::from_f64(a.to_f64() * power)
        })
    }
    #[inline(always)]
    fn sum(self, a: Self::V) -> T {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn maximum(self, a: Self::V) -> T {
        a[0].maximum(a[1]).maximum(a[2].maximum(a[3]))
    }
    #[inline(always)]
    fn exp<const N: usize>(self, x: [Self::V; N]) -> [Self::V; N] {
        if size_of::<T>() == 4 { math::exp(self, x) } else { x.map(|x| lanes!(|x| x.exp())) }
    }
    #[inline(always)]
    fn exp2<const N: usize>(self, x: [Self::V; N]) -> [Self::V; N] {
        if size_of::<T>() == 4 { math::exp2(self, x) } else { x.map(|x| lanes!(|x| x.exp2())) }
    }
    #[inline(always)]
    fn atan2(self, y: Self::V, x: Self::V) -> Self::V {
        if size_of::<T>() == 4 { math::atan2(self, y, x) } else { lanes!(|y, x| y.atan2(x)) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, p: *const T) -> Self::V {
        // SAFETY: the caller's contract; arrays need no more alignment than their elements.
        unsafe { p.cast::<[T; LANES]>().read() }
    }
    #[inline(always)]
    unsafe fn load_first_ptr(self, p: *const T, n: usize) -> Self::V {
        debug_assert!(n <= LANES);
        let mut v = [T::ZERO; LANES];
        for (i, v) in v.iter_mut().enumerate().take(n) {
            // SAFETY: the caller's contract.
            *v = unsafe { p.add(i).read() };
        }
        v
    }
    #[inline(always)]
    unsafe fn store_ptr(self, p: *mut T, v: Self::V) {
        // SAFETY: the caller's contract; arrays need no more alignment than their elements.
        unsafe { p.cast::<[T; LANES]>().write(v) }
    }
    #[inline(always)]
    unsafe fn store_first_ptr(self, p: *mut T, v: Self::V, n: usize) {
        debug_assert!(n <= LANES);
        for (i, v) in v.into_iter().enumerate().take(n) {
            // SAFETY: the caller's contract.
            unsafe { p.add(i).write(v) };
        }
    }
    #[inline(always)]
    fn prefetch(self, _: *const T) {}

    #[inline(always)]
    fn block(self) -> Self::Block {
        [[T::ZERO; LANES]; LANES]
    }
    #[inline(always)]
    fn transpose(self, block: Self::Block) -> Self::Block {
        let mut out = block;
        for (i, out) in out.iter_mut().enumerate() {
            for (j, out) in out.iter_mut().enumerate() {
                *out = block[j][i];
            }
        }
        out
    }

    #[inline(always)]
    fn round_bf16(self, a: Self::V) -> Self::V {
        lanes!(|a| T::from_f64(f64::from(round_bf16(a.to_f64() as f32))))
    }
}

//! Loops over whole slices: sums, scalings and the SwiGLU activation.

use super::Real;
use super::isa::isa;
use super::split::elements;
use super::vector::{Kernel, Simd, dispatch, dispatch_on, sweep};

/// `out ← a + b`; equal lengths, as everywhere here.
pub fn add<T: Real>(a: &[T], b: &[T], out: &mut [T]) {
    add_shared(a, b, out, 1);
}

/// [`add`], shared by so many threads of the pool that this runs in.
pub fn add_shared<T: Real>(a: &[T], b: &[T], out: &mut [T], parts: usize) {
    assert!(a.len() == out.len() && b.len() == out.len());
    let isa = isa();
    elements(parts, [a, b], out, |[a, b], out| dispatch_on(isa, SumOf { a, b, out }));
}

/// `dst ← dst + src`.
pub fn add_assign<T: Real>(dst: &mut [T], src: &[T]) {
    axpy(dst, T::ONE, src);
}

/// `dst ← dst + alpha · src`.
pub fn axpy<T: Real>(dst: &mut [T], alpha: T, src: &[T]) {
    axpy_shared(dst, alpha, src, 1);
}

/// [`axpy`], shared by so many threads of the pool that this runs in.
pub fn axpy_shared<T: Real>(dst: &mut [T], alpha: T, src: &[T], parts: usize) {
    assert_eq!(dst.len(), src.len());
    let isa = isa();
    elements(parts, [src], dst, |[src], dst| dispatch_on(isa, AddScaled { dst, alpha, src }));
}

/// `dst ← alpha · dst`.
pub fn scale<T: Real>(dst: &mut [T], alpha: T) {
    dispatch(ScaleInPlace { dst, alpha });
}

/// `Σ a·b`, in a fixed order.
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    assert_eq!(a.len(), b.len());
    dispatch(DotProduct { a, b })
}

/// `Σ a²` in f64, in a fixed order.
pub fn sum_squares<T: Real>(a: &[T]) -> f64 {
    dispatch(SumSquares { a })
}

struct SumOf<'a, T> {
    a: &'a [T],
    b: &'a [T],
    out: &'a mut [T],
}

impl<T: Real> Kernel<T> for SumOf<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let Self { a, b, out } = self;
        sweep!(S, out.len(), at => { at.store(s, out, s.add(at.load(s, a), at.load(s, b))) });
    }
}

struct AddScaled<'a, T> {
    dst: &'a mut [T],
    alpha: T,
    src: &'a [T],
}

impl<T: Real> Kernel<T> for AddScaled<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let Self { dst, alpha, src } = self;
        let alpha = s.splat(alpha);
        sweep!(S, dst.len(), at => { at.store(s, dst, s.fma(alpha, at.load(s, src), at.load(s, dst))) });
    }
}

struct ScaleInPlace<'a, T> {
    dst: &'a mut [T],
    alpha: T,
}

impl<T: Real> Kernel<T> for ScaleInPlace<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let Self { dst, alpha } = self;
        let alpha = s.splat(alpha);
        sweep!(S, dst.len(), at => { at.store(s, dst, s.mul(alpha, at.load(s, dst))) });
    }
}

struct DotProduct<'a, T> {
    a: &'a [T],
    b: &'a [T],
}

impl<T: Real> Kernel<T> for DotProduct<'_, T> {
    type Output = T;
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) -> T {
        dot_product(s, self.a, self.b)
    }
}

/// `Σ a·b` with four sums side by side; equal lengths.
#[inline(always)]
pub fn dot_product<S: Simd>(s: S, a: &[S::T], b: &[S::T]) -> S::T {
    let mut sums = [s.zero(); 4];
    let whole = a.len() - a.len() % (4 * S::LANES);
    let (a4, a) = a.split_at(whole);
    let (b4, b) = b.split_at(whole);
    for (a, b) in a4.chunks_exact(4 * S::LANES).zip(b4.chunks_exact(4 * S::LANES)) {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = s.fma(s.load(&a[j * S::LANES..]), s.load(&b[j * S::LANES..]), *sum);
        }
    }
    sweep!(S, a.len(), at => { sums[0] = s.fma(at.load(s, a), at.load(s, b), sums[0]) });
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

struct SumSquares<'a, T> {
    a: &'a [T],
}

impl<T: Real> Kernel<T> for SumSquares<'_, T> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, _: S) -> f64 {
        // Left to the compiler, which vectorises for the instruction set this body is compiled for.
        const CHAINS: usize = 32;
        let mut sums = [0f64; CHAINS];
        let chunks = self.a.chunks_exact(CHAINS);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (sum, a) in sums.iter_mut().zip(chunk) {
                *sum += a.to_f64() * a.to_f64();
            }
        }
        for (sum, a) in sums.iter_mut().zip(rest) {
            *sum += a.to_f64() * a.to_f64();
        }
        sums.iter().sum()
    }
}

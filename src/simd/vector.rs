//! The vector abstraction: every algorithm is written once over [`Simd`] and instantiated per instruction set.
//!
//! An algorithm is a [`Kernel`]: a struct of its arguments and an `#[inline(always)]` body. [`dispatch`] runs the body
//! inside a function compiled for the active instruction set, which it proves to the body by a token: a value of a
//! [`Simd`] type exists only where the processor has the instructions, so the token's methods are safe.
//! (Closures would lose the instruction set; hence structs, and the `sweep!` macro for loops with a ragged end.)

use super::Real;
use super::format::{Format, Units};
use super::int8::WholeNumbers;
use super::isa::Isa;
use super::tile::Strip;

/// Bytes from which on a buffer that the backward pass or the weight gradients will read is written with non-temporal stores: a
/// quarter of L2. Half a dozen such buffers would push out of L2 what the kernels work on; those of small models are
/// better off in it.
pub const STREAMED: usize = 256 << 10;

/// Whether a buffer has as many bytes as [`STREAMED`].
pub fn is_streamed<T>(buffer: &[T]) -> bool {
    size_of_val(buffer) >= STREAMED
}

/// Token of an instruction set, and its operations on vectors of `T`.
pub trait Simd: Copy {
    type T: Real;
    /// `LANES` elements.
    type V: Copy;
    /// `LANES` vectors.
    type Block: Copy + AsRef<[Self::V]> + AsMut<[Self::V]>;
    const LANES: usize;
    /// Rows of the micro-kernel's tile; its width is two vectors (see `tile.rs`).
    const TILE_ROWS: usize;
    /// How operands in bf16 are packed.
    type Bf16: Format<Self>;
    /// How operands of eight bits are packed.
    type Int8: WholeNumbers<Self>;

    /// Runs a kernel in a function of its own, compiled for this instruction set.
    fn call<K: Kernel<Self::T>>(self, kernel: K) -> K::Output;

    fn splat(self, x: Self::T) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a·b + c`, rounded once where the hardware can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    fn sqrt(self, a: Self::V) -> Self::V;
    /// `a > b ? a : b`: b if either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a < b ? a : b`: b if either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn abs(self, a: Self::V) -> Self::V;
    /// `magnitude` (not negative) with the sign of `sign`.
    fn with_sign(self, magnitude: Self::V, sign: Self::V) -> Self::V;
    /// `a > b ? yes : no`, lane by lane.
    fn select_gt(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a · 2ⁿ` for integral `n` in −160…160, rounded once.
    fn scale_by_power(self, a: Self::V, n: Self::V) -> Self::V;
    /// Sum of the lanes, in a fixed order.
    fn sum(self, a: Self::V) -> Self::T;
    fn maximum(self, a: Self::V) -> Self::T;
    /// `eˣ` of each: at most 2 ulp in f32, exact libm in f64.
    fn exp<const N: usize>(self, x: [Self::V; N]) -> [Self::V; N];
    /// `2ˣ` of each: at most 2 ulp in f32, exact libm in f64; two thirds of the work of `exp`.
    fn exp2<const N: usize>(self, x: [Self::V; N]) -> [Self::V; N];
    /// The angle of the point `(x, y)` for `x ≥ 0`: at most 4 ulp in f32, exact libm in f64.
    fn atan2(self, y: Self::V, x: Self::V) -> Self::V;

    /// # Safety
    /// `LANES` elements from `p` are readable.
    unsafe fn load_ptr(self, p: *const Self::T) -> Self::V;
    /// Zeros behind the first `n ≤ LANES` elements.
    /// # Safety
    /// `n` elements from `p` are readable.
    unsafe fn load_first_ptr(self, p: *const Self::T, n: usize) -> Self::V;
    /// # Safety
    /// `LANES` elements from `p` are writable.
    unsafe fn store_ptr(self, p: *mut Self::T, v: Self::V);
    /// # Safety
    /// `n ≤ LANES` elements from `p` are writable.
    unsafe fn store_first_ptr(self, p: *mut Self::T, v: Self::V, n: usize);
    /// Prefetches the cache line at `p`, which need not be readable.
    fn prefetch(self, p: *const Self::T);
    /// The same, into the second level only.
    #[inline(always)]
    fn prefetch_l2(self, p: *const Self::T) {
        self.prefetch(p);
    }
    /// A non-temporal store where the processor has one and `p` starts a cache line; for what is read much later, after
    /// [`Simd::fence`].
    /// # Safety
    /// `LANES` elements from `p` are writable.
    #[inline(always)]
    unsafe fn stream_ptr(self, p: *mut Self::T, v: Self::V) {
        // SAFETY: the caller's contract.
        unsafe { self.store_ptr(p, v) }
    }
    /// Makes what [`Simd::stream_ptr`] stored visible to all.
    #[inline(always)]
    fn fence(self) {}

    /// Zeros.
    fn block(self) -> Self::Block;
    /// Lane i of vector j becomes lane j of vector i.
    fn transpose(self, block: Self::Block) -> Self::Block;

    /// To the nearest bf16, ties to even; NaN stays NaN.
    fn round_bf16(self, a: Self::V) -> Self::V;

    #[inline(always)]
    fn load(self, from: &[Self::T]) -> Self::V {
        assert!(from.len() >= Self::LANES);
        // SAFETY: the slice holds at least LANES elements.
        unsafe { self.load_ptr(from.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, to: &mut [Self::T], v: Self::V) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the slice holds at least LANES elements.
        unsafe { self.store_ptr(to.as_mut_ptr(), v) }
    }

    /// [`Simd::stream_ptr`], bounds-checked, where `streamed`; [`Simd::store`] where not.
    #[inline(always)]
    fn store_streamed(self, streamed: bool, to: &mut [Self::T], v: Self::V) {
        assert!(to.len() >= Self::LANES);
        // SAFETY: the slice holds at least LANES elements.
        unsafe { if streamed { self.stream_ptr(to.as_mut_ptr(), v) } else { self.store_ptr(to.as_mut_ptr(), v) } }
    }

    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(Self::T::ZERO)
    }
}

/// The token of a processor that multiplies pairs of bf16.
pub trait Dots: Simd {
    /// Rounds both to bf16; lane i of the result holds the pair (low i, high i).
    fn pair(self, low: Self::V, high: Self::V) -> Self::V;
    /// Rounds 2·LANES consecutive elements to bf16; lane i holds the elements (2i, 2i + 1).
    fn narrow(self, first: Self::V, second: Self::V) -> Self::V;
    /// The two vectors that [`Dots::pair`] rounded and joined.
    fn unpair(self, pairs: Self::V) -> (Self::V, Self::V);
    /// `sum + a.low·b.low + a.high·b.high` of bf16 pairs, in f32.
    fn dot_pairs(self, a: Self::V, b: Self::V, sum: Self::V) -> Self::V;
}

/// The token of a processor that has quads, four whole numbers of eight bits in a lane. Sums are whole numbers of 32 bits, in
/// lanes of the same vectors.
pub trait Quads: Simd {
    /// `sum + Σ a[i]·b[i]` over a quad: the numbers of a are 0 to 255, those of b −128 to 127.
    fn dot_quads(self, a: Self::V, b: Self::V, sum: Self::V) -> Self::V;
    /// Rounds 4·LANES consecutive elements to whole numbers; lane i holds the elements 4i to 4i + 3.
    fn quads_along(self, elements: [Self::V; 4]) -> Self::V;
    /// Rounds elements to whole numbers; lane i holds the four of lane i.
    fn quads_across(self, elements: [Self::V; 4]) -> Self::V;
    /// Adds 128 to each number, −128 to 127, of quads.
    fn offset_quads(self, quads: Self::V) -> Self::V;
    /// `Σ 128·b[i]` over a quad, added to a sum.
    fn weigh_quads(self, quads: Self::V, sum: Self::V) -> Self::V;
    /// `a + b` of sums.
    fn add_sums(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a − b` of sums, as elements.
    fn difference(self, a: Self::V, b: Self::V) -> Self::V;
}

/// The token of a processor, or of its twin, that multiplies tiles of bf16 pairs and of quads.
pub trait TileUnit: Dots + Quads + Simd<T = f32> {
    /// The micro-kernel (`registers.rs`), for tiles of `rows ≤ 32` rows and `vectors` (1 or 2) vectors of columns.
    /// # Safety
    /// As `UnitFormat::multiply`.
    unsafe fn multiply_tiles<U: Units>(self, rows: usize, vectors: usize, strip: Strip<f32>);
    /// Multiplies tiles over and over; returns how many FLOPs that were.
    fn busy_tiles<U: Units>(self) -> usize;
}

/// An algorithm with its arguments.
pub trait Kernel<T: Real> {
    type Output;
    /// The body; implementations are `#[inline(always)]`.
    fn run<S: Simd<T = T>>(self, s: S) -> Self::Output;
}

/// Runs a kernel on the active instruction set.
#[inline]
pub fn dispatch<T: Real, K: Kernel<T>>(kernel: K) -> K::Output {
    T::run_kernel(super::isa(), kernel)
}

/// Runs a kernel on the given instruction set.
#[inline]
pub fn dispatch_on<T: Real, K: Kernel<T>>(isa: Isa, kernel: K) -> K::Output {
    T::run_kernel(isa, kernel)
}

/// Where a step of a `sweep!` reads and writes: a whole vector.
#[derive(Clone, Copy)]
pub struct Whole(pub usize);

impl Whole {
    /// Index of the step's first element.
    #[inline(always)]
    pub fn start(self) -> usize {
        self.0
    }
    #[inline(always)]
    pub fn load<S: Simd>(self, s: S, from: &[S::T]) -> S::V {
        s.load(&from[self.0..self.0 + S::LANES])
    }
    #[inline(always)]
    pub fn store<S: Simd>(self, s: S, to: &mut [S::T], v: S::V) {
        s.store(&mut to[self.0..self.0 + S::LANES], v);
    }
}

/// Where a step of a `sweep!` reads and writes: the ragged end (lanes behind it read zero and are not written).
#[derive(Clone, Copy)]
pub struct Tail(pub usize, pub usize);

impl Tail {
    /// Index of the step's first element.
    #[inline(always)]
    pub fn start(self) -> usize {
        self.0
    }
    #[inline(always)]
    pub fn load<S: Simd>(self, s: S, from: &[S::T]) -> S::V {
        let from = &from[self.0..self.0 + self.1];
        debug_assert!(from.len() < S::LANES);
        // SAFETY: exactly the slice is read.
        unsafe { s.load_first_ptr(from.as_ptr(), from.len()) }
    }
    #[inline(always)]
    pub fn store<S: Simd>(self, s: S, to: &mut [S::T], v: S::V) {
        let to = &mut to[self.0..self.0 + self.1];
        debug_assert!(to.len() < S::LANES);
        // SAFETY: exactly the slice is written.
        unsafe { s.store_first_ptr(to.as_mut_ptr(), v, to.len()) }
    }
}

/// `sweep!(S, n, at => body)`: the body once per vector of `0..n`, then once for the ragged end; `at` loads and stores.
#[doc(hidden)]
#[macro_export]
macro_rules! sweep {
    ($simd:ty, $n:expr, $at:ident => $body:block) => {{
        let n: usize = $n;
        let lanes = <$simd as $crate::vector::Simd>::LANES;
        let whole = n - n % lanes;
        let mut start = 0;
        while start < whole {
            let $at = $crate::vector::Whole(start);
            $body
            start += lanes;
        }
        if whole < n {
            let $at = $crate::vector::Tail(whole, n - whole);
            $body
        }
    }};
}
pub(super) use sweep;

//! What one core can do at most, measured, the yardstick of every other figure: multiply-adds, and copies.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::Real;
use super::format::{Precision, UnitFormat, in_format};
use super::isa::isa;
use super::vector::{Kernel, Simd, dispatch};

/// Multiply-adds of each sum in a measurement.
pub const ROUNDS: usize = 4096;

/// Elements of an array that is copied: 64 MB, more than any cache holds.
const COPY: usize = 1 << 24;

/// GFLOP/s of one thread in a loop of independent fused multiply-adds on the active instruction set, the best of
/// many short runs within `seconds`. In bf16 the multiply-adds are dot products of pairs, or of tiles of them, where the path has them.
pub fn fma_limit(precision: Precision, seconds: f64) -> f64 {
    best_within(seconds, || dispatch(MultiplyAdds { precision }))
}

/// The same of whole numbers of eight bits: by instructions for them, where the processor has some.
pub fn int8_limit(seconds: f64) -> f64 {
    best_within(seconds, || f32::run_int8_kernel(isa(), Int8MultiplyAdds))
}

/// The highest rate of many short runs, in GFLOP/s; each returns its FLOPs.
fn best_within(seconds: f64, run: impl Fn() -> usize) -> f64 {
    let end = Instant::now() + Duration::from_secs_f64(seconds.max(0.0));
    let mut best = 0f64;
    loop {
        let start = Instant::now();
        let flops = run();
        best = best.max(flops as f64 / start.elapsed().as_secs_f64() / 1e9);
        if Instant::now() >= end {
            return best;
        }
    }
}

/// GB/s, read and written together, of one thread that copies an array that no cache holds, the best of at least five copies
/// within `seconds`.
pub fn copy_limit(seconds: f64) -> f64 {
    let end = Instant::now() + Duration::from_secs_f64(seconds.max(0.0));
    let (from, mut to) = (vec![1f32; COPY], vec![0f32; COPY]);
    let (mut best, mut copies) = (0f64, 0);
    while copies < 5 || Instant::now() < end {
        let start = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        best = best.max(2.0 * (COPY * size_of::<f32>()) as f64 / start.elapsed().as_secs_f64() / 1e9);
        copies += 1;
    }
    best
}

struct MultiplyAdds {
    precision: Precision,
}

impl Kernel<f32> for MultiplyAdds {
    /// FLOPs.
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd<T = f32>>(self, s: S) -> usize {
        in_format!(self.precision, S, Busy.run(s))
    }
}

struct Int8MultiplyAdds;

impl Kernel<f32> for Int8MultiplyAdds {
    /// FLOPs.
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd<T = f32>>(self, s: S) -> usize {
        S::Int8::busy(s)
    }
}

struct Busy;

impl Busy {
    #[inline(always)]
    fn run<S: Simd<T = f32>, F: UnitFormat<S>>(self, s: S) -> usize {
        F::busy(s)
    }
}

/// [`ROUNDS`] multiply-adds of each of as many independent sums as registers allow, so that the latency is hidden. Returns
/// FLOPs.
#[inline(always)]
pub fn chains<S: Simd, F: UnitFormat<S>>(s: S) -> usize {
    if S::LANES == 16 { chains_of::<S, F, 24>(s) } else { chains_of::<S, F, 12>(s) }
}

#[inline(always)]
fn chains_of<S: Simd, F: UnitFormat<S>, const N: usize>(s: S) -> usize {
    let (a, b) = (s.splat(black_box(S::T::ONE)), s.splat(black_box(S::T::from_f64(1e-30))));
    let mut sums = [s.zero(); N];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = F::multiply_add(s, a, b, *sum);
        }
    }
    let mut total = sums[0];
    for &sum in &sums[1..] {
        total = s.add(total, sum);
    }
    black_box(s.sum(total));
    ROUNDS * S::LANES * N * 2 * F::STEPS
}

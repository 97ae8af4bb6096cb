//! The FMA limit: what one core can do at most, measured, the yardstick of every other figure.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::pack::Precision;
use super::vector::{Kernel, Simd, dispatch};

const ROUNDS: usize = 4096;

/// GFLOP/s of one thread in a loop of independent fused multiply-adds on the active instruction set, the best of
/// many short runs within `seconds`. In bf16 the multiply-adds are dot products of pairs where the processor has them.
pub fn fma_limit(precision: Precision, seconds: f64) -> f64 {
    let end = Instant::now() + Duration::from_secs_f64(seconds.max(0.0));
    let mut best = 0f64;
    loop {
        let start = Instant::now();
        let flops_per_round = dispatch(MultiplyAdds { precision });
        let time = start.elapsed().as_secs_f64();
        best = best.max((flops_per_round * ROUNDS) as f64 / time / 1e9);
        if Instant::now() >= end {
            return best;
        }
    }
}

struct MultiplyAdds {
    precision: Precision,
}

impl Kernel<f32> for MultiplyAdds {
    /// FLOPs in a round.
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd<T = f32>>(self, s: S) -> usize {
        // As many independent sums as registers allow, so that the latency is hidden.
        match (self.precision, S::LANES) {
            (Precision::Bf16, _) if S::DOTS => chains::<S, true, 24>(s),
            (_, 16) => chains::<S, false, 24>(s),
            _ => chains::<S, false, 12>(s),
        }
    }
}

#[inline(always)]
fn chains<S: Simd<T = f32>, const DOTS: bool, const CHAINS: usize>(s: S) -> usize {
    let (a, b) = (s.splat(black_box(1.0)), s.splat(black_box(1e-30)));
    let mut sums = [s.zero(); CHAINS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = if DOTS { s.dot_pairs(a, b, *sum) } else { s.fma(a, b, *sum) };
        }
    }
    let mut total = sums[0];
    for &sum in &sums[1..] {
        total = s.add(total, sum);
    }
    black_box(s.sum(total));
    S::LANES * CHAINS * if DOTS { 4 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    #[test]
    fn the_limit_is_a_positive_figure_on_every_path() {
        for isa in Isa::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                let limit = isa.run(|| fma_limit(precision, 0.0));
                assert!(limit > 0.0 && limit.is_finite(), "{isa}: {limit}");
            }
        }
    }
}

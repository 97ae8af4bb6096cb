//! The FMA limit of all lanes, or of an accelerator, sampled around what is timed.

use std::time::Instant;

use crate::device::Device;
use crate::engine::{Lanes, ProductLimits};
use crate::simd::Precision;

/// Seconds of one sample.
const SAMPLE_SECONDS: f64 = 0.05;
/// Seconds of other work after which [`FmaLimit::refresh`] samples again.
const EVERY_SECONDS: f64 = 0.5;

/// What all lanes together can do at most: the yardstick of MFU.
///
/// Processors change their clock with the work and the neighbours, and a sample may be disturbed. So the limit is the sum of
/// each lane's best sample, before, between and after the timed work, and no less than what that work reached.
pub struct FmaLimit<'a, D: Device> {
    lanes: &'a Lanes<D>,
    precision: Precision,
    sampled: Instant,
    best: Best,
    /// The same of whole numbers of eight bits, where the work has such operands: this share of its FLOPs.
    int8: (Best, f64),
}

impl<'a, D: Device> FmaLimit<'a, D> {
    /// Takes a first sample, for work of whose products this share has operands of eight bits.
    pub fn new(lanes: &'a Lanes<D>, precision: Precision, int8_share: f64) -> Self {
        let [best, int8] = [0; 2].map(|_| Best { lanes: vec![0.0; lanes.threads()] });
        let mut limit = Self { lanes, precision, sampled: Instant::now(), best, int8: (int8, int8_share) };
        limit.sample();
        limit
    }

    /// Takes one more sample.
    fn sample(&mut self) {
        self.best.take(&self.lanes.fma_limits(self.precision, SAMPLE_SECONDS));
        if self.int8.1 > 0.0 {
            self.int8.0.take(&self.lanes.int8_limits(SAMPLE_SECONDS));
        }
        self.sampled = Instant::now();
    }

    /// To be called between repetitions of the timed work: takes a sample if the last one is some time ago.
    pub fn refresh(&mut self) {
        if self.sampled.elapsed().as_secs_f64() >= EVERY_SECONDS {
            self.sample();
        }
    }

    /// The limits in GFLOP/s, after a last sample, and that of the work, which reached `gflops` in its fastest repetition.
    pub fn finish(mut self, gflops: f64) -> (ProductLimits, f64) {
        self.sample();
        let limits = ProductLimits { usual: self.best.gflops(), int8: self.int8.0.gflops() };
        (limits, limit_of_work(limits, self.int8.1, gflops))
    }
}

/// The limit of work that reached so many GFLOP/s, of whose products this share is in eight bits.
fn limit_of_work(limits: ProductLimits, int8_share: f64, reached: f64) -> f64 {
    limits.of(int8_share).max(reached)
}

/// The highest figures seen, in GFLOP/s.
struct Best {
    lanes: Vec<f64>,
}

impl Best {
    fn take(&mut self, sample: &[f64]) {
        for (best, &sample) in self.lanes.iter_mut().zip(sample) {
            *best = best.max(sample);
        }
    }

    fn gflops(&self) -> f64 {
        self.lanes.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_sample_lowers_no_limit_and_work_never_exceeds_it() {
        let mut best = Best { lanes: vec![0.0; 2] };
        best.take(&[100.0, 20.0]);
        best.take(&[30.0, 90.0]);
        assert_eq!(best.gflops(), 190.0);
        let limits = ProductLimits { usual: best.gflops(), int8: 0.0 };
        assert_eq!(limit_of_work(limits, 0.0, 150.0), 190.0);
        assert_eq!(limit_of_work(limits, 0.0, 191.0), 191.0);
    }

    #[test]
    fn the_limit_of_two_kinds_of_products_is_that_of_the_time_that_they_take() {
        let limits = ProductLimits { usual: 100.0, int8: 400.0 };
        assert_eq!((limits.of(0.0), limits.of(1.0)), (100.0, 400.0));
        assert!((limits.of(0.5) - 160.0).abs() < 1e-9);
    }
}

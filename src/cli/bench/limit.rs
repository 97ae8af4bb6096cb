//! The FMA limit of all lanes, or of an accelerator, sampled around what is timed.

use std::time::Instant;

use crate::device::Device;
use crate::engine::Lanes;
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
}

impl<'a, D: Device> FmaLimit<'a, D> {
    /// Takes a first sample.
    pub fn new(lanes: &'a Lanes<D>, precision: Precision) -> Self {
        let best = Best { lanes: vec![0.0; lanes.threads()], reached: 0.0 };
        let mut limit = Self { lanes, precision, sampled: Instant::now(), best };
        limit.sample();
        limit
    }

    /// Takes one more sample.
    fn sample(&mut self) {
        self.best.take(&self.lanes.fma_limits(self.precision, SAMPLE_SECONDS));
        self.sampled = Instant::now();
    }

    /// To be called between repetitions of the timed work: takes a sample if the last one is some time ago.
    pub fn refresh(&mut self) {
        if self.sampled.elapsed().as_secs_f64() >= EVERY_SECONDS {
            self.sample();
        }
    }

    /// The limit in GFLOP/s, after a last sample; the work reached `gflops` in its fastest repetition.
    pub fn finish(mut self, gflops: f64) -> f64 {
        self.sample();
        self.best.reached = gflops;
        self.best.gflops()
    }
}

/// The highest figures seen, in GFLOP/s.
struct Best {
    lanes: Vec<f64>,
    reached: f64,
}

impl Best {
    fn take(&mut self, sample: &[f64]) {
        for (best, &sample) in self.lanes.iter_mut().zip(sample) {
            *best = best.max(sample);
        }
    }

    fn gflops(&self) -> f64 {
        self.lanes.iter().sum::<f64>().max(self.reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_sample_lowers_no_limit_and_work_never_exceeds_it() {
        let mut best = Best { lanes: vec![0.0; 2], reached: 0.0 };
        best.take(&[100.0, 20.0]);
        best.take(&[30.0, 90.0]);
        assert_eq!(best.gflops(), 190.0);
        best.reached = 150.0;
        assert_eq!(best.gflops(), 190.0);
        best.reached = 191.0;
        assert_eq!(best.gflops(), 191.0);
    }
}

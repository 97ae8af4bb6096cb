//! Measures what the scaling model needs to know of a machine.

use std::time::Instant;

use super::Profile;
use super::scaling::MachineFigures;
use crate::engine::Lanes;
use crate::error::Result;

/// Fork-joins that are timed together.
const JOINS: u32 = 2000;

impl MachineFigures {
    /// Measures the bandwidth of all lanes at once, and hand-overs on at least two. `limit_gflops` is the FMA limit of all
    /// lanes; a profile of the experiment gives the rest.
    pub fn measure(lanes: &Lanes, profile: &Profile, limit_gflops: f64) -> Result<Self> {
        Ok(Self {
            core_limit: limit_gflops * 1e9 / lanes.threads() as f64,
            sequence_seconds: profile.sequence_seconds(),
            core_bandwidth: Self::core_bandwidth(lanes),
            handover_seconds: Self::handover_seconds(lanes)?,
            serial_per_sequence: profile.serial_per_sequence(),
        })
    }

    /// Bytes read and written per second by each of all lanes, which copy at once.
    pub fn core_bandwidth(lanes: &Lanes) -> f64 {
        1e9 * lanes.copy_limit(0.0) / lanes.threads() as f64
    }

    /// Seconds of a hand-over between two threads.
    pub fn handover_seconds(lanes: &Lanes) -> Result<f64> {
        handover(lanes.threads().max(2))
    }
}

/// Seconds of a fork-join over so many threads that has nothing to do, for each level of its tree.
fn handover(threads: usize) -> Result<f64> {
    fn fork(walkers: usize) {
        if walkers > 1 {
            rayon::join(|| fork(walkers.div_ceil(2)), || fork(walkers / 2));
        }
    }
    let levels = f64::from(threads.next_power_of_two().ilog2());
    let per_join = Lanes::new(threads)?.install(|| {
        let start = Instant::now();
        for _ in 0..JOINS {
            fork(threads);
        }
        start.elapsed().as_secs_f64() / f64::from(JOINS)
    });
    Ok(per_join / levels)
}

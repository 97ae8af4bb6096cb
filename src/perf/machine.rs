//! Measures what the scaling model needs to know of a machine.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::Workload;
use super::scaling::MachineFigures;
use crate::config::Config;
use crate::device::{Cpu, Device as _};
use crate::engine::Lanes;
use crate::error::Result;
use crate::model::Model;

/// Threads of a team that is timed, at most: how much it does not divide shows with two already.
const MOST_IN_TEAM: usize = 4;

/// Rounds of groups that are profiled.
const ROUNDS: usize = 2;

/// Updates by which a team is judged.
const TURNS: usize = 5;

/// Fork-joins that are timed, at most, and the seconds in which to do it.
const JOINS: u32 = 2000;
const JOIN_SECONDS: f64 = 0.5;

/// How often a thread looks for the others before it lets one of them have its core.
const SPINS: usize = 1000;

impl MachineFigures {
    /// Measures the bandwidth of all lanes at once, and hand-overs and a team of at least two. `limit_gflops` is the FMA limit of
    /// all lanes; a profile of the experiment `config` gives the rest, with whole rounds of groups, in which no lane helps another.
    pub fn measure(lanes: &Lanes, config: &Config, limit_gflops: f64) -> Result<Self> {
        let mut rounds = config.clone();
        let groups = ROUNDS * lanes.threads();
        (rounds.train.batch_size, rounds.train.gradient_groups) = (groups * shard(config), groups);
        let profile = Workload::new(lanes, rounds)?.profile(1 + ROUNDS as u64)?;
        Ok(Self {
            team_serial: Self::team_serial_of(config, lanes.threads().clamp(2, MOST_IN_TEAM))?,
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

    /// Share of a shard's work that a team of so many threads does not divide: the seconds of one gradient group of one shard,
    /// alone and by the team, in turns. t(k) = t(1) · (σ + (1 − σ) / k).
    pub fn team_serial_of(config: &Config, threads: usize) -> Result<f64> {
        let mut config = config.clone();
        (config.train.batch_size, config.train.gradient_groups) = (shard(&config), 1);
        let (one, team) = (Lanes::new(1)?, Lanes::new(threads)?);
        let mut workloads = [Workload::new(&one, config.clone())?, Workload::new(&team, config)?];
        let mut seconds = [f64::INFINITY; 2];
        for turn in 0..=TURNS {
            for (workload, fastest) in workloads.iter_mut().zip(&mut seconds) {
                let took = workload.profile(1)?.accumulation_seconds();
                // The first update makes room.
                *fastest = if turn == 0 { f64::INFINITY } else { fastest.min(took) };
            }
        }
        let k = threads as f64;
        Ok(((k * seconds[1] / seconds[0] - 1.0) / (k - 1.0)).clamp(0.0, 1.0))
    }

    /// Seconds of a hand-over between two threads.
    pub fn handover_seconds(lanes: &Lanes) -> Result<f64> {
        handover(lanes.threads().max(2))
    }
}

/// Sequences that a lane takes at a time.
fn shard(config: &Config) -> usize {
    Cpu::<f32>::shard(Model::new(&config.model, &config.task).len)
}

/// Seconds of a fork-join over so many threads, on each of which something small happens, for each level of its tree: the median. (Where
/// nothing has to happen elsewhere, one thread does all before another has noticed.)
fn handover(threads: usize) -> Result<f64> {
    fn fork(walkers: usize, begun: &AtomicUsize, all: usize, start: Instant) {
        if walkers > 1 {
            rayon::join(|| fork(walkers.div_ceil(2), begun, all, start), || fork(walkers / 2, begun, all, start));
            return;
        }
        begun.fetch_add(1, Ordering::AcqRel);
        for spins in 0usize.. {
            if begun.load(Ordering::Acquire) >= all {
                return;
            }
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            // The pool promises that the other half is done, not that another thread does it: it may wait for this one.
            if start.elapsed().as_secs_f64() > JOIN_SECONDS {
                return;
            }
            // With fewer cores than threads, the others wait for this one.
            std::thread::yield_now();
        }
    }
    let levels = f64::from(threads.next_power_of_two().ilog2());
    let mut seconds = Lanes::new(threads)?.install(|| {
        let started = Instant::now();
        let join = |_| {
            let (begun, start) = (AtomicUsize::new(0), Instant::now());
            fork(threads, &begun, threads, start);
            start.elapsed().as_secs_f64()
        };
        let in_time = |_: &f64| started.elapsed().as_secs_f64() < JOIN_SECONDS;
        (0..JOINS).map(join).take_while(in_time).collect::<Vec<f64>>()
    });
    seconds.sort_by(f64::total_cmp);
    Ok(seconds.get(seconds.len() / 2).copied().unwrap_or(JOIN_SECONDS) / levels)
}

//! Several runs of one machine side by side, each on cores of its own: the seeds of an experiment, or the points of a sweep.
//!
//! A wide run loses a little at the end of every update, where its lanes meet; narrow ones meet less. So runs that are many anyway
//! are better off with a few cores each (`EXPERIMENTS.md`, "Several runs side by side").

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Footprint, MemoryLimits};
use crate::device::{Cpu, Topology};
use crate::engine::Lanes;
use crate::error::{Error, Result};

/// Where runs are at work at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideBySide {
    /// Of each run at work: the cores that are its own.
    places: Vec<Topology>,
    threads: usize,
}

impl SideBySide {
    /// As many of `runs` at a time as there are cores for, `threads` lanes each (0: the cores in equal shares), and memory, of which
    /// each needs `footprint` for so many threads.
    ///
    /// # Errors
    /// When not even one run fits into memory.
    pub fn plan(runs: usize, threads: usize, footprint: impl Fn(usize) -> Footprint) -> Result<Self> {
        Self::plan_on(&Topology::detect(), Lanes::default_threads(), &MemoryLimits::read(), (runs, threads), footprint)
    }

    /// The same on a machine that is described, of whose cores `available` may be used.
    ///
    /// # Errors
    /// As [`SideBySide::plan`].
    pub fn plan_on(
        topology: &Topology,
        available: usize,
        limits: &MemoryLimits,
        (runs, threads): (usize, usize),
        footprint: impl Fn(usize) -> Footprint,
    ) -> Result<Self> {
        let cores = topology.lanes().min(available).max(1);
        let at_once = runs.min(cores.checked_div(threads).unwrap_or(cores)).max(1);
        let share = |at_once: usize| if threads == 0 { cores / at_once } else { threads };
        let mut places = at_once;
        let memory = limits.free().map(|(bytes, _)| bytes);
        if let Some(memory) = memory {
            let fits = |places: &usize| footprint(share(*places)).total.saturating_mul(*places as u64) <= memory;
            places = (1..=places).rev().find(fits).ok_or_else(|| {
                let needed = footprint(share(1)).total;
                Error::input(format!(
                    "a run needs about {} MB of memory and {} MB can be had; give smaller settings or fewer threads",
                    needed >> 20,
                    memory >> 20
                ))
            })?;
        }
        Ok(Self { threads: share(places), places: topology.split(places) })
    }

    /// Runs at work at the same time.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// Lanes of each.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Does `work` for every number below `runs`, each on lanes of its own, pinned to their cores where the system lets them
    /// be. A place takes the next number as soon as it is free. Returns the results by number.
    ///
    /// # Errors
    /// The first of `work`'s, by number, among those that had begun: no further number is taken after it. And when threads cannot be
    /// started.
    pub fn run<R: Send>(&self, runs: usize, work: impl Fn(usize, &Lanes) -> Result<R> + Sync) -> Result<Vec<R>> {
        let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let at = |place: &Topology| -> Result<()> {
            let lanes = Lanes::<Cpu<f32>>::pinned(place, self.threads).or_else(|_| Lanes::on(place, self.threads))?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= runs {
                    return Ok(());
                }
                let result = work(number, &lanes);
                if result.is_err() {
                    next.store(runs, Ordering::Relaxed);
                }
                results.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((number, result));
            }
        };
        let started: Vec<Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self.places.iter().map(|place| scope.spawn(|| at(place))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        started.into_iter().collect::<Result<()>>()?;
        let mut results = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        results.sort_by_key(|(number, _)| *number);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::model::Model;

    fn footprint(threads: usize) -> Footprint {
        let config = Config::resolve(Some("sudoku-4x4"), None, &[]).unwrap();
        let counted = Footprint::of_training(&Model::new(&config.model, &config.task), &config, 10, threads);
        Footprint { total: (threads as u64) << 30, ..counted }
    }

    fn planned(cores: usize, available: usize, memory: Option<u64>, runs: (usize, usize)) -> Result<(usize, usize)> {
        let nowhere = std::path::Path::new("/nonexistent");
        let topology = Topology::read(nowhere, &(0..cores).collect::<Vec<_>>());
        let limits = MemoryLimits { total: memory, ..MemoryLimits::default() };
        let plan = SideBySide::plan_on(&topology, available, &limits, runs, footprint)?;
        Ok((plan.places(), plan.threads()))
    }

    #[test]
    fn runs_share_the_cores_as_far_as_memory_goes() {
        let gigabytes = |count: u64| Some(count << 30);
        for (cores, available, memory, runs, expected) in [
            (8, 8, None, (4, 0), (4, 2)),
            (8, 8, None, (3, 0), (3, 2)),
            (8, 8, None, (100, 0), (8, 1)),
            (8, 8, None, (100, 4), (2, 4)),
            (8, 8, None, (1, 0), (1, 8)),
            (8, 3, None, (100, 0), (3, 1)),
            (2, 2, None, (5, 4), (1, 4)),
            (8, 8, gigabytes(8), (8, 0), (8, 1)),
            (8, 8, gigabytes(5), (8, 1), (5, 1)),
            (8, 8, gigabytes(5), (4, 2), (2, 2)),
            (1, 1, gigabytes(1), (4, 0), (1, 1)),
        ] {
            assert_eq!(
                planned(cores, available, memory, runs).unwrap(),
                expected,
                "{cores} cores, {memory:?}, {runs:?}"
            );
        }
        let message = planned(8, 8, gigabytes(1), (4, 2)).unwrap_err().to_string();
        assert!(message.contains("2048 MB") && message.contains("1024 MB"), "{message}");
    }

    #[test]
    fn every_number_is_done_once_on_lanes_of_its_own_and_an_error_ends_the_rest() {
        let nowhere = std::path::Path::new("/nonexistent");
        let topology = Topology::read(nowhere, &[0, 1]);
        let plan = SideBySide::plan_on(&topology, 2, &MemoryLimits::default(), (7, 0), footprint).unwrap();
        let results = plan.run(7, |number, lanes| Ok((number, lanes.threads()))).unwrap();
        assert!(results.into_iter().eq((0..7).map(|number| (number, 1))));
        let begun = AtomicUsize::new(0);
        let failed = plan.run(1000, |number, _| {
            begun.fetch_add(1, Ordering::Relaxed);
            if number >= 2 { Err(Error::input(format!("run {number} failed"))) } else { Ok(number) }
        });
        let message = failed.unwrap_err().to_string();
        assert!(message.contains("run 2 failed") || message.contains("run 3 failed"), "{message}");
        assert!(begun.into_inner() <= 4, "nothing is begun after it");
    }
}

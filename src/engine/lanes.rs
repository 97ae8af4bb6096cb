//! The threads of a process, a lane on each; where they run, and which NUMA node's memory they use.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, TryLockError};

use crossbeam_utils::CachePadded;

use super::Lane;
use crate::device::{Cpu, Device, Params, Precision, Team, Topology, available};
use crate::error::{Error, Result};

/// The threads of a process, with a lane for each.
pub struct Lanes<D: Device = Cpu<f32>> {
    pool: rayon::ThreadPool,
    /// How many of them may share a product.
    team: Team,
    /// What a lane holds grows on its own thread, so its pages are first touched there. Nobody ever waits for a lane: only
    /// its thread takes it.
    lanes: Vec<CachePadded<Mutex<Lane<D>>>>,
    /// NUMA node of each thread, counted from 0.
    node_of_thread: Vec<usize>,
    /// Lanes of each NUMA node; one entry where nothing is known of nodes.
    lanes_of_node: Vec<usize>,
}

impl Lanes {
    /// `threads` lanes of the CPU in f32, wherever the system puts them, taken for one node.
    ///
    /// # Errors
    /// When the system refuses to start that many threads.
    pub fn new(threads: usize) -> Result<Self> {
        Self::start(threads)
    }

    /// Lanes when their number is left to the engine: one for each physical core this process may use and that is fast enough
    /// ([`Topology::lanes`]), within its quota of processor time ([`available`]), but no more than the processors that SLURM
    /// gave its task, where a cluster leaves it to the job to keep to them.
    pub fn default_threads() -> usize {
        let of_task = std::env::var("SLURM_CPUS_PER_TASK").ok();
        allowed(Topology::detect().lanes().min(available()), of_task.as_deref())
    }
}

/// Of so many cores, those that a task with this `SLURM_CPUS_PER_TASK` may use; one at least.
fn allowed(cores: usize, of_task: Option<&str>) -> usize {
    let of_task = of_task.and_then(|cpus| cpus.trim().parse().ok()).filter(|&cpus: &usize| cpus > 0);
    cores.min(of_task.unwrap_or(cores)).max(1)
}

impl<D: Device> Lanes<D> {
    /// `threads` lanes on a device, wherever the system puts them, taken for one node.
    ///
    /// # Errors
    /// When the system refuses to start that many threads.
    pub fn start(threads: usize) -> Result<Self> {
        Self::on_nodes(vec![0; threads])
    }

    /// `threads` lanes spread evenly over the cores of a topology; weights are kept once for each of its nodes.
    ///
    /// # Errors
    /// As [`Lanes::start`].
    pub fn on(topology: &Topology, threads: usize) -> Result<Self> {
        let by_lane: Vec<usize> = (0..threads).map(|lane| topology.place(lane, threads).node).collect();
        // Nodes that got no lane (fewer lanes than nodes) are left out.
        let mut nodes = by_lane.clone();
        nodes.dedup();
        Self::on_nodes(by_lane.iter().map(|at| nodes.iter().position(|node| node == at).unwrap_or(0)).collect())
    }

    /// As [`Lanes::on`], each thread pinned to its core: the first lane of a core to its first hardware thread, the
    /// next to the next.
    ///
    /// # Errors
    /// As [`Lanes::start`], and when the system refuses to pin.
    pub fn pinned(topology: &Topology, threads: usize) -> Result<Self> {
        let lanes = Self::on(topology, threads)?;
        let refused = lanes.pool.broadcast(|thread| {
            let cpu = topology.place(thread.index(), threads).cpu;
            (!core_affinity::set_for_current(core_affinity::CoreId { id: cpu })).then_some(cpu)
        });
        match refused.into_iter().flatten().next() {
            Some(cpu) => Err(Error::input(format!(
                "--pin: the system refuses to pin a thread to processor {cpu}; leave --pin out"
            ))),
            None => Ok(lanes),
        }
    }

    /// One lane on each of the nodes given.
    fn on_nodes(node_of_thread: Vec<usize>) -> Result<Self> {
        let threads = node_of_thread.len();
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("lane {i}")).build().map_err(
                |e| Error::input(format!("cannot start {threads} threads ({e}); ask for fewer with --threads")),
            )?;
        let team = Team::default();
        let lane = |(index, &node): (usize, &usize)| {
            let lane = Lane::new(index, node, &team);
            CachePadded::new(Mutex::new(lane))
        };
        let lanes = node_of_thread.iter().enumerate().map(lane).collect();
        let nodes = node_of_thread.iter().max().map_or(1, |last| last + 1);
        let lanes_of_node = (0..nodes).map(|node| node_of_thread.iter().filter(|n| **n == node).count()).collect();
        Ok(Self { pool, team, lanes, node_of_thread, lanes_of_node })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.lanes.len()
    }

    /// How many lanes each NUMA node has.
    pub fn lanes_of_node(&self) -> &[usize] {
        &self.lanes_of_node
    }

    /// How many threads may share a product at the moment.
    pub(crate) fn team(&self) -> &Team {
        &self.team
    }

    /// Bytes of all lanes' memory.
    pub fn memory_bytes(&self) -> usize {
        self.each(|_| self.with_lane(|lane| lane.memory_bytes())).into_iter().sum()
    }

    /// Sequences of `len` positions that a lane takes at a time in inference.
    pub fn shard(&self, len: usize) -> usize {
        self.install(|| self.with_lane(|lane| lane.memory.device.shard_now(len)))
    }

    /// Runs `work` inside the pool, so that rayon's splits happen on its threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Runs `work` on every thread, to each its index, and collects the results in that order.
    pub fn each<R: Send>(&self, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
        self.pool.broadcast(|thread| work(thread.index()))
    }

    /// What each lane can multiply at most, in GFLOP/s, measured on all at once.
    pub fn fma_limits(&self, precision: Precision, seconds: f64) -> Vec<f64> {
        self.each(|_| D::multiply_limit(precision, seconds))
    }

    /// The same of whole numbers of eight bits.
    pub fn int8_limits(&self, seconds: f64) -> Vec<f64> {
        self.each(|_| D::int8_limit(seconds))
    }

    /// What all lanes together can multiply at most, in GFLOP/s, measured once: what MFU is measured against. This share of the
    /// products has operands of eight bits.
    pub fn fma_limit(&self, precision: Precision, int8_share: f64, seconds: f64) -> f64 {
        let sum = |limits: Vec<f64>| limits.into_iter().sum::<f64>();
        let int8 = if int8_share > 0.0 { sum(self.int8_limits(seconds)) } else { 0.0 };
        ProductLimits { usual: sum(self.fma_limits(precision, seconds)), int8 }.of(int8_share)
    }

    /// What all lanes together can copy at most, in GB/s read and written together.
    pub fn copy_limit(&self, seconds: f64) -> f64 {
        self.each(|_| D::copy_limit(seconds)).into_iter().sum()
    }

    /// Gives every NUMA node a copy of the weights in the device's form, made by a thread of that node.
    pub fn replicate(&self, params: &mut Params<D>) {
        self.install(|| D::replicate(params, &self.node_of_thread));
    }

    /// Runs `work` with the calling thread's own lane.
    ///
    /// A thread that waits for a part of its lane's product may be given work that others brought to the pool meanwhile; that
    /// gets a lane of its own, which is dropped with it.
    ///
    /// # Panics
    /// Outside of [`Lanes::install`].
    pub fn with_lane<R>(&self, work: impl FnOnce(&mut Lane<D>) -> R) -> R {
        let index = rayon::current_thread_index().expect("called on a thread of the pool");
        match self.lanes[index].try_lock() {
            Ok(mut lane) => work(&mut lane),
            // A panic leaves a lane with an unfinished tape, which the next one clears.
            Err(TryLockError::Poisoned(lane)) => work(&mut lane.into_inner()),
            Err(TryLockError::WouldBlock) => work(&mut Lane::new(index, self.node_of_thread[index], &self.team)),
        }
    }

    /// As [`Lanes::with_lane`], in single-sequence mode: the work is one sequence's, so the other threads help with its
    /// products. They wait for those awake, since products follow each other faster than a thread wakes up.
    pub fn alone<R: Send>(&self, work: impl FnOnce(&mut Lane<D>) -> R + Send) -> R {
        let Some(leader) = self.team.lead() else { return self.with_lane(work) };
        let own = rayon::current_thread_index();
        let done = AtomicBool::new(false);
        rayon::scope(|scope| {
            // Each thread gets this once: another's would be a wait for ourselves.
            scope.spawn_broadcast(|_, thread| {
                while Some(thread.index()) != own && !done.load(Ordering::Acquire) {
                    if rayon::yield_now() != Some(rayon::Yield::Executed) {
                        std::hint::spin_loop();
                    }
                }
            });
            let _release = Release(&done);
            leader.set_size(self.threads());
            self.with_lane(work)
        })
    }
}

/// What products can be computed at most, in GFLOP/s.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProductLimits {
    /// Of operands in a run's precision.
    pub usual: f64,
    /// Of whole numbers of eight bits; 0 where there are none.
    pub int8: f64,
}

impl ProductLimits {
    /// Of products of which this share of the FLOPs is in eight bits.
    pub fn of(self, int8_share: f64) -> f64 {
        if int8_share > 0.0 { 1.0 / (int8_share / self.int8 + (1.0 - int8_share) / self.usual) } else { self.usual }
    }
}

/// Ends a wait, even when what was waited for panics.
struct Release<'a>(&'a AtomicBool);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slurm_task_uses_no_more_threads_than_it_was_given() {
        for (cores, of_task, threads) in [
            (64, None, 64),
            (64, Some("16"), 16),
            (8, Some("16"), 8),
            (64, Some(" 4\n"), 4),
            (64, Some("0"), 64),
            (64, Some("many"), 64),
            (0, Some("4"), 1),
        ] {
            assert_eq!(allowed(cores, of_task), threads, "{cores} {of_task:?}");
        }
    }

    #[test]
    fn two_pools_have_lanes_of_their_own() {
        let (a, b) = (Lanes::new(2).expect("threads"), Lanes::new(3).expect("threads"));
        a.each(|index| a.with_lane(|lane| lane.sums.resize(10 + index, 0.0)));
        b.each(|_| b.with_lane(|lane| assert!(lane.sums.is_empty())));
        // A thread of one pool that works in the other takes a lane there.
        a.install(|| {
            a.with_lane(|own| b.install(|| b.with_lane(|other| assert_ne!(own.sums.len(), other.sums.len()))))
        });
        assert_eq!(a.each(|_| a.with_lane(|lane| lane.sums.len())), [10, 11]);
    }

    #[test]
    fn work_that_a_thread_is_given_while_its_lane_works_has_a_lane_of_its_own() {
        let lanes = Lanes::new(1).expect("threads");
        lanes.install(|| {
            lanes.with_lane(|own| {
                own.sums.resize(3, 0.0);
                lanes.with_lane(|other| assert!(other.sums.is_empty()));
                assert_eq!(lanes.alone(|other| other.sums.len()), 0);
            });
        });
    }
}

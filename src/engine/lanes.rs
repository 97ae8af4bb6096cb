//! The threads of a process, a lane on each; where they run, and which NUMA node's memory they use.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Lane;
use crate::device::{Topology, available};
use crate::error::{Error, Result};
use crate::simd::{self, Precision};
use crate::tape::{self, Params};

thread_local! {
    /// Every thread's own lane. What it holds grows on that thread, so its pages are first touched there.
    static LANE: RefCell<Lane> = RefCell::default();
}

/// The threads of a process, with a lane for each.
pub struct Lanes {
    pool: rayon::ThreadPool,
    threads: usize,
    /// Lanes of each NUMA node; one entry where nothing is known of nodes.
    lanes_of_node: Vec<usize>,
}

impl Lanes {
    /// `threads` lanes wherever the system puts them, taken for one node.
    ///
    /// # Errors
    /// When the system refuses to start that many threads.
    pub fn new(threads: usize) -> Result<Self> {
        let pool =
            rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("lane {i}")).build().map_err(
                |e| Error::input(format!("cannot start {threads} threads ({e}); ask for fewer with --threads")),
            )?;
        let lanes = Self { pool, threads, lanes_of_node: vec![threads] };
        lanes.pool.broadcast(|thread| with_own_lane(|lane| (lane.index, lane.node) = (thread.index(), 0)));
        Ok(lanes)
    }

    /// `threads` lanes spread evenly over the cores of a topology; weights are kept once for each of its nodes.
    ///
    /// # Errors
    /// As [`Lanes::new`].
    pub fn on(topology: &Topology, threads: usize) -> Result<Self> {
        let mut lanes = Self::new(threads)?;
        // Nodes that got no lane (fewer lanes than nodes) are left out.
        let mut nodes: Vec<usize> = (0..threads).map(|lane| topology.place(lane, threads).node).collect();
        let by_lane = nodes.clone();
        nodes.dedup();
        lanes.lanes_of_node = nodes.iter().map(|node| by_lane.iter().filter(|n| *n == node).count()).collect();
        lanes.pool.broadcast(|thread| {
            let at = by_lane[thread.index()];
            let node = nodes.iter().position(|&node| node == at).unwrap_or(0);
            with_own_lane(|lane| lane.node = node);
            tape::set_node(node);
        });
        Ok(lanes)
    }

    /// As [`Lanes::on`], each thread pinned to its core: the first lane of a core to its first hardware thread, the
    /// next to the next.
    ///
    /// # Errors
    /// As [`Lanes::new`], and when the system refuses to pin.
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

    /// Lanes when their number is left to the engine: one for each physical core this process may use.
    pub fn default_threads() -> usize {
        Topology::detect().cores().min(available()).max(1)
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// How many lanes each NUMA node has.
    pub fn lanes_of_node(&self) -> &[usize] {
        &self.lanes_of_node
    }

    /// Bytes of all lanes' arenas.
    pub fn arena_bytes(&self) -> usize {
        self.each(|_| with_own_lane(|lane| lane.arena_bytes())).into_iter().sum()
    }

    /// Runs `work` inside the pool, so that rayon's splits happen on its threads.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Runs `work` on every thread, to each its index, and collects the results in that order.
    pub fn each<R: Send>(&self, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
        self.pool.broadcast(|thread| work(thread.index()))
    }

    /// The FMA limit of all lanes at once, in GFLOP/s: what MFU is measured against.
    pub fn fma_limit(&self, precision: Precision, seconds: f64) -> f64 {
        self.each(|_| simd::fma_limit(precision, seconds)).into_iter().sum()
    }

    /// Gives every NUMA node a packed copy of the weights, made by a thread of that node.
    pub fn replicate(&self, params: &mut Params<f32>) {
        if params.nodes() != self.lanes_of_node.len() {
            self.install(|| params.replicate(self.lanes_of_node.len()));
        }
    }

    /// Runs `work` with the calling thread's own lane; to be called inside [`Lanes::install`]. `work` must not split:
    /// the other half might ask for the same lane.
    pub fn with_lane<R>(&self, work: impl FnOnce(&mut Lane) -> R) -> R {
        with_own_lane(work)
    }

    /// As [`Lanes::with_lane`], for work that is all there is to do: the other threads help with its products, and wait
    /// for them awake, since products follow each other faster than a thread wakes up.
    pub fn alone<R: Send>(&self, work: impl FnOnce(&mut Lane) -> R + Send) -> R {
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
            simd::in_parts(self.threads, || with_own_lane(work))
        })
    }
}

/// Ends a wait, even when what was waited for panics.
struct Release<'a>(&'a AtomicBool);

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

fn with_own_lane<R>(work: impl FnOnce(&mut Lane) -> R) -> R {
    LANE.with_borrow_mut(work)
}

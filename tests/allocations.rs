//! After the first few steps a training step allocates nothing.
//!
//! One test alone in its process: the allocator counts what every lane allocates.

#[allow(dead_code)] // a part of it is used here
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{RandomExamples, config};
use trm::config::{Mixing, PrecisionSetting};
use trm::engine::{Lanes, Weights};
use trm::model::Model;
use trm::train::Trainer;

/// The system's allocator, with a counter.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread's requests are counted. Not those of the test harness, which prints (and allocates) when a test
    /// takes long. A thread that a step were to start would be noticed all the same: its lane allocates it.
    static COUNTED_THREAD: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if COUNTED_THREAD.get() {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Updates until every lane has seen every size of shard, most likely.
const FIRST: usize = 20;
/// Updates that are counted: more than the tasks that fit one block of a thread pool's queue.
const COUNTED: usize = 70;
/// Who takes which shard is decided by the clock, so a lane may meet its largest one late: that many attempts.
const ATTEMPTS: usize = 4;

/// Whether [`COUNTED`] updates in a row allocate nothing.
fn settles(mixing: Mixing, batch_size: usize, threads: usize, extras: bool, precision: PrecisionSetting) -> bool {
    let mut config = config(mixing, batch_size);
    (config.train.precision, config.model.l_cycles) = (precision, 1);
    if !extras {
        config.train.continue_loss = false;
        (config.model.puzzle_emb_ndim, config.model.puzzle_emb_len, config.model.learned_prefix) = (0, 0, 1);
    }
    let lanes = Lanes::new(threads).unwrap();
    let model = Model::new(&config.model, &config.task);
    let mut examples = RandomExamples::new(&config);
    let weights = Weights::new(&model, &config);
    let mut trainer = Trainer::on(&lanes, config, weights, 1000).expect("room for it");
    // As a run does it: the loop is on a thread of the pool.
    lanes.install(|| {
        rayon::broadcast(|_| COUNTED_THREAD.set(true));
        for _ in 0..FIRST {
            trainer.step(&mut examples).unwrap();
        }
        let mut attempt = || {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for _ in 0..COUNTED {
                trainer.step(&mut examples).unwrap();
            }
            ALLOCATIONS.load(Ordering::Relaxed) - before
        };
        (0..ATTEMPTS).any(|_| attempt() == 0)
    })
}

#[test]
fn after_the_first_steps_a_training_step_allocates_nothing() {
    let lanes = Lanes::new(2).unwrap();
    lanes.install(|| {
        rayon::broadcast(|_| {
            COUNTED_THREAD.set(true);
            drop(std::hint::black_box(vec![1u8; 100]));
        })
    });
    assert!(ALLOCATIONS.load(Ordering::Relaxed) >= 2, "every lane's requests are counted");
    for mixing in [Mixing::MlpT, Mixing::Attention] {
        for extras in [false, true] {
            for (threads, batch_size, precision) in [
                (1, 16, PrecisionSetting::F32),
                (1, 14, PrecisionSetting::F32),
                (2, 16, PrecisionSetting::F32),
                (2, 14, PrecisionSetting::Bf16),
            ] {
                assert!(
                    settles(mixing, batch_size, threads, extras, precision),
                    "{mixing:?}, batch {batch_size}, {threads} threads, {precision:?}, puzzle table and continue loss: \
                     {extras}"
                );
            }
        }
    }
}

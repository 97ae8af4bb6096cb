//! What others ask of a run while it trains.

use std::sync::atomic::{AtomicBool, Ordering};

/// What others ask of a run while it trains: a signal handler, another thread. The run looks after each update, and between the
/// puzzles of an evaluation.
#[derive(Debug, Default)]
pub struct Requests {
    stop: AtomicBool,
    save: AtomicBool,
}

impl Requests {
    /// Nothing is asked.
    pub const fn new() -> Self {
        Self { stop: AtomicBool::new(false), save: AtomicBool::new(false) }
    }

    /// Asks it to save everything and end; it cannot be taken back.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Asks it to save a checkpoint and go on.
    pub fn save(&self) {
        self.save.store(true, Ordering::SeqCst);
    }

    /// Whether somebody has asked it to end.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether somebody waits for a checkpoint.
    pub(super) fn is_save_asked(&self) -> bool {
        self.save.load(Ordering::SeqCst)
    }

    /// The same; whoever asked is served by who asks here.
    pub(super) fn take_save(&self) -> bool {
        self.save.swap(false, Ordering::SeqCst)
    }
}

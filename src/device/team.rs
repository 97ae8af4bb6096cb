//! Threads that help each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How many threads of a pool may share one product at the moment: 1 as long as every lane has work of its own, more when some
/// would be idle. All lanes of a pool ask the same one before each product; no bit of a result depends on the answer.
#[derive(Clone, Debug)]
pub struct Team(Arc<State>);

#[derive(Debug)]
struct State {
    size: AtomicUsize,
    /// Whether somebody says how large it is.
    is_led: AtomicBool,
}

impl Default for Team {
    fn default() -> Self {
        Self(Arc::new(State { size: AtomicUsize::new(1), is_led: AtomicBool::new(false) }))
    }
}

impl Team {
    /// Threads for a product.
    #[inline]
    pub fn size(&self) -> usize {
        self.0.size.load(Ordering::Relaxed)
    }

    /// For work that has all threads of the pool to itself, until the result is dropped; `None` when other work has them.
    pub fn lead(&self) -> Option<Leader> {
        let was_led = self.0.is_led.swap(true, Ordering::AcqRel);
        (!was_led).then(|| Leader(self.clone()))
    }
}

/// Says how large a team is.
#[derive(Debug)]
pub struct Leader(Team);

impl Leader {
    /// From here on so many threads share a product.
    pub fn set_size(&self, threads: usize) {
        self.0.0.size.store(threads.max(1), Ordering::Relaxed);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.set_size(1);
        self.0.0.is_led.store(false, Ordering::Release);
    }
}

//! Threads that help each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many threads of a pool may share one product at the moment: 1 as long as every lane has work of its own, more when some
/// would be idle. All lanes of a pool ask the same one before each product; no bit of a result depends on the answer.
#[derive(Clone, Debug)]
pub struct Team(Arc<AtomicUsize>);

impl Default for Team {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(1)))
    }
}

impl Team {
    /// Threads for a product.
    #[inline]
    pub fn size(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// From here on so many.
    pub fn set(&self, threads: usize) {
        self.0.store(threads.max(1), Ordering::Relaxed);
    }
}

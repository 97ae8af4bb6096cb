//! Memory that several threads write at once, each other stretches of it.

use std::marker::PhantomData;
use std::ops::Range;

use super::vector::STREAMED;

/// Memory that threads write disjoint stretches of.
pub struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: it is an exclusive borrow, and whoever slices it promises that slices are disjoint.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// Of memory that nobody else has.
    pub fn new(memory: &'a mut [T]) -> Self {
        Self { start: memory.as_mut_ptr(), len: memory.len(), memory: PhantomData }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is so large that it is written past the caches.
    #[inline(always)]
    pub fn is_streamed(&self) -> bool {
        self.len * size_of::<T>() >= STREAMED
    }

    /// # Safety
    /// No other slice of these elements is in use.
    #[allow(clippy::mut_from_ref)]
    #[inline(always)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "stretch out of bounds");
        // SAFETY: inside the memory that is borrowed for 'a; the caller promises that nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

//! Memory of a device that computes on the host: one growing piece, read and written block by block.

use super::{ALIGNMENT, Block, Space};
use crate::simd::{Aligned, LINE, Real};

const _: () = assert!(ALIGNMENT == LINE, "blocks start on cache lines, as the memory does");

/// Elements in one piece, and what of them is in use.
pub(super) struct HostMemory<T> {
    elements: Aligned<T>,
    pub space: Space,
}

impl<T> Default for HostMemory<T> {
    fn default() -> Self {
        Self { elements: Aligned::new(), space: Space::default() }
    }
}

impl<T: Real> HostMemory<T> {
    /// Grows to what has been handed out.
    pub fn reserve(&mut self) {
        // What is reserved ahead and not yet used costs address space only.
        self.elements.at_least(self.space.extent());
    }

    /// Bytes in use.
    pub fn size_bytes(&self) -> usize {
        self.elements.len() * size_of::<T>()
    }

    /// The elements of a block.
    pub fn get(&self, block: Block) -> &[T] {
        &self.elements.as_slice()[block.offset()..block.offset() + block.len()]
    }

    /// The elements of a block, for writing.
    pub fn get_mut(&mut self, block: Block) -> &mut [T] {
        let ([], [slice]) = self.split([], [block]);
        slice
    }

    /// Several blocks at once: `reads` may overlap each other; no block of `writes` may overlap any other.
    ///
    /// # Panics
    /// When they do, or when a block reaches past the memory.
    pub fn split<const R: usize, const W: usize>(
        &mut self,
        reads: [Block; R],
        writes: [Block; W],
    ) -> ([&[T]; R], [&mut [T]; W]) {
        let elements = self.elements.len();
        for (i, write) in writes.iter().enumerate() {
            let clash = reads.iter().chain(&writes[..i]).any(|other| other.overlaps(*write));
            assert!(!clash, "a block is written and used twice at the same time");
        }
        let inside = reads.iter().chain(&writes).all(|b| b.offset() + b.len() <= elements);
        assert!(inside, "a block reaches past its memory");
        let base = self.elements.as_mut_ptr();
        // SAFETY: `base` addresses `elements` initialised elements; every block was checked to lie inside. Written blocks are disjoint from all others, and the
        // exclusive borrow of `self` lives as long as the slices.
        unsafe {
            (
                reads.map(|b| std::slice::from_raw_parts(base.add(b.offset()), b.len())),
                writes.map(|b| std::slice::from_raw_parts_mut(base.add(b.offset()), b.len())),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_on_cache_lines() {
        let mut memory = HostMemory::<f64>::default();
        for len in [1, 17, 3] {
            let block = memory.space.alloc(len);
            memory.reserve();
            assert_eq!(memory.get(block).as_ptr() as usize % 64, 0);
        }
    }

    #[test]
    #[should_panic(expected = "written and used twice")]
    fn overlapping_writes_are_refused() {
        let mut memory = HostMemory::<f32>::default();
        let a = memory.space.alloc(10);
        memory.reserve();
        memory.split([a.part(0, 5)], [a.part(4, 3)]);
    }
}

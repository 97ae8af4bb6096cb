//! Memory of a device that computes on the host: one growing piece, read and written block by block.

use std::ops::Range;

use super::{ALIGNMENT, Block, Indices, Space};
use crate::simd::{Aligned, LINE, Real};

const _: () = assert!(ALIGNMENT == LINE * size_of::<f32>(), "blocks start on cache lines, as the memory does");

/// Elements in one piece, and what of them is in use.
pub(super) struct HostMemory<T> {
    elements: Aligned<T>,
    pub space: Space,
    indices: Vec<i32>,
}

impl<T> Default for HostMemory<T> {
    fn default() -> Self {
        Self { elements: Aligned::new(), space: Space::default(), indices: Vec::new() }
    }
}

impl<T: Real> HostMemory<T> {
    /// Grows to what has been handed out.
    pub fn reserve(&mut self) {
        // What is reserved ahead and not yet used costs address space only.
        self.elements.at_least(self.space.extent() / size_of::<T>());
    }

    /// Takes everything back.
    pub fn reset(&mut self) {
        self.space.reset();
        self.indices.clear();
    }

    /// Keeps integers until everything is taken back.
    pub fn put(&mut self, values: impl Iterator<Item = i32>) -> Indices {
        let start = self.indices.len();
        self.indices.extend(values);
        Indices::new(start, self.indices.len() - start)
    }

    /// The integers that were put there.
    pub fn indices(&self, indices: Indices) -> &[i32] {
        &self.indices[indices.start()..indices.start() + indices.len()]
    }

    /// Bytes in use.
    pub fn size_bytes(&self) -> usize {
        self.elements.len() * size_of::<T>()
    }

    /// The elements of a block.
    pub fn get(&self, block: Block) -> &[T] {
        &self.elements.as_slice()[range::<T>(block)]
    }

    /// The elements of a block, for writing.
    pub fn get_mut(&mut self, block: Block) -> &mut [T] {
        let ([], [slice]) = self.split([], [block]);
        slice
    }

    /// As [`HostMemory::split`], and integers.
    pub fn split_with<const R: usize, const W: usize>(
        &mut self,
        indices: Indices,
        reads: [Block; R],
        writes: [Block; W],
    ) -> (&[i32], [&[T]; R], [&mut [T]; W]) {
        let (reads, writes) = split(&mut self.elements, reads, writes);
        (&self.indices[indices.start()..indices.start() + indices.len()], reads, writes)
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
        split(&mut self.elements, reads, writes)
    }
}

/// Where a block's elements are.
fn range<T>(block: Block) -> Range<usize> {
    debug_assert!(block.is_empty() || block.element_bytes() == size_of::<T>(), "a block of another device's");
    let start = block.start_byte() / size_of::<T>();
    start..start + block.len()
}

/// The elements of several blocks; see [`HostMemory::split`].
fn split<T: Real, const R: usize, const W: usize>(
    elements: &mut Aligned<T>,
    reads: [Block; R],
    writes: [Block; W],
) -> ([&[T]; R], [&mut [T]; W]) {
    for (i, write) in writes.iter().enumerate() {
        let clash = reads.iter().chain(&writes[..i]).any(|other| other.overlaps(*write));
        assert!(!clash, "a block is written and used twice at the same time");
    }
    let inside = reads.iter().chain(&writes).all(|block| range::<T>(*block).end <= elements.len());
    assert!(inside, "a block reaches past its memory");
    let base = elements.as_mut_ptr();
    // SAFETY: `base` addresses as many initialised elements as `elements` has; every block was checked to lie inside. Written
    // blocks are disjoint from all others, and the exclusive borrow of `elements` lives as long as the slices.
    unsafe {
        (
            reads.map(|block| std::slice::from_raw_parts(base.add(range::<T>(block).start), block.len())),
            writes.map(|block| std::slice::from_raw_parts_mut(base.add(range::<T>(block).start), block.len())),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_on_cache_lines() {
        let mut memory = HostMemory::<f64>::default();
        for len in [1, 17, 3] {
            let block = memory.space.alloc(len, 8);
            memory.reserve();
            assert_eq!(memory.get(block).as_ptr() as usize % 64, 0);
        }
    }

    #[test]
    #[should_panic(expected = "written and used twice")]
    fn overlapping_writes_are_refused() {
        let mut memory = HostMemory::<f32>::default();
        let a = memory.space.alloc(10, 4);
        memory.reserve();
        memory.split([a.part(0, 5)], [a.part(4, 3)]);
    }
}

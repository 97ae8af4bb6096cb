//! One growing block of memory per lane, handed out in pieces and taken back.
//!
//! A training step asks for the same sizes in the same order every time, so after the first step the arena has
//! its final size and nothing is allocated from the system any more.

use crate::simd::{self, Real};

/// A piece of an [`Arena`]: `len` elements from `offset`. Only an index; it owns nothing, and by default is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    offset: usize,
    len: usize,
}

impl Block {
    /// Elements in the block.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether the block holds no element.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The part of the block from `start` on, `len` elements long.
    pub fn part(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "part of a block");
        Self { offset: self.offset + start, len }
    }

    fn overlaps(self, other: Self) -> bool {
        self.len > 0 && other.len > 0 && self.offset < other.offset + other.len && other.offset < self.offset + self.len
    }
}

/// One or two cache lines: the unit of allocation, so that every block starts on a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line<T>([T; LINE]);

const LINE: usize = 16;

/// Memory in one piece, handed out as [`Block`]s.
pub struct Arena<T> {
    lines: Vec<Line<T>>,
    /// First line never handed out since the last [`Arena::reset`].
    top: usize,
    /// Blocks taken back, reused for requests of exactly their size.
    free: Vec<Block>,
}

impl<T: Real> Default for Arena<T> {
    fn default() -> Self {
        Self { lines: Vec::new(), top: 0, free: Vec::new() }
    }
}

impl<T: Real> Arena<T> {
    /// A block of `len` elements with arbitrary contents (NaN in debug builds, so that a read before a write shows).
    pub fn alloc(&mut self, len: usize) -> Block {
        let block = match self.free.iter().rposition(|free| free.len == len) {
            Some(at) => self.free.swap_remove(at),
            None => {
                let offset = self.top * LINE;
                self.top += len.div_ceil(LINE);
                if self.top > self.lines.len() {
                    // `reserve` doubles the reservation when it must; what is not yet used costs address space only.
                    simd::reserve(&mut self.lines, self.top);
                    self.lines.resize(self.top, Line([T::ZERO; LINE]));
                }
                Block { offset, len }
            }
        };
        if cfg!(debug_assertions) {
            self.get_mut(block).fill(T::from_f64(f64::NAN));
        }
        block
    }

    /// Takes a block back for reuse.
    pub fn release(&mut self, block: Block) {
        debug_assert!(!self.free.iter().any(|free| free.overlaps(block)), "a block was released twice");
        self.free.push(block);
    }

    /// Takes everything back at once.
    pub fn reset(&mut self) {
        self.top = 0;
        self.free.clear();
    }

    /// Memory in use, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.lines.len() * size_of::<Line<T>>()
    }

    /// The elements of a block.
    pub fn get(&self, block: Block) -> &[T] {
        &self.elements()[block.offset..block.offset + block.len]
    }

    /// The elements of a block, for writing.
    pub fn get_mut(&mut self, block: Block) -> &mut [T] {
        let ([], [slice]) = self.split([], [block]);
        slice
    }

    /// Several blocks at once: `reads` may overlap each other; no block of `writes` may overlap any other.
    ///
    /// # Panics
    /// When they do, or when a block reaches past the arena.
    pub fn split<const R: usize, const W: usize>(
        &mut self,
        reads: [Block; R],
        writes: [Block; W],
    ) -> ([&[T]; R], [&mut [T]; W]) {
        let elements = self.lines.len() * LINE;
        for (i, write) in writes.iter().enumerate() {
            let clash = reads.iter().chain(&writes[..i]).any(|other| other.overlaps(*write));
            assert!(!clash, "a block is written and used twice at the same time");
        }
        assert!(reads.iter().chain(&writes).all(|b| b.offset + b.len <= elements), "a block reaches past its arena");
        let base = self.lines.as_mut_ptr().cast::<T>();
        // SAFETY: `Line<T>` is `LINE` elements of T without padding, all initialised, so `base` addresses `elements`
        // of them; every block was checked to lie inside. Written blocks are disjoint from all others, and the
        // exclusive borrow of `self` lives as long as the slices.
        unsafe {
            (
                reads.map(|b| std::slice::from_raw_parts(base.add(b.offset), b.len)),
                writes.map(|b| std::slice::from_raw_parts_mut(base.add(b.offset), b.len)),
            )
        }
    }

    fn elements(&self) -> &[T] {
        // SAFETY: as in `split`: the lines are `lines.len() * LINE` initialised elements without padding.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<T>(), self.lines.len() * LINE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_block_is_reused_and_a_second_round_needs_no_more_memory() {
        let mut arena = Arena::<f32>::default();
        let round = |arena: &mut Arena<f32>| {
            arena.reset();
            let a = arena.alloc(100);
            let b = arena.alloc(7);
            arena.release(a);
            let c = arena.alloc(100);
            assert_eq!(a, c);
            assert!(!b.overlaps(c));
        };
        round(&mut arena);
        let size = arena.size_bytes();
        round(&mut arena);
        assert_eq!(arena.size_bytes(), size);
    }

    #[test]
    fn blocks_start_on_cache_lines() {
        let mut arena = Arena::<f64>::default();
        for len in [1, 17, 3] {
            let block = arena.alloc(len);
            assert_eq!(arena.get(block).as_ptr() as usize % 64, 0);
        }
    }

    #[test]
    #[should_panic(expected = "written and used twice")]
    fn overlapping_writes_are_refused() {
        let mut arena = Arena::<f32>::default();
        let a = arena.alloc(10);
        arena.split([a.part(0, 5)], [a.part(4, 3)]);
    }
}

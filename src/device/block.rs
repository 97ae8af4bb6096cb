//! Handles of device memory, and the bookkeeping of what is free.

/// A piece of a device's memory: `len` elements from `offset`. Only an index; it owns nothing, and by default is empty.
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

    /// First element, counted from the start of the device's memory.
    pub fn offset(self) -> usize {
        self.offset
    }

    /// The part of the block from `start` on, `len` elements long.
    pub fn part(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "part of a block");
        Self { offset: self.offset + start, len }
    }

    /// Part `index` of `count` parts of equal length.
    pub fn nth(self, index: usize, count: usize) -> Self {
        let len = self.len / count;
        self.part(index * len, len)
    }

    /// Whether the two share an element.
    pub fn overlaps(self, other: Self) -> bool {
        self.len > 0 && other.len > 0 && self.offset < other.offset + other.len && other.offset < self.offset + self.len
    }
}

/// Elements to which every allocation is rounded up: one cache line of f32, two of f64.
pub const ALIGNMENT: usize = 16;

/// Which parts of a device's memory are in use. It holds no memory itself.
///
/// A training step allocates the same sizes in the same order every time, so after the first step nothing grows any more.
#[derive(Debug, Default)]
pub struct Space {
    /// First element never handed out since the last [`Space::reset`].
    top: usize,
    /// Blocks taken back, reused for requests of exactly their size.
    free: Vec<Block>,
}

impl Space {
    /// A block of `len` elements that starts at a multiple of [`ALIGNMENT`].
    pub fn alloc(&mut self, len: usize) -> Block {
        if let Some(at) = self.free.iter().rposition(|free| free.len == len) {
            return self.free.swap_remove(at);
        }
        let offset = self.top;
        self.top += len.next_multiple_of(ALIGNMENT);
        Block { offset, len }
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

    /// Elements of memory that the blocks handed out reach up to.
    pub fn extent(&self) -> usize {
        self.top
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_released_block_is_reused_and_a_second_round_reaches_no_further() {
        let mut space = Space::default();
        let round = |space: &mut Space| {
            space.reset();
            let a = space.alloc(100);
            let b = space.alloc(7);
            space.release(a);
            let c = space.alloc(100);
            assert_eq!(a, c);
            assert!(!b.overlaps(c));
            space.extent()
        };
        assert_eq!(round(&mut space), round(&mut space));
    }

    #[test]
    fn blocks_start_at_multiples_of_the_alignment() {
        let mut space = Space::default();
        for len in [1, 17, 3] {
            assert!(space.alloc(len).offset().is_multiple_of(ALIGNMENT));
        }
    }
}

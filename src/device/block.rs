//! Handles of device memory, and the bookkeeping of what is free.

/// How exactly a device has to keep a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// What flows between layers, and its gradient: a device that multiplies in bf16 may keep it in bf16.
    Activation,
    /// In the device's scalars: factors of norms, logits, losses, rows of the puzzle table.
    Exact,
}

/// A piece of a device's memory: `len` elements, all of one size, one after the other. Only an index; it owns nothing, and by
/// default is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// First byte, counted from the start of the device's memory.
    start: usize,
    len: usize,
    /// Bytes of an element.
    element: u8,
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

    /// Bytes of an element.
    pub fn element_bytes(self) -> usize {
        self.element.into()
    }

    /// First byte, counted from the start of the device's memory.
    pub fn start_byte(self) -> usize {
        self.start
    }

    /// The byte behind the last one.
    fn end_byte(self) -> usize {
        self.start + self.len * self.element_bytes()
    }

    /// The part of the block from `start` on, `len` elements long.
    pub fn part(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "part of a block");
        Self { start: self.start + start * self.element_bytes(), len, element: self.element }
    }

    /// Part `index` of `count` parts of equal length.
    pub fn nth(self, index: usize, count: usize) -> Self {
        let len = self.len / count;
        self.part(index * len, len)
    }

    /// Whether the two share an element.
    pub fn overlaps(self, other: Self) -> bool {
        self.len > 0 && other.len > 0 && self.start < other.end_byte() && other.start < self.end_byte()
    }
}

/// Integers in a device's memory: tokens, labels, flags. Only an index, whose meaning is the device's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indices {
    start: usize,
    len: usize,
}

impl Indices {
    /// `len` integers from wherever `start` is for the device.
    pub(super) fn new(start: usize, len: usize) -> Self {
        Self { start, len }
    }

    /// Where they start, as the device counts.
    pub(super) fn start(self) -> usize {
        self.start
    }

    /// `len` of them from `start` on.
    pub fn part(self, start: usize, len: usize) -> Self {
        assert!(start + len <= self.len, "part of the integers");
        Self { start: self.start + start, len }
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// Bytes to which every allocation is rounded up: one cache line.
pub const ALIGNMENT: usize = 64;

/// Which parts of a device's memory are in use. It holds no memory itself.
///
/// A training step allocates the same sizes in the same order every time, so after the first step nothing grows any more.
#[derive(Debug, Default)]
pub struct Space {
    /// First byte never handed out since the last [`Space::reset`].
    top: usize,
    /// Blocks taken back, reused for requests of exactly their size.
    free: Vec<Block>,
}

impl Space {
    /// A block of `len` elements of `element` bytes each that starts at a multiple of [`ALIGNMENT`].
    pub fn alloc(&mut self, len: usize, element: usize) -> Block {
        let fits = |free: &Block| free.len == len && free.element_bytes() == element;
        if let Some(at) = self.free.iter().rposition(fits) {
            return self.free.swap_remove(at);
        }
        let start = self.top;
        self.top += (len * element).next_multiple_of(ALIGNMENT);
        Block { start, len, element: element as u8 }
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

    /// Bytes of memory that the blocks handed out reach up to.
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
            let a = space.alloc(100, 4);
            let b = space.alloc(7, 4);
            space.release(a);
            let c = space.alloc(100, 4);
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
            assert!(space.alloc(len, 8).start_byte().is_multiple_of(ALIGNMENT));
        }
    }
}

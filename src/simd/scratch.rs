//! Memory on cache-line boundaries and large pages, and the buffers operands are packed into.

use super::Real;

/// Elements of a unit of [`Aligned`]: one cache line of f32, two of f64.
pub const LINE: usize = 16;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line<T>([T; LINE]);

/// A vector whose first element lies on a cache-line boundary, on large pages where the system has them. Its length is a
/// multiple of [`LINE`].
#[derive(Clone, Debug)]
pub struct Aligned<T> {
    lines: Vec<Line<T>>,
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Aligned<T> {
    /// No element.
    pub const fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.lines.len() * LINE
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// First element, for memory that is handed out in pieces.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.lines.as_mut_ptr().cast()
    }
}

impl<T: Real> Aligned<T> {
    /// At least `len` elements; grows if it has to, with zeros, and keeps what it holds.
    pub fn at_least(&mut self, len: usize) -> &mut [T] {
        let lines = len.div_ceil(LINE);
        if lines > self.lines.len() {
            reserve(&mut self.lines, lines);
            self.lines.resize(lines, Line([T::ZERO; LINE]));
        }
        // SAFETY: `Line` is `repr(C)` around an array whose size is a multiple of its alignment (64 or 128 bytes),
        // so the lines are one contiguous run of elements.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * LINE) }
    }

    /// All elements.
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: as in `at_least`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * LINE) }
    }
}

/// Room for `len` elements in all, new room on large pages.
pub fn reserve<T>(memory: &mut Vec<T>, len: usize) {
    if len > memory.capacity() {
        memory.reserve(len - memory.len());
        prefer_large_pages(memory.spare_capacity_mut());
    }
}

/// Asks the system to back memory with large pages (2 MiB instead of 4 KiB) where it has not been touched yet: a step
/// sweeps hundreds of megabytes, which exceeds the TLB's reach with small pages. Only a wish; systems without such pages ignore
/// it.
pub fn prefer_large_pages<T>(memory: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let start = (memory.as_mut_ptr() as usize).next_multiple_of(PAGE);
        let end = (memory.as_mut_ptr() as usize + size_of_val(memory)) / PAGE * PAGE;
        if end > start {
            // SAFETY: whole pages inside memory borrowed exclusively; the advice changes neither contents nor access.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// One thread's buffers; they grow to the largest product and then stay.
#[derive(Debug)]
pub struct Scratch<T> {
    pub left: Aligned<T>,
    pub right: Aligned<T>,
    pub out: Aligned<T>,
    /// What lies between the products of SwiGLU where it cannot be packed at once (`int8/`).
    pub activation: Aligned<T>,
    /// Scales of what is packed as whole numbers.
    pub scales: Aligned<T>,
}

impl<T: Real> Scratch<T> {
    pub const fn new() -> Self {
        Self {
            left: Aligned::new(),
            right: Aligned::new(),
            out: Aligned::new(),
            activation: Aligned::new(),
            scales: Aligned::new(),
        }
    }
}

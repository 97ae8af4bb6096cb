//! Device memory that is given back when it is dropped, and views of it.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::null_mut;

use super::queue::enqueue;
use super::{Backend, Queue, ffi};

/// Formats of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementFormat {
    /// Two bytes: an f32 without the lower half of its mantissa's bits.
    Bf16,
    /// Four bytes.
    F32,
    /// Eight bytes.
    F64,
}

impl ElementFormat {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The format whose elements have so many bytes.
    pub fn of_bytes(bytes: usize) -> Self {
        match bytes {
            2 => Self::Bf16,
            4 => Self::F32,
            8 => Self::F64,
            other => panic!("no format has elements of {other} bytes"),
        }
    }
}

/// Bytes of device memory.
#[derive(Debug)]
pub struct DeviceMemory<B: Backend> {
    data: *mut c_void,
    bytes: usize,
    queue: Queue<B>,
}

// SAFETY: device memory belongs to the process, not to a thread.
unsafe impl<B: Backend> Send for DeviceMemory<B> {}
// SAFETY: shared, it is only named; what works on it is in one stream, one after the other.
unsafe impl<B: Backend> Sync for DeviceMemory<B> {}

impl<B: Backend> DeviceMemory<B> {
    /// So many bytes with arbitrary contents.
    pub fn new(queue: Queue<B>, bytes: usize) -> Self {
        let mut data = null_mut();
        if bytes > 0 && !queue.is_dry {
            let _turn = queue.turn();
            // SAFETY: it points to a pointer.
            queue.check(unsafe { (B::functions().allocate)(&mut data, bytes) }, "allocate");
            queue.count_allocation(bytes);
        }
        Self { data, bytes, queue }
    }

    /// As many bytes as anybody may want, of memory that is not there, for work that is not done.
    pub fn dry(queue: Queue<B>) -> Self {
        Self { data: null_mut(), bytes: isize::MAX as usize, queue: queue.dry() }
    }

    /// So many zero bytes.
    pub fn zeros(queue: Queue<B>, bytes: usize) -> Self {
        let mut memory = Self::new(queue, bytes);
        memory.clear();
        memory
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All bytes become zero.
    pub fn clear(&mut self) {
        if self.bytes > 0 {
            enqueue!(self.queue, clear(self.data, 0, self.bytes));
        }
    }

    /// `len` elements from a byte on.
    pub fn view(&self, start: usize, len: usize, format: ElementFormat) -> View<'_> {
        assert!(start + len * format.bytes() <= self.bytes, "a view reaches past its memory");
        assert!(start.is_multiple_of(format.bytes()), "elements lie on multiples of their size");
        let data = self.data.cast::<u8>().wrapping_add(start).cast();
        View { array: ffi::RawArray { data, format: format.bytes() as i64 }, len, memory: PhantomData }
    }

    /// `len` integers from the one at `start` on.
    pub fn integers(&self, start: usize, len: usize) -> Integers<'_> {
        assert!((start + len) * size_of::<i32>() <= self.bytes, "integers reach past their memory");
        Integers { data: self.data.cast::<i32>().wrapping_add(start), len, memory: PhantomData }
    }

    /// Where the memory is, for functions that know its layout.
    pub(super) fn data(&self) -> *mut c_void {
        self.data
    }

    /// Copies bytes from the host, behind everything queued before; they may change as soon as this returns.
    pub fn upload<T: Copy>(&mut self, start: usize, from: &[T]) {
        let bytes = size_of_val(from);
        assert!(start + bytes <= self.bytes, "a copy reaches past its memory");
        if bytes > 0 {
            let to = self.data.cast::<u8>().wrapping_add(start).cast();
            enqueue!(self.queue, upload(to, from.as_ptr().cast(), bytes));
        }
    }

    /// Copies bytes to the host, behind everything queued before, and waits for them. `T` is a number, for which any bytes
    /// are a value.
    pub fn download<T: Number>(&self, start: usize, to: &mut [T]) {
        let bytes = size_of_val(to);
        assert!(start + bytes <= self.bytes, "a copy reaches past its memory");
        if bytes > 0 {
            let from = self.data.cast::<u8>().wrapping_add(start).cast_const().cast();
            enqueue!(self.queue, download(to.as_mut_ptr().cast(), from, bytes));
            if !self.queue.is_dry {
                self.queue.wait();
            }
        }
    }

    /// Copies all bytes of another memory into the first ones of this.
    pub fn copy_from(&mut self, other: &Self) {
        let whole = |memory: &Self| memory.view(0, memory.bytes / 4, ElementFormat::F32).array;
        let tail = other.bytes % 4;
        assert!(other.bytes <= self.bytes && tail == 0, "memory has room for a copy of whole words");
        if other.bytes > 0 {
            enqueue!(self.queue, copy(whole(other), whole(self), (other.bytes / 4) as i64));
        }
    }
}

impl<B: Backend> Clone for DeviceMemory<B> {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.queue, self.bytes);
        copy.copy_from(self);
        copy
    }
}

impl<B: Backend> Drop for DeviceMemory<B> {
    fn drop(&mut self) {
        if !self.data.is_null() {
            self.queue.count_release(self.bytes);
            let _turn = self.queue.turn();
            // SAFETY: nobody else has the memory, and the function waits for what is queued on it. What fails here has failed
            // before, and was told.
            unsafe { (B::functions().release)(self.data) };
        }
    }
}

/// Numbers for which any bytes are a value.
pub trait Number: Copy + private::Sealed {}

mod private {
    pub trait Sealed {}
}

macro_rules! numbers {
    ($($Number:ty),*) => {$(
        impl private::Sealed for $Number {}
        impl Number for $Number {}
    )*};
}

numbers!(u8, u16, i32, f32, f64);

/// Elements of device memory.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(super) array: ffi::RawArray,
    len: usize,
    memory: PhantomData<&'a ()>,
}

impl View<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Their format.
    pub fn format(&self) -> ElementFormat {
        ElementFormat::of_bytes(self.array.format as usize)
    }
}

/// Integers in device memory.
#[derive(Clone, Copy, Debug)]
pub struct Integers<'a> {
    pub(super) data: *const i32,
    len: usize,
    memory: PhantomData<&'a ()>,
}

impl Integers<'_> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

//! Memory of the host that stays where it is, so that the device copies from and to it by itself.
//!
//! What lies anywhere else goes through a buffer of the driver, piece by piece, and the host waits for it.

use std::ffi::c_void;
use std::ptr::null_mut;

use super::queue::enqueue;
use super::{Backend, DeviceMemory, Event, Number, Queue};

/// Bytes of the host's memory.
#[derive(Debug)]
pub struct HostMemory<B: Backend> {
    data: *mut c_void,
    bytes: usize,
    queue: Queue<B>,
    /// Behind the last copy from here or to here that was queued.
    copied: Option<Event<B>>,
}

// SAFETY: the memory belongs to the process, not to a thread; what changes it has it alone.
unsafe impl<B: Backend> Send for HostMemory<B> {}
// SAFETY: as above.
unsafe impl<B: Backend> Sync for HostMemory<B> {}

impl<B: Backend> HostMemory<B> {
    /// So many zero bytes.
    pub fn zeros(queue: Queue<B>, bytes: usize) -> Self {
        let mut data = null_mut();
        // SAFETY: it points to a pointer.
        queue.check(unsafe { (B::functions().host_allocate)(&mut data, bytes) }, "host_allocate");
        if bytes > 0 {
            // SAFETY: so many bytes have been allocated there.
            unsafe { data.cast::<u8>().write_bytes(0, bytes) };
        }
        Self { data, bytes, queue, copied: None }
    }

    /// `len` numbers from a byte on, once all copies from here and to here are done.
    pub fn values<T: Number>(&mut self, start: usize, len: usize) -> &mut [T] {
        self.wait();
        match self.place::<T>(start, len) {
            // SAFETY: the numbers lie inside of the memory, on a multiple of their size, and any bytes are a value of theirs; nobody
            // else has them, and no copy is on its way.
            Some(at) => unsafe { std::slice::from_raw_parts_mut(at, len) },
            None => &mut [],
        }
    }

    /// Where numbers lie; `None` where there are none.
    fn place<T: Number>(&self, start: usize, len: usize) -> Option<*mut T> {
        assert!(start + len * size_of::<T>() <= self.bytes, "numbers reach past their memory");
        let at = self.data.cast::<u8>().wrapping_add(start).cast::<T>();
        assert!(at.is_aligned(), "numbers lie on multiples of their size");
        (len > 0).then_some(at)
    }

    fn wait(&mut self) {
        if let Some(copied) = self.copied.take() {
            copied.wait();
        }
    }
}

impl<B: Backend> Drop for HostMemory<B> {
    fn drop(&mut self) {
        if !self.data.is_null() {
            if self.copied.is_some() {
                // SAFETY: the stream lives as long as the process. What fails here and below has failed before, and was told.
                unsafe { (B::functions().stream_wait)(self.queue.stream) };
            }
            // SAFETY: nobody else has the memory, and no copy is on its way.
            unsafe { (B::functions().host_release)(self.data) };
        }
    }
}

impl<B: Backend> DeviceMemory<B> {
    /// Copies the host's first bytes to those from `start` on, behind everything queued before.
    pub fn upload_from(&mut self, start: usize, host: &mut HostMemory<B>, bytes: usize) {
        assert!(start + bytes <= self.bytes() && bytes <= host.bytes, "a copy reaches past its memory");
        if bytes > 0 {
            let to = self.data().cast::<u8>().wrapping_add(start).cast();
            enqueue!(host.queue, upload(to, host.data.cast_const(), bytes));
            host.copied = Some(Event::record(host.queue));
        }
    }

    /// Copies the first bytes to the host's first ones, behind everything queued before.
    pub fn download_into(&self, host: &mut HostMemory<B>, bytes: usize) {
        assert!(bytes <= self.bytes() && bytes <= host.bytes, "a copy reaches past its memory");
        if bytes > 0 {
            enqueue!(host.queue, download(host.data, self.data().cast_const(), bytes));
            host.copied = Some(Event::record(host.queue));
        }
    }
}

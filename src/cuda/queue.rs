//! The stream that all work of a process is queued on, in order, and what can go wrong on it.

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::Backend;
use super::ffi;
use crate::error::{DeviceFailure, Error, Result};

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DeviceDescription {
    /// What its maker calls it.
    pub name: String,
    /// Bytes of its memory.
    pub memory: u64,
    /// Compute capability.
    pub compute_capability: (u64, u64),
    /// Streaming multiprocessors.
    pub processors: u64,
    /// Version of the driver, of CUDA: 1000·major + 10·minor.
    pub driver: u64,
    /// Version of the runtime library that the kernels were linked with, counted in the same way.
    pub runtime: u64,
}

/// A stream on the first device, which lives as long as the process.
#[derive(Debug)]
pub struct Opened {
    stream: ffi::Stream,
    description: DeviceDescription,
    /// Bytes of memory that are in use, and the most that ever were.
    used: AtomicU64,
    peak: AtomicU64,
    /// How often memory has been given back.
    released: AtomicU64,
    /// Held for writing by the thread whose work is being remembered: nobody else's may come in between.
    capture: RwLock<()>,
}

thread_local! {
    /// Whether this thread's work is being remembered.
    static CAPTURES: Cell<bool> = const { Cell::new(false) };
}

// SAFETY: a stream may be used by any thread of the process, by several at a time too.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

/// The queue of a process; all copies are the same one.
#[derive(Clone, Copy, Debug)]
pub struct Queue<B> {
    pub(super) stream: ffi::Stream,
    /// Nothing is done: see [`Queue::dry`].
    pub(super) is_dry: bool,
    backend: PhantomData<B>,
}

// SAFETY: as `Opened`, whose stream this is.
unsafe impl<B> Send for Queue<B> {}
// SAFETY: as above.
unsafe impl<B> Sync for Queue<B> {}

/// Queues a kernel or another function of the kernels' library; fails where it does.
macro_rules! enqueue {
    ($queue:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let queue = $queue;
        if !queue.is_dry {
            let _turn = queue.turn();
            // SAFETY: the caller has checked that every array is as long as the function's documentation asks for; views name
            // memory that is alive and that only this stream works on.
            let status = unsafe { (B::functions().$name)($($argument,)* queue.stream) };
            queue.check(status, stringify!($name));
        }
    }};
}
pub(super) use enqueue;

impl<B: Backend> Queue<B> {
    /// Opens the first device, or finds it open.
    ///
    /// # Errors
    /// Where there is no device, or none that these kernels run on.
    pub fn open() -> Result<Self> {
        let opened = match B::opened().get() {
            Some(opened) => opened,
            None => {
                let opened = Opened::new::<B>()?;
                B::opened().get_or_init(|| opened)
            }
        };
        Ok(Self { stream: opened.stream, is_dry: false, backend: PhantomData })
    }

    /// The queue of a device that is known to be there.
    ///
    /// # Panics
    /// As a [`DeviceFailure`] where it is not.
    pub fn get() -> Self {
        Self::open().unwrap_or_else(|error| DeviceFailure(error.to_string()).raise())
    }

    /// A queue that drops all work: for finding out how much memory some work would need.
    pub fn dry(self) -> Self {
        Self { is_dry: true, ..self }
    }

    /// What the device is.
    pub fn description(&self) -> &'static DeviceDescription {
        &self.opened().description
    }

    /// Bytes of device memory that nobody uses.
    pub fn free_memory(&self) -> u64 {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both point to integers.
        self.check(unsafe { (B::functions().memory_free)(&mut free, &mut total) }, "memory_free");
        free
    }

    /// Bytes of device memory that this process has in use.
    pub fn used_memory(&self) -> u64 {
        self.opened().used.load(Ordering::Relaxed)
    }

    /// The most bytes of device memory that this process has had in use.
    pub fn peak_memory(&self) -> u64 {
        self.opened().peak.load(Ordering::Relaxed)
    }

    /// Seconds that the device takes for what `work` queues.
    pub fn seconds_of(self, work: impl FnOnce()) -> f64 {
        let start = Event::record(self);
        work();
        start.seconds_until(&Event::record(self))
    }

    /// Waits until everything queued is done.
    pub fn wait(&self) {
        enqueue!(self, stream_wait());
    }

    /// Fails where a status says so.
    pub(super) fn check(&self, status: c_int, what: &str) {
        if status != 0 {
            DeviceFailure(message::<B>(status, what)).raise();
        }
    }

    /// Remembers the work that `work` queues, without doing it.
    pub fn capture(self, work: impl FnOnce()) -> Graph<B> {
        let _alone = self.opened().capture.write().unwrap_or_else(PoisonError::into_inner);
        let capture = Capture { queue: self, is_done: false };
        CAPTURES.set(true);
        enqueue!(self, graph_begin());
        work();
        capture.end()
    }

    /// Waits while the work of another thread is being remembered.
    pub(super) fn turn(self) -> Option<RwLockReadGuard<'static, ()>> {
        (!CAPTURES.get()).then(|| self.opened().capture.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How often memory has been given back.
    fn released(self) -> u64 {
        self.opened().released.load(Ordering::Relaxed)
    }

    /// So many bytes were allocated.
    pub(super) fn count_allocation(self, bytes: usize) {
        let opened = self.opened();
        let used = opened.used.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        opened.peak.fetch_max(used, Ordering::Relaxed);
    }

    /// So many bytes are about to be given back.
    pub(super) fn count_release(self, bytes: usize) {
        let opened = self.opened();
        opened.used.fetch_sub(bytes as u64, Ordering::Relaxed);
        opened.released.fetch_add(1, Ordering::Relaxed);
    }

    fn opened(self) -> &'static Opened {
        B::opened().get().expect("a queue belongs to an open device")
    }
}

/// Work that is being remembered; given up where it fails.
struct Capture<B: Backend> {
    queue: Queue<B>,
    is_done: bool,
}

impl<B: Backend> Capture<B> {
    fn end(mut self) -> Graph<B> {
        self.is_done = true;
        CAPTURES.set(false);
        let (queue, mut graph) = (self.queue, null_mut());
        // SAFETY: the capture has begun; `graph` points to a pointer.
        queue.check(unsafe { (B::functions().graph_end)(queue.stream, &mut graph) }, "graph_end");
        Graph { graph, queue, released: queue.released() }
    }
}

impl<B: Backend> Drop for Capture<B> {
    fn drop(&mut self) {
        if !self.is_done {
            CAPTURES.set(false);
            let mut graph = null_mut();
            // SAFETY: as above; whatever has been remembered is thrown away.
            if unsafe { (B::functions().graph_end)(self.queue.stream, &mut graph) } == 0 {
                // SAFETY: it was made just now.
                unsafe { (B::functions().graph_destroy)(graph) };
            }
        }
    }
}

/// What a status means, and what to do about it.
fn message<B: Backend>(status: c_int, what: &str) -> String {
    const OUT_OF_MEMORY: c_int = 2;
    // SAFETY: the function knows every number, and its text is never freed.
    let text = unsafe { CStr::from_ptr((B::functions().error_string)(status)) }.to_string_lossy();
    match status {
        OUT_OF_MEMORY => format!(
            "{}: out of device memory: take fewer sequences at a time (--micro-batch), or a smaller model or batch",
            B::NAME
        ),
        _ => format!("{}: {text} (error {status}, in {what}); what was saved before is untouched", B::NAME),
    }
}

impl Opened {
    fn new<B: Backend>() -> Result<Self> {
        let functions = B::functions();
        let fail = |status, what| if status == 0 { Ok(()) } else { Err(Error::Device(message::<B>(status, what))) };
        let mut driver = 0;
        // SAFETY: every call below is given pointers to what it writes.
        if unsafe { (functions.driver_version)(&mut driver) } != 0 || driver == 0 {
            return Err(Error::Device(format!(
                "{}: no NVIDIA driver is loaded on this machine; --device cpu needs none",
                B::NAME
            )));
        }
        let mut count = 0;
        // SAFETY: as above.
        let status = unsafe { (functions.device_count)(&mut count) };
        if status != 0 || count == 0 {
            let why = if status == 0 { "it sees no device".into() } else { message::<B>(status, "device_count") };
            let version = format!("{}.{}", driver / 1000, driver % 1000 / 10);
            return Err(Error::Device(format!(
                "{}: the driver (for CUDA {version}) cannot be used: {why}; these kernels need one for CUDA 13.0 or newer, \
                 and a GPU of compute capability 8.0 or newer",
                B::NAME
            )));
        }
        // SAFETY: a description is plain numbers, for which zeros are a value.
        let mut raw: ffi::RawDescription = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        fail(unsafe { (functions.device_describe)(0, &mut raw) }, "device_describe")?;
        // SAFETY: the name ends with a zero, which it does at the latest where the array does.
        let name = unsafe { CStr::from_ptr(raw.name.as_ptr()) }.to_string_lossy().into_owned();
        let description = DeviceDescription {
            name,
            memory: raw.memory,
            compute_capability: (raw.major as u64, raw.minor as u64),
            processors: raw.processors as u64,
            driver: raw.driver as u64,
            runtime: raw.runtime as u64,
        };
        if raw.major < 8 {
            let (major, minor) = description.compute_capability;
            return Err(Error::Device(format!(
                "{}: {} has compute capability {major}.{minor}; these kernels need 8.0 or newer",
                B::NAME,
                description.name
            )));
        }
        let mut stream = null_mut();
        // SAFETY: as above.
        fail(unsafe { (functions.stream_create)(&mut stream) }, "stream_create")?;
        let [used, peak, released] = [0; 3].map(AtomicU64::new);
        Ok(Self { stream, description, used, peak, released, capture: RwLock::new(()) })
    }
}

/// A point in the queue.
#[derive(Debug)]
pub struct Event<B: Backend> {
    event: *mut c_void,
    queue: Queue<B>,
}

// SAFETY: an event may be used by any thread.
unsafe impl<B: Backend> Send for Event<B> {}

impl<B: Backend> Event<B> {
    /// The point behind everything queued so far.
    pub fn record(queue: Queue<B>) -> Self {
        let mut event = null_mut();
        // SAFETY: it points to a pointer.
        queue.check(unsafe { (B::functions().event_create)(&mut event) }, "event_create");
        let recorded = Self { event, queue };
        let _turn = queue.turn();
        // SAFETY: the event was created above.
        queue.check(unsafe { (B::functions().event_record)(event, queue.stream) }, "event_record");
        recorded
    }

    /// Waits until the queue has come here.
    pub fn wait(&self) {
        // SAFETY: the event lives as long as this.
        self.queue.check(unsafe { (B::functions().event_wait)(self.event) }, "event_wait");
    }

    /// Seconds that the device took from here to a later point.
    pub fn seconds_until(&self, later: &Self) -> f64 {
        later.wait();
        let mut milliseconds = 0.0;
        // SAFETY: both events live, and have come to pass.
        let status = unsafe { (B::functions().event_elapsed)(self.event, later.event, &mut milliseconds) };
        self.queue.check(status, "event_elapsed");
        f64::from(milliseconds) / 1e3
    }
}

impl<B: Backend> Drop for Event<B> {
    fn drop(&mut self) {
        // SAFETY: nobody else has the event. What fails here has failed before, and was told.
        unsafe { (B::functions().event_destroy)(self.event) };
    }
}

/// Work that was remembered, to be done as often as wanted.
///
/// It names the memory that it was remembered with, so it is of no use any more once memory has been given back.
#[derive(Debug)]
pub struct Graph<B: Backend> {
    graph: *mut c_void,
    queue: Queue<B>,
    /// How often memory had been given back.
    released: u64,
}

// SAFETY: a graph may be launched by any thread.
unsafe impl<B: Backend> Send for Graph<B> {}

impl<B: Backend> Graph<B> {
    /// Queues all of the work; `false` where memory has been given back since, perhaps its own, and nothing is done.
    #[must_use = "work that is not done has to be done otherwise"]
    pub fn launch(&self) -> bool {
        if self.released != self.queue.released() {
            return false;
        }
        let _turn = self.queue.turn();
        // SAFETY: the graph lives as long as this, and no memory has been given back since it was made.
        self.queue.check(unsafe { (B::functions().graph_launch)(self.graph, self.queue.stream) }, "graph_launch");
        true
    }
}

impl<B: Backend> Drop for Graph<B> {
    fn drop(&mut self) {
        // SAFETY: nobody else has the graph. What fails here has failed before, and was told.
        unsafe { (B::functions().graph_destroy)(self.graph) };
    }
}

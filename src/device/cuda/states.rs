//! What stays on the device between supervision steps: states that are carried on, and integers that outlive resets.

use super::{Cuda, CudaScalar, master};
use crate::cuda::{Backend, DeviceMemory, ElementFormat, HostMemory, Queue, View};
use crate::device::{Block, Device as _, Indices, ParamId, Params, Store};

/// The states of some sequences, one memory for each state of the model.
#[derive(Debug)]
pub struct CarriedStates<B: Backend> {
    states: Vec<DeviceMemory<B>>,
    format: ElementFormat,
    /// Elements of a state.
    len: usize,
}

impl<B: Backend> CarriedStates<B> {
    fn view(&self, state: usize) -> View<'_> {
        self.states[state].view(0, self.len, self.format)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.states.len()
    }

    /// Elements of a state.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of all states.
    pub(crate) fn bytes(&self) -> usize {
        self.states.iter().map(DeviceMemory::bytes).sum()
    }

    /// State `state`, on the host.
    pub(crate) fn read<T: CudaScalar>(&self, state: usize) -> Vec<T> {
        Cuda::<T, B>::read_view(&self.states[state], 0, self.len, self.format)
    }

    /// Overwrites state `state`.
    pub(crate) fn write<T: CudaScalar>(&mut self, state: usize, values: &[T]) {
        assert_eq!(values.len(), self.len);
        Cuda::<T, B>::write_view(&mut self.states[state], 0, values, self.format);
    }
}

impl<T: CudaScalar, B: Backend> Cuda<T, B> {
    /// Room for `count` states of `len` elements each.
    pub(crate) fn carry(&self, count: usize, len: usize) -> CarriedStates<B> {
        let format = self.state_format();
        let room = || DeviceMemory::zeros(Queue::get(), len * format.bytes());
        CarriedStates { states: (0..count).map(|_| room()).collect(), format, len }
    }

    /// Whether these are `count` states of `len` elements, as this device keeps them now.
    pub(super) fn carries(&self, carried: &CarriedStates<B>, count: usize, len: usize) -> bool {
        (carried.states.len(), carried.len, carried.format) == (count, len, self.state_format())
    }

    /// The format in which states are carried.
    fn state_format(&self) -> ElementFormat {
        ElementFormat::of_bytes(self.element_bytes(Store::Activation))
    }

    /// State `state` at the start of a supervision step: the start vector where `anew` is not 0, else what was carried at
    /// `places`.
    pub(crate) fn start_states(
        &mut self,
        params: &Params<Self>,
        start: ParamId,
        (carried, state): (&CarriedStates<B>, usize),
        (places, anew): (Indices, Indices),
        y: Block,
    ) {
        let integers = (self.indices(places), self.indices(anew));
        self.queue.start_states(master(params, start), carried.view(state), integers, self.view(y));
    }

    /// Carries a state on, at `places`.
    pub(crate) fn keep_states(&self, (carried, state): (&CarriedStates<B>, usize), places: Indices, y: Block) {
        self.queue.keep_states(self.view(y), self.indices(places), carried.view(state));
    }

    /// Sets integers aside that outlive resets, before any others are put here.
    pub(crate) fn keep_indices(&mut self, len: usize) -> Indices {
        self.integers_used = self.resident;
        let start = self.resident;
        self.grow_integers(start + len);
        (self.resident, self.integers_used) = (start + len, start + len);
        Indices::new(start, len)
    }

    /// Overwrites integers that were set aside.
    pub(crate) fn set_indices(&mut self, indices: Indices, values: &[i32]) {
        assert_eq!(indices.len(), values.len());
        self.integers.upload(indices.start() * size_of::<i32>(), values);
    }

    /// The same from the first bytes of the host's memory.
    pub(crate) fn send_indices(&mut self, indices: Indices, from: &mut HostMemory<B>) {
        const SIZE: usize = size_of::<i32>();
        self.integers.upload_from(indices.start() * SIZE, from, indices.len() * SIZE);
    }

    /// Copies a block of the device's scalars to `memory`, from element `start` on.
    pub(crate) fn copy_out(&self, from: Block, memory: &DeviceMemory<B>, start: usize) {
        let to = memory.view(start * size_of::<T>(), from.len(), T::FORMAT);
        self.queue.copy(self.view(from), to);
    }

    /// The other way round.
    pub(crate) fn copy_in(&self, memory: &DeviceMemory<B>, start: usize, to: Block) {
        let from = memory.view(start * size_of::<T>(), to.len(), T::FORMAT);
        self.queue.copy(from, self.view(to));
    }

    /// From here on no kernel runs, until [`Cuda::end_dry_run`]: for finding out how much memory some work needs whose sizes do not
    /// depend on values.
    pub(crate) fn begin_dry_run(&mut self) {
        self.set_aside = Some(std::mem::replace(&mut self.memory, DeviceMemory::dry(self.queue)));
        self.queue = self.queue.dry();
    }

    /// Back to work. Returns the bytes that blocks have reached up to.
    pub(crate) fn end_dry_run(&mut self) -> usize {
        self.memory = self.set_aside.take().expect("a dry run has begun");
        self.queue = Queue::get();
        let extent = self.space.extent();
        self.space.reset();
        extent
    }

    /// Bytes that there is room for.
    pub(crate) fn room(&self) -> usize {
        self.memory.bytes()
    }

    /// Makes room for blocks of so many bytes in all.
    pub(crate) fn make_room(&mut self, bytes: usize) {
        if bytes > self.memory.bytes() {
            // Nothing that is there is needed any more.
            self.memory = DeviceMemory::new(self.queue, 0);
            self.memory = DeviceMemory::new(self.queue, bytes);
        }
    }
}

//! Flat arrays in device memory: gradients of all weights, one array for each slice of the batch; moments and EMA are one.

use std::ops::Range;

use super::CudaScalar;
use crate::cuda::{Backend, DeviceMemory, GradientSums, Queue};

/// Flat arrays of the weights' shape, one for each slice of the batch, and those that the sequences at hand belong to.
#[derive(Clone, Debug)]
pub struct CudaBuffer<T, B: Backend> {
    memory: DeviceMemory<B>,
    /// Elements of an array.
    len: usize,
    slices: usize,
    window: Window,
    scalars: std::marker::PhantomData<T>,
}

/// The sequences that are worked on.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// The slice that the first one belongs to.
    first: usize,
    /// How many there are; they begin where a slice does.
    sequences: usize,
    /// Sequences of a slice.
    per_slice: usize,
}

impl<T: CudaScalar, B: Backend> CudaBuffer<T, B> {
    /// Zeros for so many slices.
    pub fn new(len: usize, slices: usize) -> Self {
        let memory = DeviceMemory::zeros(Queue::get(), slices * len * size_of::<T>());
        // One slice takes whatever comes: a kernel's rows are then taken for sequences.
        let window = Window { first: 0, sequences: 1, per_slice: 1 };
        Self { memory, len, slices, window, scalars: std::marker::PhantomData }
    }

    /// What follows is the work of so many sequences, dealt out to slices `per_slice` at a time, from slice `first` on.
    pub fn set_window(&mut self, first: usize, sequences: usize, per_slice: usize) {
        assert!(first + sequences.div_ceil(per_slice) <= self.slices, "slices that there are");
        self.window = Window { first, sequences, per_slice };
    }

    /// Bytes of all arrays.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// All zeros.
    pub fn clear(&mut self) {
        self.memory.clear();
    }

    /// The sums of a tensor.
    pub(super) fn sums(&self, range: Range<usize>) -> GradientSums<'_> {
        let Window { first, sequences, per_slice } = self.window;
        let tensor = (range.start, range.len());
        GradientSums::new(&self.memory, T::FORMAT, (first, self.len), tensor, (sequences, per_slice))
    }

    /// The sum over all slices becomes the first array of `total`.
    pub fn sum_into(&self, total: &mut Self) {
        assert_eq!(self.len, total.len);
        let all = self.memory.view(0, self.slices * self.len, T::FORMAT);
        Queue::<B>::get().sum_slices(all, self.slices, total.memory.view(0, self.len, T::FORMAT));
    }

    /// Some elements of the first array.
    pub fn view(&self, range: Range<usize>) -> crate::cuda::View<'_> {
        assert!(range.end <= self.len);
        self.memory.view(range.start * size_of::<T>(), range.len(), T::FORMAT)
    }

    /// The first array, on the host.
    pub fn read(&self) -> Vec<T> {
        let mut values = vec![T::ZERO; self.len];
        self.memory.download(0, &mut values);
        values
    }

    /// Overwrites the first array.
    pub fn write(&mut self, values: &[T]) {
        assert_eq!(values.len(), self.len);
        self.memory.upload(0, values);
    }
}

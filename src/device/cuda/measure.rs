//! How fast a CUDA device is: events in its queue, and what it can do at most.

use super::{Cuda, CudaScalar};
use crate::cuda::{Backend, ElementFormat, Event, Queue};
use crate::device::{Mark, Measured, Precision};

/// An event is reached when the device has done everything that was queued before it, long after the host has queued it.
impl<B: Backend> Mark for Event<B> {
    const IS_REACHED: bool = false;

    fn set() -> Self {
        Self::record(Queue::get())
    }

    fn seconds_until(&self, later: &Self) -> f64 {
        Self::seconds_until(self, later)
    }
}

impl<T: CudaScalar, B: Backend> Measured for Cuda<T, B> {
    type Mark = Event<B>;

    /// Of tensor cores in bf16, by the instruction that products use; else of the FMA units.
    fn multiply_limit(precision: Precision, seconds: f64) -> f64 {
        let is_bf16 = precision == Precision::Bf16 && T::FORMAT == ElementFormat::F32;
        Queue::<B>::get().multiply_limit(if is_bf16 { ElementFormat::Bf16 } else { T::FORMAT }, seconds)
    }

    fn copy_limit(seconds: f64) -> f64 {
        Queue::<B>::get().copy_limit(seconds)
    }

    fn hardware() -> &'static str {
        &Queue::<B>::get().description().name
    }

    fn peak_bytes() -> Option<u64> {
        Some(Queue::<B>::get().peak_memory())
    }
}

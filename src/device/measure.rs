//! What can be measured of a device: points in its work, and what it can do at most.

use std::time::Instant;

use crate::simd::{Precision, copy_limit, fma_limit, int8_limit, isa};

/// A point in a device's work.
pub trait Mark: Send + Sized {
    /// Whether the device is there by the time that the mark is set: it does its work when it is asked for it.
    const IS_REACHED: bool;

    /// The point behind everything that has been asked of the device so far.
    fn set() -> Self;

    /// Seconds from here to a later point, after the device has got there.
    fn seconds_until(&self, later: &Self) -> f64;
}

impl Mark for Instant {
    const IS_REACHED: bool = true;

    fn set() -> Self {
        Self::now()
    }

    fn seconds_until(&self, later: &Self) -> f64 {
        (*later - *self).as_secs_f64()
    }
}

/// How fast a device is.
pub trait Measured {
    /// Points in its work: an [`Instant`] where the host does the work.
    type Mark: Mark;

    /// GFLOP/s of products that one lane can do at most, measured for so many seconds.
    fn multiply_limit(precision: Precision, seconds: f64) -> f64 {
        fma_limit(precision, seconds)
    }

    /// The same of whole numbers of eight bits, where the device multiplies such.
    fn int8_limit(seconds: f64) -> f64 {
        int8_limit(seconds)
    }

    /// GB/s, read and written together, that one lane can copy at most, measured for so many seconds.
    fn copy_limit(seconds: f64) -> f64 {
        copy_limit(seconds)
    }

    /// What computes: the instruction set of the host, or the name of an accelerator.
    fn hardware() -> &'static str {
        isa().name()
    }

    /// The most bytes of an accelerator's memory that this process has had in use; `None` where memory is the host's.
    fn peak_bytes() -> Option<u64> {
        None
    }
}

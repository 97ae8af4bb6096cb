//! Weights on the reference device: only the flat vector.

use crate::device::{Change, DeviceWeight, Formats, Real, Tensor, change_in_pieces};

/// The kernels read the weights where they are.
#[derive(Clone, Debug)]
pub struct Unpacked;

impl<T: Real> DeviceWeight<T> for Unpacked {
    fn new(_: &Tensor, _: Formats) -> Self {
        Self
    }

    fn update<const N: usize>(&mut self, arrays: [&mut [T]; N], change: &impl Change<T, N>) {
        change_in_pieces(arrays, change);
    }
}

//! Weights and their gradients: each a flat vector, cut into named tensors by one shared [`Layout`].

use std::ops::Range;
use std::sync::Arc;

use super::{Detached, Device, Formats, HostDevice, Layout, ParamId, Tensor};
use crate::simd::{Precision, Real, prefer_large_pages};

/// One tensor in the form that a device's kernels read; beside it, [`Params`] holds the values themselves.
pub trait DeviceWeight<T: Real>: Clone + Send + Sync {
    /// A tensor of zeros.
    fn new(tensor: &Tensor, formats: Formats) -> Self;

    /// Has `change` change the values (the first of the arrays) and what goes with them, in parallel, part by part, and
    /// takes over the new values of a part while they are in the cache.
    fn update<const N: usize>(&mut self, arrays: [&mut [T]; N], change: &impl Change<T, N>);
}

/// Changes elements of a tensor: their places in it, and of each array, themselves.
pub trait Change<T, const N: usize>: Fn(Range<usize>, [&mut [T]; N]) + Sync {}

impl<T, const N: usize, F: Fn(Range<usize>, [&mut [T]; N]) + Sync> Change<T, N> for F {}

/// Values of all tensors, and the form in which the device's kernels read them.
pub struct Params<D: Device> {
    layout: Arc<Layout>,
    values: Vec<D::T>,
    pub(super) weights: Vec<D::Weight>,
    formats: Formats,
}

/// Elements changed at a time where a tensor is not packed: large enough to pay for the hand-over, and whole cache lines.
const PIECE: usize = 1 << 15;

impl<D: Device> Clone for Params<D> {
    fn clone(&self) -> Self {
        let (layout, values, weights) = (self.layout.clone(), self.values.clone(), self.weights.clone());
        Self { layout, values, weights, formats: self.formats }
    }
}

impl<D: Device> std::fmt::Debug for Params<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (n, formats) = (self.layout.n_weights(), self.formats);
        f.debug_struct("Params").field("device", &D::NAME).field("weights", &n).field("formats", &formats).finish()
    }
}

impl<D: Device> Params<D> {
    /// All zeros, in full precision.
    pub fn new(layout: Arc<Layout>) -> Self {
        Self::with_formats(layout, Precision::F32)
    }

    /// All zeros; GEMMs round their operands to these formats.
    pub fn with_formats(layout: Arc<Layout>, formats: impl Into<Formats>) -> Self {
        let formats = formats.into();
        let weights = layout.tensors().iter().map(|tensor| D::Weight::new(tensor, formats)).collect();
        Self { values: vec![D::T::ZERO; layout.len()], weights, layout, formats }
    }

    /// Number format of the operands of GEMMs.
    pub fn precision(&self) -> Precision {
        self.formats.precision
    }

    /// The same in calls that carry no gradient.
    pub fn detached(&self) -> Detached {
        self.formats.detached
    }

    /// Names and places of the tensors.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The flat vector.
    pub fn values(&self) -> &[D::T] {
        &self.values
    }

    /// `(rows, cols)` of a tensor.
    pub fn shape(&self, id: ParamId) -> (usize, usize) {
        let tensor = &self.layout.tensors()[id.index()];
        (tensor.rows, tensor.cols)
    }

    /// One tensor, row-major.
    pub fn get(&self, id: ParamId) -> &[D::T] {
        &self.values[self.layout.tensors()[id.index()].range()]
    }

    /// Changes the values; the device's form follows.
    pub fn update<R>(&mut self, change: impl FnOnce(&mut [D::T]) -> R) -> R {
        let result = change(&mut self.values);
        sweep(self.layout.tensors(), &mut self.weights, [&mut self.values], &|_, _, _| ());
        result
    }

    /// Changes the values together with `M` arrays of the same shape, in one sweep over each tensor: `change` is given
    /// elements of a tensor (their places in the flat vector), those of the weights first and then those of each array.
    /// The device's form of a part is made while these are in the cache. In parallel.
    ///
    /// `N` is `M + 1`.
    pub fn sweep<const M: usize, const N: usize>(
        &mut self,
        arrays: [&mut [D::T]; M],
        change: impl Fn(&Tensor, Range<usize>, [&mut [D::T]; N]) + Sync,
    ) {
        assert_eq!(N, M + 1, "the weights and the arrays");
        let mut all = std::iter::once(&mut self.values[..]).chain(arrays);
        let all = std::array::from_fn(|_| all.next().expect("as many as there are"));
        sweep(self.layout.tensors(), &mut self.weights, all, &change);
    }
}

/// [`Params::sweep`] over consecutive tensors; the arrays begin with the first one.
fn sweep<T: Real, W: DeviceWeight<T>, const N: usize>(
    tensors: &[Tensor],
    weights: &mut [W],
    arrays: [&mut [T]; N],
    change: &(impl Fn(&Tensor, Range<usize>, [&mut [T]; N]) + Sync),
) {
    let [tensor] = tensors else {
        if let Some(first) = tensors.first() {
            let middle = tensors.len() / 2;
            let (left, right) = split(arrays, tensors[middle].range().start - first.range().start);
            let (weights_left, weights_right) = weights.split_at_mut(middle);
            rayon::join(
                || sweep(&tensors[..middle], weights_left, left, change),
                || sweep(&tensors[middle..], weights_right, right, change),
            );
        }
        return;
    };
    let (arrays, _) = split(arrays, tensor.range().len());
    let start = tensor.range().start;
    weights[0].update(arrays, &|range: Range<usize>, arrays: [&mut [T]; N]| {
        change(tensor, start + range.start..start + range.end, arrays);
    });
}

/// Has all elements changed, some thousand at a time, in parallel.
pub fn change_in_pieces<T: Real, const N: usize>(arrays: [&mut [T]; N], change: &impl Change<T, N>) {
    pieces_from(0, arrays, change);
}

fn pieces_from<T: Real, const N: usize>(start: usize, arrays: [&mut [T]; N], change: &impl Change<T, N>) {
    let len = arrays[0].len();
    if len <= PIECE {
        return change(start..start + len, arrays);
    }
    let middle = (len / 2).next_multiple_of(16);
    let (left, right) = split(arrays, middle);
    rayon::join(|| pieces_from(start, left, change), || pieces_from(start + middle, right, change));
}

/// Each array in two.
fn split<T, const N: usize>(arrays: [&mut [T]; N], at: usize) -> ([&mut [T]; N], [&mut [T]; N]) {
    let mut right: [&mut [T]; N] = std::array::from_fn(|_| Default::default());
    let mut rights = right.iter_mut();
    let left = arrays.map(|array| {
        let (left, rest) = array.split_at_mut(at);
        *rights.next().expect("as many as arrays") = rest;
        left
    });
    (left, right)
}

/// Gradients of all tensors, in the same flat order; where the device keeps them.
pub struct Grads<D: Device> {
    layout: Arc<Layout>,
    buffer: D::Buffer,
}

impl<D: Device> Clone for Grads<D> {
    fn clone(&self) -> Self {
        Self { layout: self.layout.clone(), buffer: self.buffer.clone() }
    }
}

impl<D: Device> Grads<D> {
    /// All zeros.
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { buffer: D::buffer(layout.len()), layout }
    }

    /// In a buffer of one's own.
    pub fn from_buffer(layout: Arc<Layout>, buffer: D::Buffer) -> Self {
        Self { layout, buffer }
    }

    /// Names and places of the tensors.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The flat array.
    pub fn buffer(&self) -> &D::Buffer {
        &self.buffer
    }

    /// The flat array, for writing.
    pub fn buffer_mut(&mut self) -> &mut D::Buffer {
        &mut self.buffer
    }

    /// Zeros of the same shape.
    pub fn zeros_like(&self) -> Self {
        Self::new(self.layout.clone())
    }

    /// Back to zero.
    pub fn clear(&mut self) {
        D::clear_buffer(&mut self.buffer);
    }
}

impl<D: Device> Grads<D> {
    /// The flat vector, in host memory of its own.
    pub fn read(&self) -> Vec<D::T> {
        D::read_buffer(&self.buffer)
    }
}

impl<D: HostDevice> Grads<D> {
    /// The flat vector.
    pub fn values(&self) -> &[D::T] {
        D::values(&self.buffer)
    }

    /// The flat vector, for writing.
    pub fn values_mut(&mut self) -> &mut [D::T] {
        D::values_mut(&mut self.buffer)
    }

    /// One tensor's gradient.
    pub fn get(&self, id: ParamId) -> &[D::T] {
        &self.values()[self.layout.tensors()[id.index()].range()]
    }

    /// One tensor's gradient, for adding to.
    pub fn get_mut(&mut self, id: ParamId) -> &mut [D::T] {
        let range = self.layout.tensors()[id.index()].range();
        &mut self.values_mut()[range]
    }
}

/// A flat host array of zeros on large pages.
pub(super) fn host_buffer<T: Real>(len: usize) -> Vec<T> {
    let mut values = vec![T::ZERO; len];
    // The system hands out zeroed pages when they are first written, so the wish is not too late.
    prefer_large_pages(&mut values);
    values
}

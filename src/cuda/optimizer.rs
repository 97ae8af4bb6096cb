//! Kernels of an update: the sum over slices, its norm, Adam.

use std::ptr::null_mut;

use super::queue::enqueue;
use super::{Backend, DeviceMemory, ElementFormat, Queue, View, ffi};

/// Room that [`Queue::sum_squares`] needs, in f64.
const PARTIALS: usize = 1024;

/// The figures of an update of Adam; see `trm_adam` of the header.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // the formula says what they are
pub struct AdamStep {
    pub beta1: f64,
    pub beta2: f64,
    pub decay: f64,
    pub step: f64,
    pub inv_sqrt_correction2: f64,
    pub ema_rate: f64,
    pub grad_scale: f64,
    /// `m / (d + 1e-8)` instead of `atan2(m, d)`.
    pub ratio: bool,
}

impl<B: Backend> Queue<B> {
    /// `out ← Σ slices`, in a binary tree; x holds `slices` arrays of out's length, one after the other.
    pub fn sum_slices(self, x: View<'_>, slices: usize, out: View<'_>) {
        let n = out.len();
        assert!(x.len() >= slices * n && x.format() == out.format());
        enqueue!(self, sum_slices(x.array, slices as i64, n as i64, out.array, n as i64));
    }

    /// Bytes of the room that [`Queue::sum_squares`] works in: its result is the first number of it.
    pub fn sum_squares_bytes() -> usize {
        (PARTIALS + 1) * size_of::<f64>()
    }

    /// `Σ x²`, into the first number of `room`, an f64.
    pub fn sum_squares(self, x: View<'_>, room: &DeviceMemory<B>) {
        assert!(room.bytes() >= Self::sum_squares_bytes());
        let sum: *mut f64 = room.data().cast();
        let partials = sum.wrapping_add(1);
        enqueue!(self, sum_squares(x.array, x.len() as i64, partials, sum));
    }

    /// An update of weights, moments m and v and EMA e from the gradient g, these four in flat order, in one sweep.
    pub fn adam(self, step: &AdamStep, tensors: &[AdamTensor<'_>], [m, v, e, g]: [View<'_>; 4]) {
        assert!([m, v, e].iter().all(|view| view.len() == g.len() && view.format() == g.format()));
        let AdamStep { beta1, beta2, decay, step, inv_sqrt_correction2, ema_rate, grad_scale, ratio } = *step;
        let adam =
            ffi::RawAdam { beta1, beta2, decay, step, inv_sqrt_correction2, ema_rate, grad_scale, ratio: ratio.into() };
        for some in tensors.chunks(ffi::TENSORS) {
            let mut raw = ffi::RawTensors { of: [ffi::RawTensor::NONE; ffi::TENSORS], count: some.len() as i64 };
            for (raw, tensor) in raw.of.iter_mut().zip(some) {
                assert!(tensor.first + tensor.values.len() <= g.len() && tensor.values.format() == g.format());
                *raw = tensor.raw();
            }
            enqueue!(self, adam(&adam, &raw, m.array, v.array, e.array, g.array));
        }
    }
}

/// A weight tensor that Adam changes.
#[derive(Clone, Copy, Debug)]
pub struct AdamTensor<'a> {
    /// Its values.
    pub values: View<'a>,
    /// Rows and columns.
    pub shape: (usize, usize),
    /// The place of its first element in the flat order.
    pub first: usize,
    /// The two forms that tensor cores read, as [`Queue::pack`] makes them: plain and transposed.
    pub packed: Option<[View<'a>; 2]>,
    /// Gates and ups alternate in these.
    pub interleave: bool,
    /// [`PackForm::run`](super::PackForm::run) of the transposed one; that of the other is 8.
    pub transposed_run: usize,
}

impl AdamTensor<'_> {
    fn raw(&self) -> ffi::RawTensor {
        let (rows, cols) = self.shape;
        let fits = |form: &View<'_>| form.len() == rows * cols && form.format() == ElementFormat::Bf16;
        assert!(self.values.len() == rows * cols && self.packed.iter().flatten().all(fits));
        let [packed, transposed] = self.packed.map_or([null_mut(); 2], |forms| forms.map(|form| form.array.data));
        ffi::RawTensor {
            p: self.values.array,
            first: self.first as i64,
            rows: rows as i64,
            cols: cols as i64,
            interleave: self.interleave.into(),
            transposed_run: self.transposed_run as i64,
            packed,
            transposed,
        }
    }
}

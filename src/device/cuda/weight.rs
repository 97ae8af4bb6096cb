//! Weights on a CUDA device: the values that are trained, and the forms that tensor cores read.

use std::sync::{Arc, Mutex, PoisonError};

use super::CudaScalar;
use crate::cuda::{AdamTensor, Backend, DeviceMemory, ElementFormat, PackForm, Queue, View};
use crate::device::{Change, DeviceWeight, Formats, Precision, Tensor, Usage, change_in_pieces};

/// One tensor.
#[derive(Debug)]
pub struct CudaWeight<T, B: Backend> {
    shape: (usize, usize),
    usage: Usage,
    master: DeviceMemory<B>,
    /// For products with tensor cores: as the forward pass reads it (gates and ups alternating), and transposed. There is room for a
    /// multiple of [`ROWS`].
    packed: Option<[DeviceMemory<B>; 2]>,
    /// Of a gate and up projection over positions: both weights of its SwiGLU, for the fused kernels. Made when it is asked
    /// for.
    mix: Mutex<Option<Mix<B>>>,
    scalars: std::marker::PhantomData<T>,
}

/// What [`Queue::pack`] wants there to be room for, rows and columns.
const ROWS: usize = 32;

/// Both weights of a SwiGLU over positions.
#[derive(Clone, Debug)]
struct Mix<B: Backend> {
    packed: Arc<DeviceMemory<B>>,
    /// Values have not changed since.
    is_fresh: bool,
}

impl<T: CudaScalar, B: Backend> Clone for CudaWeight<T, B> {
    fn clone(&self) -> Self {
        Self {
            shape: self.shape,
            usage: self.usage,
            master: self.master.clone(),
            packed: self.packed.clone(),
            mix: Mutex::new(None),
            scalars: self.scalars,
        }
    }
}

impl<T: CudaScalar, B: Backend> CudaWeight<T, B> {
    /// The values.
    pub(super) fn master(&self) -> View<'_> {
        self.master.view(0, self.shape.0 * self.shape.1, T::FORMAT)
    }

    /// The form that the forward pass reads, `[rows, cols]`, and the transposed one; `None` where tensor cores cannot read it.
    pub(super) fn packed(&self) -> Option<[View<'_>; 2]> {
        let [rows, transposed] = self.packed.as_ref()?;
        let len = self.shape.0 * self.shape.1;
        Some([rows.view(0, len, ElementFormat::Bf16), transposed.view(0, len, ElementFormat::Bf16)])
    }

    /// The transposed form for [`Cuda::input_grad`](super::Cuda::input_grad). The backward pass of a SwiGLU has its own of the
    /// down projection.
    pub(super) fn transposed(&self) -> Option<View<'_>> {
        self.packed().filter(|_| self.usage != Usage::DownRows).map(|[_, transposed]| transposed)
    }

    /// Both forms of a SwiGLU's down projection over features.
    pub(super) fn packed_down(&self) -> Option<[View<'_>; 2]> {
        self.packed().filter(|_| self.usage == Usage::DownRows)
    }

    /// How the two forms are made.
    fn forms(&self) -> [PackForm; 2] {
        let interleave = self.usage == Usage::GateUpRows;
        let run = if self.usage == Usage::DownRows { 4 } else { 8 };
        [PackForm { interleave, transpose: false, run: 8 }, PackForm { interleave, transpose: true, run }]
    }

    /// This gate and up projection and `down`, packed for the fused kernels on sequences of that width.
    pub(super) fn mix(&self, down: &Self, width: usize) -> Option<Arc<DeviceMemory<B>>> {
        let queue = Queue::<B>::get();
        let (len, inner) = down.shape;
        let bytes = queue.mix_packed_bytes(len, width, inner)?;
        let mut mix = self.mix.lock().unwrap_or_else(PoisonError::into_inner);
        let room = || Mix { packed: Arc::new(DeviceMemory::new(queue, bytes)), is_fresh: false };
        let mix = mix.get_or_insert_with(room);
        if !std::mem::replace(&mut mix.is_fresh, true) {
            queue.mix_pack(self.master(), down.master(), &mix.packed, (len, inner));
        }
        Some(mix.packed.clone())
    }

    /// Packs both weights again, in the same place, where they had been asked for.
    pub(super) fn refresh_mix(&self, down: &Self) {
        if let Some(mix) = self.mix.lock().unwrap_or_else(PoisonError::into_inner).as_mut().filter(|mix| !mix.is_fresh)
        {
            let (len, inner) = down.shape;
            Queue::<B>::get().mix_pack(self.master(), down.master(), &mix.packed, (len, inner));
            mix.is_fresh = true;
        }
    }

    /// What Adam changes, the forms for tensor cores among it; the values are those from `first` on in the flat order.
    pub(super) fn in_update(&self, first: usize) -> AdamTensor<'_> {
        let [_, PackForm { interleave, run, .. }] = self.forms();
        let (values, shape, packed) = (self.master(), self.shape, self.packed());
        AdamTensor { values, shape, first, packed, interleave, transposed_run: run }
    }

    /// Values have changed, and the form for the fused kernels has not.
    pub(super) fn forget_mix(&mut self) {
        if let Some(mix) = self.mix.get_mut().unwrap_or_else(PoisonError::into_inner) {
            mix.is_fresh = false;
        }
    }

    /// Makes every form follow the values, which have come from the host.
    fn follow(&mut self) {
        let queue = Queue::<B>::get();
        self.forget_mix();
        for (form, to) in self.forms().into_iter().zip(self.packed().into_iter().flatten()) {
            queue.pack(self.master(), self.shape, form, to);
        }
    }

    /// The values, on the host.
    pub(crate) fn read(&self, to: &mut [T]) {
        self.master.download(0, to);
    }
}

impl<T: CudaScalar, B: Backend> DeviceWeight<T> for CudaWeight<T, B> {
    fn new(tensor: &Tensor, Formats { precision, .. }: Formats) -> Self {
        let (queue, shape) = (Queue::get(), (tensor.rows, tensor.cols));
        let len = tensor.rows * tensor.cols;
        let is_product = matches!(tensor.usage, Usage::Rows | Usage::GateUpRows | Usage::DownRows);
        let aligned = tensor.rows.is_multiple_of(8) && tensor.cols.is_multiple_of(8);
        let packs = precision == Precision::Bf16 && T::FORMAT == ElementFormat::F32 && is_product && aligned;
        let room = |rows: usize, cols| {
            DeviceMemory::zeros(queue, rows.next_multiple_of(ROWS) * cols * ElementFormat::Bf16.bytes())
        };
        Self {
            shape,
            usage: tensor.usage,
            master: DeviceMemory::zeros(queue, len * size_of::<T>()),
            packed: packs.then(|| [room(tensor.rows, tensor.cols), room(tensor.cols, tensor.rows)]),
            mix: Mutex::new(None),
            scalars: std::marker::PhantomData,
        }
    }

    fn update<const N: usize>(&mut self, arrays: [&mut [T]; N], change: &impl Change<T, N>) {
        let mut arrays = arrays;
        change_in_pieces(arrays.each_mut().map(|array| &mut **array), change);
        self.master.upload(0, arrays[0]);
        self.follow();
    }
}

#[cfg(all(test, cuda_twin))]
mod tests {
    use super::*;
    use crate::cuda::{AdamStep, Twin};
    use crate::device::cuda::{AdamArrays, CudaBuffer, OnTwin};
    use crate::device::{Layout, Params};
    use crate::rng::Rng;

    /// Both forms of each tensor, with all the room that there is.
    fn forms(params: &Params<OnTwin>) -> Vec<Vec<u16>> {
        let forms = params.weights.iter().flat_map(|weight| weight.packed.as_ref().expect("for tensor cores"));
        let read = |form: &DeviceMemory<Twin>| {
            let mut bits = vec![0u16; form.bytes() / size_of::<u16>()];
            form.download(0, &mut bits);
            bits
        };
        forms.map(read).collect()
    }

    /// Rows that warpgroups multiply, in both orders of theirs, whole and ragged, and rows of a smaller weight.
    #[test]
    fn forms_after_an_update_are_those_of_its_values() {
        let mut layout = Layout::default();
        for (rows, cols, usage) in [
            (512, 528, Usage::Rows),
            (1040, 264, Usage::GateUpRows),
            (264, 1000, Usage::DownRows),
            (40, 24, Usage::DownRows),
        ] {
            layout.push("", rows, cols, usage);
        }
        let (layout, mut rng) = (Arc::new(layout), Rng::new(3));
        let mut draw = || (0..layout.len()).map(|_| rng.normal() as f32).collect::<Vec<f32>>();
        let mut params = Params::<OnTwin>::with_formats(layout.clone(), Precision::Bf16);
        params.update(|values| values.copy_from_slice(&draw()));
        let mut gradient = CudaBuffer::new(layout.len(), 1);
        gradient.write(&draw());
        let [m, v, e] = [0; 3].map(|_| CudaBuffer::new(layout.len(), 1));
        let step = AdamStep {
            beta1: 0.9,
            beta2: 0.95,
            decay: 0.5,
            step: 0.1,
            inv_sqrt_correction2: 4.0,
            ema_rate: 0.9,
            grad_scale: 1.0,
            ratio: false,
        };
        let before = forms(&params);
        OnTwin::adam(&mut params, &step, &AdamArrays { state: [&m, &v, &e], gradient: &gradient });
        let after = forms(&params);
        assert!(before.iter().zip(&after).all(|(before, after)| before != after), "every form follows");
        let values = OnTwin::read_weights(&params);
        params.update(|old| old.copy_from_slice(&values));
        assert!(forms(&params) == after);
    }
}

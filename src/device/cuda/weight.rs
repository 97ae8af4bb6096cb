//! Weights on a CUDA device: the values that are trained, and the forms that tensor cores read.

use std::sync::{Arc, Mutex, PoisonError};

use super::{CudaScalar, PLAIN};
use crate::cuda::{AdamTensor, Backend, DeviceMemory, ElementFormat, PackForm, Queue, View};
use crate::device::{Change, DeviceWeight, Formats, Precision, Tensor, Usage, change_in_pieces};

/// One tensor.
#[derive(Debug)]
pub struct CudaWeight<T, B: Backend> {
    shape: (usize, usize),
    usage: Usage,
    master: DeviceMemory<B>,
    /// For products with tensor cores: as the forward pass reads it (gates and ups alternating), and transposed.
    packed: Option<[DeviceMemory<B>; 2]>,
    /// Of a gate and up projection over positions: both weights of its SwiGLU, for the fused kernels. Made when it is asked
    /// for.
    mix: Mutex<Option<Mix<B>>>,
    scalars: std::marker::PhantomData<T>,
}

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
        let (shape, interleave) = (self.shape, self.usage == Usage::GateUpRows);
        AdamTensor { values: self.master(), shape, first, packed: self.packed(), interleave }
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
        let interleave = self.usage == Usage::GateUpRows;
        if let Some([rows, transposed]) = &self.packed {
            let len = self.shape.0 * self.shape.1;
            queue.pack(
                self.master(),
                self.shape,
                PackForm { interleave, ..PLAIN },
                rows.view(0, len, ElementFormat::Bf16),
            );
            let form = PackForm { interleave, transpose: true };
            queue.pack(self.master(), self.shape, form, transposed.view(0, len, ElementFormat::Bf16));
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
        let is_product = matches!(tensor.usage, Usage::Rows | Usage::GateUpRows);
        let aligned = tensor.rows.is_multiple_of(8) && tensor.cols.is_multiple_of(8);
        let packs = precision == Precision::Bf16 && T::FORMAT == ElementFormat::F32 && is_product && aligned;
        let room = || DeviceMemory::zeros(queue, len * ElementFormat::Bf16.bytes());
        Self {
            shape,
            usage: tensor.usage,
            master: DeviceMemory::zeros(queue, len * size_of::<T>()),
            packed: packs.then(|| [room(), room()]),
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

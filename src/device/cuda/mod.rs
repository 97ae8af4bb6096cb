//! A CUDA device, or its twin on the host: blocks become views of device memory, and each method queues the kernels of
//! `kernels/` that compute it.
//!
//! In f32 and f64 every kernel is the plain one. With weights of bf16 precision activations are kept in bf16, and products,
//! SwiGLUs and attention run on tensor cores wherever their sizes allow it (widths in multiples of 8); elsewhere the plain
//! kernels do, on the same bf16 values. Attention of short sequences has kernels of its own there.
//!
//! CudaBuffer of weights are summed in *slices*: each slice of the batch has an array of its own, so that how many sequences
//! are worked on at a time changes no bit of the sum (see [`CudaBuffer`]).

mod attention;
mod buffer;
mod device;
mod measure;
mod states;
mod swiglu;
mod transfer;
mod weight;

pub use buffer::CudaBuffer;
pub use states::CarriedStates;
pub use weight::CudaWeight;

use super::{Block, Grads, Indices, ParamId, Params, Precision, Real, Space};
use crate::cuda::Number;
use crate::cuda::{AdamStep, Backend, DeviceMemory, ElementFormat, GradientSums, Integers, Queue, View};

/// A CUDA device, whose scalars outside of activations are `T`: f32 or f64.
pub struct Cuda<T, B: Backend> {
    queue: Queue<B>,
    space: Space,
    memory: DeviceMemory<B>,
    /// Integers: first those that stay, then those until the next reset.
    integers: DeviceMemory<B>,
    resident: usize,
    integers_used: usize,
    precision: Precision,
    /// Cosines and sines of the shape that attention was last called with, and that shape.
    rope: Option<(usize, usize, DeviceMemory<B>)>,
    /// States of the sequences that a lane answers.
    pub(crate) carried: Option<CarriedStates<B>>,
    /// Sequences to work on at a time at most; 0: as many as there is memory for.
    pub(crate) micro_batch: usize,
    /// The memory, while no kernel runs.
    set_aside: Option<DeviceMemory<B>>,
    scalars: std::marker::PhantomData<T>,
}

/// Integers that there is room for at first.
const INTEGERS: usize = 1 << 12;

/// Scalars of a CUDA device.
pub trait CudaScalar: Real + Number {
    /// Their format.
    const FORMAT: ElementFormat;
}

impl CudaScalar for f32 {
    const FORMAT: ElementFormat = ElementFormat::F32;
}

impl CudaScalar for f64 {
    const FORMAT: ElementFormat = ElementFormat::F64;
}

/// The nearest bf16, ties to even.
fn to_bf16(value: f64) -> u16 {
    let bits = (value as f32).to_bits();
    if value.is_nan() { 0x7fff } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}

fn from_bf16(bits: u16) -> f64 {
    f32::from_bits(u32::from(bits) << 16).into()
}

impl<T: CudaScalar, B: Backend> Cuda<T, B> {
    /// Whether activations and operands of products are bf16.
    fn is_bf16(&self) -> bool {
        self.precision == Precision::Bf16 && T::FORMAT == ElementFormat::F32
    }

    /// The elements of a block.
    fn view(&self, block: Block) -> View<'_> {
        match block.is_empty() {
            true => self.memory.view(0, 0, T::FORMAT),
            false => self.memory.view(block.start_byte(), block.len(), ElementFormat::of_bytes(block.element_bytes())),
        }
    }

    /// Integers that were put here.
    fn indices(&self, indices: Indices) -> Integers<'_> {
        self.integers.integers(indices.start(), indices.len())
    }

    /// The sums of a tensor's gradient.
    fn sums<'a>(&self, grads: &'a Grads<Self>, id: ParamId) -> GradientSums<'a> {
        let range = grads.layout().tensors()[id.index()].range();
        grads.buffer().sums(range)
    }

    /// Whether all blocks are bf16 with rows of whole 16 bytes, as tensor cores want them.
    fn on_tensor_cores(&self, blocks: &[Block], widths: &[usize]) -> bool {
        self.is_bf16()
            && blocks.iter().all(|block| block.is_empty() || block.element_bytes() == ElementFormat::Bf16.bytes())
            && widths.iter().all(|width| width.is_multiple_of(8))
    }

    /// Whether a linear layer from bf16 activations to f32 numbers, or its gradient, is one of the narrow kernels.
    fn is_narrow(&self, activations: Block, numbers: Block, shape: (usize, usize)) -> bool {
        self.on_tensor_cores(&[activations], &[])
            && numbers.element_bytes() == ElementFormat::F32.bytes()
            && self.queue.narrow_linear_fits(shape)
    }
}

/// What tests of other rooms run on.
#[cfg(all(test, cuda_twin))]
pub(crate) type OnTwin = Cuda<f32, crate::cuda::Twin>;

/// Weights as they lie, for the kernels that read them so.
fn master<'a, T: CudaScalar, B: Backend>(params: &'a Params<Cuda<T, B>>, id: ParamId) -> View<'a> {
    params.weights[id.index()].master()
}

/// The weights and arrays of an update, in their flat order.
pub struct AdamArrays<'a, T, B: Backend> {
    /// First moment, second moment, EMA.
    pub state: [&'a CudaBuffer<T, B>; 3],
    /// The gradient.
    pub gradient: &'a CudaBuffer<T, B>,
}

impl<T: CudaScalar, B: Backend> Cuda<T, B> {
    /// One update of Adam of all trained weights, whose forms follow.
    pub(crate) fn adam(params: &mut Params<Self>, step: &AdamStep, arrays: &AdamArrays<'_, T, B>) {
        let layout = params.layout().clone();
        let trained = layout.tensors().iter().zip(&params.weights).filter(|(tensor, _)| tensor.trained);
        let tensors: Vec<_> = trained.map(|(tensor, weight)| weight.in_update(tensor.range().start)).collect();
        let [m, v, e] = arrays.state.map(|array| array.view(0..layout.len()));
        Queue::<B>::get().adam(step, &tensors, [m, v, e, arrays.gradient.view(0..layout.len())]);
        params.weights.iter_mut().for_each(CudaWeight::forget_mix);
        for pair in params.weights.windows(2) {
            pair[0].refresh_mix(&pair[1]);
        }
    }

    /// The weights as they are on the device, in their flat order.
    pub(crate) fn read_weights(params: &Params<Self>) -> Vec<T> {
        let mut values = vec![T::ZERO; params.layout().len()];
        for (tensor, weight) in params.layout().tensors().iter().zip(&params.weights) {
            weight.read(&mut values[tensor.range()]);
        }
        values
    }
}

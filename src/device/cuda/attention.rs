//! Attention on CUDA: which kernels attend, and where q and k turn by their rotary positions.

use super::{Cuda, CudaScalar};
use crate::cuda::{AttentionKernels, AttentionSizes, Backend, DeviceMemory, Queue, View};
use crate::device::{AttentionShape, Block, Device as _, ParamId, Params, Rope, Store};

impl<T: CudaScalar, B: Backend> Cuda<T, B> {
    /// Only products of warpgroups turn.
    pub(super) fn rope_is_fused(
        &self,
        params: &Params<Self>,
        weight: ParamId,
        shape: &AttentionShape,
        blocks: &[Block],
    ) -> bool {
        self.on_tensor_cores(blocks, &[])
            && params.weights[weight.index()].packed().is_some()
            && self.attention_kernels(shape, blocks) != AttentionKernels::Plain
            && self.queue.linear_rope_fits(params.shape(weight), shape.head_dim)
    }

    pub(super) fn product_with_rope(
        &mut self,
        params: &Params<Self>,
        weight: ParamId,
        shape: &AttentionShape,
        x: Block,
        qkv: Block,
    ) {
        self.prepare_rope(shape);
        let [w, _] = params.weights[weight.index()].packed().expect("rope_is_fused has said so");
        self.queue.linear_rope_bf16(self.view(x), w, self.cos_sin(), self.view(qkv), params.shape(weight));
    }

    pub(super) fn attend(&mut self, shape: &AttentionShape, rope: Rope, qkv: Block, [out, lse]: [Block; 2]) {
        if rope.in_attention() {
            self.prepare_rope(shape);
        }
        let kernels = self.attention_kernels(shape, &[qkv, out]);
        let cos_sin = rope.in_attention().then(|| self.cos_sin());
        let made = (self.view(out), self.view(lse));
        self.queue.attention(kernels, sizes(shape), self.view(qkv), cos_sin, made);
    }

    pub(super) fn attend_backward(
        &mut self,
        shape: &AttentionShape,
        rope: Rope,
        qkv: Block,
        [out, lse]: [Block; 2],
        [d_out, d_qkv]: [Block; 2],
    ) {
        if rope != Rope::Nowhere {
            self.prepare_rope(shape);
        }
        let kernels = self.attention_kernels(shape, &[qkv, out, d_out, d_qkv]);
        let means = (kernels != AttentionKernels::Short).then(|| self.alloc(lse.len(), Store::Exact));
        let cos_sin = (rope != Rope::Nowhere).then(|| (self.cos_sin(), rope == Rope::InProduct));
        let (given, of_out) = ((self.view(qkv), cos_sin), (self.view(out), self.view(lse)));
        let (gradients, scratch) = ((self.view(d_out), self.view(d_qkv)), means.map(|means| self.view(means)));
        self.queue.attention_backward(kernels, sizes(shape), given, of_out, gradients, scratch);
        if let Some(means) = means {
            self.release(means);
        }
    }

    fn attention_kernels(&self, shape: &AttentionShape, blocks: &[Block]) -> AttentionKernels {
        match self.on_tensor_cores(blocks, &[shape.head_dim]) {
            true => self.queue.attention_on_tensor_cores(shape.len, shape.head_dim),
            false => AttentionKernels::Plain,
        }
    }

    /// Makes the angles of rotary positions, where the shape is another one than last time.
    fn prepare_rope(&mut self, shape: &AttentionShape) {
        let (len, half) = (shape.len, shape.head_dim / 2);
        if self.rope.as_ref().is_some_and(|rope| (rope.0, rope.1) == (len, half)) {
            return;
        }
        let turn = |(l, i): (usize, usize)| {
            let angle = l as f64 * 10_000f64.powf(-2.0 * i as f64 / shape.head_dim as f64);
            [angle.cos(), angle.sin()].map(T::from_f64)
        };
        let rope: Vec<[T; 2]> = (0..len).flat_map(|l| (0..half).map(move |i| (l, i))).map(turn).collect();
        let mut memory = DeviceMemory::new(Queue::get(), size_of_val(&rope[..]));
        memory.upload(0, &rope);
        self.rope = Some((len, half, memory));
    }

    /// The angles that [`Self::prepare_rope`] made.
    fn cos_sin(&self) -> View<'_> {
        let (len, half, memory) = self.rope.as_ref().expect("the angles are there");
        memory.view(0, 2 * len * half, T::FORMAT)
    }
}

fn sizes(shape: &AttentionShape) -> AttentionSizes {
    AttentionSizes { sequences: shape.sequences, len: shape.len, heads: shape.heads, head_dim: shape.head_dim }
}

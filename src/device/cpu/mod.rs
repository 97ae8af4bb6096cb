//! The CPU: kernels of [`crate::simd`] on packed weights. What it keeps to itself: the packing, a copy of the weights for
//! each NUMA node, deferred weight gradients, and threads inside a product.
//!
//! Where a plain loop is as good as any other, it is the [reference](super::reference)'s own.

mod deferred;
mod swiglu;
mod weight;

pub use deferred::ROWS_ENOUGH;
pub use weight::CpuWeight;

use std::time::Instant;

use super::memory::HostMemory;
use super::params::host_buffer;
use super::reference::{host_methods, plain_methods, tables};
use super::{
    AdamCoefficients, AttentionShape, Block, Choice, Detached, Device, Grads, HostDevice, Indices, InputGrad,
    Likelihood, Measured, NormEpilogue, Over, ParamId, Params, Precision, Real, Rope, Runs, Space, Store, SwiGlu, Team,
};
use crate::simd::{self, AddRmsNorm, PackedWeight, RopeTable, SwigluOperands};
use deferred::Deferred;

/// One core's memory and kernels.
pub struct Cpu<T> {
    memory: HostMemory<T>,
    /// Angles of the shape that attention was last called with.
    rope: Option<RopeTable<T>>,
    deferred: Deferred<T>,
    node: usize,
    /// Threads that share a product.
    team: Team,
    /// Whether products belong to a call without gradient.
    is_detached: bool,
}

impl<T: Real> Cpu<T> {
    /// One matrix, packed for products; the copy of the lane's NUMA node.
    fn weight<'a>(&self, params: &'a Params<Self>, id: ParamId) -> &'a PackedWeight<T> {
        params.weights[id.index()].packed(self.node)
    }

    fn prepare_rope(&mut self, shape: &AttentionShape) {
        if !self.rope.as_ref().is_some_and(|table| table.fits(shape)) {
            self.rope = Some(RopeTable::new(shape.len, shape.head_dim));
        }
    }
}

impl<T: Real> HostDevice for Cpu<T> {
    host_methods!();

    fn add(a: &[T], b: &[T], out: &mut [T]) {
        simd::add(a, b, out);
    }

    fn add_assign(to: &mut [T], from: &[T]) {
        simd::add_assign(to, from);
    }

    fn sum_squares(a: &[T]) -> f64 {
        simd::sum_squares(a)
    }

    fn adam_step(c: &AdamCoefficients<T>, p: &mut [T], m: &mut [T], v: &mut [T], e: &mut [T], g: &[T]) {
        simd::adam_step(c, p, m, v, e, g);
    }
}

impl<T: Real> Measured for Cpu<T> {
    type Mark = Instant;
}

impl<T: Real> Device for Cpu<T> {
    type T = T;
    type Weight = CpuWeight<T>;
    type Buffer = Vec<T>;

    plain_methods!();

    const NAME: &'static str = "cpu";

    fn path() -> &'static str {
        simd::isa().name()
    }

    fn new() -> Self {
        Self {
            memory: HostMemory::default(),
            rope: None,
            deferred: Deferred::default(),
            node: 0,
            team: Team::default(),
            is_detached: false,
        }
    }

    fn set_node(&mut self, node: usize) {
        self.node = node;
    }

    fn join_team(&mut self, team: &Team) {
        self.team = team.clone();
    }

    fn replicate(params: &mut Params<Self>, node_of_thread: &[usize]) {
        weight::replicate(params, node_of_thread);
    }

    fn size_bytes(&self) -> usize {
        self.memory.size_bytes() + self.deferred.size_bytes()
    }

    fn reset(&mut self, _: Precision) {
        self.memory.reset();
        self.deferred.clear();
        self.is_detached = false;
    }

    fn set_detached(&mut self, detached: bool) {
        self.is_detached = detached;
    }

    fn is_int8(&self, params: &Params<Self>) -> bool {
        self.is_detached && params.detached() == Detached::Int8
    }

    fn copy(&mut self, from: Block, to: Block) {
        let ([from], [to]) = self.memory.split([from], [to]);
        to.copy_from_slice(from);
    }

    fn axpy(&mut self, alpha: T, from: Block, to: Block) {
        let ([from], [to]) = self.memory.split([from], [to]);
        simd::axpy_shared(to, alpha, from, self.team.size());
    }

    fn sum(&mut self, summands: &[Block], out: Block) {
        match *summands {
            [] => self.fill(out, T::ZERO),
            [a] => self.copy(a, out),
            [a, b, ref rest @ ..] => {
                let ([a, b], [sum]) = self.memory.split([a, b], [out]);
                simd::add_shared(a, b, sum, self.team.size());
                for &summand in rest {
                    self.axpy(T::ONE, summand, out);
                }
            }
        }
    }

    fn add_runs(&mut self, shape: (usize, usize), alpha: T, from: Runs, to: Runs) {
        let ([x], [y]) = self.memory.split([from.block], [to.block]);
        tables::each_run(shape, from, to, |x_at, y_at| simd::axpy(&mut y[y_at], alpha, &x[x_at]));
    }

    fn add_table(&mut self, params: &Params<Self>, table: ParamId, scale: f64, every: usize, x: Block) {
        let table = params.get(table);
        for stretch in self.memory.get_mut(x).chunks_exact_mut(every) {
            simd::axpy(&mut stretch[..table.len()], T::from_f64(scale), table);
        }
    }

    fn table_grad(&mut self, grads: &mut Grads<Self>, table: ParamId, scale: f64, every: usize, dy: Block) {
        let d_table = grads.get_mut(table);
        for stretch in self.memory.get(dy).chunks_exact(every) {
            simd::axpy(d_table, T::from_f64(scale), &stretch[..d_table.len()]);
        }
    }

    fn embed_backward(
        &mut self,
        grads: &mut Grads<Self>,
        table: ParamId,
        tokens: Indices,
        (seq_len, prefix): (usize, usize),
        scale: f64,
        dy: Block,
    ) {
        let width = grads.layout().tensors()[table.index()].cols;
        let d_table = grads.get_mut(table);
        let tokens = self.memory.indices(tokens);
        let sequences = self.memory.get(dy).chunks_exact((prefix + seq_len) * width);
        for (dy, tokens) in sequences.zip(tokens.chunks_exact(seq_len)) {
            for (dy, &token) in dy[prefix * width..].chunks_exact(width).zip(tokens) {
                simd::axpy(&mut d_table[token as usize * width..][..width], T::from_f64(scale), dy);
            }
        }
    }

    fn linear(&mut self, params: &Params<Self>, weight: ParamId, x: Block, y: Block, epilogue: Option<NormEpilogue>) {
        let (weight, is_int8) = (self.weight(params, weight), self.is_int8(params));
        let (h, inv_rms) = epilogue.map_or_else(Default::default, |then| (then.h, then.inv_rms));
        let ([x, h], [y, inv_rms]) = self.memory.split([x, h], [y, inv_rms]);
        let (epilogue, threads) = (epilogue.map(|_| AddRmsNorm { h, inv_rms }), self.team.size());
        if is_int8 {
            weight.forward_rows_int8(x, y, epilogue, threads);
        } else {
            weight.forward_rows(x, y, epilogue, threads);
        }
    }

    fn linear_backward(&mut self, params: &Params<Self>, weight: ParamId, dy: Block, dx: InputGrad) {
        let accumulate = self.begin_input_grad(dx);
        let weight = self.weight(params, weight);
        let ([dy], [dx]) = self.memory.split([dy], [dx.to]);
        weight.backward_rows(dy, dx, accumulate, self.team.size());
    }

    fn weight_grad(&mut self, params: &Params<Self>, grads: &mut Grads<Self>, weight: ParamId, dy: Block, x: Block) {
        let (precision, shape) = (params.precision(), params.shape(weight));
        let used = self.new_use(params, weight, dy.len() / shape.0);
        let ([dy, x], [to_dy, to_x]) = self.memory.split([dy, x], used.operands);
        simd::pack_deferred(precision, shape, (dy, x), (to_dy, to_x));
        self.defer(params, grads, used);
    }

    fn finish_weight_grads(&mut self, params: &Params<Self>, grads: &mut Grads<Self>) -> usize {
        self.sum_all_uses(params, grads)
    }

    fn deferred_flops(&self, params: &Params<Self>) -> f64 {
        self.flops_of_uses(params)
    }

    fn swiglu_saved_len(&self, params: &Params<Self>, swiglu: SwiGlu, len: usize) -> usize {
        let (count, vectors) = swiglu.pieces(len);
        count * simd::swiglu_saved_len(self.weight(params, swiglu.gate_up), vectors)
    }

    fn swiglu(
        &mut self,
        params: &Params<Self>,
        swiglu: SwiGlu,
        x: Block,
        saved: Option<Block>,
        y: Block,
        epilogue: Option<NormEpilogue>,
    ) {
        self.swiglu_pieces(params, swiglu, x, saved, y, epilogue);
    }

    fn swiglu_backward(
        &mut self,
        params: &Params<Self>,
        grads: &mut Grads<Self>,
        swiglu: SwiGlu,
        dy: Block,
        saved: Block,
        x: Block,
        dx: Option<InputGrad>,
    ) {
        let dx = dx.map(|dx| self.begin_sum(dx));
        if swiglu.over != Over::Features {
            self.swiglu_columns_backward(params, grads, swiglu, [dy, saved, x], dx);
            // The sequences of one call have two to four thousand columns together, and their operands are still in the
            // cache: deferring them further would gain nothing.
            self.sum_uses(params, grads, swiglu.down);
            self.sum_uses(params, grads, swiglu.gate_up);
            return;
        }
        let (_, vectors) = swiglu.pieces(x.len());
        let down = self.new_use(params, swiglu.down, vectors);
        let gate_up = self.new_use(params, swiglu.gate_up, vectors);
        let weights = (self.weight(params, swiglu.gate_up), self.weight(params, swiglu.down));
        let ([a, b], [c, d]) = (down.operands, gate_up.operands);
        let writes = [a, b, c, d, dx.unwrap_or_default()];
        let ([dy, saved, x], [a, b, c, d, to]) = self.memory.split([dy, saved, x], writes);
        let operands = SwigluOperands { down: [a, b], gate_up: [c, d] };
        simd::swiglu_backward(weights, (dy, saved, x), operands, dx.map(|_| to), self.team.size());
        self.defer(params, grads, down);
        self.defer(params, grads, gate_up);
    }

    fn attention(
        &mut self,
        precision: Precision,
        shape: &AttentionShape,
        rope: Rope,
        qkv: Block,
        out: Block,
        lse: Block,
    ) {
        if rope.in_attention() {
            self.prepare_rope(shape);
        }
        let ([], [qkv, out, lse]) = self.memory.split([], [qkv, out, lse]);
        let table = self.rope.as_ref().filter(|_| rope.in_attention());
        simd::attention_forward(precision, shape, table, qkv, out, lse, self.team.size());
    }

    fn attention_backward(
        &mut self,
        precision: Precision,
        shape: &AttentionShape,
        rope: Rope,
        qkv: Block,
        out: Block,
        lse: Block,
        d_out: Block,
        d_qkv: Block,
    ) {
        if rope.in_attention() {
            self.prepare_rope(shape);
        }
        let ([qkv, out, lse, d_out], [d_qkv]) = self.memory.split([qkv, out, lse, d_out], [d_qkv]);
        let table = self.rope.as_ref().filter(|_| rope.in_attention());
        simd::attention_backward(precision, shape, table, qkv, out, lse, d_out, d_qkv, self.team.size());
    }

    fn add_rmsnorm(&mut self, over: Over, width: usize, h: Block, x: Block, inv_rms: Block) {
        let ([h], [x, inv_rms]) = self.memory.split([h], [x, inv_rms]);
        match over {
            Over::Features => simd::add_rmsnorm_rows(width, h, x, inv_rms),
            Over::Positions(len) => simd::add_rmsnorm_cols(len, width, h, x, inv_rms),
        }
    }

    fn rmsnorm_backward(&mut self, over: Over, width: usize, y: Block, inv_rms: Block, d: Block) {
        let sequences = inv_rms.len() / width;
        let mean = self.alloc(if over == Over::Features { 0 } else { sequences * width }, Store::Exact);
        let threads = self.team.size();
        let ([y, inv_rms], [d, mean_values]) = self.memory.split([y, inv_rms], [d, mean]);
        match over {
            Over::Features => simd::rmsnorm_backward_rows(width, y, inv_rms, d, threads),
            Over::Positions(len) => simd::rmsnorm_backward_cols(len, width, y, inv_rms, d, mean_values, threads),
        }
        self.release(mean);
    }
}

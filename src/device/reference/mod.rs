//! The reference: plain loops under their formulas, one function a kernel, GEMMs by `matrixmultiply`.
//!
//! It is the naive twin of everything: the kernels of other devices are tested against it, and it answers the question how
//! this really works. There is no SIMD of ours, no packing, no fusion and no deferral. Functions here see slices; the
//! implementation of [`Device`] below only finds the slices of blocks.

#[macro_use]
pub(crate) mod fault;
pub(super) mod experts;
pub(super) mod fixed_point;
mod fused;
pub(super) mod losses;
mod plain;
mod products;
pub(super) mod tables;
#[cfg(test)]
mod tests;
mod weight;

pub use losses::argmax;
pub(super) use plain::{host_methods, plain_methods};
pub use weight::Unpacked;

use std::time::Instant;

use arrayvec::ArrayVec;

use super::memory::HostMemory;
use super::params::host_buffer;
use super::{
    AdamCoefficients, AttentionShape, Block, Choice, Detached, Device, Grads, HostDevice, Indices, InputGrad,
    Likelihood, Measured, NormEpilogue, Over, ParamId, Params, Precision, Real, Rope, Runs, Space, Store, SumEpilogue,
    SwiGlu, Update,
};
use fused::SwiGluMatrices;
use products::{Matrix, Multiply, Rounding, operand, transposed};

/// The plain device.
pub struct Reference<T> {
    memory: HostMemory<T>,
    /// Whether products belong to a call without gradient.
    is_detached: bool,
}

/// How operands of forward products are rounded.
fn rounding<T: Multiply>(device: &Reference<T>, params: &Params<Reference<T>>) -> Rounding {
    if device.is_int8(params) { Rounding::Int8 } else { Rounding::To(params.precision()) }
}

impl<T: Multiply> HostDevice for Reference<T> {
    host_methods!();

    fn add(a: &[T], b: &[T], out: &mut [T]) {
        out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (&a, &b))| *out = a + b);
    }

    fn add_assign(to: &mut [T], from: &[T]) {
        add(to, from);
    }

    fn sum_squares(a: &[T]) -> f64 {
        a.iter().map(|a| a.to_f64().powi(2)).sum()
    }

    fn adam_step(c: &AdamCoefficients<T>, p: &mut [T], m: &mut [T], v: &mut [T], e: &mut [T], g: &[T]) {
        for i in 0..p.len() {
            let g = g[i] * c.grad_scale;
            m[i] = m[i] + (T::ONE - c.beta1) * (g - m[i]);
            v[i] = v[i] + (T::ONE - c.beta2) * (g * g - v[i]);
            let d = Real::sqrt(v[i]) * c.inv_sqrt_correction2;
            let direction = match c.update {
                Update::Atan2 => Real::atan2(m[i], d),
                Update::Ratio => m[i] / (d + T::from_f64(1e-8)),
            };
            p[i] = p[i] * c.decay - c.step * direction;
            e[i] = c.ema_rate * e[i] + (T::ONE - c.ema_rate) * p[i];
        }
    }
}

/// Matrices of a SwiGLU.
fn matrices<T: Multiply>(params: &Params<Reference<T>>, swiglu: SwiGlu) -> SwiGluMatrices<'_, T> {
    let ((double, width), (out, inner)) = (params.shape(swiglu.gate_up), params.shape(swiglu.down));
    assert_eq!(double, 2 * inner, "the projections of one SwiGLU");
    SwiGluMatrices { gate_up: params.get(swiglu.gate_up), down: params.get(swiglu.down), inner, width, out }
}

/// A piece with what is mapped or normalised as its rows: a sequence is transposed.
fn as_rows<T: Real>(over: Over, width: usize, piece: &[T]) -> Vec<T> {
    match over {
        Over::Features => piece.to_vec(),
        Over::Positions(_) => transposed(piece, width),
    }
}

/// Back from [`as_rows`].
fn from_rows<T: Real>(over: Over, row_len: usize, rows: &[T]) -> Vec<T> {
    match over {
        Over::Features => rows.to_vec(),
        Over::Positions(_) => transposed(rows, row_len),
    }
}

fn add<T: Real>(to: &mut [T], from: &[T]) {
    assert_eq!(to.len(), from.len());
    to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
}

impl<T: Multiply> Measured for Reference<T> {
    type Mark = Instant;
}

impl<T: Multiply> Device for Reference<T> {
    type T = T;
    type Weight = Unpacked;
    type Buffer = Vec<T>;

    plain_methods!();

    const NAME: &'static str = "reference";

    fn new() -> Self {
        Self { memory: HostMemory::default(), is_detached: false }
    }

    fn size_bytes(&self) -> usize {
        self.memory.size_bytes()
    }

    fn reset(&mut self, _: Precision) {
        self.memory.reset();
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
        to.iter_mut().zip(from).for_each(|(to, &from)| *to = term!("copy", from));
    }

    fn axpy(&mut self, alpha: T, from: Block, to: Block) {
        let ([from], [to]) = self.memory.split([from], [to]);
        for (y, &x) in to.iter_mut().zip(from) {
            *y += term!("axpy", alpha * x);
        }
    }

    fn sum(&mut self, summands: &[Block], out: Block) {
        self.fill(out, T::ZERO);
        for &summand in summands {
            let ([x], [sum]) = self.memory.split([summand], [out]);
            add(sum, x);
        }
    }

    fn add_runs(&mut self, shape: (usize, usize), alpha: T, from: Runs, to: Runs) {
        let ([x], [y]) = self.memory.split([from.block], [to.block]);
        tables::each_run(shape, from, to, |x_at, y_at| {
            for (y, &x) in y[y_at].iter_mut().zip(&x[x_at]) {
                *y += term!("runs", alpha * x);
            }
        });
    }

    fn add_table(&mut self, params: &Params<Self>, table: ParamId, scale: f64, every: usize, x: Block) {
        let (table, scale) = (params.get(table), T::from_f64(scale));
        for stretch in self.memory.get_mut(x).chunks_exact_mut(every) {
            for (x, &e) in stretch.iter_mut().zip(table) {
                *x += scale * e;
            }
        }
    }

    fn table_grad(&mut self, grads: &mut Grads<Self>, table: ParamId, scale: f64, every: usize, dy: Block) {
        let (d_table, scale) = (grads.get_mut(table), T::from_f64(scale));
        for stretch in self.memory.get(dy).chunks_exact(every) {
            for (d, &dy) in d_table.iter_mut().zip(stretch) {
                *d += term!("table", scale * dy);
            }
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
        let (d_table, scale) = (grads.get_mut(table), T::from_f64(scale));
        let tokens = self.memory.indices(tokens);
        let sequences = self.memory.get(dy).chunks_exact((prefix + seq_len) * width);
        for (dy, tokens) in sequences.zip(tokens.chunks_exact(seq_len)) {
            for (dy, &token) in dy[prefix * width..].chunks_exact(width).zip(tokens) {
                for (d, &dy) in d_table[token as usize * width..][..width].iter_mut().zip(dy) {
                    *d += term!("token", scale * dy);
                }
            }
        }
    }

    fn linear(&mut self, params: &Params<Self>, weight: ParamId, x: Block, y: Block, epilogue: Option<NormEpilogue>) {
        let (n_out, n_in) = params.shape(weight);
        let rounding = rounding(self, params);
        let ([x], [out]) = self.memory.split([x], [y]);
        let (x, w) = (rounding.of(x, n_in), rounding.of(params.get(weight), n_in));
        let sizes = [x.len() / n_in, n_in, n_out];
        out.copy_from_slice(&T::product(sizes, Matrix::new(&x, n_in), Matrix::new(&w, n_in).transposed()));
        if let Some(NormEpilogue { h, inv_rms, .. }) = epilogue {
            self.add_rmsnorm(Over::Features, n_out, h, y, inv_rms);
        }
    }

    fn linear_backward(&mut self, params: &Params<Self>, weight: ParamId, dy: Block, dx: InputGrad) {
        let (n_out, n_in) = params.shape(weight);
        let accumulate = self.begin_input_grad(dx);
        let ([dy], [dx]) = self.memory.split([dy], [dx.to]);
        let (dy, w) = (operand(params.precision(), dy), operand(params.precision(), params.get(weight)));
        let product = T::product([dy.len() / n_out, n_out, n_in], Matrix::new(&dy, n_out), Matrix::new(&w, n_in));
        for (dx, product) in dx.iter_mut().zip(product) {
            let before = if accumulate { *dx } else { T::ZERO };
            *dx = before + term!("linear input", product);
        }
    }

    fn weight_grad(&mut self, params: &Params<Self>, grads: &mut Grads<Self>, weight: ParamId, dy: Block, x: Block) {
        let (dy, x) = (self.memory.get(dy), self.memory.get(x));
        let product = fused::weight_grad(params.precision(), params.shape(weight), dy, x);
        add(grads.get_mut(weight), &product);
    }

    fn swiglu_saved_len(&self, params: &Params<Self>, swiglu: SwiGlu, len: usize) -> usize {
        let (count, vectors) = swiglu.pieces(len);
        count * vectors * params.shape(swiglu.gate_up).0
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
        let (count, _) = swiglu.pieces(x.len());
        let (weights, rounding) = (matrices(params, swiglu), rounding(self, params));
        for i in 0..count {
            let writes = [y, saved.unwrap_or_default()].map(|block| block.nth(i, count));
            let ([x], [y, kept]) = self.memory.split([x.nth(i, count)], writes);
            let (made, gu) = fused::swiglu(rounding, weights, &as_rows(swiglu.over, swiglu.width, x));
            y.copy_from_slice(&from_rows(swiglu.over, weights.out, &made));
            if saved.is_some() {
                kept.copy_from_slice(&gu);
            }
        }
        if let Some(NormEpilogue { h, inv_rms, sum }) = epilogue {
            let width = if swiglu.over == Over::Features { weights.out } else { swiglu.width };
            self.add_rmsnorm(swiglu.over, width, h, y, inv_rms);
            if let Some(SumEpilogue { added, then, out }) = sum {
                let summands: ArrayVec<Block, 3> = [Some(y), Some(added), then].into_iter().flatten().collect();
                let total = self.alloc(y.len(), Store::Activation);
                self.sum(&summands, total);
                let ([total_of], [out]) = self.memory.split([total], [out]);
                out.copy_from_slice(total_of);
                self.release(total);
            }
        }
    }

    fn fuses_sum(&self, _: &Params<Self>, swiglu: SwiGlu, _: &[Block]) -> bool {
        swiglu.over == Over::Features
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
        let (count, _) = swiglu.pieces(x.len());
        let weights = matrices(params, swiglu);
        for i in 0..count {
            let reads = [dy, saved, x].map(|block| block.nth(i, count));
            let ([dy, gu, x], [dx]) = self.memory.split(reads, [dx.unwrap_or_default().nth(i, count)]);
            let [dy, x] = [dy, x].map(|piece| as_rows(swiglu.over, swiglu.width, piece));
            let made = fused::swiglu_backward(params.precision(), weights, &dy, gu, &x);
            if !dx.is_empty() {
                add(dx, &from_rows(swiglu.over, weights.width, &made.x));
            }
            add(grads.get_mut(swiglu.gate_up), &made.gate_up);
            add(grads.get_mut(swiglu.down), &made.down);
        }
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
        let ([], [qkv, out, lse]) = self.memory.split([], [qkv, out, lse]);
        fused::attention(precision, shape, rope.in_attention(), qkv, out, lse);
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
        let ([qkv, out, lse, d_out], [d_qkv]) = self.memory.split([qkv, out, lse, d_out], [d_qkv]);
        fused::attention_backward(precision, shape, rope.in_attention(), qkv, out, lse, d_out, d_qkv);
    }

    fn add_rmsnorm(&mut self, over: Over, width: usize, h: Block, x: Block, inv_rms: Block) {
        let ([h], [x, inv_rms]) = self.memory.split([h], [x, inv_rms]);
        match over {
            Over::Features => fused::add_rmsnorm(width, h, x, inv_rms),
            Over::Positions(len) => {
                let sequences = x.chunks_exact_mut(len * width).zip(h.chunks_exact(len * width));
                for ((x, h), inv_rms) in sequences.zip(inv_rms.chunks_exact_mut(width)) {
                    let mut rows = transposed(x, width);
                    fused::add_rmsnorm(len, &transposed(h, width), &mut rows, inv_rms);
                    x.copy_from_slice(&transposed(&rows, len));
                }
            }
        }
    }

    fn rmsnorm_backward(&mut self, over: Over, width: usize, y: Block, inv_rms: Block, d: Block) {
        let ([y, inv_rms], [d]) = self.memory.split([y, inv_rms], [d]);
        match over {
            Over::Features => fused::rmsnorm_backward(width, y, inv_rms, d),
            Over::Positions(len) => {
                let sequences = d.chunks_exact_mut(len * width).zip(y.chunks_exact(len * width));
                for ((d, y), inv_rms) in sequences.zip(inv_rms.chunks_exact(width)) {
                    let mut rows = transposed(d, width);
                    fused::rmsnorm_backward(len, &transposed(y, width), inv_rms, &mut rows);
                    d.copy_from_slice(&transposed(&rows, len));
                }
            }
        }
    }
}

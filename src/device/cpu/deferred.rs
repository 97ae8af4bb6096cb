//! Deferred weight gradients: the operands of a weight's gradient wait until all its uses are there, then one tall GEMM
//! takes them together.
//!
//! The n + 1 recorded calls of a recursion share their weights. One product for each weight reads and writes the gradient
//! (28 MB of the published model) once instead of n + 1 times.

use super::{Block, Cpu, Grads, ParamId, Params, Real, Store};
use crate::simd::{self, DeferredGrad};

/// Deferred rows of one weight that fill a product; deferring more would take much memory.
pub const ROWS_ENOUGH: usize = 4096;

/// Packed operands of one use of a weight.
#[derive(Clone, Copy)]
pub(super) struct Use {
    weight: ParamId,
    rows: usize,
    /// To be filled as [`DeferredGrad`] says.
    pub operands: [Block; 2],
}

/// The uses that wait.
pub(super) struct Deferred<T> {
    uses: Vec<Use>,
    /// Scratch of a gradient that is computed transposed.
    transposed: Vec<T>,
}

impl<T> Default for Deferred<T> {
    fn default() -> Self {
        Self { uses: Vec::new(), transposed: Vec::new() }
    }
}

impl<T> Deferred<T> {
    pub fn clear(&mut self) {
        self.uses.clear();
    }

    /// Bytes of scratch.
    pub fn size_bytes(&self) -> usize {
        self.transposed.len() * size_of::<T>()
    }

    fn of(&self, weight: ParamId) -> impl Iterator<Item = &Use> {
        self.uses.iter().filter(move |used| used.weight == weight)
    }

    /// Elements of all operands that wait.
    fn elements(&self) -> usize {
        self.uses.iter().flat_map(|used| used.operands).map(Block::len).sum()
    }
}

impl<T: Real> Cpu<T> {
    /// Room for the packed operands of a use on `rows` rows, to be filled and given to [`Cpu::defer`].
    pub(super) fn new_use(&mut self, params: &Params<Self>, weight: ParamId, rows: usize) -> Use {
        let (precision, shape) = (params.precision(), params.shape(weight));
        let (left, right) = if self.weight(params, weight).is_gated() {
            simd::deferred_gate_up_len::<T>(precision, shape, rows)
        } else {
            simd::deferred_len::<T>(precision, shape, rows)
        };
        Use { weight, rows, operands: [left, right].map(|len| super::Device::alloc(self, len, Store::Activation)) }
    }

    /// Has a use, whose operands have been filled, added to the weight's gradient, sooner or later.
    pub(super) fn defer(&mut self, params: &Params<Self>, grads: &mut Grads<Self>, used: Use) {
        self.deferred.uses.push(used);
        let rows: usize = self.deferred.of(used.weight).map(|used| used.rows).sum();
        if rows >= ROWS_ENOUGH {
            self.sum_uses(params, grads, used.weight);
        }
    }

    /// Adds a weight's uses that wait to its gradient, in the order in which they came.
    pub(super) fn sum_uses(&mut self, params: &Params<Self>, grads: &mut Grads<Self>, weight: ParamId) {
        let (precision, shape) = (params.precision(), params.shape(weight));
        let (is_gated, threads) = (self.weight(params, weight).is_gated(), self.team.size());
        let grad = grads.get_mut(weight);
        let count = self.deferred.of(weight).count();
        let mut transposed = std::mem::take(&mut self.deferred.transposed);
        let uses = |i: usize| {
            let used = self.deferred.of(weight).nth(i).expect("as many as were counted");
            let [left, right] = used.operands.map(|block| self.memory.get(block));
            DeferredGrad { rows: used.rows, left, right }
        };
        if is_gated {
            let half = shape.0 * shape.1 / 2;
            simd::reserve(&mut transposed, half);
            transposed.resize(half.max(transposed.len()), T::ZERO);
            simd::add_deferred_gate_up(precision, shape, count, uses, &mut transposed[..half], grad, threads);
        } else {
            simd::add_deferred(precision, shape, count, uses, grad, threads);
        }
        self.deferred.transposed = transposed;
        let Self { memory, deferred, .. } = self;
        deferred.uses.retain(|used| {
            let done = used.weight == weight;
            if done {
                used.operands.into_iter().for_each(|block| memory.space.release(block));
            }
            !done
        });
    }

    /// Adds everything that waits. Returns the bytes of the operands.
    pub(super) fn sum_all_uses(&mut self, params: &Params<Self>, grads: &mut Grads<Self>) -> usize {
        let bytes = self.deferred.elements() * size_of::<T>();
        while let Some(used) = self.deferred.uses.first() {
            self.sum_uses(params, grads, used.weight);
        }
        bytes
    }

    /// Model FLOPs of what waits.
    pub(super) fn flops_of_uses(&self, params: &Params<Self>) -> f64 {
        let flops = |used: &Use| {
            let (n_out, n_in) = params.shape(used.weight);
            2.0 * (used.rows * n_out * n_in) as f64
        };
        self.deferred.uses.iter().map(flops).sum()
    }
}

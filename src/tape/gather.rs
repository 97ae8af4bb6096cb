//! Weight gradients of a recursion: the uses of a weight wait until all are there, then one product takes them together.

use super::{Backward, Block, Grads, Memory, ParamId, Params};
use crate::simd::{self, Gathered, Real};

/// Uses with so many rows fill a product by themselves, and their operands would take much memory to keep.
pub const ROWS_ENOUGH: usize = 1024;

/// Packed operands of one use of a weight.
#[derive(Clone, Copy)]
pub(super) struct Use {
    weight: ParamId,
    order: usize,
    rows: usize,
    /// 1 outside fault injection.
    scale: f64,
    dy: Block,
    x: Block,
}

impl<T: Real> Backward<'_, T> {
    /// `dW ← dW + scale · dyᵀ x` of a weight `[out, in]`, dy `[rows, out]`, x `[rows, in]`: now, or with the weight's
    /// other uses at the end of the backward pass.
    pub(super) fn weight_grad_rows(&mut self, weight: ParamId, scale: T, dy: Block, x: Block) {
        let shape = self.params.shape(weight);
        let precision = self.params.precision();
        let rows = dy.len() / shape.0;
        let arena = &mut self.memory.arena;
        if T::LIBRARY_GEMM.is_some() || rows >= ROWS_ENOUGH {
            let (dy, x) = (arena.get(dy), arena.get(x));
            return simd::weight_grad_rows(precision, shape, scale, dy, x, self.grads.get_mut(weight));
        }
        let (dy_len, x_len) = simd::gathered_len::<T>(precision, shape, rows);
        let (packed_dy, packed_x) = (arena.alloc(dy_len), arena.alloc(x_len));
        let ([dy, x], [to_dy, to_x]) = arena.split([dy, x], [packed_dy, packed_x]);
        simd::gather_rows(precision, shape, (dy, x), (to_dy, to_x));
        if let Some(watch) = &mut self.memory.stopwatch {
            watch.put_off(2.0 * (rows * shape.0 * shape.1) as f64);
        }
        let order = self.memory.uses.len();
        let scale = scale.to_f64();
        self.memory.uses.push(Use { weight, order, rows, scale, dy: packed_dy, x: packed_x });
    }
}

/// Adds what was gathered to the gradients, in the order in which each weight's uses came.
pub(super) fn finish<T: Real>(memory: &mut Memory<T>, params: &Params<T>, grads: &mut Grads<T>) {
    let Memory { arena, uses, stopwatch, .. } = memory;
    if uses.is_empty() {
        return;
    }
    let bytes: usize = uses.iter().map(|used| (used.dy.len() + used.x.len()) * size_of::<T>()).sum();
    // By weight, and those of one weight as they came; an unstable sort needs no memory of its own.
    uses.sort_unstable_by_key(|used| (used.weight.index(), used.order));
    for uses in uses.chunk_by(|a, b| a.weight == b.weight) {
        let weight = uses[0].weight;
        let gathered = |i: usize| {
            let Use { rows, scale, dy, x, .. } = uses[i];
            Gathered { rows, scale: T::from_f64(scale), dy: arena.get(dy), x: arena.get(x) }
        };
        let (precision, shape) = (params.precision(), params.shape(weight));
        simd::weight_grad_gathered(precision, shape, uses.len(), gathered, grads.get_mut(weight));
    }
    for used in uses.drain(..) {
        arena.release(used.dy);
        arena.release(used.x);
    }
    if let Some(watch) = stopwatch {
        watch.settle("gathered weight gradients", bytes as f64);
    }
}

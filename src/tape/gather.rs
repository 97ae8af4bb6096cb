//! Weight gradients of a recursion: the uses of a weight wait until all are there, then one product takes them together.

use super::{Backward, Block, Grads, Memory, ParamId, Params};
use crate::simd::{self, Gathered, Real};

/// Uses that have so many rows together fill a product, and keeping more would take much memory.
pub const ROWS_ENOUGH: usize = 4096;

/// Packed operands of one use of a weight.
#[derive(Clone, Copy)]
pub(super) struct Use {
    weight: ParamId,
    rows: usize,
    /// 1 outside fault injection.
    scale: f64,
    /// To be filled as [`Gathered`] says.
    pub(super) operands: [Block; 2],
}

impl<T: Real> Backward<'_, T> {
    /// `dW ← dW + scale · dyᵀ x` of a weight `[out, in]`, dy `[rows, out]`, x `[rows, in]`: now, or with the weight's
    /// other uses.
    pub(super) fn weight_grad_rows(&mut self, weight: ParamId, scale: T, dy: Block, x: Block) {
        let shape = self.params.shape(weight);
        let precision = self.params.precision();
        let rows = dy.len() / shape.0;
        if T::LIBRARY_GEMM.is_some() {
            let (dy, x) = (self.memory.arena.get(dy), self.memory.arena.get(x));
            return simd::weight_grad_rows(precision, shape, scale, dy, x, self.grads.get_mut(weight));
        }
        let used = self.new_use(weight, scale, rows);
        let ([dy, x], [to_dy, to_x]) = self.memory.arena.split([dy, x], used.operands);
        simd::gather_rows(precision, shape, (dy, x), (to_dy, to_x));
        self.gather(used);
    }

    /// Room for the packed operands of a use, to be filled and given to [`Backward::gather`].
    pub(super) fn new_use(&mut self, weight: ParamId, scale: T, rows: usize) -> Use {
        let (precision, shape) = (self.params.precision(), self.params.shape(weight));
        let (dy, x) = if self.params.weight(weight).is_gated() {
            simd::gathered_gate_up_len::<T>(precision, shape, rows)
        } else {
            simd::gathered_len::<T>(precision, shape, rows)
        };
        Use { weight, rows, scale: scale.to_f64(), operands: [dy, x].map(|len| self.memory.arena.alloc(len)) }
    }

    /// Has a use, whose operands have been filled, added to the weight's gradient, sooner or later.
    pub(super) fn gather(&mut self, used: Use) {
        if let Some(watch) = &mut self.memory.stopwatch {
            watch.put_off(used.flops(self.params));
        }
        self.memory.uses.push(used);
        let rows: usize = self.memory.uses_of(used.weight).map(|used| used.rows).sum();
        if rows >= ROWS_ENOUGH {
            self.sum_uses(used.weight);
        }
    }

    /// Adds the uses that wait to the weight's gradient.
    pub(super) fn sum_uses(&mut self, weight: ParamId) {
        let flops: f64 = self.memory.uses_of(weight).map(|used| used.flops(self.params)).sum();
        if let Some(watch) = &mut self.memory.stopwatch {
            watch.put_off(-flops);
        }
        sum(self.memory, self.params, self.grads, weight);
    }
}

impl Use {
    fn flops<T: Real>(&self, params: &Params<T>) -> f64 {
        let (n_out, n_in) = params.shape(self.weight);
        2.0 * (self.rows * n_out * n_in) as f64
    }
}

impl<T: Real> Memory<T> {
    fn uses_of(&self, weight: ParamId) -> impl Iterator<Item = &Use> {
        self.uses.iter().filter(move |used| used.weight == weight)
    }
}

/// Adds what still waits to the gradients.
pub(super) fn finish<T: Real>(memory: &mut Memory<T>, params: &Params<T>, grads: &mut Grads<T>) {
    let elements: usize = memory.uses.iter().flat_map(|used| used.operands).map(Block::len).sum();
    if elements == 0 {
        return;
    }
    while let Some(used) = memory.uses.first() {
        sum(memory, params, grads, used.weight);
    }
    if let Some(watch) = &mut memory.stopwatch {
        watch.settle("gathered weight gradients", (elements * size_of::<T>()) as f64);
    }
}

/// Adds a weight's uses to its gradient, in the order in which they came.
fn sum<T: Real>(memory: &mut Memory<T>, params: &Params<T>, grads: &mut Grads<T>, weight: ParamId) {
    let (precision, shape, grad) = (params.precision(), params.shape(weight), grads.get_mut(weight));
    let count = memory.uses_of(weight).count();
    let mut turned = std::mem::take(&mut memory.turned);
    let gathered = |i: usize| {
        let used = memory.uses_of(weight).nth(i).expect("as many as were counted");
        let [dy, x] = used.operands.map(|block| memory.arena.get(block));
        Gathered { rows: used.rows, scale: T::from_f64(used.scale), dy, x }
    };
    if params.weight(weight).is_gated() {
        let half = shape.0 * shape.1 / 2;
        simd::reserve(&mut turned, half);
        turned.resize(half.max(turned.len()), T::ZERO);
        simd::gate_up_grad_gathered(precision, shape, count, gathered, &mut turned[..half], grad);
    } else {
        simd::weight_grad_gathered(precision, shape, count, gathered, grad);
    }
    memory.turned = turned;
    let Memory { arena, uses, .. } = memory;
    uses.retain(|used| {
        let done = used.weight == weight;
        if done {
            used.operands.into_iter().for_each(|block| arena.release(block));
        }
        !done
    });
}

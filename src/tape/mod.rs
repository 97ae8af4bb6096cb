//! Reverse-mode differentiation with a dozen fat operations over one arena.
//!
//! A [`Tape`] runs operations (see [`ops`]) on the spot and, while it is *recording*, remembers what their backward
//! passes need. Detached, it remembers nothing: a [`Var`] is an owned handle, operations that take it by value have
//! used it up, and its memory serves the next operation at once. Rust's ownership is the liveness analysis.
//!
//! ```
//! use std::sync::Arc;
//! use trm::tape::{Grads, Layout, Memory, Params, Tape, Use, ops};
//!
//! let mut layout = Layout::default();
//! let w = layout.push("w", 1, 2, Use::Rows);
//! let mut params = Params::<f64>::new(Arc::new(layout));
//! params.update(|values| values[..2].copy_from_slice(&[3.0, 4.0]));
//!
//! let mut memory = Memory::default();
//! let mut tape = Tape::new(&mut memory, &params);
//! let x = tape.leaf(1, 2, &[10.0, 20.0]);
//! let y = ops::linear(&mut tape, &x, w, None);
//! assert_eq!(tape.value(&y), [110.0]);
//!
//! let mut grads = Grads::new(params.layout().clone());
//! tape.backward(&[(&y, &[1.0])], &mut grads);
//! assert_eq!(grads.get(w), [10.0, 20.0]);
//! assert_eq!(tape.grad(&x), Some(&[3.0, 4.0][..]));
//! ```

mod arena;
mod gather;
pub mod gradcheck;
pub mod ops;
mod params;
pub mod profile;

pub use arena::{Arena, Block};
pub use gather::ROWS_ENOUGH;
pub use params::{Grads, Layout, ParamId, Params, Tensor, Use, set_node};

use std::ops::Range;

use crate::simd::{self, Real, RopeTable};
use ops::Op;
use profile::{Part, Phase, Stopwatch};

/// A lane's memory: the arena and the bookkeeping of the tape that runs in it. Outlives the tapes.
pub struct Memory<T> {
    arena: Arena<T>,
    slots: Vec<Slot>,
    nodes: Vec<Op>,
    /// Token and label numbers that recorded operations refer to.
    indices: Vec<u32>,
    rope: Option<RopeTable<T>>,
    /// Uses of weights whose gradients are still to be added up.
    uses: Vec<gather::Use>,
    /// Scratch of a gradient that is computed transposed.
    turned: Vec<T>,
    /// Times operations while there is one.
    pub stopwatch: Option<Box<Stopwatch>>,
}

impl<T: Real> Default for Memory<T> {
    fn default() -> Self {
        let (slots, nodes, indices, uses) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { arena: Arena::default(), slots, nodes, indices, rope: None, uses, turned: Vec::new(), stopwatch: None }
    }
}

impl<T: Real> Memory<T> {
    /// Bytes of the arena.
    pub fn size_bytes(&self) -> usize {
        self.arena.size_bytes() + self.turned.len() * size_of::<T>()
    }
}

/// Index of a value on the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotId(u32);

#[derive(Clone, Copy, Debug)]
struct Slot {
    rows: usize,
    cols: usize,
    value: Option<Block>,
    grad: Option<Block>,
    /// The value depends on something that is differentiated.
    needs_grad: bool,
    /// A recorded operation will read the value in its backward pass: it may neither be freed nor overwritten.
    saved: bool,
}

/// A value on the tape: a matrix `[rows, cols]`. Not copyable: who holds it owns the value's memory.
#[derive(Debug)]
#[must_use = "a value nobody uses was computed for nothing"]
pub struct Var(SlotId);

/// Runs operations over a [`Memory`] and reads the weights from a [`Params`]. See the [module](self).
pub struct Tape<'a, T> {
    memory: &'a mut Memory<T>,
    params: &'a Params<T>,
    recording: bool,
}

impl<'a, T: Real> Tape<'a, T> {
    /// An empty, recording tape; whatever an earlier tape left in `memory` is gone.
    pub fn new(memory: &'a mut Memory<T>, params: &'a Params<T>) -> Self {
        memory.arena.reset();
        memory.slots.clear();
        memory.nodes.clear();
        memory.indices.clear();
        memory.uses.clear();
        Self { memory, params, recording: true }
    }

    /// Recorded or detached: whether the operations that follow carry gradient.
    pub fn set_recording(&mut self, recording: bool) {
        self.recording = recording;
    }

    /// The weights.
    pub fn params(&self) -> &'a Params<T> {
        self.params
    }

    /// Operations recorded so far.
    pub fn n_recorded(&self) -> usize {
        self.memory.nodes.len()
    }

    /// A constant `[rows, cols]`.
    pub fn constant(&mut self, rows: usize, cols: usize, values: &[T]) -> Var {
        assert_eq!(values.len(), rows * cols, "constant of {rows}×{cols}");
        let id = self.new_slot(rows, cols);
        let block = self.value_block(id);
        self.memory.arena.get_mut(block).copy_from_slice(values);
        Var(id)
    }

    /// A constant `[rows, cols]` of zeros.
    pub fn zeros(&mut self, rows: usize, cols: usize) -> Var {
        let id = self.new_slot(rows, cols);
        let block = self.value_block(id);
        self.memory.arena.get_mut(block).fill(T::ZERO);
        Var(id)
    }

    /// `target[rows] ← target[rows] + alpha · source[rows]`, of two constants: nothing is recorded.
    pub fn accumulate(&mut self, target: &Var, rows: Range<usize>, alpha: T, source: &Var) {
        assert!(!self.needs_grad(target) && !self.needs_grad(source), "gradient would be lost");
        let (_, cols) = self.shape(target);
        let elements = |block: Block| block.part(rows.start * cols, rows.len() * cols);
        let blocks = (elements(self.value_block(source.0)), elements(self.value_block(target.0)));
        let ([source], [target]) = self.memory.arena.split([blocks.0], [blocks.1]);
        crate::simd::axpy(target, alpha, source);
    }

    /// An input `[rows, cols]` whose gradient is wanted.
    pub fn leaf(&mut self, rows: usize, cols: usize, values: &[T]) -> Var {
        let var = self.constant(rows, cols, values);
        let slot = self.slot_mut(var.0);
        slot.needs_grad = true;
        slot.saved = true;
        var
    }

    /// `(rows, cols)`.
    pub fn shape(&self, var: &Var) -> (usize, usize) {
        let slot = self.slot(var.0);
        (slot.rows, slot.cols)
    }

    /// The value, row-major.
    pub fn value(&self, var: &Var) -> &[T] {
        self.memory.arena.get(self.value_block(var.0))
    }

    /// The gradient of a leaf after [`Tape::backward`]; `None` when nothing depended on it.
    pub fn grad(&self, var: &Var) -> Option<&[T]> {
        self.slot(var.0).grad.map(|block| self.memory.arena.get(block))
    }

    /// Whether a gradient would reach this value.
    pub fn needs_grad(&self, var: &Var) -> bool {
        self.slot(var.0).needs_grad
    }

    /// Gives a value up; its memory is reused unless a recorded operation still needs it.
    pub fn release(&mut self, var: Var) {
        self.release_slot(var.0);
    }

    /// Runs every recorded operation backwards. Each seed is a value and the gradient with respect to it; weight
    /// gradients are *added* to `grads`, leaf gradients are read with [`Tape::grad`] afterwards. Values computed on
    /// the way are used up: only leaves can be read after this.
    pub fn backward(&mut self, seeds: &[(&Var, &[T])], grads: &mut Grads<T>) {
        for &(var, seed) in seeds {
            let mut backward = Backward { memory: self.memory, params: self.params, grads, operation: "seed" };
            if let Some(grad) = backward.grad_in(var.0) {
                crate::simd::add_assign(backward.memory.arena.get_mut(grad), seed);
            }
        }
        while let Some(op) = self.memory.nodes.pop() {
            let output = op.output();
            if self.slot(output).grad.is_none() {
                continue;
            }
            op.backward(&mut Backward { memory: self.memory, params: self.params, grads, operation: op.name() });
            self.charge(&op, Phase::Backward);
            if op.creates_output() {
                let slot = &mut self.memory.slots[output.0 as usize];
                let blocks = [slot.value.take(), slot.grad.take()];
                for block in blocks.into_iter().flatten() {
                    self.memory.arena.release(block);
                }
            }
        }
        gather::finish(self.memory, self.params, grads);
    }

    // What operations are made of.

    fn slot(&self, id: SlotId) -> &Slot {
        &self.memory.slots[id.0 as usize]
    }

    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.memory.slots[id.0 as usize]
    }

    fn value_block(&self, id: SlotId) -> Block {
        self.slot(id).value.expect("the value is still there")
    }

    /// A new slot with memory of arbitrary contents.
    fn new_slot(&mut self, rows: usize, cols: usize) -> SlotId {
        let value = Some(self.memory.arena.alloc(rows * cols));
        self.memory.slots.push(Slot { rows, cols, value, grad: None, needs_grad: false, saved: false });
        SlotId(self.memory.slots.len() as u32 - 1)
    }

    fn release_slot(&mut self, id: SlotId) {
        let slot = &mut self.memory.slots[id.0 as usize];
        if !slot.saved
            && let Some(block) = slot.value.take()
        {
            self.memory.arena.release(block);
        }
    }

    /// Marks a slot as read by a backward pass to come.
    fn save(&mut self, id: SlotId) {
        self.slot_mut(id).saved = true;
    }

    /// The slot of a value about to be overwritten by an operation that works in place.
    fn overwrite(&mut self, var: &Var) -> SlotId {
        assert!(!self.slot(var.0).saved, "a value that a recorded operation needs cannot be overwritten");
        var.0
    }

    /// Whether a result of these inputs (and of weights, if `has_weights`) is to be recorded.
    fn records(&self, inputs: &[SlotId], has_weights: bool) -> bool {
        self.recording && (has_weights || inputs.iter().any(|&id| self.slot(id).needs_grad))
    }

    /// Finishes an operation: notes whether its output carries gradient, and remembers it if so.
    fn push(&mut self, output: SlotId, recorded: bool, op: impl Into<Op>) -> Var {
        self.slot_mut(output).needs_grad = recorded;
        let op = op.into();
        self.charge(&op, if recorded { Phase::Recorded } else { Phase::Detached });
        if recorded {
            self.memory.nodes.push(op);
        }
        Var(output)
    }

    /// Reads the stopwatch, if there is one.
    fn charge(&mut self, op: &Op, phase: Phase) {
        let Memory { stopwatch, slots, .. } = &mut *self.memory;
        if let Some(watch) = stopwatch {
            profile::charge(watch, op, phase, slots, self.params);
        }
    }

    /// Charges the time since the last operation to something outside of the tape, while a stopwatch runs.
    pub fn lap(&mut self, part: Part) {
        if let Some(watch) = &mut self.memory.stopwatch {
            watch.lap(part, 0.0);
        }
    }

    /// Keeps numbers for a backward pass; returns where they start.
    fn keep_indices(&mut self, numbers: impl IntoIterator<Item = u32>) -> usize {
        let start = self.memory.indices.len();
        self.memory.indices.extend(numbers);
        start
    }
}

/// Where the gradient of an input goes.
#[derive(Clone, Copy)]
struct GradIn {
    block: Block,
    /// Nothing has been added yet: the contents are arbitrary.
    is_new: bool,
}

/// What an operation's backward pass works with.
pub struct Backward<'a, T> {
    memory: &'a mut Memory<T>,
    params: &'a Params<T>,
    grads: &'a mut Grads<T>,
    operation: &'static str,
}

impl<T: Real> Backward<'_, T> {
    fn slot(&self, id: SlotId) -> &Slot {
        &self.memory.slots[id.0 as usize]
    }

    fn value(&self, id: SlotId) -> Block {
        self.slot(id).value.expect("a saved value is still there")
    }

    /// The gradient that arrived at an output.
    fn grad_out(&self, id: SlotId) -> Block {
        self.slot(id).grad.expect("backward runs only where a gradient arrived")
    }

    /// The gradient of an input, to be added to; zeros at first. `None` when the input needs none.
    fn grad_in(&mut self, id: SlotId) -> Option<Block> {
        let grad = self.grad_in_or_new(id)?;
        if grad.is_new {
            self.memory.arena.get_mut(grad.block).fill(T::ZERO);
        }
        Some(grad.block)
    }

    /// The gradient of an input, to be added to or, where it is new, overwritten. `None` when the input needs none.
    fn grad_in_or_new(&mut self, id: SlotId) -> Option<GradIn> {
        let slot = &mut self.memory.slots[id.0 as usize];
        if !slot.needs_grad {
            return None;
        }
        let is_new = slot.grad.is_none();
        let block = *slot.grad.get_or_insert_with(|| self.memory.arena.alloc(slot.rows * slot.cols));
        Some(GradIn { block, is_new })
    }

    /// Adds `factor` times an output's gradient to an input's.
    fn pass_on(&mut self, factor: T, d_out: Block, input: SlotId) {
        let Some(GradIn { block, is_new }) = self.grad_in_or_new(input) else { return };
        let ([d], [d_in]) = self.memory.arena.split([d_out], [block]);
        if !is_new {
            simd::axpy(d_in, factor, d);
            return;
        }
        d_in.copy_from_slice(d);
        if factor != T::ONE {
            simd::scale(d_in, factor);
        }
    }

    /// Gives up what the forward pass saved in a slot of the operation's own.
    fn release_saved(&mut self, id: SlotId) {
        if let Some(block) = self.memory.slots[id.0 as usize].value.take() {
            self.memory.arena.release(block);
        }
    }

    /// 1, except while a test makes this term of this operation wrong: see [`gradcheck::fault`].
    #[inline]
    fn factor(&self, term: &'static str) -> T {
        #[cfg(test)]
        return T::from_f64(gradcheck::fault::factor(self.operation, term));
        #[cfg(not(test))]
        {
            let _ = (term, self.operation);
            T::ONE
        }
    }
}

//! Reverse-mode differentiation with a few fat operations, on a device.
//!
//! A [`Tape`] runs operations (see [`ops`]) on the spot and, while it is *recording*, remembers what their backward
//! passes need. Detached, it remembers nothing: a [`Var`] is an owned handle, operations that take it by value have
//! used it up, and its memory serves the next operation at once. Rust's ownership is the liveness analysis.
//!
//! ```
//! use std::sync::Arc;
//! use trm::device::{Cpu, Grads, Layout, Params, Usage};
//! use trm::tape::{Memory, Tape, ops};
//!
//! let mut layout = Layout::default();
//! let w = layout.push("w", 1, 2, Usage::Rows);
//! let mut params = Params::<Cpu<f64>>::new(Arc::new(layout));
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

mod backward;
pub mod gradcheck;
pub mod ops;
pub mod profile;

use std::ops::Range;
use std::sync::Arc;

use crate::device::{Block, Device, Grads, HostDevice, Indices, Params, Real, Store};
pub use backward::Backward;
use backward::Lent;
use ops::Op;
use profile::{Part, Phase, Stopwatch};

/// A lane's memory: the device, and the bookkeeping of the tape that runs on it. Outlives the tapes.
pub struct Memory<D: Device> {
    /// What the operations run on.
    pub device: D,
    slots: Vec<Slot>,
    nodes: Vec<Op>,
    /// Rows of experts that operations refer to.
    indices: Vec<u32>,
    /// Operations from outside that have been recorded.
    customs: Vec<Arc<dyn ops::CustomOperation<D>>>,
    /// A gradient that stands for two values, while operations run backwards.
    lent: Option<Lent>,
    /// Times operations while there is one.
    pub stopwatch: Option<Box<Stopwatch<D::Mark>>>,
}

impl<D: Device> Default for Memory<D> {
    fn default() -> Self {
        let (slots, nodes, indices, customs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { device: D::new(), slots, nodes, indices, customs, lent: None, stopwatch: None }
    }
}

/// Index of a value on the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotId(u32);

#[derive(Clone, Copy, Debug)]
struct Slot {
    rows: usize,
    cols: usize,
    /// How value and gradient are kept.
    store: Store,
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
pub struct Tape<'a, D: Device> {
    memory: &'a mut Memory<D>,
    params: &'a Params<D>,
    recording: bool,
    /// A loss that an operation deep inside adds to the one that is differentiated.
    side_loss: Option<Var>,
}

impl<'a, D: Device> Tape<'a, D> {
    /// An empty, recording tape; whatever an earlier tape left in `memory` is gone.
    pub fn new(memory: &'a mut Memory<D>, params: &'a Params<D>) -> Self {
        memory.device.reset(params.precision());
        memory.slots.clear();
        memory.nodes.clear();
        memory.indices.clear();
        memory.customs.clear();
        memory.lent = None;
        Self { memory, params, recording: true, side_loss: None }
    }

    /// Recorded or detached: whether the operations that follow carry gradient.
    pub fn set_recording(&mut self, recording: bool) {
        self.recording = recording;
    }

    /// Whether they do now.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Whether the operations that follow belong to a call that the schedule never records, which may compute in another number
    /// format ([`Device::set_detached`]).
    pub fn set_detached(&mut self, detached: bool) {
        self.memory.device.set_detached(detached);
    }

    /// Adds `[sequences, 1]` to the side loss: one that comes up deep inside of a network and is to be minimised beside the
    /// loss of the answer.
    pub fn add_side_loss(&mut self, loss: Var) {
        self.side_loss = Some(match self.side_loss.take() {
            None => loss,
            Some(before) => {
                let total = ops::add(self, &[&before, &loss]);
                self.release(before);
                self.release(loss);
                total
            }
        });
    }

    /// The side loss since it was taken last; `None` without any.
    pub fn take_side_loss(&mut self) -> Option<Var> {
        self.side_loss.take()
    }

    /// What the operations run on.
    pub(crate) fn device(&self) -> &D {
        &self.memory.device
    }

    /// The weights.
    pub fn params(&self) -> &'a Params<D> {
        self.params
    }

    /// Operations recorded so far.
    pub fn n_recorded(&self) -> usize {
        self.memory.nodes.len()
    }

    /// Integers for operations: tokens, labels, flags.
    pub fn indices(&mut self, values: impl Iterator<Item = i32>) -> Indices {
        self.memory.device.put(values)
    }

    /// A constant `[rows, cols]`.
    pub fn constant(&mut self, rows: usize, cols: usize, values: &[D::T]) -> Var {
        assert_eq!(values.len(), rows * cols, "constant of {rows}×{cols}");
        let (id, block) = self.new_value(rows, cols, Store::Activation);
        self.memory.device.upload(values, block);
        Var(id)
    }

    /// A constant `[rows, cols]` of zeros.
    pub fn zeros(&mut self, rows: usize, cols: usize) -> Var {
        let (id, block) = self.new_value(rows, cols, Store::Activation);
        self.memory.device.fill(block, D::T::ZERO);
        Var(id)
    }

    /// A constant `[rows, cols]` with arbitrary contents, to be written piece by piece.
    pub(crate) fn uninitialised(&mut self, rows: usize, cols: usize, store: Store) -> Var {
        Var(self.new_slot(rows, cols, store))
    }

    /// The device, and the elements of a constant's rows, for writing from outside of the operations.
    pub(crate) fn rows_mut(&mut self, constant: &Var, rows: Range<usize>) -> (&mut D, &'a Params<D>, Block) {
        let (_, cols) = self.shape(constant);
        let block = self.overwritten(constant).part(rows.start * cols, rows.len() * cols);
        (&mut self.memory.device, self.params, block)
    }

    /// `target[rows] ← target[rows] + alpha · source[rows]`, of two constants: nothing is recorded.
    pub fn accumulate(&mut self, target: &Var, rows: Range<usize>, alpha: D::T, source: &Var) {
        assert!(!self.needs_grad(target) && !self.needs_grad(source), "gradient would be lost");
        let (_, cols) = self.shape(target);
        let [from, to] = [source, target].map(|var| self.block(var).part(rows.start * cols, rows.len() * cols));
        self.memory.device.axpy(alpha, from, to);
    }

    /// An input `[rows, cols]` that is differentiated.
    pub fn leaf(&mut self, rows: usize, cols: usize, values: &[D::T]) -> Var {
        let var = self.constant(rows, cols, values);
        self.differentiate(&var);
        var
    }

    /// Makes a constant an input that is differentiated.
    pub(crate) fn differentiate(&mut self, constant: &Var) {
        let slot = self.slot_mut(constant.0);
        slot.needs_grad = true;
        slot.saved = true;
    }

    /// Where the gradient of a leaf is after [`Tape::backward`]: for engines that leave it on the device.
    #[cfg_attr(not(cuda), expect(dead_code, reason = "engines of accelerators"))]
    pub(crate) fn grad_block(&self, leaf: &Var) -> Option<Block> {
        self.slot(leaf.0).grad
    }

    /// `(rows, cols)`.
    pub fn shape(&self, var: &Var) -> (usize, usize) {
        let slot = self.slot(var.0);
        (slot.rows, slot.cols)
    }

    /// The value, row-major, in memory of its own.
    pub fn read(&self, var: &Var) -> Vec<D::T> {
        let (rows, cols) = self.shape(var);
        let mut values = vec![D::T::ZERO; rows * cols];
        self.download(var, &mut values);
        values
    }

    /// The gradient of a leaf after [`Tape::backward`], in memory of its own; `None` when nothing depended on it.
    pub fn read_grad(&self, var: &Var) -> Option<Vec<D::T>> {
        self.slot(var.0).grad.map(|block| self.memory.device.read(block))
    }

    /// How a value is kept.
    fn store(&self, var: &Var) -> Store {
        self.slot(var.0).store
    }

    /// Copies a value, row-major, to the host.
    pub fn download(&self, var: &Var, to: &mut [D::T]) {
        self.memory.device.download(self.block(var), to);
    }

    /// The token of each row of logits, the first of the largest, to the host.
    pub fn predict(&self, logits: &Var, tokens: &mut [u8]) {
        self.memory.device.predict(self.block(logits), tokens);
    }

    /// Copies the gradient of a leaf after [`Tape::backward`] to the host: zeros when nothing depended on it.
    pub fn download_grad(&self, var: &Var, to: &mut [D::T]) {
        match self.slot(var.0).grad {
            Some(block) => self.memory.device.download(block, to),
            None => to.fill(D::T::ZERO),
        }
    }

    /// Whether a gradient would reach this value.
    pub fn needs_grad(&self, var: &Var) -> bool {
        self.slot(var.0).needs_grad
    }

    /// Gives a value up; its memory is reused unless a recorded operation still needs it.
    pub fn release(&mut self, var: Var) {
        self.release_slot(var.0);
    }

    /// Runs every recorded operation backwards. Each seed is a value and the gradient with respect to each of its elements;
    /// weight gradients are *added* to `grads`, leaf gradients are read with [`Tape::download_grad`] afterwards. Values
    /// computed on the way are used up: only leaves can be read after this.
    pub fn backward_from(&mut self, seeds: &[(&Var, D::T)], grads: &mut Grads<D>) {
        for &(var, seed) in seeds {
            if let Some(grad) = self.backward_pass(grads).grad_to(var.0) {
                assert!(grad.base.is_none(), "one seed for each value");
                self.memory.device.fill(grad.to, seed);
            }
        }
        self.run_backward(grads);
    }

    /// As [`Tape::backward_from`], with a gradient of its own for every element.
    pub fn backward(&mut self, seeds: &[(&Var, &[D::T])], grads: &mut Grads<D>) {
        for &(var, seed) in seeds {
            if let Some(grad) = self.backward_pass(grads).grad_to(var.0) {
                assert!(grad.base.is_none(), "one seed for each value");
                self.memory.device.upload(seed, grad.to);
            }
        }
        self.run_backward(grads);
    }

    fn backward_pass<'b>(&'b mut self, grads: &'b mut Grads<D>) -> Backward<'b, D> {
        Backward { memory: self.memory, params: self.params, grads }
    }

    fn run_backward(&mut self, grads: &mut Grads<D>) {
        while let Some(op) = self.memory.nodes.pop() {
            let (output, mut pass) = (op.output(), self.backward_pass(grads));
            pass.settle_before(&op);
            if pass.slot(output).grad.is_none() {
                continue;
            }
            op.backward(&mut pass);
            if op.creates_output() {
                pass.settle(Some(output));
            }
            self.charge(&op, Phase::Backward);
            if op.creates_output() {
                let slot = &mut self.memory.slots[output.0 as usize];
                let blocks = [slot.value.take(), slot.grad.take()];
                for block in blocks.into_iter().flatten() {
                    self.memory.device.release(block);
                }
            }
        }
        self.backward_pass(grads).settle(None);
        let bytes = self.memory.device.finish_weight_grads(self.params, grads);
        if let Some(watch) = self.memory.stopwatch.as_mut().filter(|_| bytes > 0) {
            watch.charge_deferred(bytes as f64);
        }
    }

    // What operations are made of.

    fn slot(&self, id: SlotId) -> &Slot {
        &self.memory.slots[id.0 as usize]
    }

    fn slot_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.memory.slots[id.0 as usize]
    }

    /// The elements of a value.
    pub(crate) fn block(&self, var: &Var) -> Block {
        self.value_block(var.0)
    }

    fn value_block(&self, id: SlotId) -> Block {
        self.slot(id).value.expect("the value is still there")
    }

    /// A new slot with memory of arbitrary contents.
    fn new_slot(&mut self, rows: usize, cols: usize, store: Store) -> SlotId {
        let value = Some(self.memory.device.alloc(rows * cols, store));
        self.memory.slots.push(Slot { rows, cols, store, value, grad: None, needs_grad: false, saved: false });
        SlotId(self.memory.slots.len() as u32 - 1)
    }

    /// A new slot, and its memory.
    fn new_value(&mut self, rows: usize, cols: usize, store: Store) -> (SlotId, Block) {
        let id = self.new_slot(rows, cols, store);
        (id, self.value_block(id))
    }

    /// A constant whose elements nobody will read.
    fn without_memory(&mut self, rows: usize, cols: usize) -> Var {
        let store = Store::Activation;
        self.memory.slots.push(Slot { rows, cols, store, value: None, grad: None, needs_grad: false, saved: false });
        Var(SlotId(self.memory.slots.len() as u32 - 1))
    }

    fn release_slot(&mut self, id: SlotId) {
        let slot = &mut self.memory.slots[id.0 as usize];
        if !slot.saved
            && let Some(block) = slot.value.take()
        {
            self.memory.device.release(block);
        }
    }

    /// Marks a slot as read by a backward pass to come.
    fn save(&mut self, id: SlotId) {
        self.slot_mut(id).saved = true;
    }

    /// The elements of a value about to be overwritten by an operation that works in place.
    fn overwritten(&self, var: &Var) -> Block {
        assert!(!self.slot(var.0).saved, "a value that a recorded operation needs cannot be overwritten");
        self.block(var)
    }

    /// Whether a result of these inputs (and of weights, if `has_weights`) is to be recorded.
    fn records(&self, inputs: &[SlotId], has_weights: bool) -> bool {
        self.recording && (has_weights || inputs.iter().any(|&id| self.slot(id).needs_grad))
    }

    /// Finishes an operation: notes whether its output carries gradient, and remembers it if so. The backward pass reads the
    /// values of `reads`, and those of `own`, which nobody else reads.
    fn push(&mut self, output: SlotId, recorded: bool, reads: &[SlotId], own: &[SlotId], op: impl Into<Op>) -> Var {
        if recorded {
            reads.iter().chain(own).for_each(|&id| self.save(id));
        } else {
            own.iter().for_each(|&id| self.release_slot(id));
        }
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
        let Memory { stopwatch, slots, device, .. } = &mut *self.memory;
        if let Some(watch) = stopwatch {
            profile::charge(watch, op, phase, slots, self.params, device);
        }
    }

    /// Charges the time since the last operation to something outside of the tape, while a stopwatch runs.
    pub fn lap(&mut self, part: Part) {
        if let Some(watch) = &mut self.memory.stopwatch {
            watch.lap(part, 0.0);
        }
    }
}

impl<D: HostDevice> Tape<'_, D> {
    /// The value, row-major.
    pub fn value(&self, var: &Var) -> &[D::T] {
        self.memory.device.view(self.block(var))
    }

    /// The gradient of a leaf after [`Tape::backward`]; `None` when nothing depended on it.
    pub fn grad(&self, var: &Var) -> Option<&[D::T]> {
        self.slot(var.0).grad.map(|block| self.memory.device.view(block))
    }
}

//! What a supervision step exchanges with the host: examples and rows of the puzzle table on their way up; on their way down, what
//! the step says about each slot, and the gradients of those rows. All of it passes through memory of the host that stays where it
//! is, in one copy of integers and one of rows, and in one copy down.

use std::ops::Range;

use crate::cuda::{Backend, DeviceMemory, HostMemory, Queue};
use crate::device::cuda::CudaScalar;
use crate::device::{Block, Cuda, Indices};
use crate::engine::step::{Forward, Losses};
use crate::engine::{BoxedGroup, Outcome, PuzzleTable, Slots};
use crate::tape::Tape;

/// Columns of one number a slot, in this order: right and labelled tokens; losses of answer and halting; target and loss of the
/// continue head; the load-balancing loss.
const COLUMNS: usize = 7;

/// Numbers of a slot: the columns, then two q.
const NUMBERS: usize = COLUMNS + 2;

/// The memory of it, for `batch` slots.
pub(super) struct Exchange<B: Backend> {
    batch: usize,
    /// Width of a row of the puzzle table, or 0.
    ndim: usize,
    pub(super) tokens: Indices,
    pub(super) anew: Indices,
    pub(super) labels: Indices,
    pub(super) is_last: Indices,
    /// These four, one after the other.
    integers: Indices,
    host_integers: HostMemory<B>,
    rows: DeviceMemory<B>,
    host_rows: HostMemory<B>,
    /// The numbers of all slots, column by column, then the two q of a slot side by side; then the gradients of all rows.
    said: DeviceMemory<B>,
    host_said: HostMemory<B>,
}

impl<B: Backend> Exchange<B> {
    pub(super) fn new<T: CudaScalar>(device: &mut Cuda<T, B>, batch: usize, seq_len: usize, ndim: usize) -> Self {
        let queue = Queue::get();
        let integers = device.keep_indices(2 * batch * (seq_len + 1));
        let mut start = 0;
        let mut next = |len: usize| {
            start += len;
            integers.part(start - len, len)
        };
        let [tokens, anew, labels, is_last] = [seq_len, 1, seq_len, 1].map(|each| next(batch * each));
        let [rows, said] = [ndim, NUMBERS + ndim].map(|each| batch * each * size_of::<T>());
        Self {
            batch,
            ndim,
            tokens,
            anew,
            labels,
            is_last,
            integers,
            host_integers: HostMemory::zeros(queue, integers.len() * size_of::<i32>()),
            rows: DeviceMemory::zeros(queue, rows),
            host_rows: HostMemory::zeros(queue, rows),
            said: DeviceMemory::zeros(queue, said),
            host_said: HostMemory::zeros(queue, said),
        }
    }

    /// Sends up the examples of all slots, which of them start anew, and for which this is the last step, which is their
    /// `most_steps`-th.
    pub(super) fn send_examples<T: CudaScalar>(
        &mut self,
        device: &mut Cuda<T, B>,
        groups: &[BoxedGroup<T>],
        most_steps: u32,
    ) {
        fn fill<'a, T: 'a, F: 'a>(
            to: &mut [i32],
            groups: &'a [BoxedGroup<T>],
            field: impl Fn(&'a Slots) -> &'a [F],
            value: impl Fn(&'a F) -> i32,
        ) {
            let mut rest = to;
            for group in groups {
                let own = field(&group.slots);
                let (first, others) = rest.split_at_mut(own.len());
                first.iter_mut().zip(own).for_each(|(to, own)| *to = value(own));
                rest = others;
            }
        }
        let all: &mut [i32] = self.host_integers.values(0, self.integers.len());
        let (tokens, rest) = all.split_at_mut(self.tokens.len());
        let (anew, rest) = rest.split_at_mut(self.anew.len());
        let (labels, is_last) = rest.split_at_mut(self.labels.len());
        fill(tokens, groups, |slots| &slots.inputs, |&token| token.into());
        fill(anew, groups, |slots| &slots.halted, |&halted| halted.into());
        fill(labels, groups, |slots| &slots.labels, |&label| label);
        fill(is_last, groups, |slots| &slots.steps, |&steps| (steps + 1 >= most_steps).into());
        device.send_indices(self.integers, &mut self.host_integers);
    }

    /// Sends up the rows of the puzzle table.
    pub(super) fn send_rows<T: CudaScalar>(&mut self, groups: &[BoxedGroup<T>], table: &PuzzleTable<T>) {
        let (ndim, len) = (self.ndim, self.batch * self.ndim);
        let ids = groups.iter().flat_map(|group| &group.slots.puzzle_ids);
        let rows: &mut [T] = self.host_rows.values(0, len);
        rows.chunks_exact_mut(ndim).zip(ids).for_each(|(row, &id)| row.copy_from_slice(table.row(id)));
        self.rows.upload_from(0, &mut self.host_rows, len * size_of::<T>());
    }

    /// The rows of some slots, `first` the first of them.
    pub(super) fn read_rows<T: CudaScalar>(&self, device: &Cuda<T, B>, first: usize, to: Block) {
        device.copy_in(&self.rows, first * self.ndim, to);
    }

    /// Keeps what a step says about some slots, `first` the first of them.
    pub(super) fn keep_numbers<T: CudaScalar>(
        &self,
        tape: &Tape<'_, Cuda<T, B>>,
        forward: &Forward,
        losses: &Losses,
        first: usize,
    ) {
        let continues = losses.continues.as_ref();
        let columns: [_; COLUMNS] = [
            Some(&losses.score.correct),
            Some(&losses.score.labelled),
            Some(&losses.lm),
            Some(&losses.halt),
            continues.map(|continues| &continues.target),
            continues.map(|continues| &continues.loss),
            forward.recursion.balance.as_ref(),
        ];
        for (i, var) in columns.into_iter().enumerate() {
            if let Some(var) = var {
                tape.device().copy_out(tape.block(var), &self.said, i * self.batch + first);
            }
        }
        tape.device().copy_out(tape.block(&forward.q), &self.said, COLUMNS * self.batch + 2 * first);
    }

    /// Keeps the gradients of the rows of some slots.
    pub(super) fn keep_grads<T: CudaScalar>(&self, device: &Cuda<T, B>, grads: Block, first: usize) {
        device.copy_out(grads, &self.said, NUMBERS * self.batch + first * self.ndim);
    }

    /// Sends for what was kept, behind everything queued before.
    pub(super) fn send_for_numbers<T: CudaScalar>(&mut self) {
        self.said.download_into(&mut self.host_said, self.batch * (NUMBERS + self.ndim) * size_of::<T>());
    }

    /// Once it has come, it goes to the groups. The load-balancing loss is the sum of those of so many routers.
    pub(super) fn receive<T: CudaScalar>(&mut self, groups: &mut [BoxedGroup<T>], routers: usize) {
        let len = self.batch * (NUMBERS + self.ndim);
        let (numbers, grads) = self.host_said.values::<T>(0, len).split_at(self.batch * NUMBERS);
        let mut first = 0;
        for group in groups {
            let slots = first..first + group.len();
            first = slots.end;
            group.outcome.puzzle_grads.copy_from_slice(&grads[slots.start * self.ndim..slots.end * self.ndim]);
            write_numbers(&mut group.outcome, numbers, self.batch, slots, routers);
        }
    }
}

/// The numbers of some slots, of those of a batch, into their outcome.
fn write_numbers<T: CudaScalar>(
    outcome: &mut Outcome<T>,
    numbers: &[T],
    batch: usize,
    slots: Range<usize>,
    routers: usize,
) {
    let column = |i: usize| numbers[i * batch..][slots.clone()].iter().map(|value| value.to_f64());
    let counts = [&mut outcome.correct, &mut outcome.labelled];
    for (i, to) in counts.into_iter().enumerate() {
        to.iter_mut().zip(column(i)).for_each(|(to, value)| *to = value as u32);
    }
    let losses = [
        &mut outcome.lm_loss,
        &mut outcome.halt_loss,
        &mut outcome.continue_target,
        &mut outcome.continue_loss,
        &mut outcome.balance_loss,
    ];
    for (i, to) in losses.into_iter().enumerate() {
        to.iter_mut().zip(column(2 + i)).for_each(|(to, value)| *to = value);
    }
    let routers = routers.max(1) as f64;
    outcome.balance_loss.iter_mut().for_each(|loss| *loss /= routers);
    let q = &numbers[COLUMNS * batch..][2 * slots.start..2 * slots.end];
    outcome.q.as_flattened_mut().copy_from_slice(q);
}

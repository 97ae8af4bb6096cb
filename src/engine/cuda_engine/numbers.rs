//! What a supervision step says about each slot: written on the device, read by the host in one piece.

use std::ops::Range;

use crate::cuda::{Backend, DeviceMemory};
use crate::device::Cuda;
use crate::device::cuda::CudaScalar;
use crate::engine::Outcome;
use crate::engine::step::{Forward, Losses};
use crate::tape::Tape;

/// Columns of one number a slot, in this order: right and labelled tokens; losses of answer and halting; target and loss of the
/// continue head; the load-balancing loss.
const COLUMNS: usize = 7;

/// Numbers of a slot: the columns, then two q.
pub(super) const NUMBERS: usize = COLUMNS + 2;

/// Puts what a step says about some slots, `first` the first of them, among the `NUMBERS · batch` of a batch: column by column,
/// then the two q of a slot side by side.
pub(super) fn keep<T: CudaScalar, B: Backend>(
    tape: &Tape<'_, Cuda<T, B>>,
    forward: &Forward,
    losses: &Losses,
    numbers: &DeviceMemory<B>,
    (batch, first): (usize, usize),
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
            tape.device().copy_out(tape.block(var), numbers, i * batch + first);
        }
    }
    tape.device().copy_out(tape.block(&forward.q), numbers, COLUMNS * batch + 2 * first);
}

/// The numbers of a batch, on the host.
pub(super) struct Numbers<T> {
    values: Vec<T>,
    batch: usize,
    /// Whose losses the load-balancing loss is the sum of.
    routers: usize,
}

impl<T: CudaScalar> Numbers<T> {
    /// After everything queued before.
    pub(super) fn read<B: Backend>(numbers: &DeviceMemory<B>, batch: usize, routers: usize) -> Self {
        let mut values = vec![T::ZERO; NUMBERS * batch];
        numbers.download(0, &mut values);
        Self { values, batch, routers }
    }

    /// Those of some slots, into their outcome.
    pub(super) fn write(&self, slots: &Range<usize>, outcome: &mut Outcome<T>) {
        let column = |i: usize| self.values[i * self.batch..][slots.clone()].iter().map(|value| value.to_f64());
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
        let routers = self.routers.max(1) as f64;
        outcome.balance_loss.iter_mut().for_each(|loss| *loss /= routers);
        let q = &self.values[COLUMNS * self.batch..][2 * slots.start..2 * slots.end];
        outcome.q.as_flattened_mut().copy_from_slice(q);
    }
}

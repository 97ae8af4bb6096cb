//! Where the time goes: a stopwatch that a lane may carry along, read whenever an operation ends.
//!
//! The time of an operation is the time since the event before it on the same lane, so that nothing is lost between
//! them; what happens outside of operations is charged by its part of the update ([`Stopwatch::lap`]). Off, it costs a comparison for each
//! operation; on, a reading of the clock and a short search.
//!
//! The clock is the device's: an event is a [`Mark`] in its work. An accelerator comes to its marks long after they were set;
//! they are kept, and read when all is done ([`Stopwatch::finish`]), so that timing never makes the host wait in between.

use std::time::Instant;

use super::ops::Op;
use super::{Slot, SlotId};
use crate::device::{Device, Mark, ParamId, Params, Precision, Store, SwiGlu};

/// When an operation ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Forward, nothing kept.
    Detached,
    /// Forward, recorded for the backward pass.
    Recorded,
    /// Backward.
    Backward,
    /// Not an operation of the tape, but this part of an update.
    Outside(Part),
}

impl serde::Serialize for Phase {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::Detached => "detached",
            Self::Recorded => "recorded",
            Self::Backward => "backward",
            Self::Outside(_) => "outside",
        })
    }
}

/// What an update does outside of the tape's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A lane clears the buffer that a group's gradients are summed in.
    GradientBuffer,
    /// A lane copies between carry and tape.
    Carry,
    /// A lane counts right tokens.
    Metrics,
    /// A lane adds gradients of groups.
    GradientTree,
    /// One thread gives halted slots their next examples.
    Examples,
    /// All lanes work on groups.
    Groups,
    /// A lane has no group left: it helps others with theirs, or waits for them.
    Waiting,
    /// All lanes add the partial sums that are left of the tree.
    GradientSum,
    /// One thread adds the losses and looks at the gradient's norm.
    Losses,
    /// All lanes change weights, moments and EMA, and pack the weights.
    Optimizer,
    /// One thread decides which slots halt.
    Halting,
}

impl Part {
    /// What a profile calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::GradientBuffer => "gradient buffer",
            Self::Carry => "carry in and out",
            Self::Metrics => "metrics",
            Self::GradientTree => "gradient tree",
            Self::Examples => "deal examples",
            Self::Groups => "groups",
            Self::Waiting => "helping, waiting",
            Self::GradientSum => "gradient sum",
            Self::Losses => "losses, norm",
            Self::Optimizer => "optimizer, average, packing",
            Self::Halting => "halting",
        }
    }
}

/// What one kind of operation came to in one phase.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Timing {
    /// Operation, or part of the update.
    pub name: &'static str,
    /// When it ran.
    pub phase: Phase,
    /// How often.
    pub calls: u64,
    /// For how long in all.
    pub seconds: f64,
    /// Model FLOPs, by the counting rule of [`crate::model`]'s `model_flops`.
    pub flops: f64,
    /// Bytes, every operand counted once: inputs, results, weights in their packed format.
    pub bytes: f64,
    /// FLOPs of products whose operands are whole numbers of eight bits.
    pub int8_flops: f64,
}

/// FLOPs and bytes of an operation's forward pass, counted as in [`Timing`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Model FLOPs.
    pub flops: f64,
    /// Bytes, every operand counted once.
    pub bytes: f64,
    /// FLOPs of products whose operands are whole numbers of eight bits.
    pub int8_flops: f64,
}

/// Sums of times since it was started.
#[derive(Debug)]
pub struct Stopwatch<M = Instant> {
    /// The last event, where the device has got there.
    since: Option<M>,
    /// All events, where it has not, each with the line that the time before it is charged to.
    ahead: Vec<(M, Option<usize>)>,
    lines: Vec<Timing>,
    /// Model FLOPs of the weight gradients that were deferred when the last operation ended.
    deferred: f64,
}

impl<M> Default for Stopwatch<M> {
    fn default() -> Self {
        Self { since: None, ahead: Vec::new(), lines: Vec::new(), deferred: 0.0 }
    }
}

impl<M: Mark> Stopwatch<M> {
    /// What follows is timed from here on.
    pub fn start(&mut self) {
        self.since = None;
        self.note(M::set(), None);
    }

    /// Charges the time since the last event to a part outside of the tape that moved so many bytes.
    pub fn lap(&mut self, part: Part, bytes: f64) {
        self.charge(part.name(), Phase::Outside(part), Cost { bytes, ..Cost::default() });
    }

    /// All sums, in the order of their first appearance, after the device has come to the last event.
    pub fn finish(mut self) -> Vec<Timing> {
        for events in self.ahead.windows(2) {
            let [(before, _), (event, line)] = events else { unreachable!("windows of two") };
            if let Some(line) = *line {
                self.lines[line].seconds += before.seconds_until(event);
            }
        }
        self.lines
    }

    /// Charges the time since the last event, and the FLOPs of all weight gradients that were still deferred, to the part that
    /// computed them.
    pub(super) fn charge_deferred(&mut self, bytes: f64) {
        let flops = std::mem::take(&mut self.deferred);
        self.charge("deferred weight gradients", Phase::Backward, Cost { flops, bytes, ..Cost::default() });
    }

    /// Charges the time since the last event.
    pub(super) fn charge(&mut self, name: &'static str, phase: Phase, cost: Cost) {
        let now = M::set();
        let at = line(&mut self.lines, name, phase);
        let line = &mut self.lines[at];
        (line.calls, line.flops, line.bytes) = (line.calls + 1, line.flops + cost.flops, line.bytes + cost.bytes);
        line.int8_flops += cost.int8_flops;
        self.note(now, Some(at));
    }

    /// An event: the time since the last one is charged to a line.
    fn note(&mut self, now: M, line: Option<usize>) {
        if !M::IS_REACHED {
            return self.ahead.push((now, line));
        }
        if let (Some(line), Some(since)) = (line, &self.since) {
            self.lines[line].seconds += since.seconds_until(&now);
        }
        self.since = Some(now);
    }
}

/// The index of a line, which is added where there is none yet.
fn line(lines: &mut Vec<Timing>, name: &'static str, phase: Phase) -> usize {
    lines.iter().position(|line| line.phase == phase && line.name == name).unwrap_or_else(|| {
        lines.push(Timing { name, phase, calls: 0, seconds: 0.0, flops: 0.0, bytes: 0.0, int8_flops: 0.0 });
        lines.len() - 1
    })
}

/// Adds further lines to sums of the same kind.
pub fn add_timings(sums: &mut Vec<Timing>, lines: &[Timing]) {
    for more in lines {
        let at = line(sums, more.name, more.phase);
        let sum = &mut sums[at];
        (sum.calls, sum.seconds) = (sum.calls + more.calls, sum.seconds + more.seconds);
        (sum.flops, sum.bytes) = (sum.flops + more.flops, sum.bytes + more.bytes);
        sum.int8_flops += more.int8_flops;
    }
}

/// The sizes that an operation's cost follows from.
pub(crate) struct Sizes<'a, D: Device> {
    pub(super) slots: &'a [Slot],
    pub(super) params: &'a Params<D>,
    pub(super) device: &'a D,
    /// Whether operands of products with weights are whole numbers of eight bits.
    pub(super) is_int8: bool,
}

impl<D: Device> Sizes<'_, D> {
    fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[id.0 as usize]
    }

    /// Elements of a value.
    pub(crate) fn elements(&self, id: SlotId) -> usize {
        let slot = self.slot(id);
        slot.rows * slot.cols
    }

    /// Bytes in which a value is kept.
    pub(crate) fn bytes(&self, id: SlotId) -> f64 {
        (self.elements(id) * self.device.element_bytes(self.slot(id).store)) as f64
    }

    /// `(out, in)` of a weight.
    pub(crate) fn shape(&self, id: ParamId) -> (usize, usize) {
        self.params.shape(id)
    }

    /// An operation that reads as much as it writes, and no weights.
    pub(crate) fn elementwise(&self, output: SlotId) -> Cost {
        Cost { bytes: 2.0 * self.bytes(output), ..Cost::default() }
    }

    /// `y = x Wᵀ`.
    pub(crate) fn product(&self, weight: ParamId, x: SlotId, y: SlotId) -> Cost {
        let (n_out, n_in) = self.shape(weight);
        let flops = (2 * n_in * self.elements(y)) as f64;
        self.of_products(flops, self.bytes(x) + self.bytes(y) + (n_out * n_in * self.packed_bytes()) as f64)
    }

    /// A SwiGLU. A device that does it in one kernel, keeping neither gates nor what they are multiplied with, reads x and
    /// writes y; another one goes by way of `[g; u]` and `silu(g) ⊙ u`.
    pub(crate) fn swiglu(&self, swiglu: SwiGlu, x: SlotId, y: SlotId) -> Cost {
        let ((double, n_in), (n_out, inner)) = (self.shape(swiglu.gate_up), self.shape(swiglu.down));
        let vectors = self.elements(y) / n_out;
        let weights = double * n_in + n_out * inner;
        let is_one_kernel = self.device.swiglu_saved_len(self.params, swiglu, self.elements(x)) == 0;
        let between = if is_one_kernel { 0 } else { (double + inner) * self.device.element_bytes(Store::Activation) };
        let bytes = self.bytes(x) + self.bytes(y) + (weights * self.packed_bytes() + vectors * between) as f64;
        self.of_products((2 * weights * vectors) as f64, bytes)
    }

    /// Of products with weights.
    fn of_products(&self, flops: f64, bytes: f64) -> Cost {
        Cost { flops, bytes, int8_flops: if self.is_int8 { flops } else { 0.0 } }
    }

    /// Bytes of an element of a packed weight.
    fn packed_bytes(&self) -> usize {
        match self.params.precision() {
            _ if self.is_int8 => 1,
            Precision::Bf16 => 2,
            Precision::F32 => size_of::<D::T>(),
        }
    }
}

/// Charges an operation that has just ended; a backward pass counts twice the forward pass, as in the rule. What it deferred
/// is charged to whatever computes it.
pub(super) fn charge<D: Device>(
    watch: &mut Stopwatch<D::Mark>,
    op: &Op,
    phase: Phase,
    slots: &[Slot],
    params: &Params<D>,
    device: &D,
) {
    let is_int8 = phase == Phase::Detached && device.is_int8(params);
    let cost = op.cost(&Sizes { slots, params, device, is_int8 });
    let times = if phase == Phase::Backward { 2.0 } else { 1.0 };
    // Model FLOPs of all that waits now.
    let deferred = device.deferred_flops(params);
    let newly_deferred = deferred - std::mem::replace(&mut watch.deferred, deferred);
    let (flops, bytes) = (times * cost.flops - newly_deferred, times * cost.bytes);
    watch.charge(op.name(), phase, Cost { flops, bytes, ..cost });
}

//! Where the time goes: a stopwatch that a lane may carry along, read whenever an operation ends.
//!
//! The time of an operation is the time since the event before it on the same lane, so that nothing is lost between
//! them; what happens outside of operations is charged by its part of the update ([`Stopwatch::lap`]). Off, it costs a comparison for each
//! operation; on, a reading of the clock and a short search.

use std::time::Instant;

use super::ops::Op;
use super::{Slot, SlotId};
use crate::device::{Device, ParamId, Params, Precision};

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
    /// A lane has nothing to do while others work on the last groups.
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
            Self::Waiting => "waiting for other lanes",
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
}

/// FLOPs and bytes of an operation's forward pass, counted as in [`Timing`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Model FLOPs.
    pub flops: f64,
    /// Bytes, every operand counted once.
    pub bytes: f64,
}

/// Sums of times since it was started.
#[derive(Clone, Debug, Default)]
pub struct Stopwatch {
    since: Option<Instant>,
    lines: Vec<Timing>,
    /// Model FLOPs of the weight gradients that were deferred when the last operation ended.
    deferred: f64,
}

impl Stopwatch {
    /// What follows is timed from here on.
    pub fn start(&mut self) {
        self.since = Some(Instant::now());
    }

    /// Charges the time since the last event to a part outside of the tape that moved so many bytes.
    pub fn lap(&mut self, part: Part, bytes: f64) {
        self.charge(part.name(), Phase::Outside(part), Cost { flops: 0.0, bytes });
    }

    /// All sums, in the order of their first appearance.
    pub fn lines(&self) -> &[Timing] {
        &self.lines
    }

    /// Adds the sums of another one.
    pub fn add(&mut self, lines: &[Timing]) {
        for line in lines {
            let sum = self.line(line.name, line.phase);
            (sum.calls, sum.seconds) = (sum.calls + line.calls, sum.seconds + line.seconds);
            (sum.flops, sum.bytes) = (sum.flops + line.flops, sum.bytes + line.bytes);
        }
    }

    /// Charges the time since the last event, and the FLOPs of all weight gradients that were still deferred, to the part that
    /// computed them.
    pub(super) fn charge_deferred(&mut self, bytes: f64) {
        let flops = std::mem::take(&mut self.deferred);
        self.charge("deferred weight gradients", Phase::Backward, Cost { flops, bytes });
    }

    /// Charges the time since the last event.
    pub(super) fn charge(&mut self, name: &'static str, phase: Phase, cost: Cost) {
        let now = Instant::now();
        let seconds = self.since.replace(now).map_or(0.0, |since| (now - since).as_secs_f64());
        let line = self.line(name, phase);
        (line.calls, line.seconds) = (line.calls + 1, line.seconds + seconds);
        (line.flops, line.bytes) = (line.flops + cost.flops, line.bytes + cost.bytes);
    }

    fn line(&mut self, name: &'static str, phase: Phase) -> &mut Timing {
        let known = self.lines.iter().position(|line| line.phase == phase && line.name == name);
        let at = known.unwrap_or_else(|| {
            self.lines.push(Timing { name, phase, calls: 0, seconds: 0.0, flops: 0.0, bytes: 0.0 });
            self.lines.len() - 1
        });
        &mut self.lines[at]
    }
}

/// The sizes that an operation's cost follows from.
pub(crate) struct Sizes<'a, D: Device> {
    pub(super) slots: &'a [Slot],
    pub(super) params: &'a Params<D>,
}

impl<D: Device> Sizes<'_, D> {
    /// Elements of a value.
    pub(crate) fn elements(&self, id: SlotId) -> usize {
        let slot = &self.slots[id.0 as usize];
        slot.rows * slot.cols
    }

    /// `(out, in)` of a weight.
    pub(crate) fn shape(&self, id: ParamId) -> (usize, usize) {
        self.params.shape(id)
    }

    /// An operation that reads as many elements as it writes, and no weights.
    pub(crate) fn elementwise(&self, output: SlotId) -> Cost {
        Cost { flops: 0.0, bytes: (2 * self.elements(output) * size_of::<D::T>()) as f64 }
    }

    /// Weights applied to so many vectors each.
    pub(crate) fn products(&self, vectors: usize, weights: &[ParamId]) -> Cost {
        let packed = match self.params.precision() {
            Precision::Bf16 => 2,
            Precision::F32 => size_of::<D::T>(),
        };
        let mut cost = Cost::default();
        for &id in weights {
            let (n_out, n_in) = self.shape(id);
            cost.flops += 2.0 * (n_out * n_in * vectors) as f64;
            cost.bytes += (n_out * n_in * packed + (n_out + n_in) * vectors * size_of::<D::T>()) as f64;
        }
        cost
    }
}

/// Charges an operation that has just ended; a backward pass counts twice the forward pass, as in the rule. What it deferred
/// is charged to whatever computes it: `deferred` are the model FLOPs of all that waits now.
pub(super) fn charge<D: Device>(
    watch: &mut Stopwatch,
    op: &Op,
    phase: Phase,
    slots: &[Slot],
    params: &Params<D>,
    deferred: f64,
) {
    let cost = op.cost(&Sizes { slots, params });
    let times = if phase == Phase::Backward { 2.0 } else { 1.0 };
    let newly_deferred = deferred - std::mem::replace(&mut watch.deferred, deferred);
    watch.charge(op.name(), phase, Cost { flops: times * cost.flops - newly_deferred, bytes: times * cost.bytes });
}

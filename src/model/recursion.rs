//! One loop over the calls of a schedule: all models there are.

use arrayvec::ArrayVec;

use super::{Call, MAX_STATES, Model, Source, States, fixed_point};
use crate::device::Device;
use crate::tape::{Tape, Var, ops};

/// Which calls of the schedule leave a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// As the schedule says.
    Train,
    /// None.
    Infer,
}

/// What a supervision step's recursion leaves beside the states.
#[derive(Debug)]
pub struct RecursionOutput {
    /// Calls made: the schedule's, or fewer when the states settled before.
    pub calls: usize,
    /// With experts, `[sequences, 1]`: the sum of the recorded routers' load-balancing losses.
    pub balance: Option<Var>,
}

impl Model {
    /// Runs the recursion of one supervision step: `states` are replaced by the new ones. `question` is x.
    pub fn recur<D: Device>(
        &self,
        tape: &mut Tape<'_, D>,
        question: &Var,
        states: &mut States,
        pass: Pass,
    ) -> RecursionOutput {
        let (mut next, mut calls) = (0, 0);
        if let Some(iteration) = &self.schedule.iteration {
            tape.set_recording(false);
            calls = fixed_point::iterate(self, tape, question, states, iteration);
            next = iteration.cycle * iteration.most;
        }
        for call in &self.schedule.calls[next..] {
            tape.set_recording(call.recorded && pass == Pass::Train);
            tape.set_detached(!call.recorded);
            self.call(tape, call, question, states);
            calls += 1;
        }
        tape.set_recording(pass == Pass::Train);
        tape.set_detached(false);
        RecursionOutput { calls, balance: tape.take_side_loss() }
    }

    /// `target ← net(Σ inputs)`.
    pub(super) fn call<D: Device>(&self, tape: &mut Tape<'_, D>, call: &Call, question: &Var, states: &mut States) {
        let h = {
            let summand = |source: &Source| match source {
                Source::State(id) => &states[id.index()],
                Source::Question => question,
            };
            let summands: ArrayVec<&Var, { MAX_STATES + 1 }> = call.inputs.iter().map(summand).collect();
            ops::add(tape, &summands)
        };
        let updated = self.nets[call.net].forward(tape, h);
        let outdated = std::mem::replace(&mut states[call.target.index()], updated);
        tape.release(outdated);
    }

    /// Routers that a training step goes through with gradient.
    pub fn recorded_routers(&self) -> usize {
        let recorded = self.schedule.calls.iter().filter(|call| call.recorded);
        recorded.map(|call| self.nets[call.net].routers()).sum()
    }
}

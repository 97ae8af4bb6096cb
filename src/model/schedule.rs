//! The recursion as data: named states and a list of calls "state ← net(sum of inputs)", each recorded or detached.

use arrayvec::ArrayVec;

use crate::config::{Arch, Gradient, ModelConfig};

/// Most states a model has: y and six latents (SPEC "hier6").
pub const MAX_STATES: usize = 7;

/// One of a model's states, by position in [`Schedule::states`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateId(u8);

impl StateId {
    /// Position in [`Schedule::states`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a call adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    State(StateId),
    /// x, the embedded question.
    Question,
}

/// `target ← net(Σ inputs)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub target: StateId,
    /// Which of [`Schedule::nets`].
    pub net: usize,
    pub inputs: ArrayVec<Source, { MAX_STATES + 1 }>,
    /// Whether gradient flows through the call.
    pub recorded: bool,
}

/// One supervision step of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Published names of the states: `H` is y, `L` is z.
    pub states: Vec<&'static str>,
    /// Published names of the networks.
    pub nets: Vec<&'static str>,
    pub calls: Vec<Call>,
    /// The state the heads read.
    pub answer: StateId,
}

const Y: StateId = StateId(0);
const Z: StateId = StateId(1);
const X: Source = Source::Question;

impl Schedule {
    /// The schedule of a configuration.
    pub fn new(config: &ModelConfig) -> Self {
        let mut schedule = match config.arch {
            Arch::Trm => Self::trm(config.h_cycles, config.l_cycles, config.separate_nets),
        };
        let calls_per_cycle = config.l_cycles + 1;
        schedule.record_last(match config.gradient {
            Gradient::FullCycle => calls_per_cycle,
            Gradient::OneStep => 2,
            Gradient::LastK => config.last_k,
        });
        schedule
    }

    /// TRM: T cycles of n updates `z ← f(z, y + x)` and one `y ← f(y, z)`.
    fn trm(t: usize, n: usize, separate_nets: bool) -> Self {
        let (nets, y_net) = if separate_nets { (vec!["L_level", "H_level"], 1) } else { (vec!["L_level"], 0) };
        let mut calls = Vec::new();
        for _ in 0..t {
            calls.extend((0..n).map(|_| call(Z, 0, &[Source::State(Z), Source::State(Y), X])));
            calls.push(call(Y, y_net, &[Source::State(Y), Source::State(Z)]));
        }
        Self { states: vec!["H", "L"], nets, calls, answer: Y }
    }

    /// Marks the last `count` calls as recorded, the others as detached.
    pub fn record_last(&mut self, count: usize) {
        let first = self.calls.len().saturating_sub(count);
        for (i, call) in self.calls.iter_mut().enumerate() {
            call.recorded = i >= first;
        }
    }

    /// `(detached, recorded)` calls.
    pub fn n_calls(&self) -> (usize, usize) {
        let recorded = self.calls.iter().filter(|call| call.recorded).count();
        (self.calls.len() - recorded, recorded)
    }
}

fn call(target: StateId, net: usize, inputs: &[Source]) -> Call {
    Call { target, net, inputs: inputs.iter().copied().collect(), recorded: false }
}

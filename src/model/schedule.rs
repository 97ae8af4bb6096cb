//! The recursion as data: named states and a list of calls "state ← net(sum of inputs)", each recorded or detached.

use arrayvec::ArrayVec;

use crate::config::{Arch, FixedPoint, Gradient, ModelConfig};

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

/// How often the detached calls are repeated, when that is not fixed.
#[derive(Clone, Debug, PartialEq)]
pub struct Iteration {
    pub method: Method,
    /// The first so many calls are one cycle.
    pub cycle: usize,
    /// Cycles at most; the schedule lists that many.
    pub most: usize,
    /// Settled when no sequence's states change by more than this share of their norm.
    pub tolerance: f64,
}

/// From one iteration to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// s ← G(s).
    Plain,
    /// Anderson's extrapolation.
    Anderson,
}

/// One supervision step of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Published names of the states: `H` is y, `L` is z.
    pub states: Vec<&'static str>,
    /// Published names of the networks.
    pub nets: Vec<&'static str>,
    pub calls: Vec<Call>,
    /// Detached cycles at the start that stop when the states have settled.
    pub iteration: Option<Iteration>,
    /// The state the heads read.
    pub answer: StateId,
    /// Halts when `q_halt > q_continue` even without the continue loss (SPEC "Deep supervision", step 3).
    pub compares_q: bool,
}

const Y: StateId = StateId(0);
const Z: StateId = StateId(1);
const X: Source = Source::Question;

impl Schedule {
    /// The schedule of a configuration.
    pub fn new(config: &ModelConfig) -> Self {
        let (t, n) = (config.h_cycles, config.l_cycles);
        let mut schedule = match config.arch {
            Arch::Trm if config.separate_nets => Self::two_states(t, n, &["L_level", "H_level"]),
            Arch::Trm => Self::two_states(t, n, &["L_level"]),
            Arch::Hrm => Self { compares_q: true, ..Self::two_states(t, n, &["L_level", "H_level"]) },
            Arch::Singlez => Self::one_state(t, n),
            Arch::Hier6 => Self::many_latents(t, n),
            Arch::Transformer => Self::transformer(),
            Arch::Direct => Self::direct(),
        };
        let calls_per_cycle = schedule.calls.len().min(n + 1);
        schedule.record_last(match config.gradient {
            Gradient::FullCycle => calls_per_cycle,
            Gradient::OneStep => 2,
            Gradient::LastK => config.last_k,
        });
        schedule.iteration = match config.fixed_point {
            FixedPoint::None => None,
            FixedPoint::Plain => Some(Method::Plain),
            FixedPoint::Anderson => Some(Method::Anderson),
        }
        .map(|method| {
            // The last cycle is left as it is even where only a part of it is recorded.
            let last = (n + 1).max(schedule.recorded());
            let most = (schedule.calls.len() - last) / (n + 1);
            Iteration { method, cycle: n + 1, most, tolerance: config.fixed_point_tolerance }
        });
        schedule
    }

    /// TRM and HRM: T cycles of n updates `z ← f(z, y + x)` and one `y ← g(y, z)`; g is the last of the networks.
    fn two_states(t: usize, n: usize, nets: &[&'static str]) -> Self {
        let mut cycle = vec![call(Z, 0, &[Source::State(Z), Source::State(Y), X]); n];
        cycle.push(call(Y, nets.len() - 1, &[Source::State(Y), Source::State(Z)]));
        Self {
            states: vec!["H", "L"],
            nets: nets.to_vec(),
            calls: vec![cycle; t].concat(),
            iteration: None,
            answer: Y,
            compares_q: false,
        }
    }

    /// Single z: T cycles of n updates `z ← f(z + x)` and one `z ← f(z)`.
    fn one_state(t: usize, n: usize) -> Self {
        let z = StateId(0);
        let mut cycle = vec![call(z, 0, &[Source::State(z), X]); n];
        cycle.push(call(z, 0, &[Source::State(z)]));
        let calls = vec![cycle; t].concat();
        Self { states: vec!["L"], nets: vec!["L_level"], calls, iteration: None, answer: z, compares_q: false }
    }

    /// Multi-scale z: T cycles of `z_i ← f(Σ z_j, y + x)` for i = 1…n and one `y ← f(y, Σ z_j)`.
    fn many_latents(t: usize, n: usize) -> Self {
        let latents: Vec<StateId> = (1..=6).map(StateId).collect();
        let sum = latents.iter().map(|&z| Source::State(z));
        let inputs: Vec<Source> = sum.clone().chain([Source::State(Y), X]).collect();
        let mut cycle: Vec<Call> = latents[..n].iter().map(|&z| call(z, 0, &inputs)).collect();
        cycle.push(call(Y, 0, &std::iter::once(Source::State(Y)).chain(sum).collect::<Vec<_>>()));
        let states = vec!["H", "L1", "L2", "L3", "L4", "L5", "L6"];
        let calls = vec![cycle; t].concat();
        Self { states, nets: vec!["L_level"], calls, iteration: None, answer: Y, compares_q: false }
    }

    /// The plain transformer: `y ← f(y, x)` once.
    fn transformer() -> Self {
        let calls = vec![call(Y, 0, &[Source::State(Y), X])];
        Self { states: vec!["H"], nets: vec!["H_level"], calls, iteration: None, answer: Y, compares_q: true }
    }

    /// Direct prediction: `y ← f(x)` once; no state is read, so nothing is carried.
    fn direct() -> Self {
        let calls = vec![call(Y, 0, &[X])];
        Self { states: vec!["H"], nets: vec!["L_level"], calls, iteration: None, answer: Y, compares_q: false }
    }

    /// How many calls are recorded.
    pub fn recorded(&self) -> usize {
        self.calls.iter().filter(|call| call.recorded).count()
    }

    /// Marks the last `count` calls as recorded, the others as detached.
    pub fn record_last(&mut self, count: usize) {
        let first = self.calls.len().saturating_sub(count);
        for (i, call) in self.calls.iter_mut().enumerate() {
            call.recorded = i >= first;
        }
    }
}

fn call(target: StateId, net: usize, inputs: &[Source]) -> Call {
    Call { target, net, inputs: inputs.iter().copied().collect(), recorded: false }
}

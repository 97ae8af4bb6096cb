//! One supervision step, unrolled from the recursion of the settings: named states and a list of calls "state ← net(sum of inputs)", each recorded or detached.

use arrayvec::ArrayVec;

pub use crate::config::recursion::MAX_STATES;
use crate::config::recursion::{CallStep, Input, MAX_INPUTS};
use crate::config::{FixedPoint, Gradient, ModelConfig};

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
    /// A state as it is at that moment.
    State(StateId),
    /// x, the embedded question.
    Question,
}

/// `target ← net(Σ inputs)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The state that is replaced.
    pub target: StateId,
    /// Which of [`Schedule::nets`].
    pub net: usize,
    /// What is added up for the network.
    pub inputs: ArrayVec<Source, MAX_INPUTS>,
    /// Whether gradient flows through the call.
    pub recorded: bool,
}

impl Call {
    /// What the sum of inputs adds to a state that has just been made, if it is `(state + a) + b` or `state + a`. The first two summands may
    /// change places: that rounds alike.
    pub(super) fn added_to(&self, state: StateId) -> Option<(&Source, Option<&Source>)> {
        let is_it = |input: &Source| *input == Source::State(state);
        match &self.inputs[..] {
            [it, a, b @ ..] | [a, it, b @ ..] if is_it(it) && !is_it(a) && b.len() <= 1 && !b.iter().any(is_it) => {
                Some((a, b.first()))
            }
            _ => None,
        }
    }
}

/// How often the detached calls are repeated, when that is not fixed.
#[derive(Clone, Debug, PartialEq)]
pub struct Iteration {
    /// From one iteration to the next.
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

/// A network, as its weights are made.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkSpec {
    /// Published name: weights are `inner.{name}.layers.0.…`.
    pub name: String,
    /// Blocks.
    pub layers: usize,
}

/// One supervision step of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Published names of the states, whose start vectors are `inner.{state}_init`: `H` is y, `L` is z.
    pub states: Vec<String>,
    /// The networks that calls apply.
    pub nets: Vec<NetworkSpec>,
    /// In the order they are made.
    pub calls: Vec<Call>,
    /// Detached cycles at the start that stop when the states have settled.
    pub iteration: Option<Iteration>,
    /// The state the heads read.
    pub answer: StateId,
    /// Halts when `q_halt > q_continue` even without the continue loss (specification, "Deep supervision", step 3).
    pub compares_q: bool,
}

impl Schedule {
    /// The calls of the configuration's recursion, which are recorded, and which are iterated.
    pub fn new(config: &ModelConfig) -> Self {
        let recursion = config.recursion();
        let calls: Vec<Call> = recursion.unrolled(config).into_iter().map(Call::from).collect();
        let nets = recursion.networks().iter();
        let nets = nets.map(|net| NetworkSpec { name: net.name.clone(), layers: net.layers.of(config) });
        let mut schedule = Self {
            states: recursion.states().iter().map(|state| state.name.clone()).collect(),
            nets: nets.collect(),
            calls,
            iteration: None,
            answer: StateId(recursion.answer() as u8),
            compares_q: recursion.compares_q(),
        };
        let last_cycle = recursion.n_last_cycle(config) as usize;
        match config.gradient {
            Gradient::FullCycle => schedule.record_last(last_cycle),
            Gradient::OneStep => schedule.record_last(2),
            Gradient::LastK => schedule.record_last(config.last_k),
            Gradient::Marked => {}
        }
        schedule.iteration = match config.fixed_point {
            FixedPoint::None => None,
            FixedPoint::Plain => Some(Method::Plain),
            FixedPoint::Anderson => Some(Method::Anderson),
        }
        .zip(recursion.first_cycle(config))
        .map(|(method, (cycle, passes))| {
            // The last cycle is left as it is even where only a part of it is recorded.
            let (cycle, passes) = (cycle as usize, passes as usize);
            let detached = schedule.calls.iter().position(|call| call.recorded).unwrap_or(0);
            let most = (passes - 1).min(detached / cycle);
            Iteration { method, cycle, most, tolerance: config.fixed_point_tolerance }
        });
        schedule
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

impl From<(&CallStep, bool)> for Call {
    /// The call of a recursion, and whether it is recorded.
    fn from((call, recorded): (&CallStep, bool)) -> Self {
        let source = |input: &Input| match *input {
            Input::State(state) => Source::State(StateId(state as u8)),
            Input::Question => Source::Question,
        };
        let inputs = call.inputs.iter().map(source).collect();
        Self { target: StateId(call.target as u8), net: call.network, inputs, recorded }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Arch, Config};

    #[test]
    fn what_is_recorded_and_iterated_is_counted_from_the_end_for_every_arch_and_setting() {
        let mut config = Config::default().model;
        let archs = [Arch::Trm, Arch::Hrm, Arch::Singlez, Arch::Hier6, Arch::Transformer, Arch::Direct];
        for (arch, t, n) in archs.into_iter().flat_map(|arch| [(arch, 1, 1), (arch, 2, 3), (arch, 5, 2)]) {
            (config.arch, config.h_cycles, config.l_cycles) = (arch, t, n);
            let one_call = matches!(arch, Arch::Transformer | Arch::Direct);
            let (calls, cycle) = if one_call { (1, 1) } else { (t * (n + 1), n + 1) };
            for (gradient, last_k, recorded) in [
                (Gradient::FullCycle, 1, cycle),
                (Gradient::OneStep, 1, calls.min(2)),
                (Gradient::LastK, 1, 1),
                (Gradient::LastK, calls, calls),
            ] {
                (config.gradient, config.last_k, config.fixed_point) = (gradient, last_k, FixedPoint::None);
                let schedule = Schedule::new(&config);
                let marks: Vec<bool> = schedule.calls.iter().map(|call| call.recorded).collect();
                let expected: Vec<bool> = (0..calls).map(|i| i + recorded >= calls).collect();
                assert_eq!(marks, expected, "{arch:?} {t} {n} {gradient:?}");
                assert_eq!(schedule.iteration, None);
                config.fixed_point = FixedPoint::Plain;
                let iteration = Schedule::new(&config).iteration.map(|iteration| (iteration.cycle, iteration.most));
                // Validated settings leave one cycle at least.
                let most = (calls - recorded.max(cycle)) / cycle;
                assert_eq!(iteration, (!one_call).then_some((cycle, most)), "{arch:?} {t} {n} {gradient:?}");
            }
        }
    }

    #[test]
    fn networks_of_different_depth_are_built_as_deep_as_they_are_said_to_be() {
        let sets = ["arch=hrm", "continue_loss=true", "n_layers=4", "h_layers=3", "l_layers=2"].map(str::to_owned);
        let config = Config::resolve(None, None, &sets).expect("settings");
        let model = super::super::Model::new(&config.model, &config.task);
        let depths: Vec<usize> = model.nets.iter().map(|net| net.blocks.len()).collect();
        assert_eq!(depths, [2, 3], "L_level, H_level");
        let has = |name: &str| model.layout.find(name).is_some();
        assert!(
            has("inner.L_level.layers.1.mlp.down_proj.weight") && has("inner.H_level.layers.2.mlp.down_proj.weight")
        );
        assert!(
            !has("inner.L_level.layers.2.mlp.down_proj.weight") && !has("inner.H_level.layers.3.mlp.down_proj.weight")
        );
        let flops = |net| super::super::network_flops(&model, net);
        assert_eq!(flops(1) / flops(0), 1.5);
    }
}

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
        let (rest, mut input) = (&self.schedule.calls[next..], None);
        for (i, call) in rest.iter().enumerate() {
            tape.set_recording(call.recorded && pass == Pass::Train);
            tape.set_detached(!call.recorded);
            input = self.call_between(tape, call, input, rest.get(i + 1), question, states);
            calls += 1;
        }
        tape.set_recording(pass == Pass::Train);
        tape.set_detached(false);
        RecursionOutput { calls, balance: tape.take_side_loss() }
    }

    /// `target ← net(Σ inputs)`.
    pub(super) fn call<D: Device>(&self, tape: &mut Tape<'_, D>, call: &Call, question: &Var, states: &mut States) {
        let sum = self.call_between(tape, call, None, None, question, states);
        debug_assert!(sum.is_none(), "nothing comes next");
    }

    /// The same where `input` is the sum, if the call before has made it. The value is the sum of the `next` call's inputs, if the
    /// device has made that on the way.
    fn call_between<D: Device>(
        &self,
        tape: &mut Tape<'_, D>,
        call: &Call,
        input: Option<Var>,
        next: Option<&Call>,
        question: &Var,
        states: &mut States,
    ) -> Option<Var> {
        let made = {
            let value_of = |source: &Source| match source {
                Source::State(id) => &states[id.index()],
                Source::Question => question,
            };
            let summands: ArrayVec<&Var, { MAX_STATES + 1 }> = call.inputs.iter().map(value_of).collect();
            let h = match input {
                Some(sum) => ops::add_made(tape, sum, &summands),
                None => ops::add(tape, &summands),
            };
            let rest = next.and_then(|next| {
                let (added, then) = next.added_to(call.target)?;
                // The next call replaces the state, and no backward pass reads it.
                let sum_alone = next.target == call.target && !tape.is_recording();
                Some(ops::Rest { added: value_of(added), then: then.map(value_of), sum_alone })
            });
            self.nets[call.net].forward_then_add(tape, h, rest.as_ref())
        };
        let outdated = std::mem::replace(&mut states[call.target.index()], made.value);
        tape.release(outdated);
        made.sum
    }

    /// Routers that a training step goes through with gradient.
    pub fn recorded_routers(&self) -> usize {
        let recorded = self.schedule.calls.iter().filter(|call| call.recorded);
        recorded.map(|call| self.nets[call.net].routers()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::initialize;
    use super::*;
    use crate::config::{Arch, Config, Gradient, ModelConfig};
    use crate::device::{Grads, Precision, Real, Reference};
    use crate::rng::Rng;
    use crate::tape::Memory;

    const SEQUENCES: usize = 2;

    /// States, gradients of weights and of what is given, after a supervision step whose sums are made ahead or not.
    fn step<D: Device>(model: &ModelConfig, precision: Precision, ahead: bool) -> Vec<Vec<f64>> {
        let mut config = Config::preset("sudoku-4x4").expect("there is one");
        config.model = model.clone();
        let model = Model::new(&config.model, &config.task);
        let params = initialize::<D>(&model, 1, precision);
        let (rows, mut rng) = (SEQUENCES * model.len, Rng::new(2));
        let mut draw = || (0..rows * model.hidden).map(|_| D::T::from_f64(rng.normal())).collect::<Vec<_>>();
        let mut memory = Memory::<D>::default();
        let mut tape = Tape::new(&mut memory, &params);
        let question = tape.leaf(rows, model.hidden, &draw());
        let starts: Vec<Var> = model.starts.iter().map(|_| tape.leaf(rows, model.hidden, &draw())).collect();
        let mut states: States = starts.iter().map(|start| ops::add(&mut tape, &[start])).collect();
        if ahead {
            model.recur(&mut tape, &question, &mut states, Pass::Train);
        } else {
            for call in &model.schedule.calls {
                tape.set_recording(call.recorded);
                tape.set_detached(!call.recorded);
                model.call(&mut tape, call, &question, &mut states);
            }
            tape.set_recording(true);
        }
        let answer = &states[model.schedule.answer.index()];
        let mut values = vec![tape.read(answer)];
        let mut grads = Grads::new(params.layout().clone());
        tape.backward(&[(answer, &draw())], &mut grads);
        values.push(grads.read());
        values.extend([&question].into_iter().chain(&starts).map(|leaf| tape.read_grad(leaf).unwrap_or_default()));
        values.into_iter().map(|values| values.into_iter().map(Real::to_f64).collect()).collect()
    }

    #[test]
    fn sums_made_ahead_change_nothing() {
        let config = Config::preset("sudoku-4x4").expect("there is one").model;
        let small = ModelConfig { hidden_size: 32, n_heads: 2, inner_multiple: 16, h_cycles: 2, l_cycles: 3, ..config };
        for arch in [Arch::Trm, Arch::Hrm, Arch::Singlez, Arch::Hier6] {
            for (gradient, last_k) in [(Gradient::FullCycle, 0), (Gradient::OneStep, 0), (Gradient::LastK, 2)] {
                let config = ModelConfig { arch, gradient, last_k, ..small.clone() };
                let [ahead, apart] = [true, false].map(|ahead| step::<Reference<f64>>(&config, Precision::F32, ahead));
                assert!(ahead == apart, "{arch:?}, {gradient:?}, {last_k}");
            }
        }
    }

    /// On the device that sums are made ahead for: nothing is rounded otherwise.
    #[cfg(cuda_twin)]
    #[test]
    fn sums_made_ahead_by_a_gpu_change_no_bit() {
        let config = Config::preset("sudoku-4x4").expect("there is one").model;
        let config = ModelConfig { hidden_size: 512, n_heads: 8, n_layers: 1, h_cycles: 2, l_cycles: 2, ..config };
        type D = crate::device::cuda::OnTwin;
        let [ahead, apart] = [true, false].map(|ahead| step::<D>(&config, Precision::Bf16, ahead));
        assert!(ahead == apart);
    }
}

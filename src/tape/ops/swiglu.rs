//! SwiGLU over features or over positions: `y = W_down (silu(g) ⊙ u)`, `[g; u] = W_gate_up x` (specification, "Block").
//!
//! W_gate_up is `[2·inner, in]`, W_down `[out, inner]`. Over features each row of x `[m, in]` is mapped; over positions (mlp_t)
//! each column of every sequence of x `[sequences·in, width]`. What the backward pass needs beside x is saved in the device's
//! own order; `dg = d·u·σ(g)(1 + g(1 − σ(g)))`, `du = d·g·σ(g)` with `d = W_downᵀ dy`.

use arrayvec::ArrayVec;

use super::add_rmsnorm::Norm;
use super::{Made, Operation, Rest};
use crate::device::{Block, Device, NormEpilogue, Over, ParamId, Store, SumEpilogue, SwiGlu, Usage};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::profile::{Cost, Sizes};
use crate::tape::{Backward, SlotId, Tape, Var};

/// One record for both axes; they are listed apart, for the profile and the gradient check.
#[derive(Clone, Copy)]
struct Record {
    x: SlotId,
    swiglu: SwiGlu,
    /// g and u before the activation, as the device keeps them.
    saved: SlotId,
    out: SlotId,
}

#[derive(Clone, Copy)]
pub(crate) struct OverFeatures(Record);

#[derive(Clone, Copy)]
pub(crate) struct OverPositions(Record);

/// `y = W_down (silu(g) ⊙ u)` for each row of x `[m, width]`.
pub fn swiglu<D: Device>(tape: &mut Tape<'_, D>, x: &Var, gate_up: ParamId, down: ParamId) -> Var {
    forward(tape, x, over_features(tape, gate_up, down), None)
}

/// `rmsnorm(h + swiglu(h))`: [`swiglu`] and [`add_rmsnorm`](super::add_rmsnorm()) as its epilogue; uses up h.
pub fn swiglu_add_rmsnorm<D: Device>(tape: &mut Tape<'_, D>, h: Var, gate_up: ParamId, down: ParamId) -> Var {
    let swiglu = over_features(tape, gate_up, down);
    residual(tape, h, swiglu)
}

/// The same, and its sum with `rest` where the device makes that in the same kernel.
pub fn swiglu_add_rmsnorm_then_add<D: Device>(
    tape: &mut Tape<'_, D>,
    h: Var,
    gate_up: ParamId,
    down: ParamId,
    rest: Option<&Rest<'_>>,
) -> Made {
    let swiglu = over_features(tape, gate_up, down);
    let read = tape.block(&h);
    let rest = rest.filter(|rest| {
        let blocks: ArrayVec<Block, 3> =
            [Some(rest.added), rest.then].into_iter().flatten().map(|var| tape.block(var)).chain([read]).collect();
        tape.device().fuses_sum(tape.params, swiglu, &blocks)
    });
    let Some(rest) = rest else {
        return Made { value: residual(tape, h, swiglu), sum: None };
    };
    let (rows, width) = tape.shape(&h);
    let norm = Norm::new(tape, h, swiglu.over);
    if rest.sum_alone {
        let sum = forward(tape, norm.h(), swiglu, Some((&norm, Some((rest, None)))));
        let sum = norm.push(tape, sum);
        assert!(!tape.needs_grad(&sum), "backward passes read the value");
        return Made { value: tape.without_memory(rows, width), sum: Some(sum) };
    }
    let sum = Var(tape.new_slot(rows, width, Store::Activation));
    let value = forward(tape, norm.h(), swiglu, Some((&norm, Some((rest, Some(&sum))))));
    Made { value: norm.push(tape, value), sum: Some(sum) }
}

/// `Y = W_down (silu(G) ⊙ U)` for each sequence of x `[sequences·len, width]`; len is the weights' width.
pub fn swiglu_over_positions<D: Device>(tape: &mut Tape<'_, D>, x: &Var, gate_up: ParamId, down: ParamId) -> Var {
    forward(tape, x, over_positions(tape, x, gate_up, down), None)
}

/// `rmsnorm(h + swiglu_over_positions(h))`, the norm over positions; uses up h.
pub fn swiglu_add_rmsnorm_over_positions<D: Device>(
    tape: &mut Tape<'_, D>,
    h: Var,
    gate_up: ParamId,
    down: ParamId,
) -> Var {
    let swiglu = over_positions(tape, &h, gate_up, down);
    residual(tape, h, swiglu)
}

fn over_features<D: Device>(tape: &Tape<'_, D>, gate_up: ParamId, down: ParamId) -> SwiGlu {
    SwiGlu { gate_up, down, over: Over::Features, width: tape.params.shape(gate_up).1 }
}

fn over_positions<D: Device>(tape: &Tape<'_, D>, x: &Var, gate_up: ParamId, down: ParamId) -> SwiGlu {
    let ((rows, width), (len, _)) = (tape.shape(x), tape.params.shape(down));
    assert!(rows.is_multiple_of(len) && tape.params.shape(gate_up).1 == len, "rows are whole sequences");
    SwiGlu { gate_up, down, over: Over::Positions(len), width }
}

fn residual<D: Device>(tape: &mut Tape<'_, D>, h: Var, swiglu: SwiGlu) -> Var {
    let norm = Norm::new(tape, h, swiglu.over);
    let y = forward(tape, norm.h(), swiglu, Some((&norm, None)));
    norm.push(tape, y)
}

/// What comes after the product: a norm, and perhaps a sum, which has memory of its own or takes the result's.
type After<'a> = (&'a Norm, Option<(&'a Rest<'a>, Option<&'a Var>)>);

fn forward<D: Device>(tape: &mut Tape<'_, D>, x: &Var, swiglu: SwiGlu, after: Option<After<'_>>) -> Var {
    let (rows, width) = tape.shape(x);
    let (x_block, recorded) = (tape.block(x), tape.records(&[x.0], true));
    let saved_len = match recorded {
        true => tape.memory.device.swiglu_saved_len(tape.params, swiglu, x_block.len()),
        false => 0,
    };
    let (saved, saved_block) = tape.new_value(1, saved_len, Store::Activation);
    let n_out = if swiglu.over == Over::Features { tape.params.shape(swiglu.down).0 } else { width };
    let (out, y) = tape.new_value(rows, n_out, Store::Activation);
    let epilogue = after.map(|(norm, rest)| {
        let sum = rest.map(|(rest, sum)| SumEpilogue {
            added: tape.block(rest.added),
            then: rest.then.map(|var| tape.block(var)),
            out: sum.map_or(y, |sum| tape.block(sum)),
        });
        NormEpilogue { sum, ..norm.epilogue(tape) }
    });
    tape.memory.device.swiglu(tape.params, swiglu, x_block, recorded.then_some(saved_block), y, epilogue);
    let record = Record { x: x.0, swiglu, saved, out };
    match swiglu.over {
        Over::Features => tape.push(out, recorded, &[x.0], &[saved], OverFeatures(record)),
        Over::Positions(_) => tape.push(out, recorded, &[x.0], &[saved], OverPositions(record)),
    }
}

impl Record {
    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let (dy, saved, x) = (pass.grad_out(self.out), pass.value(self.saved), pass.value(self.x));
        let dx = match self.swiglu.over {
            Over::Features => pass.grad_through_norm(self.x, &[self.swiglu.gate_up, self.swiglu.down], &[x, dy]),
            Over::Positions(_) => pass.grad_to(self.x),
        };
        pass.memory.device.swiglu_backward(pass.params, pass.grads, self.swiglu, dy, saved, x, dx);
        pass.release_saved(self.saved);
    }

    fn cost<D: Device>(&self, sizes: &Sizes<'_, D>) -> Cost {
        sizes.swiglu(self.swiglu, self.x, self.out)
    }
}

/// The gradient terms of either axis.
const TERMS: &[&str] = &["gate", "up", "weight"];

impl Operation for OverFeatures {
    const NAME: &'static str = "swiglu";
    const TERMS: &'static [&'static str] = TERMS;

    fn output(&self) -> SlotId {
        self.0.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        self.0.backward(pass);
    }

    fn cost<D: Device>(&self, sizes: &Sizes<'_, D>) -> Cost {
        self.0.cost(sizes)
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [m, width, inner] = Sample::<D>::sizes(rng, [5, 7, 9]);
        let mut sample = Sample::new("");
        let gate_up = sample.param(rng, 2 * inner, width, Usage::GateUpRows);
        let down = sample.param(rng, width, inner, Usage::DownRows);
        sample.input(rng, m, width);
        vec![sample.run(move |tape, inputs| vec![swiglu(tape, &inputs[0], gate_up, down)])]
    }
}

impl Operation for OverPositions {
    const NAME: &'static str = "swiglu over positions";
    const TERMS: &'static [&'static str] = TERMS;

    fn output(&self) -> SlotId {
        self.0.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        self.0.backward(pass);
    }

    fn cost<D: Device>(&self, sizes: &Sizes<'_, D>) -> Cost {
        self.0.cost(sizes)
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [sequences, len, width, inner] = Sample::<D>::sizes(rng, [3, 5, 5, 7]);
        let mut sample = Sample::new("");
        let gate_up = sample.param(rng, 2 * inner, len, Usage::GateUpCols);
        let down = sample.param(rng, len, inner, Usage::Cols);
        sample.input(rng, sequences * len, width);
        vec![sample.run(move |tape, inputs| vec![swiglu_over_positions(tape, &inputs[0], gate_up, down)])]
    }
}

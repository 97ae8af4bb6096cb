//! SwiGLU over features or over positions: `y = W_down (silu(g) ⊙ u)`, `[g; u] = W_gate_up x` (specification, "Block").
//!
//! W_gate_up is `[2·inner, in]`, W_down `[out, inner]`. Over features each row of x `[m, in]` is mapped; over positions (mlp_t)
//! each column of every sequence of x `[sequences·in, width]`. What the backward pass needs beside x is saved in the device's
//! own order; `dg = d·u·σ(g)(1 + g(1 − σ(g)))`, `du = d·g·σ(g)` with `d = W_downᵀ dy`.

use super::Operation;
use super::add_rmsnorm::Norm;
use crate::device::{Device, Over, ParamId, Store, SwiGlu, Usage};
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
    let y = forward(tape, norm.h(), swiglu, Some(&norm));
    norm.push(tape, y)
}

fn forward<D: Device>(tape: &mut Tape<'_, D>, x: &Var, swiglu: SwiGlu, norm: Option<&Norm>) -> Var {
    let (rows, width) = tape.shape(x);
    let (x_block, recorded) = (tape.block(x), tape.records(&[x.0], true));
    let saved_len = match recorded {
        true => tape.memory.device.swiglu_saved_len(tape.params, swiglu, x_block.len()),
        false => 0,
    };
    let (saved, saved_block) = tape.new_value(1, saved_len, Store::Activation);
    let n_out = if swiglu.over == Over::Features { tape.params.shape(swiglu.down).0 } else { width };
    let (out, y) = tape.new_value(rows, n_out, Store::Activation);
    let epilogue = norm.map(|norm| norm.epilogue(tape));
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
        let down = sample.param(rng, width, inner, Usage::Rows);
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

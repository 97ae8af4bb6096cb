//! Residual + RMSNorm: `y = rmsnorm(h + x)`, over features (rows) or over positions (columns of a sequence).
//!
//! `rmsnorm(v) = v·r`, `r = (mean v² + 1e-5)^(−1/2)` (specification, "Block"). With y and r saved,
//! `dv = r (dy − y · mean(dy·y))`, the same for h and x. The result takes x's memory.

use super::Operation;
use crate::device::{Device, NormEpilogue, Over, Store};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct AddRmsNorm {
    h: SlotId,
    /// The branch on entry, the result on exit.
    x: SlotId,
    /// One factor r per row, or per column of a sequence.
    inv_rms: SlotId,
    over: Over,
    /// The gradient has come through the norm before this backward pass.
    is_passed: bool,
}

impl AddRmsNorm {
    /// For the operation that adds the last to the gradient of what this one made, if that is `y`, and sends it on through the norm
    /// itself. The value is where the norm's factors are.
    pub fn pass_over(&mut self, y: SlotId) -> Option<SlotId> {
        self.is_passed = self.x == y && self.over == Over::Features;
        self.is_passed.then_some(self.inv_rms)
    }
}

/// `rmsnorm(h + x)` over the features of each row; uses up both.
pub fn add_rmsnorm<D: Device>(tape: &mut Tape<'_, D>, h: Var, x: Var) -> Var {
    normalize(tape, h, x, Over::Features)
}

/// `rmsnorm(h + x)` over the `len` positions of each sequence, for every feature; uses up both.
pub fn add_rmsnorm_over_positions<D: Device>(tape: &mut Tape<'_, D>, h: Var, x: Var, len: usize) -> Var {
    normalize(tape, h, x, Over::Positions(len))
}

fn normalize<D: Device>(tape: &mut Tape<'_, D>, h: Var, x: Var, over: Over) -> Var {
    let (_, width) = tape.shape(&x);
    let norm = Norm::new(tape, h, over);
    let (block, NormEpilogue { h, inv_rms, .. }) = (tape.overwritten(&x), norm.epilogue(tape));
    tape.memory.device.add_rmsnorm(over, width, h, block, inv_rms);
    norm.push(tape, x)
}

/// A residual h, and room for the norm's factors, while some kernel makes `rmsnorm(h + x)`.
pub(super) struct Norm {
    h: Var,
    inv_rms: SlotId,
    over: Over,
}

impl Norm {
    /// Uses up h.
    pub fn new<D: Device>(tape: &mut Tape<'_, D>, h: Var, over: Over) -> Self {
        let (rows, width) = tape.shape(&h);
        let inv_rms = match over {
            Over::Features => tape.new_slot(rows, 1, Store::Exact),
            Over::Positions(len) => tape.new_slot(rows / len, width, Store::Exact),
        };
        Self { h, inv_rms, over }
    }

    /// The residual, which the kernel's input may be as well.
    pub fn h(&self) -> &Var {
        &self.h
    }

    /// For the kernel.
    pub fn epilogue<D: Device>(&self, tape: &Tape<'_, D>) -> NormEpilogue {
        NormEpilogue::new(tape.block(&self.h), tape.value_block(self.inv_rms))
    }

    /// Remembers that x has become `rmsnorm(h + x)`; uses up both.
    pub fn push<D: Device>(self, tape: &mut Tape<'_, D>, x: Var) -> Var {
        let Self { h, inv_rms, over } = self;
        assert_eq!(tape.shape(&h), tape.shape(&x), "both summands have one shape");
        let recorded = tape.records(&[h.0, x.0], false);
        let op = AddRmsNorm { h: h.0, x: x.0, inv_rms, over, is_passed: false };
        tape.release(h);
        tape.push(x.0, recorded, &[x.0], &[inv_rms], op)
    }
}

impl Operation for AddRmsNorm {
    const NAME: &'static str = "add + rmsnorm";
    const TERMS: &'static [&'static str] = &["projection", "copy"];
    const CREATES_OUTPUT: bool = false;

    fn output(&self) -> SlotId {
        self.x
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let width = pass.slot(self.x).cols;
        let (y, inv_rms, grad) = (pass.value(self.x), pass.value(self.inv_rms), pass.grad_out(self.x));
        if !self.is_passed {
            pass.memory.device.rmsnorm_backward(self.over, width, y, inv_rms, grad);
        }
        pass.lend_grad(self.x, self.h);
        pass.release_saved(self.inv_rms);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        [false, true]
            .map(|over_positions| {
                let [sequences, len, width] = Sample::<D>::sizes(rng, [3, 5, 7]);
                let mut sample = Sample::new(if over_positions { "over positions" } else { "" });
                let rows = sequences * (len + 1);
                let width = width + 1;
                sample.input(rng, rows, width);
                sample.input(rng, rows, width);
                sample.run(move |tape, mut inputs| {
                    let (h, x) = (inputs.remove(0), super::add(tape, &[&inputs[0]]));
                    vec![match over_positions {
                        false => add_rmsnorm(tape, h, x),
                        true => add_rmsnorm_over_positions(tape, h, x, len + 1),
                    }]
                })
            })
            .into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::*;
    use super::{add_rmsnorm, add_rmsnorm_over_positions};
    use crate::device::{Cpu, Grads, Layout, ParamId, Params, Usage};
    use crate::rng::Rng;
    use crate::simd::{Isa, Precision};
    use crate::tape::{Memory, Tape, Var};

    const LEN: usize = 19;
    const WIDTH: usize = 45;
    const INNER: usize = 40;

    /// What a block of the network computes, and its gradients, to the bit; recorded or not.
    fn run(
        precision: Precision,
        recorded: bool,
        block: impl Fn(&mut Tape<'_, Cpu<f32>>, Var, [ParamId; 5]) -> Var,
    ) -> (Vec<u32>, Vec<u32>) {
        let mut layout = Layout::default();
        let weights = [
            layout.push("linear", WIDTH, WIDTH, Usage::Rows),
            layout.push("gate_up", 2 * INNER, WIDTH, Usage::GateUpRows),
            layout.push("down", WIDTH, INNER, Usage::DownRows),
            layout.push("mlp_t.gate_up", 2 * INNER, LEN, Usage::GateUpCols),
            layout.push("mlp_t.down", LEN, INNER, Usage::Cols),
        ];
        let mut rng = Rng::new(5);
        let mut draw = |n: usize| (0..n).map(|_| rng.normal() as f32).collect::<Vec<_>>();
        let mut params = Params::<Cpu<f32>>::with_formats(Arc::new(layout), precision);
        params.update(|values| values.copy_from_slice(&draw(values.len())));
        let rows = 3 * LEN;
        let (x, d) = (draw(rows * WIDTH), draw(rows * WIDTH));
        let mut memory = Memory::default();
        let mut tape = Tape::new(&mut memory, &params);
        let leaf = tape.leaf(rows, WIDTH, &x);
        let h = add(&mut tape, &[&leaf]);
        tape.set_recording(recorded);
        let y = block(&mut tape, h, weights);
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        let value = bits(tape.value(&y));
        let mut grads = Grads::new(params.layout().clone());
        if recorded {
            tape.backward(&[(&y, &d)], &mut grads);
        }
        let mut all = bits(grads.values());
        all.extend(tape.grad(&leaf).map(bits).unwrap_or_default());
        (value, all)
    }

    #[test]
    fn one_kernel_is_the_operation_and_then_the_norm_to_the_bit() {
        type Block = fn(&mut Tape<'_, Cpu<f32>>, Var, [ParamId; 5]) -> Var;
        let pairs: [(Block, Block); 3] = [
            (
                |tape, h, [w, ..]| {
                    let x = add(tape, &[&h]);
                    let y = linear(tape, &x, w, None);
                    add_rmsnorm(tape, h, y)
                },
                |tape, h, [w, ..]| {
                    let x = add(tape, &[&h]);
                    linear_add_rmsnorm(tape, &x, w, h)
                },
            ),
            (
                |tape, h, [_, gate_up, down, ..]| {
                    let y = swiglu(tape, &h, gate_up, down);
                    add_rmsnorm(tape, h, y)
                },
                |tape, h, [_, gate_up, down, ..]| swiglu_add_rmsnorm(tape, h, gate_up, down),
            ),
            (
                |tape, h, [.., gate_up, down]| {
                    let y = swiglu_over_positions(tape, &h, gate_up, down);
                    add_rmsnorm_over_positions(tape, h, y, LEN)
                },
                |tape, h, [.., gate_up, down]| swiglu_add_rmsnorm_over_positions(tape, h, gate_up, down),
            ),
        ];
        for isa in Isa::available() {
            for precision in [Precision::F32, Precision::Bf16] {
                for recorded in [false, true] {
                    for (i, (apart, together)) in pairs.iter().enumerate() {
                        isa.run(|| {
                            let (apart, together) =
                                (run(precision, recorded, apart), run(precision, recorded, together));
                            assert!(apart == together, "{isa}, {precision:?}, recorded {recorded}, pair {i}");
                        });
                    }
                }
            }
        }
    }
}

//! Sum of values: `y = a + b + …`. Backward: the gradient goes to every summand.

use arrayvec::ArrayVec;

use super::Operation;
use crate::device::{Block, Device};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

/// Most summands one call takes: seven states and the question.
const MAX_SUMMANDS: usize = 8;

#[derive(Clone, Copy)]
pub(crate) struct Add {
    summands: [SlotId; MAX_SUMMANDS],
    count: usize,
    out: SlotId,
}

/// `a + b + …` of one to eight values of one shape.
pub fn add<D: Device>(tape: &mut Tape<'_, D>, summands: &[&Var]) -> Var {
    let first = summands.first().expect("a sum of something");
    let (rows, cols) = tape.shape(first);
    assert!(summands.iter().all(|var| tape.shape(var) == (rows, cols)), "all summands have one shape");
    let mut slots = [first.0; MAX_SUMMANDS];
    let blocks: ArrayVec<Block, MAX_SUMMANDS> = summands.iter().map(|var| tape.block(var)).collect();
    slots.iter_mut().zip(summands).for_each(|(slot, var)| *slot = var.0);
    let (out, y) = tape.new_value(rows, cols, tape.store(first));
    tape.memory.device.sum(&blocks, y);
    let recorded = tape.records(&slots[..summands.len()], false);
    tape.push(out, recorded, &[], &[], Add { summands: slots, count: summands.len(), out })
}

impl Operation for Add {
    const NAME: &'static str = "add";
    const TERMS: &'static [&'static str] = &["copy", "axpy"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let (d_out, mut heir) = (pass.grad_out(self.out), None);
        for &summand in &self.summands[..self.count] {
            if heir.is_none() && pass.needs_first_grad(summand) {
                heir = Some(summand);
            } else {
                pass.add_to_grad(d_out, summand);
            }
        }
        if let Some(heir) = heir {
            pass.give_grad(self.out, heir);
        }
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [rows, cols, count] = Sample::<D>::sizes(rng, [5, 7, MAX_SUMMANDS - 1]);
        let mut sample = Sample::new("");
        for _ in 0..count {
            sample.input(rng, rows, cols);
        }
        vec![sample.run(|tape, inputs| {
            let twice = std::iter::once(&inputs[0]);
            vec![add(tape, &inputs.iter().chain(twice).collect::<Vec<_>>())]
        })]
    }
}

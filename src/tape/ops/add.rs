//! Sum of values: `y = a + b + …`. Backward: the gradient goes to every summand.
//!
//! The kernel that makes one of the summands may make the sum as well, or the sum alone ([`Rest`]).

use arrayvec::ArrayVec;

use super::Operation;
use crate::device::{Block, Device};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::profile::{Cost, Sizes};
use crate::tape::{Backward, SlotId, Tape, Var};

/// Most summands one call takes: seven states and the question.
const MAX_SUMMANDS: usize = 8;

#[derive(Clone, Copy)]
pub(crate) struct Add {
    summands: [SlotId; MAX_SUMMANDS],
    count: usize,
    out: SlotId,
    /// By the kernel that made a summand.
    is_made: bool,
}

/// What is added to a value that is about to be made, for the sum that is next.
pub struct Rest<'a> {
    /// Of the value's shape.
    pub added: &'a Var,
    /// What is added then.
    pub then: Option<&'a Var>,
    /// Whether nobody reads the value, but only the sum.
    pub sum_alone: bool,
}

/// A value, and the sum of it and its [`Rest`] where the device has made that on the way.
pub struct Made {
    /// The value; it has no memory where only the sum was asked for and has been made.
    pub value: Var,
    /// For [`add_made`].
    pub sum: Option<Var>,
}

/// `a + b + …` of one to eight values of one shape.
pub fn add<D: Device>(tape: &mut Tape<'_, D>, summands: &[&Var]) -> Var {
    let first = summands.first().expect("a sum of something");
    let (rows, cols) = tape.shape(first);
    let blocks: ArrayVec<Block, MAX_SUMMANDS> = summands.iter().map(|var| tape.block(var)).collect();
    let (out, y) = tape.new_value(rows, cols, tape.store(first));
    tape.memory.device.sum(&blocks, y);
    push(tape, summands, out, false)
}

/// The same where a kernel has made the sum ([`Made::sum`]).
pub fn add_made<D: Device>(tape: &mut Tape<'_, D>, sum: Var, summands: &[&Var]) -> Var {
    push(tape, summands, sum.0, true)
}

fn push<D: Device>(tape: &mut Tape<'_, D>, summands: &[&Var], out: SlotId, is_made: bool) -> Var {
    let shape = tape.shape(&Var(out));
    assert!(summands.iter().all(|var| tape.shape(var) == shape), "all summands have one shape");
    let mut slots = [out; MAX_SUMMANDS];
    slots.iter_mut().zip(summands).for_each(|(slot, var)| *slot = var.0);
    let recorded = tape.records(&slots[..summands.len()], false);
    tape.push(out, recorded, &[], &[], Add { summands: slots, count: summands.len(), out, is_made })
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

    fn cost<D: Device>(&self, sizes: &Sizes<'_, D>) -> Cost {
        if self.is_made { Cost::default() } else { sizes.elementwise(self.out) }
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

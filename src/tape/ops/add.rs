//! Sum of values: `y = a + b + …`. Backward: the gradient goes to every summand.

use super::Operation;
use crate::rng::Rng;
use crate::simd::{self, Real};
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

/// Most summands one call takes: six latents, the answer and the question (SPEC "hier6").
const MAX_SUMMANDS: usize = 8;

#[derive(Clone, Copy)]
pub(crate) struct Add {
    summands: [SlotId; MAX_SUMMANDS],
    count: usize,
    out: SlotId,
}

/// `a + (b + …)`, summed from the right, of one to eight values of one shape.
pub fn add<T: Real>(tape: &mut Tape<'_, T>, summands: &[&Var]) -> Var {
    let (first, rest) = summands.split_first().expect("a sum of something");
    let mut slots = [first.0; MAX_SUMMANDS];
    let (rows, cols) = tape.shape(first);
    let out = tape.new_slot(rows, cols);
    for (slot, var) in slots.iter_mut().zip(summands) {
        assert_eq!(tape.shape(var), (rows, cols), "all summands have one shape");
        *slot = var.0;
    }
    assert!(summands.len() <= MAX_SUMMANDS, "at most {MAX_SUMMANDS} summands");
    let out_block = tape.value_block(out);
    let copy_of_first = match rest.split_last() {
        None => first,
        Some((last, _)) => last,
    };
    let ([a], [y]) = tape.memory.arena.split([tape.value_block(copy_of_first.0)], [out_block]);
    y.copy_from_slice(a);
    for var in summands.iter().rev().skip(1) {
        let ([a], [y]) = tape.memory.arena.split([tape.value_block(var.0)], [out_block]);
        simd::add_assign(y, a);
    }
    let recorded = tape.records(&slots[..summands.len()], false);
    tape.push(out, recorded, Add { summands: slots, count: summands.len(), out })
}

impl Operation for Add {
    const NAME: &'static str = "add";
    const TERMS: &'static [&'static str] = &["summand"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let d_out = pass.grad_out(self.out);
        let factor = pass.factor("summand");
        for &summand in &self.summands[..self.count] {
            pass.pass_on(factor, d_out, summand);
        }
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let [rows, cols, count] = Sample::sizes(rng, [5, 7, MAX_SUMMANDS]);
        let mut sample = Sample::new("");
        for _ in 0..count {
            sample.input(rng, rows, cols);
        }
        vec![sample.run(|tape, inputs| vec![add(tape, &inputs.iter().collect::<Vec<_>>())])]
    }
}

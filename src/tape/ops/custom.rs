//! An operation from outside of the crate: what it computes is a trait object, what the tape keeps of it is not.
//!
//! ```
//! use std::sync::Arc;
//! use trm::device::{Block, Cpu, HostDevice, Real};
//! use trm::rng::Rng;
//! use trm::tape::gradcheck::Sample;
//! use trm::tape::ops::{self, CustomGradients, CustomOperation};
//!
//! /// y = x³, element by element.
//! struct Cube;
//!
//! impl<D: HostDevice> CustomOperation<D> for Cube {
//!     fn name(&self) -> &'static str {
//!         "cube"
//!     }
//!
//!     fn forward(&self, device: &mut D, inputs: &[Block], output: Block) {
//!         let ([x], [y]) = device.slices([inputs[0]], [output]);
//!         y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * x * x);
//!     }
//!
//!     fn backward(&self, device: &mut D, pass: &CustomGradients<'_>) {
//!         let Some(d_x) = pass.d_inputs[0] else { return };
//!         let ([x, dy], [dx]) = device.slices([pass.inputs[0], pass.d_output], [d_x]);
//!         for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
//!             *dx += D::T::from_f64(3.0) * x * x * dy;
//!         }
//!     }
//! }
//!
//! let rng = &mut Rng::new(1);
//! let mut sample = Sample::<Cpu<f64>>::new("cube");
//! sample.input(rng, 3, 4);
//! let sample = sample.run(|tape, inputs| vec![ops::custom(tape, Arc::new(Cube), &[&inputs[0]], (3, 4))]);
//! assert!(sample.worst_error(rng) < 1e-6);
//! ```

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::Operation;
use crate::device::{Block, Device, Store};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

/// Most inputs of a custom operation.
const MAX_INPUTS: usize = 4;

/// What an operation from outside computes on a device. The formula of one row of its output may read all inputs.
pub trait CustomOperation<D: Device>: Send + Sync {
    /// The name under which profiles list it.
    fn name(&self) -> &'static str;

    /// Writes the output, whose contents are arbitrary.
    fn forward(&self, device: &mut D, inputs: &[Block], output: Block);

    /// Adds to the gradients of the inputs.
    fn backward(&self, device: &mut D, pass: &CustomGradients<'_>);
}

/// What the backward pass of a custom operation works with.
pub struct CustomGradients<'a> {
    /// The inputs of the forward pass.
    pub inputs: &'a [Block],
    /// Its output.
    pub output: Block,
    /// The gradient that arrived at the output, to be read only.
    pub d_output: Block,
    /// The gradients of the inputs, to be added to; `None` where none is needed.
    pub d_inputs: &'a [Option<Block>],
}

#[derive(Clone, Copy)]
pub(crate) struct Custom {
    /// Which of the tape's.
    index: usize,
    inputs: [SlotId; MAX_INPUTS],
    count: usize,
    out: SlotId,
}

/// The output `[rows, cols]` of an operation of one's own on up to four inputs. All of them, and the output, are kept for the
/// backward pass.
pub fn custom<D: Device>(
    tape: &mut Tape<'_, D>,
    operation: Arc<dyn CustomOperation<D>>,
    inputs: &[&Var],
    (rows, cols): (usize, usize),
) -> Var {
    let first = inputs.first().expect("an input at least");
    assert!(inputs.len() <= MAX_INPUTS, "at most {MAX_INPUTS} inputs");
    let mut slots = [first.0; MAX_INPUTS];
    slots.iter_mut().zip(inputs).for_each(|(slot, var)| *slot = var.0);
    let blocks: ArrayVec<Block, MAX_INPUTS> = inputs.iter().map(|var| tape.block(var)).collect();
    let (out, y) = tape.new_value(rows, cols, Store::Exact);
    operation.forward(&mut tape.memory.device, &blocks, y);
    let recorded = tape.records(&slots[..inputs.len()], false);
    let index = tape.memory.customs.len();
    if recorded {
        tape.memory.customs.push(operation);
    }
    let reads: ArrayVec<SlotId, { MAX_INPUTS + 1 }> = inputs.iter().map(|var| var.0).chain([out]).collect();
    tape.push(out, recorded, &reads, &[], Custom { index, inputs: slots, count: inputs.len(), out })
}

impl Operation for Custom {
    const NAME: &'static str = "custom operation";
    const TERMS: &'static [&'static str] = &[];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        let slots = &self.inputs[..self.count];
        let inputs: ArrayVec<Block, MAX_INPUTS> = slots.iter().map(|&id| pass.value(id)).collect();
        let d_inputs: ArrayVec<Option<Block>, MAX_INPUTS> = slots.iter().map(|&id| pass.grad_in(id)).collect();
        let (output, d_output) = (pass.value(self.out), pass.grad_out(self.out));
        let operation = pass.memory.customs[self.index].clone();
        let gradients = CustomGradients { inputs: &inputs, output, d_output, d_inputs: &d_inputs };
        operation.backward(&mut pass.memory.device, &gradients);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let [rows, cols] = Sample::<D>::sizes(rng, [5, 7]);
        let mut sample = Sample::new("");
        sample.input(rng, rows, cols);
        sample.input(rng, rows, cols);
        vec![sample.run(move |tape, inputs| {
            let (a, b) = (&inputs[0], &inputs[1]);
            let product = custom(tape, Arc::new(Product), &[a, b], (rows, cols));
            vec![custom(tape, Arc::new(Product), &[&product, a], (rows, cols))]
        })]
    }
}

/// `y = a ⊙ b` on the host, for the gradient check.
struct Product;

impl<D: Device> CustomOperation<D> for Product {
    fn name(&self) -> &'static str {
        "product"
    }

    fn forward(&self, device: &mut D, inputs: &[Block], output: Block) {
        let [a, b] = [inputs[0], inputs[1]].map(|block| device.read(block));
        let product: Vec<D::T> = a.into_iter().zip(b).map(|(a, b)| a * b).collect();
        device.upload(&product, output);
    }

    fn backward(&self, device: &mut D, pass: &CustomGradients<'_>) {
        for (own, other) in [(0, 1), (1, 0)] {
            let Some(d_own) = pass.d_inputs[own] else { continue };
            let [dy, other, d] = [pass.d_output, pass.inputs[other], d_own].map(|block| device.read(block));
            let sum: Vec<D::T> = d.into_iter().zip(dy.into_iter().zip(other)).map(|(d, (a, b))| d + a * b).collect();
            device.upload(&sum, d_own);
        }
    }
}

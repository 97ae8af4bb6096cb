//! An operation of one's own: y = x·tanh(x), with its backward pass, and the check that the two belong together.

use std::sync::Arc;

use trm::device::{Block, Cpu, HostDevice, Real, Reference};
use trm::rng::Rng;
use trm::tape::gradcheck::{Sample, TOLERANCE};
use trm::tape::ops::{self, CustomGradients, CustomOperation};

/// y = x·tanh(x), element by element; `dx = dy (tanh x + x (1 − tanh² x))`.
struct XTanhX;

fn tanh<T: Real>(x: T) -> T {
    let e = (x + x).exp();
    (e - T::ONE) / (e + T::ONE)
}

impl<D: HostDevice> CustomOperation<D> for XTanhX {
    fn name(&self) -> &'static str {
        "x tanh x"
    }

    fn forward(&self, device: &mut D, inputs: &[Block], output: Block) {
        let ([x], [y]) = device.slices([inputs[0]], [output]);
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x * tanh(x));
    }

    fn backward(&self, device: &mut D, pass: &CustomGradients<'_>) {
        let Some(d_x) = pass.d_inputs[0] else { return };
        let ([x, dy], [dx]) = device.slices([pass.inputs[0], pass.d_output], [d_x]);
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            let t = tanh(x);
            *dx += dy * (t + x * (D::T::ONE - t * t));
        }
    }
}

/// The worst relative error of the operation's gradient behind a sum, against central differences.
fn check<D: HostDevice<T = f64>>() -> f64 {
    let rng = &mut Rng::new(7);
    let mut sample = Sample::<D>::new("x tanh x");
    sample.input(rng, 5, 9);
    let sample = sample.run(|tape, inputs| {
        let y = ops::custom(tape, Arc::new(XTanhX), &[&inputs[0]], (5, 9));
        vec![ops::add(tape, &[&y, &inputs[0]])]
    });
    sample.worst_error(rng)
}

fn main() {
    for (device, error) in [("cpu", check::<Cpu<f64>>()), ("reference", check::<Reference<f64>>())] {
        println!("{device:10} worst error {error:.1e}");
        assert!(error < TOLERANCE);
    }
}

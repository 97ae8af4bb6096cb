//! Gradients against central differences, in f64: the reason to believe the rest.
//!
//! A [`Sample`] is a small function of inputs and weights. Its outputs are weighted with random numbers into one
//! scalar; the tape's gradient of that scalar is compared with the five-point difference
//! `(−f(x+2h) + 8f(x+h) − 8f(x−h) + f(x−2h)) / 12h`, whose error h⁴ is far below the bound; h is halved where it is not.

use std::sync::Arc;

use super::ops::Entry;
use super::{Memory, Tape, Var};
use crate::device::reference::fault;
use crate::device::{Device, Grads, Layout, ParamId, Params, Usage};
use crate::rng::Rng;

/// The bound every check must keep.
pub const TOLERANCE: f64 = 1e-6;

/// Gradients smaller than this are compared as if they were this large: rounding in f(x±h) ends there.
const FLOOR: f64 = 1e-3;

/// The first step of a difference, and how often it may be halved.
const STEP: f64 = 2e-4;
const HALVINGS: usize = 12;

/// Coordinates of each tensor that are checked, drawn at random; smaller tensors are checked whole.
const COORDINATES: usize = 24;

/// The same of a tensor whose whole gradient is said to be zero, as that of a head is in a check of the recursion alone: one of
/// them that is not is enough.
const COORDINATES_OF_ZEROS: usize = 6;

type Function<D> = dyn Fn(&mut Tape<'_, D>, Vec<Var>) -> Vec<Var>;

/// A random small problem: inputs, weights, and the function of them whose gradient is checked.
pub struct Sample<D: Device<T = f64>> {
    /// What is special about it, for the table; may be empty.
    pub label: &'static str,
    layout: Layout,
    weights: Vec<Vec<f64>>,
    inputs: Vec<(usize, usize, Vec<f64>)>,
    function: Box<Function<D>>,
}

impl<D: Device<T = f64>> Sample<D> {
    /// A problem without inputs, weights or function yet.
    pub fn new(label: &'static str) -> Self {
        Self {
            label,
            layout: Layout::default(),
            weights: Vec::new(),
            inputs: Vec::new(),
            function: Box::new(|_, inputs| inputs),
        }
    }

    /// Random sizes in `1..=max`, one for each given maximum.
    pub fn sizes<const N: usize>(rng: &mut Rng, max: [usize; N]) -> [usize; N] {
        max.map(|max| 1 + rng.below(max))
    }

    /// Adds a weight with standard normal values.
    pub fn param(&mut self, rng: &mut Rng, rows: usize, cols: usize, usage: Usage) -> ParamId {
        self.weights.push((0..rows * cols).map(|_| rng.normal()).collect());
        self.layout.push(format!("weight {}", self.weights.len()), rows, cols, usage)
    }

    /// Takes over a whole model: its layout and weights.
    pub fn model(&mut self, params: &Params<D>) {
        self.layout = (**params.layout()).clone();
        self.weights = self.layout.tensors().iter().map(|t| params.values()[t.range()].to_vec()).collect();
    }

    /// Adds an input with standard normal values.
    pub fn input(&mut self, rng: &mut Rng, rows: usize, cols: usize) {
        self.inputs.push((rows, cols, (0..rows * cols).map(|_| rng.normal()).collect()));
    }

    /// The values of an input, if there is one of that number.
    pub fn input_values(&self, index: usize) -> Option<&[f64]> {
        self.inputs.get(index).map(|(_, _, values)| values.as_slice())
    }

    /// Moves input values at least `distance` away from zero, for functions that bend there.
    pub fn keep_inputs_from_zero(&mut self, distance: f64) {
        for x in self.inputs.iter_mut().flat_map(|(_, _, values)| values) {
            *x += distance.copysign(*x);
        }
    }

    /// Sets the function.
    pub fn run(mut self, function: impl Fn(&mut Tape<'_, D>, Vec<Var>) -> Vec<Var> + 'static) -> Self {
        self.function = Box::new(function);
        self
    }

    fn params(&self) -> Params<D> {
        let mut params = Params::new(Arc::new(self.layout.clone()));
        params.update(|values| {
            for (tensor, weights) in self.layout.tensors().iter().zip(&self.weights) {
                values[tensor.range()].copy_from_slice(weights);
            }
        });
        params
    }

    /// Runs the function with these weights; `seed_of(output)` weights its outputs. Returns the scalar, and the gradients of
    /// inputs and weights if wanted.
    fn evaluate(
        &self,
        params: &Params<D>,
        memory: &mut Memory<D>,
        seeds: &mut Vec<Vec<f64>>,
        rng: &mut Rng,
        grad: bool,
    ) -> Evaluation {
        let mut tape = Tape::new(memory, params);
        let leaves: Vec<Var> = self.inputs.iter().map(|(r, c, values)| tape.leaf(*r, *c, values)).collect();
        let slots: Vec<_> = leaves.iter().map(|leaf| leaf.0).collect();
        let outputs = (self.function)(&mut tape, leaves);
        if seeds.is_empty() {
            seeds.extend(outputs.iter().map(|out| {
                let (rows, cols) = tape.shape(out);
                (0..rows * cols).map(|_| rng.normal()).collect::<Vec<_>>()
            }));
        }
        let value = outputs.iter().zip(&*seeds).map(|(out, seed)| dot(&tape.read(out), seed)).sum();
        let (mut weight_grads, mut input_grads) = (Vec::new(), Vec::new());
        if grad {
            let mut grads = Grads::new(params.layout().clone());
            let pairs: Vec<(&Var, &[f64])> = outputs.iter().zip(&*seeds).map(|(o, s)| (o, s.as_slice())).collect();
            fault::in_backward(|| tape.backward(&pairs, &mut grads));
            let zeros = |values: &Vec<f64>| vec![0.0; values.len()];
            let grads_of = slots.into_iter().zip(&self.inputs);
            input_grads.extend(
                grads_of.map(|(slot, (_, _, values))| tape.read_grad(&Var(slot)).unwrap_or_else(|| zeros(values))),
            );
            let grads = grads.read();
            weight_grads.extend(self.layout.tensors().iter().map(|tensor| grads[tensor.range()].to_vec()));
        }
        Evaluation { value, weight_grads, input_grads }
    }

    /// The gradients of all inputs, then of all weights, where the outputs' gradients are `seeds`; without any yet, they
    /// are drawn at random.
    pub fn gradients(&self, seeds: &mut Vec<Vec<f64>>, rng: &mut Rng) -> Vec<Vec<f64>> {
        let Evaluation { mut input_grads, weight_grads, .. } =
            self.evaluate(&self.params(), &mut Memory::default(), seeds, rng, true);
        input_grads.extend(weight_grads);
        input_grads
    }

    /// Sets an element of a tensor: inputs come first, then weights. These stay on the device between evaluations: to make
    /// and give back its memory for each takes a GPU longer than everything else.
    fn set(&mut self, params: &mut Params<D>, index: usize, element: usize, value: f64) {
        match index.checked_sub(self.inputs.len()) {
            None => self.inputs[index].2[element] = value,
            Some(weight) => {
                let at = self.layout.tensors()[weight].range().start + element;
                params.update(|values| values[at] = value);
            }
        }
    }

    /// The worst relative error of any tensor's gradient.
    pub fn worst_error(mut self, rng: &mut Rng) -> f64 {
        let (mut params, mut memory) = (self.params(), Memory::default());
        let mut seeds = Vec::new();
        let analytic = self.evaluate(&params, &mut memory, &mut seeds, rng, true);
        let n_tensors = self.inputs.len() + self.weights.len();
        let mut worst = 0.0f64;
        for index in 0..n_tensors {
            let gradient: Vec<f64> = match index.checked_sub(self.inputs.len()) {
                None => analytic.input_grads[index].clone(),
                Some(weight) => analytic.weight_grads[weight].clone(),
            };
            let mut coordinates = rng.permutation(gradient.len());
            coordinates.truncate(match gradient.iter().all(|&g| g == 0.0) {
                true => COORDINATES_OF_ZEROS,
                false => COORDINATES,
            });
            let (mut difference, mut size) = (0.0, 0.0);
            for i in coordinates {
                let original = match index.checked_sub(self.inputs.len()) {
                    None => self.inputs[index].2[i],
                    Some(weight) => self.weights[weight][i],
                };
                let numeric = derivative(|offset| {
                    self.set(&mut params, index, i, original + offset);
                    self.evaluate(&params, &mut memory, &mut seeds, rng, false).value
                });
                self.set(&mut params, index, i, original);
                difference += (gradient[i] - numeric).powi(2);
                size += gradient[i].powi(2).max(numeric.powi(2));
            }
            let error = difference.sqrt() / size.sqrt().max(FLOOR);
            worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
        }
        worst
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The derivative of `f` at 0 by five-point differences: the step is halved until two in a row agree.
///
/// A random problem of small width now and then normalises a vector that is nearly zero, and bends so sharply there
/// that no fixed step would do. The analytic gradient has no say in the choice of the step.
fn derivative(mut f: impl FnMut(f64) -> f64) -> f64 {
    let mut difference = |h: f64| f(h) - f(-h);
    let mut h = STEP;
    let (mut far, mut near) = (difference(2.0 * h), difference(h));
    let mut previous = (8.0 * near - far) / (12.0 * h);
    let (mut best, mut least_gap) = (previous, f64::INFINITY);
    for _ in 0..HALVINGS {
        h /= 2.0;
        (far, near) = (near, difference(h));
        let estimate = (8.0 * near - far) / (12.0 * h);
        let gap = (estimate - previous).abs();
        if gap < least_gap {
            (best, least_gap) = (estimate, gap);
        }
        if gap <= 0.1 * TOLERANCE * estimate.abs().max(FLOOR) {
            break;
        }
        previous = estimate;
    }
    best
}

struct Evaluation {
    value: f64,
    weight_grads: Vec<Vec<f64>>,
    input_grads: Vec<Vec<f64>>,
}

/// The outcome of one entry of the table.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Outcome {
    /// Operation or composition, with the variant where there are several.
    pub name: String,
    /// Random problems tried.
    pub problems: usize,
    /// Worst relative error over all of them.
    pub worst_error: f64,
}

impl Outcome {
    /// Whether the error keeps [`TOLERANCE`].
    pub fn passed(&self) -> bool {
        self.worst_error <= TOLERANCE
    }
}

/// Checks `rounds` fresh problems of every variant of an entry.
pub fn check<D: Device<T = f64>>(entry: &Entry<D>, rng: &mut Rng, rounds: usize) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for _ in 0..rounds {
        for sample in (entry.samples)(rng) {
            let name = match sample.label {
                "" => entry.name.to_owned(),
                label => format!("{}, {label}", entry.name),
            };
            let error = sample.worst_error(rng);
            match outcomes.iter_mut().find(|outcome| outcome.name == name) {
                Some(outcome) => {
                    outcome.problems += 1;
                    outcome.worst_error = outcome.worst_error.max(error);
                }
                None => outcomes.push(Outcome { name, problems: 1, worst_error: error }),
            }
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::super::ops::catalogue;
    use super::*;
    use crate::device::Reference;

    fn worst<D: Device<T = f64>>(entry: &Entry<D>, seed: u64, rounds: usize) -> f64 {
        let outcomes = check(entry, &mut Rng::new(seed), rounds);
        outcomes.iter().map(|o| o.worst_error).fold(0.0, f64::max)
    }

    #[test]
    fn the_derivative_of_a_function_that_bends_sharply_is_found() {
        let exact = |epsilon: f64, x: f64| epsilon / (x * x + epsilon).powf(1.5);
        for epsilon in [1.0, 1e-5, 1e-9] {
            for x in [0.0, 1e-4, 0.3] {
                let numeric = derivative(|h| (x + h) / ((x + h) * (x + h) + epsilon).sqrt());
                let error = (numeric - exact(epsilon, x)).abs() / exact(epsilon, x).max(FLOOR);
                assert!(error < 0.1 * TOLERANCE, "ε {epsilon:e}, x {x}: off by {error:.1e}");
            }
        }
    }

    #[test]
    fn a_flipped_dropped_or_scaled_term_of_any_backward_pass_is_caught() {
        let mut unused = fault::TERMS.to_vec();
        for entry in catalogue::<Reference<f64>>() {
            for &term in entry.terms {
                unused.retain(|&other| other != term);
                for factor in [-1.0, 0.0, 1.001] {
                    let error = fault::with(term, factor, || worst(&entry, 11, 3));
                    assert!(error > TOLERANCE, "{} × {factor} in {} went unnoticed ({error:.1e})", term, entry.name);
                }
            }
        }
        assert!(unused.is_empty(), "no operation is checked with {unused:?} wrong");
    }
}

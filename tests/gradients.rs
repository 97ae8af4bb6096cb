//! The laws of differentiation and of detaching, as properties of random small problems.
//!
//! "Bit for bit" means that every element has the same bits; sums in another order are compared within rounding.

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use trm::config::{Arch, FixedPoint, Gradient, Mixing, ModelConfig, Positions, TaskConfig};
use trm::device::{Cpu, Device, Grads, IGNORE_LABEL, Likelihood, Params, Precision, Real, Reference};
use trm::model::{self, Model, Pass, States, initialize};
use trm::rng::Rng;
use trm::tape::ops::{self, Entry};
use trm::tape::{Memory, Tape, Var, gradcheck};

/// Every operation and every composition.
fn catalogue<D: Device<T = f64>>() -> impl Iterator<Item = Entry<D>> {
    ops::catalogue().into_iter().chain(model::catalogue())
}

fn every_gradient_is_right<D: Device<T = f64>>(seed: u64, (part, parts): (usize, usize)) -> TestCaseResult {
    for entry in catalogue::<D>().skip(part).step_by(parts) {
        for outcome in gradcheck::check(&entry, &mut Rng::new(seed), 1) {
            prop_assert!(outcome.passed(), "{}: {outcome:?}", D::NAME);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_gradient_equals_central_differences_on_the_cpu(seed: u64) {
        every_gradient_is_right::<Cpu<f64>>(seed, (0, 1))?;
    }

    #[test]
    fn every_gradient_equals_central_differences_on_the_reference_device(seed: u64) {
        every_gradient_is_right::<Reference<f64>>(seed, (0, 1))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_backward_pass_is_linear_in_the_output_gradient(seed: u64) {
        let rng = &mut Rng::new(seed);
        for entry in catalogue::<Cpu<f64>>() {
            for sample in (entry.samples)(rng) {
                let (mut a, mut b) = (Vec::new(), Vec::new());
                let (of_a, of_b) = (sample.gradients(&mut a, rng), sample.gradients(&mut b, rng));
                let mut twice_a_plus_b = zip(&a, &b, |a, b| 2.0 * a + b);
                let of_both = sample.gradients(&mut twice_a_plus_b, rng);
                let expected = zip(&of_a, &of_b, |a, b| 2.0 * a + b);
                for ((got, expected), parts) in of_both.iter().zip(&expected).zip(of_a.iter().zip(&of_b)) {
                    // What cancels between 2a and b cannot be more precise than the two are.
                    let size = norm(parts.0) + norm(parts.1);
                    let error = distance(got, expected);
                    prop_assert!(error <= 1e-12 * size, "{} {}: {error:e} of {size:e}", entry.name, sample.label);
                }
                let doubled = sample.gradients(&mut zip(&a, &a, |a, _| 2.0 * a), rng);
                let same = bits(&doubled.concat()) == bits(&zip(&of_a, &of_a, |g, _| 2.0 * g).concat());
                prop_assert!(same, "{} {}: doubling is exact", entry.name, sample.label);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn permuting_the_batch_permutes_all_but_the_weight_gradients(shape in shapes(), sequences in 1usize..6, seed: u64) {
        permutation_law::<Cpu<f64>>(&shape, sequences, seed, 1e-12)?;
        permutation_law::<Cpu<f32>>(&shape, sequences, seed, 1e-4)?;
        permutation_law::<Reference<f64>>(&shape, sequences, seed, 1e-12)?;
    }

    #[test]
    fn the_gradient_is_that_of_the_recorded_calls_alone_from_constants_bit_for_bit(
        shape in shapes(), sequences in 1usize..4, seed: u64
    ) {
        detaching_law::<Cpu<f64>>(&shape, sequences, seed)?;
        detaching_law::<Cpu<f32>>(&shape, sequences, seed)?;
        detaching_law::<Reference<f64>>(&shape, sequences, seed)?;
    }

    #[test]
    fn no_gradient_passes_a_detached_value(shape in shapes(), sequences in 1usize..4, seed: u64) {
        zero_gradient_law::<Cpu<f64>>(&shape, sequences, seed)?;
        zero_gradient_law::<Cpu<f32>>(&shape, sequences, seed)?;
        zero_gradient_law::<Reference<f64>>(&shape, sequences, seed)?;
    }

    #[test]
    fn a_detached_pass_computes_what_a_recorded_one_does_and_leaves_no_record(
        shape in shapes(), sequences in 1usize..4, seed: u64
    ) {
        let problem = Problem::<Cpu<f32>>::new(&shape, sequences, seed);
        let mut values = Vec::new();
        for pass in [Pass::Train, Pass::Infer] {
            let mut memory = Memory::default();
            let mut tape = Tape::new(&mut memory, &problem.params);
            let (question, mut states) = problem.load(&mut tape);
            problem.model.recur(&mut tape, &question, &mut states, pass);
            prop_assert_eq!(tape.n_recorded() == 0, pass == Pass::Infer);
            values.push(states.iter().flat_map(|state| bits(&tape.read(state))).collect::<Vec<_>>());
        }
        prop_assert_eq!(&values[0], &values[1]);
    }
}

#[cfg(cuda_twin)]
mod on_the_twin_of_a_gpu {
    use trm::cuda::Twin;
    use trm::device::Cuda;

    use super::*;

    #[test]
    fn every_gradient_equals_central_differences() {
        let part = |part| move || every_gradient_is_right::<Cuda<f64, Twin>>(3, (part, 2)).unwrap();
        std::thread::scope(|scope| [0, 1].map(|i| scope.spawn(part(i))).map(|half| half.join().unwrap()));
    }

    proptest! {
        // The twin is some hundred times slower than a processor is by itself.
        #![proptest_config(ProptestConfig::with_cases(4))]

        #[test]
        fn the_laws_of_detaching_and_of_batches_hold(shape in shapes(), sequences in 1usize..4, seed: u64) {
            permutation_law::<Cuda<f64, Twin>>(&shape, sequences, seed, 1e-12)?;
            detaching_law::<Cuda<f64, Twin>>(&shape, sequences, seed)?;
            zero_gradient_law::<Cuda<f64, Twin>>(&shape, sequences, seed)?;
            // In f32, or with activations in bf16. A norm over one element leaves a gradient of about ε, which bf16 rounds to
            // nothing: there would be nothing to compare.
            let shape = Shape { head_size: shape.head_size + 2, seq_len: shape.seq_len + 1, ..shape };
            permutation_law::<Cuda<f32, Twin>>(&shape, sequences, seed, 1e-3)?;
            detaching_law::<Cuda<f32, Twin>>(&shape, sequences, seed)?;
            zero_gradient_law::<Cuda<f32, Twin>>(&shape, sequences, seed)?;
        }
    }
}

/// A random small model: T cycles of n updates of z and one of y.
#[derive(Clone, Debug)]
struct Shape {
    t: usize,
    n: usize,
    mixing: Mixing,
    positions: Positions,
    gradient: Gradient,
    last_k: usize,
    separate_nets: bool,
    n_layers: usize,
    heads: usize,
    /// Hidden size per head; even for attention, where rotations take pairs.
    head_size: usize,
    seq_len: usize,
    /// Of the GEMMs; f64 ignores it.
    precision: Precision,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let mixing = prop_oneof![
        2 => Just((Mixing::MlpT, Positions::None)),
        1 => Just((Mixing::Attention, Positions::None)),
        1 => Just((Mixing::Attention, Positions::Learned)),
        1 => Just((Mixing::Attention, Positions::Rope)),
    ];
    let gradient = prop_oneof![
        2 => Just((Gradient::FullCycle, 0)),
        1 => Just((Gradient::OneStep, 0)),
        1 => (1usize..=12).prop_map(|k| (Gradient::LastK, k)),
    ];
    let sizes = (1usize..=2, 1usize..=2, 1usize..=9, 1usize..=5);
    let switches = (mixing, gradient, any::<bool>(), prop_oneof![Just(Precision::F32), Just(Precision::Bf16)]);
    (1usize..=3, 1usize..=3, switches, sizes).prop_map(|(t, n, switches, (n_layers, heads, head_size, seq_len))| {
        let ((mixing, positions), (gradient, last_k), separate_nets, precision) = switches;
        let head_size = if mixing == Mixing::Attention { head_size.next_multiple_of(2) } else { head_size };
        Shape {
            t,
            n,
            mixing,
            positions,
            gradient,
            last_k,
            separate_nets,
            n_layers,
            heads,
            head_size,
            seq_len,
            precision,
        }
    })
}

const VOCAB: usize = 5;

impl Shape {
    fn model(&self) -> Model {
        let config = ModelConfig {
            arch: Arch::Trm,
            recursion: None,
            h_cycles: self.t,
            l_cycles: self.n,
            n_layers: self.n_layers,
            h_layers: 0,
            l_layers: 0,
            hidden_size: self.heads * self.head_size,
            n_heads: self.heads,
            expansion: 1.5,
            inner_multiple: 3,
            mixing: self.mixing,
            positions: self.positions,
            puzzle_emb_ndim: 3,
            puzzle_emb_len: 0,
            learned_prefix: 0,
            gradient: self.gradient,
            last_k: self.last_k,
            separate_nets: self.separate_nets,
            experts: 0,
            experts_per_token: 1,
            tied_embeddings: false,
            fixed_point: FixedPoint::None,
            fixed_point_tolerance: 1e-3,
        };
        let task = TaskConfig {
            puzzle: "tokens".into(),
            width: 0,
            symbols: String::new(),
            padded: true,
            seq_len: self.seq_len,
            vocab_size: VOCAB,
            num_puzzle_identifiers: 1,
        };
        Model::new(&config, &task)
    }

    /// The paper's loop written out: `zzyzzy` for T = 2, n = 2.
    fn updates(&self) -> Vec<char> {
        format!("{}y", "z".repeat(self.n)).repeat(self.t).chars().collect()
    }

    /// How many of the updates carry gradient.
    fn recorded(&self) -> usize {
        match self.gradient {
            Gradient::FullCycle => self.n + 1,
            Gradient::OneStep => 2,
            Gradient::LastK => self.last_k.min(self.updates().len()),
            Gradient::Marked => unreachable!("not drawn"),
        }
    }
}

/// A model with weights, and what its recursion starts from.
struct Problem<D: Device> {
    model: Model,
    params: Params<D>,
    sequences: usize,
    /// x, y, z: each `[sequences·len, hidden]`.
    values: [Vec<D::T>; 3],
    /// Gradients of the new y and z.
    seeds: [Vec<D::T>; 2],
}

impl<D: Device> Problem<D> {
    fn new(shape: &Shape, sequences: usize, seed: u64) -> Self {
        let model = shape.model();
        let rng = &mut Rng::new(seed);
        let params = initialize(&model, rng.next_u64(), shape.precision);
        let n = sequences * model.len * model.hidden;
        let values = [(); 3].map(|()| normal(rng, n));
        let seeds = [(); 2].map(|()| normal(rng, n));
        Self { model, params, sequences, values, seeds }
    }

    /// The question as a leaf, the states as constants.
    fn load(&self, tape: &mut Tape<'_, D>) -> (Var, States) {
        let [x, states @ ..] = &self.values;
        let (rows, cols) = (self.sequences * self.model.len, self.model.hidden);
        let question = tape.leaf(rows, cols, x);
        (question, states.iter().map(|state| tape.constant(rows, cols, state)).collect())
    }

    /// Gradients of the question and of all weights, for the given gradients of the states.
    fn gradients(&self, tape: &mut Tape<'_, D>, question: &Var, states: &States) -> (Option<Vec<u64>>, Vec<u64>) {
        let mut grads = Grads::new(self.params.layout().clone());
        let seeds: Vec<(&Var, &[D::T])> =
            states.iter().zip(&self.seeds).map(|(s, seed)| (s, seed.as_slice())).collect();
        tape.backward(&seeds, &mut grads);
        (tape.read_grad(question).as_deref().map(bits), bits(&grads.read()))
    }
}

/// `z ← f_z(z + y + x)` or `y ← f_y(y + z)`.
fn update<D: Device>(model: &Model, tape: &mut Tape<'_, D>, which: char, x: &Var, states: &mut States) {
    let [y, z] = [&states[0], &states[1]];
    if which == 'z' {
        let sum = ops::add(tape, &[z, y, x]);
        states[1] = model.nets[0].forward(tape, sum);
    } else {
        let sum = ops::add(tape, &[y, z]);
        states[0] = model.nets[model.nets.len() - 1].forward(tape, sum);
    }
}

/// The gradient of a whole step equals that of its recorded updates alone, written out by hand, started from what
/// the detached updates had computed, as constants.
fn detaching_law<D: Device>(shape: &Shape, sequences: usize, seed: u64) -> TestCaseResult {
    let mut problem = Problem::<D>::new(shape, sequences, seed);
    let mut memory = Memory::default();
    let updates = shape.updates();
    let (detached, recorded) = updates.split_at(updates.len() - shape.recorded());

    let whole = {
        let mut tape = Tape::new(&mut memory, &problem.params);
        let (question, mut states) = problem.load(&mut tape);
        problem.model.recur(&mut tape, &question, &mut states, Pass::Train);
        problem.gradients(&mut tape, &question, &states)
    };
    let constants: Vec<Vec<D::T>> = {
        let mut tape = Tape::new(&mut memory, &problem.params);
        tape.set_recording(false);
        let (question, mut states) = problem.load(&mut tape);
        for &which in detached {
            update(&problem.model, &mut tape, which, &question, &mut states);
        }
        states.iter().map(|state| tape.read(state)).collect()
    };
    problem.values[1..].clone_from_slice(&constants);
    let alone = {
        let mut tape = Tape::new(&mut memory, &problem.params);
        let (question, mut states) = problem.load(&mut tape);
        for &which in recorded {
            update(&problem.model, &mut tape, which, &question, &mut states);
        }
        problem.gradients(&mut tape, &question, &states)
    };
    prop_assert!(whole.1.iter().any(|&bits| f64::from_bits(bits) != 0.0), "there is a gradient to compare");
    prop_assert_eq!(whole.0.is_some(), recorded.contains(&'z'), "the question is read by updates of z");
    prop_assert_eq!(&whole.0, &alone.0, "question");
    prop_assert_eq!(&whole.1, &alone.1, "weights");
    Ok(())
}

/// States that a detached update has replaced have no gradient, nor has a network that only detached updates use, nor
/// anything at all when no update is recorded.
fn zero_gradient_law<D: Device>(shape: &Shape, sequences: usize, seed: u64) -> TestCaseResult {
    let shape = Shape { separate_nets: true, ..shape.clone() };
    let mut problem = Problem::<D>::new(&shape, sequences, seed);
    let updates = shape.updates();
    for recorded in 0..=updates.len() {
        problem.model.schedule.record_last(recorded);
        let mut memory = Memory::default();
        let mut tape = Tape::new(&mut memory, &problem.params);
        let (rows, cols) = (sequences * problem.model.len, problem.model.hidden);
        let [x, y, z] = [0, 1, 2].map(|i| tape.leaf(rows, cols, &problem.values[i]));
        // The recursion takes its states over; copies let the leaves be read afterwards.
        let mut states: States = [&y, &z].into_iter().map(|state| ops::add(&mut tape, &[state])).collect();
        problem.model.recur(&mut tape, &x, &mut states, Pass::Train);
        let (of_x, of_weights) = problem.gradients(&mut tape, &x, &states);
        let z_is_updated = recorded >= 2;
        prop_assert_eq!(of_x.is_some(), z_is_updated, "x, {} recorded", recorded);
        // A state that no detached update has replaced goes into the recorded ones, or to the end, as it was.
        let detached = &updates[..updates.len() - recorded];
        prop_assert_eq!(tape.read_grad(&y).is_some(), !detached.contains(&'y'), "y, {} recorded", recorded);
        prop_assert_eq!(tape.read_grad(&z).is_some(), !detached.contains(&'z'), "z, {} recorded", recorded);
        for (tensor, id) in problem.model.layout.tensors().iter().zip(problem.model.layout.ids()) {
            let used = match tensor.name.as_str() {
                name if name.contains("L_level") => z_is_updated,
                name if name.contains("H_level") => recorded >= 1,
                _ => false,
            };
            let is_zero = of_weights[problem.model.layout.tensors()[id.index()].range()].iter().all(|&bits| bits == 0);
            prop_assert!(used || is_zero, "{} with {recorded} recorded", tensor.name);
        }
    }
    Ok(())
}

/// Everything that belongs to a sequence moves with it, bit for bit; weight gradients stay, within rounding.
fn permutation_law<D: Device>(shape: &Shape, sequences: usize, seed: u64, tolerance: f64) -> TestCaseResult {
    let model = shape.model();
    let rng = &mut Rng::new(seed);
    let mut params = initialize::<D>(&model, rng.next_u64(), shape.precision);
    // The halting head starts at zero, which would hide its input's gradient.
    let q_weight = model.layout.tensors()[model.heads.q_weight.index()].range();
    params.update(|values| values[q_weight].fill_with(|| D::T::from_f64(rng.normal())));
    let batch: Vec<Sequence<D::T>> = (0..sequences).map(|_| Sequence::random(&model, rng)).collect();
    let order = rng.permutation(sequences);
    let permuted: Vec<Sequence<D::T>> = order.iter().map(|&i| batch[i].clone()).collect();

    let (before, weights_before) = supervision_step(&model, &params, &batch);
    let (after, weights_after) = supervision_step(&model, &params, &permuted);
    for (to, &from) in order.iter().enumerate() {
        prop_assert_eq!(&after[to], &before[from], "sequence {} at {}", from, to);
    }
    let error = distance(&weights_before, &weights_after) / norm(&weights_before);
    prop_assert!(error <= tolerance, "weight gradients differ by {error:e}");
    Ok(())
}

/// All that one sequence of a batch is made of.
#[derive(Clone)]
struct Sequence<T> {
    tokens: Vec<u8>,
    labels: Vec<i32>,
    puzzle_row: Vec<T>,
    y: Vec<T>,
    z: Vec<T>,
    target: f64,
    /// Gradients of the two losses.
    seeds: [T; 2],
}

impl<T: Real> Sequence<T> {
    fn random(model: &Model, rng: &mut Rng) -> Self {
        let seq_len = model.embedding.seq_len;
        let n = model.len * model.hidden;
        Self {
            tokens: (0..seq_len).map(|_| rng.below(VOCAB) as u8).collect(),
            labels: (0..seq_len)
                .map(|_| if rng.below(4) == 0 { IGNORE_LABEL } else { rng.below(VOCAB) as i32 })
                .collect(),
            puzzle_row: normal(rng, model.embedding.puzzle_ndim),
            y: normal(rng, n),
            z: normal(rng, n),
            target: rng.uniform(),
            seeds: [(); 2].map(|()| T::from_f64(rng.normal())),
        }
    }
}

/// A whole step of a batch, forward and backward. For each sequence the bits of its losses, states, logits and
/// gradients (puzzle row, y, z); and the gradient of the weights.
fn supervision_step<D: Device>(
    model: &Model,
    params: &Params<D>,
    batch: &[Sequence<D::T>],
) -> (Vec<Vec<u64>>, Vec<f64>) {
    let n = batch.len();
    let all = |part: fn(&Sequence<D::T>) -> &[D::T]| batch.iter().flat_map(part).copied().collect::<Vec<D::T>>();
    let targets: Vec<D::T> = batch.iter().map(|s| D::T::from_f64(s.target)).collect();
    let mut memory = Memory::default();
    let mut tape = Tape::new(&mut memory, params);
    let tokens = tape.indices(batch.iter().flat_map(|s| &s.tokens).map(|&token| token.into()));
    let labels = tape.indices(batch.iter().flat_map(|s| &s.labels).copied());
    let rows = tape.leaf(n, model.embedding.puzzle_ndim, &all(|s| &s.puzzle_row));
    let y = tape.leaf(n * model.len, model.hidden, &all(|s| &s.y));
    let z = tape.leaf(n * model.len, model.hidden, &all(|s| &s.z));
    let question = model.embedding.forward(&mut tape, tokens, Some(&rows));
    let mut states: States = [&y, &z].into_iter().map(|state| ops::add(&mut tape, &[state])).collect();
    model.recur(&mut tape, &question, &mut states, Pass::Train);
    let (logits, q) = model.heads(&mut tape, &states);
    let lm = ops::cross_entropy(&mut tape, &logits, labels, model.embedding.seq_len, Likelihood::Stablemax);
    let target = tape.constant(n, 1, &targets);
    let halt = ops::bce_with_logits(&mut tape, &q, 0, &target);

    let mut parts = vec![Vec::new(); n];
    let mut share = |values: &[D::T]| {
        for (part, values) in parts.iter_mut().zip(values.chunks_exact(values.len() / n)) {
            part.extend(bits(values));
        }
    };
    for output in states.iter().chain([&logits, &q, &lm, &halt]) {
        share(&tape.read(output));
    }
    let seeds = [0, 1].map(|i| batch.iter().map(|s| s.seeds[i]).collect::<Vec<D::T>>());
    let mut grads = Grads::new(params.layout().clone());
    tape.backward(&[(&lm, &seeds[0]), (&halt, &seeds[1])], &mut grads);
    for leaf in [&rows, &y, &z] {
        if let Some(grad) = tape.read_grad(leaf) {
            share(&grad);
        }
    }
    (parts, grads.read().iter().map(|g| g.to_f64()).collect())
}

fn normal<T: Real>(rng: &mut Rng, n: usize) -> Vec<T> {
    (0..n).map(|_| T::from_f64(rng.normal())).collect()
}

/// The bits of every element, as f64: widening keeps every f32 apart.
fn bits<T: Real>(values: &[T]) -> Vec<u64> {
    values.iter().map(|value| value.to_f64().to_bits()).collect()
}

fn zip(a: &[Vec<f64>], b: &[Vec<f64>], f: impl Fn(f64, f64) -> f64) -> Vec<Vec<f64>> {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

//! Gradient checks of whole compositions: a block, a full cycle, a deep-supervision step.

use super::{Mlp, Model, Pass, States, initialize};
use crate::config::{Arch, FixedPoint, Gradient, Mixing, ModelConfig, Positions, TaskConfig};
use crate::device::{Device, Likelihood, Params, Precision};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::ops::{self, Entry};
use crate::tape::{Memory, Tape, Var};

/// The compositions, for the gradient check.
pub fn catalogue<D: Device<T = f64>>() -> Vec<Entry<D>> {
    let entry = |name, samples| Entry { name, terms: &[], samples };
    vec![
        entry("block", block),
        entry("full cycle", full_cycle),
        entry("deep-supervision step", supervision_step),
        entry("mixture of experts", experts),
        entry("tied embeddings", tied_embeddings),
        entry("after a fixed point", after_a_fixed_point),
        entry("last k calls", last_k),
        entry("a recursion of one's own", own_recursion),
        entry("marked calls", marked),
    ]
}

const VARIANTS: [(&str, Mixing, Positions); 4] = [
    ("mlp_t", Mixing::MlpT, Positions::None),
    ("attention", Mixing::Attention, Positions::None),
    ("attention, learned positions", Mixing::Attention, Positions::Learned),
    ("attention, rope", Mixing::Attention, Positions::Rope),
];

/// A model of random small size, its weights, and a number of sequences.
fn small<D: Device<T = f64>>(
    rng: &mut Rng,
    arch: Arch,
    mixing: Mixing,
    positions: Positions,
) -> (Model, Params<D>, usize) {
    small_with(rng, arch, mixing, positions, |_| ())
}

/// The same with settings changed.
fn small_with<D: Device<T = f64>>(
    rng: &mut Rng,
    arch: Arch,
    mixing: Mixing,
    positions: Positions,
    change: impl FnOnce(&mut ModelConfig),
) -> (Model, Params<D>, usize) {
    let [heads, half, seq_len, vocab, sequences] = Sample::<D>::sizes(rng, [2, 2, 4, 4, 2]);
    let hidden_size = heads * 2 * half;
    let with_table = rng.below(2) == 0;
    let mut config = ModelConfig {
        arch,
        recursion: None,
        h_cycles: 2,
        l_cycles: 2,
        n_layers: 1,
        h_layers: 0,
        l_layers: 0,
        hidden_size,
        n_heads: heads,
        expansion: 1.5,
        inner_multiple: 3,
        mixing,
        positions,
        puzzle_emb_ndim: if with_table { 1 + rng.below(2 * hidden_size) } else { 0 },
        puzzle_emb_len: 0,
        learned_prefix: usize::from(!with_table),
        gradient: Gradient::FullCycle,
        last_k: 0,
        separate_nets: false,
        experts: 0,
        experts_per_token: 1,
        tied_embeddings: false,
        fixed_point: FixedPoint::None,
        fixed_point_tolerance: 1e-3,
    };
    change(&mut config);
    let task = TaskConfig {
        puzzle: "tokens".into(),
        width: 0,
        symbols: String::new(),
        padded: true,
        seq_len: seq_len + 1,
        vocab_size: vocab + 1,
        num_puzzle_identifiers: 1,
    };
    let model = Model::new(&config, &task);
    let mut params = initialize(&model, rng.next_u64(), Precision::F32);
    // The halting head starts at zero, which would hide its input's gradient.
    params.update(|values| {
        for (tensor, id) in model.layout.tensors().iter().zip(model.layout.ids()) {
            if id == model.heads.q_weight {
                values[tensor.range()].fill_with(|| rng.normal());
            }
        }
    });
    (model, params, sequences)
}

fn block<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
    VARIANTS
        .map(|(label, mixing, positions)| {
            let (model, params, sequences) = small(rng, Arch::Trm, mixing, positions);
            let mut sample = Sample::new(label);
            sample.model(&params);
            sample.input(rng, sequences * model.len, model.hidden);
            sample.run(move |tape, inputs| {
                let h = ops::add(tape, &[&inputs[0]]);
                vec![model.nets[0].blocks[0].forward(tape, h)]
            })
        })
        .into()
}

/// The last cycle of the recursion as a function of the states it starts from, the question and the weights.
fn last_cycle<D: Device<T = f64>>(
    model: &Model,
    tape: &mut Tape<'_, D>,
    question: &Var,
    states: &mut States,
) -> Option<Var> {
    let mut last = model.clone();
    last.schedule.calls.retain(|call| call.recorded);
    last.schedule.iteration = None;
    last.recur(tape, question, states, Pass::Train).balance
}

fn full_cycle<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
    [
        ("trm, mlp_t", Arch::Trm, Mixing::MlpT),
        ("trm, attention", Arch::Trm, Mixing::Attention),
        ("hrm", Arch::Hrm, Mixing::MlpT),
        ("singlez", Arch::Singlez, Mixing::MlpT),
        ("hier6", Arch::Hier6, Mixing::MlpT),
        ("transformer", Arch::Transformer, Mixing::Attention),
        ("direct", Arch::Direct, Mixing::MlpT),
    ]
    .map(|(label, arch, mixing)| {
        let problem = small(rng, arch, mixing, Positions::None);
        recorded_calls(rng, label, problem)
    })
    .into()
}

/// The recorded calls of a model as a function of the states they start from, the question and the weights.
fn recorded_calls<D: Device<T = f64>>(
    rng: &mut Rng,
    label: &'static str,
    problem: (Model, Params<D>, usize),
) -> Sample<D> {
    let (model, params, sequences) = problem;
    let mut sample = Sample::new(label);
    sample.model(&params);
    for _ in 0..=model.schedule.states.len() {
        sample.input(rng, sequences * model.len, model.hidden);
    }
    sample.run(move |tape, inputs| {
        let mut states: States = inputs[1..].iter().map(|state| ops::add(tape, &[state])).collect();
        let balance = last_cycle(&model, tape, &inputs[0], &mut states);
        states.into_iter().chain(balance).collect()
    })
}

/// A block with a mixture, and a cycle of calls with the load-balancing loss of all its routers.
fn experts<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
    [("top 1 of 3", 3, 1), ("top 2 of 3", 3, 2), ("all of 2", 2, 2)]
        .map(|(label, experts, experts_per_token)| {
            let set =
                |m: &mut ModelConfig| (m.experts, m.experts_per_token, m.l_cycles) = (experts, experts_per_token, 1);
            let problem = small_with(rng, Arch::Trm, Mixing::MlpT, Positions::None, set);
            assert!(matches!(problem.0.nets[0].blocks[0].mlp, Mlp::Experts(_)));
            recorded_calls(rng, label, problem)
        })
        .into()
}

/// From the tokens through one matrix to the states, and through the same matrix to the logits.
fn tied_embeddings<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
    let set = |m: &mut ModelConfig| m.tied_embeddings = true;
    let (model, params, sequences) = small_with(rng, Arch::Trm, Mixing::MlpT, Positions::None, set);
    assert_eq!(model.heads.lm, model.embedding.tokens);
    let seq_len = model.embedding.seq_len;
    let vocab = model.vocab_size();
    let tokens: Vec<i32> = (0..sequences * seq_len).map(|_| rng.below(vocab) as i32).collect();
    let mut sample = Sample::new("");
    sample.model(&params);
    sample.input(rng, sequences, model.embedding.puzzle_ndim.max(1));
    let with_table = model.embedding.puzzle_ndim > 0;
    vec![sample.run(move |tape, inputs| {
        let tokens = tape.indices(tokens.iter().copied());
        let question = model.embedding.forward(tape, tokens, with_table.then_some(&inputs[0]));
        let rows = sequences * model.len;
        let mut states: States = model.starts.iter().map(|_| tape.zeros(rows, model.hidden)).collect();
        last_cycle(&model, tape, &question, &mut states);
        let (logits, q) = model.heads(tape, &states);
        vec![logits, q]
    })]
}

/// The recorded calls that follow a fixed point: gradient through them, none through the iteration.
fn after_a_fixed_point<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
    [("plain", FixedPoint::Plain, Gradient::FullCycle), ("anderson", FixedPoint::Anderson, Gradient::OneStep)]
        .map(|(label, fixed_point, gradient)| {
            let set = |m: &mut ModelConfig| {
                (m.fixed_point, m.gradient, m.h_cycles, m.fixed_point_tolerance) = (fixed_point, gradient, 6, 1e-2);
            };
            let (model, params, sequences) = small_with(rng, Arch::Trm, Mixing::MlpT, Positions::None, set);
            let rows = sequences * model.len;
            // The question and the weights move the fixed point, which the gradient leaves out on purpose: so the
            // iteration gets copies of both that a difference does not touch.
            let mut memory = Memory::default();
            let mut tape = Tape::new(&mut memory, &params);
            tape.set_recording(false);
            let question: Vec<f64> = (0..rows * model.hidden).map(|_| rng.normal()).collect();
            let x = tape.constant(rows, model.hidden, &question);
            let mut states: States = model.starts.iter().map(|_| tape.zeros(rows, model.hidden)).collect();
            model.recur(&mut tape, &x, &mut states, Pass::Infer);
            let settled: Vec<Vec<f64>> = states.iter().map(|state| tape.read(state)).collect();
            let mut sample = Sample::new(label);
            sample.model(&params);
            sample.input(rng, rows, model.hidden);
            sample.run(move |tape, inputs| {
                let mut states: States = settled.iter().map(|s| tape.constant(rows, model.hidden, s)).collect();
                last_cycle(&model, tape, &inputs[0], &mut states);
                states.into_iter().collect()
            })
        })
        .into()
}

/// Gradient through the last k calls, from less than a cycle to more than one.
fn last_k<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
    [("k = 1", 1), ("k = 2", 2), ("k = 5", 5)]
        .map(|(label, k)| {
            let set = |m: &mut ModelConfig| (m.gradient, m.last_k) = (Gradient::LastK, k);
            let problem = small_with(rng, Arch::Trm, Mixing::MlpT, Positions::None, set);
            assert_eq!(problem.0.schedule.recorded(), k);
            recorded_calls(rng, label, problem)
        })
        .into()
}

/// Sets a recursion that is none of the paper's.
fn own(m: &mut ModelConfig, recursion: &str) {
    (m.arch, m.recursion) = (Arch::Own, Some(recursion.parse().expect("a recursion")));
}

/// Three states, two networks of different depth.
fn own_recursion<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
    let set = |m: &mut ModelConfig| own(m, include_str!("../../data/recursions/slow-memory.toml"));
    let problem = small_with(rng, Arch::Trm, Mixing::MlpT, Positions::None, set);
    assert_eq!((problem.0.nets.len(), problem.0.schedule.recorded()), (2, 4));
    vec![recorded_calls(rng, "slow memory", problem)]
}

/// A recursion that records y alone: gradient skips z, from one y to the next.
const MARKED: &str = r#"
    states = ["y", "z"]
    networks = ["f"]
    answer = "y"
    steps = [{ repeat = "h_cycles", steps = ["z = f(z + y + x)", { call = "y = f(y + z)", recorded = true }] }]
"#;

/// Recorded calls with detached ones between them, whose results a difference must not move.
fn marked<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
    let set = |m: &mut ModelConfig| {
        own(m, MARKED);
        m.gradient = Gradient::Marked;
    };
    let (model, params, sequences) = small_with::<D>(rng, Arch::Trm, Mixing::MlpT, Positions::None, set);
    let rows = sequences * model.len;
    let mut sample = Sample::new("y alone");
    sample.model(&params);
    (0..3).for_each(|_| sample.input(rng, rows, model.hidden));
    let given: Vec<&[f64]> = (0..3).filter_map(|i| sample.input_values(i)).collect();
    let detached = detached_results(&model, &params, &given);
    vec![sample.run(move |tape, inputs| {
        let mut states: States = inputs[1..].iter().map(|state| ops::add(tape, &[state])).collect();
        with_constants(&model, tape, &inputs[0], &mut states, &detached);
        states.into_iter().collect()
    })]
}

/// What each detached call results in; of `given`, the first is x, the others are the states.
fn detached_results<D: Device<T = f64>>(model: &Model, params: &Params<D>, given: &[&[f64]]) -> Vec<Vec<f64>> {
    let mut memory = Memory::default();
    let mut tape = Tape::new(&mut memory, params);
    tape.set_recording(false);
    let mut constants = given.iter().map(|values| tape.constant(values.len() / model.hidden, model.hidden, values));
    let question = constants.next().expect("x");
    let mut states: States = constants.collect();
    let mut results = Vec::new();
    for call in &model.schedule.calls {
        model.call(&mut tape, call, &question, &mut states);
        if !call.recorded {
            results.push(tape.read(&states[call.target.index()]));
        }
    }
    results
}

/// The recursion with its detached calls replaced by their results.
fn with_constants<D: Device<T = f64>>(
    model: &Model,
    tape: &mut Tape<'_, D>,
    question: &Var,
    states: &mut States,
    detached: &[Vec<f64>],
) {
    let mut detached = detached.iter();
    for call in &model.schedule.calls {
        if call.recorded {
            model.call(tape, call, question, states);
        } else {
            let result = detached.next().expect("one for each");
            let result = tape.constant(result.len() / model.hidden, model.hidden, result);
            tape.release(std::mem::replace(&mut states[call.target.index()], result));
        }
    }
}

fn supervision_step<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
    let likelihoods = [("stablemax", Likelihood::Stablemax), ("softmax", Likelihood::Softmax { label_smoothing: 0.1 })];
    let mut samples = Vec::new();
    for (name, likelihood) in likelihoods {
        for (_, mixing, positions) in VARIANTS {
            samples.push(loop {
                let (sample, nearest_logit) = supervised(rng, name, mixing, positions, likelihood);
                // Stablemax bends at 0, where a finite difference would straddle two branches.
                if nearest_logit > 0.03 {
                    break sample;
                }
            });
        }
    }
    samples
}

/// Embedding, last cycle from constant states, heads and losses; and the smallest magnitude among the logits.
fn supervised<D: Device<T = f64>>(
    rng: &mut Rng,
    label: &'static str,
    mixing: Mixing,
    positions: Positions,
    likelihood: Likelihood,
) -> (Sample<D>, f64) {
    let (model, params, sequences) = small(rng, Arch::Trm, mixing, positions);
    let (seq_len, hidden, len) = (model.embedding.seq_len, model.hidden, model.len);
    let vocab = model.layout.tensors()[model.heads.lm.index()].rows;
    let mut draw = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f64>>();
    let starts = [draw(sequences * len * hidden), draw(sequences * len * hidden)];
    let tokens: Vec<i32> = (0..sequences * seq_len).map(|_| rng.below(vocab) as i32).collect();
    let labels: Vec<i32> = (0..sequences * seq_len).map(|_| rng.below(vocab) as i32).collect();
    let targets: Vec<f64> = (0..sequences).map(|_| rng.below(2) as f64).collect();

    let mut sample = Sample::new(label);
    sample.model(&params);
    if model.embedding.puzzle_ndim > 0 {
        sample.input(rng, sequences, model.embedding.puzzle_ndim);
    }
    let rows = sample.input_values(0).map(<[f64]>::to_vec);
    let forward = move |tape: &mut Tape<'_, D>, rows: Option<&Var>| {
        let tokens = tape.indices(tokens.iter().copied());
        let question = model.embedding.forward(tape, tokens, rows);
        let mut states: States = starts.iter().map(|state| tape.constant(sequences * len, hidden, state)).collect();
        last_cycle(&model, tape, &question, &mut states);
        model.heads(tape, &states)
    };

    let mut memory = Memory::default();
    let mut tape = Tape::new(&mut memory, &params);
    let rows = rows.map(|values| tape.leaf(sequences, values.len() / sequences, &values));
    let (logits, _) = forward(&mut tape, rows.as_ref());
    let nearest = tape.read(&logits).iter().fold(f64::INFINITY, |least, a| least.min(a.abs()));

    let sample = sample.run(move |tape, inputs| {
        let (logits, q) = forward(tape, inputs.first());
        let target = tape.constant(sequences, 1, &targets);
        let labels = tape.indices(labels.iter().copied());
        vec![
            ops::cross_entropy(tape, &logits, labels, seq_len, likelihood),
            ops::bce_with_logits(tape, &q, 0, &target),
            ops::bce_with_logits(tape, &q, 1, &target),
        ]
    });
    (sample, nearest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Cpu, Grads};
    use crate::rng::Rng;

    #[test]
    fn detached_calls_between_recorded_ones_are_constants_to_the_gradient() {
        type D = Cpu<f64>;
        let rng = &mut Rng::new(9);
        let set = |m: &mut ModelConfig| {
            own(m, MARKED);
            (m.gradient, m.h_cycles) = (Gradient::Marked, 3);
        };
        let (model, params, sequences) = small_with::<D>(rng, Arch::Trm, Mixing::MlpT, Positions::None, set);
        let marks: Vec<bool> = model.schedule.calls.iter().map(|call| call.recorded).collect();
        assert_eq!(marks, [false, true, false, true, false, true]);
        let rows = sequences * model.len;
        let mut draw = || (0..rows * model.hidden).map(|_| rng.normal()).collect::<Vec<f64>>();
        let (given, seed) = ([draw(), draw(), draw()], draw());
        let detached = detached_results(&model, &params, &given.each_ref().map(Vec::as_slice));
        let gradient = |recur: bool| {
            let mut memory = Memory::default();
            let mut tape = Tape::new(&mut memory, &params);
            let [question, y, z] = given.each_ref().map(|values| tape.leaf(rows, model.hidden, values));
            let mut states: States = [y, z].into_iter().collect();
            match recur {
                true => _ = model.recur(&mut tape, &question, &mut states, Pass::Train),
                false => with_constants(&model, &mut tape, &question, &mut states, &detached),
            }
            let mut grads = Grads::new(params.layout().clone());
            tape.backward(&[(&states[0], &seed)], &mut grads);
            grads.values().to_vec()
        };
        let whole = gradient(true);
        assert!(whole == gradient(false) && whole.iter().any(|&g| g != 0.0));
    }
}

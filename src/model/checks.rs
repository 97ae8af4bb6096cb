//! Gradient checks of whole compositions: a block, a full cycle, a deep-supervision step.

use super::{Model, Pass, States, initialize};
use crate::config::{Arch, Gradient, Mixing, ModelConfig, Positions, TaskConfig};
use crate::rng::Rng;
use crate::simd::Precision;
use crate::tape::gradcheck::Sample;
use crate::tape::ops::{self, Entry, Likelihood};
use crate::tape::{Memory, Params, Tape, Var};

/// The compositions, for the gradient check.
pub const CATALOGUE: &[Entry] = &[
    Entry { name: "block", terms: &[], samples: block },
    Entry { name: "full cycle", terms: &[], samples: full_cycle },
    Entry { name: "deep-supervision step", terms: &[], samples: supervision_step },
];

const VARIANTS: [(&str, Mixing, Positions); 4] = [
    ("mlp_t", Mixing::MlpT, Positions::None),
    ("attention", Mixing::Attention, Positions::None),
    ("attention, learned positions", Mixing::Attention, Positions::Learned),
    ("attention, rope", Mixing::Attention, Positions::Rope),
];

/// A model of random small size, its weights, and a number of sequences.
fn small(rng: &mut Rng, arch: Arch, mixing: Mixing, positions: Positions) -> (Model, Params<f64>, usize) {
    let [heads, half, seq_len, vocab, sequences] = Sample::sizes(rng, [2, 2, 4, 4, 2]);
    let hidden_size = heads * 2 * half;
    let with_table = rng.below(2) == 0;
    let config = ModelConfig {
        arch,
        h_cycles: 2,
        l_cycles: 2,
        n_layers: 1,
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
    };
    let task = TaskConfig {
        puzzle: "tokens".into(),
        width: 0,
        symbols: String::new(),
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

fn block(rng: &mut Rng) -> Vec<Sample> {
    VARIANTS
        .map(|(label, mixing, positions)| {
            let (model, params, sequences) = small(rng, Arch::Trm, mixing, positions);
            let mut sample = Sample::new(label);
            sample.model(&params);
            sample.input(rng, sequences * model.len, model.hidden);
            sample.run(move |tape, inputs| {
                let h = ops::add(tape, &[&inputs[0]]);
                vec![model.nets[0].blocks[0].forward(tape, h, model.len)]
            })
        })
        .into()
}

/// The last cycle of the recursion as a function of the states it starts from, the question and the weights.
fn last_cycle(model: &Model, tape: &mut Tape<'_, f64>, question: &Var, states: &mut States) {
    let mut last = model.clone();
    last.schedule.calls.retain(|call| call.recorded);
    last.recur(tape, question, states, Pass::Train);
}

fn full_cycle(rng: &mut Rng) -> Vec<Sample> {
    [
        ("trm, mlp_t", Arch::Trm, Mixing::MlpT),
        ("trm, attention", Arch::Trm, Mixing::Attention),
        ("hrm", Arch::Hrm, Mixing::MlpT),
        ("singlez", Arch::Singlez, Mixing::MlpT),
        ("hier6", Arch::Hier6, Mixing::MlpT),
        ("transformer", Arch::Transformer, Mixing::Attention),
    ]
    .map(|(label, arch, mixing)| {
        let (model, params, sequences) = small(rng, arch, mixing, Positions::None);
        let mut sample = Sample::new(label);
        sample.model(&params);
        for _ in 0..=model.schedule.states.len() {
            sample.input(rng, sequences * model.len, model.hidden);
        }
        sample.run(move |tape, inputs| {
            let mut states: States = inputs[1..].iter().map(|state| ops::add(tape, &[state])).collect();
            last_cycle(&model, tape, &inputs[0], &mut states);
            states.into_iter().collect()
        })
    })
    .into()
}

fn supervision_step(rng: &mut Rng) -> Vec<Sample> {
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
fn supervised(
    rng: &mut Rng,
    label: &'static str,
    mixing: Mixing,
    positions: Positions,
    likelihood: Likelihood,
) -> (Sample, f64) {
    let (model, params, sequences) = small(rng, Arch::Trm, mixing, positions);
    let (seq_len, hidden, len) = (model.embedding.seq_len, model.hidden, model.len);
    let vocab = model.layout.tensors()[model.heads.lm.index()].rows;
    let mut draw = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f64>>();
    let starts = [draw(sequences * len * hidden), draw(sequences * len * hidden)];
    let tokens: Vec<u8> = (0..sequences * seq_len).map(|_| rng.below(vocab) as u8).collect();
    let labels: Vec<i32> = (0..sequences * seq_len).map(|_| rng.below(vocab) as i32).collect();
    let targets: Vec<f64> = (0..sequences).map(|_| rng.below(2) as f64).collect();

    let mut sample = Sample::new(label);
    sample.model(&params);
    if model.embedding.puzzle_ndim > 0 {
        sample.input(rng, sequences, model.embedding.puzzle_ndim);
    }
    let rows = sample.input_values(0).map(<[f64]>::to_vec);
    let forward = move |tape: &mut Tape<'_, f64>, rows: Option<&Var>| {
        let question = model.embedding.forward(tape, &tokens, rows);
        let mut states: States = starts.iter().map(|state| tape.constant(sequences * len, hidden, state)).collect();
        last_cycle(&model, tape, &question, &mut states);
        model.heads(tape, &states)
    };

    let mut memory = Memory::default();
    let mut tape = Tape::new(&mut memory, &params);
    let rows = rows.map(|values| tape.leaf(sequences, values.len() / sequences, &values));
    let (logits, _) = forward(&mut tape, rows.as_ref());
    let nearest = tape.value(&logits).iter().fold(f64::INFINITY, |least, a| least.min(a.abs()));

    let sample = sample.run(move |tape, inputs| {
        let (logits, q) = forward(tape, inputs.first());
        vec![
            ops::cross_entropy(tape, &logits, &labels, seq_len, likelihood),
            ops::bce_with_logits(tape, &q, 0, &targets),
            ops::bce_with_logits(tape, &q, 1, &targets),
        ]
    });
    (sample, nearest)
}

#[cfg(test)]
mod tests {
    use super::CATALOGUE;
    use crate::rng::Rng;
    use crate::tape::gradcheck::check;

    #[test]
    fn every_composition_agrees_with_central_differences() {
        for entry in CATALOGUE {
            for outcome in check(entry, &mut Rng::new(5), 3) {
                println!("{:40} {:.1e}", outcome.name, outcome.worst_error);
                assert!(outcome.passed(), "{outcome:?}");
            }
        }
    }
}

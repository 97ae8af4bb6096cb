//! The models beside TRM's own, and the settings for ideas that the paper found wanting: laws, threads, errors.

use crate::common::{self, RandomExamples, fail, resume, stderr, succeed, tiny, train, trm};
use trm::config::{Arch, Config, FixedPoint, Gradient, Mixing};
use trm::engine::{Lanes, Weights};
use trm::infer::{Inference, InferenceOptions};
use trm::model::Model;
use trm::perf::RunCost;
use trm::train::{StepReport, Trainer};

/// The small model of all integration tests, changed.
fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = common::config(Mixing::MlpT, 8);
    change(&mut config);
    config.validate().unwrap();
    config
}

/// Weights after a few updates, and what those reported.
fn trained(config: &Config, threads: usize, updates: u64) -> (Vec<f32>, Vec<StepReport>) {
    let lanes = Lanes::new(threads).unwrap();
    let model = Model::new(&config.model, &config.task);
    let mut examples = RandomExamples::new(config);
    let mut trainer = Trainer::on(&lanes, config.clone(), Weights::new(&model, config), updates).expect("room for it");
    let reports = (0..updates).map(|_| trainer.step(&mut examples).unwrap()).collect();
    (trainer.engine.weights.params.values().to_vec(), reports)
}

#[test]
fn a_fixed_point_of_tolerance_zero_is_the_model_without_it_bit_for_bit() {
    for gradient in [Gradient::FullCycle, Gradient::OneStep, Gradient::LastK] {
        let set = |fixed_point| {
            config(|c| {
                (c.model.h_cycles, c.model.gradient, c.model.last_k) = (4, gradient, 5);
                (c.model.fixed_point, c.model.fixed_point_tolerance) = (fixed_point, 0.0);
            })
        };
        let (without, reports) = trained(&set(FixedPoint::None), 2, 2);
        let (with, iterated) = trained(&set(FixedPoint::Plain), 2, 2);
        assert!(without == with, "{gradient:?}");
        assert_eq!(reports, iterated, "the same calls and FLOPs");
    }
}

#[test]
fn states_that_settle_early_save_calls_and_flops() {
    for method in [FixedPoint::Plain, FixedPoint::Anderson] {
        let settling = config(|c| {
            (c.model.h_cycles, c.model.fixed_point, c.model.fixed_point_tolerance) = (60, method, 1e-2);
        });
        let model = Model::new(&settling.model, &settling.task);
        let mut weights = Weights::new(&model, &settling);
        // Networks of small weights leave little but the norms: a contraction.
        weights.params.update(|values| values.iter_mut().for_each(|w| *w *= 0.01));
        let lanes = Lanes::new(2).unwrap();
        let mut trainer = Trainer::on(&lanes, settling.clone(), weights, 1).expect("room for it");
        let report = trainer.step(&mut RandomExamples::new(&settling)).unwrap();
        let planned = 60 * 3 * 8;
        assert!((2 * 3 * 8..planned).contains(&report.calls), "{method:?}: {} of {planned}", report.calls);
        assert_eq!(report.calls % 3, 0, "whole cycles");
        assert_eq!(report.model_flops, trainer.model_flops());
        assert!(report.model_flops < trm::model::update_flops(&model, &settling.train));
    }
}

#[test]
fn one_expert_is_the_plain_swiglu() {
    let plain = config(|_| ());
    let single = config(|c| (c.model.experts, c.model.experts_per_token) = (1, 1));
    let model = Model::new(&plain.model, &plain.task);
    let weights = Weights::new(&model, &plain);
    let mixture = Model::new(&single.model, &single.task);
    let mut copied = Weights::new(&mixture, &single);
    let find = |name: &str| weights.tensors().find(|(known, ..)| *known == name).map(|(.., values)| values.to_vec());
    copied
        .set::<()>(|name, values| {
            if let Some(same) = find(&name.replace("mlp.experts.0.", "mlp.")) {
                values.copy_from_slice(&same);
            }
            Ok(())
        })
        .unwrap();
    let lanes = Lanes::new(1).unwrap();
    let question = vec![3; plain.task.seq_len];
    let options = InferenceOptions { steps: 3, halt: None };
    let steps = |model, weights| Inference { lanes: &lanes, model, weights, options }.answers(&question, 0);
    assert_eq!(steps(&model, &weights), steps(&mixture, &copied));
}

#[test]
fn threads_change_nothing_with_experts_tied_embeddings_and_a_fixed_point() {
    let all = config(|c| {
        (c.model.experts, c.model.experts_per_token, c.model.tied_embeddings) = (4, 2, true);
        (c.model.h_cycles, c.model.fixed_point, c.model.fixed_point_tolerance) = (6, FixedPoint::Anderson, 0.5);
        c.train.balance_loss_weight = 0.1;
    });
    let one = trained(&all, 1, 3);
    assert!(one.1.iter().all(|report| report.balance_loss >= 8.0 * 0.9), "{:?}", one.1);
    for threads in [2, 5] {
        let many = trained(&all, threads, 3);
        assert!(one.0 == many.0, "{threads} threads");
        assert_eq!(one.1, many.1);
    }
}

#[test]
fn direct_prediction_reads_nothing_that_was_carried() {
    let direct = config(|c| {
        c.model.arch = Arch::Direct;
        (c.train.halt_max_steps, c.train.continue_loss) = (1, false);
    });
    let model = Model::new(&direct.model, &direct.task);
    let weights = Weights::new(&model, &direct);
    let question: Vec<u8> = (0..direct.task.seq_len).map(|i| (i % direct.task.vocab_size) as u8).collect();
    let options = InferenceOptions { steps: 2, halt: None };
    let lanes = Lanes::new(1).unwrap();
    let steps = Inference { lanes: &lanes, model: &model, weights: &weights, options }.answers(&question, 0);
    assert_eq!(steps[0], steps[1]);
    assert_eq!(model.schedule.calls.len(), 1);
}

#[test]
fn memory_is_estimated_close_to_what_the_lanes_take() {
    for (mixing, arch, experts, l_cycles) in [
        (Mixing::MlpT, Arch::Trm, 0, 6),
        (Mixing::Attention, Arch::Trm, 0, 6),
        (Mixing::MlpT, Arch::Hier6, 0, 3),
        (Mixing::MlpT, Arch::Trm, 4, 2),
    ] {
        let mut config = common::config(mixing, 8);
        (config.model.hidden_size, config.model.n_heads, config.model.inner_multiple) = (128, 4, 64);
        (config.model.arch, config.model.experts, config.model.l_cycles) = (arch, experts, l_cycles);
        (config.task.seq_len, config.train.continue_loss) = (60, false);
        config.validate().unwrap();
        let lanes = Lanes::new(2).unwrap();
        let model = Model::new(&config.model, &config.task);
        let mut examples = RandomExamples::new(&config);
        let mut trainer = Trainer::on(&lanes, config.clone(), Weights::new(&model, &config), 2).expect("room for it");
        // Which lane works is chance where threads wait for a core: a lane that has not yet is counted as the other.
        trainer.step(&mut examples).unwrap();
        trainer.step(&mut examples).unwrap();
        let estimate = RunCost::new(&config, 2).memory.activations as f64;
        let ratio = lanes.memory_bytes() as f64 / estimate;
        assert!((0.35..1.6).contains(&ratio), "{mixing:?} {arch:?} {experts}: {ratio:.2} of the estimate");
    }
}

#[test]
fn the_log_counts_calls_and_imbalance_and_a_resumed_run_goes_on_with_the_count() {
    let dir = tempfile::tempdir().unwrap();
    let sets = ["experts=3", "fixed_point=plain", "fixed_point_tolerance=0.9", "h_cycles=9", "checkpoint_interval=2"];
    let log = |out: &std::path::Path| {
        let records = trm::report::read_metrics(&out.join("metrics.jsonl")).unwrap();
        let updates = records.into_iter().filter(|record| record.contains_key("loss"));
        let figures = |mut record: serde_json::Map<String, serde_json::Value>| {
            record.remove("seconds");
            record
        };
        updates.map(figures).collect::<Vec<_>>()
    };
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    succeed(train(&whole, &[&sets[..], &["max_steps=4"]].concat()));
    let records = log(&whole);
    let number = |i: usize, key: &str| records[i][key].as_f64().unwrap();
    assert!(number(3, "balance_loss") >= 0.9 && number(3, "calls") < 27.0, "{:?}", records[3]);
    assert!(number(3, "model_flops") < 4.0 * 1.5 * number(0, "model_flops"));

    // Cut back to the checkpoint at 2 as a crash leaves it, and go on.
    std::fs::create_dir_all(parts.join("checkpoint")).unwrap();
    for file in ["config.toml", "metrics.jsonl"] {
        std::fs::copy(whole.join(file), parts.join(file)).unwrap();
    }
    let mut kept: Vec<_> = std::fs::read_dir(whole.join("checkpoint")).unwrap().map(|e| e.unwrap().path()).collect();
    kept.sort();
    assert_eq!(kept.len(), 2, "{kept:?}");
    std::fs::copy(&kept[0], parts.join("checkpoint").join(kept[0].file_name().unwrap())).unwrap();
    succeed(resume(&parts));
    assert_eq!(log(&parts), records);
}

/// Settings that are refused, and words the one line must hold.
#[test]
fn bad_values_of_the_models_settings_are_refused_in_one_line() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["experts=65"], &["model.experts = 65", "0 to 64"]),
        (&["experts=-1"], &["negative"]),
        (&["experts=two"], &["whole number"]),
        (&["experts_per_token=0"], &["model.experts_per_token = 0"]),
        (&["experts=2", "experts_per_token=3"], &["model.experts_per_token = 3", "model.experts = 2", "1 to 2"]),
        (&["balance_loss_weight=-1"], &["train.balance_loss_weight = -1"]),
        (&["balance_loss_weight=nan"], &["train.balance_loss_weight = NaN"]),
        (&["tied_embeddings=1"], &["true or false"]),
        (&["tied_embedding=true"], &["did you mean `model.tied_embeddings`"]),
        (&["fixed_point=newton"], &["plain", "anderson"]),
        (&["fixed_point_tolerance=2"], &["model.fixed_point_tolerance = 2", "0 to 1"]),
        (&["fixed_point_tolerance=-1e-3"], &["model.fixed_point_tolerance"]),
        (&["fixed_point=plain"], &["model.h_cycles"]),
        (&["fixed_point=plain", "h_cycles=3", "gradient=last_k", "last_k=7"], &["no", "last_k"]),
        (&["arch=direct"], &["halt_max_steps = 1"]),
        (&["arch=direct", "halt_max_steps=1", "continue_loss=true"], &["continue_loss = false"]),
        (&["arch=direct", "halt_max_steps=1", "fixed_point=anderson"], &["model.fixed_point"]),
        (&["arch=direct", "halt_max_steps=1", "gradient=last_k", "last_k=2"], &["the 1 calls"]),
        (&["arch=directly"], &["direct"]),
        (&["gradient=last_k", "last_k=4"], &["model.last_k = 4", "3 calls"]),
    ];
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    for (sets, words) in cases {
        one_line(&fail(train(&out, sets), 2), words, &format!("{sets:?}"));
        assert!(!out.exists(), "{sets:?} left a folder behind");
    }
}

#[test]
fn bad_arguments_of_plan_and_info_are_refused_in_one_line() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["plan"], &["PRESET"]),
        (&["plan", "table1-tmr"], &["unknown preset", "did you mean `table1-trm`"]),
        (&["plan", "nowhere"], &["unknown preset `nowhere` (`trm presets` lists them)"]),
        (&["plan", "table1-trm", "--all"], &["cannot be used with"]),
        (&["plan", "sudoku-4x4", "--cores", "0"], &["--cores 0"]),
        (&["plan", "sudoku-4x4", "--cores", "-3"], &["--cores"]),
        (&["plan", "sudoku-4x4", "--gflops", "0"], &["--gflops 0"]),
        (&["plan", "sudoku-4x4", "--gflops", "nan"], &["--gflops"]),
        (&["plan", "sudoku-4x4", "--markdown"], &["--all"]),
        (&["plan", "sudoku-4x4", "--set", "h_cycles=0"], &["model.h_cycles = 0"]),
        (&["plan", "sudoku-4x4", "--threads", "0"], &["--threads 0"]),
        (&["info", "--model", "sudoku-7x7"], &["unknown preset"]),
        (&["info", "--set", "h_cycles=2"], &["--model"]),
        (&["info", "--model", "sudoku-4x4", "--set", "experts=99"], &["model.experts = 99"]),
    ];
    for (args, words) in cases {
        let mut command = trm();
        command.args(*args);
        one_line(&fail(command, 2), words, &format!("{args:?}"));
    }
    // The tiny experiment itself is fine.
    let mut command = trm();
    command.args(["info", "--model", "sudoku-4x4"]).args(&tiny(&[])[2..]);
    assert!(stderr(&succeed(command)).is_empty());
}

fn one_line(said: &str, words: &[&str], case: &str) {
    assert!(said.lines().count() == 1 && said.starts_with("trm: ") && !said.contains("panicked"), "{case}: {said}");
    for word in words {
        assert!(said.contains(word), "{case}: no {word:?} in: {said}");
    }
}

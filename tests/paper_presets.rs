//! Every row of the paper's tables: its preset trains and evaluates, and the page that plans them all lists it.

use std::collections::BTreeMap;

use crate::common::{RandomExamples, stdout, succeed, trm};
use trm::config::{Config, Preset, presets};
use trm::dataset::Examples as _;
use trm::engine::{Lanes, Weights};
use trm::infer::{Inference, InferenceOptions};
use trm::model::Model;
use trm::train::Trainer;

fn rows() -> Vec<Preset> {
    presets().into_iter().filter(Preset::is_of_the_paper).collect()
}

/// The row at a size whose updates take milliseconds; what makes it that row stays.
fn reduced(name: &str) -> Config {
    let mut config = Config::preset(name).unwrap();
    let m = &mut config.model;
    (m.hidden_size, m.n_heads, m.inner_multiple, m.puzzle_emb_ndim) = (32, 2, 16, 32);
    (m.h_cycles, m.l_cycles) = (m.h_cycles.min(2), m.l_cycles.min(2));
    m.n_layers = m.n_layers.min(2);
    m.puzzle_emb_len = m.puzzle_emb_len.min(2);
    config.task.seq_len = 12;
    config.task.num_puzzle_identifiers = config.task.num_puzzle_identifiers.min(7);
    let t = &mut config.train;
    (t.batch_size, t.halt_max_steps) = (8, t.halt_max_steps.min(3));
    config.validate().unwrap_or_else(|e| panic!("{name}: {e}"));
    config
}

#[test]
fn every_row_of_the_papers_tables_trains_and_evaluates() {
    let lanes = Lanes::new(2).unwrap();
    let rows = rows();
    let per_table = |table: &str| rows.iter().filter(|p| p.name.starts_with(table)).count();
    assert_eq!([1, 2, 3, 4, 5].map(|n| per_table(&format!("table{n}-"))), [9, 3, 14, 8, 8]);
    for preset in &rows {
        let config = reduced(preset.name);
        let model = Model::new(&config.model, &config.task);
        let weights = Weights::new(&model, &config);
        let before = weights.params.values().to_vec();
        let steps = config.train.halt_max_steps;
        let mut examples = RandomExamples::new(&config);
        let mut trainer = Trainer::on(&lanes, config, weights, 2).expect("room for it");
        for _ in 0..2 {
            let report = trainer.step(&mut examples).unwrap();
            assert!(report.loss.is_finite() && report.grad_norm > 0.0, "{}: {report:?}", preset.name);
        }
        assert_ne!(trainer.engine.weights.params.values(), before, "{}", preset.name);
        let weights = trainer.evaluation_weights();
        let write = |example: usize, inputs: &mut [u8], labels: &mut [i32]| {
            let mut examples = RandomExamples::new(&trainer.config);
            examples.write(example, inputs, labels)
        };
        let options = InferenceOptions { steps, halt: None };
        let inference = Inference { lanes: &lanes, model: &trainer.model, weights: &weights, options };
        let evaluation = inference.evaluate(6, write, None, None, || false).unwrap().unwrap();
        assert_eq!((evaluation.puzzles, evaluation.by_step.len()), (6, steps as usize), "{}", preset.name);
    }
}

#[test]
fn rows_have_the_depth_and_the_parameters_that_the_paper_states() {
    let depth = |name: &str| {
        let config = Config::preset(name).unwrap();
        Model::new(&config.model, &config.task).schedule.calls.len() * config.model.n_layers
    };
    // T(n + 1) layers; the paper's 9 and 7 for T = k = 1 do not follow its own formula.
    let hrm = [(1, 1, 8), (2, 2, 24), (3, 3, 48), (4, 4, 80), (3, 6, 84), (6, 3, 96), (6, 6, 168)];
    let trm = [(1, 1, 6), (2, 2, 20), (3, 3, 42), (4, 4, 72), (3, 6, 78), (6, 3, 84), (6, 6, 156)];
    for (model, rows) in [("hrm", hrm), ("trm", trm)] {
        for (t, k, expected) in rows {
            assert_eq!(depth(&format!("table3-{model}-t{t}-k{k}")), expected, "{model} T = {t}, k = {k}");
        }
    }
    assert_eq!(["table1-trm", "table1-4-layers", "table1-t2-n2", "table1-hrm"].map(depth), [42, 48, 12, 24]);

    let millions = |name: &str| {
        let config = Config::preset(name).unwrap();
        (Model::new(&config.model, &config.task).layout.n_weights() as f64 / 1e6).round() as u64
    };
    let stated = [
        ("table1-trm", 5),
        ("table1-separate-nets", 10),
        ("table1-4-layers", 10),
        ("table1-attention", 7),
        ("table1-hrm", 27),
        ("table4-sudoku-direct", 27),
        ("table4-maze-trm-att", 7),
        ("table4-maze-trm-mlp", 19),
        ("table5-arc1-hrm", 27),
        ("table5-arc1-trm-mlp", 19),
        ("table5-arc2-direct", 27),
        ("table5-arc2-trm-att", 7),
    ];
    for (name, parameters) in stated {
        assert_eq!(millions(name), parameters, "{name}");
    }
}

/// The rows of a plan's tables by preset: what does not depend on the machine.
fn planned(document: &str) -> BTreeMap<String, Vec<String>> {
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `table"));
    rows.filter_map(|row| row.split_once("` | "))
        .filter(|(name, _)| !name.contains('…'))
        .map(|(name, cells)| (format!("table{name}"), cells.split(" | ").take(6).map(str::to_owned).collect()))
        .collect()
}

#[test]
fn the_page_of_plans_lists_every_row_as_it_is_now() {
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reproduce.md")).unwrap();
    let mut command = trm();
    command.args(["plan", "--all", "--markdown", "--gflops", "400"]);
    let now = planned(&stdout(&succeed(command)));
    let names: Vec<&str> = now.keys().map(String::as_str).collect();
    let mut expected: Vec<&str> = rows().iter().map(|preset| preset.name).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(planned(&committed), now, "write it again: trm plan --all --markdown --cores 64 --cores 192");
}

#[test]
fn presets_are_listed_in_groups_with_what_was_published() {
    let mut command = trm();
    command.args(["presets", "--json"]);
    let list: Vec<serde_json::Value> = serde_json::from_str(&stdout(&succeed(command))).unwrap();
    assert_eq!(list[0]["name"], "sudoku-6x6");
    let row = list.iter().find(|row| row["name"] == "table5-arc2-trm-att").unwrap();
    assert_eq!((&row["group"], &row["published_accuracy"]), (&"paper, table 5".into(), &7.8.into()));
    let mut command = trm();
    command.arg("presets");
    let text = stdout(&succeed(command));
    for line in ["paper, table 1\n", "table3-trm-t6-k6", "87.4 %", "takes sudoku-6x6"] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn the_drawing_of_every_preset_costs_what_its_plan_says() {
    let json = |args: &[&str]| -> serde_json::Value {
        let mut command = trm();
        command.args(args).arg("--json");
        serde_json::from_str(&stdout(&succeed(command))).unwrap()
    };
    for preset in presets() {
        let plan = json(&["plan", preset.name, "--gflops", "1", "--threads", "1"]);
        let drawing = json(&["info", "--model", preset.name]);
        let number = |value: &serde_json::Value, key: &str| value[key].as_f64().unwrap();
        let step = number(&drawing, "forward_flops") + number(&drawing, "backward_flops");
        let (drawn, planned) = (step * number(&plan, "batch_size"), number(&plan, "flops_per_update"));
        assert!((drawn / planned - 1.0).abs() < 1e-12, "{}: {drawn:e} drawn, {planned:e} planned", preset.name);
        let lines = drawing["calls"].as_array().unwrap().iter();
        let calls: f64 = lines.map(|line| number(line, "forward_flops")).sum();
        let parts = calls + number(&drawing, "heads_flops") + number(&drawing, "further_flops");
        assert!((parts / number(&drawing, "forward_flops") - 1.0).abs() < 1e-12, "{}", preset.name);
    }
}

#[test]
fn what_was_published_is_said_in_the_same_words_everywhere() {
    let plan = |preset: &str| {
        let mut command = trm();
        command.args(["plan", preset, "--gflops", "100", "--threads", "1"]);
        stdout(&succeed(command))
    };
    assert!(plan("table3-trm-t6-k6").contains("out of memory (arXiv 2510.04871v1, Table 3"));
    for (preset, row) in
        [("arc-1", "table5-arc1-trm-att"), ("arc-2", "table5-arc2-trm-att"), ("maze-30x30-hard", "table4-maze-trm-att")]
    {
        let all = presets();
        let find = |name: &str| all.iter().find(|preset| preset.name == name).unwrap();
        assert_eq!(find(preset).published_accuracy, find(row).published_accuracy, "{preset}");
        assert_eq!(find(preset).source, find(row).source, "{preset}");
        assert!(find(preset).description.contains(&format!("{} %", find(preset).published_accuracy.unwrap())));
    }
    let short = plan("sudoku-4x4");
    assert!(short.contains("no figure: not from a paper") && short.contains("time here     1.3 min\n"), "{short}");
}

#[test]
fn a_plan_measures_the_speed_and_says_so() {
    let plan = |more: &[&str]| {
        let mut command = trm();
        command.args(["plan", "sudoku-4x4", "--threads", "2", "--cores", "1", "--cores", "64"]).args(more);
        stdout(&succeed(command))
    };
    let text = plan(&[]);
    assert!(text.contains("measured now with a batch of 8") && text.contains("on 64 cores"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&plan(&["--gflops", "100", "--json"])).unwrap();
    let number = |key: &str| json[key].as_f64().unwrap();
    assert_eq!(number("updates"), 2100.0);
    assert!((number("hours") * 3600.0 * 100e9 / number("run_flops") - 1.0).abs() < 1e-9);
    let on = |i: usize| json["cores"][i]["hours"].as_f64().unwrap();
    assert!(on(0) > 1.9 * number("hours") && on(1) < on(0) / 2.0, "{json}");
}

#[test]
fn the_drawing_of_a_model_shows_states_networks_calls_and_what_is_recorded() {
    let info = |args: &[&str]| {
        let mut command = trm();
        command.args(["info", "--model"]).args(args);
        stdout(&succeed(command))
    };
    let trm = info(&["sudoku-extreme"]);
    for part in ["z ← f(z + y + x)", "y ← f(y + z)", "21 calls, the last 7 recorded", "2 × ┐", "[97, 512]"] {
        assert!(trm.contains(part), "{part}:\n{trm}");
    }
    let hrm = info(&["table1-hrm"]);
    for part in ["z ← f_L(z + y + x)", "y ← f_H(y + z)", "6 calls, the last 2 recorded", "inner.H_level.*"] {
        assert!(hrm.contains(part), "{part}:\n{hrm}");
    }
    let json: serde_json::Value = serde_json::from_str(&info(&["table2-multi-scale-z", "--json"])).unwrap();
    assert_eq!(json["states"].as_array().unwrap().len(), 7);
    assert_eq!(json["calls"][0]["call"], "z1 ← f(z1 + z2 + z3 + z4 + z5 + z6 + y + x)");
    let settled = info(&["sudoku-6x6", "--set", "fixed_point=anderson", "--set", "h_cycles=9"]);
    assert!(settled.contains("at most 8 times, by Anderson's method"), "{settled}");
}

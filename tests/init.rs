//! Runs that begin with stored weights, and runs that go on further than planned.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{self, RandomExamples, fail, resume, stderr, succeed, train, trm};
use tempfile::TempDir;
use trm::checkpoint::{NamedTensor, RunFolder, load_weights, save_weights};
use trm::config::{Config, Mixing, TrainOnly};
use trm::dataset::TaskData;
use trm::device::Cpu;
use trm::engine::{Engine as _, Lanes, TableStart, Weights};
use trm::model::Model;
use trm::train::{Run, Trainer};

/// Settings of a model with a puzzle table.
const TABLE: [&str; 5] =
    ["learned_prefix=0", "puzzle_emb_ndim=32", "puzzle_emb_len=1", "max_steps=6", "lr_min_ratio=1.0"];

/// A trained run with a puzzle table.
fn trained() -> (TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    succeed(train(&run, &TABLE));
    (home, run)
}

fn weights(run: &Path) -> Vec<NamedTensor> {
    load_weights(&run.join("weights.safetensors")).unwrap()
}

/// The weights of a run's newest checkpoint, as PyTorch would get them.
fn exported(run: &Path, which: &str) -> Vec<NamedTensor> {
    let dir = tempfile::tempdir().unwrap();
    let (torch, file) = (dir.path().join("w.pt"), dir.path().join("w.safetensors"));
    let mut command = trm();
    command.args(["weights", "export"]).arg(run).args(["--weights", which, "--torch"]).arg(&torch);
    succeed(command);
    let mut command = trm();
    command
        .args(["weights", "import"])
        .arg(&torch)
        .arg("--out")
        .arg(&file)
        .arg("--config")
        .arg(run.join("config.toml"));
    succeed(command);
    load_weights(&file).unwrap()
}

fn init(out: &Path, from: &Path) -> Command {
    let mut command = trm();
    command.args(["train", "--threads", "2", "--init"]).arg(from).arg("--out").arg(out);
    command
}

const TABLE_NAME: &str = "inner.puzzle_emb.weights";

#[test]
fn a_new_run_begins_with_the_weights_and_settings_of_another() {
    let (home, run) = trained();
    // Nothing learns, so what it saves is what it began with.
    let still = ["--set", "lr=0", "--set", "puzzle_emb_lr=0", "--set", "ema=false", "--max-steps", "2"];
    let out = home.path().join("same");
    let mut command = init(&out, &run);
    command.args(still);
    let said = stderr(&succeed(command));
    assert!(said.contains("begins with the weights in") && said.contains("its puzzle table [1, 32] is kept"), "{said}");
    assert!(weights(&out) == weights(&run));

    let out = home.path().join("anew");
    let mut command = init(&out, &run.join("weights.safetensors"));
    command.arg("--config").arg(run.join("config.toml")).args(still).args(["--init-table", "new"]);
    let said = stderr(&succeed(command));
    assert!(said.contains("the puzzle table starts anew"), "{said}");
    for (own, before) in weights(&out).iter().zip(weights(&run)) {
        assert_eq!(*own == before, own.name != TABLE_NAME, "{}", own.name);
    }
    assert!(weights(&out).iter().any(|tensor| tensor.name == TABLE_NAME && tensor.data.iter().all(|&v| v == 0.0)));

    // As many rows, but of other puzzles.
    fs::write(run.join("identifiers.json"), "[\"somebody\"]").unwrap();
    for (more, words) in [(None, "the puzzle table starts anew"), (Some("keep"), "is kept")] {
        let mut command = init(&home.path().join(format!("others-{}", more.is_some())), &run);
        command.args(still);
        more.iter().for_each(|which| _ = command.args(["--init-table", which]));
        let said = stderr(&succeed(command));
        assert!(said.contains("its puzzle identifiers have other names") && said.contains(words), "{said}");
    }
}

#[test]
fn what_does_not_fit_is_named_and_leaves_nothing_behind() {
    let (home, run) = trained();
    let out = home.path().join("out");
    let file = run.join("weights.safetensors");
    let torch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch/state.pt");
    for (from, args, words) in [
        (&run, vec!["--set", "hidden_size=64"], "has shape"),
        (&run, vec!["--set", "separate_nets=true"], "is missing"),
        (&file, vec!["--preset", "sudoku-4x4"], "has shape"),
        (&torch, vec!["--preset", "sudoku-4x4"], "a PyTorch checkpoint; convert it"),
        (&run.join("checkpoint"), vec![], "config.toml"),
        (&run, vec!["--resume"], "--resume"),
    ] {
        let mut command = init(&out, from);
        command.args(&args);
        let said = fail(command, 2);
        assert!(said.contains(words) && said.lines().count() == 1, "{args:?}: {said}");
        assert!(!out.exists(), "{args:?}");
    }
    let mut only = train(&out, &TABLE);
    only.args(["--train-only", "puzzle_table"]);
    let said = fail(only, 2);
    assert!(said.contains("--init") && !out.exists(), "{said}");
}

#[test]
fn a_table_of_other_puzzles_starts_anew_or_is_refused_as_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    let config = common::config(Mixing::MlpT, 8);
    let model = Model::new(&config.model, &config.task);
    let mut stored: Weights = Weights::new(&model, &config);
    std::sync::Arc::make_mut(stored.table.as_mut().unwrap()).row_mut(3, 1).fill(2.0);
    stored.save(&path, stored.params.values()).unwrap();
    let mut more = config.clone();
    more.task.num_puzzle_identifiers = 9;
    let mut none = config.clone();
    none.model.puzzle_emb_ndim = 0;
    (none.model.puzzle_emb_len, none.model.learned_prefix) = (0, 3);
    let begun = |config: &Config, start: TableStart| {
        let mut weights: Weights = Weights::new(&Model::new(&config.model, &config.task), config);
        weights.begin_with(&path, start).map(|said| (weights, said.unwrap_or_default()))
    };
    let (kept, said) = begun(&config, TableStart::Fitting).unwrap();
    assert!(kept.table == stored.table && said.contains("is kept"), "{said}");
    assert!(kept.params.values() == stored.params.values());
    let (anew, said) = begun(&more, TableStart::Fitting).unwrap();
    assert!(said.contains("starts anew: the stored one is [5, 48], the new run's [9, 48]"), "{said}");
    assert!(anew.table.unwrap().row(3).iter().all(|&value| value == 0.0));
    let line = begun(&more, TableStart::Keep).err().unwrap().to_string();
    assert!(line.contains("--init-table keep") && line.contains("[9, 48]"), "{line}");
    // With mlp_t the learned prefix is a tensor of its own, which the file does not have.
    assert!(begun(&none, TableStart::Fitting).err().unwrap().to_string().contains("inner.prefix.weight"));

    // Names as wrappers have them.
    let wrapped: Vec<NamedTensor> = load_weights(&path)
        .unwrap()
        .into_iter()
        .map(|t| NamedTensor::new(format!("_orig_mod.model.{}", t.name), t.shape, t.data))
        .collect();
    save_weights(&path, &wrapped).unwrap();
    assert!(begun(&config, TableStart::Keep).unwrap().0.table == stored.table);
}

#[test]
fn training_the_table_alone_leaves_all_other_weights_and_their_average_bit_for_bit() {
    let (home, run) = trained();
    let out = home.path().join("out");
    let mut command = init(&out, &run);
    command.args(["--train-only", "puzzle_table", "--max-steps", "4", "--seed", "9"]);
    succeed(command);
    let mut more = resume(&out);
    more.args(["--max-steps", "7"]);
    succeed(more);
    assert!(fs::read_to_string(out.join("config.toml")).unwrap().contains("train_only = \"puzzle_table\""));
    for which in ["raw", "ema"] {
        for (own, before) in exported(&out, which).iter().zip(weights(&run)) {
            assert_eq!(*own == before, own.name != TABLE_NAME, "{which} {}", own.name);
        }
    }
}

#[test]
fn the_weights_a_run_begins_with_are_its_first_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let sets: Vec<String> = common::TINY.iter().chain(&TABLE).map(|set| (*set).to_owned()).collect();
    let config = Config::resolve(Some("sudoku-4x4"), None, &sets).unwrap();
    let data = TaskData::load(&config.data).unwrap();
    let lanes: Lanes = Lanes::new(1).unwrap();
    let model = Model::new(&config.model, &config.task);
    let mut begun: Weights = Weights::new(&model, &config);
    begun.params.update(|values| values.iter_mut().for_each(|value| *value *= 0.5));
    std::sync::Arc::make_mut(begun.table.as_mut().unwrap()).row_mut(0, 1).fill(0.25);
    let root = dir.path().join("run");
    let folder = RunFolder::create(&root).unwrap();
    folder.write_config(&config).unwrap();
    drop(Run::from_weights(&folder, config.clone(), &data, &lanes, begun.clone()).unwrap());
    drop(folder);
    let folder = RunFolder::open(&root).unwrap();
    let mut run = Run::new(&folder, config, &data, &lanes, true).unwrap();
    let engine = &run.trainer().engine;
    assert!(engine.dense(false) == begun.params.values() && engine.dense(true) == begun.params.values());
    assert!(engine.weights().table == begun.table);
    run.train(&trm::train::Requests::new()).unwrap();
    let table = &weights(&root)[weights(&root).iter().position(|tensor| tensor.name == TABLE_NAME).unwrap()];
    assert!(table.data.iter().all(|&value| value != 0.0), "it is saved with what it began with");
}

#[test]
fn a_run_goes_on_further_only_where_its_updates_would_have_been_the_same() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    succeed(train(&run, &["max_steps=12", "lr_min_ratio=0.1", "lr_warmup_steps=4"]));
    let before = (fs::read(run.join("config.toml")).unwrap(), fs::read(run.join("metrics.jsonl")).unwrap());
    for (steps, words) in [("30", "train.max_steps: 12 -> 30"), ("8", "12 updates are done already")] {
        let mut command = resume(&run);
        command.args(["--max-steps", steps]);
        let said = fail(command, 2);
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
        let after = (fs::read(run.join("config.toml")).unwrap(), fs::read(run.join("metrics.jsonl")).unwrap());
        assert!(after == before, "{steps}");
    }
    // While the rate still warms up, the end of its fall may move.
    let (short, long) = (home.path().join("short"), home.path().join("long"));
    let settings = ["lr_min_ratio=0.1", "lr_warmup_steps=20", "eval_interval=6"];
    succeed(train(&short, &[&settings[..], &["max_steps=12"]].concat()));
    let mut command = resume(&short);
    command.args(["--max-steps", "30"]);
    succeed(command);
    succeed(train(&long, &[&settings[..], &["max_steps=30"]].concat()));
    assert!(weights(&short) == weights(&long));
}

#[test]
fn the_average_of_a_short_run_has_left_its_beginning_only_when_it_is_warmed_up() {
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt();
    for (warmup, near) in [(true, true), (false, false)] {
        let mut config = common::config(Mixing::MlpT, 8);
        (config.train.ema_rate, config.train.ema_warmup) = (0.999, warmup);
        let model = Model::new(&config.model, &config.task);
        let lanes: Lanes<Cpu<f32>> = Lanes::new(1).unwrap();
        let first = Weights::new(&model, &config);
        let mut trainer = Trainer::on(&lanes, config.clone(), first.clone(), 40).unwrap();
        let mut examples = RandomExamples::new(&config);
        for _ in 0..40 {
            trainer.step(&mut examples).unwrap();
        }
        let (now, average) = (trainer.engine.dense(false), trainer.engine.dense(true));
        let nearer_to_now = distance(&average, &now) < distance(&average, first.params.values());
        assert_eq!(nearer_to_now, near, "ema_warmup = {warmup}");
    }
    assert_eq!(Config::default().train.train_only, TrainOnly::All);
}

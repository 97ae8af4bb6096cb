//! Recursions of one's own, as a user meets them: an experiment file, a run folder that stands alone, a drawing, errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{fail, resume, stdout, succeed, train, trm};
use serde_json::Value;

/// Settings whose updates take about a millisecond.
const SETS: [&str; 10] = [
    "hidden_size=32",
    "inner_multiple=32",
    "n_layers=2",
    "train_puzzles=60",
    "test_puzzles=20",
    "batch_size=8",
    "halt_max_steps=3",
    "max_steps=6",
    "checkpoint_interval=3",
    "eval_interval=0",
];

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// `trm train` of an experiment file into `out`.
fn train_file(file: &Path, out: &Path) -> Command {
    let mut command = trm();
    command.arg("train").arg("--config").arg(file).args(["--threads", "2", "--out"]).arg(out);
    SETS.iter().for_each(|set| _ = command.args(["--set", set]));
    command
}

/// What a crash after the first checkpoint leaves of a run.
fn cut_back(whole: &Path, parts: &Path) {
    fs::create_dir_all(parts.join("checkpoint")).unwrap();
    for file in ["config.toml", "metrics.jsonl"] {
        fs::copy(whole.join(file), parts.join(file)).unwrap();
    }
    let mut kept: Vec<_> = fs::read_dir(whole.join("checkpoint")).unwrap().map(|e| e.unwrap().path()).collect();
    kept.sort();
    assert_eq!(kept.len(), 2, "{kept:?}");
    fs::copy(&kept[0], parts.join("checkpoint").join(kept[0].file_name().unwrap())).unwrap();
}

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("weights.safetensors")).unwrap()
}

#[test]
fn the_example_trains_and_its_run_stands_alone_and_resumes_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    for file in ["experiments/slow-memory.toml", "recursions/slow-memory.toml"] {
        fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
        fs::copy(data().join(file), dir.path().join(file)).unwrap();
    }
    succeed(train_file(&dir.path().join("experiments/slow-memory.toml"), &whole));
    let text = String::from_utf8_lossy(&weights(&whole)).into_owned();
    for name in ["inner.y_init", "inner.m_init", "inner.f.layers.1.mlp.down_proj.weight", "inner.g.layers.0.mlp"] {
        assert!(text.contains(name), "{name} is not in the weights");
    }
    assert!(!text.contains("inner.g.layers.1"), "g has one layer");

    // Without the files that the experiment named.
    fs::remove_dir_all(dir.path().join("recursions")).unwrap();
    cut_back(&whole, &parts);
    succeed(resume(&parts));
    assert!(weights(&parts) == weights(&whole), "the weights differ");
    let mut eval = trm();
    eval.arg("eval").arg(&parts).args(["--json", "--threads", "1"]);
    let report: Value = serde_json::from_slice(&succeed(eval).stdout).unwrap();
    assert_eq!(report["puzzles"], 20);
}

#[test]
fn a_run_of_before_there_were_files_of_recursions_resumes() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    succeed(train(&whole, &["max_steps=4", "checkpoint_interval=2"]));
    cut_back(&whole, &parts);
    let config = fs::read_to_string(parts.join("config.toml")).unwrap();
    let old = config.split("\n[model.recursion]").next().unwrap();
    let old = old.lines().filter(|line| !line.starts_with("h_layers") && !line.starts_with("l_layers"));
    let old = old.map(|line| format!("{line}\n")).collect::<String>();
    assert!(old.len() + 200 < config.len(), "{config}");
    fs::write(parts.join("config.toml"), old).unwrap();
    succeed(resume(&parts));
    assert!(weights(&parts) == weights(&whole), "the weights differ");
}

#[test]
fn info_draws_the_recursion_of_an_experiment_file() {
    let info = |args: &[&str]| {
        let mut command = trm();
        command.args(["info", "--config"]).arg(data().join("experiments/slow-memory.toml")).args(args);
        stdout(&succeed(command))
    };
    let text = info(&["--set", "l_cycles=2"]);
    for part in ["slow-memory, ", "z ← f(z + y + m + x)", "m ← g(m + z)", "inner.g.*", "8 calls, the last 4 recorded"]
    {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let json: Value = serde_json::from_str(&info(&["--json"])).unwrap();
    assert_eq!(json["states"].as_array().unwrap().len(), 3);
    assert_eq!((&json["nets"][0]["layers"], &json["nets"][1]["layers"]), (&2.into(), &1.into()));

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("marked.toml");
    let marked = "[model]\ngradient = \"marked\"\n[model.recursion]\nstates = [\"y\", \"z\"]\nnetworks = [\"f\"]\nanswer = \"y\"\n\
                  steps = [{ repeat = 3, steps = [\"z = f(z + y + x)\", { call = \"y = f(y + z)\", recorded = true }] }]\n";
    fs::write(&file, marked).unwrap();
    let mut command = trm();
    command.args(["info", "--config"]).arg(&file);
    let text = stdout(&succeed(command));
    assert!(text.contains("6 calls, 3 recorded"), "{text}");
    succeed(train_file(&file, &dir.path().join("run")));
}

#[test]
fn a_bad_recursion_is_refused_in_one_line_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("mine.toml"), dir.path().join("run"));
    for (text, words) in [
        ("[model]\nrecursion = \"nowhere.toml\"\n", ["mine.toml:2", "nowhere.toml"]),
        (
            "[model.recursion]\nstates = [\"y\"]\nnetworks = [\"f\"]\nanswer = \"y\"\nsteps = [\"y = g(x)\"]\n",
            ["mine.toml", "unknown network `g`"],
        ),
        ("[model]\narch = \"own\"\n", ["mine.toml:2", "[model.recursion]"]),
        (
            "[model.recursion]\nstates = [\"y\"]\nnetworks = [\"f\"]\nanswer = \"y\"\nsteps = [\"y = f(x)\"]\n",
            ["recursion own carries nothing", "halt_max_steps = 1"],
        ),
    ] {
        fs::write(&file, text).unwrap();
        let said = fail(train_file(&file, &out), 2);
        assert!(said.lines().count() == 1 && said.starts_with("trm: "), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{text}: {said}");
        assert!(!out.exists(), "{text}");
    }
    let mut both = trm();
    both.args(["info", "--model", "sudoku-4x4", "--config"]).arg(&file);
    assert!(fail(both, 2).contains("cannot be used with"));
}

//! What evaluations during training read, and what is chosen by them: the best weights, and when to stop.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{fail, resume, stderr, succeed, train, trm};
use serde_json::Value;

fn records(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The log without what a clock wrote.
fn log(run: &Path) -> Vec<Value> {
    let mut records = records(run);
    records.iter_mut().for_each(|record| drop(record.as_object_mut().unwrap().remove("seconds")));
    records
}

fn bytes(run: &Path, file: &str) -> Vec<u8> {
    fs::read(run.join(file)).unwrap()
}

/// A set of 4×4 Sudokus with the splits train, valid and test.
fn set(home: &Path) -> PathBuf {
    let (set, other) = (home.join("set"), home.join("other"));
    for (seed, out) in [("1", &set), ("2", &other)] {
        let mut build = trm();
        build
            .args(["data", "build", "sudoku", "--size", "4", "--count", "60", "--test", "20", "--seed", seed, "--out"]);
        build.arg(out);
        succeed(build);
    }
    fs::rename(other.join("test"), set.join("valid")).unwrap();
    set
}

#[test]
fn training_reads_valid_and_never_test_unless_it_is_told_to() {
    let home = tempfile::tempdir().unwrap();
    let set = set(home.path());
    // Whoever opens the test split now fails.
    fs::write(set.join("test/all__inputs.npy"), b"rubbish").unwrap();
    let run = home.path().join("run");
    let mut command =
        train(&run, &["max_steps=8", "eval_interval=4", "keep_best=exact_accuracy", "checkpoint_interval=4"]);
    command.arg("--data").arg(&set);
    let said = stderr(&succeed(command));
    assert!(said.contains("evaluations during training read the split valid"), "{said}");
    assert_eq!(said.lines().filter(|line| line.contains("valid: exact")).count(), 2, "{said}");
    let splits: Vec<Value> = records(&run).iter().filter_map(|record| record.get("split").cloned()).collect();
    assert_eq!(splits, ["valid", "valid"]);
    let before = log(&run);
    succeed(resume(&run));
    assert_eq!(log(&run), before);
    let with = |eval_split: &str| {
        let mut command = train(&home.path().join("no"), &["max_steps=8", eval_split]);
        command.arg("--data").arg(&set);
        fail(command, 2)
    };
    assert!(with("eval_split=test").contains("test/all__inputs.npy"));
    let said = with("eval_split=nowhere");
    assert!(said.contains("no such split; it has: test, train, valid") && said.lines().count() == 1, "{said}");
    assert!(!home.path().join("no").exists());
}

#[test]
fn a_set_without_valid_is_evaluated_on_test_and_the_log_says_what_that_means() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    let said = stderr(&succeed(train(&run, &["max_steps=4"])));
    assert!(said.contains("evaluations during training read the test split"), "{said}");
}

#[test]
fn the_best_weights_are_those_of_the_best_evaluation_and_survive_a_resume() {
    let home = tempfile::tempdir().unwrap();
    let settings = ["eval_interval=10", "keep_best=token_accuracy", "lr_min_ratio=1.0", "checkpoint_interval=10"];
    let run = |name: &str, steps: &str| {
        let out = home.path().join(name);
        succeed(train(&out, &[&settings[..], &[&format!("max_steps={steps}")]].concat()));
        out
    };
    let whole = run("whole", "60");
    let evaluations: Vec<(u64, f64)> = records(&whole)
        .iter()
        .filter_map(|record| Some((record["step"].as_u64()?, record.get("eval")?["token_accuracy"].as_f64()?)))
        .collect();
    assert_eq!(evaluations.len(), 6);
    let best = evaluations.iter().rev().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap().0;
    let alone = run("alone", &best.to_string());
    assert!(bytes(&whole, "weights-best.safetensors") == bytes(&alone, "weights.safetensors"), "best at {best}");

    // A run that goes on further is the run that was to be as long from the start.
    let further = run("further", "20");
    let mut more = resume(&further);
    more.args(["--max-steps", "60"]);
    let said = stderr(&succeed(more));
    assert!(said.contains("goes on with train.max_steps: 20 -> 60"), "{said}");
    assert!(said.contains("best token_accuracy on the split test") && said.contains(&format!("after update {best};")));
    for file in ["weights.safetensors", "weights-best.safetensors", "config.toml"] {
        assert!(bytes(&further, file) == bytes(&whole, file), "{file}");
    }
    assert_eq!(log(&further), log(&whole));

    // Which weights an evaluation takes.
    let eval = |args: &[&str]| {
        let mut command = trm();
        command.arg("eval").arg(&whole).args(args).arg("--json");
        serde_json::from_slice::<Value>(&succeed(command).stdout).unwrap()
    };
    let last = eval(&[]);
    assert_eq!(eval(&["--weights", "ema"]), last);
    let raw = eval(&["--weights", "raw"]);
    assert_ne!(raw, last);
    let file = whole.join("weights-best.safetensors");
    let of_best = eval(&["--weights", "best"]);
    assert_eq!(eval(&["--weights", file.to_str().unwrap()]), of_best);
    assert_eq!(of_best["token_accuracy"].as_f64(), evaluations.iter().find(|(step, _)| *step == best).map(|e| e.1));
    for (args, words) in [
        (vec!["--weights", "beste"], "--weights takes ema, raw, best"),
        (vec!["--weights", whole.join("config.toml").to_str().unwrap()], "not a whole safetensors file"),
    ] {
        let mut command = trm();
        command.arg("eval").arg(&whole).args(args);
        let said = fail(command, 2);
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_run_stops_when_evaluations_are_no_better_for_long_and_goes_on_when_it_may() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    let settings = ["lr=0", "eval_interval=2", "keep_best=token_accuracy", "stop_after=2", "max_steps=40"];
    let said = stderr(&succeed(train(&run, &settings)));
    assert!(said.contains("stopped after update 6: 2 evaluations in a row were no better"), "{said}");
    assert!(said.contains("after update 2; those weights in"), "{said}");
    assert!(run.join("checkpoint/state-000000000006.bin").is_file());
    let before = (bytes(&run, "weights.safetensors"), log(&run));
    succeed(resume(&run));
    assert!((bytes(&run, "weights.safetensors"), log(&run)) == before, "it stays ended");
    let mut patient = resume(&run);
    patient.args(["--set", "stop_after=3"]);
    let said = stderr(&succeed(patient));
    assert!(said.contains("stopped after update 8"), "{said}");
}

#[test]
fn what_cannot_be_chosen_by_is_refused_before_anything_is_written() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    let said = fail(train(&run, &["max_steps=4", "keep_best=valid"]), 2);
    assert!(said.contains("train.keep_best = \"valid\"") && said.lines().count() == 1, "{said}");
    assert!(!run.exists());
}

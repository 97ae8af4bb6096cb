//! `trm bench --profile` and `--scaling` against the binary: what they print, and what they refuse.

mod common;

use common::{fail, stdout, succeed, tiny, trm};

fn bench(more: &[&str]) -> std::process::Command {
    let mut command = trm();
    command.arg("bench").args(tiny(&[])).args(["--seconds", "0"]).args(more);
    command
}

fn json(more: &[&str]) -> serde_json::Value {
    serde_json::from_str(&stdout(&succeed(bench(&[more, &["--json"]].concat())))).unwrap()
}

#[test]
fn the_profile_is_a_table_or_json_whose_flops_are_the_models() {
    let text = stdout(&succeed(bench(&["--profile", "--threads", "2"])));
    for part in ["swiglu over positions", "optimizer, average, packing", "backward", "of limit %", "stopwatches cost"] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    let report = json(&["--profile", "--threads", "1"]);
    let updates = report["profile"]["updates"].as_f64().unwrap();
    let lines = report["profile"]["lines"].as_array().unwrap();
    let flops: f64 = lines.iter().map(|line| line["flops"].as_f64().unwrap()).sum();
    assert_eq!(flops, report["model_flops"].as_f64().unwrap() * updates);
}

#[test]
fn scaling_measures_powers_of_two_and_predicts_servers() {
    let report = json(&["--scaling", "--threads", "3"]);
    let numbers = |list: &str, key: &str| -> Vec<f64> {
        report[list].as_array().unwrap().iter().map(|row| row[key].as_f64().unwrap()).collect()
    };
    assert_eq!(numbers("measured", "threads"), [1.0, 2.0, 3.0]);
    assert_eq!(numbers("predicted", "cores"), [64.0, 128.0, 192.0]);
    assert_eq!(numbers("measured", "speed_up")[0], 1.0);
    for key in ["core_limit", "sequence_seconds", "core_bandwidth", "handover_seconds", "serial_per_sequence"] {
        assert!(report["machine"][key].as_f64().unwrap() > 0.0, "{key}: {report}");
    }
    let text = stdout(&succeed(bench(&["--scaling", "--threads", "1", "--batch", "4"])));
    assert!(text.contains("breaks first") && text.contains("batch 4,") && text.contains("batch 8 in 2"), "{text}");
}

#[test]
fn a_pinned_run_gives_the_bytes_of_a_free_one() {
    let dir = tempfile::tempdir().unwrap();
    let weights = |name: &str, more: &[&str]| {
        let out = dir.path().join(name);
        let mut command = common::train(&out, &["max_steps=3"]);
        command.args(more);
        succeed(command);
        std::fs::read(out.join("weights.safetensors")).unwrap()
    };
    assert!(weights("free", &[]) == weights("pinned", &["--pin"]));
    let mut eval = trm();
    eval.arg("eval").arg(dir.path().join("pinned")).args(["--pin", "--json"]);
    assert!(stdout(&succeed(eval)).contains("exact_accuracy"));
}

#[test]
fn what_cannot_be_measured_together_is_refused_in_one_line() {
    for (more, fragments) in [
        (&["--profile", "--scaling"][..], &["--profile", "--scaling"][..]),
        (&["--profile", "--only", "train"], &["--profile", "--only"]),
        (&["--scaling", "--only", "train"], &["--scaling", "--only"]),
        (&["--scaling", "--threads", "0"], &["--threads 0", "1 or more"]),
        (&["--profile", "--threads", "-1"], &["-1"]),
        (&["--scaling", "--batch", "0"], &["batch_size"]),
        (&["--pin=always"], &["--pin"]),
        (&["--profile", "--seconds", "-1"], &["--seconds"]),
    ] {
        let said = fail(bench(more), 2);
        assert!(said.lines().count() == 1 && said.starts_with("trm: "), "{more:?}: {said}");
        assert!(fragments.iter().all(|fragment| said.contains(fragment)), "{more:?}: {said}");
    }
}

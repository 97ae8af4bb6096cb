//! The paths of the CPU's kernels as a user meets them: which one is taken, that a run says so, and training on each of them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::common::{fail, resume, stderr, stdout, succeed, train, trm};
use serde_json::Value;
use trm::simd::{ISA_VARIABLE, Isa};

const SETTINGS: [&str; 4] = ["max_steps=24", "checkpoint_interval=2", "eval_interval=12", "seed=5"];

fn on(isa: Isa, mut command: Command) -> Command {
    command.env(ISA_VARIABLE, isa.name());
    command
}

/// Trains until there is a checkpoint, kills the process, and lets the run go on, on another path.
fn killed_and_resumed(run: &Path, settings: &[&str], [first, then]: [Isa; 2]) -> Output {
    let mut process = on(first, train(run, settings)).spawn().unwrap();
    let started = Instant::now();
    while !run.join("checkpoint/state-000000000002.bin").exists() && process.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(1));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    succeed(on(then, resume(run)))
}

/// The log without what a clock wrote.
fn log(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let record = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().remove("seconds");
        record
    };
    text.lines().map(record).collect()
}

#[test]
fn a_run_that_was_killed_ends_like_the_one_that_was_not_on_every_path() {
    let dir = tempfile::tempdir().unwrap();
    let models = [["mixing=attention", "detached_precision=same"], ["mixing=mlp_t", "detached_precision=int8"]];
    for (isa, model) in Isa::available().flat_map(|isa| models.map(|model| (isa, model))) {
        let [whole, killed] = ["whole", "killed"].map(|name| dir.path().join(isa.name()).join(model[0]).join(name));
        let settings = [&SETTINGS[..], &model].concat();
        succeed(on(isa, train(&whole, &settings)));
        let said = killed_and_resumed(&killed, &settings, [isa; 2]);
        assert!(!stderr(&said).contains("computed on"), "{}", stderr(&said));
        let config = fs::read_to_string(whole.join("config.toml")).unwrap();
        let precision = if isa.multiplies_pairs() { "\nprecision = \"bf16\"" } else { "\nprecision = \"f32\"" };
        assert!(config.contains(precision), "{config}");
        assert!(log(&whole).iter().all(|record| record.get("eval").is_some() || record["path"] == isa.name()));
        assert_eq!(log(&killed), log(&whole));
        let weights = |run: &Path| fs::read(run.join("weights.safetensors")).unwrap();
        assert!(weights(&killed) == weights(&whole), "{isa}, {model:?}: the weights differ");
    }
}

#[test]
fn a_run_that_goes_on_on_another_path_says_so_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let paths = [Isa::Portable, Isa::best()];
    let settings = [&SETTINGS[..], &["precision=f32"]].concat();
    let said = stderr(&killed_and_resumed(&run, &settings, paths));
    let lines = said.lines().filter(|line| line.contains("computed on portable, from here on on"));
    assert_eq!(lines.count(), usize::from(paths[0] != paths[1]), "{said}");
}

#[test]
fn info_says_which_path_is_taken_why_and_how_fast_each_is() {
    let info = |isa: Option<Isa>| -> Value {
        let mut command = trm();
        command.args(["info", "--json"]).env_remove(ISA_VARIABLE);
        let command = isa.into_iter().fold(command, |command, isa| on(isa, command));
        serde_json::from_str(&stdout(&succeed(command))).unwrap()
    };
    let free = info(None);
    assert_eq!(free["simd_forced"], false);
    assert!(Isa::ALL.iter().any(|isa| free["simd_path"] == isa.name()), "{free}");
    assert!(free["products"]["f32"].as_f64().unwrap() > 0.0, "{free}");
    assert_eq!(free["products"]["bf16_dot_products"].is_number(), Isa::Avx512Bf16.is_available(), "{free}");
    assert_eq!(free["amx_missing"].is_null(), Isa::Amx.is_available(), "{free}");
    for isa in Isa::available() {
        let forced = info(Some(isa));
        let expected = if isa.multiplies_pairs() { "bf16" } else { "f32" };
        assert_eq!((&forced["simd_path"], &forced["simd_forced"]), (&isa.name().into(), &true.into()), "{forced}");
        assert_eq!(forced["auto_precision"], expected, "{forced}");
    }
    let mut command = trm();
    command.arg("info");
    let text = stdout(&succeed(command));
    assert!(text.contains("GFLOP/s a core: f32") && text.contains("AMX"), "{text}");
}

#[test]
fn the_path_that_was_measured_once_is_taken_by_every_later_process() {
    let dir = tempfile::tempdir().unwrap();
    let info = || -> Value {
        let mut command = trm();
        command.args(["info", "--json"]).env_remove(ISA_VARIABLE).env("XDG_CACHE_HOME", dir.path());
        serde_json::from_str(&stdout(&succeed(command))).unwrap()
    };
    let file = dir.path().join("trm").join("paths");
    let (first, second) = (info(), info());
    assert_eq!(first["products"]["kept_in"], file.to_str().unwrap(), "{first}");
    assert_eq!(
        (&first["products"]["measured_now"], &second["products"]["measured_now"]),
        (&true.into(), &false.into())
    );
    assert_eq!(first["simd_path"], second["simd_path"]);
    if !Isa::Avx512Bf16.is_available() {
        return;
    }
    // Another measurement, another choice.
    let line = fs::read_to_string(&file).unwrap();
    let fields: Vec<&str> = line.trim_end().split('\t').collect();
    let with = |f32: &str, dots: &str| [fields[0], f32, dots, fields[3]].join("\t");
    for (rates, path) in [(with("500", "100"), "avx512-nobf16"), (with("100", "200"), "avx512")] {
        fs::write(&file, rates).unwrap();
        let found = info();
        assert!(found["simd_path"] == path || Isa::Amx.is_available(), "{found}");
    }
    fs::write(&file, "nonsense").unwrap();
    assert_eq!(info()["products"]["measured_now"], true);
}

#[test]
fn a_path_that_the_processor_lacks_is_refused_with_the_reason() {
    if Isa::Amx.is_available() {
        return;
    }
    let mut command = trm();
    command.arg("info");
    let said = fail(on(Isa::Amx, command), 2);
    assert!(said.lines().count() == 1 && said.contains("TRM_SIMD=amx: ") && said.contains("its best is"), "{said}");
}

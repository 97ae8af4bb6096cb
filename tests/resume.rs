//! Killed, interrupted, damaged: a run that goes on ends where the run that never stopped ended, byte for byte.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::{self, fail, resume, stderr, succeed, train};
use serde_json::Value;
use tempfile::TempDir;
use trm::rng::Rng;

/// Settings of the run that is stopped in every way below.
const SETTINGS: [&str; 6] =
    ["max_steps=320", "checkpoint_interval=4", "eval_interval=50", "continue_loss=true", "mixing=attention", "seed=3"];

/// The run that never stopped.
fn uninterrupted() -> &'static Path {
    static RUN: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, run) = RUN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        succeed(train(&run, &SETTINGS));
        (dir, run)
    });
    run
}

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("weights.safetensors")).unwrap()
}

/// The log without what a clock wrote.
fn log(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let record = |line: &str| {
        let mut record: Value = serde_json::from_str(line).unwrap();
        assert!(record.as_object_mut().unwrap().remove("seconds").is_some_and(|s| s.is_number()));
        record
    };
    text.lines().map(record).collect()
}

fn assert_ended_like_the_uninterrupted(run: &Path) {
    let whole = uninterrupted();
    assert!(weights(run) == weights(whole), "the weights differ");
    assert_eq!(log(run), log(whole));
    assert_eq!(fs::read(run.join("config.toml")).unwrap(), fs::read(whole.join("config.toml")).unwrap());
}

/// The newest checkpoint files, oldest first.
fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(run.join("checkpoint")) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "bin"));
    files.sort();
    files
}

/// Waits until a run has written a checkpoint that was not there before.
fn wait_for_a_new_checkpoint(run: &Path, child: &mut Child) {
    let before = checkpoints(run).pop();
    let started = Instant::now();
    while checkpoints(run).pop() == before {
        assert!(child.try_wait().unwrap().is_none(), "the run ended too soon");
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint came");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_run_killed_in_its_last_evaluation_keeps_every_update_and_evaluates_when_it_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    let settings = ["max_steps=3", "checkpoint_interval=0", "eval_interval=0", "test_puzzles=200", "halt_max_steps=64"];
    let mut child = train(&run, &settings).spawn().unwrap();
    wait_for_a_new_checkpoint(&run, &mut child);
    signal(&child, "KILL");
    child.wait().unwrap();
    let steps = || log(&run).iter().map(|record| (record["step"].as_u64(), record.get("eval").is_some())).collect();
    let updates = [(Some(1), false), (Some(2), false), (Some(3), false)];
    let before: Vec<(Option<u64>, bool)> = steps();
    assert_eq!(before, updates, "the checkpoint came before the evaluation");
    succeed(resume(&run));
    let after: Vec<(Option<u64>, bool)> = steps();
    assert_eq!((&after[..3], &after[3..]), (&updates[..], &[(Some(3), true)][..]));
}

#[test]
fn two_equal_runs_give_byte_equal_files() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("twin");
    let mut command = common::trm();
    command.arg("train").args(common::tiny(&SETTINGS)).args(["--threads", "1", "--out"]).arg(&run);
    succeed(command);
    assert_ended_like_the_uninterrupted(&run);
}

#[test]
fn a_run_killed_at_many_random_moments_ends_with_the_bytes_of_one_that_never_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut rng = Rng::new(u64::from(std::process::id()));
    let (mut kills, mut last) = (0, PathBuf::new());
    while kills < 10 {
        let started = run.join("config.toml").exists();
        let mut child = if started { resume(&run) } else { train(&run, &SETTINGS) }.spawn().unwrap();
        // Mostly soon after new checkpoints, so that the run moves on; sometimes at any moment of starting.
        if kills % 5 != 0 {
            wait_for_a_new_checkpoint(&run, &mut child);
            std::thread::sleep(Duration::from_micros(rng.below(40_000) as u64));
        } else {
            std::thread::sleep(Duration::from_micros(rng.below(400_000) as u64));
        }
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(9), "it ended by itself: {}", stderr(&output));
        kills += 1;
        let newest = checkpoints(&run).pop().unwrap_or_default();
        assert!(newest >= last, "a checkpoint was lost");
        last = newest;
    }
    println!("{kills} kills; the last checkpoint before the final run: {}", last.display());
    succeed(resume(&run));
    assert_ended_like_the_uninterrupted(&run);
    let leftovers: Vec<String> = fs::read_dir(&run)
        .unwrap()
        .chain(fs::read_dir(run.join("checkpoint")).unwrap())
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".tmp"))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[test]
fn ctrl_c_and_sigterm_save_and_print_the_command_that_resumes_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    for (i, name) in ["INT", "TERM"].into_iter().enumerate() {
        let mut child = if i == 0 { train(&run, &SETTINGS) } else { resume(&run) }.spawn().unwrap();
        wait_for_a_new_checkpoint(&run, &mut child);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        let said = stderr(&output);
        let last = said.lines().last().unwrap();
        let step = checkpoints(&run).pop().unwrap();
        let step: u64 = step.file_stem().unwrap().to_str().unwrap()[6..].parse().unwrap();
        assert!(last.contains(&format!("saved after update {step}; go on with: trm train --resume --out ")), "{said}");
        assert!(last.ends_with(run.to_str().unwrap()), "{said}");
        assert_eq!(log(&run).last().unwrap()["step"], step);
    }
    succeed(resume(&run));
    assert_ended_like_the_uninterrupted(&run);
}

#[test]
fn a_second_ctrl_c_ends_at_once_and_the_run_can_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    // One update takes seconds, so that the second signal finds it still at the first.
    let long = ["h_cycles=1000", "l_cycles=100", "gradient=one_step", "max_steps=2", "batch_size=64"];
    let mut child = train(&run, &long).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.by_ref().any(|line| line.unwrap().contains("FMA limit")));
    signal(&child, "INT");
    assert!(said.by_ref().any(|line| line.unwrap().contains("press again")));
    let pressed = Instant::now();
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(pressed.elapsed() < Duration::from_secs(2));
    assert!(checkpoints(&run).is_empty());
}

#[test]
fn a_finished_run_resumes_to_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    succeed(train(&run, &["max_steps=6"]));
    let (before, lines) = (weights(&run), log(&run));
    succeed(resume(&run));
    assert!(weights(&run) == before);
    assert_eq!(log(&run), lines);
}

#[test]
fn resuming_with_changed_settings_names_the_difference_and_changes_nothing() {
    let run = uninterrupted();
    let before = (weights(run), log(run));
    for (args, difference) in [
        (["--set", "lr=1e-3"], "train.lr: 0.002 -> 0.001"),
        (["--set", "hidden_size=64"], "model.hidden_size: 32 -> 64"),
        (["--seed", "4"], "train.seed: 3 -> 4"),
        (["--max-steps", "700"], "train.max_steps: 320 -> 700"),
        (["--preset", "sudoku-6x6"], "data.sudoku_size: 4 -> 6"),
    ] {
        let mut command = resume(run);
        command.args(args);
        let said = fail(command, 2);
        assert!(said.contains(difference) && said.contains("--resume"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // Saying again what the run was started with is no change.
    let mut command = resume(run);
    command.args(common::tiny(&SETTINGS)).args(["--seed", "3", "--max-steps", "320"]);
    succeed(command);
    assert!((weights(run), log(run)) == before);
}

#[test]
fn a_second_process_is_refused_while_the_first_runs_and_accepted_after_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut first = train(&run, &["max_steps=100000", "checkpoint_interval=4"]).spawn().unwrap();
    wait_for_a_new_checkpoint(&run, &mut first);
    for second in [resume(&run), train(&run, &["max_steps=8"])] {
        let said = fail(second, 2);
        assert!(said.contains(&format!("in use by process {}", first.id())), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // Reading needs no lock.
    let mut eval = common::trm();
    eval.arg("eval").arg(&run).args(["--threads", "1"]);
    succeed(eval);
    assert!(first.try_wait().unwrap().is_none(), "the first was disturbed");
    first.kill().unwrap();
    first.wait().unwrap();
    let mut second = resume(&run).spawn().unwrap();
    wait_for_a_new_checkpoint(&run, &mut second);
    second.kill().unwrap();
    second.wait().unwrap();
    let said = fail(train(&run, &["max_steps=8"]), 2);
    assert!(said.contains("holds a run already; go on with --resume"), "{said}");
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut child = train(&run, &SETTINGS).spawn().unwrap();
    wait_for_a_new_checkpoint(&run, &mut child);
    wait_for_a_new_checkpoint(&run, &mut child);
    wait_for_a_new_checkpoint(&run, &mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    let files = checkpoints(&run);
    let [.., previous, newest] = files.as_slice() else { panic!("two are kept: {files:?}") };
    assert!(previous.exists());
    let mut bytes = fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(newest, &bytes).unwrap();
    let said = stderr(&succeed(resume(&run)));
    let name = newest.file_name().unwrap().to_str().unwrap();
    let warning = said.lines().find(|line| line.contains("checksum")).unwrap_or_else(|| panic!("no warning: {said}"));
    assert!(warning.contains(name) && warning.contains("falling back"), "{said}");
    assert_ended_like_the_uninterrupted(&run);

    for file in checkpoints(&run) {
        fs::write(file, b"rubbish").unwrap();
    }
    let before = weights(&run);
    let said = fail(resume(&run), 2);
    assert!(said.contains("no checkpoint is whole"), "{said}");
    assert!(weights(&run) == before);
}

#[test]
fn resuming_with_other_training_data_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, run) = (dir.path().join("data"), dir.path().join("run"));
    let build = |seed: &str| {
        let mut command = common::trm();
        command.args(["data", "build", "sudoku", "--size", "4", "--count", "60", "--test", "20"]);
        command.args(["--seed", seed, "--out"]).arg(&data);
        succeed(command);
    };
    build("1");
    let mut command = train(&run, &["max_steps=8", "checkpoint_interval=4"]);
    command.arg("--data").arg(&data);
    succeed(command);
    let before = (weights(&run), log(&run));
    fs::rename(&data, dir.path().join("old")).unwrap();
    let said = fail(resume(&run), 2);
    assert!(said.contains("data"), "{said}");
    build("2");
    let said = fail(resume(&run), 2);
    assert!(said.contains("training data is not what this run started with"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!((weights(&run), log(&run)) == before);
    fs::remove_dir_all(&data).unwrap();
    fs::rename(dir.path().join("old"), &data).unwrap();
    succeed(resume(&run));
    assert!((weights(&run), log(&run)) == before);
}

#[test]
fn usr1_and_usr2_save_at_once_and_the_run_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    // No checkpoint of its own before the end.
    let own = [
        "max_steps=320",
        "checkpoint_interval=0",
        "eval_interval=50",
        "continue_loss=true",
        "mixing=attention",
        "seed=3",
    ];
    let mut child = train(&run, &own).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.by_ref().any(|line| line.unwrap().contains("FMA limit")));
    for name in ["USR1", "USR2"] {
        signal(&child, name);
        let line = said.by_ref().map(Result::unwrap).find(|line| line.starts_with("saved after update "));
        let line = line.unwrap_or_else(|| panic!("{name}: nothing was saved"));
        assert!(line.ends_with(", going on"), "{line}");
    }
    let saved = checkpoints(&run).len();
    assert!(saved >= 1, "a checkpoint was written");
    // What was saved can be gone on with.
    child.kill().unwrap();
    child.wait().unwrap();
    succeed(resume(&run));
    assert!(weights(&run) == weights(uninterrupted()), "the weights differ");
}

#[test]
fn a_checkpoint_asked_for_in_the_middle_of_an_evaluation_does_not_wait_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    // The evaluation after update 3 takes much longer than an update.
    let long = ["max_steps=4", "checkpoint_interval=0", "eval_interval=3", "test_puzzles=200", "halt_max_steps=64"];
    let mut child = train(&run, &long).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.by_ref().any(|line| line.unwrap().contains("FMA limit")));
    let started = Instant::now();
    while !fs::read_to_string(run.join("metrics.jsonl")).is_ok_and(|log| log.lines().count() == 3) {
        assert!(started.elapsed() < Duration::from_secs(60), "no third update came");
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(&child, "USR1");
    let lines: Vec<String> = said.map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success());
    let at =
        |word: &str| lines.iter().position(|line| line.contains(word)).unwrap_or_else(|| panic!("{word}: {lines:?}"));
    assert!(at("saved after update 3, going on") < at("test: exact"), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains("test: exact")).count(), 2, "{lines:?}");
    let evaluated = |record: &Value| record.get("eval").map(|_| record["step"].as_u64());
    assert_eq!(log(&run).iter().filter_map(evaluated).collect::<Vec<_>>(), [Some(3), Some(4)]);
}

#[test]
fn a_hang_up_saves_and_ends_a_run_unless_it_was_started_with_nohup() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut child = train(&run, &SETTINGS).spawn().unwrap();
    wait_for_a_new_checkpoint(&run, &mut child);
    signal(&child, "HUP");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("saved after update"), "{}", stderr(&output));

    let plain = resume(&run);
    let mut nohup = Command::new("nohup");
    nohup.arg(plain.get_program()).args(plain.get_args()).stdin(std::process::Stdio::null());
    let mut child = nohup.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_for_a_new_checkpoint(&run, &mut child);
    signal(&child, "HUP");
    assert!(child.wait().unwrap().success(), "nohup ignores it");
    assert_ended_like_the_uninterrupted(&run);
}

#[test]
fn a_second_sigterm_is_none_to_hurry() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut child = train(&run, &SETTINGS).spawn().unwrap();
    wait_for_a_new_checkpoint(&run, &mut child);
    // As `timeout` does, and a shell that passes on what its terminal has sent already.
    for name in ["TERM", "HUP", "TERM"] {
        signal(&child, name);
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    assert!(stderr(&output).contains("saved after update"), "{}", stderr(&output));
}

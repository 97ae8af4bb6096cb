//! The commands as a user meets them, on one tiny run.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::{self, stderr, stdout, succeed, train, trm};
use serde_json::Value;
use tempfile::TempDir;
use trm::config::Config;
use trm::dataset::TaskData;
use trm::puzzle::sudoku::{Geometry, Grid, Solutions, solve};

/// A short run, and what `trm train` printed on its way.
fn run() -> &'static (PathBuf, String, String) {
    static RUN: OnceLock<(TempDir, (PathBuf, String, String))> = OnceLock::new();
    let (_, run) = RUN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let output = succeed(train(&run, &["max_steps=40", "eval_interval=20"]));
        (dir, (run, stdout(&output), stderr(&output)))
    });
    run
}

/// The questions of the run's test split, as text.
fn questions() -> Vec<String> {
    let config = Config::resolve(None, Some(&run().0.join("config.toml")), &[]).unwrap();
    let data = TaskData::load(&config.data).unwrap();
    let split = data.split("test").unwrap();
    let geometry = Geometry::of_cells(16).unwrap();
    let text = |row: std::borrow::Cow<[u8]>| Grid::from_tokens(geometry, &row).unwrap().to_string();
    split.inputs.rows().map(Result::unwrap).map(text).collect()
}

#[test]
fn train_ends_with_a_sample_solved_step_by_step_and_the_commands_to_try_next() {
    let (run, out, err) = run();
    assert!(
        out.contains("A puzzle it has not seen, under any symmetry:\n(4×4 has only 288 grids: solutions are shared)")
            && out.contains("step 1 of "),
        "{out}"
    );
    let verdicts = out.lines().filter(|line| line.contains("a valid solution") || line.contains("not a solution"));
    assert_eq!(verdicts.count(), 1, "{out}");
    let next: Vec<&str> = out.lines().rev().take(2).collect();
    assert!(next[1].contains(&format!("trm eval {}", run.display())), "{out}");
    assert!(next[0].contains(&format!("trm solve {} {} --watch", run.display(), questions()[0])), "{out}");
    assert!(err.contains("step 40/40") && err.contains("puzzles/s") && err.contains("MFU"), "{err}");
    assert_eq!(err.lines().filter(|line| line.contains("test: exact")).count(), 2, "{err}");
    assert!(!err.contains('\r') && !err.contains('\x1b') && !out.contains('\x1b'), "plain where there is no terminal");
}

#[test]
fn a_run_folder_holds_every_setting_the_log_the_weights_and_the_checkpoints() {
    let (run, ..) = run();
    let config = Config::resolve(None, Some(&run.join("config.toml")), &[]).unwrap();
    assert_eq!((config.model.hidden_size, config.train.max_steps), (32, 40));
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.iter().filter(|r| r.get("loss").is_some()).count(), 40);
    assert_eq!(records.iter().filter(|r| r["eval"]["exact_accuracy"].is_number()).count(), 2);
    trm::checkpoint::load_weights(&run.join("weights.safetensors")).unwrap();
    assert!(run.join("checkpoint/state-000000000040.bin").is_file());
}

fn eval_json(args: &[&Path]) -> Value {
    let mut command = trm();
    command.arg("eval").args(args).arg("--json");
    serde_json::from_slice(&succeed(command).stdout).unwrap()
}

#[test]
fn eval_reports_accuracy_after_each_supervision_step_the_same_from_run_and_from_bare_weights() {
    let (run, ..) = run();
    let report = eval_json(&[run]);
    assert_eq!(report["puzzles"], 20);
    let steps = report["by_step"].as_array().unwrap();
    assert_eq!(steps.len(), 4);
    for (i, step) in steps.iter().enumerate() {
        assert_eq!(step["step"], i as u64 + 1);
        for key in ["exact_accuracy", "token_accuracy", "halt_accuracy"] {
            assert!((0.0..=1.0).contains(&step[key].as_f64().unwrap()), "{step}");
        }
    }
    for key in ["exact_accuracy", "token_accuracy"] {
        assert_eq!(report[key], steps[3][key]);
    }
    let [low, high] = [0, 1].map(|i| report["exact_accuracy_95"][i].as_f64().unwrap());
    assert!(low <= report["exact_accuracy"].as_f64().unwrap() && report["exact_accuracy"].as_f64().unwrap() <= high);

    // The log's last evaluation, and the bare weights with their settings, say the same.
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(last["eval"]["by_step"], report["by_step"]);
    let elsewhere = tempfile::tempdir().unwrap();
    for file in ["weights.safetensors", "config.toml"] {
        fs::copy(run.join(file), elsewhere.path().join(file)).unwrap();
    }
    let bare = [elsewhere.path().join("weights.safetensors"), "--config".into(), elsewhere.path().join("config.toml")];
    assert_eq!(eval_json(&[&bare[0], &bare[1], &bare[2]]), report);
    assert_eq!(eval_json(&[run, Path::new("--threads"), Path::new("1")]), report);
    assert_eq!(eval_json(&[run, Path::new("--steps"), Path::new("2")])["by_step"].as_array().unwrap()[..], steps[..2]);
    let mut table = trm();
    table.arg("eval").arg(run);
    let table = stdout(&succeed(table));
    assert!(table.contains("of 20 puzzles exact") && table.contains("95 % interval"), "{table}");
}

#[test]
fn solve_prints_the_grid_a_true_verdict_confidence_and_steps() {
    let (run, ..) = run();
    let geometry = Geometry::of_cells(16).unwrap();
    for (i, question) in questions().iter().enumerate() {
        let mut command = trm();
        command.arg("solve").arg(run).arg(question);
        let watch = i == 0;
        if watch {
            command.arg("--watch");
        }
        let out = stdout(&succeed(command));
        let mut lines = out.lines().rev();
        let (verdict, grid) = (lines.next().unwrap(), lines.next().unwrap());
        let grid = Grid::parse(geometry, grid).unwrap();
        let Solutions::Unique(solution) = solve(&Grid::parse(geometry, question).unwrap()) else {
            panic!("{question}")
        };
        let right = if grid == solution { "a valid solution, confidence " } else { "not a solution, confidence " };
        assert!(verdict.starts_with(right) && verdict.ends_with(" %, 4 supervision steps"), "{out}");
        assert_eq!(out.matches("step ").count(), if watch { 4 } else { 0 }, "{out}");
        if i == 2 {
            break;
        }
    }
    let spaced: String = questions()[0].chars().map(|c| format!("{c}\n")).collect();
    let mut piped = trm();
    piped.arg("solve").arg(run).args(["-", "--steps", "1"]).stdin(std::process::Stdio::piped());
    let mut child = piped.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), spaced.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && stdout(&output).ends_with(", 1 supervision step\n"), "{}", stderr(&output));
    let mut halting = trm();
    halting.arg("solve").arg(run).args([&*questions()[0], "--halt", "--steps", "9"]);
    assert!(stdout(&succeed(halting)).contains(" supervision step"));
}

#[test]
fn a_sudoku_with_several_solutions_is_answered_with_a_note_that_names_two() {
    let (run, ..) = run();
    for puzzle in ["................", "-1..............."] {
        let mut command = trm();
        command.arg("solve").arg(run).arg(puzzle);
        let output = succeed(command);
        let said = stderr(&output);
        assert!(said.lines().count() == 1 && said.starts_with("trm: the puzzle has several solutions, "), "{said}");
        assert!(stdout(&output).contains(" supervision steps"), "{}", stdout(&output));
    }
}

#[test]
fn halting_goes_by_a_confidence_or_by_the_rule_of_training() {
    let (run, ..) = run();
    let steps = |halt: &[&str]| {
        let args: Vec<&Path> = std::iter::once(run.as_path()).chain(halt.iter().map(Path::new)).collect();
        eval_json(&args)["mean_steps"].as_f64().unwrap()
    };
    let [by_rule, half, low, high] =
        [&["--halt"][..], &["--halt", "0.5"], &["--halt", "1e-9"], &["--halt", "0.999999999"]].map(steps);
    assert_eq!((by_rule, low, high), (half, 1.0, 4.0));
    for wrong in ["1", "0", "-1", "nan", "95", "x"] {
        let mut command = trm();
        command.arg("eval").arg(run).args(["--halt", wrong]);
        let said = common::fail(command, 2);
        assert!(said.lines().count() == 1 && said.contains("--halt") && said.contains("such as 0.95"), "{said}");
    }
    let mut first = trm();
    first.args(["eval", "--halt"]).arg(run);
    let said = common::fail(first, 2);
    assert!(said.lines().count() == 1 && said.contains("write --halt last"), "{said}");
}

#[test]
fn pictures_and_submissions_replace_nothing_that_is_not_theirs() {
    let (run, ..) = run();
    let dir = tempfile::tempdir().unwrap();
    let plot = |out: &Path, more: &[&str]| {
        let mut command = trm();
        command.arg("plot").arg(run).arg("--out").arg(out).args(more);
        command
    };
    for file in ["config.toml", "metrics.jsonl", "weights.safetensors"] {
        let before = fs::read(run.join(file)).unwrap();
        for more in [&[][..], &["--force"]] {
            let said = common::fail(plot(&run.join(file), more), 2);
            assert!(said.lines().count() == 1 && said.contains(file) && said.contains(".svg"), "{said}");
        }
        assert!(fs::read(run.join(file)).unwrap() == before);
    }
    let picture = dir.path().join("loss.svg");
    fs::write(&picture, "<svg>by hand</svg>").unwrap();
    let said = common::fail(plot(&picture, &[]), 2);
    assert!(said.contains("--force") && fs::read(&picture).unwrap() == b"<svg>by hand</svg>", "{said}");
    succeed(plot(&picture, &["--force"]));
    // Ours by now.
    succeed(plot(&picture, &["--what", "accuracy"]));
    let said = common::fail(plot(&dir.path().join("loss.png"), &[]), 2);
    assert!(said.contains(".svg") && !dir.path().join("loss.png").exists(), "{said}");
}

#[test]
fn a_reader_that_goes_away_stops_no_training_and_makes_nothing_panic() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let mut child = train(&out, &["max_steps=40", "eval_interval=10"]).spawn().unwrap();
    // `trm train 2>&1 | head -1`
    let mut first = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut first).unwrap();
    drop(child.stdout.take());
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(out.join("checkpoint/state-000000000040.bin").is_file());

    let (run, ..) = run();
    let commands: [&[&str]; 7] = [
        &["presets"],
        &["info"],
        &["completions", "bash"],
        &["eval", run.to_str().unwrap()],
        &["eval", run.to_str().unwrap(), "--json"],
        &["solve", run.to_str().unwrap(), &questions()[0], "--watch"],
        &["train", "--help"],
    ];
    for args in commands {
        let mut child = trm().args(args).spawn().unwrap();
        drop(child.stdout.take());
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let status = child.wait().unwrap();
        assert!(said.is_empty() && status.success(), "trm {args:?}: {status} {said}");
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let mut command = trm();
    command.arg("--help");
    let top = stdout(&succeed(command));
    let commands: Vec<&str> = top
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()))
        .filter(|&name| name != "help")
        .collect();
    for known in ["train", "eval", "solve", "data", "presets", "gradcheck", "info", "completions"] {
        assert!(commands.contains(&known), "{top}");
    }
    let mut paths: Vec<Vec<&str>> = commands.iter().map(|&name| vec![name]).collect();
    paths.extend([["data", "info"], ["data", "audit"]].map(Vec::from));
    paths.extend([["data", "build", "sudoku"], ["data", "import", "sudoku-extreme"]].map(Vec::from));
    for path in paths {
        let mut command = trm();
        command.args(&path).arg("--help");
        let help = stdout(&succeed(command));
        assert!(help.contains("Usage: trm") && help.contains("Example"), "trm {path:?} --help:\n{help}");
    }
    let mut version = trm();
    version.arg("--version");
    assert!(stdout(&succeed(version)).starts_with("trm "));
    let nothing = trm().output().unwrap();
    assert_eq!(nothing.status.code(), Some(2));
    assert!(stderr(&nothing).contains("Usage: trm"));
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let mut command = trm();
        command.args(["completions", shell]);
        let script = stdout(&succeed(command));
        assert!(script.contains("gradcheck") && script.contains("max-steps"), "{shell}: {script}");
    }
}

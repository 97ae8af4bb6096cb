//! A model is asked about the data it knows, wherever that lies now and whoever has numbered it: tasks and symbols go by
//! their names, and what is not known is named.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{fail, stderr, stdout, succeed, trm};
use serde_json::Value;
use trm::dataset::Dataset;

fn command(args: &[&str]) -> Command {
    let mut command = trm();
    command.args(args);
    command
}

/// `trm` with `args`, each folder in it below `home`.
fn at(home: &Path, args: &[&str]) -> Command {
    let mut command = command(args);
    command.current_dir(home);
    command
}

const SMALL: &str = "hidden_size=32 inner_multiple=32 n_heads=1 h_cycles=1 l_cycles=1 \
                     n_layers=1 halt_max_steps=2 eval_interval=0";

fn train(home: &Path, set: &str, run: &str, steps: &str, more: &[&str]) -> Command {
    let mut command = at(home, &["train", "--data", set, "--out", run, "--max-steps", steps, "--threads", "2"]);
    SMALL.split(' ').chain(more.iter().copied()).for_each(|setting| _ = command.args(["--set", setting]));
    command
}

fn json(command: Command) -> Value {
    serde_json::from_str(&stdout(&succeed(command))).expect("JSON")
}

/// A data set with its puzzle identifiers in another order, and every puzzle told so.
fn renumbered(from: &Path, to: &Path) {
    let mut data = Dataset::read(from).unwrap();
    let last = data.identifiers.len() - 1;
    data.identifiers[1..].reverse();
    for split in data.splits.values_mut() {
        split.puzzle_identifiers.iter_mut().filter(|id| **id > 0).for_each(|id| *id = 1 + last as u32 - *id);
    }
    data.write(to).unwrap();
}

#[test]
fn tasks_are_known_by_name_and_unknown_ones_are_named() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let arc = ["data", "build", "arc", "--demonstrations", "20", "--tests", "4", "--side", "5", "--out"];
    succeed(at(home, &[&arc[..], &["set", "--tasks", "6"]].concat()));
    succeed(at(home, &[&arc[..], &["more", "--tasks", "8"]].concat()));
    succeed(train(home, "set", "run", "60", &["lr=3e-3", "batch_size=16", "puzzle_emb_ndim=32", "puzzle_emb_len=1"]));
    let own = json(at(home, &["eval", "run", "--json"]));
    renumbered(&home.join("set"), &home.join("renumbered"));
    let named = json(at(home, &["eval", "run", "--json", "--data", "renumbered"]));
    assert_eq!(named, own, "tasks in another order are the same tasks");
    let blank = json(at(home, &["eval", "run", "--json", "--id", "blank", "--data", "renumbered"]));
    assert_ne!(blank["by_step"], own["by_step"], "it does matter whose puzzle it is said to be");

    // A set with tasks that the model has never seen.
    let line = fail(at(home, &["eval", "run", "--data", "more"]), 2);
    assert!(line.contains("2 of the 8 puzzle identifiers") && line.contains("--id blank"), "{line}");
    succeed(at(home, &["eval", "run", "--data", "more", "--id", "blank"]));
    let [own_names, more] = ["set", "more"].map(|set| Dataset::read(home.join(set)).unwrap().identifiers);
    let new = more.iter().find(|name| !own_names.contains(name)).unwrap();
    let line = fail(at(home, &["solve", "run", new, "--data", "more"]), 2);
    assert!(line.contains("without a task of that name"), "{line}");
    succeed(at(home, &["solve", "run", &own_names[2], "--data", "renumbered"]));

    // The set was built again in its place.
    fs::remove_dir_all(home.join("set")).unwrap();
    succeed(at(home, &[&arc[..], &["set", "--tasks", "6", "--seed", "1"]].concat()));
    let said = fail(at(home, &["eval", "run"]), 2);
    assert!(said.contains("training rows are not those that the run was trained with"), "{said}");
    assert!(said.contains("none of those that the model was trained with"), "{said}");
    let said = stderr(&succeed(at(home, &["eval", "run", "--id", "blank"])));
    assert!(said.contains("training rows are not those that the run was trained with"), "{said}");
    let line = fail(at(home, &["train", "--resume", "--out", "run"]), 2);
    assert!(line.contains("training data is not what this run started with"), "{line}");
}

#[test]
fn a_set_and_its_run_may_be_moved_together_or_apart() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    succeed(at(home, &["data", "build", "sudoku", "--size", "4", "--count", "30", "--test", "10", "--out", "set"]));
    succeed(train(home, "set", "run", "3", &[]));
    let own = json(at(home, &["eval", "run", "--json"]));
    // From anywhere.
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(json(at(elsewhere.path(), &["eval", home.join("run").to_str().unwrap(), "--json"])), own);
    // Together.
    fs::create_dir(home.join("new")).unwrap();
    for name in ["set", "run"] {
        fs::rename(home.join(name), home.join("new").join(name)).unwrap();
    }
    assert_eq!(json(at(home, &["eval", "new/run", "--json"])), own);
    // Apart.
    fs::rename(home.join("new/set"), home.join("moved")).unwrap();
    let line = fail(at(home, &["eval", "new/run"]), 2);
    assert!(line.contains("is not there; say where it is now with --data"), "{line}");
    let line = fail(at(home, &["train", "--resume", "--out", "new/run"]), 2);
    assert!(line.contains("is not there; say where it is now with --data"), "{line}");
    succeed(at(
        home,
        &["data", "build", "sudoku", "--size", "4", "--count", "30", "--test", "9", "--seed", "1", "--out", "o"],
    ));
    let line = fail(at(home, &["train", "--resume", "--out", "new/run", "--data", "o"]), 2);
    assert!(line.contains("training data is not what this run started with"), "{line}");
    let log = fs::read(home.join("new/run/config.toml")).unwrap();
    assert!(!String::from_utf8(log).unwrap().contains("/o\""), "a refused set leaves the settings alone");
    succeed(at(home, &["train", "--resume", "--out", "new/run", "--data", "moved"]));
    assert_eq!(json(at(home, &["eval", "new/run", "--json"])), own, "and from now on it is known");
}

#[test]
fn another_file_of_the_same_symbols_can_be_evaluated() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let import = |name: &str, lines: &[&str]| {
        fs::write(home.join(format!("{name}.jsonl")), lines.join("\n")).unwrap();
        let file = format!("{name}.jsonl");
        succeed(at(home, &["data", "import", "jsonl", &file, "--test-share", "0.5", "--out", name]));
    };
    let both = [r#"{"question": "1.\n..", "answer": "12\n21"}"#, r#"{"question": "2.\n..", "answer": "21\n12"}"#];
    import("both", &[both[0], both[1], r#"{"question": ".1", "answer": "21"}"#]);
    // Without the symbol 2, and without a board that is smaller than the others.
    import("ones", &[r#"{"question": "1.\n..", "answer": "11\n11"}"#, r#"{"question": ".1\n..", "answer": "11\n11"}"#]);
    import("small", &[r#"{"question": "1.", "answer": "12"}"#, r#"{"question": ".1", "answer": "21"}"#]);
    import("wide", &[r#"{"question": "1...", "answer": "1221"}"#, r#"{"question": ".1..", "answer": "2112"}"#]);
    import(
        "letters",
        &[r#"{"question": "a.\n..", "answer": "ab\nba"}"#, r#"{"question": "b.\n..", "answer": "ba\nab"}"#],
    );
    succeed(train(home, "both", "run", "2", &[]));
    for set in ["both", "ones", "small"] {
        let result = json(at(home, &["eval", "run", "--json", "--data", set]));
        assert!(result["puzzles"].as_u64() > Some(0), "{set}: {result}");
    }
    for (set, what) in [("wide", "boards of 1×4, the model of 2×2"), ("letters", "the model knows no \"a\", \"b\"")] {
        let line = fail(at(home, &["eval", "run", "--data", set]), 2);
        assert!(line.contains(what) && line.lines().count() == 1, "{line}");
    }
    succeed(train(home, "ones", "full", "2", &[]));
    let line = fail(at(home, &["eval", "full", "--data", "both"]), 2);
    assert!(line.contains("2×2 throughout"), "{line}");
}

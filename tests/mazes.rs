//! Mazes as a user meets them: made, imported, audited, trained on, solved; and what is refused.

use std::fs;
use std::path::Path;

use crate::common::{fail, stderr, stdout, succeed, trm};
use ndarray_npy::{read_npy, write_npy};
use trm::dataset::{Dataset, audit, info, maze};
use trm::puzzle::maze::PathSpec;

const TINY: &str = "hidden_size=32 inner_multiple=32 h_cycles=1 l_cycles=2 train_puzzles=60 test_puzzles=20 \
                    batch_size=8 halt_max_steps=3 maze_size=6 min_path=6 max_steps=12 eval_interval=6";

#[test]
fn a_run_on_mazes_is_trained_evaluated_and_solved_in_the_terminal() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    let mut command = trm();
    command.args(["train", "--preset", "maze-8x8", "--threads", "2", "--out"]).arg(&run);
    TINY.split(' ').for_each(|set| _ = command.args(["--set", set]));
    let output = succeed(command);
    assert!(stderr(&output).contains("  valid "), "{}", stderr(&output));
    assert!(stdout(&output).contains("A maze of the test split:"), "{}", stdout(&output));

    let mut command = trm();
    command.arg("eval").arg(&run).arg("--json");
    let report: serde_json::Value = serde_json::from_slice(&succeed(command).stdout).unwrap();
    assert!(report["valid"].as_f64().unwrap() >= report["exact_accuracy"].as_f64().unwrap(), "{report}");
    let mut command = trm();
    command.arg("eval").arg(&run);
    assert!(stdout(&succeed(command)).contains("of the answers are a valid shortest path"));

    let mut command = trm();
    command.arg("solve").arg(&run).args(["S.....\n.####.\n.#....\n.#.###\n.#....\n.####G", "--watch"]);
    let out = stdout(&succeed(command));
    assert_eq!(out.matches("step ").count(), 3, "{out}");
    assert!(out.contains("shortest path, confidence "), "{out}");
    let mut command = trm();
    command.arg("solve").arg(&run).arg("S.....");
    assert!(fail(command, 2).contains("has 6 cells, expected 36"));
}

#[test]
fn a_set_that_was_built_is_told_from_its_files_and_audited_clean_with_its_copies() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("set");
    let mut command = trm();
    command.args(["data", "build", "maze", "--size", "7", "--count", "20", "--test", "5", "--min-path", "10"]);
    command.args(["--dihedral", "--out"]).arg(&out);
    assert!(
        stdout(&succeed(command)).contains("maze 7×7; train 160 rows (20 puzzles, each with 7 copies), test 5 rows")
    );
    let set = Dataset::read(&out).unwrap();
    assert_eq!(set, maze::build(7, 20, 5, PathSpec { min_path: 10, unique_path: false }, true, 0).unwrap());
    assert_eq!(info(&set).unwrap().puzzle, "maze 7×7");
    let report = audit(&set).unwrap();
    assert!(!report.leaks() && report.faults() == 0, "{report}");
    assert_eq!((report.splits[0].copies, report.splits[0].duplicates_up_to_symmetry), (140, 0));
    assert!(report.splits[0].sizes.keys().all(|&length| length >= 10));
    let mut command = trm();
    command.args(["data", "audit"]).arg(&out);
    assert!(stdout(&succeed(command)).contains("puzzles by cells on the shortest path"));
}

#[test]
fn an_audit_finds_wrong_paths_leaks_and_false_copies() {
    let mut set = maze::build(7, 20, 5, PathSpec { min_path: 10, unique_path: false }, true, 0).unwrap();
    // A test maze that is a training maze reflected; a copy of another maze; an answer without its path.
    let train = set.splits.get("train").unwrap().clone();
    let test = set.splits.get_mut("test").unwrap();
    test.inputs.row_mut(2).copy_from_slice(&train.inputs.row(8 * 3 + 6).unwrap());
    test.labels.row_mut(2).copy_from_slice(&train.labels.row(8 * 3 + 6).unwrap());
    let question = test.inputs.row(4).unwrap().into_owned();
    test.labels.row_mut(4).copy_from_slice(&question);
    let (row, label) = (train.inputs.row(0).unwrap().into_owned(), train.labels.row(0).unwrap().into_owned());
    let train = set.splits.get_mut("train").unwrap();
    train.inputs.row_mut(17).copy_from_slice(&row);
    train.labels.row_mut(17).copy_from_slice(&label);
    let report = audit(&set).unwrap();
    assert!(report.leaks() && report.across[0].equivalent_puzzles == 1, "{report}");
    assert_eq!((report.splits[1].wrong_answers, report.splits[0].copies_that_are_no_images), (1, 1), "{report}");
}

/// The published mazes, where they are at hand.
#[test]
fn the_published_mazes_are_read_audited_clean_and_each_has_several_shortest_paths() {
    let Some(data) = std::env::var_os("TRM_DATA") else {
        println!("not run: TRM_DATA names no folder with the published sets");
        return;
    };
    let set = Dataset::read(Path::new(&data).join("maze-30x30-hard-1k")).unwrap();
    assert_eq!(info(&set).unwrap().puzzle, "maze 30×30");
    let report = audit(&set).unwrap();
    println!("{report}");
    assert!(!report.leaks() && report.faults() == 0);
    assert!(report.splits.iter().all(|split| split.sizes.keys().all(|&length| length >= 110)));
}

#[test]
fn malformed_maze_files_are_refused_in_one_line_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let (csv, out) = (home.path().join("mazes.csv"), home.path().join("set"));
    let header = "source,question,answer,rating";
    for (text, expected) in [
        (String::new(), "no column \"question\""),
        (format!("{header}\n"), "has no puzzles after its header"),
        (format!("{header}\nown,S  #    G,So##oo  G,1"), ":2: answer is another maze than the question"),
        (
            format!("{header}\nown,S       G,SooXo  oG,1"),
            ":2: answer has 'X' at character 4; expected #, space, S, G or o",
        ),
        (format!("{header}\nown,S.......G,SooXo  oG,1"), ":2: question has '.' at character 2"),
        (format!("{header}\nown,S      G,SooooooG,1"), ":2: question has 8 characters; a maze is a square"),
        (format!("{header}\nown,S       G,Soo  o  G,1\nown,S  G,SooG,1"), ":3: question has 4 characters, expected 9"),
        (format!("{header}\nown,        G,Soo  o  G,1"), ":2: question has no S"),
        (format!("{header}\nown,SS      G,Soo  o  G,1"), ":2: question has 2 Ss"),
        (format!("{header}\nown,So      G,Soo  o  G,1"), ":2: question holds something else"),
        (format!("{header}\nown,S# ##   G,S# ##   G,1"), ":2: question has no way from S to G"),
        (format!("{header}\nown,S       G,S       G,1"), ":2: answer has no path; a shortest one is 3 `o`s"),
        (format!("{header}\nown,S       G,So     oG,1"), ":2: answer's 2 `o`s are no shortest path; one is 3"),
        (format!("{header}\nown,S       G,Soo o ooG,1"), ":2: answer's 5 `o`s are no shortest path"),
        (format!("{header}\nown,S       G,Sooo    G,1"), ":2: answer's 3 `o`s are no shortest path"),
        (format!("{header}\nown,S       G"), ":2: has 2 fields, the header has 4"),
    ] {
        fs::write(&csv, text).unwrap();
        let mut command = trm();
        command.args(["data", "import", "maze", "--csv"]).arg(&csv).arg("--out").arg(&out);
        let said = fail(command, 2);
        assert!(said.contains(expected) && said.lines().count() == 1 && !out.exists(), "{expected:?} in {said}");
    }
    // A row of a file may be wrong in a second place; and of two files with other sides, the one for testing gives way.
    let good = format!("\u{feff}{header}\nown,S       G,Soo  o  G,1\n");
    fs::write(&csv, &good).unwrap();
    let other = home.path().join("test.csv");
    let import = |test: &str| {
        fs::write(&other, test).unwrap();
        let mut command = trm();
        command
            .args(["data", "import", "maze", "--csv"])
            .arg(&csv)
            .arg("--test-csv")
            .arg(&other)
            .arg("--out")
            .arg(&out);
        command
    };
    let said = fail(import(&format!("{header}\nown,S  G,SooG,1")), 2);
    assert!(said.contains("test.csv:2: question has 4 characters, expected 9"), "{said}");
    succeed(import(&good));
    fs::remove_dir_all(&out).unwrap();
    let mut command = trm();
    command.args(["data", "build", "maze", "--size", "5", "--count", "4", "--test", "1", "--min-path", "26", "--out"]);
    command.arg(&out);
    assert!(fail(command, 2).contains("ask for a shorter path"));

    // The published form.
    maze::build(6, 4, 2, PathSpec { min_path: 4, unique_path: false }, false, 0).unwrap().write(&out).unwrap();
    let inputs = out.join("train/all__inputs.npy");
    let good = fs::read(&inputs).unwrap();
    let mut rows: ndarray::Array2<u8> = read_npy(&inputs).unwrap();
    rows[[1, 3]] = 9;
    write_npy(&inputs, &rows).unwrap();
    let refused = |what: &str| {
        let mut command = trm();
        command.args(["data", "audit"]).arg(&out);
        let said = fail(command, 2);
        assert!(said.contains("all__inputs.npy") && said.contains(what) && said.lines().count() == 1, "{said}");
    };
    refused("row 1, column 3: token 9 is outside the vocabulary of 6");
    fs::write(&inputs, &good[..good.len() - 7]).unwrap();
    refused("");
    fs::write(&inputs, b"").unwrap();
    refused("");
    // A row that is no maze is for the audit to find: exit code 1 after the report.
    rows[[1, 3]] = 5;
    write_npy(&inputs, &rows).unwrap();
    let mut command = trm();
    command.args(["data", "audit"]).arg(&out);
    assert!(fail(command, 1).contains("1 row is not valid"));
}

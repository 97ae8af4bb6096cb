//! ARC on the command line: every malformed file is one line and exit code 2; a set is imported, audited, trained on,
//! scored and shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{self, fail, stdout, succeed, trm};
use serde_json::Value;
use trm::dataset::Dataset;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_data/arc")
}

fn command(args: &[&str]) -> Command {
    let mut command = trm();
    command.args(args);
    command
}

fn import(dir: &Path, subsets: &str, test_set: &str, out: &Path) -> Command {
    let mut command = command(&["data", "import", "arc", "--subsets", subsets, "--test-set", test_set, "--aug", "2"]);
    command.arg("--dir").arg(dir).arg("--out").arg(out);
    command
}

const TASK: &str = r#"{"t1": {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}]}}"#;

/// Challenges, solutions (none: no file), what the one line must say.
const MALFORMED: &[(&str, Option<&str>, &[&str])] = &[
    ("", None, &["challenges.json", "EOF"]),
    ("[1, 2]", None, &["an object of tasks"]),
    ("{}", None, &["has no tasks"]),
    ("{\"t1\": 7}", None, &["challenges.json", "line 1"]),
    (r#"{"t1": {"train": []}}"#, None, &["missing field `test`"]),
    (r#"{"t1": {"train": [], "test": [{"input": [[1]]}]}}"#, None, &["task t1", "0 train pairs"]),
    (r#"{"t1": {"train": [{"input": [[1]]}], "test": [{"input": [[1]]}]}}"#, None, &["train pair 1", "no output"]),
    (
        r#"{"t1": {"train": [{"input": [[1, 2], [3]], "output": [[1]]}], "test": [{"input": [[1]]}]}}"#,
        None,
        &["task t1, train pair 1, input", "row 2 has 1 cells but row 1 has 2"],
    ),
    (
        r#"{"t1": {"train": [{"input": [[1]], "output": [[1, 10]]}], "test": [{"input": [[1]]}]}}"#,
        None,
        &["train pair 1, output", "row 1, column 2 is 10", "0 to 9"],
    ),
    (r#"{"t1": {"train": [{"input": [[-1]], "output": [[1]]}], "test": []}}"#, None, &["is -1"]),
    (r#"{"t1": {"train": [{"input": [[1.5]], "output": [[1]]}], "test": []}}"#, None, &["floating point"]),
    (r#"{"t1": {"train": [{"input": [[]], "output": [[1]]}], "test": []}}"#, None, &["the grid is empty"]),
    (r#"{"a|||b": {"train": [], "test": []}}"#, None, &["task \"a|||b\" has a name that identifiers cannot carry"]),
    (r#"{"": {"train": [], "test": []}}"#, None, &["task \"\" has a name that identifiers cannot carry"]),
    (r#"{"a\nb": {"train": [], "test": []}}"#, None, &["task \"a\\nb\" has a name that identifiers cannot carry"]),
    (
        r#"{"t1": {"train": [{"input": [[1]], "output": [[1]]}], "test": [{"input": [[1]]}]},
            "t1": {"train": [{"input": [[1]], "output": [[1]]}], "test": [{"input": [[1]]}]}}"#,
        None,
        &["has task t1 twice"],
    ),
    (TASK, Some(""), &["solutions.json", "EOF"]),
    (TASK, Some("{}"), &["solutions.json", "no solution of task t1"]),
    (TASK, Some(r#"{"t1": []}"#), &["0 outputs for the 1 test inputs of task t1"]),
    (TASK, Some(r#"{"t1": [[[1]]], "t2": [[[1]]]}"#), &["solves task t2"]),
    (TASK, Some(r#"{"t1": [[[1]]], "t1": [[[1]]]}"#), &["has task t1 twice"]),
    (TASK, Some(r#"{"t1": [[[1]]], "t\n\u001b[2J": [[[1]]]}"#), &["solves task t\\n\\u{1b}[2J, which"]),
    (TASK, Some(r#"{"t1": [[[1], [1, 2]]]}"#), &["task t1, output 1", "row 2 has 2"]),
];

#[test]
fn every_malformed_file_is_one_line_that_says_where_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    let challenges = home.path().join("arc-agi_training_challenges.json");
    let solutions = home.path().join("arc-agi_training_solutions.json");
    let check = |text: &str, answers: Option<&str>, said: &[&str]| {
        fs::write(&challenges, text).unwrap();
        let _ = fs::remove_file(&solutions);
        if let Some(answers) = answers {
            fs::write(&solutions, answers).unwrap();
        }
        let message = fail(import(home.path(), "training", "training", &out), 2);
        assert_eq!(message.lines().count(), 1, "{message}");
        for what in said {
            assert!(message.contains(what), "{message} does not say {what}");
        }
        assert!(!out.exists());
    };
    for (text, answers, said) in MALFORMED {
        check(text, *answers, said);
    }
    let wide = format!("[{}]", ["0"; 31].join(","));
    let task = format!(r#"{{"t1": {{"train": [{{"input": [{wide}], "output": [[1]]}}], "test": []}}}}"#);
    check(&task, None, &["train pair 1, input", "1 rows and 31 columns", "at most 30"]);
    let deep = "[".repeat(100_000);
    check(&deep, None, &["challenges.json"]);
    check(&format!(r#"{{"t1": {{"more": {deep}"#), None, &["EOF"]);
    let leftovers: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(leftovers.iter().all(|name| name.to_string_lossy().starts_with("arc-agi")), "{leftovers:?}");
}

#[test]
fn arguments_that_fit_no_file_say_what_there_is() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    for (subsets, test_set, said) in [
        ("training,evalation", "evalation", "concept, evaluation, training"),
        ("training", "evaluation", "the test set \"evaluation\" is none of the subsets training"),
        ("training,training", "training", "leave one of them out"),
    ] {
        let message = fail(import(&golden(), subsets, test_set, &out), 2);
        assert!(message.contains(said) && message.lines().count() == 1, "{message}");
    }
    let message = fail(import(&home.path().join("none"), "training", "training", &out), 2);
    assert!(message.contains("none"), "{message}");
    fs::write(home.path().join("arc-agi_x_challenges.json"), TASK).unwrap();
    let output = succeed(import(home.path(), "x", "x", &out));
    assert!(common::stderr(&output).contains("x has no solutions"));
    let unknown = Dataset::read(&out).unwrap().arc_tasks(0).unwrap();
    assert!(!unknown[0].test[0].is_answered());
}

#[test]
fn an_answer_of_one_cell_of_background_is_known_where_the_task_has_others() {
    let home = tempfile::tempdir().unwrap();
    let task =
        r#"{"t1": {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}, {"input": [[4]]}]}}"#;
    fs::write(home.path().join("arc-agi_x_challenges.json"), task).unwrap();
    fs::write(home.path().join("arc-agi_x_solutions.json"), r#"{"t1": [[[0]], [[5]]]}"#).unwrap();
    let set = home.path().join("set");
    succeed(import(home.path(), "x", "x", &set));
    let set = set.to_str().unwrap();
    let shown = stdout(&succeed(command(&["show", set, "t1"])));
    assert!(!shown.contains("not known"), "{shown}");
    let audit = stdout(&succeed(command(&["data", "audit", set])));
    let line = audit.lines().find(|line| line.contains("not known")).unwrap();
    assert!(line.trim_end().ends_with(" 0"), "{line}");
}

#[test]
fn where_no_answer_is_known_none_is_drawn_and_none_is_judged() {
    let home = tempfile::tempdir().unwrap();
    let (set, run) = (home.path().join("set"), home.path().join("run"));
    fs::write(home.path().join("arc-agi_x_challenges.json"), TASK).unwrap();
    succeed(import(home.path(), "x", "x", &set));
    let shown = stdout(&succeed(command(&["show", set.to_str().unwrap(), "t1"])));
    assert!(shown.contains("test 1, answer not known\n3\n"), "{shown}");
    let mut train = command(&["train", "--preset", "arc-1", "--threads", "2", "--max-steps", "1"]);
    SMALL.split_whitespace().for_each(|set| _ = train.args(["--set", set]));
    train.arg("--data").arg(&set).arg("--out").arg(&run);
    let sample = stdout(&succeed(train));
    let solved = stdout(&succeed(command(&["solve", run.to_str().unwrap(), "t1"])));
    for text in [sample, solved] {
        assert!(text.contains("the right answer is not known, confidence") && !text.contains("truth"), "{text}");
    }
    let submission = home.path().join("submission.json");
    let mut eval = command(&["eval", run.to_str().unwrap(), "--submission"]);
    eval.arg(&submission);
    let said = stdout(&succeed(eval));
    assert!(said.contains("1 task, 1 with answers: the set has no solutions") && !said.contains('%'), "{said}");
    assert!(submission.exists());
    let json = stdout(&succeed(command(&["eval", run.to_str().unwrap(), "--json"])));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["exact_accuracy"].is_null() && json["arc"]["pass"].is_null() && json["arc"]["unknown"] == 1, "{json}");
}

#[test]
fn one_file_per_task_is_read_as_the_kaggle_form_is() {
    let home = tempfile::tempdir().unwrap();
    let kaggle = home.path().join("kaggle");
    succeed(import(&golden(), "training,evaluation", "evaluation", &kaggle));
    for subset in ["training", "evaluation"] {
        let folder = home.path().join("files").join(subset).join("nested");
        fs::create_dir_all(&folder).unwrap();
        let read = |part: &str| -> Value {
            let path = golden().join(format!("arc-agi_{subset}_{part}.json"));
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
        };
        let (challenges, solutions) = (read("challenges"), read("solutions"));
        for (id, task) in challenges.as_object().unwrap() {
            let mut task = task.clone();
            for (at, pair) in task["test"].as_array_mut().unwrap().iter_mut().enumerate() {
                pair["output"] = solutions[id][at].clone();
            }
            fs::write(folder.join(format!("{id}.json")), task.to_string()).unwrap();
        }
    }
    let files = home.path().join("own");
    succeed(import(&home.path().join("files"), "training,evaluation", "evaluation", &files));
    let names = |root: &Path| {
        let mut names = Dataset::read(root).unwrap().arc_tasks(0).unwrap();
        names.sort_by(|a, b| a.id.cmp(&b.id));
        names
    };
    assert_eq!(names(&kaggle), names(&files));
    let folder = home.path().join("files");
    let shown = |from: &Path| stdout(&succeed(command(&["show", from.to_str().unwrap(), "99fa7670"])));
    assert_eq!(shown(&folder), shown(&golden()));
    let audit = stdout(&succeed(command(&["data", "audit", folder.to_str().unwrap()])));
    assert!(audit.contains("training in evaluation"), "{audit}");
    let one = folder.join("training/nested");
    let audit = stdout(&succeed(command(&["data", "audit", one.to_str().unwrap()])));
    assert!(audit.contains("nested twice in itself"), "{audit}");
    let nothing = home.path().join("nothing");
    fs::create_dir(&nothing).unwrap();
    for args in [&["data", "audit"][..], &["show"]] {
        let mut command = command(args);
        command.arg(&nothing);
        if args == ["show"] {
            command.arg("99fa7670");
        }
        assert!(fail(command, 2).contains("no data set here"));
    }
}

/// Tasks of other collections: the grids of Mini-ARC (text, numbers and nothing), rows of 1D-ARC, lists of pairs of RE-ARC.
#[test]
fn collections_of_small_tasks_and_lists_of_pairs_are_read_onto_a_board_of_their_size() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let mini = r#"{"train": [{"input": [[null, "3"], ["5", 0]], "output": [["3", null], [0, "5"]]}],
                   "test": [{"input": [["1", 0], [0, 0]], "output": [[0, 0], [0, "1"]]}]}"#;
    write("mini/Bega_turn it, again!.JSON", &format!("\u{feff}{mini}"));
    let line =
        r#"{"train": [{"input": [[1, 0, 0]], "output": [[0, 1, 0]]}], "test": [{"input": [[2, 0, 0]], "output": []}]}"#;
    write("line/1d_move/1d_move_0.json", line);
    write("line/1d_move/1d_move_1.json", &line.replace("[[2, 0, 0]]", "[[0, 2]]"));
    let pairs = |n: usize| (0..n).map(|i| format!(r#"{{"input": [[{}]], "output": [[{}]]}}"#, i % 10, (i + 1) % 10));
    write("lists/t.json", &format!("[{}]", pairs(8).collect::<Vec<_>>().join(",")));
    let import = |subset: &str, more: &[&str]| {
        let out = home.path().join(format!("out-{subset}-{}", more.join("")));
        let mut command = command(&["data", "import", "arc", "--subsets", subset, "--test-set", subset, "--aug", "3"]);
        command.args(more).arg("--dir").arg(home.path()).arg("--out").arg(&out);
        (command, out)
    };
    let (command, out) = import("mini", &["--side", "2"]);
    succeed(command);
    let data = Dataset::read(out).unwrap();
    assert_eq!(data.split("train").unwrap().meta.seq_len, 4);
    let task = &data.arc_tasks(0).unwrap()[0];
    assert_eq!((task.id.as_str(), task.train[0].input.cells()), ("Bega_turn it, again!", &[0, 3, 5, 0][..]));
    assert_eq!((task.train[0].output.cells(), task.test[0].output.cells()), (&[3, 0, 0, 5][..], &[0, 0, 0, 1][..]));

    let (command, out) = import("line", &["--side", "3"]);
    let said = common::stderr(&succeed(command));
    assert!(said.contains("line has no solutions: the answers to all 2 test inputs are unknown"), "{said}");
    assert_eq!(Dataset::read(out).unwrap().arc_tasks(0).unwrap().len(), 2);

    let (command, out) = import("lists", &["--side", "1", "--tests", "3"]);
    succeed(command);
    let data = Dataset::read(out).unwrap();
    let task = &data.arc_tasks(0).unwrap()[0];
    assert_eq!((task.train.len(), task.test.len(), task.test[0].input.cells()), (5, 3, &[5u8][..]));
    assert_eq!(data.split("train").unwrap().groups(), 5, "demonstrations are dealt out one by one");
    let (command, _) = import("lists", &["--tests", "8"]);
    assert!(fail(command, 2).contains("task t is a list of 8 pairs, of which 8 would be held out"));

    // What does not fit is named, or left out.
    let (command, _) = import("line", &["--side", "2"]);
    let said = fail(command, 2);
    let expected =
        "2 of 2 tasks have grids that do not fit a board of side 2: 1d_move_0 (3), 1d_move_1 (3); give --side 3";
    assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    write("line/1d_move/small.json", &line.replace("0, 0", "0").replace("0, 1, 0", "0, 1").replace("[]", "[[0, 2]]"));
    write("line/1d_move/broken.json", "{\"train\": [");
    write("line/1d_move/colour.json", &line.replace("2, 0, 0", "2, \"x\""));
    let (command, _) = import("line", &["--side", "4"]);
    let said = fail(command, 2);
    assert!(said.contains("broken.json: is not the JSON expected here: EOF") && said.lines().count() == 1, "{said}");
    let (command, out) = import("line", &["--side", "2", "--skip-bad"]);
    let said = common::stderr(&succeed(command));
    assert!(
        said.contains("line: 4 tasks left out that cannot be used: broken colour 1d_move_0 1d_move_1 (all in "),
        "{said}"
    );
    assert!(said.contains("task colour left out: ") && said.contains("a colour from 0 to 9 is expected"), "{said}");
    assert!(said.contains("task 1d_move_0 left out: has a grid of side 3"), "{said}");
    let left: Value = serde_json::from_slice(&fs::read(out.join("left_out.json")).unwrap()).unwrap();
    assert_eq!(left, serde_json::json!({"line": ["broken", "colour", "1d_move_0", "1d_move_1"]}));
    assert_eq!(Dataset::read(out).unwrap().arc_tasks(0).unwrap().len(), 1);
    let (command, _) = import("line", &["--side", "1", "--skip-bad"]);
    assert!(fail(command, 2).contains("none of 5 tasks can be used"));

    for (arguments, said) in [
        (["--side", "31"], "--side 31: a board has a side of 1 to 30"),
        (["--tests", "0"], "--tests 0: nothing would be held out"),
        (["--valid", "5"], "hold out the tasks of a subset of their own"),
    ] {
        let (command, out) = import("mini", &arguments);
        assert!(fail(command, 2).contains(said));
        assert!(!out.exists());
    }
}

#[test]
fn bad_tasks_of_one_file_are_left_out_one_by_one() {
    let home = tempfile::tempdir().unwrap();
    let good = r#"{"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]]}, {"input": [[4]]}]}"#;
    let text = format!(r#"{{"a": {good}, "b": 7, "c": {{"train": [], "test": []}}, "d": {good}, "e": {good}}}"#);
    fs::write(home.path().join("arc-agi_x_challenges.json"), text).unwrap();
    let solutions = r#"{"a": [[[5]], []], "b": [[[1]]], "c": [], "d": [[[1]]]}"#;
    fs::write(home.path().join("arc-agi_x_solutions.json"), solutions).unwrap();
    let out = home.path().join("out");
    let mut command = import(home.path(), "x", "x", &out);
    command.arg("--skip-bad");
    let said = common::stderr(&succeed(command));
    assert!(said.contains("x: the answers to 1 of 2 test inputs are unknown"), "{said}");
    assert!(said.contains("x: 4 tasks left out that cannot be used: b c d e (all in "), "{said}");
    for (task, why) in
        [("b", "a task (train and test"), ("c", "0 train pairs"), ("d", "1 outputs"), ("e", "no solution")]
    {
        assert!(
            said.lines().any(|line| line.contains(&format!("task {task} left out: ")) && line.contains(why)),
            "{said}"
        );
    }
}

#[test]
fn tasks_left_out_are_counted_some_named_and_all_in_a_file_of_the_set() {
    let home = tempfile::tempdir().unwrap();
    let of = |prefix: &str| {
        let task = |n: usize| {
            let pair = |input: usize| format!(r#"{{"input": [[{n}, {input}, 1]], "output": [[{n}]]}}"#);
            format!(r#""{prefix}{n}": {{"train": [{}], "test": [{}]}}"#, pair(2), pair(3))
        };
        format!("{{{}}}", (0..9).map(task).collect::<Vec<_>>().join(", "))
    };
    fs::write(home.path().join("arc-agi_a_challenges.json"), of("t")).unwrap();
    fs::write(home.path().join("arc-agi_b_challenges.json"), of("t")).unwrap();
    let out = home.path().join("out");
    let mut import = import(home.path(), "a,b", "b", &out);
    import.arg("--disjoint");
    // The test set gives up those of its own tasks only that are each other's images; the other subset, everything.
    let message = common::stderr(&import.output().unwrap());
    assert!(message.contains("a: 9 tasks left out: t0 t1 t2 t3 t4 and 4 more (all in "), "{message}");
    let file: Value = serde_json::from_str(&fs::read_to_string(out.join("left_out.json")).unwrap()).unwrap();
    assert_eq!(file["a"].as_array().unwrap().len(), 9, "{file}");
}

#[test]
fn a_set_cannot_be_built_of_nothing() {
    let home = tempfile::tempdir().unwrap();
    for argument in ["--tasks", "--demonstrations", "--tests"] {
        let mut build = command(&["data", "build", "arc", argument, "0", "--out"]);
        build.arg(home.path().join("out"));
        let message = fail(build, 2);
        assert!(message.starts_with(&format!("trm: {argument} 0: ")) && message.lines().count() == 1, "{message}");
    }
}

/// Settings over `arc-1` whose updates take milliseconds.
const SMALL: &str = "h_cycles=1 l_cycles=1 n_layers=1 hidden_size=16 n_heads=2 inner_multiple=16 puzzle_emb_ndim=16 \
                     puzzle_emb_len=1 batch_size=4 max_steps=3 halt_max_steps=2 checkpoint_interval=2 eval_puzzles=4";

#[test]
fn a_set_is_imported_audited_trained_on_scored_and_shown() {
    let home = tempfile::tempdir().unwrap();
    let (whole, online) = (home.path().join("whole"), home.path().join("online"));
    succeed(import(&golden(), "training,evaluation,concept", "evaluation", &whole));
    let mut originals = import(&golden(), "training,evaluation,concept", "evaluation", &online);
    originals.arg("--online");
    succeed(originals);
    let audit = stdout(&succeed(command(&["data", "audit", whole.to_str().unwrap()])));
    assert!(audit.contains("none leaks") && audit.contains("(by design)"), "{audit}");
    let sources = stdout(&succeed(command(&["data", "audit", golden().to_str().unwrap()])));
    assert!(sources.contains("evaluation in concept") || sources.contains("training in evaluation"), "{sources}");

    // Stored rows and rows that are made train to the same bits.
    let train = |data: &Path, augment: &str, run: &Path| {
        let mut command = command(&["train", "--preset", "arc-1", "--threads", "2"]);
        SMALL.split_whitespace().for_each(|set| _ = command.args(["--set", set]));
        command.args(["--set", &format!("augment={augment}")]).arg("--data").arg(data).arg("--out").arg(run);
        succeed(command)
    };
    let (a, b) = (home.path().join("a"), home.path().join("b"));
    let said = stdout(&train(&whole, "stored", &a));
    assert!(said.contains("demonstration 1") && said.contains("truth"), "{said}");
    train(&online, "online", &b);
    let weights = |run: &Path| fs::read(run.join("weights.safetensors")).unwrap();
    assert_eq!(weights(&a), weights(&b));

    let file = home.path().join("submission.json");
    let mut eval = command(&["eval", b.to_str().unwrap(), "--json", "--limit", "3", "--submission"]);
    eval.arg(&file);
    let result: Value = serde_json::from_str(&stdout(&succeed(eval))).unwrap();
    assert_eq!(result["arc"]["tasks"], 3);
    assert!(result["arc"]["pass"]["pass@1000"].is_number(), "{result}");
    let submission: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(submission.as_object().unwrap().len(), 3);
    let voters = |copies: &str| {
        let eval = command(&["eval", b.to_str().unwrap(), "--json", "--limit", "3", "--copies", copies]);
        let result: Value = serde_json::from_str(&stdout(&succeed(eval))).unwrap();
        assert_eq!(result["arc"]["answered"], 3);
        result["puzzles"].as_u64().unwrap()
    };
    assert_eq!((voters("1"), voters("9")), (2 * voters("0"), 3 * voters("0")), "the set has two copies of each task");
    let message = fail(command(&["eval", a.to_str().unwrap(), "--limit", "0"]), 2);
    assert!(message.contains("--limit 0: ") && message.contains("leave it out for all"), "{message}");
    for file in ["none/submission.json", "a"] {
        let mut eval = command(&["eval", a.to_str().unwrap(), "--submission"]);
        eval.arg(home.path().join(file));
        let output = eval.output().unwrap();
        let message = common::stderr(&output);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""), "{message}");
        assert!(message.contains(file) && message.lines().count() == 1, "{message}");
    }
    let message = fail(command(&["eval", a.to_str().unwrap(), "--split", "train", "--copies", "1"]), 2);
    assert!(message.contains("--copies is for the test split"), "{message}");
    for id in ["blank", "shuffle"] {
        let text = stdout(&succeed(command(&["eval", a.to_str().unwrap(), "--id", id, "--limit", "2"])));
        assert!(text.contains("2 tasks, 2 with answers: pass@1 "), "{text}");
    }
    for from in [&whole, &golden()] {
        let text = stdout(&succeed(command(&["show", from.to_str().unwrap(), "99fa7670"])));
        assert!(text.contains("demonstration 4"), "{text}");
    }
    let message = fail(command(&["solve", b.to_str().unwrap(), "99fa7670"]), 2);
    assert!(message.contains("no test input"), "{message}");
    let solved = stdout(&succeed(command(&["solve", b.to_str().unwrap(), "bbb1b8b6", "--watch"])));
    assert!(solved.contains("test 2") && solved.contains("step 2 of 2") && solved.contains("right"), "{solved}");
    assert!(fail(command(&["solve", b.to_str().unwrap(), "bbb1b8b7"]), 2).contains("bbb1b8b6"));
    let message = fail(command(&["show", whole.to_str().unwrap()]), 2);
    assert!(message.contains("which task"), "{message}");
    let names = online.join("identifiers.json");
    let damaged = fs::read_to_string(&names).unwrap().replacen("|||", "||", 1);
    fs::write(&names, damaged).unwrap();
    let mut train = command(&["train", "--data", online.to_str().unwrap(), "--out"]);
    train.arg(home.path().join("c"));
    for command in [
        command(&["show", online.to_str().unwrap(), "99fa7670"]),
        command(&["data", "audit", online.to_str().unwrap()]),
        train,
    ] {
        let message = fail(command, 2);
        assert!(message.contains("is no ARC set (identifiers.json: name 2, \""), "{message}");
    }
}

/// Small generated sets: all copies stored, and originals that stand for the same.
fn small_sets(home: &Path) -> [PathBuf; 2] {
    ["stored", "online"].map(|form| {
        let out = home.join(form);
        let mut build = command(&["data", "build", "arc", "--tasks", "4", "--demonstrations", "3", "--tests", "1"]);
        build.args(["--side", "5", "--aug", "2", "--out"]).arg(&out);
        if form == "online" {
            build.arg("--online");
        }
        succeed(build);
        out
    })
}

#[test]
fn a_set_alone_chooses_a_puzzle_table_and_its_way_of_augmentation_and_eval_takes_either_form() {
    let home = tempfile::tempdir().unwrap();
    let sets = small_sets(home.path());
    let runs = [home.path().join("a"), home.path().join("b")];
    for ((set, run), form) in sets.iter().zip(&runs).zip(["stored", "online"]) {
        let mut train = command(&["train", "--max-steps", "2", "--threads", "2", "--data"]);
        train.arg(set).arg("--out").arg(run);
        let said = common::stderr(&succeed(train));
        for part in ["settings for arc 5×5 by its size", &format!("augment={form} "), "puzzle_emb_ndim=96"] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
    let weights = |run: &Path| fs::read(run.join("weights.safetensors")).unwrap();
    assert_eq!(weights(&runs[0]), weights(&runs[1]), "the rows are the same");
    for (run, set) in [(&runs[0], &sets[1]), (&runs[1], &sets[0])] {
        let mut eval = command(&["eval", "--data", set.to_str().unwrap()]);
        eval.arg(run);
        assert!(stdout(&succeed(eval)).contains("12 rows exact"), "four tasks, each with two copies");
    }
}

#[test]
fn a_run_that_is_killed_and_resumed_ends_with_the_bits_of_one_that_never_stopped() {
    let home = tempfile::tempdir().unwrap();
    let [_, online] = small_sets(home.path());
    let train = |run: &Path| {
        let mut command = command(&["train", "--threads", "2", "--max-steps", "120", "--data"]);
        command.arg(&online).arg("--out").arg(run);
        for set in ["hidden_size=16", "n_heads=2", "puzzle_emb_ndim=16", "checkpoint_interval=3", "eval_interval=0"] {
            command.args(["--set", set]);
        }
        command
    };
    let (whole, run) = (home.path().join("whole"), home.path().join("run"));
    succeed(train(&whole));
    let mut child = train(&run).spawn().unwrap();
    for kill in 0..2 {
        let newest = || {
            let files = fs::read_dir(run.join("checkpoint")).into_iter().flatten().flatten();
            files.map(|file| file.file_name()).filter(|name| name.to_string_lossy().starts_with("state-")).max()
        };
        let before = newest();
        while newest() == before {
            assert!(child.try_wait().unwrap().is_none(), "the run ended too soon, before kill {kill}");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        child = common::resume(&run).spawn().unwrap();
    }
    assert!(child.wait().unwrap().success());
    // The puzzle table is one of the tensors.
    let weights = |run: &Path| fs::read(run.join("weights.safetensors")).unwrap();
    assert_eq!(weights(&whole), weights(&run));
}

#[test]
fn a_presets_augmentation_gives_way_to_the_sets_and_its_puzzle_does_not() {
    let home = tempfile::tempdir().unwrap();
    let sets = small_sets(home.path());
    let small = ["hidden_size=16", "n_heads=2", "puzzle_emb_ndim=16", "max_steps=1", "batch_size=4", "eval_puzzles=2"];
    let train = |preset: &str, set: &Path, more: &[&str], run: &str| {
        let mut command = command(&["train", "--preset", preset, "--threads", "2", "--data"]);
        command.arg(set).arg("--out").arg(home.path().join(run));
        small.iter().chain(more).for_each(|set| _ = command.args(["--set", set]));
        command
    };
    // The preset's own board is 6×6; only a file, which is somebody's own experiment, may put it on another.
    let message = fail(train("arc-small", &sets[1], &[], "a"), 2);
    for part in ["preset arc-small is made for arc 6×6, but ", "online holds arc 5×5; ", "`trm train --data DIR`"] {
        assert!(message.contains(part) && message.lines().count() == 1, "{message}");
    }
    let file = home.path().join("mine.toml");
    fs::write(&file, "preset = \"arc-small\"\n").unwrap();
    let with_file = |set: &Path, more: &[&str], run: &str| {
        let mut command = command(&["train", "--threads", "2", "--config", file.to_str().unwrap(), "--data"]);
        command.arg(set).arg("--out").arg(home.path().join(run));
        small.iter().chain(more).for_each(|set| _ = command.args(["--set", set]));
        command
    };
    let said = common::stderr(&succeed(with_file(&sets[1], &[], "b")));
    assert!(said.contains("trains on those alone"), "{said}");
    let said = common::stderr(&succeed(with_file(&sets[0], &[], "c")));
    assert!(!said.contains("copies"), "{said}");

    let six = home.path().join("six");
    let mut build = command(&["data", "build", "arc", "--tasks", "4", "--demonstrations", "3", "--tests", "1"]);
    build.args(["--aug", "2", "--online", "--out"]).arg(&six);
    succeed(build);
    let said = common::stderr(&succeed(train("arc-small", &six, &[], "d")));
    assert!(said.contains("data.augment is \"online\", which makes them, in place of the preset's"), "{said}");
    // Going on with the same arguments is no change of settings.
    let mut resume = train("arc-small", &six, &[], "d");
    resume.arg("--resume");
    succeed(resume);
    let said = common::stderr(&succeed(train("arc-small", &six, &["augment=stored"], "e")));
    assert!(said.contains("trains on those alone"), "{said}");
    for (preset, own) in [("table1-trm", "sudoku 9×9"), ("maze-8x8", "maze 8×8"), ("table5-arc1-trm-att", "arc 30×30")]
    {
        let mut train = command(&["train", "--preset", preset, "--data", six.to_str().unwrap(), "--out"]);
        train.arg(home.path().join("f"));
        let message = fail(train, 2);
        assert!(message.contains(&format!("{preset} is made for {own}, but")), "{message}");
    }
}

#[test]
fn generated_tasks_are_trained_on_without_a_file() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    let mut train = command(&["train", "--preset", "arc-small", "--threads", "2", "--out"]);
    train.arg(&run);
    for set in [
        "hidden_size=16",
        "n_heads=2",
        "puzzle_emb_ndim=16",
        "max_steps=2",
        "batch_size=8",
        "train_puzzles=56",
        "test_puzzles=28",
    ] {
        train.args(["--set", set]);
    }
    succeed(train);
    let text = stdout(&succeed(command(&["eval", run.to_str().unwrap()])));
    assert!(text.contains("28 tasks, 28 with answers"), "{text}");
    let named = fail(command(&["show", run.to_str().unwrap(), "02-crop"]), 2);
    assert!(named.contains("did you mean `002-crop`?"), "{named}");
    let text = stdout(&succeed(command(&["show", run.to_str().unwrap(), "002-crop"])));
    assert!(text.contains("demonstration 2") && text.contains("test 1"), "{text}");
    let set = home.path().join("set");
    let mut build =
        command(&["data", "build", "arc", "--tasks", "28", "--demonstrations", "60", "--tests", "10", "--out"]);
    build.arg(&set);
    assert!(stdout(&succeed(build)).contains("arc 6×6"));
    assert!(stdout(&succeed(command(&["data", "audit", set.to_str().unwrap()]))).contains("none leaks"));
}

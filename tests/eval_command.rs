//! What `trm eval` counts, over what, and what it writes: an answer that is not known improves no figure, copies are no
//! further puzzles, and whoever wants the answers themselves gets all of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{fail, stdout, succeed, train, trm};
use serde_json::Value;
use trm::files::npy;

fn at(home: &Path, args: &[&str]) -> Command {
    let mut command = trm();
    command.args(args).current_dir(home);
    command
}

fn json(command: Command) -> Value {
    serde_json::from_str(&stdout(&succeed(command))).expect("JSON")
}

/// Settings of a model that learns in a moment to answer everything with one cell of background.
const ONE_CELL: &str = "hidden_size=16 puzzle_emb_ndim=16 n_heads=1 h_cycles=1 l_cycles=1 n_layers=1 halt_max_steps=1 lr=1e-2 \
                        batch_size=4 eval_interval=0 lr_warmup_steps=1 ema=false";

#[test]
fn an_unknown_answer_matches_nothing_and_is_no_part_of_any_figure() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    fs::create_dir_all(home.join("json/s")).unwrap();
    let inputs = ["[[7, 1]]", "[[1, 5]]", "[[5, 9]]", "[[9, 8]]"];
    let train: Vec<String> = inputs.iter().map(|input| format!(r#"{{"input": {input}, "output": [[0]]}}"#)).collect();
    let task = |test: &str| format!(r#"{{"train": [{}], "test": [{test}]}}"#, train.join(", "));
    let (known, unknown) = (r#"{"input": [[7, 1]], "output": [[5, 5]]}"#, r#"{"input": [[7, 1]]}"#);
    fs::write(home.join("json/s/known.json"), task(known)).unwrap();
    fs::write(home.join("json/s/unknown.json"), task(unknown)).unwrap();
    fs::write(home.join("json/s/half.json"), task(&format!("{known}, {unknown}"))).unwrap();
    let import =
        ["data", "import", "arc", "--dir", "json", "--subsets", "s", "--test-set", "s", "--aug", "0", "--out", "set"];
    succeed(at(home, &import));
    let mut command = at(home, &["train", "--data", "set", "--max-steps", "120", "--threads", "2", "--out", "run"]);
    ONE_CELL.split_whitespace().for_each(|setting| _ = command.args(["--set", setting]));
    succeed(command);
    let result = json(at(home, &["eval", "run", "--json", "--submission", "sub.json"]));
    let answers: Value = serde_json::from_slice(&fs::read(home.join("sub.json")).unwrap()).unwrap();
    assert_eq!(answers["unknown"][0]["attempt_1"], serde_json::json!([[0]]), "the model answers what it has learned");
    assert_eq!((&result["puzzles"], &result["unlabelled"]), (&2.into(), &2.into()), "{result}");
    assert_eq!(result["exact_accuracy"], 0.0, "{result}");
    let arc = &result["arc"];
    assert_eq!((&arc["tasks"], &arc["scored"], &arc["unknown_inputs"]), (&3.into(), &2.into(), &2.into()), "{arc}");
    assert_eq!(arc["pass"]["pass@1"], 0.0, "{arc}");
    let said = stdout(&succeed(at(home, &["eval", "run"])));
    assert!(said.contains("0 of 2 rows exact") && said.contains("2 further answers are not known"), "{said}");
    assert!(said.contains("left out (1 and 2)"), "{said}");
    let drawn = stdout(&succeed(at(home, &["solve", "run", "half"])));
    assert!(drawn.contains("not right") && drawn.contains("the right answer is not known"), "{drawn}");
}

#[test]
fn the_interval_is_over_tasks_and_not_over_their_copies() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    succeed(at(
        home,
        &[
            "data",
            "build",
            "arc",
            "--tasks",
            "6",
            "--demonstrations",
            "8",
            "--tests",
            "3",
            "--side",
            "5",
            "--aug",
            "7",
            "--out",
            "set",
        ],
    ));
    let mut command = at(home, &["train", "--data", "set", "--max-steps", "2", "--threads", "2", "--out", "run"]);
    ONE_CELL.split_whitespace().for_each(|setting| _ = command.args(["--set", setting]));
    succeed(command);
    let result = json(at(home, &["eval", "run", "--json"]));
    assert_eq!(result["groups"], 6, "{result}");
    assert!(result["puzzles"].as_u64() > Some(18), "{result}");
    let interval = |value: &Value| (value[0].as_f64().unwrap(), value[1].as_f64().unwrap());
    let near = |(low, high): (f64, f64), (a, b): (f64, f64)| (low - a).abs() < 5e-4 && (high - b).abs() < 5e-4;
    let p = result["exact_accuracy"].as_f64().unwrap();
    assert!(near(interval(&result["exact_accuracy_95"]), trm::report::wilson_95(p, 6.0)), "{result}");
    let pass = result["arc"]["pass"]["pass@2"].as_f64().unwrap();
    assert!(near(interval(&result["arc"]["pass_95"]["pass@2"]), trm::report::wilson_95(pass, 6.0)), "{result}");
    let said = stdout(&succeed(at(home, &["eval", "run", "--by", "task"])));
    assert!(said.contains("rows exact") && said.contains("over 6 tasks, 95 % interval"), "{said}");
    assert!(said.contains("95 % intervals over 6 tasks") && said.contains("task "), "{said}");
}

#[test]
fn predictions_hold_every_answer_and_agree_with_the_figures() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    succeed(train(&run, &["max_steps=5"]));
    let result = json(at(home.path(), &["eval", "run", "--json", "--predictions", "p.jsonl", "--threads", "2"]));
    let lines: Vec<Value> = fs::read_to_string(home.path().join("p.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines.len() as u64, result["puzzles"].as_u64().unwrap());
    for (at, step) in (0..).zip(result["by_step"].as_array().unwrap()) {
        let exact = lines.iter().filter(|line| line["by_step"][at]["exact"] == true).count();
        let share = step["exact_accuracy"].as_f64().unwrap() * lines.len() as f64;
        assert!((exact as f64 - share).abs() < 1e-9, "step {at}");
    }
    assert!((0..).zip(&lines).all(|(row, line)| line["row"] == row && line["steps"] == 4), "in the order of the rows");
    let first = &lines[0];
    assert_eq!((&first["answer"], &first["exact"]), (&first["by_step"][3]["answer"], &first["by_step"][3]["exact"]));
    // What is solved alone is the same.
    let solved = stdout(&succeed(at(home.path(), &["solve", "run", first["question"].as_str().unwrap()])));
    assert!(solved.contains(first["answer"].as_str().unwrap()), "{solved}");

    succeed(at(home.path(), &["eval", "run", "--predictions", "p.npy", "--halt"]));
    let array = npy::NpyArray::open(&home.path().join("p.npy"), 3).unwrap();
    assert_eq!(array.shape(), [lines.len(), 4, 16]);
    let tokens: Vec<u8> = array.values().unwrap();
    assert!(tokens.iter().all(|&token| token < 6) && tokens.len() == lines.len() * 64);

    // What trm wrote is replaced; what it did not write is not, nor is an array of a data set or a run's log.
    succeed(at(home.path(), &["eval", "run", "--predictions", "p.npy", "--limit", "2"]));
    succeed(at(home.path(), &["eval", "run", "--predictions", "p.jsonl", "--limit", "2"]));
    npy::write_i32(&home.path().join("labels.npy"), &[1, 2]).unwrap();
    for theirs in ["labels.npy", "run/metrics.jsonl"] {
        let before = fs::read(home.path().join(theirs)).unwrap();
        let line = fail(at(home.path(), &["eval", "run", "--predictions", theirs]), 2);
        assert!(line.contains(theirs) && line.contains("give another name"), "{line}");
        assert!(fs::read(home.path().join(theirs)).unwrap() == before);
    }

    let line = fail(at(home.path(), &["eval", "run", "--predictions", "p.txt"]), 2);
    assert!(line.contains(".jsonl or .npy") && !home.path().join("p.txt").exists(), "{line}");
}

#[test]
fn accuracy_is_told_by_what_is_known_of_the_puzzles() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    succeed(train(&run, &["max_steps=5"]));
    let result = json(at(home.path(), &["eval", "run", "--json", "--by", "clues"]));
    let buckets = result["by"]["buckets"].as_array().unwrap();
    let sum = |key: &str| buckets.iter().map(|bucket| bucket[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("rows"), result["puzzles"].as_u64().unwrap());
    let exact = result["exact_accuracy"].as_f64().unwrap() * sum("rows") as f64;
    assert!((sum("exact") as f64 - exact).abs() < 1e-9);
    let text = stdout(&succeed(at(home.path(), &["eval", "run", "--by", "clues"])));
    assert!(text.contains("clues") && text.contains("95 % interval"), "{text}");
    let line = fail(at(home.path(), &["eval", "run", "--by", "weather"]), 2);
    assert!(line.contains("--by weather: of these puzzles is known: clues"), "{line}");
}

#[test]
fn an_empty_cell_of_an_answer_is_seen_and_read_back() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let lines = [r#"{"question": "1.\n..", "answer": "12\n21"}"#, r#"{"question": ".1", "answer": "21"}"#];
    fs::write(home.join("a.jsonl"), lines.join("\n")).unwrap();
    succeed(at(home, &["data", "import", "jsonl", "a.jsonl", "--test-share", "0", "--out", "set"]));
    let data = trm::dataset::TaskData::new(trm::dataset::Dataset::read(home.join("set")).unwrap()).unwrap();
    let board = data.board();
    for tokens in [[0, 2, 0, 0], [0, 0, 0, 2], [2, 0, 3, 0], [0; 4], [1, 2, 3, 1]] {
        let text = board.text(&tokens);
        assert_eq!(board.parse(&text).unwrap(), tokens, "{text}");
    }
    assert_eq!(board.text(&[0, 2, 0, 0]), "_1");
    assert_eq!(board.text(&[0, 0, 0, 2]), "__\n_1");
}

#[test]
fn of_several_right_answers_any_counts_and_columns_are_told_apart() {
    use trm::dataset::{Columns, Dataset, MoreAnswers};
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    succeed(at(home, &["data", "build", "sudoku", "--size", "4", "--count", "20", "--test", "8", "--out", "set"]));
    let mut command = at(home, &["train", "--data", "set", "--max-steps", "2", "--threads", "1", "--out", "run"]);
    ["hidden_size=32", "n_heads=1", "halt_max_steps=2", "eval_interval=0", "precision=f32"]
        .iter()
        .for_each(|setting| _ = command.args(["--set", setting]));
    succeed(command);
    // What the model answers after its two updates becomes a second right answer of every other puzzle.
    succeed(at(home, &["eval", "run", "--predictions", "p.npy"]));
    let tokens: Vec<u8> = npy::NpyArray::open(&home.join("p.npy"), 3).unwrap().values().unwrap();
    let last: Vec<&[u8]> = tokens.chunks(32).map(|steps| &steps[16..]).collect();
    let mut data = Dataset::read(home.join("set")).unwrap();
    let split = data.splits.get_mut("test").unwrap();
    let rows: Vec<u8> = last.iter().step_by(2).flat_map(|row| row.iter().copied()).collect();
    let rows = ndarray::Array2::from_shape_vec((4, 16), rows).unwrap();
    split.more_answers = Some(MoreAnswers { rows: rows.into(), indices: vec![0, 1, 1, 2, 2, 3, 3, 4, 4] });
    let mut columns = Columns::default();
    (0..8).for_each(|i| columns.push([("rating", if i % 2 == 0 { "easy" } else { "hard" })]).unwrap());
    split.columns = columns;
    data.write(home.join("more")).unwrap();
    let before = json(at(home, &["eval", "run", "--json"]));
    assert_eq!(before["exact_accuracy"], 0.0, "{before}");
    let result =
        json(at(home, &["eval", "run", "--json", "--data", "more", "--by", "rating", "--predictions", "p.jsonl"]));
    assert_eq!(result["exact_accuracy"], 0.5, "{result}");
    let buckets = &result["by"]["buckets"];
    assert_eq!((&buckets[0]["value"], &buckets[0]["exact"]), (&"easy".into(), &4.into()), "{result}");
    assert_eq!((&buckets[1]["value"], &buckets[1]["exact"]), (&"hard".into(), &0.into()), "{result}");
    assert!(fs::read_to_string(home.join("p.jsonl")).unwrap().contains(r#""columns":{"rating":"easy"}"#));
}

//! A puzzle of the user's own: the document that explains it, command by command, and the laws of the import.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{fail, stderr, stdout, succeed, trm};
use proptest::prelude::*;
use trm::dataset::grids::{self, GridOptions};
use trm::dataset::{Dataset, Imported};

/// What the test changes in the document: fewer puzzles and fewer updates, nothing else.
const SHORTER: [(&str, &str); 2] = [
    ("N, PUZZLES = 6, 3000", "N, PUZZLES = 6, 60"),
    ("trm train --data sets/takuzu --out runs/takuzu", "trm train --data sets/takuzu --out runs/takuzu --max-steps 20"),
];

#[test]
fn every_command_of_the_document_runs() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("not run: the document's generator is Python, and there is no python3 here");
        return;
    }
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/your-own-puzzle.md");
    let mut script = fs::read_to_string(document).unwrap();
    for (long, short) in SHORTER {
        assert!(script.contains(long), "the document still says {long:?}");
        script = script.replace(long, short);
    }
    let home = tempfile::tempdir().unwrap();
    let bin = Path::new(env!("CARGO_BIN_EXE_trm")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut said = String::new();
    let blocks: Vec<&str> = script.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 5, "{}", blocks.len());
    for block in blocks {
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", block]).current_dir(home.path()).env("PATH", &path);
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{block}\n{}", stderr(&output));
        said += &stdout(&output);
        said += &stderr(&output);
    }
    for expected in
        ["grid 6×6", "settings for grid 6×6 by its size", "puzzles exact", "step 8 of 8", "the stored answer"]
    {
        assert!(said.contains(expected), "{expected:?} in:\n{said}");
    }
    assert!(said.contains("trm solve runs/takuzu '"), "the command to try next is one shell word: {said}");
}

/// Imports a text.
fn import(text: &str) -> trm::Result<Dataset> {
    Ok(import_with(text, &GridOptions::default())?.data)
}

/// Imports a text, holding out a quarter.
fn import_with(text: &str, options: &GridOptions<'_>) -> trm::Result<Imported> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    grids::import(file.path(), &GridOptions { test_share: 0.25, ..options.clone() })
}

/// A rectangle of symbols.
fn any_grid() -> impl Strategy<Value = Vec<Vec<&'static str>>> {
    let symbols = prop::sample::select(&["a", ".", "Z", "7", "é", "#"][..]);
    (1..4usize, 1..4usize)
        .prop_flat_map(move |(h, w)| prop::collection::vec(prop::collection::vec(symbols.clone(), w), h))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_grid_comes_back_in_its_own_symbols(pairs in prop::collection::vec((any_grid(), any_grid()), 2..12)) {
        let mut seen = std::collections::BTreeSet::new();
        let pairs: Vec<_> = pairs.into_iter().filter(|(question, _)| seen.insert(question.clone())).collect();
        let text = |grid: &Vec<Vec<&str>>| grid.iter().map(|row| row.concat()).collect::<Vec<_>>().join("\n");
        // All forms say the same.
        type Form = fn(&Vec<Vec<&str>>) -> serde_json::Value;
        let forms: [Form; 3] = [
            |grid| serde_json::json!(grid.iter().map(|row| row.concat()).collect::<Vec<_>>().join("\n")),
            |grid| serde_json::json!(grid.iter().map(|row| row.concat()).collect::<Vec<_>>()),
            |grid| serde_json::json!(grid),
        ];
        let sets: Vec<Dataset> = forms
            .iter()
            .map(|form| {
                let line = |(q, a): &(_, _)| serde_json::json!({"question": form(q), "answer": form(a), "split": "train"});
                import(&pairs.iter().map(|pair| line(pair).to_string() + "\n").collect::<String>()).unwrap()
            })
            .collect();
        prop_assert_eq!(&sets[0], &sets[1]);
        prop_assert_eq!(&sets[0], &sets[2]);
        let board = sets[0].board().unwrap();
        let split = sets[0].split("train").unwrap();
        for (row, (question, answer)) in pairs.iter().enumerate() {
            let (q, a) = (split.inputs.row(row).unwrap().to_vec(), split.labels.row(row).unwrap().to_vec());
            prop_assert_eq!(board.text(&q), text(question));
            prop_assert_eq!(board.text(&a), text(answer));
            prop_assert_eq!(board.parse(&text(question)).unwrap(), q);
        }
        // Through the disk, with the description.
        let home = tempfile::tempdir().unwrap();
        sets[0].write(home.path().join("set")).unwrap();
        prop_assert_eq!(&Dataset::read(home.path().join("set")).unwrap(), &sets[0]);
    }
}

#[test]
fn numbers_of_several_digits_are_symbols_in_numerical_order_and_are_typed_as_words() {
    let set =
        import("{\"question\": [[10, 2], [-3, 2]], \"answer\": [[10, 10], [2, 2]], \"split\": \"train\"}\n").unwrap();
    assert_eq!(set.puzzle.symbols, ["", "-3", "2", "10"]);
    let board = set.board().unwrap();
    for typed in ["10 2\n-3 2", "10, 2\n-3, 2", "10 2 -3 2", "[[10, 2], [-3, \"2\"]]"] {
        assert_eq!(board.parse(typed).unwrap(), [3, 2, 1, 2], "{typed}");
    }
    assert_eq!(board.text(&[3, 2, 1, 2]), "10 2\n-3 2");
    let error = board.parse("10 4\n2 2").unwrap_err().to_string();
    assert!(error.contains("\"4\" at row 1, column 2") && error.contains("-3 2 10"), "{error}");
    assert!(board.parse("10 2 2\n2 2 2").unwrap_err().to_string().contains("room for 2×2"));
}

#[test]
fn what_does_not_fit_the_settings_of_a_set_is_one_line() {
    let home = tempfile::tempdir().unwrap();
    let set = home.path().join("set");
    import("{\"question\": \"ab\", \"answer\": \"ba\", \"split\": \"train\"}\n").unwrap().write(&set).unwrap();
    for (more, expected) in [
        (["--set", "hidden_sise=16", "run"], "did you mean `model.hidden_size`?"),
        (["--set", "n_heads=5", "run"], "does not divide"),
        (["--seed", "1", "set"], "not empty"),
    ] {
        let mut train = trm();
        train.args(["train", "--data"]).arg(&set).args(&more[..2]).arg("--out").arg(home.path().join(more[2]));
        let said = fail(train, 2);
        assert!(said.contains(expected) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn a_smaller_grid_is_taken_only_where_the_set_has_such_grids() {
    let line =
        |question: &str| format!("{{\"question\": {question:?}, \"answer\": {question:?}, \"split\": \"train\"}}\n");
    let (one_size, padded) = (line("ab\nba"), line("ab\nba") + &line("a"));
    for (text, padded) in [(one_size, false), (padded, true)] {
        let home = tempfile::tempdir().unwrap();
        let (set, run) = (home.path().join("set"), home.path().join("run"));
        import(&text).unwrap().write(&set).unwrap();
        assert_eq!(Dataset::read(&set).unwrap().puzzle.padded, padded);
        let mut train = trm();
        train.args(["train", "--max-steps", "1", "--threads", "1", "--set", "hidden_size=16", "--data"]);
        train.arg(&set).arg("--out").arg(&run);
        // Without a split to test on, the run ends after its updates.
        let _ = train.output().unwrap();
        let mut solve = trm();
        solve.arg("solve").arg(&run).arg("a");
        match padded {
            true => _ = succeed(solve),
            false => assert!(fail(solve, 2).contains("the puzzle is 1×1; all of its data set are 2×2")),
        }
    }
}

#[test]
fn held_out_questions_stay_held_out_when_lines_are_added_and_equal_ones_stay_together() {
    let line = |i: usize| format!("{{\"question\": \"{i:04}\", \"answer\": \"{:04}\"}}\n", i * 7 % 10_000);
    let short: String = (0..200).map(line).collect();
    let long: String = (0..400).chain(0..200).map(line).collect();
    let questions = |text: &str, split: &str| {
        let set = import(text).unwrap();
        let board = set.board().unwrap();
        let rows = &set.split(split).unwrap().inputs;
        rows.rows().map(|row| board.text(&row.unwrap())).collect::<std::collections::BTreeSet<_>>()
    };
    let (test, more) = (questions(&short, "test"), questions(&long, "test"));
    assert!(test.is_subset(&more) && (25..80).contains(&test.len()), "{}", test.len());
    assert!(more.is_disjoint(&questions(&long, "train")));
    // However few there are, both splits get one.
    let two: String = (0..2).map(line).collect();
    assert_eq!((questions(&two, "test").len(), questions(&two, "train").len()), (1, 1));
}

#[test]
fn all_bad_lines_are_named_at_once_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("bad.jsonl");
    let good = r#"{"question": "ab", "answer": "ba", "id": 1}"#;
    let deep = format!("{{\"question\": {}1{}, \"answer\": \"a\"}}", "[".repeat(5000), "]".repeat(5000));
    for (lines, expected) in [
        (vec![], vec!["has no lines"]),
        (vec![good, "", "{"], vec!["1 fault: line 3 is not {\"question\""]),
        (vec![good, "[1]", "\u{1}"], vec!["2 faults: line 2 ", "; line 3 "]),
        (vec![good, &deep], vec!["line 2 ", "recursion limit"]),
        (vec![good, r#"{"question": "ab"}"#], vec!["line 2 ", "missing field `answer`"]),
        (vec![r#"{"question": "a", "answr": "b", "hint": 1}"#], vec!["line 1 ", "missing field `answer`"]),
        (vec![r#"{"question": "a", "answer": "b", "x\ny": 1}"#], vec!["line 1 ", "a column called \"x\\ny\""]),
        (
            vec![r#"{"question": "ab\nc", "answer": "b"}"#],
            vec!["line 1 question is ragged: row 2 has 1 cells, row 1 has 2"],
        ),
        (vec![r#"{"question": "", "answer": "b"}"#], vec!["line 1 question holds no cells"]),
        (vec![r#"{"question": [[1, null]], "answer": "b"}"#], vec!["line 1 question has null for a cell"]),
        (vec![r#"{"question": [[1], 2], "answer": "b"}"#], vec!["line 1 question has a number for a row"]),
        (vec![r#"{"question": "a", "answer": {"x": 1}}"#], vec!["line 1 answer is an object"]),
        (vec![r#"{"question": "a", "answer": "b", "split": "../x"}"#], vec!["line 1 has the split \"../x\""]),
        (vec![r#"{"question": "a", "answer": "b", "split": "test"}"#], vec!["no line is of the split \"train\""]),
        (vec![r#"{"question": "a", "answer": "b", "id": []}"#], vec!["line 1 has an id that is neither"]),
        (vec![good, r#"{"question": "cd", "answer": "ba", "id": 1}"#], vec!["line 2 has the id of line 1 again"]),
        (
            vec![good, r#"{"question": "ab", "answer": "aa"}"#],
            vec!["line 2 has the question of line 1 with another answer"],
        ),
        (
            vec![
                r#"{"question": "a", "answer": "b", "split": "train"}"#,
                r#"{"question": "a", "answer": "b", "split": "test"}"#,
                r#"{"question": "c", "answer": "b"}"#,
            ],
            vec!["line 2 has the question of line 1 in another split", "line 3 has no split, unlike line 1"],
        ),
        (vec!["x"; 25], vec!["25 faults: lines 1–25: each is not {", ": expected value"]),
        (
            ["x", "x", good, "x", "{}", "x", "x", "x", "{}"].into(),
            vec!["8 faults: lines 1–2, 4, 6–8: each is not {", "; lines 5, 9: each is not {", "`question`"],
        ),
        (
            vec![good, r#"{"question": "ab", "answer": "aa"}"#, r#"{"question": "ab", "answer": "bb"}"#],
            vec!["2 faults: lines 2–3: each has the question of line 1 with another answer"],
        ),
        (
            vec![
                r#"{"question": "a", "answer": "b"}"#,
                r#"{"question": "c", "answer": "b"}"#,
                r#"{"question": "a", "answer": "a"}"#,
                r#"{"question": "c", "answer": "c"}"#,
            ],
            vec!["2 faults: lines 3 (1), 4 (2): each has the question of the line in brackets with another answer"],
        ),
        (vec![r#"{"question": "a\tb", "answer": "b"}"#], vec![r#"line 1 question has the cell "\t"; a symbol is"#]),
        (vec![r#"{"question": ["a\u001b"], "answer": "b"}"#], vec!["line 1 question has the cell ", "u001b"]),
    ] {
        fs::write(&file, lines.join("\n")).unwrap();
        let mut command = trm();
        command.args(["data", "import", "jsonl"]).arg(&file).arg("--out").arg(home.path().join("set"));
        let said = fail(command, 2);
        assert_eq!(said.lines().count(), 1, "{said}");
        for expected in expected {
            assert!(said.contains(expected), "{lines:?}: {expected:?} in {said}");
        }
        assert!(!home.path().join("set").exists(), "nothing is written");
    }
    fs::write(&file, b"{\"question\": \"\xff\", \"answer\": \"a\"}").unwrap();
    let mut command = trm();
    command.args(["data", "import", "jsonl"]).arg(&file).arg("--out").arg(home.path().join("set"));
    assert!(fail(command, 2).contains("line 1 "));
}

#[test]
fn a_byte_order_mark_in_front_is_no_part_of_the_first_line() {
    let line = "{\"question\": \"ab\", \"answer\": \"ba\", \"split\": \"train\"}\n";
    assert_eq!(import(&format!("\u{feff}{line}")).unwrap(), import(line).unwrap());
}

#[test]
fn a_description_that_does_not_fit_its_set_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let set = import("{\"question\": \"ab\", \"answer\": \"ba\", \"split\": \"train\"}\n").unwrap();
    let dir = home.path().join("set");
    set.write(&dir).unwrap();
    for (text, expected) in [
        (r#"{"kind": "grid", "height": 3, "width": 2}"#, "says 3×2, but a row has 2 tokens"),
        (r#"{"kind": "grid", "height": 1, "width": 2, "symbols": ["a"]}"#, "1 symbols are named for a vocabulary of 3"),
        (r#"{"kind": "grid", "height": 1, "width": 2, "symbols": ["a", "b", "a"]}"#, "named twice"),
        (r#"{"kind": "chess", "height": 1, "width": 2}"#, "there is no puzzle \"chess\""),
        (r#"{"kind": "maze", "height": 1, "width": 2}"#, "mazes are squares"),
        ("", "not the JSON expected"),
    ] {
        fs::write(dir.join("puzzle.json"), text).unwrap();
        let mut command = trm();
        command.args(["data", "info"]).arg(&dir);
        let said = fail(command, 2);
        assert!(said.contains("puzzle.json") && said.contains(expected) && said.lines().count() == 1, "{said}");
    }
    fs::remove_file(dir.join("puzzle.json")).unwrap();
    let mut command = trm();
    command.args(["data", "info"]).arg(&dir);
    assert!(stdout(&succeed(command)).contains("tokens"));
}

//! Files that people have: Sudoku of any side with and without answers, grids in JSON and CSV, validation splits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{fail, stderr, stdout, succeed, trm};
use proptest::prelude::*;
use tempfile::TempDir;
use trm::dataset::grids::{self, FileKind, GridOptions, Keys};
use trm::dataset::sudoku::{self, SudokuOptions};
use trm::dataset::{Dataset, Imported, RowOptions, Split, audit};
use trm::puzzle::sudoku::{Geometry, Grid, Symmetry};
use trm::rng::Rng;

/// A 9×9 puzzle of 17 clues with its answer, and another of more.
const QUIZ: &str = "4...3.......6..8..........1....5..9..8....6...7.2........1.27..5.3....4.9........";
const SOLVED: &str = "468931527751624839392578461134756298289413675675289314846192753513867942927345186";
const EASY: &str = ".7...4..88.57.....2....8..66.894.2..5921..4......8......6....2....6.5.9.92...36.4";
const EASY_SOLVED: &str = "379264518865791342241358976618947235592136487734582169156479823483625791927813654";

const SUDOKU: SudokuOptions<'_> = SudokuOptions {
    subsample: None,
    aug: 0,
    test_share: 0.0,
    seed: 0,
    rows: RowOptions { columns: None, skip_bad: false },
};

/// Imports the text of a Sudoku file.
fn sudoku_of(text: impl AsRef<[u8]>, options: SudokuOptions<'_>) -> trm::Result<Imported> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    sudoku::import(file.path(), None, options)
}

/// Questions and answers of a split, as text.
fn texts(data: &Dataset, split: &Split) -> Vec<(String, String)> {
    let board = data.board().unwrap();
    let rows = split.inputs.rows().zip(split.labels.rows());
    rows.map(|(q, a)| (board.text(&q.unwrap()), board.text(&a.unwrap()))).collect()
}

#[test]
fn the_columns_of_anybodys_sudoku_file_are_found_by_what_they_hold_and_the_others_kept() {
    let zeros = QUIZ.replace('.', "0");
    let row = vec![(QUIZ.to_owned(), SOLVED.to_owned())];
    for (text, columns, kept) in [
        (format!("quizzes,solutions\n{zeros},{SOLVED}\n"), None, vec![]),
        (format!("\u{feff}puzzle,solution\r\n{zeros},{SOLVED}\r\n"), None, vec![]),
        (
            format!("id,puzzle,solution,clues,difficulty\n1,{QUIZ},{SOLVED},17,3.4\n"),
            None,
            vec![("id", "1"), ("clues", "17"), ("difficulty", "3.4")],
        ),
        (
            format!("Source,Question,Answer,Rating\nown,{QUIZ},{SOLVED},0\n"),
            None,
            vec![("Source", "own"), ("Rating", "0")],
        ),
        (format!("a;b;c\n{SOLVED};x;{QUIZ}\n"), None, vec![("b", "x")]),
        (format!("{QUIZ},{SOLVED},7\n"), None, vec![("column 3", "7")]),
        (format!("{QUIZ}\n"), None, vec![]),
        (format!("# hard ones\n\n{QUIZ}\n#{EASY}\n"), None, vec![]),
        (format!("difficulty_level,board\nhard,{QUIZ}\n"), None, vec![("difficulty_level", "hard")]),
        (format!("a,b,q\n{EASY_SOLVED},{SOLVED},{QUIZ}\n"), Some("q,b"), vec![("a", EASY_SOLVED)]),
        (format!("{EASY_SOLVED}\t{SOLVED}\t{QUIZ}\n"), Some("3,2"), vec![("column 1", EASY_SOLVED)]),
        (format!("q,b\n{QUIZ},x\n"), Some("Q"), vec![("b", "x")]),
    ] {
        let rows = RowOptions { columns, skip_bad: false };
        let data = sudoku_of(&text, SudokuOptions { rows, ..SUDOKU }).unwrap_or_else(|e| panic!("{text}: {e}")).data;
        let train = data.split("train").unwrap();
        assert_eq!(texts(&data, train), row, "{text}");
        assert_eq!(train.columns.names().collect::<Vec<_>>(), kept.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        kept.iter().for_each(|(name, value)| assert_eq!(train.columns.get(name, 0), Some(*value), "{text}"));
    }
    for (text, columns, said) in [
        (
            format!("a,b,q\n{EASY_SOLVED},{SOLVED},{QUIZ}\n"),
            None,
            "columns 1, 2 could all be the answers; name the two",
        ),
        ("a,b\n1,2\n".into(), None, "16, 36, 81 or 256"),
        (format!("q,a\n{QUIZ},{SOLVED}\n"), Some("q,b"), "no column \"b\"; the columns are: q, a"),
        (format!("{QUIZ},{SOLVED}\n"), Some("1,3"), "no column \"3\"; the columns are: 2 without names"),
        (format!("q,a\n{QUIZ},{SOLVED}\n"), Some("q,q"), "one and the same"),
        (format!("quiz,solution,x,x\n{QUIZ},{SOLVED},1,2\n"), None, "has the column \"x\" twice"),
    ] {
        let rows = RowOptions { columns, skip_bad: false };
        let message = sudoku_of(&text, SudokuOptions { rows, ..SUDOKU }).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(said) && message.lines().count() == 1, "{text}: {message}");
    }
}

#[test]
fn boards_of_every_side_are_imported() {
    // Rows of a box shifted against each other, in letters from 10 on.
    let sixteen: String = (0..256)
        .map(|at| (at / 16, at % 16))
        .map(|(r, c)| char::from(b"123456789ABCDEFG"[(r % 4 * 4 + r / 4 + c) % 16]))
        .collect();
    for (question, answer, name) in [
        ("1...............".replacen("....", "..3.", 1), "", "several solutions"),
        (".234341221434321".into(), "1234341221434321", "sudoku 4×4"),
        ("..3456456123231564564231312645645312".into(), "123456456123231564564231312645645312", "sudoku 6×6"),
        (sixteen.replacen('1', ".", 1), sixteen.as_str(), "sudoku 16×16"),
        (sixteen.replacen('1', "0", 1).to_lowercase(), sixteen.as_str(), "sudoku 16×16"),
    ] {
        match sudoku_of(format!("{question}\n"), SUDOKU) {
            Ok(Imported { data, .. }) => {
                assert_eq!(data.board().unwrap().name(), name);
                assert_eq!(texts(&data, data.split("train").unwrap())[0].1, answer);
                let given = sudoku_of(format!("puzzle,solution\n{question},{answer}\n"), SUDOKU).unwrap();
                assert_eq!(given.data, data, "solved as it was given");
            }
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
        }
    }
}

#[test]
fn rows_that_cannot_be_used_are_all_named_or_left_out_and_counted() {
    let several = QUIZ.replacen('4', ".", 1);
    let none = QUIZ.replacen("4...", "41..", 1);
    let short = &QUIZ[1..];
    let list = format!("{QUIZ}\n{several}\n{short}\n{none}\n{EASY}\n{several}\n{QUIZ}x\n");
    let message = sudoku_of(&list, SUDOKU).map(|_| ()).unwrap_err().to_string();
    for said in [
        "5 faults: lines 2, 6: each question has several solutions",
        "line 3 question has 80 characters, expected 81",
        "line 4 question has no solution",
        "line 7 question has 82 characters",
    ] {
        assert!(message.contains(said), "{message}");
    }
    let skip = SudokuOptions { rows: RowOptions { columns: None, skip_bad: true }, ..SUDOKU };
    let Imported { data, notes } = sudoku_of(&list, skip).unwrap();
    assert_eq!(data.split("train").unwrap().examples(), 2);
    assert!(notes[0].contains("5 lines left out: lines 2, 6: each question has several"), "{notes:?}");
    // The first line is not taken for a header because it is wrong.
    for first in [short.to_owned(), QUIZ.replacen('.', "x", 1)] {
        let message = sudoku_of(format!("{first}\n{EASY}\n"), SUDOKU).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(":1: question has "), "{message}");
    }
    let wrong = EASY_SOLVED.replacen("379", "397", 1);
    let swapped: String = EASY_SOLVED
        .chars()
        .map(|c| {
            if c == '1' {
                '2'
            } else if c == '2' {
                '1'
            } else {
                c
            }
        })
        .collect();
    for (answer, said) in [(&wrong, "answer contradicts its question at character 2"), (&swapped, "answer contradicts")]
    {
        let message =
            sudoku_of(format!("q,a\n{EASY},{EASY_SOLVED}\n{EASY},{answer}\n"), SUDOKU).map(|_| ()).unwrap_err();
        assert!(message.to_string().contains(&format!(":3: {said}")), "{message}");
    }
    let open = format!("q,a\n{},{EASY_SOLVED}\n{},{wrong}\n", ".".repeat(81), ".".repeat(81));
    let message = sudoku_of(open, SUDOKU).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains(":3: answer is no solution: "), "{message}");
    for nothing in ["", "# none\n", "\n\n", "puzzle,solution\n"] {
        let message = sudoku_of(nothing, SUDOKU).map(|_| ()).unwrap_err().to_string();
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    assert!(
        sudoku_of(format!("{short}\n"), skip)
            .map(|_| ())
            .unwrap_err()
            .to_string()
            .contains("left out: line 1 question has 80 characters")
    );
}

#[test]
fn images_of_a_puzzle_stay_on_one_side_of_every_split() {
    let made = sudoku::build(6, 30, 0, 3, 4).unwrap();
    let rows = texts(&made, made.split("train").unwrap());
    let mut rng = Rng::new(3);
    let mut text = "puzzle,solution,of\n".to_owned();
    for (at, (question, answer)) in rows.iter().enumerate() {
        for _ in 0..3 {
            let symmetry = Symmetry::random(Geometry::SIX, &mut rng);
            let [q, a] = [question, answer].map(|grid| symmetry.apply_grid(&grid.parse::<Grid>().unwrap()));
            text += &format!("{q},{a},{at}\n");
        }
    }
    let home = tempfile::tempdir().unwrap();
    let (file, out) = (home.path().join("f.csv"), home.path().join("set"));
    fs::write(&file, text).unwrap();
    let mut import = trm();
    import
        .args(["data", "import", "sudoku", "--test-share", "0.3", "--valid", "12", "--csv"])
        .arg(&file)
        .arg("--out")
        .arg(&out);
    assert!(stdout(&succeed(import)).contains("valid 12 rows"));
    let data = Dataset::read(&out).unwrap();
    let report = audit(&data).unwrap();
    assert_eq!((report.splits.len(), report.leaks(), report.faults()), (3, false, 0), "{report}");
    let sizes: Vec<usize> = data.splits.values().map(Split::groups).collect();
    assert!(sizes.iter().all(|size| *size > 0) && sizes.iter().sum::<usize>() == 90, "{sizes:?}");
    // A column goes with its row.
    for split in data.splits.values() {
        let board = data.board().unwrap();
        for group in 0..split.groups() {
            let of: usize = split.columns.get("of", group).unwrap().parse().unwrap();
            let answer = board.text(&split.labels.row(group).unwrap());
            assert_eq!(answer.len(), rows[of].1.len());
        }
    }
}

#[test]
fn a_column_goes_with_its_row_into_a_subsample_and_its_copies() {
    let made = sudoku::build(4, 40, 0, 2, 4).unwrap();
    let rows = texts(&made, made.split("train").unwrap());
    let lines: Vec<String> = rows.iter().map(|(q, a)| format!("{q},{a},{q}")).collect();
    let text = format!("quiz,solution,again\n{}\n", lines.join("\n"));
    for (subsample, seed) in [(Some(7), 1), (Some(39), 2), (Some(40), 3), (None, 0)] {
        let data = sudoku_of(&text, SudokuOptions { subsample, aug: 2, seed, ..SUDOKU }).unwrap().data;
        let (train, board) = (data.split("train").unwrap(), data.board().unwrap());
        assert_eq!(train.groups(), subsample.unwrap_or(40));
        for group in 0..train.groups() {
            let original = board.text(&train.inputs.row(train.group_examples(group).start).unwrap());
            assert_eq!(train.columns.get("again", group), Some(original.as_str()));
        }
    }
}

/// Imports grids from a text.
fn grids_of(text: impl AsRef<[u8]>, options: &GridOptions<'_>) -> trm::Result<Imported> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    grids::import(file.path(), options)
}

const LINES: &str = r#"{"q": "ab..", "a": "abba", "name": "x", "rating": 3, "hard": true, "trace": [1]}
{"q": "b...", "a": "baab", "rating": null, "from": {"book": 1}}
"#;

#[test]
fn lines_an_array_and_csv_say_the_same_with_keys_columns_and_width() {
    let keys = Keys::parse("question=q, answer=a,id=name").unwrap();
    let options = GridOptions { keys, width: Some(2), ..GridOptions::default() };
    let Imported { data, notes } = grids_of(LINES, &options).unwrap();
    let train = data.split("train").unwrap();
    assert_eq!(data.board().unwrap().name(), "grid 2×2");
    assert_eq!(train.columns.names().collect::<Vec<_>>(), ["name", "rating", "hard"]);
    let said: Vec<_> = ["name", "rating", "hard"].map(|name| train.columns.get(name, 0)).to_vec();
    assert_eq!(said, [Some("x"), Some("3"), Some("true")]);
    assert_eq!((train.columns.get("name", 1), train.columns.get("rating", 1)), (None, None));
    assert!(notes.len() == 1 && notes[0].contains("passed over: from, trace"), "{notes:?}");

    let array = format!("\u{feff} [{}]\n", LINES.trim().replace('\n', ",\n"));
    assert_eq!(grids_of(array, &options).unwrap().data, data);
    let csv = "q;a;name;rating;hard\nab..;abba;x;3;true\n\"b.\n..\";\"[\"\"ba\"\", \"\"ab\"\"]\";;;\n";
    let csv = grids_of(csv, &GridOptions { format: FileKind::Csv, ..options.clone() }).unwrap().data;
    assert_eq!(csv, data);

    for (text, format, said) in [
        ("[{\"q\": \"ab..\"}, 7, {\"q\": \"a\", \"a\": \"b\"}]", FileKind::Json, "items 1"),
        (
            "[{\"q\": \"ab..\"}, 7, {\"q\": \"a\", \"a\": \"b\"}]",
            FileKind::Json,
            "item 2 is not {\"q\": …, \"a\": …}: it is no object",
        ),
        ("[{\"q\": \"ab..\", \"a\": \"abba\"},", FileKind::Json, "is no JSON array: EOF"),
        ("[]", FileKind::Json, "has no items"),
        ("q,a\nab..\n", FileKind::Csv, "line 2 has 1 fields, the header has 2"),
        ("q,a,a\nab..,b,c\n", FileKind::Csv, "has the column \"a\" twice"),
        ("q,b\nab..,b\n", FileKind::Csv, "missing field `a`"),
        ("q,a\nabc,abba\n", FileKind::Csv, "line 2 question has 3 cells, which are no rows of 2"),
        ("", FileKind::Csv, "has no lines"),
    ] {
        let message = grids_of(text, &GridOptions { format, ..options.clone() }).map(|_| ()).unwrap_err().to_string();
        let said = said.replace("items 1", "item 1 is not");
        assert!(message.contains(&said) && message.lines().count() == 1, "{text}: {message}");
    }
    for (keys, said) in [
        ("question", "question needs the name of a key"),
        ("quiz=q", "there is no \"quiz\"; the parts of a puzzle are question, answer, answers, id, split"),
        ("question=a,answer=a", "\"a\" stands for two"),
        ("question=answer", "\"answer\" stands for two"),
    ] {
        assert!(Keys::parse(keys).unwrap_err().to_string().contains(said), "{keys}");
    }
}

#[test]
fn several_right_answers_are_kept_from_one_line_or_from_many() {
    let one = r#"{"question": "..", "answers": ["ab", "ba", "ab"], "n": 1}
{"question": "a.", "answer": "ab"}
"#;
    let many = r#"{"question": "..", "answer": "ab", "n": 1}
{"question": "a.", "answer": "ab"}
{"question": "..", "answer": "ba"}
{"question": "..", "answer": "ab"}
"#;
    let options = GridOptions::default();
    let data = grids_of(one, &options).unwrap().data;
    let (train, board) = (data.split("train").unwrap(), data.board().unwrap());
    let answers = |row: usize| train.answers(row).map(|answer| board.text(&answer.unwrap())).collect::<Vec<_>>();
    assert_eq!((answers(0), answers(1)), (vec!["ab".into(), "ba".into()], vec!["ab".to_owned()]));
    assert_eq!(grids_of(many, &GridOptions { several: true, ..options.clone() }).unwrap().data, data);
    let message = grids_of(many, &options).map(|_| ()).unwrap_err().to_string();
    let said = "line 3 has the question of line 1 with another answer; several right answers are written \"answers\": \
                [GRID, …], or taken together with --several";
    assert!(message.contains(said), "{message}");
    let home = tempfile::tempdir().unwrap();
    data.write(home.path().join("set")).unwrap();
    assert_eq!(Dataset::read(home.path().join("set")).unwrap(), data);

    let queens = [r#"["....", "...."]"#, r#"[[".Q..", "...Q"], ["Q...", "..Q."]]"#];
    for (question, answer, said) in [
        (queens[0], queens[1], "answer has the cell \".Q..\" beside a question of single characters; several"),
        ("[1, 2]", "[[[1, 2]], [[2, 1]]]", "answer is a list of grids; several right answers"),
        ("[[1, 2]]", r#"[["x", ["y"]]]"#, "answer is a list of grids"),
    ] {
        let line = format!("{{\"question\": {question}, \"answer\": {answer}}}");
        let message = grids_of(line, &options).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(said) && message.contains("\"answers\": [GRID, …]"), "{message}");
    }
    // The same as a list of answers; words of one length where they are meant; numbers of several digits.
    for (question, answers, grid) in [
        (queens[0], format!("\"answers\": {}", queens[1]), "grid 2×4"),
        ("\"ab\"", "\"answers\": [[[\"cat\", \"dog\"]]]".into(), "grid 1×2"),
        ("[1, 2]", "\"answer\": [[\"10\", \"12\"]]".into(), "grid 1×2"),
        ("[[\"dog\", \"cow\"]]", "\"answer\": [[\"cat\", \"dog\"]]".into(), "grid 1×2"),
    ] {
        let line = format!("{{\"question\": {question}, {answers}}}");
        assert_eq!(grids_of(line, &options).unwrap().data.board().unwrap().name(), grid);
    }
}

#[test]
fn a_file_is_fitted_to_the_vocabulary_and_board_of_another_set_or_refused_by_name() {
    let line = |q: &str, a: &str| format!("{{\"question\": {q:?}, \"answer\": {a:?}}}\n");
    let options = GridOptions::default();
    let whole = grids_of(line("12\n..", "12\n21"), &options).unwrap().data;
    let padded = grids_of(line("12\n..", "12\n21") + &line("1.", "12"), &options).unwrap().data;
    let like = |text: String, like| grids_of(text, &GridOptions { like: Some(like), ..options.clone() });
    for set in [&whole, &padded] {
        let data = like(line("12\n21", "12\n21"), set).unwrap().data;
        assert_eq!(data.puzzle, set.puzzle);
        assert_eq!(
            data.split("train").unwrap().labels.row(0).unwrap(),
            set.split("train").unwrap().labels.row(0).unwrap()
        );
    }
    assert!(like(line("2.", "21"), &padded).is_ok());
    for (text, set, said) in [
        (line("2.", "21"), &whole, "line 1 question is 1×2; all of its data set are 2×2"),
        (line("12\n21", "12\n2x"), &whole, "line 1 answer has \"x\" at row 2, column 2; the symbols are: . 1 2"),
        (line("123", "123"), &padded, "line 1 question is 1×3; there is room for 2×2"),
    ] {
        let message = like(text, set).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(said), "{message}");
    }
    let sudoku = sudoku::build(4, 3, 0, 0, 0).unwrap();
    assert!(like(line("2", "2"), &sudoku).map(|_| ()).unwrap_err().to_string().contains("the set is sudoku 4×4"));
}

#[test]
fn a_model_is_given_a_file_that_was_imported_like_its_own_set() {
    let home = TempDir::new().unwrap();
    let at = |name: &str| home.path().join(name);
    let file = |name: &str, lines: &[(&str, &str)]| -> PathBuf {
        let lines = lines.iter().map(|(q, a)| format!("{{\"question\": {q:?}, \"answer\": {a:?}}}\n"));
        fs::write(at(name), lines.collect::<String>()).unwrap();
        at(name)
    };
    let import = |file: &Path, out: &str, like: Option<&str>| {
        let mut command = trm();
        command.args(["data", "import", "jsonl", "--test-share", "0.5", "--out"]).arg(at(out)).arg(file);
        like.iter().for_each(|set| _ = command.arg("--like").arg(at(set)));
        succeed(command)
    };
    let small = file("small.jsonl", &[("12\n..", "12\n21"), ("21\n..", "21\n12"), (".1\n..", "21\n12")]);
    let full = file("full.jsonl", &[("12\n21", "12\n21"), ("21\n12", "21\n12")]);
    let said = stdout(&import(&small, "small", None));
    assert!(said.ends_with("\n3 symbols: . 1 2\n"), "{said}");
    let mut train = trm();
    train.args(["train", "--max-steps", "1", "--threads", "1", "--set", "hidden_size=16", "--data"]);
    train.arg(at("small")).arg("--out").arg(at("run"));
    succeed(train);
    let eval = |set: &str| {
        let mut eval = trm();
        eval.arg("eval").arg(at("run")).args(["--threads", "1", "--data"]).arg(at(set));
        eval
    };
    import(&full, "like", Some("small"));
    succeed(eval("like"));
}

#[test]
fn more_symbols_than_tokens_are_refused_where_they_begin() {
    let lines: String = (0..200).map(|i| format!("{{\"question\": [{i}], \"answer\": [{}]}}\n", i + 200)).collect();
    let message = grids_of(lines, &GridOptions::default()).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("line 128 brings ") && message.contains("at most 255 can be told apart"), "{message}");
    let long = format!("{{\"question\": \"{}\", \"answer\": \"b\"}}", "a".repeat(4097));
    let message = grids_of(long, &GridOptions::default()).map(|_| ()).unwrap_err().to_string();
    assert!(message.contains("line 1 question has 4097 cells; at most 4096"), "{message}");
}

#[test]
fn builds_and_imports_hold_out_a_validation_split_and_info_describes_it() {
    let home = TempDir::new().unwrap();
    let lines: String =
        (0..40).map(|i| format!("{{\"question\": \"{i:02}\", \"answer\": \"{:02}\"}}\n", i / 2)).collect();
    fs::write(home.path().join("f.jsonl"), lines).unwrap();
    let jsonl = home.path().join("f.jsonl").display().to_string();
    for (name, args) in [
        ("a", vec!["build", "sudoku", "--size", "4", "--count", "20", "--test", "5"]),
        ("b", vec!["build", "maze", "--size", "6", "--count", "20", "--test", "5", "--dihedral"]),
        ("c", vec!["build", "puzzle", "sudoku", "--count", "20", "--test", "5"]),
        ("d", vec!["import", "jsonl", &jsonl]),
    ] {
        let out = home.path().join(name);
        let mut command = trm();
        command.arg("data").args(&args).args(["--valid", "6", "--out"]).arg(&out);
        succeed(command);
        let mut info = trm();
        info.args(["data", "info", "--json"]).arg(&out);
        let info: serde_json::Value = serde_json::from_str(&stdout(&succeed(info))).unwrap();
        let names: Vec<&str> = info["splits"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
        assert_eq!((names, &info["splits"][2]["groups"]), (vec!["train", "test", "valid"], &6.into()), "{name}");
    }
    let mut command: Command = trm();
    command.args(["data", "build", "sudoku", "--size", "4", "--count", "5", "--test", "1", "--valid", "5", "--out"]);
    command.arg(home.path().join("none"));
    assert!(fail(command, 2).contains("--valid 5"));
    assert!(!home.path().join("none").exists());
}

#[test]
fn what_is_passed_over_and_left_out_is_said_beside_the_result() {
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("f.jsonl"), "{\"question\": \"a\", \"answer\": \"b\", \"meta\": {}}\n").unwrap();
    let mut command = trm();
    command
        .args(["data", "import", "jsonl"])
        .arg(home.path().join("f.jsonl"))
        .arg("--out")
        .arg(home.path().join("set"));
    let output = succeed(command);
    assert!(stderr(&output).contains("passed over: meta") && stderr(&output).lines().count() == 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn garbage_is_a_set_or_one_line(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        pieces in prop::collection::vec(prop::sample::select(&[
            QUIZ, SOLVED, EASY, ",", ",", "\n", "\n", "\"", "#", ".", "1", ";", "[", "]", "{", "}", "\"question\":",
            "\"answer\":", "\"a\"", "{\"question\": \"a\", \"answer\": \"b\"}", "question", "answer", "answers",
        ][..]), 0..25),
        skip_bad in any::<bool>(),
    ) {
        for text in [bytes, pieces.concat().into_bytes()] {
            let rows = RowOptions { columns: None, skip_bad };
            let json = GridOptions { several: skip_bad, ..GridOptions::default() };
            let csv = GridOptions { format: FileKind::Csv, ..json.clone() };
            let read = [sudoku_of(&text, SudokuOptions { rows, ..SUDOKU }), grids_of(&text, &json), grids_of(&text, &csv)];
            for error in read.into_iter().filter_map(Result::err) {
                prop_assert_eq!(error.exit_code(), 2);
                let message = error.to_string();
                prop_assert!(message.contains(".tmp"), "{}", message);
            }
        }
    }
}

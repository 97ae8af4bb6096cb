//! Data sets that were damaged in one way each: every one must give one clear line that names the file and the
//! reason; none may panic, and none may allocate what only a header claims.

use std::fs;
use std::path::Path;

use ndarray::{Array1, Array2, ShapeBuilder};
use ndarray_npy::write_npy;
use trm::dataset::{Dataset, Split};
use trm::rng::Rng;

/// Two splits in the published layout; `train` has two groups of two puzzles, 3 tokens a row, vocabulary 6.
fn good_set(root: &Path) {
    fs::write(root.join("identifiers.json"), r#"["<blank>", "a"]"#).unwrap();
    for split in ["train", "test"] {
        let folder = root.join(split);
        fs::create_dir(&folder).unwrap();
        fs::write(
            folder.join("dataset.json"),
            r#"{"pad_id": 0, "ignore_label_id": 0, "blank_identifier_id": 0, "vocab_size": 6, "seq_len": 3, "#
                .to_string()
                + r#""num_puzzle_identifiers": 2, "total_groups": 2, "mean_puzzle_examples": 1.0, "total_puzzles": 2, "#
                + r#""sets": ["all"]}"#,
        )
        .unwrap();
        let tokens = Array2::<u8>::from_shape_fn((4, 3), |(r, c)| (r + c) as u8 % 6);
        write_npy(folder.join("all__inputs.npy"), &tokens).unwrap();
        write_npy(folder.join("all__labels.npy"), &tokens.mapv(i64::from)).unwrap();
        write_npy(folder.join("all__puzzle_identifiers.npy"), &Array1::from(vec![0i32, 1, 1, 1])).unwrap();
        write_npy(folder.join("all__puzzle_indices.npy"), &Array1::from(vec![0i32, 1, 2, 3, 4])).unwrap();
        write_npy(folder.join("all__group_indices.npy"), &Array1::from(vec![0i32, 2, 4])).unwrap();
    }
}

/// An .npy file with this header text and so many bytes of data.
fn raw_npy(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(vec![0u8; data]);
    bytes
}

/// Name, file, how to damage it, what the message must say besides the file's name.
type Case = (&'static str, &'static str, fn(&Path), &'static [&'static str]);

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text} has no {from}");
    fs::write(path, text.replace(from, to)).unwrap();
}

fn indices(path: &Path, values: &[i32]) {
    write_npy(path, &Array1::from(values.to_vec())).unwrap();
}

const CASES: &[Case] = &[
    ("no identifiers", "identifiers.json", |f| fs::remove_file(f).unwrap(), &["missing"]),
    ("identifiers too few", "identifiers.json", |f| fs::write(f, r#"["<blank>"]"#).unwrap(), &["names 1", "2"]),
    ("identifiers no list", "identifiers.json", |f| fs::write(f, "7").unwrap(), &["not the JSON expected"]),
    ("metadata not UTF-8", "train/dataset.json", |f| fs::write(f, b"{\"pad\xff").unwrap(), &["not UTF-8 (byte 5)"]),
    ("metadata cut off", "train/dataset.json", |f| fs::write(f, "{\"pad_id\": 0, ").unwrap(), &["EOF", "line 1"]),
    ("metadata empty", "train/dataset.json", |f| fs::write(f, "").unwrap(), &["EOF"]),
    ("metadata nested deep", "train/dataset.json", |f| fs::write(f, "[".repeat(200_000)).unwrap(), &["JSON"]),
    ("key missing", "train/dataset.json", |f| replace(f, "seq_len", "length"), &["missing field `seq_len`"]),
    (
        "wrong type",
        "train/dataset.json",
        |f| replace(f, ": 6,", ": \"six\","),
        &["vocab_size is \"six\"; a whole number"],
    ),
    ("half a token", "train/dataset.json", |f| replace(f, ": 6,", ": 6.5,"), &["vocab_size is 6.5"]),
    ("vocabulary negative", "train/dataset.json", |f| replace(f, ": 6,", ": -6,"), &["vocab_size is -6", "range"]),
    ("vocabulary missing", "train/dataset.json", |f| replace(f, "vocab", "voc"), &["missing field `vocab_size`"]),
    ("metadata no object", "train/dataset.json", |f| fs::write(f, "[1]").unwrap(), &["no object"]),
    ("sets no list", "train/dataset.json", |f| replace(f, "[\"all\"]", "\"all\""), &["sets is \"all\"; a list"]),
    ("mean no number", "train/dataset.json", |f| replace(f, "1.0", "true"), &["mean_puzzle_examples is true"]),
    ("pad outside a byte", "train/dataset.json", |f| replace(f, "\"pad_id\": 0", "\"pad_id\": 300"), &["300"]),
    ("negative pad", "train/dataset.json", |f| replace(f, "\"pad_id\": 0", "\"pad_id\": -1"), &["-1"]),
    ("vocabulary huge", "train/dataset.json", |f| replace(f, ": 6,", ": 257,"), &["vocab_size 257"]),
    ("vocabulary none", "train/dataset.json", |f| replace(f, ": 6,", ": 0,"), &["vocab_size 0"]),
    ("no tokens a row", "train/dataset.json", |f| replace(f, "\"seq_len\": 3", "\"seq_len\": 0"), &["seq_len is 0"]),
    (
        "other seq_len",
        "train/dataset.json",
        |f| replace(f, "\"seq_len\": 3", "\"seq_len\": 4"),
        &["train/all__inputs.npy", "columns"],
    ),
    ("other group count", "train/dataset.json", |f| replace(f, "groups\": 2", "groups\": 9"), &["total_groups 9"]),
    ("mean of zero", "train/dataset.json", |f| replace(f, "1.0", "0.0"), &["mean_puzzle_examples 0"]),
    ("mean overflows", "train/dataset.json", |f| replace(f, "1.0", "1e999"), &["out of range"]),
    ("no sets", "train/dataset.json", |f| replace(f, "[\"all\"]", "[]"), &["sets is empty"]),
    ("set twice", "train/dataset.json", |f| replace(f, "[\"all\"]", "[\"all\",\"all\"]"), &["twice"]),
    ("set elsewhere", "train/dataset.json", |f| replace(f, "\"all\"", "\"../test/all\""), &["plain file name"]),
    ("blank beyond", "train/dataset.json", |f| replace(f, "r_id\": 0", "r_id\": 2"), &["blank_identifier_id 2"]),
    (
        "identifier count",
        "test/dataset.json",
        |f| replace(f, "ers\": 2", "ers\": 4000000000"),
        &["identifiers.json", "4000000000"],
    ),
    ("array missing", "train/all__labels.npy", |f| fs::remove_file(f).unwrap(), &["missing", "rebuild"]),
    (
        "array is a folder",
        "train/all__labels.npy",
        |f| {
            fs::remove_file(f).unwrap();
            fs::create_dir(f).unwrap()
        },
        &["not a regular file"],
    ),
    ("array empty", "train/all__inputs.npy", |f| fs::write(f, "").unwrap(), &["not an .npy"]),
    ("array not npy", "train/all__inputs.npy", |f| fs::write(f, "source,question,answer").unwrap(), &["not an .npy"]),
    ("version 9", "train/all__inputs.npy", |f| fs::write(f, b"\x93NUMPY\x09\x00aaaaaa").unwrap(), &["version 9"]),
    (
        "header cut off",
        "train/all__inputs.npy",
        |f| fs::write(f, b"\x93NUMPY\x01\x00v\x00{").unwrap(),
        &["header of 118"],
    ),
    (
        "header of 4 GB",
        "train/all__inputs.npy",
        |f| fs::write(f, b"\x93NUMPY\x02\x00\xff\xff\xff\xff{").unwrap(),
        &["4294967295"],
    ),
    ("header garbage", "train/all__inputs.npy", |f| fs::write(f, raw_npy("{'descr'}", 0)).unwrap(), &["malformed"]),
    (
        "header not text",
        "train/all__inputs.npy",
        |f| {
            let mut bytes = raw_npy("{}", 0);
            bytes[10] = 0xff;
            fs::write(f, bytes).unwrap()
        },
        &["not text"],
    ),
    (
        "petabyte claimed",
        "train/all__inputs.npy",
        |f| {
            fs::write(f, raw_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1125899906842624, 3), }", 12))
                .unwrap()
        },
        &["lying header"],
    ),
    (
        "shape overflows",
        "train/all__inputs.npy",
        |f| {
            fs::write(f, raw_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (9223372036854775807, 3), }", 12))
                .unwrap()
        },
        &["impossible"],
    ),
    (
        "bytes overflow",
        "train/all__group_indices.npy",
        |f| {
            fs::write(f, raw_npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2305843009213693952,), }", 0))
                .unwrap()
        },
        &["impossible"],
    ),
    (
        "no rows, many columns",
        "train/all__inputs.npy",
        |f| {
            fs::write(f, raw_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 9223372036854775807), }", 0))
                .unwrap()
        },
        &["columns"],
    ),
    (
        "Fortran order",
        "train/all__inputs.npy",
        |f| write_npy(f, &Array2::<u8>::zeros((4, 3).f())).unwrap(),
        &["Fortran order", "C order"],
    ),
    ("floats", "train/all__inputs.npy", |f| write_npy(f, &Array2::<f32>::zeros((4, 3))).unwrap(), &["dtype", "<f4"]),
    (
        "big endian",
        "train/all__inputs.npy",
        |f| fs::write(f, raw_npy("{'descr': '>i4', 'fortran_order': False, 'shape': (4, 3), }", 48)).unwrap(),
        &["dtype", ">i4"],
    ),
    (
        "truncated",
        "train/all__inputs.npy",
        |f| {
            let bytes = fs::read(f).unwrap();
            fs::write(f, &bytes[..bytes.len() - 1]).unwrap()
        },
        &["holds", "needs", "truncated"],
    ),
    (
        "oversized",
        "train/all__labels.npy",
        |f| {
            let mut bytes = fs::read(f).unwrap();
            bytes.push(0);
            fs::write(f, &bytes).unwrap()
        },
        &["holds", "needs", "oversized"],
    ),
    ("one dimension", "train/all__inputs.npy", |f| indices(f, &[0; 12]), &["[12]", "2 dimension"]),
    (
        "two dimensions",
        "train/all__group_indices.npy",
        |f| write_npy(f, &Array2::<i32>::zeros((3, 1))).unwrap(),
        &["1 dim"],
    ),
    ("other columns", "train/all__inputs.npy", |f| write_npy(f, &Array2::<u8>::zeros((4, 5))).unwrap(), &["5 columns"]),
    (
        "labels of other rows",
        "train/all__labels.npy",
        |f| write_npy(f, &Array2::<u8>::zeros((5, 3))).unwrap(),
        &["[5, 3]"],
    ),
    ("no rows", "train/all__puzzle_identifiers.npy", |f| indices(f, &[]), &["puzzle_indices.npy", "no puzzles"]),
    (
        "token outside",
        "train/all__inputs.npy",
        |f| write_npy(f, &(Array2::<u8>::zeros((4, 3)) + 6)).unwrap(),
        &["token 6", "vocabulary of 6"],
    ),
    (
        "label outside",
        "test/all__labels.npy",
        |f| write_npy(f, &(Array2::<i64>::zeros((4, 3)) + 9)).unwrap(),
        &["token 9"],
    ),
    (
        "token negative",
        "train/all__inputs.npy",
        |f| write_npy(f, &(Array2::<i64>::zeros((4, 3)) - 1)).unwrap(),
        &["element 0 is -1"],
    ),
    (
        "token of 2^40",
        "train/all__inputs.npy",
        |f| write_npy(f, &(Array2::<i64>::zeros((4, 3)) + (1 << 40))).unwrap(),
        &["1099511627776"],
    ),
    ("indices not from 0", "train/all__puzzle_indices.npy", |f| indices(f, &[1, 1, 2, 3, 4]), &["starts with 1"]),
    (
        "indices falling",
        "train/all__puzzle_indices.npy",
        |f| indices(f, &[0, 3, 2, 3, 4]),
        &["does not grow", "entry 1"],
    ),
    ("indices standing", "train/all__group_indices.npy", |f| indices(f, &[0, 0, 4]), &["does not grow"]),
    ("indices negative", "train/all__group_indices.npy", |f| indices(f, &[0, -2, 4]), &["element 1 is -2"]),
    (
        "indices beyond",
        "train/all__puzzle_indices.npy",
        |f| indices(f, &[0, 1, 2, 3, 9]),
        &["ends with 9", "4 examples"],
    ),
    ("indices too few", "train/all__puzzle_indices.npy", |f| indices(f, &[0, 4]), &["2 entries for 4 puzzles"]),
    ("groups empty", "train/all__group_indices.npy", |f| indices(f, &[]), &["no groups"]),
    ("groups one entry", "train/all__group_indices.npy", |f| indices(f, &[0]), &["no groups"]),
    ("groups short", "train/all__group_indices.npy", |f| indices(f, &[0, 2, 3]), &["ends with 3", "4 puzzles"]),
    (
        "identifier outside",
        "train/all__puzzle_identifiers.npy",
        |f| indices(f, &[0, 1, 2, 0]),
        &["puzzle 2", "identifier 2"],
    ),
];

#[test]
fn every_damaged_set_gives_one_line_with_file_and_reason() {
    for (name, file, damage, reasons) in CASES {
        let dir = tempfile::tempdir().unwrap();
        good_set(dir.path());
        let path = dir.path().join(file);
        damage(&path);
        let Err(error) = Dataset::read(dir.path()) else { panic!("{name}: was accepted") };
        let message = error.to_string();
        println!("{name}: {}", message.replace(&dir.path().display().to_string(), ""));
        assert_eq!(error.exit_code(), 2, "{name}");
        assert_eq!(message.lines().count(), 1, "{name}: {message}");
        // Where two files disagree, the one named need not be the one damaged: the case says which it is.
        let says_which = reasons.iter().any(|reason| reason.contains(".npy") || reason.contains(".json"));
        let blamed = if says_which { dir.path() } else { &path };
        assert!(message.contains(&blamed.display().to_string()), "{name}: {message}");
        for reason in *reasons {
            assert!(message.contains(reason), "{name}: {message:?} does not say {reason:?}");
        }
    }
}

#[test]
fn the_undamaged_set_is_read() {
    let dir = tempfile::tempdir().unwrap();
    good_set(dir.path());
    let set = Dataset::read(dir.path()).unwrap();
    let train = set.split("train").unwrap();
    assert_eq!((train.examples(), train.puzzles(), train.groups()), (4, 4, 2));
    assert_eq!(train.inputs, train.labels);
    let message = set.split("valid").unwrap_err().to_string();
    assert!(message.contains("valid") && message.contains("test, train"), "{message}");
}

/// What other builders leave out or write otherwise, with the label of the first row that it leaves without loss.
#[test]
fn sets_as_other_builders_write_them_are_read() {
    let without = |key: &str| {
        let key = key.to_owned();
        move |root: &Path| {
            for split in ["train", "test"] {
                let file = root.join(split).join("dataset.json");
                let mut fields: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
                fields.as_object_mut().unwrap().remove(&key).unwrap();
                fields["builder"] = serde_json::json!({"graph": [1, 2]});
                fs::write(&file, fields.to_string()).unwrap();
            }
        }
    };
    let dir = tempfile::tempdir().unwrap();
    good_set(dir.path());
    let good = Dataset::read(dir.path()).unwrap();
    for key in ["total_puzzles", "total_groups", "mean_puzzle_examples", "sets", "num_puzzle_identifiers", "pad_id"] {
        let dir = tempfile::tempdir().unwrap();
        good_set(dir.path());
        without(key)(dir.path());
        let read = Dataset::read(dir.path()).unwrap();
        let train = read.split("train").unwrap();
        assert_eq!(train.meta.total_puzzles, if key == "total_puzzles" { 4 } else { 2 }, "{key}");
        assert_eq!((train.meta.total_groups, train.meta.mean_puzzle_examples), (2, 1.0), "{key}");
        assert_eq!(
            (&train.inputs, &train.labels),
            (&good.splits["train"].inputs, &good.splits["train"].labels),
            "{key}"
        );
    }
    // A count that nobody relies on may be wrong.
    replace(&dir.path().join("train/dataset.json"), "total_puzzles\": 2", "total_puzzles\": 999");
    assert_eq!(Dataset::read(dir.path()).unwrap().split("train").unwrap().meta.total_puzzles, 999);

    // Without identifiers, prefix sums and set names: every row is a puzzle and a group of its own.
    let dir = tempfile::tempdir().unwrap();
    good_set(dir.path());
    fs::remove_file(dir.path().join("identifiers.json")).unwrap();
    for split in ["train", "test"] {
        let folder = dir.path().join(split);
        for part in ["inputs", "labels"] {
            fs::rename(folder.join(format!("all__{part}.npy")), folder.join(format!("{split}__{part}.npy"))).unwrap();
        }
        for part in ["puzzle_identifiers", "puzzle_indices", "group_indices"] {
            fs::remove_file(folder.join(format!("all__{part}.npy"))).unwrap();
        }
        fs::write(folder.join("dataset.json"), r#"{"vocab_size": 6.0, "seq_len": 3}"#).unwrap();
    }
    let set = Dataset::read(dir.path()).unwrap();
    let train = set.split("train").unwrap();
    assert_eq!((train.groups(), train.puzzles(), train.puzzle_identifiers.clone()), (4, 4, vec![0; 4]));
    assert_eq!((set.identifiers.clone(), train.meta.sets.clone()), (vec!["<blank>".into()], vec!["train".into()]));
    set.write(dir.path().join("again")).unwrap();
    assert_eq!(Dataset::read(dir.path().join("again")).unwrap().split("train").unwrap().inputs, train.inputs);
}

#[test]
fn a_label_without_loss_may_be_any_number() {
    let labels = |id: &str, first: i64| -> trm::Result<Vec<i32>> {
        let dir = tempfile::tempdir().unwrap();
        good_set(dir.path());
        let train = dir.path().join("train");
        replace(&train.join("dataset.json"), "label_id\": 0", &format!("label_id\": {id}"));
        let mut tokens = Array2::<i64>::from_shape_fn((4, 3), |(r, c)| (r + c) as i64 % 6);
        tokens[[0, 1]] = first;
        write_npy(train.join("all__labels.npy"), &tokens.mapv(|label| label as i16)).unwrap();
        let set = Dataset::read(dir.path())?;
        let (mut inputs, mut labels) = ([0; 3], [0; 3]);
        let draw = trm::dataset::Draw { example: 0, augment_seed: 0 };
        trm::dataset::write_example(set.split("train")?, draw, None, &mut inputs, &mut labels)?;
        set.write(dir.path().join("again"))?;
        assert_eq!(Dataset::read(dir.path().join("again"))?.split("train")?.labels, set.split("train")?.labels);
        Ok(labels.to_vec())
    };
    assert_eq!(labels("0", 1).unwrap(), [-100, 1, 2]);
    for nothing in ["null", "-1", "-100", "300"] {
        assert_eq!(labels(nothing, 1).unwrap(), [0, 1, 2], "{nothing}");
    }
    // Labels that are that number already.
    assert_eq!(labels("-1", -1).unwrap(), [0, -100, 2]);
    assert_eq!(labels("0", -100).unwrap(), [-100, -100, 2]);
    assert!(labels("-1", -2).unwrap_err().to_string().contains("element 1 is -2"));
}

#[test]
fn whole_numbers_of_any_width_are_tokens() {
    let dir = tempfile::tempdir().unwrap();
    good_set(dir.path());
    let good = Dataset::read(dir.path()).unwrap();
    let path = dir.path().join("train/all__inputs.npy");
    let tokens = Array2::<u8>::from_shape_fn((4, 3), |(r, c)| (r + c) as u8 % 6);
    for write in [
        (|f, t| write_npy(f, &t.mapv(u16::from)).unwrap()) as fn(&Path, &Array2<u8>),
        |f, t| write_npy(f, &t.mapv(i16::from)).unwrap(),
        |f, t| write_npy(f, &t.mapv(u32::from)).unwrap(),
        |f, t| write_npy(f, &t.mapv(u64::from)).unwrap(),
        |f, t| write_npy(f, &t.mapv(|token| token as i8)).unwrap(),
    ] {
        write(&path, &tokens);
        assert_eq!(Dataset::read(dir.path()).unwrap(), good);
    }
    write_npy(&path, &tokens.mapv(|_| u64::MAX)).unwrap();
    assert!(Dataset::read(dir.path()).unwrap_err().to_string().contains("element 0 is 9223372036854775807"));
}

#[test]
fn several_sets_are_read_one_behind_the_other() {
    let dir = tempfile::tempdir().unwrap();
    good_set(dir.path());
    let folder = dir.path().join("train");
    for part in ["inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices"] {
        fs::copy(folder.join(format!("all__{part}.npy")), folder.join(format!("more__{part}.npy"))).unwrap();
    }
    replace(&folder.join("dataset.json"), "[\"all\"]", "[\"all\", \"more\"]");
    replace(&folder.join("dataset.json"), "groups\": 2", "groups\": 4");
    let set = Dataset::read(dir.path()).unwrap();
    let train = set.split("train").unwrap();
    assert_eq!(train.group_indices, [0, 2, 4, 6, 8]);
    assert_eq!(train.puzzle_indices, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(train.puzzle_identifiers, [0, 1, 1, 1, 0, 1, 1, 1]);
    assert_eq!(train.inputs.row(1).unwrap(), train.inputs.row(5).unwrap());
}

#[test]
fn a_written_set_is_read_back_equal_and_a_taken_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    good_set(dir.path());
    let set = Dataset::read(dir.path()).unwrap();
    let out = dir.path().join("new/deep/set");
    set.write(&out).unwrap();
    assert_eq!(Dataset::read(&out).unwrap(), set);
    assert_eq!(
        fs::read(out.join("train/dataset.json")).unwrap(),
        fs::read(dir.path().join("train/dataset.json")).unwrap()
    );
    let message = set.write(&out).unwrap_err().to_string();
    assert!(message.contains("deep/set") && message.contains("not empty"), "{message}");
    let file = dir.path().join("identifiers.json");
    let message = set.write(&file).unwrap_err().to_string();
    assert!(message.contains("identifiers.json") && message.contains("is a file"), "{message}");
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    set.write(&empty).unwrap();
    assert_eq!(Dataset::read(&empty).unwrap(), set);
}

#[test]
fn a_set_that_cannot_be_written_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    good_set(dir.path());
    let mut set = Dataset::read(dir.path()).unwrap();
    let train = set.splits.get_mut("train").unwrap();
    train.inputs.row_mut(3)[2] = 99;
    let home = tempfile::tempdir().unwrap();
    let message = set.write(home.path().join("set")).unwrap_err().to_string();
    assert!(message.contains("token 99") && message.contains("row 3, column 2"), "{message}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

/// Columns and further answers, beside `good_set`.
fn rich_set(root: &Path) {
    good_set(root);
    for split in ["train", "test"] {
        let folder = root.join(split);
        fs::write(folder.join("columns.csv"), "rating,from\n3,a\n,\"b\nc\"\n").unwrap();
        write_npy(folder.join("all__more_answers.npy"), &Array2::<u8>::ones((3, 3))).unwrap();
        indices(&folder.join("all__more_answer_indices.npy"), &[0, 2, 2, 3, 3]);
    }
}

#[test]
fn columns_and_further_answers_are_read_written_and_joined_over_sets() {
    let dir = tempfile::tempdir().unwrap();
    rich_set(dir.path());
    let set = Dataset::read(dir.path()).unwrap();
    let train = set.split("train").unwrap();
    assert_eq!(train.columns.names().collect::<Vec<_>>(), ["rating", "from"]);
    assert_eq!((train.columns.get("rating", 0), train.columns.get("rating", 1)), (Some("3"), None));
    assert_eq!(train.columns.get("from", 1), Some("b\nc"));
    let counts = |split: &Split| (0..split.examples()).map(|row| split.answers(row).count()).collect::<Vec<_>>();
    assert_eq!(counts(train), [3, 1, 2, 1]);
    let out = dir.path().join("new");
    set.write(&out).unwrap();
    assert_eq!(Dataset::read(&out).unwrap(), set);
    let info = trm::dataset::info(&set).unwrap().to_string();
    assert!(info.contains("train: 3 further right answers\ntrain: columns rating, from"), "{info}");

    // A second set without further answers; the columns are of all groups.
    let folder = dir.path().join("train");
    for part in ["inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices"] {
        fs::copy(folder.join(format!("all__{part}.npy")), folder.join(format!("more__{part}.npy"))).unwrap();
    }
    replace(&folder.join("dataset.json"), "[\"all\"]", "[\"more\", \"all\"]");
    replace(&folder.join("dataset.json"), "groups\": 2", "groups\": 4");
    let message = Dataset::read(dir.path()).unwrap_err().to_string();
    assert!(message.contains("train: columns.csv holds 2 lines under its header for 4 groups"), "{message}");
    fs::write(folder.join("columns.csv"), "rating\n1\n2\n3\n4\n").unwrap();
    let set = Dataset::read(dir.path()).unwrap();
    let train = set.split("train").unwrap();
    assert_eq!((counts(train), train.columns.get("rating", 3)), (vec![1, 1, 1, 1, 3, 1, 2, 1], Some("4")));
}

#[test]
fn damaged_further_answers_are_one_line() {
    for (file, damage, said) in [
        ("all__more_answers.npy", None, "all__more_answers.npy: is missing"),
        ("all__more_answer_indices.npy", None, "all__more_answer_indices.npy: is missing"),
        ("all__more_answer_indices.npy", Some(&[0, 2, 1, 3, 3][..]), "does not grow from entry 1"),
        ("all__more_answer_indices.npy", Some(&[0, 3]), "2 entries for 4 examples"),
        ("all__more_answer_indices.npy", Some(&[0, 2, 2, 2, 2]), "ends with 2 but there are 3 further answers"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        rich_set(dir.path());
        let path = dir.path().join("train").join(file);
        match damage {
            None => fs::remove_file(&path).unwrap(),
            Some(values) => indices(&path, values),
        }
        let message = Dataset::read(dir.path()).unwrap_err().to_string();
        assert!(message.contains(said) && message.lines().count() == 1, "{message}");
    }
    let dir = tempfile::tempdir().unwrap();
    rich_set(dir.path());
    let path = dir.path().join("train/all__more_answers.npy");
    write_npy(&path, &Array2::<u8>::zeros((3, 2))).unwrap();
    assert!(Dataset::read(dir.path()).unwrap_err().to_string().contains("has 2 columns but the inputs have 3"));
    write_npy(&path, &(Array2::<u8>::zeros((3, 3)) + 9)).unwrap();
    assert!(Dataset::read(dir.path()).unwrap_err().to_string().contains("token 9 is outside"));
}

#[test]
fn random_damage_gives_a_set_or_one_line_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    rich_set(dir.path());
    let mut files: Vec<_> = fs::read_dir(dir.path().join("train")).unwrap().map(|e| e.unwrap().path()).collect();
    files.push(dir.path().join("identifiers.json"));
    files.sort();
    let mut rng = Rng::new(2026);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..3000 {
        let file = &files[rng.below(files.len())];
        let good = fs::read(file).unwrap();
        let mut bad = good.clone();
        match rng.below(4) {
            0 => bad.truncate(rng.below(good.len())),
            1 => bad.extend((0..rng.below(200)).map(|i| i as u8)),
            _ => (0..=rng.below(3)).for_each(|_| {
                let at = rng.below(bad.len());
                bad[at] = rng.below(256) as u8;
            }),
        }
        fs::write(file, &bad).unwrap();
        match Dataset::read(dir.path()) {
            Ok(_) => accepted += 1,
            Err(error) => {
                assert_eq!((error.to_string().lines().count(), error.exit_code()), (1, 2), "{error}");
                refused += 1;
            }
        }
        fs::write(file, &good).unwrap();
    }
    println!("{accepted} harmless, {refused} refused");
    assert!(refused > 1500 && accepted > 10);
}

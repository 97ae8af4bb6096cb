//! Our reader and our builders against what the authors' builders wrote.
//!
//! The folder comes from `TRM_GOLDEN_DATA` (default `tests/golden_data`). Random draws differ between programs, so
//! the bytes of a build cannot be compared; what can is named by each test.

#[path = "common/golden_arc.rs"]
mod golden_arc;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use trm::dataset::{Dataset, Split, maze, sudoku};
use trm::puzzle::TokenPair;
use trm::puzzle::maze::image;
use trm::puzzle::sudoku::{Geometry, Grid, Puzzle, canonical, find_symmetry};

fn golden() -> PathBuf {
    std::env::var_os("TRM_GOLDEN_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_data"), PathBuf::from)
}

/// Runs the check of every folder there is, by name; there is none without one.
#[test]
fn every_golden_folder_is_checked() {
    let mut checked = 0;
    let mut not_built = Vec::new();
    let mut folders: Vec<PathBuf> =
        fs::read_dir(golden()).expect("the golden data folder").filter_map(|e| Some(e.ok()?.path())).collect();
    folders.sort();
    for folder in folders.iter().filter(|f| f.is_dir()) {
        let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match name.as_str() {
            "sudoku" => {
                check_sudoku(folder);
                checked += 1;
            }
            "maze" => {
                check_maze(folder);
                checked += 1;
            }
            "arc" => {
                golden_arc::check(folder);
                checked += 1;
            }
            _ => not_built.push(name),
        }
    }
    println!("golden data: {checked} checked, {} not built: {}", not_built.len(), not_built.join(", "));
    assert!(not_built.is_empty(), "nothing checks {not_built:?}");
    assert_eq!(checked, 3, "sudoku, maze and arc in {}", golden().display());
}

/// Whatever the puzzle, the reader reads it.
#[test]
fn every_published_set_is_read() {
    for (puzzle, train, test) in [("sudoku", [24, 24, 6], [5, 5, 5]), ("maze", [24, 24, 3], [2, 2, 2])] {
        let set = Dataset::read(golden().join(puzzle).join("built")).expect(puzzle);
        for (name, counts) in [("train", train), ("test", test)] {
            let split = set.split(name).expect(puzzle);
            assert_eq!([split.examples(), split.puzzles(), split.groups()], counts, "{puzzle} {name}");
        }
    }
    let arc = Dataset::read(golden().join("arc/built")).expect("arc");
    let train = arc.split("train").expect("arc");
    assert_eq!((train.groups(), train.puzzles(), arc.identifiers.len()), (11, 55, 56));
}

fn check_sudoku(folder: &Path) {
    let theirs = Dataset::read(folder.join("built")).expect("the authors' set is read");
    let (train_csv, test_csv) = (folder.join("train.csv"), folder.join("test.csv"));

    // Every stored row leads back to a row of its CSV file, question and answer by one symmetry, and all rows of a
    // group to the same one; the first is that row itself. Two searches that share no code must agree.
    let sources = csv_puzzles(&train_csv);
    let train = theirs.split("train").expect("train");
    let mut used = BTreeSet::new();
    for group in 0..train.groups() {
        let rows = train.group_examples(group);
        let original = puzzle(train, rows.start);
        let source = sources.iter().position(|s| *s == original).expect("a group starts with a row of the CSV file");
        assert!(used.insert(source), "no row is used twice");
        for row in rows {
            let stored = puzzle(train, row);
            let by_pattern = between(&sources[source], &stored).expect("a copy is an image of its source");
            assert_eq!(by_pattern.apply_puzzle(&sources[source]), stored);
            let form = |puzzle: &Puzzle| canonical(&puzzle.question).expect("a canonical form").form;
            assert_eq!(form(&stored), form(&sources[source]));
        }
    }
    let test = theirs.split("test").expect("test");
    let stored: Vec<Puzzle> = (0..test.examples()).map(|row| puzzle(test, row)).collect();
    assert_eq!(stored, csv_puzzles(&test_csv), "the test set is its CSV file, unaugmented");

    // Our build of the same files: same layout, counts, metadata.
    let ours = as_published(sudoku::import_sudoku_extreme(&train_csv, &test_csv, Some(6), 3, 0).expect("our build"));
    for name in ["train", "test"] {
        let (a, b) = (theirs.split(name).expect(name), ours.split(name).expect(name));
        assert_eq!(a.meta, b.meta, "{name}");
        assert_eq!((a.inputs.dim(), a.labels.dim()), (b.inputs.dim(), b.labels.dim()), "{name}");
        assert_eq!(a.puzzle_identifiers, b.puzzle_identifiers, "{name}");
        assert_eq!(a.puzzle_indices, b.puzzle_indices, "{name}");
        assert_eq!(a.group_indices, b.group_indices, "{name}");
    }
    assert_eq!(theirs.split("test").expect("test"), ours.split("test").expect("test"));
    let drawn_at_random = |file: &str| file.contains("train/all__inputs") || file.contains("train/all__labels");
    assert_same_files(&ours, folder, drawn_at_random);
    println!(
        "sudoku: {} + {} stored rows lead back to their sources; our build agrees",
        train.examples(),
        test.examples()
    );
}

/// The set without what the published builders drop: the further columns of the files.
fn as_published(mut ours: Dataset) -> Dataset {
    for split in ours.splits.values_mut() {
        assert!(split.columns.names().eq(["source", "rating"]), "the columns are kept");
        split.columns = trm::dataset::Columns::default();
    }
    ours
}

/// Our set, written, has the files of the authors', and but for the excused ones the same bytes.
fn assert_same_files(ours: &Dataset, folder: &Path, excused: impl Fn(&str) -> bool) {
    let home = tempfile::tempdir().expect("a temporary folder");
    let out = home.path().join("ours");
    ours.write(&out).expect("our set is written");
    assert_eq!(files(&out), files(&folder.join("built")), "the same files under the same names");
    for file in files(&out) {
        let (a, b) =
            (fs::read(out.join(&file)).expect("ours"), fs::read(folder.join("built").join(&file)).expect("theirs"));
        assert!(excused(&file) || a == b, "{file} is equal byte for byte");
    }
}

/// Nothing is drawn at random in a maze set but the order of groups, and copies are undone by their number.
fn check_maze(folder: &Path) {
    let theirs = Dataset::read(folder.join("built")).expect("the authors' set is read");
    assert_eq!(theirs.puzzle.kind, trm::puzzle::maze::MAZE);
    let ours = maze::import(folder.join("train.csv"), Some(&folder.join("test.csv")), true).expect("our build");
    let ours = as_published(ours);
    for name in ["train", "test"] {
        let (a, b) = (theirs.split(name).expect(name), ours.split(name).expect(name));
        assert_eq!(a.meta, b.meta, "{name}");
        assert_eq!(
            (&a.puzzle_identifiers, &a.puzzle_indices, &a.group_indices),
            (&b.puzzle_identifiers, &b.puzzle_indices, &b.group_indices),
            "{name}"
        );
    }
    let (theirs_train, ours_train) = (theirs.split("train").expect("train"), ours.split("train").expect("train"));
    let inverse = [0, 3, 2, 1, 4, 5, 6, 7];
    for group in 0..theirs_train.groups() {
        let rows = theirs_train.group_examples(group);
        let source = theirs_train.inputs.row(rows.start).unwrap().to_vec();
        for (id, row) in rows.clone().enumerate() {
            let undone = |rows: &trm::dataset::Tokens| image(30, inverse[id], &rows.row(row).unwrap());
            assert_eq!(undone(&theirs_train.inputs), source, "group {group}, copy {id}");
            assert_eq!(undone(&theirs_train.labels), theirs_train.labels.row(rows.start).unwrap().to_vec());
        }
        let twin = (0..ours_train.groups())
            .map(|g| ours_train.group_examples(g))
            .find(|r| ours_train.inputs.row(r.start).unwrap().to_vec() == source);
        let twin = twin.expect("the group's source is a row of the CSV file");
        for (a, b) in rows.zip(twin) {
            assert_eq!(theirs_train.inputs.row(a).unwrap(), ours_train.inputs.row(b).unwrap());
            assert_eq!(theirs_train.labels.row(a).unwrap(), ours_train.labels.row(b).unwrap());
        }
    }
    assert_eq!(theirs.split("test").expect("test"), ours.split("test").expect("test"));
    assert_same_files(&ours, folder, |file| file.contains("train/all__inputs") || file.contains("train/all__labels"));
    println!("maze: {} stored rows lead back to their sources; our build agrees", theirs_train.examples());
}

fn puzzle(split: &Split, row: usize) -> Puzzle {
    let grid = |tokens: &[u8]| Grid::from_tokens(Geometry::NINE, tokens).expect("a board");
    Puzzle { question: grid(&split.inputs.row(row).unwrap()), answer: grid(&split.labels.row(row).unwrap()) }
}

fn between(from: &Puzzle, to: &Puzzle) -> Option<trm::puzzle::sudoku::Symmetry> {
    let rows = |p: &Puzzle| (p.question.tokens().collect::<Vec<u8>>(), p.answer.tokens().collect::<Vec<u8>>());
    let (from, to) = (rows(from), rows(to));
    find_symmetry(
        Geometry::NINE,
        TokenPair { question: &from.0, answer: &from.1 },
        TokenPair { question: &to.0, answer: &to.1 },
    )
}

/// The puzzles of a CSV file, by the plainest reader there is.
fn csv_puzzles(path: &Path) -> Vec<Puzzle> {
    let text = fs::read_to_string(path).expect("a CSV file");
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let grid = |text: &str| Grid::parse(Geometry::NINE, text).expect("a board");
        Puzzle { question: grid(fields[1]), answer: grid(fields[2]) }
    };
    text.lines().skip(1).map(parse).collect()
}

/// Paths of all files under a folder.
fn files(root: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).map(|p| p.to_string_lossy().into_owned());
                found.insert(name.unwrap_or_default());
            }
        }
    }
    found
}

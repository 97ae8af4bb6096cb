//! A puzzle table of thousands of rows: saved by what changed, resumed to the same bytes, published as the dense tensor.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::Duration;

use crate::common::{self, fail, resume, stderr, succeed, train};
use ndarray::Array2;
use tempfile::TempDir;
use trm::checkpoint::load_weights;
use trm::dataset::{Columns, Dataset, Metadata, Split};
use trm::engine::puzzle_table;
use trm::puzzle::Description;
use trm::rng::Rng;

const PUZZLES: usize = 3000;
const NDIM: usize = 512;

/// Wide rows and a large batch, so that a checkpoint's rows are worth a file of their own.
const SETTINGS: [&str; 8] = [
    "puzzle_emb_ndim=512",
    "learned_prefix=0",
    "batch_size=32",
    "max_steps=200",
    "checkpoint_interval=8",
    "eval_interval=0",
    "augment=stored",
    "l_cycles=1",
];

/// Grids of digits 1 to 4 in 16 cells, each its own puzzle with its own identifier.
fn split(puzzles: usize) -> Split {
    let mut rng = Rng::new(puzzles as u64);
    let inputs = Array2::from_shape_fn((puzzles, 16), |_| 1 + rng.below(5) as u8);
    let sums: Vec<u32> = (0..=puzzles as u32).collect();
    Split {
        meta: Metadata {
            pad_id: 0,
            ignore_label_id: Some(0),
            blank_identifier_id: 0,
            vocab_size: 6,
            seq_len: 16,
            num_puzzle_identifiers: PUZZLES + 1,
            total_groups: puzzles,
            mean_puzzle_examples: 1.0,
            total_puzzles: puzzles,
            sets: vec!["all".into()],
        },
        labels: inputs.map(|&token| token.max(2)).into(),
        inputs: inputs.into(),
        puzzle_identifiers: (1..=puzzles as u32).collect(),
        puzzle_indices: sums.clone(),
        group_indices: sums,
        more_answers: None,
        columns: Columns::default(),
    }
}

/// The data, and the run on it that never stopped.
fn uninterrupted() -> (&'static Path, &'static Path) {
    static RUN: OnceLock<(TempDir, PathBuf, PathBuf)> = OnceLock::new();
    let (_, data, run) = RUN.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (data, run) = (dir.path().join("data"), dir.path().join("run"));
        let splits = BTreeMap::from([("train".to_owned(), split(PUZZLES)), ("test".to_owned(), split(20))]);
        let identifiers = (0..=PUZZLES).map(|id| format!("puzzle {id}")).collect();
        Dataset { splits, identifiers, puzzle: Description::infer(16, 6) }.write(&data).unwrap();
        succeed(train_on(&data, &run));
        (dir, data, run)
    });
    (data, run)
}

fn train_on(data: &Path, run: &Path) -> Command {
    let mut command = train(run, &SETTINGS);
    command.arg("--data").arg(data);
    command
}

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("weights.safetensors")).unwrap()
}

/// The checkpoint files whose names start so, oldest first.
fn files(run: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(run.join("checkpoint")) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    files.sort();
    files
}

fn wait_for_new_checkpoints(run: &Path, child: &mut Child, mut how_many: usize) {
    let mut before = files(run, "state-").pop();
    while how_many > 0 {
        let newest = files(run, "state-").pop();
        how_many -= usize::from(newest != before);
        before = newest;
        assert!(child.try_wait().unwrap().is_none(), "the run ended too soon");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_run_killed_at_random_moments_ends_with_the_bytes_of_one_that_never_stopped() {
    let (data, whole) = uninterrupted();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut rng = Rng::new(u64::from(std::process::id()));
    let mut most = 0;
    for _ in 0..8 {
        let started = run.join("config.toml").exists();
        let mut child = if started { resume(&run) } else { train_on(data, &run) }.spawn().unwrap();
        wait_for_new_checkpoints(&run, &mut child, 2);
        std::thread::sleep(Duration::from_micros(rng.below(60_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        most = most.max(files(&run, "rows-").len());
    }
    assert!(most > 1, "the table was saved whole every time");
    succeed(resume(&run));
    assert!(weights(&run) == weights(whole), "the weights differ");
    let last = |run: &Path| fs::read(files(run, "rows-").pop().unwrap()).unwrap();
    assert!(last(&run) == last(whole), "the rows differ");
}

#[test]
fn the_published_tensor_is_dense_and_zero_where_nothing_was_learned() {
    let (_, run) = uninterrupted();
    let tensors = load_weights(&run.join("weights.safetensors")).unwrap();
    let table = tensors.iter().find(|tensor| tensor.name == puzzle_table::NAME).unwrap();
    assert_eq!(table.shape, [PUZZLES + 1, NDIM]);
    let learned = table.data.chunks_exact(NDIM).filter(|row| row.iter().any(|&value| value != 0.0)).count();
    // 200 updates of 32 slots, in which puzzles live for more than one update.
    assert!((1000..PUZZLES).contains(&learned), "{learned}");
    assert!(table.data[..NDIM].iter().all(|value| value.to_bits() == 0), "nobody is number 0");
    let mut eval = common::trm();
    eval.arg("eval").arg(run);
    succeed(eval);
}

#[test]
fn a_damaged_row_file_falls_back_to_a_checkpoint_before_it() {
    let (data, whole) = uninterrupted();
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut child = train_on(data, &run).spawn().unwrap();
    wait_for_new_checkpoints(&run, &mut child, 12);
    child.kill().unwrap();
    child.wait().unwrap();
    let newest = files(&run, "rows-").into_iter().max_by_key(|file| until(file)).unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let said = stderr(&succeed(resume(&run)));
    let name = newest.file_name().unwrap().to_str().unwrap();
    assert!(said.lines().any(|line| line.contains(name) && line.contains("falling back")), "{said}");
    assert!(weights(&run) == weights(whole), "the weights differ");
}

/// The update in the name of a row file.
fn until(file: &Path) -> u64 {
    file.file_stem().unwrap().to_str().unwrap().rsplit('-').next().unwrap().parse().unwrap()
}

#[test]
fn a_checkpoint_of_another_format_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    succeed(train(&run, &["max_steps=4", "checkpoint_interval=2"]));
    for file in files(&run, "state-") {
        let mut bytes = fs::read(&file).unwrap();
        bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        fs::write(&file, bytes).unwrap();
    }
    let said = fail(resume(&run), 2);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("another version of trm: format 1, this one reads 2"), "{said}");
}

//! Rows that cannot be read any more, because their file has shrunk: one line, an exit code, and nothing half done.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{self, RandomExamples, config, trm};
use ndarray_npy::{write_npy, write_zeroed_npy};
use trm::config::Mixing;
use trm::dataset::Examples;
use trm::engine::{LaneEngine, Lanes, Weights};
use trm::model::Model;
use trm::train::Trainer;
use trm::{Error, Result};

/// Random examples, one of which cannot be read.
struct Shrinking {
    examples: RandomExamples,
    bad_slot: Option<usize>,
}

impl Examples for Shrinking {
    fn next_batch(&mut self) {
        self.examples.next_batch();
    }

    fn write(&mut self, slot: usize, inputs: &mut [u8], labels: &mut [i32]) -> Result<u32> {
        match Some(slot) == self.bad_slot {
            true => Err(Error::input("a.npy: row 7 cannot be read any more")),
            false => self.examples.write(slot, inputs, labels),
        }
    }
}

#[test]
fn a_step_whose_examples_cannot_be_read_leaves_the_trainer_as_it_was() {
    let mut config = config(Mixing::MlpT, 12);
    // Every slot takes a new example at every step.
    config.train.halt_max_steps = 1;
    let lanes = Lanes::new(2).unwrap();
    let model = Model::new(&config.model, &config.task);
    let trainer = |config: &trm::config::Config| {
        Trainer::on(&lanes, config.clone(), Weights::new(&model, config), 10).expect("room for it")
    };
    let (mut disturbed, mut other) = (trainer(&config), trainer(&config));
    let mut examples = Shrinking { examples: RandomExamples::new(&config), bad_slot: None };
    let mut same = RandomExamples::new(&config);
    let state = |trainer: &Trainer<LaneEngine<'_>>| serde_json::to_string(&trainer.state()).unwrap();
    disturbed.step(&mut examples).unwrap();
    other.step(&mut same).unwrap();
    let before = state(&disturbed);
    for bad_slot in [0, 7, 11] {
        (examples.bad_slot, examples.examples.batch) = (Some(bad_slot), 1);
        let error = disturbed.step(&mut examples).unwrap_err();
        assert_eq!((error.exit_code(), error.to_string().lines().count()), (2, 1));
        assert!(state(&disturbed) == before, "slot {bad_slot}");
    }
    (examples.bad_slot, examples.examples.batch) = (None, 1);
    disturbed.step(&mut examples).unwrap();
    other.step(&mut same).unwrap();
    assert!(state(&disturbed) == state(&other));
}

const COLUMNS: usize = 256;

/// A training split so large that its rows stay in their files (which are holes), and a small test split.
fn large_set(root: &Path) {
    fs::write(root.join("identifiers.json"), r#"["<blank>"]"#).unwrap();
    for (split, rows) in [("train", (256 << 20) / COLUMNS), ("test", 4)] {
        let folder = root.join(split);
        fs::create_dir(&folder).unwrap();
        let meta = serde_json::json!({
            "pad_id": 0, "ignore_label_id": null, "blank_identifier_id": 0, "vocab_size": 7, "seq_len": COLUMNS,
            "num_puzzle_identifiers": 1, "total_groups": rows, "mean_puzzle_examples": 1.0, "total_puzzles": rows,
            "sets": ["all"]
        });
        fs::write(folder.join("dataset.json"), meta.to_string()).unwrap();
        for part in ["inputs", "labels"] {
            let file = File::create(folder.join(format!("all__{part}.npy"))).unwrap();
            write_zeroed_npy::<u8, _>(&file, (rows, COLUMNS)).unwrap();
        }
        let sums = ndarray::Array1::from_iter(0..=rows as i32);
        write_npy(folder.join("all__puzzle_identifiers.npy"), &ndarray::Array1::<i32>::zeros(rows)).unwrap();
        write_npy(folder.join("all__puzzle_indices.npy"), &sums).unwrap();
        write_npy(folder.join("all__group_indices.npy"), &sums).unwrap();
    }
}

/// What a command says on standard error whose data set shrinks as soon as `begun` says so.
#[cfg(unix)]
fn shrunk_under(mut command: Command, data: &Path, begun: impl Fn() -> bool) -> String {
    let inputs = data.join("train/all__inputs.npy");
    let whole = fs::metadata(&inputs).unwrap().len();
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while !begun() {
        assert!(child.try_wait().unwrap().is_none(), "{command:?} has ended");
        assert!(start.elapsed() < Duration::from_secs(300), "{command:?} has not begun");
        std::thread::sleep(Duration::from_millis(20));
    }
    let file = File::options().write(true).open(&inputs).unwrap();
    file.set_len(4096).unwrap();
    let output = child.wait_with_output().unwrap();
    file.set_len(whole).unwrap();
    let said = common::stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

#[cfg(unix)]
#[test]
fn a_file_that_shrinks_under_a_run_or_an_evaluation_is_one_line_and_exit_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let (data, run) = (dir.path().join("data"), dir.path().join("run"));
    fs::create_dir(&data).unwrap();
    large_set(&data);
    let mut train = trm();
    train.args(["train", "--threads", "2", "--data"]).arg(&data).arg("--out").arg(&run);
    for set in ["hidden_size=32", "n_heads=2", "inner_multiple=32", "h_cycles=1", "l_cycles=1", "n_layers=1"]
        .iter()
        .chain(&["batch_size=8", "max_steps=1000000", "halt_max_steps=2", "eval_interval=0", "checkpoint_interval=1"])
    {
        train.args(["--set", set]);
    }
    let one_line = |said: &str| {
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("trm: ")).collect();
        assert_eq!(errors.len(), 1, "{said}");
        assert!(errors[0].contains("all__inputs.npy: row ") && errors[0].contains("cannot be read any more"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    };
    let weights = run.join("weights.safetensors");
    one_line(&shrunk_under(train, &data, || weights.exists()));

    let mut eval = trm();
    eval.arg("eval").arg(&run).args(["--split", "train", "--threads", "2"]);
    // It lasts for hours. Most of the wait is for the check of all rows at its start, which says the same.
    let begun = Instant::now();
    one_line(&shrunk_under(eval, &data, || begun.elapsed() > Duration::from_secs(6)));
}

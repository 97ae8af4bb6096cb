//! A gradient that is not finite stops the run, and what was good stays as it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common::{self, RandomExamples, config, fail, resume, train};
use trm::Error;
use trm::config::{FixedPoint, Mixing};
use trm::engine::{Engine as _, LaneEngine, Lanes, Weights};
use trm::model::Model;
use trm::train::Trainer;

/// Trains two steps, lets `spoil` do its work, and returns the error of the third; the weights must be those of before.
fn third_step_of(spoil: impl FnOnce(&mut Trainer<LaneEngine<'_>>)) -> Error {
    let config = config(Mixing::Attention, 12);
    let lanes = Lanes::new(2).unwrap();
    let model = Model::new(&config.model, &config.task);
    let mut examples = RandomExamples::new(&config);
    let weights = Weights::new(&model, &config);
    let mut trainer = Trainer::on(&lanes, config, weights, 10).expect("room for it");
    for _ in 0..2 {
        trainer.step(&mut examples).unwrap();
    }
    spoil(&mut trainer);
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let of = |trainer: &Trainer<LaneEngine<'_>>| {
        let table = trainer.engine.weights.table.as_ref().unwrap();
        let rows: Vec<Vec<u32>> = (0..table.rows() as u32).map(|id| bits(table.row(id))).collect();
        (bits(trainer.engine.weights.params.values()), bits(&trainer.engine.ema), rows)
    };
    let before = of(&trainer);
    let error = trainer.step(&mut examples).unwrap_err();
    assert!(of(&trainer) == before, "something was overwritten");
    assert_eq!(trainer.step_count(), 2);
    error
}

#[test]
fn a_weight_that_is_not_finite_stops_the_step_before_anything_changes() {
    for value in [f32::NAN, f32::INFINITY] {
        let error = third_step_of(|trainer| {
            trainer.engine.weights.params.update(|values| values[5] = value);
        });
        assert!(matches!(&error, Error::NonFinite { step: 3, tensor, .. } if tensor.contains("loss")), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}

#[test]
fn states_that_are_nan_never_count_as_settled() {
    for method in [FixedPoint::Plain, FixedPoint::Anderson] {
        let mut config = config(Mixing::MlpT, 8);
        (config.model.h_cycles, config.model.fixed_point, config.model.fixed_point_tolerance) = (6, method, 1.0);
        let model = Model::new(&config.model, &config.task);
        let mut weights = Weights::new(&model, &config);
        weights.params.update(|values| values.fill(f32::NAN));
        let lanes = Lanes::new(1).unwrap();
        let mut trainer = Trainer::on(&lanes, config.clone(), weights, 1).expect("room for it");
        let error = trainer.step(&mut RandomExamples::new(&config)).unwrap_err();
        assert!(matches!(&error, Error::NonFinite { .. }), "{error}");
        let planned = model.schedule.calls.len() as u32;
        let calls: Vec<u32> = trainer.engine.groups().iter().flat_map(|group| group.outcome.calls.clone()).collect();
        assert!(calls.iter().all(|&calls| calls == planned), "{method:?}: {calls:?} of {planned}");
    }
}

#[test]
fn a_puzzle_row_that_is_not_finite_stops_the_step_before_anything_changes() {
    let error = third_step_of(|trainer| {
        let table = Arc::make_mut(trainer.engine.weights.table.as_mut().unwrap());
        (0..table.rows() as u32).for_each(|id| table.row_mut(id, 2).fill(f32::NAN));
    });
    assert!(matches!(&error, Error::NonFinite { step: 3, .. }), "{error}");
}

#[test]
fn a_gradient_that_is_not_finite_names_its_tensor_though_the_loss_is_finite() {
    let error = third_step_of(|trainer| trainer.config.train.halt_loss_weight = 1e300);
    let Error::NonFinite { step: 3, tensor, .. } = &error else { panic!("{error}") };
    assert!(tensor.contains("inner."), "{error}");
}

#[test]
fn a_gradient_whose_square_is_not_finite_stops_the_step_before_adam_makes_weights_of_it() {
    let error = third_step_of(|trainer| {
        let train = &mut trainer.config.train;
        (train.halt_loss_weight, train.grad_clip) = (1e25, 0.0);
    });
    let Error::NonFinite { step: 3, tensor, .. } = &error else { panic!("{error}") };
    assert!(tensor.contains("the square of the gradient of inner."), "{error}");
}

/// Every file of a run whose bytes must not change; the log's clock is its own.
fn files(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in [run.to_path_buf(), run.join("checkpoint")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() && !path.ends_with("run.lock") && !path.ends_with("metrics.jsonl") {
                files.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Settings inside the limits that leave the range of f32 within a few updates.
const DIVERGING: [&str; 7] = [
    "mixing=attention",
    "positions=rope",
    "precision=f32",
    "lr=1000",
    "lr_warmup_steps=0",
    "weight_decay=0",
    "max_steps=3000",
];

#[test]
fn a_run_that_diverges_names_step_and_last_good_checkpoint_and_overwrites_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let more = [&DIVERGING[..], &["checkpoint_interval=2", "eval_interval=0"]].concat();
    let first = fail(train(&run, &more), 1);
    let before = files(&run);
    let newest = before.keys().filter(|path| path.extension().is_some_and(|e| e == "bin")).max().unwrap();
    let last = |said: &str| said.lines().last().unwrap().to_owned();
    let line = last(&first);
    assert!(line.starts_with("trm: step ") && line.contains(" is not finite; nothing was overwritten"), "{first}");
    assert!(line.contains(&format!("the last good checkpoint is {} ", newest.display())), "{first}");
    assert!(!first.contains("panicked"), "{first}");
    // It goes on from that checkpoint, comes to the same step, and leaves the same bytes.
    assert_eq!(last(&fail(resume(&run), 1)), line);
    assert!(files(&run) == before);
    let mut eval = common::trm();
    eval.arg("eval").arg(&run);
    common::succeed(eval);
}

#[test]
fn a_run_that_diverges_before_its_first_checkpoint_says_so_and_keeps_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let more = [&DIVERGING[..], &["checkpoint_interval=0", "eval_interval=0"]].concat();
    let said = fail(train(&run, &more), 1);
    assert!(said.lines().last().unwrap().contains("none: it happened before the first"), "{said}");
    assert!(!fs::read_to_string(run.join("metrics.jsonl")).unwrap().is_empty());
    assert!(!run.join("weights.safetensors").exists() && !run.join("checkpoint").exists());
}

//! The golden vectors: a few training steps of small models, one case per file (specification, "Golden vectors").
//!
//! Figures in f64 judge (`common/golden.rs`); what only the published f32 code computed is compared with that. Prints one
//! line per case with the worst error of each stage. All eleven pass; a model that is not built is a failure.

use std::collections::BTreeMap;

use crate::common::golden::{Batch, Golden, Judge, Judged, config_of, distance, fill_weights, read, wide};
use safetensors::SafeTensors;
use serde_json::Value;
use trm::config::Config;
#[cfg(cuda_gpu)]
use trm::cuda::Gpu;
#[cfg(cuda_twin)]
use trm::cuda::Twin;
use trm::dataset::Examples as _;
#[cfg(cuda)]
use trm::device::Cuda;
use trm::device::{Cpu, Real, Reference};
use trm::engine::{Engine as _, Group, Lanes, TrainingDevice, Weights, puzzle_table};
use trm::model::Model;
use trm::train::{StepReport, Trainer};

/// Cases that were published.
const CASES: usize = 11;

/// Relative error against figures that exist in published f32 only: parts of the loss, the puzzle rows' gradient, the
/// evaluation. Where the published logits themselves have drifted further from the exact ones, [`Stages::published`] allows
/// for that.
const PUBLISHED: f64 = 1e-3;
/// Errors of two f32 programs, one of them within 8 times the other's: their difference.
const BOTH: f64 = 9.0;

#[test]
fn every_case_agrees_with_the_exact_figures_in_f32() {
    every_case::<Cpu<f32>>();
}

#[test]
fn every_case_agrees_with_the_exact_figures_in_f64() {
    every_case::<Cpu<f64>>();
}

#[test]
fn every_case_agrees_with_the_exact_figures_on_the_reference_in_f32() {
    every_case::<Reference<f32>>();
}

#[test]
fn every_case_agrees_with_the_exact_figures_on_the_reference_in_f64() {
    every_case::<Reference<f64>>();
}

#[cfg(cuda_twin)]
#[test]
fn every_case_agrees_with_the_exact_figures_on_the_twin_of_a_gpu_in_f32() {
    every_case::<Cuda<f32, Twin>>();
}

#[cfg(cuda_twin)]
#[test]
fn every_case_agrees_with_the_exact_figures_on_the_twin_of_a_gpu_in_f64() {
    every_case::<Cuda<f64, Twin>>();
}

/// Where there is one.
#[cfg(cuda_gpu)]
#[test]
#[ignore = "needs a GPU"]
fn every_case_agrees_with_the_exact_figures_on_a_gpu() {
    every_case::<Cuda<f32, Gpu>>();
    every_case::<Cuda<f64, Gpu>>();
}

fn every_case<D: TrainingDevice<T: Judged>>() {
    let (mut passed, mut failed, mut not_built) = (0, Vec::new(), Vec::new());
    for golden in Golden::all() {
        let name = &golden.name;
        let Some(config) = config_of(&golden.case) else {
            not_built.push(name.clone());
            continue;
        };
        let stages = run::<D>(&golden, &config);
        let line: Vec<String> =
            stages.worst.iter().map(|(stage, (error, share))| format!("{stage} {error:.0e} ({share:.2})")).collect();
        println!("{name:24} {}", line.join("  "));
        if stages.failures.is_empty() {
            passed += 1;
        } else {
            println!("    outside the bounds: {}", stages.failures.join(", "));
            failed.push(name.clone());
        }
    }
    println!("{passed} cases passed, {} failed", failed.len());
    println!("{} not built: {}", not_built.len(), not_built.join(", "));
    assert!(failed.is_empty() && not_built.is_empty(), "{failed:?} failed, {not_built:?} not built");
    assert_eq!(passed, CASES);
}

/// The comparisons of one case.
struct Stages<'a, T> {
    judge: Judge<'a, T>,
    published: SafeTensors<'a>,
    case: &'a Value,
    /// Worst error of each stage, and the largest share of its bound that an error took.
    worst: BTreeMap<&'static str, (f64, f64)>,
    /// Every comparison that is outside its bound.
    failures: Vec<String>,
}

impl<T: Judged> Stages<'_, T> {
    fn compare(&mut self, stage: &'static str, name: &str, ours: &[f64], (theirs, bound): (&[f64], f64)) {
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let error = distance(ours, theirs);
        let (worst, share) = self.worst.entry(stage).or_default();
        *worst = worst.max(error);
        if bound > 0.0 {
            *share = share.max(error / bound);
        }
        if error.is_nan() || error > bound {
            self.failures.push(format!("{name} {error:.1e} > {bound:.0e}"));
        }
    }

    /// With the f64 tensor of that name, if there is one.
    fn tensor(&mut self, stage: &'static str, name: &str, ours: &[f64]) {
        if let Some((theirs, bound)) = self.judge.tensor(name) {
            self.compare(stage, name, ours, (&theirs, bound));
        }
    }

    /// With what the published code computed from figures that had drifted so far from the exact ones.
    fn published(&mut self, stage: &'static str, name: &str, ours: &[f64], theirs: &[f64], drift: f64) {
        self.compare(stage, name, ours, (theirs, PUBLISHED.max(BOTH * drift)));
    }

    /// With what must be equal, bar the last bits of a mean.
    fn equal(&mut self, stage: &'static str, name: &str, ours: &[f64], theirs: &[f64]) {
        self.compare(stage, name, ours, (theirs, 1e-6));
    }
}

/// Trains as the case did, on a device, and compares everything on the way.
fn run<'a, D: TrainingDevice<T: Judged>>(golden: &'a Golden, config: &Config) -> Stages<'a, D::T> {
    let (judge, published, case) = (golden.judge(), golden.tensors(), &golden.case);
    let mut stages = Stages { judge, published, case, worst: BTreeMap::new(), failures: Vec::new() };
    let tensors = &golden.tensors();
    let lanes = Lanes::<D>::start(if D::IS_ACCELERATOR { 1 } else { 2 }).unwrap();
    let model = Model::new(&config.model, &config.task);
    let mut weights = Weights::new(&model, config);
    fill_weights(&mut weights, tensors, "init");
    let expected = tensors.names().iter().filter(|name| name.starts_with("init.")).count();
    assert_eq!(
        weights.tensors().count() + weights.table.iter().count(),
        expected,
        "the model has the tensors of the case"
    );

    let n_steps = case["steps"].as_u64().unwrap() as usize;
    let mut trainer = Trainer::on(&lanes, config.clone(), weights, n_steps as u64).expect("room for it");
    let model = trainer.model.clone();
    trainer.engine.groups_mut().iter_mut().for_each(|group| group.keep_logits(&model));
    for step in 0..n_steps {
        let uniform = read(tensors, &format!("step{step}.explore_uniform"));
        let minimum = read(tensors, &format!("step{step}.explore_min_steps"));
        let minimum_steps: Vec<u32> = uniform
            .iter()
            .zip(&minimum)
            .map(|(&u, &steps)| if u < config.train.halt_exploration_prob { steps as u32 } else { 0 })
            .collect();
        let report = trainer.step_with(&mut Batch::of(tensors, step), &minimum_steps).unwrap();
        compare_state::<D>(&mut stages, &trainer, step);
        compare_report::<D>(&mut stages, &trainer, &report, step);
        if step < 2 {
            compare_gradients::<D>(&mut stages, &trainer, step);
        }
    }
    let trained = trainer.engine.weights().with_dense(&trainer.engine.dense(false));
    for (name, _, ours) in trained.tensors() {
        stages.tensor("final", &format!("final.{name}"), &wide(ours));
    }
    if let Some(table) = &trained.table {
        let ours: Vec<f64> = (0..table.rows() as u32).flat_map(|id| wide(table.row(id))).collect();
        stages.tensor("final", &format!("final.{}", puzzle_table::NAME), &ours);
    }
    for (name, _, ours) in trainer.evaluation_weights().tensors() {
        stages.tensor("ema", &format!("ema.{name}"), &wide(ours));
    }
    compare_evaluation::<D>(&mut stages, &mut trainer, trained);
    stages
}

/// One figure of every group, in slot order.
fn all<D: TrainingDevice>(trainer: &Trainer<D::Engine<'_>>, of: impl Fn(&Group<D::T>) -> Vec<f64>) -> Vec<f64> {
    trainer.engine.groups().iter().flat_map(|group| of(group)).collect()
}

/// Logits, q and carry after a step.
fn compare_state<D: TrainingDevice<T: Judged>>(
    stages: &mut Stages<'_, D::T>,
    trainer: &Trainer<D::Engine<'_>>,
    step: usize,
) {
    let ours = |of: &dyn Fn(&Group<D::T>) -> Vec<f64>| all::<D>(trainer, of);
    stages.tensor("logits", &format!("step{step}.logits"), &ours(&|g| wide(&g.outcome.logits)));
    for column in 0..2 {
        let (theirs, bound) = stages.judge.q(step, column);
        let ours = ours(&|g| g.outcome.q.iter().map(|q| q[column].to_f64()).collect());
        stages.compare("q", &format!("step{step}.q {column}"), &ours, (&theirs, bound));
    }
    for (i, state) in trainer.model.schedule.states.iter().enumerate() {
        let ours: Vec<f64> = trainer.engine.carried().iter().flat_map(|states| wide(&states[i])).collect();
        stages.tensor("carry", &format!("step{step}.carry.z_{state}"), &ours);
    }
    if trainer.config.train.continue_loss {
        let ours = ours(&|g| g.outcome.continue_target.clone());
        stages.tensor("q", &format!("step{step}.target_q_continue"), &ours);
    }
    let halted = ours(&|g| g.slots.halted.iter().map(|&h| f64::from(u8::from(h))).collect());
    let theirs = read(&stages.published, &format!("step{step}.carry.halted"));
    stages.equal("halting", "halted", &halted, &theirs);
    let steps = ours(&|g| g.slots.steps.iter().map(|&s| f64::from(s)).collect());
    let theirs = read(&stages.published, &format!("step{step}.carry.steps"));
    stages.equal("halting", "steps", &steps, &theirs);
}

/// Losses and metrics of a step.
fn compare_report<D: TrainingDevice<T: Judged>>(
    stages: &mut Stages<'_, D::T>,
    trainer: &Trainer<D::Engine<'_>>,
    report: &StepReport,
    step: usize,
) {
    let (theirs, bound) = stages.judge.loss(step);
    stages.compare("loss", &format!("step{step} loss"), &[report.loss], (&[theirs], bound));
    let (metrics, drift) = (&stages.case["metrics"][step], stages.judge.drift(step));
    let parts =
        [("lm_loss", report.lm_loss), ("q_halt_loss", report.q_halt_loss), ("q_continue_loss", report.q_continue_loss)];
    for (name, ours) in parts {
        if let Some(theirs) = metrics[name].as_f64() {
            stages.published("parts of the loss", name, &[ours], &[theirs], drift);
        }
    }
    let counts = [
        ("lr_factor", report.lr / trainer.config.train.lr),
        ("count", report.count as f64),
        ("accuracy", report.accuracy),
        ("exact_accuracy", report.exact_accuracy as f64),
        ("q_halt_accuracy", report.q_halt_accuracy as f64),
        ("steps", report.steps as f64),
    ];
    for (name, ours) in counts {
        stages.equal("metrics", name, &[ours], &[metrics[name].as_f64().unwrap()]);
    }
}

fn compare_gradients<D: TrainingDevice<T: Judged>>(
    stages: &mut Stages<'_, D::T>,
    trainer: &Trainer<D::Engine<'_>>,
    step: usize,
) {
    let gradient = trainer.engine.gradient();
    for tensor in trainer.model.layout.tensors() {
        if tensor.trained {
            let name = format!("step{step}.grad.{}", tensor.name);
            stages.tensor("gradient", &name, &wide(&gradient[tensor.range()]));
        }
    }
    if trainer.engine.weights().table.is_some() {
        let ours = all::<D>(trainer, |g| wide(&g.outcome.puzzle_grads));
        let name = format!("step{step}.grad.inner.puzzle_emb.local_weights");
        // The gradient is further off than the logits, as those of all weights are.
        let (theirs, drift) = (read(&stages.published, &name), 4.0 * stages.judge.drift(step));
        stages.published("gradient of puzzle rows", &name, &ours, &theirs, drift);
    }
}

/// The last batch, from fresh slots, all supervision steps, with the case's final (not averaged) weights.
fn compare_evaluation<D: TrainingDevice<T: Judged>>(
    stages: &mut Stages<'_, D::T>,
    trainer: &mut Trainer<D::Engine<'_>>,
    mut weights: Weights<D>,
) {
    fill_weights(&mut weights, &stages.published, "final");
    let (model, steps) = (&trainer.model, stages.case["steps"].as_u64().unwrap() as usize);
    let slots = trainer.config.train.batch_size;
    let mut group = Group::new(model, slots);
    let mut batch = Batch::of(&stages.published, steps - 1);
    group.keep_logits(model);
    for slot in 0..slots {
        group.slots.refill(slot, |inputs, labels| batch.write(slot, inputs, labels)).unwrap();
    }
    let lanes = trainer.engine.lanes();
    for _ in 0..stages.case["eval"]["eval_steps"].as_u64().unwrap() {
        lanes.install(|| lanes.with_lane(|lane| lane.infer(model, &weights, &mut group, 0..slots)));
    }
    let drift = stages.judge.drift(steps - 1);
    let theirs = read(&stages.published, "eval.logits");
    stages.published("eval", "eval.logits", &wide(&group.outcome.logits), &theirs, drift);
    let q: Vec<f64> = group.outcome.q.iter().map(|q| q[0].to_f64()).collect();
    let theirs = read(&stages.published, "eval.q_halt_logits");
    stages.published("eval", "eval.q_halt_logits", &q, &theirs, drift);
    let predictions: Vec<f64> = group.outcome.tokens.iter().map(|&token| f64::from(token)).collect();
    let theirs = read(&stages.published, "eval.preds");
    stages.equal("eval", "eval.preds", &predictions, &theirs);
}

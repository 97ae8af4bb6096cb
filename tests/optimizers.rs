//! An optimizer from outside: a rule that needs whole matrices, with one named buffer of its own.

use crate::common::{RandomExamples, config};
use trm::config::Mixing;
use trm::device::{Cpu, Real as _, Tensor};
use trm::engine::{Alone, Engine as _, LaneEngine, Lanes, Optimizer, UpdateRule, WeightPart, Weights};
use trm::model::Model;
use trm::train::Trainer;

/// Muon in small: the momentum of a matrix is made orthogonal (X ← X (15 − 10 XᵀX + 3 (XᵀX)²)/8, from X/‖X‖), then taken as
/// the direction. Vectors go along their gradient.
struct Orthogonal;

fn orthogonal(matrix: &mut [f32], cols: usize) {
    let norm = matrix.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    let mut x: Vec<f64> = matrix.iter().map(|&x| f64::from(x / norm)).collect();
    let rows = x.len() / cols;
    let times = |a: &[f64], b: &[f64], n: usize| -> Vec<f64> {
        let inner = b.len() / n;
        let element = |i: usize, j: usize| (0..inner).map(|k| a[i * inner + k] * b[k * n + j]).sum();
        (0..a.len() / inner).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| element(i, j)).collect()
    };
    for _ in 0..30 {
        let transposed: Vec<f64> =
            (0..cols).flat_map(|j| (0..rows).map(move |i| (i, j))).map(|(i, j)| x[i * cols + j]).collect();
        let gram = times(&transposed, &x, cols);
        let square = times(&gram, &gram, cols);
        let polynomial: Vec<f64> = (0..cols * cols)
            .map(|at| {
                let one = f64::from(u8::from(at / cols == at % cols));
                (15.0 * one - 10.0 * gram[at] + 3.0 * square[at]) / 8.0
            })
            .collect();
        x = times(&x, &polynomial, cols);
    }
    matrix.iter_mut().zip(x).for_each(|(to, x)| *to = x as f32);
}

impl Optimizer<Cpu<f32>> for Orthogonal {
    fn buffers(&self) -> &'static [&'static str] {
        &["momentum"]
    }

    fn rule_of(&self, tensor: &Tensor, rule: &UpdateRule) -> UpdateRule {
        UpdateRule { lr: if tensor.is_vector { 0.1 * rule.lr } else { rule.lr }, ..*rule }
    }

    fn whole(&self, tensor: &Tensor, _: &UpdateRule, state: &mut [&mut [f32]], gradient: &mut [f32]) {
        for (m, g) in state[0].iter_mut().zip(gradient.iter_mut()) {
            *m = 0.9 * *m + *g;
            *g = *m;
        }
        if tensor.rows > 1 && tensor.cols <= tensor.rows {
            orthogonal(gradient, tensor.cols);
        }
    }

    fn sweep(&self, _: &Tensor, rule: &UpdateRule, part: WeightPart<'_, f32>) {
        let (lr, keep) = (f32::from_f64(rule.lr), f32::from_f64(rule.ema_rate));
        for ((w, g), e) in part.weights.iter_mut().zip(part.gradient).zip(part.ema) {
            *w -= lr * g;
            *e = keep * *e + (1.0 - keep) * *w;
        }
    }
}

#[test]
fn an_optimizer_from_outside_sees_whole_matrices_and_keeps_its_own_buffer() {
    let mut config = config(Mixing::MlpT, 8);
    (config.train.lr, config.train.lr_warmup_steps) = (1e-2, 0);
    let (lanes, model) = (Lanes::new(2).unwrap(), Model::new(&config.model, &config.task));
    let weights = Weights::new(&model, &config);
    let gate_up = model.layout.tensors().iter().position(|t| t.name.contains("mlp.gate_up")).unwrap();
    let tensor = model.layout.tensors()[gate_up].clone();
    let before = weights.params.values()[tensor.range()].to_vec();
    let engine = LaneEngine::new(&lanes, &model, &config.train, weights, &Alone).with_optimizer(Box::new(Orthogonal));
    let names: Vec<String> = engine.snapshot().iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["weights", "ema", "momentum"]);
    let mut trainer = Trainer::new(config.clone(), model, engine, Box::new(Alone), 3);
    let report = trainer.step(&mut RandomExamples::new(&config)).unwrap();
    assert!(report.loss.is_finite());
    // The step of a matrix is lr times one with orthonormal columns.
    let after = &trainer.engine.weights.params.values()[tensor.range()];
    let step: Vec<f64> = before.iter().zip(after).map(|(b, a)| f64::from(b - a) / report.lr).collect();
    let gram = |i: usize, j: usize| -> f64 { step.chunks_exact(tensor.cols).map(|row| row[i] * row[j]).sum() };
    for (i, j) in [(0, 0), (0, 1), (3, 3), (2, 5)] {
        let expected = f64::from(u8::from(i == j));
        assert!((gram(i, j) - expected).abs() < 1e-3, "columns {i} and {j}: {}", gram(i, j));
    }
}

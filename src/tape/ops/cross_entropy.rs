//! Cross-entropy per sequence: `loss[b] = Σ positions nll / c`, c = max(1, labelled positions) (SPEC "Loss").
//!
//! * stablemax: `s(a) = a + 1` for a ≥ 0, `1/(1 − a + 1e-30)` below; `p = s/Σs`; in f64.
//!   `∂nll/∂a_j = s'(a_j) (1/Σs − [j = label]/s(a_j))`.
//! * softmax with label smoothing ε: target `t = (1 − ε)·onehot + ε/V`, `nll = lse − Σ t·a`, `∂nll/∂a = p − t`.
//!
//! The gradient per unit of loss is worked out in the forward pass, where the logits are at hand.

use super::{Operation, backward_of_losses};
use crate::rng::Rng;
use crate::simd::Real;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

/// A label that is not counted (SPEC: labels −100).
pub const IGNORE_LABEL: i32 = -100;

/// From logits to probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Likelihood {
    Stablemax,
    Softmax { label_smoothing: f64 },
}

#[derive(Clone, Copy)]
pub(crate) struct CrossEntropy {
    logits: SlotId,
    /// `∂loss[b]/∂logits`, `[sequences·seq_len, vocab]`.
    unit_grad: SlotId,
    out: SlotId,
}

/// `[sequences, 1]` losses from logits `[sequences·seq_len, vocab]` and labels `[sequences, seq_len]`; each label is
/// [`IGNORE_LABEL`] or a token smaller than vocab.
pub fn cross_entropy<T: Real>(
    tape: &mut Tape<'_, T>,
    logits: &Var,
    labels: &[i32],
    seq_len: usize,
    likelihood: Likelihood,
) -> Var {
    let (rows, vocab) = tape.shape(logits);
    assert!(labels.len() == rows && rows.is_multiple_of(seq_len), "one label per logit row");
    let recorded = tape.records(&[logits.0], false);
    let out = tape.new_slot(rows / seq_len, 1);
    let unit_grad = tape.new_slot(rows, vocab);
    let (out_block, grad_block) = (tape.value_block(out), tape.value_block(unit_grad));
    let ([a], [losses, grads]) = tape.memory.arena.split([tape.value_block(logits.0)], [out_block, grad_block]);
    grads.fill(T::ZERO);
    for (b, labels) in labels.chunks_exact(seq_len).enumerate() {
        let labelled = labels.iter().filter(|&&label| label != IGNORE_LABEL).count();
        let weight = 1.0 / labelled.max(1) as f64;
        let mut loss = 0.0;
        for (i, &label) in labels.iter().enumerate() {
            if label != IGNORE_LABEL {
                let row = (b * seq_len + i) * vocab..(b * seq_len + i + 1) * vocab;
                let label = usize::try_from(label).expect("a label is a token");
                loss += match likelihood {
                    Likelihood::Stablemax => stablemax(&a[row.clone()], label, weight, &mut grads[row]),
                    Likelihood::Softmax { label_smoothing } => {
                        softmax(&a[row.clone()], label, label_smoothing, weight, &mut grads[row])
                    }
                };
            }
        }
        losses[b] = T::from_f64(loss * weight);
    }
    if recorded {
        tape.save(unit_grad);
    } else {
        tape.release_slot(unit_grad);
    }
    tape.push(out, recorded, CrossEntropy { logits: logits.0, unit_grad, out })
}

/// Negative log-likelihood of one row; `grad` receives `weight ·` its gradient.
fn stablemax<T: Real>(logits: &[T], label: usize, weight: f64, grad: &mut [T]) -> f64 {
    let s = |a: f64| if a < 0.0 { 1.0 / (1.0 - a + 1e-30) } else { a + 1.0 };
    let total: f64 = logits.iter().map(|&a| s(a.to_f64())).sum();
    for (j, (&a, grad)) in logits.iter().zip(grad).enumerate() {
        let value = s(a.to_f64());
        let slope = if a.to_f64() < 0.0 { value * value } else { 1.0 };
        let hit = if j == label { 1.0 / value } else { 0.0 };
        *grad = T::from_f64(weight * slope * (1.0 / total - hit));
    }
    -(s(logits[label].to_f64()) / total).ln()
}

/// Negative log-likelihood of one row under smoothed labels; `grad` receives `weight ·` its gradient.
fn softmax<T: Real>(logits: &[T], label: usize, smoothing: f64, weight: f64, grad: &mut [T]) -> f64 {
    let max = logits.iter().map(|a| a.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|a| (a.to_f64() - max).exp()).sum();
    let even = smoothing / logits.len() as f64;
    let mut nll = max + total.ln();
    for (j, (&a, grad)) in logits.iter().zip(grad).enumerate() {
        let target = even + if j == label { 1.0 - smoothing } else { 0.0 };
        nll -= target * a.to_f64();
        *grad = T::from_f64(weight * ((a.to_f64() - max).exp() / total - target));
    }
    nll
}

impl Operation for CrossEntropy {
    const NAME: &'static str = "cross-entropy";
    const TERMS: &'static [&'static str] = &["logits"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<T: Real>(&self, pass: &mut Backward<'_, T>) {
        let factor = pass.factor("logits");
        backward_of_losses(pass, factor, self.out, self.unit_grad, self.logits);
    }

    fn samples(rng: &mut Rng) -> Vec<Sample> {
        let kinds = [
            ("stablemax", Likelihood::Stablemax),
            ("softmax", Likelihood::Softmax { label_smoothing: 0.0 }),
            ("softmax, smoothed labels", Likelihood::Softmax { label_smoothing: 0.2 }),
        ];
        kinds
            .map(|(name, likelihood)| {
                let [sequences, seq_len, vocab] = Sample::sizes(rng, [3, 5, 6]);
                let vocab = vocab + 1;
                let mut labels: Vec<i32> = (0..sequences * seq_len)
                    .map(|_| if rng.below(4) == 0 { IGNORE_LABEL } else { rng.below(vocab) as i32 })
                    .collect();
                labels[0] = 0;
                let mut sample = Sample::new(name);
                sample.input(rng, sequences * seq_len, vocab);
                // Stablemax bends at 0, where a finite difference would straddle two branches.
                sample.keep_inputs_from_zero(0.05);
                sample.run(move |tape, inputs| vec![cross_entropy(tape, &inputs[0], &labels, seq_len, likelihood)])
            })
            .into()
    }
}

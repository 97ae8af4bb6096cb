//! Losses and metrics (specification, "Loss"). The gradient per unit of loss is worked out where the logits are at hand.

use crate::device::{IGNORE_LABEL, Likelihood, Real};

/// `loss[b] = Σ positions nll / c`, c = max(1, labelled positions), in f64.
pub(crate) fn cross_entropy<T: Real>(
    likelihood: Likelihood,
    labels: &[i32],
    seq_len: usize,
    logits: &[T],
    loss: &mut [T],
    unit_grad: &mut [T],
) {
    let vocab = logits.len() / labels.len();
    unit_grad.fill(T::ZERO);
    let sequences = logits.chunks_exact(seq_len * vocab).zip(unit_grad.chunks_exact_mut(seq_len * vocab));
    for ((labels, (logits, grad)), loss) in labels.chunks_exact(seq_len).zip(sequences).zip(loss) {
        let labelled = labels.iter().filter(|&&label| label != IGNORE_LABEL).count();
        let weight = 1.0 / labelled.max(1) as f64;
        let mut sum = 0.0;
        for ((&label, a), grad) in labels.iter().zip(logits.chunks_exact(vocab)).zip(grad.chunks_exact_mut(vocab)) {
            if label != IGNORE_LABEL {
                let label = usize::try_from(label).expect("a label is a token");
                sum += match likelihood {
                    Likelihood::Stablemax => stablemax(a, label, weight, grad),
                    Likelihood::Softmax { label_smoothing } => softmax(a, label, label_smoothing, weight, grad),
                };
            }
        }
        *loss = T::from_f64(sum * weight);
    }
}

/// Negative log-likelihood of one row, `nll = −ln(s(a[label]) / Σs)`, `s(a) = a + 1` for a ≥ 0 and `1/(1 − a + 1e-30)` below;
/// `grad` receives `weight · s'(a_j) (1/Σs − [j = label]/s(a_j))`.
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

/// Negative log-likelihood of one row under smoothed labels, `nll = lse − Σ t·a`, `t = (1 − ε)·onehot + ε/V`; `grad` receives
/// `weight · (p − t)`.
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

/// `loss = max(q, 0) − q·t + ln(1 + e^(−|q|))`, `unit_grad = σ(q) − t`, q in column `column` of x.
pub(crate) fn bce_with_logits<T: Real>(
    (column, columns): (usize, usize),
    x: &[T],
    target: &[T],
    loss: &mut [T],
    unit_grad: &mut [T],
) {
    for (b, row) in x.chunks_exact(columns).enumerate() {
        let (q, t) = (row[column].to_f64(), target[b].to_f64());
        loss[b] = T::from_f64(q.max(0.0) - q * t + (-q.abs()).exp().ln_1p());
        unit_grad[b] = T::from_f64(sigmoid(q) - t);
    }
}

/// `d_x[b, column] += d_loss[b] · unit_grad[b]`.
pub(crate) fn bce_backward<T: Real>((column, columns): (usize, usize), d_loss: &[T], unit_grad: &[T], d_x: &mut [T]) {
    for (b, row) in d_x.chunks_exact_mut(columns).enumerate() {
        row[column] += term!("bce", d_loss[b] * unit_grad[b]);
    }
}

/// `d_x += d_loss[b] · unit_grad`, for each element of sequence b.
pub(crate) fn loss_backward<T: Real>(d_loss: &[T], unit_grad: &[T], d_x: &mut [T]) {
    let per_sequence = unit_grad.len() / d_loss.len();
    let sequences = unit_grad.chunks_exact(per_sequence).zip(d_x.chunks_exact_mut(per_sequence));
    for (&d_loss, (unit_grad, d_x)) in d_loss.iter().zip(sequences) {
        for (d, &unit) in d_x.iter_mut().zip(unit_grad) {
            *d += term!("loss", d_loss * unit);
        }
    }
}

/// Right tokens, labelled tokens, and whether all of them are right, of each sequence.
pub(crate) fn score<T: Real>(labels: &[i32], seq_len: usize, logits: &[T], [correct, labelled, exact]: [&mut [T]; 3]) {
    let vocab = logits.len() / labels.len();
    for (b, (labels, logits)) in labels.chunks_exact(seq_len).zip(logits.chunks_exact(seq_len * vocab)).enumerate() {
        let counted = labels.iter().zip(logits.chunks_exact(vocab)).filter(|(label, _)| **label != IGNORE_LABEL);
        let (mut right, mut all) = (0u32, 0u32);
        for (&label, row) in counted {
            all += 1;
            right += u32::from(argmax(row) as i32 == label);
        }
        correct[b] = T::from_f64(f64::from(right));
        labelled[b] = T::from_f64(f64::from(all));
        exact[b] = if right == all { T::ONE } else { T::ZERO };
    }
}

/// The first of the largest of each row.
pub(crate) fn predict<T: Real>(logits: &[T], tokens: &mut [u8]) {
    let vocab = logits.len() / tokens.len();
    for (token, row) in tokens.iter_mut().zip(logits.chunks_exact(vocab)) {
        *token = argmax(row) as u8;
    }
}

/// The first of the largest.
pub fn argmax<T: PartialOrd>(row: &[T]) -> usize {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = i;
        }
    }
    best
}

/// `σ(is_last ≠ 0 ? q_halt : max(q_halt, q_continue))`.
pub(crate) fn continue_target<T: Real>(is_last: &[i32], q: &[T], target: &mut [T]) {
    for ((target, q), &is_last) in target.iter_mut().zip(q.chunks_exact(2)).zip(is_last) {
        let value = if is_last != 0 { q[0] } else { q[0].maximum(q[1]) };
        *target = T::from_f64(sigmoid(value.to_f64()));
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

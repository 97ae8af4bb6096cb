//! Iterating the detached cycle until the states settle (deep equilibrium models; paper, "Ideas that failed").
//!
//! With G one cycle of calls, s ← G(s) is repeated until every sequence's states change by no more than a share of
//! their norm, or the cap is reached. Anderson's method goes on not from G(s) but from the mixture Σ α G(sᵢ) of the last few,
//! whose weights (Σ α = 1) make ‖Σ α (G(sᵢ) − sᵢ)‖ smallest; each sequence has its own. What is left is a G(s) in any case.
//!
//! The sequences of a pass stop together; nothing depends on threads.

use arrayvec::ArrayVec;

use super::{Iteration, Method, Model, States};
use crate::device::{Device, Real};
use crate::tape::{Tape, Var, ops};

/// Iterations that Anderson's method remembers.
const MEMORY: usize = 5;

/// Share of the Gram matrix's mean diagonal added to it: residuals of iterations close to each other are nearly dependent.
const REGULARISATION: f64 = 1e-8;

/// Replaces `states` by settled ones, and returns how many calls that took. The tape is detached.
pub(super) fn iterate<D: Device>(
    model: &Model,
    tape: &mut Tape<'_, D>,
    question: &Var,
    states: &mut States,
    iteration: &Iteration,
) -> usize {
    let sequences = tape.shape(question).0 / model.len;
    let mut past: ArrayVec<Past, MEMORY> = ArrayVec::new();
    for made in 1..=iteration.most {
        let before = copy(tape, states);
        for call in &model.schedule.calls[..iteration.cycle] {
            model.call(tape, call, question, states);
        }
        // NaN is not settled: it is not at most anything.
        let settled = (0..sequences).all(|b| change(tape, &before, states, b, sequences) <= iteration.tolerance);
        if settled || made == iteration.most {
            release(tape, before);
            past.into_iter().for_each(|past| past.release(tape));
            return made * iteration.cycle;
        }
        match iteration.method {
            Method::Plain => release(tape, before),
            Method::Anderson => {
                if past.is_full() {
                    past.remove(0).release(tape);
                }
                let after = std::mem::take(states);
                past.push(Past { before, after });
                *states = mixture(tape, &past, sequences);
            }
        }
    }
    0
}

/// One application of the cycle.
struct Past {
    before: States,
    after: States,
}

impl Past {
    fn release<D: Device>(self, tape: &mut Tape<'_, D>) {
        release(tape, self.before);
        release(tape, self.after);
    }
}

fn copy<D: Device>(tape: &mut Tape<'_, D>, states: &States) -> States {
    states.iter().map(|state| ops::add(tape, &[state])).collect()
}

fn release<D: Device>(tape: &mut Tape<'_, D>, states: States) {
    states.into_iter().for_each(|state| tape.release(state));
}

/// `‖after − before‖ / ‖after‖` of sequence `b` of `sequences`, all states together.
fn change<D: Device>(tape: &Tape<'_, D>, before: &States, after: &States, b: usize, sequences: usize) -> f64 {
    let mut sums = [[0.0; 2]];
    for (before, after) in before.iter().zip(after) {
        let [before, after] = [before, after].map(|state| tape.block(state).nth(b, sequences));
        tape.device().distance(before, after, 1, &mut sums);
    }
    let [[difference, size]] = sums;
    if difference == 0.0 { 0.0 } else { (difference / size).sqrt() }
}

/// What Anderson's method goes on from.
fn mixture<D: Device>(tape: &mut Tape<'_, D>, past: &[Past], sequences: usize) -> States {
    let shapes: ArrayVec<(usize, usize), { super::MAX_STATES }> =
        past[0].after.iter().map(|state| tape.shape(state)).collect();
    let mixed: States = shapes.iter().map(|&(rows, cols)| tape.zeros(rows, cols)).collect();
    for b in 0..sequences {
        let mut gram = [[0.0; MEMORY]; MEMORY];
        for i in 0..past.len() {
            for j in 0..=i {
                gram[i][j] = residual_product(tape, &past[i], &past[j], b, sequences);
                gram[j][i] = gram[i][j];
            }
        }
        let weights = weights(gram, past.len());
        for (past, &weight) in past.iter().zip(&weights) {
            for ((target, source), &(rows, _)) in mixed.iter().zip(&past.after).zip(&shapes) {
                let rows = rows / sequences;
                tape.accumulate(target, b * rows..(b + 1) * rows, D::T::from_f64(weight), source);
            }
        }
    }
    mixed
}

/// The inner product of two residuals G(s) − s of one sequence.
fn residual_product<D: Device>(tape: &Tape<'_, D>, p: &Past, q: &Past, b: usize, sequences: usize) -> f64 {
    let mut sum = [0.0];
    for state in 0..p.before.len() {
        let part = |states: &States| tape.block(&states[state]).nth(b, sequences);
        let residuals = [p, q].map(|past| [part(&past.before), part(&past.after)]);
        tape.device().residual_product(residuals[0], residuals[1], 1, &mut sum);
    }
    sum[0]
}

/// The α with Σ α = 1 that make αᵀ·gram·α smallest, for the first `n` rows and columns; the last alone when there is no
/// such thing.
fn weights(mut gram: [[f64; MEMORY]; MEMORY], n: usize) -> [f64; MEMORY] {
    let ridge = REGULARISATION * (0..n).map(|i| gram[i][i]).sum::<f64>() / n as f64;
    for (i, row) in gram.iter_mut().enumerate() {
        row[i] += ridge;
    }
    // gram · x = 1 by elimination (the matrix is positive definite: no pivoting), then α = x / Σ x.
    let mut x = [1.0; MEMORY];
    for i in 0..n {
        let (done, below) = gram.split_at_mut(i + 1);
        let pivot = &done[i];
        for (j, row) in below[..n - i - 1].iter_mut().enumerate() {
            let factor = row[i] / pivot[i];
            for (target, &above) in row[i..n].iter_mut().zip(&pivot[i..n]) {
                *target -= factor * above;
            }
            x[i + 1 + j] -= factor * x[i];
        }
    }
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|k| gram[i][k] * x[k]).sum();
        x[i] = (x[i] - known) / gram[i][i];
    }
    let total: f64 = x[..n].iter().sum();
    let mut alpha = [0.0; MEMORY];
    if total.is_finite() && total != 0.0 {
        for (alpha, x) in alpha.iter_mut().zip(&x[..n]) {
            *alpha = x / total;
        }
    } else {
        alpha[n - 1] = 1.0;
    }
    alpha
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_cancel_residuals_that_can_be_cancelled() {
        // Residuals (2, 0) and (−1, 0): ⅓ of the first and ⅔ of the second add up to nothing.
        let mut gram = [[0.0; MEMORY]; MEMORY];
        (gram[0][0], gram[0][1], gram[1][0], gram[1][1]) = (4.0, -2.0, -2.0, 1.0);
        let alpha = weights(gram, 2);
        assert!((alpha[0] - 1.0 / 3.0).abs() < 1e-6 && (alpha[1] - 2.0 / 3.0).abs() < 1e-6, "{alpha:?}");
    }

    #[test]
    fn weights_of_vanishing_or_broken_residuals_are_still_weights() {
        for fill in [0.0, f64::NAN, f64::INFINITY] {
            let alpha = weights([[fill; MEMORY]; MEMORY], 3);
            assert_eq!(alpha, [0.0, 0.0, 1.0, 0.0, 0.0], "{fill}");
        }
    }
}

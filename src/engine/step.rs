//! One supervision step on the tape: embedding, recursion, heads, losses, gradients. Where slots keep their examples and states
//! is not its concern: what it needs comes in as values and integers of the device.

use arrayvec::ArrayVec;

use crate::config::{Loss, TrainConfig};
use crate::device::{Device, Grads, Indices, Likelihood, Real};
use crate::model::{Model, Pass, RecursionOutput, States};
use crate::tape::profile::Part;
use crate::tape::{Tape, Var, ops};

/// What a forward pass starts from.
pub(crate) struct Given {
    /// Tokens of the questions, `[sequences, seq_len]`.
    pub(crate) tokens: Indices,
    /// With a puzzle table: its rows, `[sequences, ndim]`.
    pub(crate) puzzle_rows: Option<Var>,
    /// The states that are carried on, or the start vectors.
    pub(crate) states: States,
}

/// What a forward pass leaves on the tape.
pub(crate) struct Forward {
    pub(crate) puzzle_rows: Option<Var>,
    pub(crate) question: Var,
    pub(crate) states: States,
    /// `[sequences·seq_len, vocab]`.
    pub(crate) logits: Var,
    /// `[sequences, 2]`.
    pub(crate) q: Var,
    pub(crate) recursion: RecursionOutput,
}

/// The losses of a training step, `[sequences, 1]` each, and what is counted for the metrics.
pub(crate) struct Losses {
    pub(crate) score: ops::AnswerScore,
    pub(crate) lm: Var,
    pub(crate) halt: Var,
    pub(crate) continues: Option<Continue>,
}

/// The continue loss and its targets.
pub(crate) struct Continue {
    pub(crate) loss: Var,
    pub(crate) target: Var,
}

/// Embedding, recursion, heads.
pub(crate) fn forward<D: Device>(tape: &mut Tape<'_, D>, model: &Model, given: Given, pass: Pass) -> Forward {
    let Given { tokens, puzzle_rows, mut states } = given;
    tape.set_recording(pass == Pass::Train);
    let question = model.embedding.forward(tape, tokens, puzzle_rows.as_ref());
    let recursion = model.recur(tape, &question, &mut states, pass);
    let (logits, q) = model.heads(tape, &states);
    Forward { puzzle_rows, question, states, logits, q, recursion }
}

/// The losses of a supervision step (specification, "Loss"); labels are `[sequences, seq_len]`, and `is_last` says of each
/// sequence whether its example ends with this step, which only the continue loss asks for.
pub(crate) fn losses<D: Device>(
    tape: &mut Tape<'_, D>,
    model: &Model,
    config: &TrainConfig,
    forward: &Forward,
    labels: Indices,
    is_last: Option<Indices>,
) -> Losses {
    let seq_len = model.embedding.seq_len;
    let score = ops::score(tape, &forward.logits, labels, seq_len);
    tape.lap(Part::Metrics);
    let likelihood = match config.loss {
        Loss::StablemaxCrossEntropy => Likelihood::Stablemax,
        Loss::SoftmaxCrossEntropy => Likelihood::Softmax { label_smoothing: config.label_smoothing },
    };
    let lm = ops::cross_entropy(tape, &forward.logits, labels, seq_len, likelihood);
    let halt = ops::bce_with_logits(tape, &forward.q, 0, &score.exact);
    let continues = is_last.map(|is_last| {
        let target = continue_target(tape, model, forward, is_last);
        let loss = ops::bce_with_logits(tape, &forward.q, 1, &target);
        Continue { loss, target }
    });
    Losses { score, lm, halt, continues }
}

/// Gradients of total/batch, `total = lm + w (halt + continue) + w_balance · balance`.
pub(crate) fn backward<D: Device>(
    tape: &mut Tape<'_, D>,
    model: &Model,
    config: &TrainConfig,
    forward: &Forward,
    losses: &Losses,
    grads: &mut Grads<D>,
) {
    let seed = |weight: f64| D::T::from_f64(weight / config.batch_size as f64);
    let mut seeds: ArrayVec<(&Var, D::T), 4> = ArrayVec::new();
    seeds.push((&losses.lm, seed(1.0)));
    seeds.push((&losses.halt, seed(config.halt_loss_weight)));
    seeds.extend(losses.continues.iter().map(|continues| (&continues.loss, seed(config.halt_loss_weight))));
    let routers = model.recorded_routers().max(1) as f64;
    seeds.extend(forward.recursion.balance.iter().map(|loss| (loss, seed(config.balance_loss_weight / routers))));
    tape.backward_from(&seeds, grads);
}

/// A further, undifferentiated pass from the new states gives the continue targets (specification, "Deep supervision", step 4).
fn continue_target<D: Device>(tape: &mut Tape<'_, D>, model: &Model, forward: &Forward, is_last: Indices) -> Var {
    tape.set_recording(false);
    let mut next: States = forward.states.iter().map(|state| ops::add(tape, &[state])).collect();
    model.recur(tape, &forward.question, &mut next, Pass::Infer);
    let (logits, q) = model.heads(tape, &next);
    let target = ops::continue_target(tape, &q, is_last);
    for var in next.into_iter().chain([logits, q]) {
        tape.release(var);
    }
    tape.set_recording(true);
    target
}

//! What losses and metrics are measured against: constants, worked out from logits where they lie.

use crate::device::{Device, Indices, Store};
use crate::tape::{Tape, Var};

/// How many tokens of each sequence are right, `[sequences, 1]` each.
pub struct AnswerScore {
    /// Labelled tokens that the logits get right.
    pub correct: Var,
    /// Labelled tokens.
    pub labelled: Var,
    /// 1 where all labelled tokens are right, else 0: the target of the halting head.
    pub exact: Var,
}

/// The score of logits `[sequences·seq_len, vocab]` against labels `[sequences, seq_len]`.
pub fn score<D: Device>(tape: &mut Tape<'_, D>, logits: &Var, labels: Indices, seq_len: usize) -> AnswerScore {
    let sequences = labels.len() / seq_len;
    let [correct, labelled, exact] = [0; 3].map(|_| tape.uninitialised(sequences, 1, Store::Exact));
    let logits = tape.block(logits);
    let [c, l, e] = [&correct, &labelled, &exact].map(|var| tape.block(var));
    tape.memory.device.score(labels, seq_len, logits, c, l, e);
    AnswerScore { correct, labelled, exact }
}

/// `[sequences, 1]`: the target of the continue head, from q `[sequences, 2]` of the next supervision step; `is_last` is not 0 where there is none.
pub fn continue_target<D: Device>(tape: &mut Tape<'_, D>, q: &Var, is_last: Indices) -> Var {
    let target = tape.uninitialised(is_last.len(), 1, Store::Exact);
    let (q, block) = (tape.block(q), tape.block(&target));
    tape.memory.device.continue_target(is_last, q, block);
    target
}

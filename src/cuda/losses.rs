//! Kernels of losses and metrics: one element a sequence.

use super::queue::enqueue;
use super::{Backend, DeviceMemory, Integers, Queue, View};

impl<B: Backend> Queue<B> {
    /// Cross-entropy of each sequence and its gradient; stablemax, or softmax with that label smoothing.
    ///
    /// Labels are the caller's to keep below the vocabulary.
    pub fn cross_entropy(
        self,
        softmax: Option<f64>,
        labels: Integers<'_>,
        seq_len: usize,
        logits: View<'_>,
        (loss, unit_grad): (View<'_>, View<'_>),
    ) {
        let (sequences, vocab) = rows(labels, seq_len, logits);
        assert!(loss.len() == sequences && unit_grad.len() == logits.len());
        let (kind, smoothing) = softmax.map_or((0, 0.0), |smoothing| (1, smoothing));
        let [sequences, seq_len, vocab] = [sequences, seq_len, vocab].map(|size| size as i64);
        enqueue!(
            self,
            cross_entropy(
                kind,
                smoothing,
                labels.data,
                logits.array,
                loss.array,
                unit_grad.array,
                sequences,
                seq_len,
                vocab
            )
        );
    }

    /// Binary cross-entropy of a column of x `[sequences, columns]`, and its gradient.
    pub fn bce_with_logits(
        self,
        (column, columns): (usize, usize),
        x: View<'_>,
        target: View<'_>,
        (loss, unit_grad): (View<'_>, View<'_>),
    ) {
        let sequences = loss.len();
        assert!(column < columns && x.len() == sequences * columns);
        assert!(target.len() == sequences && unit_grad.len() == sequences);
        let [column, columns, sequences] = [column, columns, sequences].map(|size| size as i64);
        enqueue!(self, bce_with_logits(x.array, column, columns, target.array, loss.array, unit_grad.array, sequences));
    }

    /// `d_x[b, column] ← d_x[b, column] + d_loss[b] · unit_grad[b]`.
    pub fn bce_backward(self, (column, columns): (usize, usize), d_loss: View<'_>, unit_grad: View<'_>, d_x: View<'_>) {
        let sequences = d_loss.len();
        assert!(column < columns && d_x.len() == sequences * columns && unit_grad.len() == sequences);
        let [column, columns, sequences] = [column, columns, sequences].map(|size| size as i64);
        enqueue!(self, bce_backward(d_loss.array, unit_grad.array, column, columns, d_x.array, sequences));
    }

    /// `d_x ← d_x + d_loss[b] · unit_grad`, for the elements of each sequence b.
    pub fn loss_backward(self, d_loss: View<'_>, unit_grad: View<'_>, d_x: View<'_>) {
        let sequences = d_loss.len();
        let size = d_x.len() / sequences;
        assert!(d_x.len() == sequences * size && unit_grad.len() == d_x.len());
        enqueue!(self, loss_backward(d_loss.array, unit_grad.array, d_x.array, sequences as i64, size as i64));
    }

    /// Right tokens, labelled tokens, and whether all of them are right, of each sequence.
    pub fn score(
        self,
        labels: Integers<'_>,
        seq_len: usize,
        logits: View<'_>,
        [correct, labelled, exact]: [View<'_>; 3],
    ) {
        let (sequences, vocab) = rows(labels, seq_len, logits);
        assert!([correct, labelled, exact].iter().all(|counts| counts.len() == sequences));
        let [sequences, seq_len, vocab] = [sequences, seq_len, vocab].map(|size| size as i64);
        enqueue!(
            self,
            score(labels.data, logits.array, correct.array, labelled.array, exact.array, sequences, seq_len, vocab)
        );
    }

    /// The first of the largest of each row of logits, into the first bytes of `tokens`.
    pub fn predict(self, logits: View<'_>, rows: usize, tokens: &DeviceMemory<B>) {
        let vocab = logits.len() / rows;
        assert!(logits.len() == rows * vocab && tokens.bytes() >= rows);
        enqueue!(self, predict(logits.array, tokens.data().cast(), rows as i64, vocab as i64));
    }

    /// `target[b] ← σ(is_last[b] ≠ 0 ? q[b, 0] : max(q[b, 0], q[b, 1]))`.
    pub fn continue_target(self, is_last: Integers<'_>, q: View<'_>, target: View<'_>) {
        let sequences = is_last.len();
        assert!(q.len() == 2 * sequences && target.len() == sequences);
        enqueue!(self, continue_target(is_last.data, q.array, target.array, sequences as i64));
    }
}

/// Sequences and vocabulary.
fn rows(labels: Integers<'_>, seq_len: usize, logits: View<'_>) -> (usize, usize) {
    let (sequences, vocab) = (labels.len() / seq_len, logits.len() / labels.len());
    assert!(labels.len() == sequences * seq_len && logits.len() == labels.len() * vocab);
    (sequences, vocab)
}

//! Cross-entropy per sequence: `loss[b] = Σ positions nll / c`, c = max(1, labelled positions) (specification, "Loss").
//!
//! The gradient per unit of loss is worked out in the forward pass, where the logits are at hand.

use super::{Operation, backward_of_losses};
use crate::device::{Device, IGNORE_LABEL, Indices, Likelihood, Store};
use crate::rng::Rng;
use crate::tape::gradcheck::Sample;
use crate::tape::{Backward, SlotId, Tape, Var};

#[derive(Clone, Copy)]
pub(crate) struct CrossEntropy {
    logits: SlotId,
    /// `∂loss[b]/∂logits`, `[sequences·seq_len, vocab]`.
    unit_grad: SlotId,
    out: SlotId,
}

/// `[sequences, 1]` losses from logits `[sequences·seq_len, vocab]` and labels `[sequences, seq_len]`; each label is
/// [`IGNORE_LABEL`] or a token smaller than vocab.
pub fn cross_entropy<D: Device>(
    tape: &mut Tape<'_, D>,
    logits: &Var,
    labels: Indices,
    seq_len: usize,
    likelihood: Likelihood,
) -> Var {
    let (rows, vocab) = tape.shape(logits);
    assert!(labels.len() == rows && rows.is_multiple_of(seq_len), "one label per logit row");
    let (out, loss) = tape.new_value(rows / seq_len, 1, Store::Exact);
    let (unit_grad, unit_block) = tape.new_value(rows, vocab, Store::Exact);
    let logits_block = tape.block(logits);
    tape.memory.device.cross_entropy(likelihood, labels, seq_len, logits_block, loss, unit_block);
    let recorded = tape.records(&[logits.0], false);
    tape.push(out, recorded, &[], &[unit_grad], CrossEntropy { logits: logits.0, unit_grad, out })
}

impl Operation for CrossEntropy {
    const NAME: &'static str = "cross-entropy";
    const TERMS: &'static [&'static str] = &["loss"];

    fn output(&self) -> SlotId {
        self.out
    }

    fn backward<D: Device>(&self, pass: &mut Backward<'_, D>) {
        backward_of_losses(pass, self.out, self.unit_grad, self.logits);
    }

    fn samples<D: Device<T = f64>>(rng: &mut Rng) -> Vec<Sample<D>> {
        let kinds = [
            ("stablemax", Likelihood::Stablemax),
            ("softmax", Likelihood::Softmax { label_smoothing: 0.0 }),
            ("softmax, smoothed labels", Likelihood::Softmax { label_smoothing: 0.2 }),
        ];
        kinds
            .map(|(name, likelihood)| {
                let [sequences, seq_len, vocab] = Sample::<D>::sizes(rng, [3, 5, 6]);
                let vocab = vocab + 1;
                let mut labels: Vec<i32> = (0..sequences * seq_len)
                    .map(|_| if rng.below(4) == 0 { IGNORE_LABEL } else { rng.below(vocab) as i32 })
                    .collect();
                labels[0] = 0;
                let mut sample = Sample::new(name);
                sample.input(rng, sequences * seq_len, vocab);
                // Stablemax bends at 0, where a finite difference would straddle two branches.
                sample.keep_inputs_from_zero(0.05);
                sample.run(move |tape, inputs| {
                    let labels = tape.indices(labels.iter().copied());
                    vec![cross_entropy(tape, &inputs[0], labels, seq_len, likelihood)]
                })
            })
            .into()
    }
}

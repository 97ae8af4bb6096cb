//! The examples that halted slots take next.

use crate::dataset::Examples;
use crate::engine::BoxedGroup;
use crate::error::Result;

/// Examples on their way into slots: all of a batch are read before any slot changes.
pub(super) struct Incoming {
    seq_len: usize,
    inputs: Vec<u8>,
    labels: Vec<i32>,
    identifiers: Vec<u32>,
}

impl Incoming {
    pub(super) fn new(seq_len: usize, batch: usize) -> Self {
        let tokens = seq_len * batch;
        Self { seq_len, inputs: vec![0; tokens], labels: vec![0; tokens], identifiers: Vec::with_capacity(batch) }
    }

    /// Reads the example of every halted slot, in the order of the slots; the first one is slot `first` of the batch.
    pub(super) fn read<T>(
        &mut self,
        groups: &[BoxedGroup<T>],
        first: usize,
        examples: &mut (impl Examples + ?Sized),
    ) -> Result<()> {
        self.identifiers.clear();
        let rows = self.inputs.chunks_exact_mut(self.seq_len).zip(self.labels.chunks_exact_mut(self.seq_len));
        let halted = groups.iter().flat_map(|group| &group.slots.halted).enumerate().filter(|(_, halted)| **halted);
        for ((slot, _), (inputs, labels)) in halted.zip(rows) {
            self.identifiers.push(examples.write(first + slot, inputs, labels)?);
        }
        Ok(())
    }

    /// Inputs, labels and identifier of each example.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&[u8], &[i32], u32)> {
        let rows = self.inputs.chunks_exact(self.seq_len).zip(self.labels.chunks_exact(self.seq_len));
        rows.zip(&self.identifiers).map(|((inputs, labels), &identifier)| (inputs, labels, identifier))
    }
}

//! The sparse puzzle table: one embedding row per puzzle identifier, trained by sign-SGD on the rows a batch touches
//! (SPEC "Optimizers").

use serde::{Deserialize, Serialize};

/// Rows `[num_puzzle_identifiers, ndim]`; zeros at first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PuzzleTable {
    pub ndim: usize,
    pub values: Vec<f32>,
}

impl PuzzleTable {
    /// The name under which the table is published.
    pub const NAME: &'static str = "inner.puzzle_emb.weights";

    /// A table of zeros.
    pub fn new(rows: usize, ndim: usize) -> Self {
        Self { ndim, values: vec![0.0; rows * ndim] }
    }

    /// Number of puzzle identifiers.
    pub fn rows(&self) -> usize {
        self.values.len() / self.ndim
    }

    /// The row of one identifier.
    pub fn row(&self, id: u32) -> &[f32] {
        &self.values[id as usize * self.ndim..][..self.ndim]
    }

    /// Sums the gradients of equal identifiers, then `row ← row (1 − lr·decay) − lr·sign(Σ grad)` for each row seen.
    /// `ids` and `grads` `[slots, ndim]` go together; `order` is scratch.
    pub fn update(&mut self, lr: f64, decay: f64, ids: &[u32], grads: &[f32], order: &mut Vec<(u32, u32)>) {
        order.clear();
        order.extend(ids.iter().zip(0..).map(|(&id, slot)| (id, slot)));
        order.sort_unstable();
        let (keep, lr) = ((1.0 - lr * decay) as f32, lr as f32);
        for equal in order.chunk_by(|a, b| a.0 == b.0) {
            let row = &mut self.values[equal[0].0 as usize * self.ndim..][..self.ndim];
            for (d, value) in row.iter_mut().enumerate() {
                let sum: f32 = equal.iter().map(|&(_, slot)| grads[slot as usize * self.ndim + d]).sum();
                // `signum` of zero is one; the sign meant here is zero.
                let sign = if sum == 0.0 { 0.0 } else { sum.signum() };
                *value = *value * keep - lr * sign;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_identifiers_are_summed_and_unseen_rows_stay() {
        let mut table = PuzzleTable::new(3, 2);
        table.values.copy_from_slice(&[1.0; 6]);
        table.update(0.1, 0.5, &[2, 0, 2], &[1.0, 0.0, 5.0, -5.0, -3.0, 0.0], &mut Vec::new());
        let expected = [0.95 - 0.1, 0.95 + 0.1, 1.0, 1.0, 0.95 + 0.1, 0.95];
        for (a, b) in table.values.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{:?}", table.values);
        }
    }
}

//! The sparse puzzle table: one embedding row per puzzle identifier, trained by sign-SGD on the rows a batch touches
//! (specification, "Optimizers"). Only rows that were ever touched exist; all others are zero.

use std::collections::HashMap;

use crate::checkpoint::SparseRows;
use crate::device::Real;

/// The name under which the table is published.
pub const NAME: &str = "inner.puzzle_emb.weights";

/// Elements of a row that are summed together: where all slots have the same identifier, their gradients lie far apart.
const PART: usize = 64;

/// Rows `[num_puzzle_identifiers, ndim]`; zeros at first. Memory grows with the rows touched.
#[derive(Clone, Debug)]
pub struct PuzzleTable<T = f32> {
    rows: usize,
    ndim: usize,
    /// Where in `values` an identifier's row is.
    places: HashMap<u32, u32>,
    /// Identifier of each stored row.
    ids: Vec<u32>,
    /// The update that changed each stored row last.
    changed: Vec<u64>,
    /// `[ids.len(), ndim]`.
    values: Vec<T>,
    /// The row of everybody else.
    zeros: Vec<T>,
}

impl<T: Real> PuzzleTable<T> {
    /// A table of zeros.
    pub fn new(rows: usize, ndim: usize) -> Self {
        let (places, ids, changed, values) = Default::default();
        Self { rows, ndim, places, ids, changed, values, zeros: vec![T::ZERO; ndim] }
    }

    /// Number of puzzle identifiers.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Width of a row.
    pub fn ndim(&self) -> usize {
        self.ndim
    }

    /// The row of one identifier.
    pub fn row(&self, id: u32) -> &[T] {
        match self.places.get(&id) {
            Some(&place) => &self.values[place as usize * self.ndim..][..self.ndim],
            None => &self.zeros,
        }
    }

    /// The row of one identifier, to be changed by `update`.
    ///
    /// # Panics
    /// When there is no such identifier.
    pub fn row_mut(&mut self, id: u32, update: u64) -> &mut [T] {
        let place = match self.places.get(&id) {
            Some(&place) => place as usize,
            None => self.add_row(id),
        };
        self.changed[place] = update;
        &mut self.values[place * self.ndim..][..self.ndim]
    }

    fn add_row(&mut self, id: u32) -> usize {
        assert!((id as usize) < self.rows, "puzzle identifier {id}: the table has {} rows", self.rows);
        let place = self.ids.len();
        self.places.insert(id, place as u32);
        self.ids.push(id);
        self.changed.push(0);
        self.values.resize(self.values.len() + self.ndim, T::ZERO);
        place
    }

    /// Update number `update`: sums the gradients of equal identifiers, then `row ← row (1 − lr·decay) − lr·sign(Σ
    /// grad)` for each row seen. `ids` and `grads` `[slots, ndim]` go together; `order` is scratch. Allocates only for
    /// rows that were never touched before.
    pub fn update(
        &mut self,
        update: u64,
        (lr, decay): (f64, f64),
        (ids, grads): (&[u32], &[T]),
        order: &mut Vec<(u32, u32)>,
    ) {
        order.clear();
        order.extend(ids.iter().zip(0..).map(|(&id, slot)| (id, slot)));
        order.sort_unstable();
        let (ndim, keep, lr) = (self.ndim, T::from_f64(1.0 - lr * decay), T::from_f64(lr));
        for equal in order.chunk_by(|a, b| a.0 == b.0) {
            for (part, values) in self.row_mut(equal[0].0, update).chunks_mut(PART).enumerate() {
                let mut sums = [T::ZERO; PART];
                for &(_, slot) in equal {
                    let own = &grads[slot as usize * ndim + part * PART..][..values.len()];
                    sums.iter_mut().zip(own).for_each(|(sum, &own)| *sum += own);
                }
                for (value, sum) in values.iter_mut().zip(sums) {
                    // `signum` of zero is one; the sign meant here is zero.
                    let sign = if sum == T::ZERO { T::ZERO } else { T::ONE.copysign(sum) };
                    *value = *value * keep - lr * sign;
                }
            }
        }
    }
}

impl SparseRows for PuzzleTable<f32> {
    fn ndim(&self) -> usize {
        self.ndim
    }

    fn count_changed(&self, since: u64) -> usize {
        self.changed.iter().filter(|&&update| update > since).count()
    }

    fn changed(&self, since: u64) -> Vec<(u32, &[f32])> {
        let rows = self.ids.iter().zip(&self.changed).zip(self.values.chunks_exact(self.ndim));
        let mut rows: Vec<_> =
            rows.filter(|((_, update), _)| **update > since).map(|((&id, _), row)| (id, row)).collect();
        rows.sort_unstable_by_key(|&(id, _)| id);
        rows
    }
}

/// Equal shapes and equal rows, however they came to be.
impl<T: Real> PartialEq for PuzzleTable<T> {
    fn eq(&self, other: &Self) -> bool {
        let has = |mine: &Self, theirs: &Self| mine.ids.iter().all(|&id| mine.row(id) == theirs.row(id));
        (self.rows, self.ndim) == (other.rows, other.ndim) && has(self, other) && has(other, self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_identifiers_are_summed_and_unseen_rows_stay() {
        let mut table = PuzzleTable::<f32>::new(3, 2);
        (0..3).for_each(|id| table.row_mut(id, 1).fill(1.0));
        let grads = [1.0, 0.0, 5.0, -5.0, -3.0, 0.0];
        table.update(2, (0.1, 0.5), (&[2, 0, 2], &grads), &mut Vec::new());
        let expected = [0.95 - 0.1, 0.95 + 0.1, 1.0, 1.0, 0.95 + 0.1, 0.95];
        for (a, b) in (0..3).flat_map(|id| table.row(id)).zip(expected) {
            assert!((a - b).abs() < 1e-6, "{table:?}");
        }
        assert_eq!(table.changed(1).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 2]);
        assert_eq!((table.count_changed(0), table.count_changed(1), table.count_changed(2)), (3, 2, 0));
    }

    proptest! {
        /// The obvious twin: all rows there are.
        #[test]
        fn a_sparse_table_is_the_dense_one(batches in proptest::collection::vec(
            proptest::collection::vec((0..9u32, -2i8..3, -2i8..3), 1..6), 1..8)) {
            let mut sparse = PuzzleTable::<f32>::new(9, 2);
            let mut dense = [[0f32; 2]; 9];
            for (update, batch) in (1..).zip(&batches) {
                let ids: Vec<u32> = batch.iter().map(|slot| slot.0).collect();
                let grads: Vec<f32> = batch.iter().flat_map(|slot| [f32::from(slot.1), f32::from(slot.2)]).collect();
                sparse.update(update, (0.1, 0.3), (&ids, &grads), &mut Vec::new());
                for (id, row) in dense.iter_mut().enumerate().filter(|(id, _)| ids.contains(&(*id as u32))) {
                    for (d, value) in row.iter_mut().enumerate() {
                        let seen = ids.iter().enumerate().filter(|(_, other)| **other as usize == id);
                        let sum: f32 = seen.map(|(slot, _)| grads[2 * slot + d]).sum();
                        let sign = if sum > 0.0 { 1.0 } else if sum < 0.0 { -1.0 } else { 0.0 };
                        *value = *value * (1.0 - 0.1f64 * 0.3) as f32 - 0.1 * sign;
                    }
                }
            }
            for (id, row) in (0..).zip(&dense) {
                prop_assert_eq!(sparse.row(id), row);
            }
            let touched: std::collections::BTreeSet<u32> = batches.iter().flatten().map(|slot| slot.0).collect();
            prop_assert!(sparse.changed(0).iter().map(|(id, _)| *id).eq(touched));
        }
    }
}

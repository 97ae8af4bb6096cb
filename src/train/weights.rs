//! All numbers of a model: dense weights and, where there is one, the puzzle table.

use super::PuzzleTable;
use crate::config::Config;
use crate::model::{Model, initialize};
use crate::tape::Params;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Weights {
    pub params: Params<f32>,
    pub table: Option<PuzzleTable>,
}

impl Weights {
    /// Fresh weights of a configuration.
    pub fn new(model: &Model, config: &Config) -> Self {
        let ndim = config.model.puzzle_emb_ndim;
        Self {
            params: initialize(model, config.train.seed, config.train.precision.into()),
            table: (ndim > 0).then(|| PuzzleTable::new(config.task.num_puzzle_identifiers, ndim)),
        }
    }

    /// Every tensor with its published name and shape; dense ones first.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Vec<usize>, &[f32])> {
        let values = self.params.values();
        let dense = self.params.layout().tensors().iter();
        let dense = dense.map(move |t| (t.name.as_str(), t.shape(), &values[t.range()]));
        let table = self.table.iter().map(|t| (PuzzleTable::NAME, vec![t.rows(), t.ndim], t.values.as_slice()));
        dense.chain(table)
    }

    /// Overwrites every tensor with what `read` gives for its name, in the order of [`Weights::tensors`].
    pub fn set<E>(&mut self, mut read: impl FnMut(&str, &mut [f32]) -> Result<(), E>) -> Result<(), E> {
        let layout = self.params.layout().clone();
        self.params.update(|values| {
            layout.tensors().iter().try_for_each(|tensor| read(&tensor.name, &mut values[tensor.range()]))
        })?;
        match &mut self.table {
            Some(table) => read(PuzzleTable::NAME, &mut table.values),
            None => Ok(()),
        }
    }
}

impl From<crate::config::Precision> for crate::simd::Precision {
    fn from(setting: crate::config::Precision) -> Self {
        match setting {
            crate::config::Precision::F32 => Self::F32,
            crate::config::Precision::Bf16 => Self::Bf16,
        }
    }
}

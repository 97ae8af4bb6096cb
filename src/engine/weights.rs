//! All parameters of a model: dense weights and, where there is one, the puzzle table.

use std::path::Path;
use std::sync::Arc;

use super::{PuzzleTable, formats_for, puzzle_table};
use crate::checkpoint::{SparseRows as _, TensorFile, TensorSource, save_weights, weights};
use crate::config::Config;
use crate::device::{Cpu, Device, Params};
use crate::error::{Error, Result};
use crate::model::{Model, initialize};

/// What a run that begins with stored weights does with their puzzle table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableStart {
    /// Takes it where it has the shape of the run's own, else starts anew.
    Fitting,
    /// Takes it.
    Keep,
    /// Starts anew.
    New,
}

/// The parameters that a [`Model`]'s structure is filled with.
#[derive(Debug)]
pub struct Weights<D: Device = Cpu<f32>> {
    /// The dense weights.
    pub params: Params<D>,
    /// Shared, so that a copy of the weights (to evaluate their EMA) is none of a large table.
    pub table: Option<Arc<PuzzleTable<D::T>>>,
}

impl<D: Device> Clone for Weights<D> {
    fn clone(&self) -> Self {
        Self { params: self.params.clone(), table: self.table.clone() }
    }
}

impl<D: Device> Weights<D> {
    /// Fresh weights of a configuration.
    pub fn new(model: &Model, config: &Config) -> Self {
        Self::of(initialize(model, config.train.seed, formats_for::<D>(&config.train)), config)
    }

    /// Zeros, for weights that are read from a file: drawing five million takes a fifth of a second.
    pub fn zeros(model: &Model, config: &Config) -> Self {
        Self::of(Params::with_formats(model.layout.clone(), formats_for::<D>(&config.train)), config)
    }

    fn of(params: Params<D>, config: &Config) -> Self {
        let ndim = config.model.puzzle_emb_ndim;
        Self { params, table: (ndim > 0).then(|| Arc::new(PuzzleTable::new(config.task.num_puzzle_identifiers, ndim))) }
    }

    /// The same with other dense values, in flat order.
    pub fn with_dense(&self, dense: &[D::T]) -> Self {
        let mut weights = self.clone();
        weights.params.update(|values| values.copy_from_slice(dense));
        weights
    }

    /// Name, shape and values of every dense tensor.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Vec<usize>, &[D::T])> {
        self.tensors_in(self.params.values())
    }

    fn tensors_in<'a>(&'a self, values: &'a [D::T]) -> impl Iterator<Item = (&'a str, Vec<usize>, &'a [D::T])> {
        self.params.layout().tensors().iter().map(move |t| (t.name.as_str(), t.shape(), &values[t.range()]))
    }

    /// Overwrites every dense tensor with what `read` gives for its name, in the order of [`Weights::tensors`].
    pub fn set<E>(&mut self, mut read: impl FnMut(&str, &mut [D::T]) -> Result<(), E>) -> Result<(), E> {
        let layout = self.params.layout().clone();
        self.params.update(|values| {
            layout.tensors().iter().try_for_each(|tensor| read(&tensor.name, &mut values[tensor.range()]))
        })
    }
}

impl<D: Device<T = f32>> Weights<D> {
    /// Writes all tensors in the published form, the puzzle table as the dense one it is (with holes where nothing was
    /// learned). `dense` are the values of the dense ones: these weights' own, or their EMA.
    pub fn save(&self, path: &Path, dense: &[f32]) -> Result<()> {
        let tensors = self.tensors_in(dense).map(|(name, shape, values)| TensorSource::dense(name, shape, values));
        let table = self.table.iter().map(|table| TensorSource {
            name: puzzle_table::NAME,
            shape: vec![table.rows(), table.ndim()],
            pieces: Box::new(table.changed(0).into_iter().map(|(id, row)| (id as usize * row.len(), row))),
        });
        save_weights(path, tensors.chain(table))
    }

    /// Reads all tensors from a file in the published form, which must hold exactly these. Rows of zeros of the puzzle
    /// table take no memory.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let file = weights::open_expected(path, &self.published())?;
        self.load_dense(&file)?;
        self.load_table(&file)
    }

    /// Begins with the weights in a file of the same model, whose puzzle table may be of other puzzles. Returns what there is
    /// to say of the table.
    ///
    /// # Errors
    /// When the file holds another model, or its table cannot be kept though that is asked.
    pub fn begin_with(&mut self, path: &Path, start: TableStart) -> Result<Option<String>> {
        let file = TensorFile::open(path)?;
        let is_stored = file.contains(puzzle_table::NAME);
        let mut expected = self.published();
        expected.retain(|(name, _)| name != puzzle_table::NAME);
        let theirs = if is_stored { Some(file.shape(puzzle_table::NAME)?.to_vec()) } else { None };
        expected.extend(theirs.clone().map(|shape| (puzzle_table::NAME.to_owned(), shape)));
        weights::check_expected(&file, &expected)?;
        let ours = self.table.as_ref().map(|table| vec![table.rows(), table.ndim()]);
        let fits = theirs.is_some() && theirs == ours;
        let (ours, theirs) = [&ours, &theirs].map(|shape| shape.as_ref().map(|shape| format!("{shape:?}"))).into();
        if start == TableStart::Keep && !fits {
            let none = || "none".to_owned();
            return Err(Error::input(format!(
                "--init-table keep: the puzzle table of {} is {}, that of the new run {}; give --init-table new",
                path.display(),
                theirs.unwrap_or_else(none),
                ours.unwrap_or_else(none)
            )));
        }
        self.load_dense(&file)?;
        Ok(match (ours, theirs) {
            (None, None) => None,
            (None, Some(_)) => Some("its puzzle table is left out: the new run has none".to_owned()),
            (Some(_), Some(shape)) if fits && start != TableStart::New => {
                self.load_table(&file)?;
                Some(format!("its puzzle table {shape} is kept"))
            }
            (Some(_), Some(_)) if fits => Some("the puzzle table starts anew".to_owned()),
            (Some(ours), Some(theirs)) => {
                Some(format!("the puzzle table starts anew: the stored one is {theirs}, the new run's {ours}"))
            }
            (Some(_), None) => Some("the puzzle table starts anew: none is stored".to_owned()),
        })
    }

    /// Name and shape of every tensor in the published form.
    fn published(&self) -> Vec<(String, Vec<usize>)> {
        let dense = self.tensors().map(|(name, shape, _)| (name.to_owned(), shape));
        dense.chain(self.table.iter().map(|t| (puzzle_table::NAME.to_owned(), vec![t.rows(), t.ndim()]))).collect()
    }

    fn load_dense(&mut self, file: &TensorFile) -> Result<()> {
        self.set(|name, values| {
            values.copy_from_slice(&weights::load_tensor(file, name)?.data);
            Ok::<(), Error>(())
        })
    }

    fn load_table(&mut self, file: &TensorFile) -> Result<()> {
        if let Some(table) = &mut self.table {
            let mut loaded = PuzzleTable::new(table.rows(), table.ndim());
            weights::load_rows(file, puzzle_table::NAME, |id, row| loaded.row_mut(id as u32, 1).copy_from_slice(row))?;
            *table = Arc::new(loaded);
        }
        Ok(())
    }
}

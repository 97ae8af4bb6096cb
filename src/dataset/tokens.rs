//! The rows of a split: held in memory, or generated or read from a file one at a time.

use std::borrow::Cow;
use std::sync::Arc;

use ndarray::Array2;
use rayon::prelude::*;

use crate::puzzle::{GeneratedRows, RowSource};
use crate::{Error, Result};

/// Tokens, `[rows, columns]`.
#[derive(Clone, Debug)]
pub struct Tokens {
    rows: usize,
    columns: usize,
    store: Store,
}

#[derive(Clone, Debug)]
enum Store {
    /// All rows, one after the other.
    Memory(Vec<u8>),
    /// None: a row is generated when it is needed.
    Generated(Arc<dyn RowSource>),
    /// None: a row is read from its file when it is needed.
    InFile(Arc<dyn RowSource>),
}

impl Tokens {
    /// Rows that a generator has made.
    pub(super) fn of_generated(made: GeneratedRows, rows: usize, columns: usize) -> Result<Self> {
        match made {
            GeneratedRows::OnDemand(source) => Ok(Self::generated(rows, columns, source)),
            GeneratedRows::Stored(tokens) => {
                let array = Array2::from_shape_vec((rows, columns), tokens);
                array.map(Self::from).map_err(|e| Error::input(format!("rows of unequal length: {e}")))
            }
        }
    }

    /// Rows that `source` generates; none of them is kept.
    pub fn generated(rows: usize, columns: usize, source: Arc<dyn RowSource>) -> Self {
        Self { rows, columns, store: Store::Generated(source) }
    }

    /// Rows that `source` reads from a file; none of them is kept.
    pub fn in_file(rows: usize, columns: usize, source: Arc<dyn RowSource>) -> Self {
        Self { rows, columns, store: Store::InFile(source) }
    }

    /// Number of rows.
    pub fn nrows(&self) -> usize {
        self.rows
    }

    /// Tokens per row.
    pub fn ncols(&self) -> usize {
        self.columns
    }

    /// `(rows, columns)`
    pub fn dim(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// A row: borrowed where it is kept, new where it is generated or read.
    pub fn row(&self, row: usize) -> Result<Cow<'_, [u8]>> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        Ok(match &self.store {
            Store::Memory(tokens) => Cow::Borrowed(&tokens[row * self.columns..(row + 1) * self.columns]),
            Store::Generated(source) | Store::InFile(source) => {
                let mut out = vec![0; self.columns];
                source.write_row(row, &mut out)?;
                Cow::Owned(out)
            }
        })
    }

    /// Writes a row into `out`, `ncols` long. Allocates nothing.
    pub fn copy_row(&self, row: usize, out: &mut [u8]) -> Result<()> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        match &self.store {
            Store::Memory(tokens) => {
                out.copy_from_slice(&tokens[row * self.columns..(row + 1) * self.columns]);
                Ok(())
            }
            Store::Generated(source) | Store::InFile(source) => source.write_row(row, out),
        }
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Result<Cow<'_, [u8]>>> {
        (0..self.rows).map(|row| self.row(row))
    }

    /// The first row in which `look` finds something. Rows that are generated are not looked at: whoever generates them
    /// answers for them.
    pub fn find<T: Send>(&self, look: impl Fn(&[u8]) -> Option<T> + Sync) -> Result<Option<(usize, T)>> {
        if matches!(self.store, Store::Generated(_)) {
            return Ok(None);
        }
        let found = (0..self.rows).into_par_iter().find_map_first(|row| match self.row(row) {
            Ok(tokens) => look(&tokens).map(|found| Ok((row, found))),
            Err(error) => Some(Err(error)),
        });
        found.transpose()
    }

    /// All tokens in order, where they are kept.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.store {
            Store::Memory(tokens) => Some(tokens),
            Store::Generated(_) | Store::InFile(_) => None,
        }
    }

    /// A row to change.
    ///
    /// # Panics
    /// When rows are not kept.
    pub fn row_mut(&mut self, row: usize) -> &mut [u8] {
        match &mut self.store {
            Store::Memory(tokens) => &mut tokens[row * self.columns..(row + 1) * self.columns],
            Store::Generated(_) | Store::InFile(_) => panic!("a row that is generated or read cannot be changed"),
        }
    }
}

impl From<Array2<u8>> for Tokens {
    fn from(array: Array2<u8>) -> Self {
        let (rows, columns) = array.dim();
        let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
        Self { rows, columns, store: Store::Memory(array.into_raw_vec_and_offset().0) }
    }
}

/// Equal rows, however they come about; one that cannot be read equals none.
impl PartialEq for Tokens {
    fn eq(&self, other: &Self) -> bool {
        let mut rows = self.rows().zip(other.rows());
        self.dim() == other.dim() && rows.all(|(a, b)| a.is_ok_and(|a| b.is_ok_and(|b| a == b)))
    }
}

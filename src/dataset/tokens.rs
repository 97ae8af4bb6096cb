//! The rows of a split: held in memory, or made or read from a file one at a time when somebody asks.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use ndarray::Array2;
use rayon::prelude::*;

/// Makes or reads rows of tokens on demand. A row is a function of its number.
pub trait RowSource: Debug + Send + Sync {
    /// Writes row `row` into `out`, one row long.
    fn write_row(&self, row: usize, out: &mut [u8]);
}

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
    /// Nothing but the way to make them.
    Made(Arc<dyn RowSource>),
    /// Nothing but the file they lie in.
    Filed(Arc<dyn RowSource>),
}

impl Tokens {
    /// Rows that `source` makes; none of them is kept.
    pub fn made(rows: usize, columns: usize, source: Arc<dyn RowSource>) -> Self {
        Self { rows, columns, store: Store::Made(source) }
    }

    /// Rows that `source` reads from a file; none of them is kept.
    pub fn filed(rows: usize, columns: usize, source: Arc<dyn RowSource>) -> Self {
        Self { rows, columns, store: Store::Filed(source) }
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

    /// A row: borrowed where it is kept, new where it is made or read.
    pub fn row(&self, row: usize) -> Cow<'_, [u8]> {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        match &self.store {
            Store::Memory(tokens) => Cow::Borrowed(&tokens[row * self.columns..(row + 1) * self.columns]),
            Store::Made(source) | Store::Filed(source) => {
                let mut out = vec![0; self.columns];
                source.write_row(row, &mut out);
                Cow::Owned(out)
            }
        }
    }

    /// Writes a row into `out`, `ncols` long. Allocates nothing.
    pub fn copy_row(&self, row: usize, out: &mut [u8]) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        match &self.store {
            Store::Memory(tokens) => out.copy_from_slice(&tokens[row * self.columns..(row + 1) * self.columns]),
            Store::Made(source) | Store::Filed(source) => source.write_row(row, out),
        }
    }

    /// All rows in order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = Cow<'_, [u8]>> {
        (0..self.rows).map(|row| self.row(row))
    }

    /// The first row in which `look` finds something. Rows that are made are not looked at: whoever makes them answers
    /// for them.
    pub fn find<T: Send>(&self, look: impl Fn(&[u8]) -> Option<T> + Sync) -> Option<(usize, T)> {
        if matches!(self.store, Store::Made(_)) {
            return None;
        }
        (0..self.rows).into_par_iter().find_map_first(|row| Some((row, look(&self.row(row))?)))
    }

    /// All tokens in order, where they are kept.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match &self.store {
            Store::Memory(tokens) => Some(tokens),
            Store::Made(_) | Store::Filed(_) => None,
        }
    }

    /// A row to change.
    ///
    /// # Panics
    /// When rows are not kept.
    pub fn row_mut(&mut self, row: usize) -> &mut [u8] {
        match &mut self.store {
            Store::Memory(tokens) => &mut tokens[row * self.columns..(row + 1) * self.columns],
            Store::Made(_) | Store::Filed(_) => panic!("a row that is made or read cannot be changed"),
        }
    }
}

impl From<Array2<u8>> for Tokens {
    fn from(array: Array2<u8>) -> Self {
        let (rows, columns) = array.dim();
        Self {
            rows,
            columns,
            store: Store::Memory(array.as_standard_layout().into_owned().into_raw_vec_and_offset().0),
        }
    }
}

/// Equal rows, however they come about.
impl PartialEq for Tokens {
    fn eq(&self, other: &Self) -> bool {
        self.dim() == other.dim() && self.rows().eq(other.rows())
    }
}

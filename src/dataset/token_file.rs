//! Tokens in an `.npy` file: read whole or left where they are, written as they are made.

use std::path::Path;
use std::sync::Arc;

use ndarray::Array2;
use rayon::prelude::*;

use super::Tokens;
use crate::config::IGNORE_LABEL;
use crate::files::npy::{ByteRows, ByteWriter, NpyArray};
use crate::puzzle::RowSource;
use crate::{Error, Result};

/// Bytes from which on an array of tokens stays in its file.
const LARGE: usize = 256 << 20;

/// Bytes of tokens made and written at a time.
const CHUNK: usize = 8 << 20;

/// Reads tokens `[rows, columns]`. From `LARGE` bytes on they stay where they are, a row being read when it is needed;
/// the page cache keeps those in memory that are used. (Wider integers are narrowed on the way, so they are always kept.)
pub(super) fn read_tokens(path: &Path) -> Result<Tokens> {
    read_tokens_from(path, LARGE)
}

/// Reads the labels of a set whose `dataset.json` says that labels equal to `ignored` carry no loss. Some builders write
/// −100 itself, or another number that is no token: those become one byte. Returns it, or `ignored` if that is a byte.
pub(super) fn read_labels(path: &Path, ignored: Option<i64>, vocab_size: usize) -> Result<(Tokens, Option<u8>)> {
    let token = ignored.and_then(|id| u8::try_from(id).ok());
    let array = NpyArray::open(path, 2)?;
    if array.has_rows() {
        return Ok((read_tokens(path)?, token));
    }
    let stand_in = token.or_else(|| u8::try_from(vocab_size).ok());
    let (rows, columns) = (array.shape()[0], array.shape()[1]);
    let mut unlabelled = token;
    let values = array.values_by(|value| match u8::try_from(value) {
        Ok(label) => Some(label),
        Err(_) if value == i64::from(IGNORE_LABEL) || Some(value) == ignored => {
            unlabelled = stand_in;
            stand_in
        }
        Err(_) => None,
    })?;
    let labels = Array2::from_shape_vec((rows, columns), values);
    Ok((labels.map(Tokens::from).map_err(|e| Error::input(format!("{}: {e}", path.display())))?, unlabelled))
}

fn read_tokens_from(path: &Path, large: usize) -> Result<Tokens> {
    let array = NpyArray::open(path, 2)?;
    let (rows, columns) = (array.shape()[0], array.shape()[1]);
    if array.has_rows() && rows * columns >= large {
        return Ok(Tokens::in_file(rows, columns, Arc::new(array.into_rows())));
    }
    let tokens = Array2::from_shape_vec((rows, columns), array.values()?);
    tokens.map(Tokens::from).map_err(|e| Error::input(format!("{}: {e}", path.display())))
}

impl RowSource for ByteRows {
    fn write_row(&self, row: usize, out: &mut [u8]) -> Result<()> {
        self.read(row, out)
    }
}

/// Writes tokens `[rows, columns]` as `u8`. Rows that are made are made by all threads of the current pool, the next
/// chunk while one is being written; `progress` receives how many rows of it went out.
pub(super) fn write_tokens(path: &Path, tokens: &Tokens, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let (rows, columns) = tokens.dim();
    let mut out = ByteWriter::create(path, rows, columns)?;
    if let Some(all) = tokens.in_memory() {
        out.write(all)?;
        progress(rows as u64);
        return out.finish();
    }
    let per_chunk = (CHUNK / columns.max(1)).max(1);
    let fill = |first: usize, buffer: &mut Vec<u8>| {
        buffer.resize(per_chunk.min(rows - first.min(rows)) * columns, 0);
        let places = buffer.par_chunks_exact_mut(columns.max(1)).enumerate();
        places.try_for_each(|(at, row)| tokens.copy_row(first + at, row))
    };
    let (mut ready, mut next) = (Vec::new(), Vec::new());
    fill(0, &mut ready)?;
    for first in (0..rows).step_by(per_chunk) {
        let (written, filled) = rayon::join(|| out.write(&ready), || fill(first + per_chunk, &mut next));
        written.and(filled)?;
        progress((ready.len() / columns) as u64);
        std::mem::swap(&mut ready, &mut next);
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use ndarray_npy::write_npy;

    use super::*;

    #[test]
    fn rows_that_stay_in_their_file_are_those_that_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let array = Array2::from_shape_fn((70, 31), |(r, c)| (r * 7 + c) as u8);
        write_tokens(&path, &array.clone().into(), &|_| {}).unwrap();
        let (kept, left) = (read_tokens(&path).unwrap(), read_tokens_from(&path, 70 * 31).unwrap());
        assert!(kept.in_memory().is_some() && left.in_memory().is_none());
        assert_eq!((&kept, &left), (&array.into(), &kept));
        let copy = dir.path().join("copy.npy");
        write_tokens(&copy, &left, &|_| {}).unwrap();
        assert_eq!(std::fs::read(&copy).unwrap(), std::fs::read(&path).unwrap());
        // Wider integers are narrowed, so they do not stay.
        let wide = dir.path().join("wide.npy");
        write_npy(&wide, &Array2::from_elem((3, 2), 5i64)).unwrap();
        assert!(read_tokens_from(&wide, 1).unwrap().in_memory().is_some());
    }

    #[test]
    fn a_file_that_shrinks_while_in_use_is_one_line_about_its_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        write_tokens(&path, &Array2::from_elem((70, 31), 3u8).into(), &|_| {}).unwrap();
        let left = read_tokens_from(&path, 1).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(128 + 31).unwrap();
        assert_eq!(*left.row(0).unwrap(), [3; 31]);
        let error = left.find(|row| (row[0] == 4).then_some(())).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("a.npy: row ") && message.contains("cannot be read any more"), "{message}");
        assert_eq!(error.exit_code(), 2);
        let copied = write_tokens(&dir.path().join("b.npy"), &left, &|_| {});
        assert_eq!(copied.unwrap_err().exit_code(), 2);
    }
}

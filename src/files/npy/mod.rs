//! One array in one `.npy` file, read with suspicion and written as numpy writes it.
//!
//! The header of a hostile file may claim anything. Here it is compared with the file's size **before** anything
//! is allocated, so memory is bounded by bytes that exist; wider integers are narrowed on the way through a small
//! buffer, so an `i64` file of a gigabyte costs its `u8` array and nothing more.

mod header;

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::{atomic, step};
use crate::error::{Error, Result};
use header::{Dtype, Header, header_bytes, read_header};

/// An array whose header agrees with its file's size, standing before its first element.
#[derive(Debug)]
pub struct NpyArray {
    path: PathBuf,
    file: File,
    header: Header,
    /// Elements.
    count: usize,
    /// Where the first element starts.
    offset: usize,
}

impl NpyArray {
    /// Opens an array of so many dimensions.
    ///
    /// # Errors
    /// One line that names the file, whatever is wrong with it.
    pub fn open(path: &Path, dimensions: usize) -> Result<Self> {
        let bad = |what: String| Error::input(format!("{}: {what}", path.display()));
        // Asked before opening: opening a pipe would wait for a writer.
        match std::fs::metadata(path) {
            Ok(facts) if facts.is_file() => {}
            Ok(_) => return Err(bad("is not a regular file; an .npy array was expected".into())),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(bad("is missing; copy the whole data set, or rebuild it".into()));
            }
            Err(e) => return Err(Error::io(path, e)),
        }
        let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
        let file_len = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let (header, offset) = read_header(&mut file, file_len).map_err(bad)?;
        if header.shape.len() != dimensions {
            return Err(bad(format!("has shape {:?}, expected {dimensions} dimension(s)", header.shape)));
        }
        let count = header.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        let expected = count.and_then(|n| n.checked_mul(header.dtype.size())).and_then(|n| n.checked_add(offset));
        let (Some(count), Some(expected)) = (count, expected) else {
            return Err(bad(format!("header claims the impossible shape {:?}; rebuild the data set", header.shape)));
        };
        if expected as u64 != file_len {
            return Err(bad(format!(
                "holds {} bytes where its header (shape {:?}, dtype {}) needs {expected}; truncated, oversized or a lying \
                 header: copy or rebuild the data set",
                file_len,
                header.shape,
                header.dtype.descr()
            )));
        }
        Ok(Self { path: path.into(), file, header, count, offset })
    }

    /// Its sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.header.shape
    }

    /// Whether it can be read a row at a time: its elements are bytes, and the system reads at an offset.
    pub fn has_rows(&self) -> bool {
        cfg!(unix) && self.header.dtype == Dtype::U8
    }

    /// All elements, each of which must fit `T`.
    pub fn values<T: TryFrom<i64>>(self) -> Result<Vec<T>> {
        self.values_by(|value| T::try_from(value).ok())
    }

    /// All elements, each of which `convert` must take.
    pub fn values_by<T>(mut self, convert: impl FnMut(i64) -> Option<T>) -> Result<Vec<T>> {
        let path = &self.path;
        read_values(&mut self.file, self.header.dtype, self.count, convert).map_err(|e| match e {
            ReadFault::Io(e) => Error::io(path, e),
            ReadFault::Range { index, value } => Error::input(format!(
                "{}: element {index} is {value}, outside the range allowed here; rebuild the data set",
                path.display()
            )),
        })
    }

    /// An array `[rows, columns]` of bytes to be read a row at a time.
    ///
    /// # Panics
    /// Unless [`NpyArray::has_rows`].
    pub fn into_rows(self) -> ByteRows {
        assert!(self.has_rows(), "an array of bytes");
        ByteRows { path: self.path, file: self.file, offset: self.offset as u64 }
    }
}

/// Rows of bytes that stay in their file.
#[derive(Debug)]
pub struct ByteRows {
    path: PathBuf,
    file: File,
    /// Where the first row starts.
    offset: u64,
}

impl ByteRows {
    /// Reads row `row` into `out`, one row long.
    ///
    /// # Errors
    /// When the file, whose size was right when it was opened, cannot be read any more.
    pub fn read(&self, row: usize, out: &mut [u8]) -> Result<()> {
        let at = self.offset + row as u64 * out.len() as u64;
        read_at(&self.file, out, at).map_err(|e| {
            let path = self.path.display();
            Error::input(format!("{path}: row {row} cannot be read any more ({e}); rebuild or copy the data set"))
        })
    }
}

#[cfg(unix)]
fn read_at(file: &File, out: &mut [u8], at: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

/// Elsewhere no array stays in its file.
#[cfg(not(unix))]
fn read_at(_: &File, _: &mut [u8], _: u64) -> std::io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Reads a list whose elements all fit `T`.
pub fn read_list<T: TryFrom<i64>>(path: &Path) -> Result<Vec<T>> {
    NpyArray::open(path, 1)?.values()
}

enum ReadFault {
    Io(std::io::Error),
    Range { index: usize, value: i64 },
}

fn read_values<T>(
    file: &mut File,
    dtype: Dtype,
    count: usize,
    mut convert: impl FnMut(i64) -> Option<T>,
) -> Result<Vec<T>, ReadFault> {
    const BUFFER: usize = 1 << 16;
    let mut values = Vec::with_capacity(count);
    let mut buffer = vec![0u8; BUFFER.min(count * dtype.size())];
    while values.len() < count {
        let bytes = BUFFER.min((count - values.len()) * dtype.size());
        file.read_exact(&mut buffer[..bytes]).map_err(ReadFault::Io)?;
        for element in buffer[..bytes].chunks_exact(dtype.size()) {
            let value = dtype.decode(element);
            let index = values.len();
            values.push(convert(value).ok_or(ReadFault::Range { index, value })?);
        }
    }
    Ok(values)
}

/// What an array of bytes of that shape begins with.
pub fn byte_header(shape: &[usize]) -> Vec<u8> {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    header_bytes(Dtype::U8, &format!("({}{comma})", sizes.join(", ")))
}

/// Writes an array `[rows, columns]` of bytes, which must not be there yet, as its bytes come.
#[derive(Debug)]
pub struct ByteWriter {
    path: PathBuf,
    out: BufWriter<File>,
}

impl ByteWriter {
    /// Starts the file.
    pub fn create(path: &Path, rows: usize, columns: usize) -> Result<Self> {
        let open = || {
            step("create")?;
            let mut out = BufWriter::with_capacity(1 << 16, File::create_new(path)?);
            out.write_all(&header_bytes(Dtype::U8, &format!("({rows}, {columns})")))?;
            Ok(out)
        };
        Ok(Self { path: path.into(), out: open().map_err(|e| Error::io(path, e))? })
    }

    /// Appends bytes of the array.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        step("write").and_then(|()| self.out.write_all(bytes)).map_err(|e| Error::io(&self.path, e))
    }

    /// Syncs the file, which is then whole.
    pub fn finish(self) -> Result<()> {
        let path = self.path;
        let sync = |out: BufWriter<File>| {
            step("sync file")?;
            out.into_inner().map_err(|e| e.into_error())?.sync_all()
        };
        sync(self.out).map_err(|e| Error::io(path, e))
    }
}

/// Writes a list of indices as `i32`; one that does not fit is an error.
pub fn write_i32(path: &Path, values: &[u32]) -> Result<()> {
    if let Some(value) = values.iter().find(|&&v| i32::try_from(v).is_err()) {
        return Err(Error::input(format!("{}: index {value} does not fit the format's i32", path.display())));
    }
    let mut bytes = header_bytes(Dtype::I32, &format!("({},)", values.len()));
    values.iter().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    atomic::write_new(path, &bytes)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};
    use ndarray_npy::{read_npy, write_npy};

    use super::*;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn an_independent_reader_agrees_with_what_is_written() {
        let dir = scratch();
        let (tokens, indices) = (dir.path().join("tokens.npy"), dir.path().join("indices.npy"));
        let mut out = ByteWriter::create(&tokens, 2, 3).unwrap();
        out.write(&[0, 1, 2, 3]).unwrap();
        out.write(&[254, 255]).unwrap();
        out.finish().unwrap();
        write_i32(&indices, &[0, 7, 70_000]).unwrap();
        let read: Array2<u8> = read_npy(&tokens).unwrap();
        assert_eq!(read, ndarray::arr2(&[[0, 1, 2], [3, 254, 255]]));
        let read: Array1<i32> = read_npy(&indices).unwrap();
        assert_eq!(read.to_vec(), [0, 7, 70_000]);
    }

    #[test]
    fn all_three_element_types_of_an_independent_writer_are_read() {
        let dir = scratch();
        let path = dir.path().join("a.npy");
        write_npy(&path, &Array2::from_shape_fn((300, 81), |(r, c)| ((r + c) % 11) as i64)).unwrap();
        let array = NpyArray::open(&path, 2).unwrap();
        assert_eq!((array.shape(), array.has_rows()), (&[300, 81][..], false));
        let values: Vec<u8> = array.values().unwrap();
        assert!(values.iter().enumerate().all(|(i, &v)| usize::from(v) == (i / 81 + i % 81) % 11));
        write_npy(&path, &ndarray::arr1(&[0i32, 5, 1 << 30])).unwrap();
        assert_eq!(read_list::<u32>(&path).unwrap(), [0, 5, 1 << 30]);
        write_npy(&path, &ndarray::arr1(&[3u8])).unwrap();
        assert_eq!(read_list::<u32>(&path).unwrap(), [3]);
    }

    #[test]
    fn values_that_do_not_fit_are_refused_with_their_position() {
        let dir = scratch();
        let path = dir.path().join("a.npy");
        for value in [-1i64, 256, i64::MAX, i64::MIN] {
            write_npy(&path, &ndarray::arr1(&[1, value])).unwrap();
            let message = read_list::<u8>(&path).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(message.contains("element 1") && message.contains(&value.to_string()), "{message}");
        }
    }
}

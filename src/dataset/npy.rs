//! One array in one `.npy` file, read with suspicion and written as numpy writes it.
//!
//! The header of a hostile file may claim anything. Here it is compared with the file's size **before** anything
//! is allocated, so memory is bounded by bytes that exist; wider integers are narrowed on the way through a small
//! buffer, so an `i64` file of a gigabyte costs its `u8` array and nothing more.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array2;
use rayon::prelude::*;

use super::Tokens;
use super::tokens::RowSource;
use crate::{Error, Result};

/// Element types the published builders produce (little endian).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dtype {
    U8,
    I32,
    I64,
}

impl Dtype {
    const ALL: [Self; 3] = [Self::U8, Self::I32, Self::I64];

    fn descr(self) -> &'static str {
        match self {
            Self::U8 => "|u1",
            Self::I32 => "<i4",
            Self::I64 => "<i8",
        }
    }

    fn size(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::I32 => 4,
            Self::I64 => 8,
        }
    }

    /// The value of one element; `bytes` is exactly `self.size()` long.
    fn decode(self, bytes: &[u8]) -> i64 {
        let mut wide = [0u8; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        match self {
            Self::U8 | Self::I64 => i64::from_le_bytes(wide),
            Self::I32 => i64::from(i32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]])),
        }
    }
}

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    dtype: Dtype,
    shape: Vec<usize>,
}

/// Reads a list whose elements all fit `T`.
pub(super) fn read_list<T: TryFrom<i64>>(path: &Path) -> Result<Vec<T>> {
    open(path, 1)?.values(path)
}

/// Bytes from which on an array of tokens stays in its file.
const LARGE: usize = 256 << 20;

/// Reads tokens `[rows, columns]`. From `LARGE` bytes on they stay where they are, a row being read when it is asked for;
/// the page cache keeps those in memory that are used. (Wider integers are narrowed on the way, so they are always kept.)
pub(super) fn read_tokens(path: &Path) -> Result<Tokens> {
    read_tokens_from(path, LARGE)
}

fn read_tokens_from(path: &Path, large: usize) -> Result<Tokens> {
    let mut array = open(path, 2)?;
    let (rows, columns) = (array.header.shape[0], array.header.shape[1]);
    if cfg!(unix) && array.header.dtype == Dtype::U8 && array.count >= large {
        let source = FileRows { path: path.into(), file: array.file, offset: array.offset as u64 };
        return Ok(Tokens::filed(rows, columns, Arc::new(source)));
    }
    let tokens = Array2::from_shape_vec((rows, columns), array.values(path)?);
    tokens.map(Tokens::from).map_err(|e| Error::input(format!("{}: {e}", path.display())))
}

/// Rows that stay in their file.
#[derive(Debug)]
struct FileRows {
    path: PathBuf,
    file: File,
    /// Where the first row starts.
    offset: u64,
}

impl RowSource for FileRows {
    /// # Panics
    /// With [`Error::end_the_work`] when the file, whose size was right when it was opened, cannot be read any more.
    fn write_row(&self, row: usize, out: &mut [u8]) {
        let at = self.offset + row as u64 * out.len() as u64;
        if let Err(e) = read_at(&self.file, out, at) {
            let path = self.path.display();
            let error =
                Error::input(format!("{path}: row {row} cannot be read any more ({e}); rebuild or copy the data set"));
            error.end_the_work();
        }
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

/// An array whose header agrees with its file's size, standing before its first element.
struct Open {
    file: File,
    header: Header,
    /// Elements.
    count: usize,
    /// Where the first element starts.
    offset: usize,
}

fn open(path: &Path, dimensions: usize) -> Result<Open> {
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
    Ok(Open { file, header, count, offset })
}

impl Open {
    fn values<T: TryFrom<i64>>(&mut self, path: &Path) -> Result<Vec<T>> {
        read_values(&mut self.file, self.header.dtype, self.count).map_err(|e| match e {
            ReadFault::Io(e) => Error::io(path, e),
            ReadFault::Range { index, value } => Error::input(format!(
                "{}: element {index} is {value}, outside the range allowed here; rebuild the data set",
                path.display()
            )),
        })
    }
}

enum ReadFault {
    Io(std::io::Error),
    Range { index: usize, value: i64 },
}

fn read_values<T: TryFrom<i64>>(file: &mut File, dtype: Dtype, count: usize) -> Result<Vec<T>, ReadFault> {
    const BUFFER: usize = 1 << 16;
    let mut values = Vec::with_capacity(count);
    let mut buffer = vec![0u8; BUFFER.min(count * dtype.size())];
    while values.len() < count {
        let bytes = BUFFER.min((count - values.len()) * dtype.size());
        file.read_exact(&mut buffer[..bytes]).map_err(ReadFault::Io)?;
        for element in buffer[..bytes].chunks_exact(dtype.size()) {
            let value = dtype.decode(element);
            let index = values.len();
            values.push(T::try_from(value).map_err(|_| ReadFault::Range { index, value })?);
        }
    }
    Ok(values)
}

/// Reads magic, version, length and dictionary; returns the header and the offset of the first element.
fn read_header(file: &mut File, file_len: u64) -> Result<(Header, usize), String> {
    const NOT_NPY: &str = "is not an .npy file (no \\x93NUMPY at its start)";
    let mut start = [0u8; 8];
    file.read_exact(&mut start).map_err(|_| NOT_NPY.to_string())?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(NOT_NPY.into());
    }
    let width = match start[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(format!("is .npy version {version}, only 1, 2 and 3 exist")),
    };
    let mut length = [0u8; 4];
    file.read_exact(&mut length[..width]).map_err(|_| "ends inside its header; copy it again".to_string())?;
    let length = u32::from_le_bytes(length) as usize;
    let offset = start.len() + width + length;
    if offset as u64 > file_len {
        return Err(format!("claims a header of {length} bytes but holds {file_len} bytes in all; copy it again"));
    }
    // A real header is about a hundred bytes; one of megabytes is an attack on the parser.
    if length > 1 << 16 {
        return Err(format!("claims a header of {length} bytes; at most 65536 are accepted"));
    }
    let mut text = vec![0u8; length];
    file.read_exact(&mut text).map_err(|e| format!("header cannot be read: {e}"))?;
    let text = std::str::from_utf8(&text).map_err(|_| "has a header that is not text".to_string())?;
    Ok((parse_header(text)?, offset))
}

/// Parses `{'descr': '<i4', 'fortran_order': False, 'shape': (7,), }`.
fn parse_header(text: &str) -> Result<Header, String> {
    let malformed = || format!("has a malformed header {:?}", text.trim_end().chars().take(80).collect::<String>());
    let mut rest = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(malformed)?.trim();
    let (mut dtype, mut fortran, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = quoted(rest).ok_or_else(malformed)?;
        rest = after.trim_start().strip_prefix(':').ok_or_else(malformed)?.trim_start();
        match key {
            "descr" => {
                let (name, after) = quoted(rest).ok_or_else(malformed)?;
                dtype = Some(Dtype::ALL.into_iter().find(|d| d.descr() == name).ok_or_else(|| {
                    format!("has dtype {name:?}; only |u1, <i4 and <i8 (u8, i32, i64, little endian) are read")
                })?);
                rest = after;
            }
            "fortran_order" => {
                let value = [("True", true), ("False", false)].into_iter().find(|(word, _)| rest.starts_with(word));
                let (word, value) = value.ok_or_else(malformed)?;
                fortran = Some(value);
                rest = &rest[word.len()..];
            }
            "shape" => {
                let (inside, after) = rest.strip_prefix('(').and_then(|t| t.split_once(')')).ok_or_else(malformed)?;
                let items = inside.trim().trim_end_matches(',');
                let numbers = if items.is_empty() {
                    Some(Vec::new())
                } else {
                    items.split(',').map(|n| n.trim().parse().ok()).collect()
                };
                shape = Some(numbers.ok_or_else(malformed)?);
                rest = after;
            }
            _ => return Err(malformed()),
        }
        rest = rest.trim_start();
        rest = rest.strip_prefix(',').map(str::trim_start).or(rest.is_empty().then_some(rest)).ok_or_else(malformed)?;
    }
    match (dtype, fortran, shape) {
        (Some(_), Some(true), Some(_)) => {
            Err("is in Fortran order; save it in C order (numpy.ascontiguousarray)".into())
        }
        (Some(dtype), Some(false), Some(shape)) => Ok(Header { dtype, shape }),
        _ => Err(malformed()),
    }
}

/// Splits a leading `'word'` (or `"word"`) off.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    text[1..].split_once(quote)
}

/// Bytes of tokens made and written at a time.
const CHUNK: usize = 8 << 20;

/// Writes tokens `[rows, columns]` as `u8`. Rows that are made are made by all threads of the current pool, the next
/// chunk while one is being written; `progress` is told how many rows of it went out.
pub(super) fn write_tokens(path: &Path, tokens: &Tokens, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let (rows, columns) = tokens.dim();
    let per_chunk = (CHUNK / columns.max(1)).max(1);
    let fill = |first: usize, buffer: &mut Vec<u8>| {
        buffer.resize(per_chunk.min(rows - first.min(rows)) * columns, 0);
        let places = buffer.par_chunks_exact_mut(columns.max(1)).enumerate();
        places.for_each(|(at, out)| tokens.copy_row(first + at, out));
    };
    write(path, Dtype::U8, &format!("({rows}, {columns})"), |out| {
        if let Some(all) = tokens.in_memory() {
            out.write_all(all)?;
            progress(rows as u64);
            return Ok(());
        }
        let (mut ready, mut next) = (Vec::new(), Vec::new());
        fill(0, &mut ready);
        for first in (0..rows).step_by(per_chunk) {
            let (written, ()) = rayon::join(|| out.write_all(&ready), || fill(first + per_chunk, &mut next));
            written?;
            progress((ready.len() / columns) as u64);
            std::mem::swap(&mut ready, &mut next);
        }
        Ok(())
    })
}

/// Writes a list of indices as `i32`; one that does not fit is an error.
pub(super) fn write_i32(path: &Path, values: &[u32]) -> Result<()> {
    if let Some(value) = values.iter().find(|&&v| i32::try_from(v).is_err()) {
        return Err(Error::input(format!("{}: index {value} does not fit the format's i32", path.display())));
    }
    write(path, Dtype::I32, &format!("({},)", values.len()), |out| {
        values.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))
    })
}

fn write(
    path: &Path,
    dtype: Dtype,
    shape: &str,
    body: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<()> {
    let run = || {
        let mut out = BufWriter::with_capacity(1 << 16, File::create_new(path)?);
        out.write_all(&header_bytes(dtype, shape))?;
        body(&mut out)?;
        out.into_inner().map_err(|e| e.into_error())?.sync_all()
    };
    run().map_err(|e| Error::io(path, e))
}

/// Byte for byte what `numpy.save` writes: room for the first axis to grow to 21 digits, then padding to a
/// multiple of 64, a newline last.
fn header_bytes(dtype: Dtype, shape: &str) -> Vec<u8> {
    let first_axis = shape.trim_start_matches('(').split(',').next().map_or(0, str::len);
    let mut text = format!("{{'descr': '{}', 'fortran_order': False, 'shape': {shape}, }}", dtype.descr());
    text.push_str(&" ".repeat(21usize.saturating_sub(first_axis)));
    let used = 10 + text.len() + 1;
    text.push_str(&" ".repeat(64 - used % 64));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array1;
    use ndarray_npy::{read_npy, write_npy};

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn an_independent_reader_agrees_with_what_is_written() {
        let dir = scratch();
        let (tokens, indices) = (dir.path().join("tokens.npy"), dir.path().join("indices.npy"));
        write_tokens(&tokens, &ndarray::arr2(&[[0, 1, 2], [3, 254, 255]]).into(), &|_| {}).unwrap();
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
        let read_back = read_tokens(&path).unwrap();
        assert_eq!(read_back.dim(), (300, 81));
        let values = read_back.in_memory().unwrap();
        assert!(values.iter().enumerate().all(|(i, &v)| usize::from(v) == (i / 81 + i % 81) % 11));
        write_npy(&path, &ndarray::arr1(&[0i32, 5, 1 << 30])).unwrap();
        assert_eq!(read_list::<u32>(&path).unwrap(), [0, 5, 1 << 30]);
        write_npy(&path, &ndarray::arr1(&[3u8])).unwrap();
        assert_eq!(read_list::<u32>(&path).unwrap(), [3]);
    }

    #[test]
    fn rows_that_stay_in_their_file_are_those_that_are_read_whole() {
        let dir = scratch();
        let path = dir.path().join("a.npy");
        let array = Array2::from_shape_fn((70, 31), |(r, c)| (r * 7 + c) as u8);
        write_tokens(&path, &array.clone().into(), &|_| {}).unwrap();
        let (kept, left) = (read_tokens(&path).unwrap(), read_tokens_from(&path, 70 * 31).unwrap());
        assert!(kept.in_memory().is_some() && left.in_memory().is_none());
        assert_eq!((&kept, &left), (&array.into(), &kept));
        // Wider integers are narrowed, so they do not stay.
        let wide = dir.path().join("wide.npy");
        write_npy(&wide, &Array2::from_elem((3, 2), 5i64)).unwrap();
        assert!(read_tokens_from(&wide, 1).unwrap().in_memory().is_some());
    }

    #[test]
    fn a_file_that_shrinks_while_in_use_ends_the_work_with_one_error() {
        let dir = scratch();
        let path = dir.path().join("a.npy");
        write_tokens(&path, &Array2::from_elem((70, 31), 3u8).into(), &|_| {}).unwrap();
        let left = read_tokens_from(&path, 1).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(128 + 31).unwrap();
        assert_eq!(*left.row(0), [3; 31]);
        // As in a step: on a thread of the pool.
        let look = || left.find(|row| (row[0] == 4).then_some(()));
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(look));
        let error = Error::carried_by(looked.expect_err("most rows are gone"));
        let message = error.to_string();
        assert!(message.contains("a.npy: row ") && message.contains("cannot be read any more"), "{message}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn headers_are_those_of_numpy_byte_for_byte() {
        let numpy = b"\x93NUMPY\x01\x00v\x00{'descr': '<i4', 'fortran_order': False, 'shape': (7,), }";
        let ours = header_bytes(Dtype::I32, "(7,)");
        assert_eq!(ours.len(), 128);
        assert!(ours.starts_with(numpy) && ours.ends_with(b" \n"));
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

    #[test]
    fn header_spellings_numpy_may_use_are_understood_and_others_refused() {
        let good = Header { dtype: Dtype::U8, shape: vec![2, 3] };
        for text in [
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }   \n",
            "{\"shape\": (2,3), 'fortran_order':False,'descr':'|u1'}",
        ] {
            assert_eq!(parse_header(text).as_ref(), Ok(&good), "{text}");
        }
        for text in [
            "",
            "{",
            "{}",
            "{'descr': '|u1'}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, -3), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999999,), }",
            "{'descr': '|u1' 'fortran_order': False, 'shape': (2, 3), }",
            "{'descr': '|u1', 'fortran_order': Falsehood, 'shape': (2, 3), }",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), 'more': 1}",
            "{'descr': '>i4', 'fortran_order': False, 'shape': (2, 3), }",
            "{'descr': é', 'fortran_order': False, 'shape': (2, 3), }",
        ] {
            assert!(parse_header(text).is_err(), "{text}");
        }
    }
}

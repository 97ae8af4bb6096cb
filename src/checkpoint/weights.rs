//! Weights under their published names, as safetensors: equal weights give equal bytes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Seek as _, SeekFrom, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, TensorInfo};

use super::TensorFile;
use crate::error::{Error, Result, nearest};
use crate::files::atomic;

/// Zeros shorter than this are written, longer ones skipped: the file then has a hole, which reads as zeros and, on file
/// systems that know holes, takes no space.
const HOLE_BYTES: u64 = 1 << 16;

/// A named f32 array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// The published name.
    pub name: String,
    /// Extents; empty for a scalar.
    pub shape: Vec<usize>,
    /// Values, the last axis fastest.
    pub data: Vec<f32>,
}

impl NamedTensor {
    /// A tensor; its data must fill its shape.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        let (name, shape) = (name.into(), shape.into());
        assert_eq!(shape.iter().product::<usize>(), data.len(), "tensor {name} does not fill its shape {shape:?}");
        Self { name, shape, data }
    }
}

/// A tensor to be written piece by piece.
pub struct TensorSource<'a> {
    /// The published name.
    pub name: &'a str,
    /// Extents.
    pub shape: Vec<usize>,
    /// Index of a first element and the values from there on, by index; elements between are zero.
    pub pieces: Box<dyn Iterator<Item = (usize, &'a [f32])> + 'a>,
}

impl<'a> TensorSource<'a> {
    /// A tensor whose values are all there.
    pub fn dense(name: &'a str, shape: Vec<usize>, values: &'a [f32]) -> Self {
        Self { name, shape, pieces: Box::new(std::iter::once((0, values))) }
    }

    fn bytes(&self) -> usize {
        4 * self.shape.iter().product::<usize>()
    }
}

impl<'a> From<&'a NamedTensor> for TensorSource<'a> {
    fn from(tensor: &'a NamedTensor) -> Self {
        Self::dense(&tensor.name, tensor.shape.clone(), &tensor.data)
    }
}

/// Writes weights atomically, sorted by name, with fixed metadata.
pub fn save_weights<'a>(path: &Path, tensors: impl IntoIterator<Item = impl Into<TensorSource<'a>>>) -> Result<()> {
    let mut tensors: Vec<TensorSource> = tensors.into_iter().map(Into::into).collect();
    tensors.sort_by(|a, b| a.name.cmp(b.name));
    if let Some(twice) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(Error::input(format!("{}: two tensors are called `{}`", path.display(), twice[0].name)));
    }
    let mut end = 0;
    let described = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.bytes();
        let info = TensorInfo { dtype: Dtype::F32, shape: tensor.shape.clone(), data_offsets: (start, end) };
        (tensor.name.to_owned(), info)
    });
    let described = described.collect();
    let unwritable = |e: &dyn std::fmt::Display| Error::input(format!("{}: cannot be written: {e}", path.display()));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(metadata), described).map_err(|e| unwritable(&e))?;
    let mut header = serde_json::to_string(&metadata).map_err(|e| unwritable(&e))?;
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    atomic::write(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        let (mut at, mut start) = (0, 0);
        for tensor in tensors {
            let end = start + tensor.bytes() as u64;
            for (first, values) in tensor.pieces {
                skip_zeros(file, start + 4 * first as u64 - at)?;
                values.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))?;
                at = start + 4 * (first + values.len()) as u64;
            }
            start = end;
        }
        // The last byte is written in any case: it gives the file its length.
        match start - at {
            0 => Ok(()),
            left => skip_zeros(file, left - 1).and_then(|()| file.write_all(&[0])),
        }
    })
}

fn skip_zeros(file: &mut io::BufWriter<std::fs::File>, bytes: u64) -> io::Result<()> {
    if bytes < HOLE_BYTES {
        return io::copy(&mut io::Read::take(io::repeat(0), bytes), file).map(drop);
    }
    file.seek(SeekFrom::Current(bytes as i64)).map(drop)
}

/// Reads every tensor of a weights file, in the file's order. Values that are not finite are refused.
pub fn load_weights(path: &Path) -> Result<Vec<NamedTensor>> {
    let file = TensorFile::open(path)?;
    file.names().iter().map(|name| load_tensor(&file, name)).collect()
}

/// Reads one tensor; values that are not finite are refused.
pub fn load_tensor(file: &TensorFile, name: &str) -> Result<NamedTensor> {
    let tensor = file.f32(name)?;
    refuse_non_finite(file.path(), name, 0, &tensor.data)?;
    Ok(tensor)
}

/// Goes through the rows of a tensor that are not all zeros, one after the other; values that are not finite are
/// refused.
pub fn load_rows(file: &TensorFile, name: &str, mut visit: impl FnMut(usize, &[f32])) -> Result<()> {
    file.f32_rows(name, |index, row| {
        if row.iter().all(|value| value.to_bits() == 0) {
            return Ok(());
        }
        refuse_non_finite(file.path(), name, index * row.len(), row)?;
        visit(index, row);
        Ok(())
    })
}

pub(super) fn refuse_non_finite(path: &Path, name: &str, first: usize, values: &[f32]) -> Result<()> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::input(format!(
            "{}: tensor `{name}` holds {} at element {}; these weights cannot be used",
            path.display(),
            values[at],
            first + at
        ))),
    }
}

/// Opens a weights file that must hold exactly the tensors `expected` (name, shape), or names the first one that is
/// missing, unexpected, or of another type or shape.
pub fn open_expected(path: &Path, expected: &[(String, Vec<usize>)]) -> Result<TensorFile> {
    let file = TensorFile::open(path)?;
    check_expected(&file, expected)?;
    Ok(file)
}

/// Whether a file holds exactly the tensors `expected`, as [`open_expected`] asks.
pub fn check_expected(file: &TensorFile, expected: &[(String, Vec<usize>)]) -> Result<()> {
    let names = file.names();
    names.iter().try_for_each(|name| file.refuse_other_than_f32(name))?;
    let shapes = names.into_iter().map(|name| file.shape(&name).map(<[usize]>::to_vec).map(|shape| (name, shape)));
    check_shapes(file.path().display(), &shapes.collect::<Result<_>>()?, expected)
}

/// Whether tensors by name, with their shapes, are exactly those `expected`; else names the first that is missing,
/// unexpected or of another shape. `at` is where they are.
pub fn check_shapes(
    at: impl std::fmt::Display,
    found: &BTreeMap<String, Vec<usize>>,
    expected: &[(String, Vec<usize>)],
) -> Result<()> {
    let wanted: HashSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let spare: Vec<&str> = found.keys().map(String::as_str).filter(|name| !wanted.contains(name)).collect();
    let near = |name: &str, among: &mut dyn Iterator<Item = &str>| {
        nearest(name, among).map_or(String::new(), |n| format!("; the nearest name is `{n}`"))
    };
    for (name, shape) in expected {
        let Some(found) = found.get(name) else {
            let hint = near(name, &mut spare.iter().copied());
            return Err(Error::input(format!("{at}: tensor `{name}` {shape:?} is missing{hint}")));
        };
        if found != shape {
            return Err(Error::input(format!(
                "{at}: tensor `{name}` has shape {found:?} where the settings ask for {shape:?}"
            )));
        }
    }
    if let Some(name) = spare.first() {
        let hint = near(name, &mut expected.iter().map(|(n, _)| n.as_str()));
        return Err(Error::input(format!("{at}: tensor `{name}` is not part of the model{hint}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<NamedTensor> {
        vec![
            NamedTensor::new("b.weight", [2, 3], vec![1.0, -2.0, 3.5, 0.0, -0.0, f32::MIN_POSITIVE]),
            NamedTensor::new("a.bias", [2], vec![4.0, 5.0]),
            NamedTensor::new("scalar", [], vec![7.0]),
            NamedTensor::new("none", [0, 4], vec![]),
        ]
    }

    #[test]
    fn equal_weights_give_equal_bytes_in_any_order_and_read_back() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        save_weights(&one, &some()).expect("save");
        save_weights(&two, some().iter().rev()).expect("save");
        assert_eq!(std::fs::read(&one).expect("read"), std::fs::read(&two).expect("read"));
        let expected: Vec<_> = some().into_iter().map(|t| (t.name, t.shape)).collect();
        let file = open_expected(&one, &expected).expect("open");
        let back: Vec<_> = expected.iter().map(|(name, _)| load_tensor(&file, name).expect("load")).collect();
        assert_eq!(back, some());
        assert!(back[0].data[4].is_sign_negative());
        // What the library itself would have written.
        let views: Vec<(String, Vec<usize>, Vec<u8>)> = some()
            .into_iter()
            .map(|t| (t.name, t.shape, t.data.iter().flat_map(|v| v.to_le_bytes()).collect()))
            .collect();
        let views = views.iter().map(|(name, shape, bytes)| {
            (name, safetensors::tensor::TensorView::new(Dtype::F32, shape.clone(), bytes).expect("view"))
        });
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let theirs = safetensors::serialize(views, Some(metadata)).expect("serialize");
        assert_eq!(std::fs::read(&one).expect("read"), theirs);
    }

    #[test]
    fn a_tensor_of_a_few_rows_is_written_as_the_dense_one_it_is() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (rows, width) = (50_000, 3);
        let row = [1.5, -0.0, f32::MIN_POSITIVE];
        for touched in [vec![], vec![0], vec![7, 8, 40_000], vec![rows - 1], vec![0, rows - 1]] {
            let mut data = vec![0.0; rows * width];
            touched.iter().for_each(|&r| data[r * width..][..width].copy_from_slice(&row));
            let dense = NamedTensor::new("table", [rows, width], data);
            let after = NamedTensor::new("z", [2], vec![1.0, 2.0]);
            for more in [vec![], vec![&after]] {
                let (one, two) = (dir.path().join("one"), dir.path().join("two"));
                save_weights(&one, std::iter::once(&dense).chain(more.clone())).expect("save");
                let pieces = Box::new(touched.iter().map(|&r| (r * width, &row[..])));
                let sparse = TensorSource { name: "table", shape: vec![rows, width], pieces };
                let more = more.into_iter().map(TensorSource::from);
                save_weights(&two, std::iter::once(sparse).chain(more)).expect("save");
                assert!(std::fs::read(&one).expect("read") == std::fs::read(&two).expect("read"), "{touched:?}");
                let mut found = Vec::new();
                let file = TensorFile::open(&two).expect("open");
                load_rows(&file, "table", |index, values| {
                    assert!(values.iter().zip(row).all(|(a, b)| a.to_bits() == b.to_bits()));
                    found.push(index);
                })
                .expect("rows");
                assert_eq!(found, touched);
            }
        }
    }

    #[test]
    fn missing_unexpected_and_misshapen_tensors_are_named_with_the_nearest() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("w.safetensors");
        save_weights(&path, &some()).expect("save");
        let expected = |pairs: &[(&str, &[usize])]| -> Vec<(String, Vec<usize>)> {
            pairs.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect()
        };
        let all: &[(&str, &[usize])] = &[("a.bias", &[2]), ("b.weight", &[2, 3]), ("none", &[0, 4]), ("scalar", &[])];
        let cases = [
            (
                expected(&[all[0], ("b.weights", &[2, 3]), all[2], all[3]]),
                "`b.weights` [2, 3] is missing; the nearest name is `b.weight`",
            ),
            (expected(&all[1..]), "`a.bias` is not part of the model"),
            (expected(&[("a.bias", &[3]), all[1], all[2], all[3]]), "shape [2] where the settings ask for [3]"),
        ];
        for (expected, words) in cases {
            let line = open_expected(&path, &expected).err().expect(words).to_string();
            assert!(line.contains(words) && line.starts_with(&path.display().to_string()), "{line}");
        }
        open_expected(&path, &expected(all)).expect("complete");
    }

    #[test]
    fn weights_that_are_not_finite_and_doubled_names_are_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("w");
        save_weights(&path, &[NamedTensor::new("x", [2, 1], vec![0.0, f32::NAN])]).expect("save");
        let file = TensorFile::open(&path).expect("open");
        for error in [load_weights(&path).err(), load_rows(&file, "x", |_, _| ()).err()] {
            let line = error.expect("NaN").to_string();
            assert!(line.contains("`x` holds NaN at element 1"), "{line}");
        }
        let twice = NamedTensor::new("x", [1], vec![0.0]);
        assert!(save_weights(&path, &[twice.clone(), twice]).is_err());
    }
}

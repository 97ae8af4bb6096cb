//! Weights under their published names, as safetensors: equal weights give equal bytes.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use safetensors::tensor::{Dtype, View};

use super::{TensorFile, atomic};
use crate::config::nearest;
use crate::error::{Error, Result};

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

impl View for &NamedTensor {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.data.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        self.data.len() * 4
    }
}

/// Writes weights atomically, sorted by name, with fixed metadata.
pub fn save_weights(path: &Path, tensors: &[NamedTensor]) -> Result<()> {
    let mut names = HashSet::new();
    for t in tensors {
        if !names.insert(&t.name) {
            return Err(Error::input(format!("{}: two tensors are called `{}`", path.display(), t.name)));
        }
    }
    let views = tensors.iter().map(|t| (t.name.as_str(), t));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::input(format!("{}: cannot be written: {e}", path.display())))?;
    atomic::write_bytes(path, &bytes)
}

/// Reads every tensor of a weights file, in the file's order. Values that are not finite are refused.
pub fn load_weights(path: &Path) -> Result<Vec<NamedTensor>> {
    let file = TensorFile::open(path)?;
    let read = |name: &String| {
        let tensor = file.f32(name)?;
        match tensor.data.iter().position(|v| !v.is_finite()) {
            None => Ok(tensor),
            Some(at) => Err(Error::input(format!(
                "{}: tensor `{name}` holds {} at element {at}; these weights cannot be used",
                path.display(),
                tensor.data[at]
            ))),
        }
    };
    file.names().iter().map(read).collect()
}

/// Reads a weights file that must hold exactly the tensors `expected` (name, shape) and returns them in that order.
pub fn load_expected(path: &Path, expected: &[(String, Vec<usize>)]) -> Result<Vec<NamedTensor>> {
    matched(&path.display().to_string(), load_weights(path)?, expected)
}

/// Puts `loaded` into the order of `expected`, or names the first tensor that is missing, unexpected or of another
/// shape; `file` is how the error calls the source.
pub fn matched(file: &str, loaded: Vec<NamedTensor>, expected: &[(String, Vec<usize>)]) -> Result<Vec<NamedTensor>> {
    let mut by_name: HashMap<String, NamedTensor> = loaded.into_iter().map(|t| (t.name.clone(), t)).collect();
    let spare: Vec<String> = {
        let wanted: HashSet<&str> = expected.iter().map(|(n, _)| n.as_str()).collect();
        let mut spare: Vec<String> = by_name.keys().filter(|n| !wanted.contains(n.as_str())).cloned().collect();
        spare.sort();
        spare
    };
    let near = |name: &str, among: &mut dyn Iterator<Item = &str>| {
        nearest(name, among).map_or(String::new(), |n| format!("; the nearest name is `{n}`"))
    };
    let mut ordered = Vec::with_capacity(expected.len());
    for (name, shape) in expected {
        let Some(tensor) = by_name.remove(name) else {
            let hint = near(name, &mut spare.iter().map(String::as_str));
            return Err(Error::input(format!("{file}: tensor `{name}` {shape:?} is missing{hint}")));
        };
        if tensor.shape != *shape {
            return Err(Error::input(format!(
                "{file}: tensor `{name}` has shape {:?} where the settings ask for {shape:?}",
                tensor.shape
            )));
        }
        ordered.push(tensor);
    }
    if let Some(name) = spare.first() {
        let hint = near(name, &mut expected.iter().map(|(n, _)| n.as_str()));
        return Err(Error::input(format!("{file}: tensor `{name}` is not part of the model{hint}")));
    }
    Ok(ordered)
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
        save_weights(&two, &some().into_iter().rev().collect::<Vec<_>>()).expect("save");
        assert_eq!(std::fs::read(&one).expect("read"), std::fs::read(&two).expect("read"));
        let expected: Vec<_> = some().into_iter().map(|t| (t.name, t.shape)).collect();
        let back = load_expected(&one, &expected).expect("load");
        assert_eq!(back, some());
        assert!(back[0].data[4].is_sign_negative());
    }

    #[test]
    fn missing_unexpected_and_misshapen_tensors_are_named_with_the_nearest() {
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
            let line = matched("w.safetensors", some(), &expected).expect_err(words).to_string();
            assert!(line.contains(words) && line.starts_with("w.safetensors: "), "{line}");
        }
        matched("w", some(), &expected(all)).expect("complete");
    }

    #[test]
    fn weights_that_are_not_finite_and_doubled_names_are_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("w");
        save_weights(&path, &[NamedTensor::new("x", [2], vec![0.0, f32::NAN])]).expect("save");
        let line = load_weights(&path).expect_err("NaN").to_string();
        assert!(line.contains("`x` holds NaN at element 1"), "{line}");
        let twice = NamedTensor::new("x", [1], vec![0.0]);
        assert!(save_weights(&path, &[twice.clone(), twice]).is_err());
    }
}

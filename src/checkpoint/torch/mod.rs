//! PyTorch checkpoints: what `torch.save` writes since 1.6, read without running anything of it, and written so that
//! `torch.load(…, weights_only=True)` takes it (specification, "PyTorch checkpoints").
//!
//! A file is a zip archive of a pickle, which names tensors and describes them as views of storages, and of the storages.

mod archive;
mod pickle;
#[cfg(test)]
mod tests;
mod write;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::tensor_file::{f16_to_f32, wrappers_before};
use super::weights::{NamedTensor, refuse_non_finite};
use crate::error::{Error, Result};
use archive::{Archive, broken};
pub use pickle::Element;
use pickle::{Node, NodeId, Pickle, TensorView};
pub use write::save_torch;

/// Where a dict of weights is looked for among other things, the first first.
const USUAL_KEYS: [&str; 5] = ["state_dict", "model_state_dict", "model", "module", "weights"];
/// How deep it may lie.
const MAX_DEPTH: usize = 8;
/// What all tensors together may take beyond the file's own size: half precision is widened, and storages may be shared.
const MAX_GROWTH: u64 = 8;

/// Whether a file begins like one of PyTorch's, of any age.
pub fn is_checkpoint(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && (is_archive(start) || is_pickle(start))
}

fn is_archive(start: [u8; 4]) -> bool {
    start == *b"PK\x03\x04"
}

/// A pickle's first instruction is its protocol.
fn is_pickle(start: [u8; 4]) -> bool {
    start[0] == 0x80 && (2..=5).contains(&start[1])
}

/// An open PyTorch checkpoint: names and shapes of its weights.
pub struct TorchFile {
    path: PathBuf,
    archive: Archive,
    /// By name, without what wrappers put before all of them.
    tensors: BTreeMap<String, TensorView>,
    left_out: Vec<String>,
}

impl TorchFile {
    /// Opens a checkpoint and finds the dict of weights in it.
    ///
    /// # Errors
    /// When it is none, is damaged, or asks for more than tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let mut start = [0; 4];
        let at = path.display();
        File::open(path).and_then(|mut file| file.read_exact(&mut start)).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => broken(path, "shorter than 4 bytes"),
            _ => Error::io(path, e),
        })?;
        if is_pickle(start) {
            return Err(Error::input(format!(
                "{at}: the format that PyTorch wrote before 1.6; save it again: \
                 torch.save(torch.load({:?}, map_location=\"cpu\"), \"new.pt\")",
                path.file_name().unwrap_or_default()
            )));
        }
        if !is_archive(start) {
            return Err(Error::input(format!("{at}: not a PyTorch checkpoint (no zip archive)")));
        }
        let archive = Archive::open(path)?;
        let bytes = archive.read("data.pkl", pickle::MAX_BYTES)?;
        let pickle = Pickle::read(&bytes).map_err(|what| Error::input(format!("{at}: {what}")))?;
        let found = weights_in(&pickle).map_err(|what| Error::input(format!("{at}: {what}")))?;
        let length = wrappers_before(found.keys().map(String::as_str));
        let (floats, others): (BTreeMap<_, _>, BTreeMap<_, _>) = found
            .into_iter()
            .map(|(name, view)| (name[length..].to_owned(), view))
            .partition(|(_, view)| !matches!(view.storage.element, Element::Integer(_)));
        let bytes_of = |view: &TensorView| (view.shape.iter().product::<usize>() as u64).saturating_mul(4);
        let file_bytes = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
        if floats.values().map(bytes_of).fold(0, u64::saturating_add) / MAX_GROWTH > file_bytes {
            return Err(broken(path, "its tensors are far larger than the file"));
        }
        Ok(Self { path: path.to_path_buf(), archive, tensors: floats, left_out: others.into_keys().collect() })
    }

    /// Name, shape and type of every tensor, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize], Element)> {
        self.tensors.iter().map(|(name, view)| (name.as_str(), &view.shape[..], view.storage.element))
    }

    /// Tensors of whole numbers beside the weights.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Reads a tensor in f32, row-major whatever it was.
    ///
    /// # Errors
    /// When its bytes are missing or damaged, or a value is not finite in f32.
    pub fn read(&self, name: &str) -> Result<NamedTensor> {
        let view = self.tensors.get(name).ok_or_else(|| broken(&self.path, &format!("no tensor `{name}`")))?;
        let storage = &view.storage;
        let bytes = self.archive.read(&format!("data/{}", storage.key), u64::MAX)?;
        if (bytes.len() / storage.element.bytes()) as u64 != storage.len {
            let what = format!("storage `{}` has {} bytes for {} elements", storage.key, bytes.len(), storage.len);
            return Err(broken(&self.path, &what));
        }
        let values = values(view, &bytes);
        refuse_non_finite(&self.path, name, 0, &values)?;
        Ok(NamedTensor::new(name, view.shape.clone(), values))
    }
}

/// The dict of weights of a pickle, or of something in it.
fn weights_in(pickle: &Pickle) -> Result<BTreeMap<String, TensorView>, String> {
    let found = find(pickle, pickle.root(), 0, &mut HashSet::new())?;
    found.map(|dict| tensors_of(pickle, dict)).ok_or_else(|| "no dict of tensors in it; save model.state_dict()".into())
}

/// The dict of tensors that a node is or holds.
fn find(pickle: &Pickle, id: NodeId, depth: usize, seen: &mut HashSet<NodeId>) -> Result<Option<NodeId>, String> {
    let Node::Dict(entries) = pickle.node(id) else { return Ok(None) };
    if depth > MAX_DEPTH || !seen.insert(id) {
        return Ok(None);
    }
    if entries.iter().any(|&(_, value)| matches!(pickle.node(value), Node::Tensor(_))) {
        return Ok(Some(id));
    }
    let named = entries.iter().filter_map(|&(key, value)| match pickle.node(key) {
        Node::Text(key) => Some((key.as_str(), value)),
        _ => None,
    });
    let named: Vec<(&str, NodeId)> = named.collect();
    for usual in USUAL_KEYS {
        let value = named.iter().rfind(|(key, _)| *key == usual).map(|&(_, value)| value);
        if let Some(dict) = value.map(|value| find(pickle, value, depth + 1, seen)).transpose()?.flatten() {
            return Ok(Some(dict));
        }
    }
    let mut candidates = Vec::new();
    for (key, value) in named {
        candidates.extend(find(pickle, value, depth + 1, seen)?.map(|dict| (key, dict)));
    }
    match candidates[..] {
        [] => Ok(None),
        [(_, dict)] => Ok(Some(dict)),
        _ => {
            let keys: Vec<String> =
                candidates.iter().take(8).map(|(key, _)| format!("`{}`", key.escape_debug())).collect();
            Err(format!("several parts of it hold tensors ({}); save the model's state dict alone", keys.join(", ")))
        }
    }
}

fn tensors_of(pickle: &Pickle, dict: NodeId) -> BTreeMap<String, TensorView> {
    let Node::Dict(entries) = pickle.node(dict) else { return BTreeMap::new() };
    let tensor = |&(key, value): &(NodeId, NodeId)| match (pickle.node(key), pickle.node(value)) {
        (Node::Text(name), Node::Tensor(view)) => Some((name.clone(), TensorView::clone(view))),
        _ => None,
    };
    entries.iter().filter_map(tensor).collect()
}

/// The elements of a view, row-major, in f32.
fn values(view: &TensorView, bytes: &[u8]) -> Vec<f32> {
    let len = view.shape.iter().product();
    let mut values = Vec::with_capacity(len);
    let mut index = vec![0; view.shape.len()];
    let mut at = view.offset;
    for _ in 0..len {
        values.push(element(view.storage.element, bytes, at));
        for axis in (0..index.len()).rev() {
            index[axis] += 1;
            at += view.strides[axis];
            if index[axis] < view.shape[axis] {
                break;
            }
            at -= index[axis] * view.strides[axis];
            index[axis] = 0;
        }
    }
    values
}

fn element(element: Element, bytes: &[u8], at: usize) -> f32 {
    fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
        bytes[at * N..][..N].try_into().expect("so many bytes")
    }
    match element {
        Element::F32 => f32::from_le_bytes(word(bytes, at)),
        Element::F64 => f64::from_le_bytes(word(bytes, at)) as f32,
        Element::F16 => f16_to_f32(u16::from_le_bytes(word(bytes, at))),
        Element::Bf16 => f32::from_bits(u32::from(u16::from_le_bytes(word(bytes, at))) << 16),
        Element::Integer(_) => unreachable!("whole numbers are left out"),
    }
}

//! Reading safetensors files: the header is believed only as far as the file's bytes bear it out, and a tensor is read
//! when it is read.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::Value;

use super::torch;
use super::weights::NamedTensor;
use crate::error::{Error, Result, nearest};

/// The library's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Bytes that are read at a time when a tensor is gone through row by row.
const PIECE_BYTES: usize = 1 << 20;

/// An open safetensors file, its header checked against its length.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// What stands before all names of the file and is no part of them.
    prefix: String,
    /// Where the tensors' bytes start.
    data_start: u64,
}

/// What PyTorch's wrappers put before the names of all tensors: `torch.compile`, data parallel training, and the published
/// code's loss head.
const WRAPPERS: [&str; 3] = ["_orig_mod.", "module.", "model."];

/// How much of the beginning of these names is that of wrappers, in whatever order they were put on.
pub(super) fn wrappers_before<'a>(names: impl Iterator<Item = &'a str> + Clone) -> usize {
    let mut length = 0;
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| {
        names.clone().next().is_some() && names.clone().all(|name| name[length..].starts_with(**wrapper))
    }) {
        length += wrapper.len();
    }
    length
}

impl TensorFile {
    /// Opens a file and checks its header.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, e))?;
        if !meta.is_file() {
            return Err(Error::input(format!("{}: not a file; give the path of a file", path.display())));
        }
        let header = read_header(&file, meta.len()).map_err(|what| {
            if torch::is_checkpoint(path) {
                let at = path.display();
                return Error::input(format!(
                    "{at}: a PyTorch checkpoint; convert it: trm weights import {at} --out weights.safetensors"
                ));
            }
            let what: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
            Error::input(format!("{}: not a whole safetensors file: {what}", path.display()))
        })?;
        let (data_start, metadata) = header;
        let names = metadata.offset_keys();
        let length = wrappers_before(names.iter().map(String::as_str));
        let prefix = names.first().map_or(String::new(), |name| name[..length].to_owned());
        Ok(Self { path: path.to_path_buf(), file, metadata, prefix, data_start })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names, in the order of their bytes, without what wrappers put before all of them.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.metadata.offset_keys();
        names.iter_mut().for_each(|name| drop(name.drain(..self.prefix.len())));
        names
    }

    /// Whether there is a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(&self.info(name)?.shape)
    }

    /// Type of a tensor, as the format calls it.
    pub fn type_name(&self, name: &str) -> Result<String> {
        Ok(format!("{:?}", self.info(name)?.dtype))
    }

    /// Refuses a tensor that [`TensorFile::f32`] would refuse for its type.
    pub fn refuse_other_than_f32(&self, name: &str) -> Result<()> {
        let info = self.info(name)?;
        self.widened(name, info, &[]).map(drop)
    }

    /// Shape and values of an F32 tensor; BF16 and F16 are widened (exactly). F64 is refused: narrowing would lose bits.
    pub fn f32(&self, name: &str) -> Result<NamedTensor> {
        let info = self.info(name)?;
        let data = self.widened(name, info, &self.bytes(info)?)?;
        Ok(NamedTensor { name: name.to_owned(), shape: info.shape.clone(), data })
    }

    /// The rows (along the first axis) of a tensor as [`TensorFile::f32`] would give them, one after the other: only a
    /// piece of it is ever in memory.
    pub fn f32_rows(&self, name: &str, mut visit: impl FnMut(usize, &[f32]) -> Result<()>) -> Result<()> {
        let info = self.info(name)?;
        let rows = info.shape.first().copied().unwrap_or(1);
        let bytes = info.data_offsets.1 - info.data_offsets.0;
        let Some(row_bytes) = bytes.checked_div(rows).filter(|&bytes| bytes > 0) else { return Ok(()) };
        let piece = (PIECE_BYTES / row_bytes).max(1);
        for first in (0..rows).step_by(piece) {
            let piece = first..rows.min(first + piece);
            let start = info.data_offsets.0 + piece.start * row_bytes;
            let values = self.widened(name, info, &self.range(start, piece.len() * row_bytes)?)?;
            let rows = values.chunks_exact(values.len() / piece.len());
            piece.zip(rows).try_for_each(|(index, row)| visit(index, row))?;
        }
        Ok(())
    }

    /// Shape and values of an I32 tensor.
    pub fn i32(&self, name: &str) -> Result<(Vec<usize>, Vec<i32>)> {
        let info = self.info(name)?;
        if info.dtype != Dtype::I32 {
            return Err(self.wrong_type(name, info, "I32"));
        }
        let bytes = self.bytes(info)?;
        Ok((info.shape.clone(), bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect()))
    }

    /// Shape and values of a U8 (or BOOL) tensor.
    pub fn u8(&self, name: &str) -> Result<(Vec<usize>, Vec<u8>)> {
        let info = self.info(name)?;
        if !matches!(info.dtype, Dtype::U8 | Dtype::BOOL) {
            return Err(self.wrong_type(name, info, "U8"));
        }
        Ok((info.shape.clone(), self.bytes(info)?))
    }

    fn find(&self, name: &str) -> Option<&TensorInfo> {
        self.metadata.info(&format!("{}{name}", self.prefix))
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.find(name).ok_or_else(|| {
            let names = self.names();
            let hint = match (names.len(), nearest(name, names.iter().map(String::as_str))) {
                (0, _) => "; the file holds no tensors".to_owned(),
                (_, Some(nearest)) => format!("; the nearest is `{nearest}`"),
                (_, None) => String::new(),
            };
            Error::input(format!("{}: no tensor `{name}`{hint}", self.path.display()))
        })
    }

    fn bytes(&self, info: &TensorInfo) -> Result<Vec<u8>> {
        self.range(info.data_offsets.0, info.data_offsets.1 - info.data_offsets.0)
    }

    fn range(&self, start: usize, len: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|e| Error::input(format!("{}: {len} bytes do not fit in memory ({e})", self.path.display())))?;
        bytes.resize(len, 0);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.data_start + start as u64))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|e| Error::io(&self.path, e))?;
        Ok(bytes)
    }

    fn widened(&self, name: &str, info: &TensorInfo, bytes: &[u8]) -> Result<Vec<f32>> {
        match info.dtype {
            Dtype::F32 => Ok(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()),
            Dtype::BF16 => {
                let widen = |&b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16);
                Ok(bytes.as_chunks().0.iter().map(widen).collect())
            }
            Dtype::F16 => Ok(bytes.as_chunks().0.iter().map(|&b| f16_to_f32(u16::from_le_bytes(b))).collect()),
            _ => Err(self.wrong_type(name, info, "F32, BF16 or F16")),
        }
    }

    fn wrong_type(&self, name: &str, info: &TensorInfo, wanted: &str) -> Error {
        Error::input(format!(
            "{}: tensor `{name}` has type {:?}; convert it to {wanted}",
            self.path.display(),
            info.dtype
        ))
    }
}

/// The header of a file of so many bytes, and where the data starts; or what is wrong with it.
fn read_header(mut file: &File, file_bytes: u64) -> Result<(u64, Metadata), String> {
    let unreadable = |e: io::Error| format!("its header cannot be read: {e}");
    if file_bytes < 8 {
        return Err("shorter than 8 bytes".to_owned());
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(unreadable)?;
    let length = u64::from_le_bytes(length);
    if length > file_bytes - 8 {
        return Err("its header is longer than the file (cut off?)".to_owned());
    }
    if length > MAX_HEADER_BYTES {
        return Err(format!("its header has {length} bytes, more than the {MAX_HEADER_BYTES} allowed"));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(unreadable)?;
    let header = str::from_utf8(&header).map_err(|e| format!("its header is not UTF-8: {e}"))?;
    let metadata: Metadata = serde_json::from_str(header).map_err(|e| {
        let culprit = misdescribed(header).map_or(String::new(), |name| format!(" (`{name}`)"));
        format!("its header is not JSON that describes tensors: {e}{culprit}")
    })?;
    if (metadata.data_len() as u64).checked_add(8 + length) != Some(file_bytes) {
        return Err("its header describes more or fewer bytes than the file has (cut off?)".to_owned());
    }
    Ok((8 + length, metadata))
}

/// The first tensor in the header whose shape and offsets disagree.
fn misdescribed(header: &str) -> Option<String> {
    let header: serde_json::Map<String, Value> = serde_json::from_str(header).ok()?;
    let fits = |value: &Value| -> Option<bool> {
        let info: TensorInfo = serde_json::from_value(value.clone()).ok()?;
        let elements = info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let bits = elements.checked_mul(info.dtype.bitsize())?;
        Some(info.data_offsets.1.checked_sub(info.data_offsets.0)? == bits / 8)
    };
    header.into_iter().find(|(name, v)| name != "__metadata__" && fits(v) != Some(true)).map(|(name, _)| name)
}

/// IEEE half precision, widened exactly.
pub(super) fn f16_to_f32(half: u16) -> f32 {
    let sign = if half >> 15 == 1 { -1.0f32 } else { 1.0 };
    let (exponent, fraction) = (i32::from(half >> 10 & 0x1f), f32::from(half & 0x3ff));
    match exponent {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2f32.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    fn open(bytes: &[u8]) -> Result<TensorFile> {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("w.safetensors");
        std::fs::write(&path, bytes).expect("write");
        TensorFile::open(&path)
    }

    #[test]
    fn hostile_headers_are_refused_in_one_line_naming_file_and_tensor() {
        let t = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"bad":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let good = file(&t("F32", "[2]", "[0,8]"), &[0; 8]);
        let two = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"bad":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
        let cases: Vec<(&str, Vec<u8>, &str)> = vec![
            ("empty", vec![], "8 bytes"),
            ("short", vec![1, 2, 3], "8 bytes"),
            ("cut in the header", good[..20].to_vec(), "header"),
            ("cut in the data", good[..good.len() - 1].to_vec(), "bytes than the file"),
            ("trailing bytes", [good.clone(), vec![0]].concat(), "bytes than the file"),
            ("huge header length", [&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "header"),
            ("long header length", [&99_999_999u64.to_le_bytes()[..], b"{}"].concat(), "header"),
            ("not UTF-8", [&2u64.to_le_bytes()[..], b"\xff\xfe"].concat(), "UTF-8"),
            ("not JSON", file("{nonsense", &[]), "JSON"),
            ("newlines in JSON", file("{\n\n1}", &[]), "JSON"),
            ("deep JSON", file(&"[".repeat(100_000), &[]), "JSON"),
            ("size lies", file(&t("F32", "[3]", "[0,8]"), &[0; 8]), "`bad`"),
            ("size overflows", file(&t("F32", "[4294967296,4294967296,16]", "[0,8]"), &[0; 8]), "`bad`"),
            ("size is huge", file(&t("F32", "[1099511627776]", "[0,4398046511104]"), &[0; 8]), "bytes than the file"),
            ("negative size", file(&t("F32", "[-2]", "[0,8]"), &[0; 8]), "JSON"),
            ("backwards", file(&t("F32", "[2]", "[8,0]"), &[0; 8]), "`bad`"),
            ("gap", file(&t("F32", "[1]", "[4,8]"), &[0; 8]), "`bad`"),
            ("unknown dtype", file(&t("F99", "[2]", "[0,8]"), &[0; 8]), "JSON"),
            ("overlap", file(two, &[0; 6]), "`bad`"),
        ];
        for (name, bytes, words) in cases {
            let line = open(&bytes).err().unwrap_or_else(|| panic!("{name}: accepted")).to_string();
            assert!(line.contains("w.safetensors") && line.contains(words), "{name}: {line}");
            assert!(!line.contains('\n') && line.len() < 500, "{name}: {line}");
        }
        assert!(open(&good).is_ok());
        assert!(TensorFile::open("/dev/zero".as_ref()).is_err());
        assert!(TensorFile::open("/".as_ref()).is_err());
    }

    #[test]
    fn types_are_read_widened_or_refused() {
        let header = r#"{"b":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},
            "h":{"dtype":"F16","shape":[6],"data_offsets":[2,14]},"d":{"dtype":"F64","shape":[],"data_offsets":[14,22]},
            "i":{"dtype":"I32","shape":[1,1],"data_offsets":[22,26]},"u":{"dtype":"U8","shape":[2],"data_offsets":[26,28]}}"#;
        let halves: Vec<u8> =
            [0x3c00u16, 0xc000, 0x0001, 0x7bff, 0xfc00, 0x8000].iter().flat_map(|h| h.to_le_bytes()).collect();
        let data = [&0x3fc0u16.to_le_bytes()[..], &halves, &[0; 8], &(-7i32).to_le_bytes(), &[3, 4]].concat();
        let file = open(&file(header, &data)).expect("valid");
        assert_eq!(file.names(), ["b", "h", "d", "i", "u"]);
        assert_eq!(file.f32("b").expect("bf16").data, [1.5]);
        assert_eq!(file.f32("h").expect("f16").data, [1.0, -2.0, 2f32.powi(-24), 65504.0, f32::NEG_INFINITY, -0.0]);
        assert_eq!(file.i32("i").expect("i32"), (vec![1, 1], vec![-7]));
        assert_eq!(file.u8("u").expect("u8"), (vec![2], vec![3, 4]));
        let refused = [
            (file.f32("d").map(|_| ()), "F64"),
            (file.f32("i").map(|_| ()), "I32"),
            (file.i32("u").map(|_| ()), "U8"),
            (file.u8("b").map(|_| ()), "BF16"),
            (file.f32("hh").map(|_| ()), "nearest is `h`"),
        ];
        for (result, words) in refused {
            let line = result.expect_err(words).to_string();
            assert!(line.contains(words) && line.contains("w.safetensors"), "{line}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200), header in "[\\[\\]{}\":,a-zF0-9_]{0,120}") {
            let _ = open(&body);
            let _ = open(&file(&header, &body));
        }
    }
}

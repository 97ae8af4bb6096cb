//! Reading safetensors files: the header is believed only as far as the file's bytes bear it out.

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, SafeTensorError, SafeTensors, TensorInfo};
use serde_json::Value;

use super::run_folder::read_bounded;
use super::weights::NamedTensor;
use crate::config::nearest;
use crate::error::{Error, Result};

/// No file this program reads is near it; the file's real size bounds memory below it.
const MAX_BYTES: u64 = 1 << 38;

/// A safetensors file in memory, its header checked against its length.
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: Metadata,
    /// Where the tensors' bytes start.
    data_start: usize,
}

impl TensorFile {
    /// Reads and checks a file.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = read_bounded(path, MAX_BYTES)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| {
            Error::input(format!("{}: not a whole safetensors file: {}", path.display(), diagnosis(&bytes, &e)))
        })?;
        Ok(Self { path: path.to_path_buf(), bytes, metadata, data_start: 8 + header })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names, in the order of their bytes.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Whether there is a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// Shape and values of an F32 tensor; BF16 and F16 are widened (exactly). F64 is refused: narrowing would lose bits.
    pub fn f32(&self, name: &str) -> Result<NamedTensor> {
        let (info, bytes) = self.raw(name)?;
        let data = match info.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::BF16 => {
                let widen = |&b: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16);
                bytes.as_chunks().0.iter().map(widen).collect()
            }
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16_to_f32(u16::from_le_bytes(b))).collect(),
            _ => return Err(self.wrong_type(name, info, "F32, BF16 or F16")),
        };
        Ok(NamedTensor { name: name.to_owned(), shape: info.shape.clone(), data })
    }

    /// Shape and values of an I32 tensor.
    pub fn i32(&self, name: &str) -> Result<(Vec<usize>, Vec<i32>)> {
        let (info, bytes) = self.raw(name)?;
        if info.dtype != Dtype::I32 {
            return Err(self.wrong_type(name, info, "I32"));
        }
        Ok((info.shape.clone(), bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect()))
    }

    /// Shape and values of a U8 (or BOOL) tensor.
    pub fn u8(&self, name: &str) -> Result<(Vec<usize>, Vec<u8>)> {
        let (info, bytes) = self.raw(name)?;
        if !matches!(info.dtype, Dtype::U8 | Dtype::BOOL) {
            return Err(self.wrong_type(name, info, "U8"));
        }
        Ok((info.shape.clone(), bytes.to_vec()))
    }

    fn raw(&self, name: &str) -> Result<(&TensorInfo, &[u8])> {
        let Some(info) = self.metadata.info(name) else {
            let names = self.names();
            let hint = nearest(name, names.iter().map(String::as_str));
            let hint = hint.map_or("the file holds no tensors".to_owned(), |h| format!("the nearest is `{h}`"));
            return Err(Error::input(format!("{}: no tensor `{name}`; {hint}", self.path.display())));
        };
        let (start, end) = info.data_offsets;
        Ok((info, &self.bytes[self.data_start + start..self.data_start + end]))
    }

    fn wrong_type(&self, name: &str, info: &TensorInfo, wanted: &str) -> Error {
        Error::input(format!(
            "{}: tensor `{name}` has type {:?}; convert it to {wanted}",
            self.path.display(),
            info.dtype
        ))
    }
}

/// The library's error, with the name of the tensor to blame where it leaves it out.
fn diagnosis(bytes: &[u8], error: &SafeTensorError) -> String {
    let text = match error {
        SafeTensorError::MetadataIncompleteBuffer => {
            "its header describes more or fewer bytes than the file has (cut off?)".to_owned()
        }
        SafeTensorError::InvalidHeaderLength => "its header is longer than the file (cut off?)".to_owned(),
        SafeTensorError::HeaderTooSmall => "shorter than 8 bytes".to_owned(),
        other => other.to_string(),
    };
    let culprit = match error {
        SafeTensorError::TensorInvalidInfo | SafeTensorError::ValidationOverflow => misdescribed(bytes),
        _ => None,
    };
    let line = culprit.map_or(text.clone(), |name| format!("{text} (`{name}`)"));
    line.chars().flat_map(|c| if c.is_control() { ' '.into() } else { Some(c) }).take(300).collect()
}

/// The first tensor in the header whose shape and offsets disagree.
fn misdescribed(bytes: &[u8]) -> Option<String> {
    let length = usize::try_from(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?)).ok()?;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(bytes.get(8..length.checked_add(8)?)?).ok()?;
    let fits = |value: &Value| -> Option<bool> {
        let info: TensorInfo = serde_json::from_value(value.clone()).ok()?;
        let elements = info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let bits = elements.checked_mul(info.dtype.bitsize())?;
        Some(info.data_offsets.1.checked_sub(info.data_offsets.0)? == bits / 8)
    };
    header.into_iter().find(|(name, v)| name != "__metadata__" && fits(v) != Some(true)).map(|(name, _)| name)
}

/// IEEE half precision, widened exactly.
fn f16_to_f32(half: u16) -> f32 {
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

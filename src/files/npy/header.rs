//! The header of an `.npy` file: parsed with suspicion, written as numpy writes it.

use std::fs::File;
use std::io::Read;

/// Element types: all whole numbers (little endian). The published builders produce u8, i32 and i64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dtype {
    Bool,
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
}

impl Dtype {
    const ALL: [Self; 9] =
        [Self::Bool, Self::U8, Self::I8, Self::U16, Self::I16, Self::U32, Self::I32, Self::U64, Self::I64];

    pub fn descr(self) -> &'static str {
        match self {
            Self::Bool => "|b1",
            Self::U8 => "|u1",
            Self::I8 => "|i1",
            Self::U16 => "<u2",
            Self::I16 => "<i2",
            Self::U32 => "<u4",
            Self::I32 => "<i4",
            Self::U64 => "<u8",
            Self::I64 => "<i8",
        }
    }

    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::U64 | Self::I64 => 8,
        }
    }

    /// The value of one element; `bytes` is exactly `self.size()` long. A u64 that is too large is the largest i64.
    pub fn decode(self, bytes: &[u8]) -> i64 {
        let mut wide = [0u8; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let unsigned = u64::from_le_bytes(wide);
        match self {
            Self::Bool | Self::U8 | Self::U16 | Self::U32 | Self::U64 => i64::try_from(unsigned).unwrap_or(i64::MAX),
            Self::I8 => i64::from(unsigned as i8),
            Self::I16 => i64::from(unsigned as i16),
            Self::I32 => i64::from(unsigned as i32),
            Self::I64 => unsigned as i64,
        }
    }
}

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

/// Reads magic, version, length and dictionary; returns the header and the offset of the first element.
pub(super) fn read_header(file: &mut File, file_len: u64) -> Result<(Header, usize), String> {
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
                    format!("has dtype {name:?}; only whole numbers in little endian (u8, i32, i64 …) are read")
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

/// Byte for byte what `numpy.save` writes: room for the first axis to grow to 21 digits, then padding to a
/// multiple of 64, a newline last.
pub(super) fn header_bytes(dtype: Dtype, shape: &str) -> Vec<u8> {
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

    #[test]
    fn headers_are_those_of_numpy_byte_for_byte() {
        let numpy = b"\x93NUMPY\x01\x00v\x00{'descr': '<i4', 'fortran_order': False, 'shape': (7,), }";
        let ours = header_bytes(Dtype::I32, "(7,)");
        assert_eq!(ours.len(), 128);
        assert!(ours.starts_with(numpy) && ours.ends_with(b" \n"));
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

//! JSON files of a data set, in words that do not ask for Rust, and with Python's spacing.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::files::atomic;
use crate::{Error, Result};

/// What some editors write in front of UTF-8.
pub(super) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads what a file holds.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let fault = |what: String| Error::input(format!("{}: {what}", path.display()));
    if !path.is_file() {
        return Err(fault("is missing or not a file; copy the whole data set, or rebuild it".into()));
    }
    let bytes = fs::read(path).map_err(|e| Error::io(path, e))?;
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    let text = std::str::from_utf8(bytes)
        .map_err(|e| fault(format!("is not UTF-8 (byte {}); save it as UTF-8 JSON", e.valid_up_to())))?;
    serde_json::from_str(text).map_err(|e| fault(format!("is not the JSON expected here: {}", plain(&e))))
}

/// What is wrong, in plain words: types are called by what they are in JSON.
pub(super) fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let (what, place) = match text.rfind(" at line ") {
        Some(at) => text.split_at(at),
        None => (text.as_str(), ""),
    };
    let said = ["invalid type: ", "invalid value: "].iter().find_map(|start| what.strip_prefix(start));
    let what = match said.and_then(|said| said.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("{} stands where {} is expected", in_json(found), in_json(expected)),
        None => what.to_owned(),
    };
    format!("{what}{place}")
}

/// What Rust calls a type, as JSON calls it.
fn in_json(words: &str) -> &str {
    match words {
        "usize" | "u64" | "u32" | "u16" | "u8" | "i64" | "i32" => "a whole number",
        "f64" | "f32" => "a number",
        "a sequence" | "sequence" => "a list",
        "a map" | "map" => "an object",
        _ if words.starts_with("struct ") => "an object",
        _ => words,
    }
}

/// Writes JSON with Python's spacing, so that files compare equal with the published ones.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes = Vec::new();
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, PythonSpacing));
    written.map_err(|e| Error::io(path, e.into()))?;
    atomic::write_new(path, &bytes)
}

/// `", "` between items and `": "` after keys, as Python's `json.dump` has them.
struct PythonSpacing;

impl serde_json::ser::Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

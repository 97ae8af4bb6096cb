//! Where records come from: JSON lines, one JSON array, or CSV with a header. One of them is in memory at a time.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::super::json::{BYTE_ORDER_MARK, plain};
use crate::{Error, Result};

/// How a file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileKind {
    /// An object a line, or one array of objects.
    #[default]
    Json,
    /// A header, then a puzzle a line.
    Csv,
}

/// What is called with the place of every record, and with it or what is wrong with it.
pub(super) type Each<'a> = dyn FnMut(usize, Result<Value, String>) -> Result<()> + 'a;

/// A file that is open.
pub(super) struct Source<'a> {
    path: &'a Path,
    file: BufReader<File>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Lines,
    Array,
    Csv,
}

impl<'a> Source<'a> {
    /// Opens a file.
    pub fn open(path: &'a Path, format: FileKind) -> Result<Self> {
        let open = || {
            let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
            if file.fill_buf()?.starts_with(BYTE_ORDER_MARK) {
                file.consume(BYTE_ORDER_MARK.len());
            }
            let kind = match format {
                FileKind::Csv => Kind::Csv,
                FileKind::Json if opens_array(file.fill_buf()?) => Kind::Array,
                FileKind::Json => Kind::Lines,
            };
            Ok((file, kind))
        };
        let (file, kind) = open().map_err(|e| Error::io(path, e))?;
        Ok(Self { path, file, kind })
    }

    /// What a record is called.
    pub fn unit(&self) -> &'static str {
        if self.kind == Kind::Array { "item" } else { "line" }
    }

    /// Calls `each` for all records; `form` says what one is.
    pub fn read(self, form: &str, each: &mut Each<'_>) -> Result<()> {
        match self.kind {
            Kind::Lines => read_lines(self.path, self.file, form, each),
            Kind::Array => read_array(self.path, self.file, each),
            Kind::Csv => read_csv(self.path, self.file, each),
        }
    }
}

/// Whether a file begins with an array of objects. `[1]` on the first of several lines is a bad line, not a file.
fn opens_array(start: &[u8]) -> bool {
    let mut text = start.iter().filter(|byte| !byte.is_ascii_whitespace());
    text.next() == Some(&b'[') && text.next().is_none_or(|&byte| matches!(byte, b'{' | b']'))
}

fn read_lines(path: &Path, mut file: impl BufRead, form: &str, each: &mut Each<'_>) -> Result<()> {
    let mut line = Vec::new();
    let mut number = 0;
    while file.read_until(b'\n', &mut line).map_err(|e| Error::io(path, e))? > 0 {
        number += 1;
        if !line.trim_ascii().is_empty() {
            let value = serde_json::from_slice(&line).map_err(|e| {
                let what = plain(&e);
                format!("is not {form}: {}", what.split(" at line").next().unwrap_or_default())
            });
            each(number, value)?;
        }
        line.clear();
    }
    Ok(())
}

fn read_array(path: &Path, file: impl BufRead, each: &mut Each<'_>) -> Result<()> {
    let mut fault = None;
    let mut reader = serde_json::Deserializer::from_reader(file);
    let items = Items(&mut |number, value| each(number, Ok(value)).map_err(|e| fault = Some(e)).is_ok());
    let read = items.deserialize(&mut reader).and_then(|()| reader.end());
    match (fault, read) {
        (Some(fault), _) => Err(fault),
        (None, Err(e)) if e.is_io() => Err(Error::io(path, e.into())),
        (None, Err(e)) => Err(Error::input(format!("{}: is no JSON array: {}", path.display(), plain(&e)))),
        (None, Ok(())) => Ok(()),
    }
}

/// Hands the items of an array on one by one, until it is told to stop.
struct Items<'a>(&'a mut dyn FnMut(usize, Value) -> bool);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut number = 0;
        while let Some(item) = items.next_element()? {
            number += 1;
            if !(self.0)(number, item) {
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

fn read_csv(path: &Path, mut file: impl BufRead, each: &mut Each<'_>) -> Result<()> {
    let start = file.fill_buf().map_err(|e| Error::io(path, e))?;
    let header = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let delimiter = header.iter().copied().find(|byte| b",;\t".contains(byte)).unwrap_or(b',');
    let fault = |error: csv::Error| match error.into_kind() {
        csv::ErrorKind::Io(e) => Error::io(path, e),
        _ => Error::input(format!("{}: is not a CSV file in UTF-8", path.display())),
    };
    let mut reader = csv::ReaderBuilder::new().flexible(true).delimiter(delimiter).from_reader(file);
    let header = reader.headers().map_err(fault)?.clone();
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(fault)? {
        let line = record.position().map_or(0, csv::Position::line) as usize;
        each(line, csv_record(&header, &record))?;
    }
    Ok(())
}

/// A line as an object: what opens like a JSON list is read as one, all else is text, and nothing is null.
fn csv_record(header: &csv::StringRecord, record: &csv::ByteRecord) -> Result<Value, String> {
    if record.len() != header.len() {
        let (found, fields) = (record.len(), header.len());
        return Err(format!("has {found} fields, the header has {fields}; is the file cut off?"));
    }
    let mut fields = Map::new();
    for ((at, name), field) in header.iter().enumerate().zip(record) {
        let text = std::str::from_utf8(field).map_err(|_| "is not UTF-8; save the file as UTF-8".to_owned())?;
        let value = match text.trim_start().starts_with('[') {
            true => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
            false if text.is_empty() => Value::Null,
            false => text.into(),
        };
        let name = if name.trim().is_empty() { format!("column {}", at + 1) } else { name.trim().to_owned() };
        if fields.insert(name.clone(), value).is_some() {
            return Err(format!("has the column {name:?} twice; rename one of the two"));
        }
    }
    Ok(Value::Object(fields))
}

//! Writing a checkpoint as `torch.save` would: every tensor in a storage of its own.

use std::io::{self, Write};
use std::path::Path;

use rawzip::extra_fields::ExtraFieldId;
use rawzip::{Header, ZipArchiveWriter};

use crate::checkpoint::NamedTensor;
use crate::error::{Error, Result};
use crate::files::atomic;

/// Storages begin at multiples of this, so that PyTorch may map them into memory.
const ALIGNMENT: u64 = 64;
/// The padding that PyTorch puts there: an extra field it calls `FB`.
const PADDING: ExtraFieldId = ExtraFieldId::new(0x4246);
/// Bytes of a local header before its name, and of an extra field before its data.
const LOCAL_HEADER_BYTES: u64 = 30;
const FIELD_HEADER_BYTES: u64 = 4;

/// Writes weights atomically as a dict of f32 tensors, which `torch.load` reads with `weights_only=True`. `prefix` is put
/// before all names.
pub fn save_torch(path: &Path, tensors: &[NamedTensor], prefix: &str) -> Result<()> {
    let pickle = pickled(tensors, prefix);
    atomic::write(path, |file| {
        let mut archive = ZipArchiveWriter::new(file);
        put(&mut archive, "archive/data.pkl", |out| out.write_all(&pickle))?;
        put(&mut archive, "archive/byteorder", |out| out.write_all(b"little"))?;
        for (key, tensor) in tensors.iter().enumerate() {
            put(&mut archive, &format!("archive/data/{key}"), |out| {
                let mut chunk = Vec::with_capacity(4 << 14);
                for values in tensor.data.chunks(1 << 14) {
                    chunk.clear();
                    chunk.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                    out.write_all(&chunk)?;
                }
                Ok(())
            })?;
        }
        put(&mut archive, "archive/version", |out| out.write_all(b"3\n"))?;
        archive.finish().map(drop).map_err(io::Error::other)
    })
    .map_err(|error| match error {
        Error::Io { source, .. } => Error::io(path, source),
        other => other,
    })
}

/// Writes one entry, uncompressed, its data aligned.
fn put<W: Write>(
    archive: &mut ZipArchiveWriter<W>,
    name: &str,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let start = archive.stream_offset() + LOCAL_HEADER_BYTES + name.len() as u64 + FIELD_HEADER_BYTES;
    let padding = vec![b'Z'; (start.next_multiple_of(ALIGNMENT) - start) as usize];
    let file = archive.new_file(name).extra_field(PADDING, &padding, Header::LOCAL).map_err(io::Error::other)?;
    let (mut entry, config) = file.start().map_err(io::Error::other)?;
    let mut writer = config.wrap(&mut entry);
    content(&mut writer)?;
    let (_, descriptor) = writer.finish().map_err(io::Error::other)?;
    entry.finish(descriptor).map(drop).map_err(io::Error::other)
}

/// The pickle of an ordered dict of tensors, in protocol 2.
fn pickled(tensors: &[NamedTensor], prefix: &str) -> Vec<u8> {
    const EMPTY_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";
    let mut out = b"\x80\x02".to_vec();
    out.extend(EMPTY_DICT);
    out.push(b'(');
    for (key, tensor) in tensors.iter().enumerate() {
        text(&mut out, &format!("{prefix}{}", tensor.name));
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        text(&mut out, "storage");
        out.extend(b"ctorch\nFloatStorage\n");
        text(&mut out, &key.to_string());
        text(&mut out, "cpu");
        number(&mut out, tensor.data.len());
        out.extend(b"tQK\x00");
        let mut strides = vec![1; tensor.shape.len()];
        for axis in (1..strides.len()).rev() {
            strides[axis - 1] = strides[axis] * tensor.shape[axis].max(1);
        }
        for sizes in [&tensor.shape, &strides] {
            out.push(b'(');
            sizes.iter().for_each(|&size| number(&mut out, size));
            out.push(b't');
        }
        out.push(0x89);
        out.extend(EMPTY_DICT);
        out.extend(b"tR");
    }
    out.extend(b"u.");
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

fn number(out: &mut Vec<u8>, number: usize) {
    match i32::try_from(number) {
        Ok(number) => {
            out.push(b'J');
            out.extend(number.to_le_bytes());
        }
        Err(_) => {
            out.extend([0x8a, 9]);
            out.extend((number as u64).to_le_bytes());
            out.push(0);
        }
    }
}

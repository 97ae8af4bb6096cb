//! The zip archive that `torch.save` writes: a pickle, and an entry for each storage, all uncompressed.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use rawzip::{CompressionMethod, FileReader, RECOMMENDED_BUFFER_SIZE, ZipArchive, ZipArchiveEntryWayfinder};

use crate::error::{Error, Result};

/// Entries of an archive: one for each tensor, and a few more.
const MAX_ENTRIES: u64 = 1 << 20;

/// An open archive.
pub(super) struct Archive {
    path: PathBuf,
    zip: ZipArchive<FileReader>,
    entries: HashMap<String, Entry>,
    /// The folder that all its entries are in, with a slash.
    root: String,
    /// Bytes of the file: more is in no entry.
    bytes: u64,
}

struct Entry {
    place: ZipArchiveEntryWayfinder,
    is_plain: bool,
    bytes: u64,
}

impl Archive {
    /// Opens an archive and reads the list of its entries.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let bytes = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
        let broken = |e: rawzip::Error| broken(path, &e.to_string());
        let zip = ZipArchive::from_file(file, &mut buffer).map_err(broken)?;
        let mut entries = HashMap::new();
        let mut listed = zip.entries(&mut buffer);
        while let Some(entry) = listed.next_entry().map_err(broken)? {
            let name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
            let (packed, whole) = (entry.compressed_size_hint(), entry.uncompressed_size_hint());
            let is_plain = entry.compression_method() == CompressionMethod::STORE && packed == whole;
            let entry = Entry { place: entry.wayfinder(), is_plain, bytes: whole };
            if entries.insert(name.clone(), entry).is_some() || entries.len() as u64 > MAX_ENTRIES {
                return Err(self::broken(
                    path,
                    &format!("its list of entries is not PyTorch's (`{}`)", name.escape_debug()),
                ));
            }
        }
        let pickles = entries.keys().filter_map(|name| name.strip_suffix("data.pkl"));
        let mut roots: Vec<String> =
            pickles.filter(|root| root.is_empty() || root.ends_with('/')).map(str::to_owned).collect();
        roots.sort_by_key(|root| (root.matches('/').count(), root.clone()));
        let Some(root) = roots.into_iter().next() else {
            return Err(Error::input(format!(
                "{}: a zip archive, but no PyTorch checkpoint (no data.pkl in it)",
                path.display()
            )));
        };
        let archive = Self { path: path.to_path_buf(), zip, entries, root, bytes };
        if archive.holds("byteorder") && archive.read("byteorder", 16)? != b"little" {
            return Err(broken_order(path));
        }
        Ok(archive)
    }

    fn holds(&self, name: &str) -> bool {
        self.entries.contains_key(&format!("{}{name}", self.root))
    }

    /// The bytes of an entry, which has at most so many; its checksum is looked at.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Vec<u8>> {
        let fault = |what: &str| broken(&self.path, &format!("entry `{}`: {what}", name.escape_debug()));
        let entry = self.entries.get(&format!("{}{name}", self.root)).ok_or_else(|| fault("it is missing"))?;
        if !entry.is_plain {
            return Err(fault("it is compressed, as torch.save never does; save the checkpoint again"));
        }
        if entry.bytes > most.min(self.bytes) {
            return Err(fault(&format!("it has {} bytes, which cannot be", entry.bytes)));
        }
        let mut bytes = Vec::new();
        let len = entry.bytes as usize;
        bytes.try_reserve_exact(len).map_err(|e| fault(&format!("{len} bytes do not fit in memory ({e})")))?;
        let place = self.zip.get_entry(entry.place).map_err(|e| fault(&e.to_string()))?;
        let reader = place.verifying_reader(place.reader());
        reader.take(entry.bytes + 1).read_to_end(&mut bytes).map_err(|e| fault(&e.to_string()))?;
        match bytes.len() == len {
            true => Ok(bytes),
            false => Err(fault("it has another length than the archive says")),
        }
    }
}

/// A checkpoint that is not as PyTorch writes it.
pub(super) fn broken(path: &Path, what: &str) -> Error {
    let what: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    Error::input(format!("{}: not a whole PyTorch checkpoint: {what}", path.display()))
}

fn broken_order(path: &Path) -> Error {
    Error::input(format!(
        "{}: written on a machine with the other order of bytes; save it again on this one",
        path.display()
    ))
}

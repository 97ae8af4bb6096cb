//! The state a run goes on from: `checkpoint/state-<step>.bin`, bincode behind a header that proves it is whole.
//!
//! Layout: magic (8 bytes), format version (u32), payload length (u64), CRC-32 of the payload (u32), payload; all
//! little-endian. The payload is the list of the row files that belong to the state ([`super::row_file`]; none for most
//! models), then the state itself. A file counts only when length and checksum are right, and both are checked before
//! decoding. The checkpoint before the newest is kept, and the newest one that needs none of the newest's row files, so
//! that one damaged file costs an interval and not the run.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bincode::de::{Decode, Decoder, DecoderImpl, read::Reader};
use bincode::error::{DecodeError, EncodeError};
use serde::{Serialize, de::DeserializeOwned};

use super::RowFile;
use crate::error::{Error, Result};
use crate::files::{self, Summed, atomic};

const MAGIC: &[u8; 8] = b"TRMSTATE";
/// The format that is written, and those before it, which are still read.
const VERSION: u32 = 4;
const OLD_VERSIONS: [u32; 2] = [3, 2];
const HEADER_BYTES: u64 = 24;
/// Beyond any state this program writes; decoding is bounded by the file's own length inside it.
const MAX_BYTES: usize = 1 << 42;

/// A state read back.
#[derive(Debug)]
pub struct Loaded<T, R> {
    /// The state.
    pub value: T,
    /// What its row files hold.
    pub rows: R,
    /// Those files.
    pub row_files: Vec<RowFile>,
    /// The update it was saved after.
    pub step: u64,
    /// The file it came from.
    pub path: PathBuf,
    /// One line for each newer file that was damaged and passed over.
    pub warnings: Vec<String>,
}

/// Fixed-width integers: then a claim of n bytes in the data is a claim on n bytes of the file, and can be checked.
fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<MAX_BYTES>()
}

/// Writes the state after update `step` into the folder `dir` (made if missing), streaming, and returns the file.
/// `row_files` are there already. When it is on disk, what no fallback needs any more is removed.
pub fn save(dir: &Path, step: u64, row_files: &[RowFile], state: &impl Serialize) -> Result<PathBuf> {
    fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let path = dir.join(format!("state-{step:012}.bin"));
    atomic::write(&path, |file| {
        file.write_all(&[0; HEADER_BYTES as usize])?;
        let mut payload = Summed::new(file);
        bincode::serde::encode_into_std_write((row_files, state), &mut payload, config()).map_err(|e| match e {
            EncodeError::Io { inner, .. } => inner,
            other => io::Error::other(other),
        })?;
        let Summed { inner: file, crc, bytes } = payload;
        files::step("header")?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header(bytes, crc.finalize()))
    })?;
    remove_older(dir, step, row_files)?;
    atomic::remove_leftovers(dir)?;
    Ok(path)
}

/// Removes all states but that of `step`, the one before it, and the newest one before it that shares no row file with
/// it; then the row files that none of these needs.
fn remove_older(dir: &Path, step: u64, row_files: &[RowFile]) -> Result<()> {
    files::step("remove older").map_err(|e| Error::io(dir, e))?;
    let states = list(dir)?;
    let mut older: Vec<(u64, Vec<RowFile>)> = Vec::new();
    for (other, path) in states.iter().filter(|(other, _)| *other < step) {
        // One that cannot be read is none to fall back on.
        older.extend(row_files_of(path).ok().map(|files| (*other, files)));
    }
    older.sort_unstable_by_key(|(other, _)| std::cmp::Reverse(*other));
    let apart = older.iter().find(|(_, files)| !files.iter().any(|file| row_files.contains(file)));
    let kept: Vec<&(u64, Vec<RowFile>)> = older.first().into_iter().chain(apart).collect();
    let remove = |path: &Path| fs::remove_file(path).map_err(|e| Error::io(path, e));
    for (other, path) in &states {
        if *other != step && kept.iter().all(|(kept, _)| kept != other) {
            remove(path)?;
        }
    }
    files::step("remove rows").map_err(|e| Error::io(dir, e))?;
    let needed: HashSet<String> =
        kept.iter().flat_map(|(_, files)| files).chain(row_files).map(RowFile::name).collect();
    for entry in fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = entry.map_err(|e| Error::io(dir, e))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if RowFile::is_name(name) && !needed.contains(name) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// The newest whole state in the folder `dir`, with what `read_rows` makes of its row files; `None` when there is no
/// checkpoint at all. Damaged files are passed over with a warning; when all are damaged, that is an error. `V3` and `V2` are
/// what the formats before held.
pub fn load_latest<T, V3, V2, R>(
    dir: &Path,
    read_rows: impl Fn(&[RowFile]) -> Result<R>,
) -> Result<Option<Loaded<T, R>>>
where
    T: DeserializeOwned + From<V3> + From<V2>,
    V3: DeserializeOwned,
    V2: DeserializeOwned,
{
    let mut files = match list(dir) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    files.sort_unstable_by(|a, b| b.cmp(a));
    let mut warnings = Vec::new();
    for (step, path) in files {
        let loaded = load::<T, V3, V2>(&path).and_then(|(files, value)| Ok((read_rows(&files)?, files, value)));
        match loaded {
            Ok((rows, row_files, value)) => return Ok(Some(Loaded { value, rows, row_files, step, path, warnings })),
            Err(e) => warnings.push(format!("{e}; falling back to the checkpoint before it")),
        }
    }
    match warnings.first() {
        None => Ok(None),
        Some(first) => Err(Error::input(format!(
            "{}: no checkpoint is whole; start again in a new folder ({})",
            dir.display(),
            first.split(';').next().unwrap_or_default()
        ))),
    }
}

/// Reads one checkpoint file: header, then checksum over the whole payload, only then the decoder.
fn load<T, V3, V2>(path: &Path) -> Result<(Vec<RowFile>, T)>
where
    T: DeserializeOwned + From<V3> + From<V2>,
    V3: DeserializeOwned,
    V2: DeserializeOwned,
{
    let Opened { mut file, bytes, crc, version } = open(path)?;
    let io_error = |e| Error::io(path, e);
    let mut found = crc32fast::Hasher::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).map_err(io_error)? {
            0 => break,
            n => found.update(&chunk[..n]),
        }
    }
    if found.finalize() != crc {
        return Err(damaged(path, "its checksum is wrong"));
    }
    file.seek(SeekFrom::Start(HEADER_BYTES)).map_err(io_error)?;
    let (loaded, left) = match version {
        2 => decode_old::<T, V2>(path, file, bytes)?,
        3 => decode_old::<T, V3>(path, file, bytes)?,
        _ => decode(path, file, bytes)?,
    };
    match left {
        0 => Ok(loaded),
        left => Err(damaged(path, &format!("written by another version of trm? {left} bytes are left over"))),
    }
}

/// The row files that a checkpoint file names; its checksum is not looked at.
fn row_files_of(path: &Path) -> Result<Vec<RowFile>> {
    let Opened { file, bytes, .. } = open(path)?;
    Ok(decode(path, file, bytes)?.0)
}

fn damaged(path: &Path, what: &str) -> Error {
    Error::input(format!("{}: damaged checkpoint ({what})", path.display()))
}

/// A checkpoint file that stands at its payload, and the length and checksum that the payload must have.
struct Opened {
    file: File,
    bytes: u64,
    crc: u32,
    version: u32,
}

/// Opens a checkpoint file and reads its header.
fn open(path: &Path) -> Result<Opened> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let meta = file.metadata().map_err(|e| Error::io(path, e))?;
    if !meta.is_file() {
        return Err(damaged(path, "not a file"));
    }
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact(&mut header).map_err(|_| damaged(path, "shorter than its header"))?;
    let (version, bytes, crc) = read_header(&header).map_err(|what| damaged(path, &what))?;
    if bytes.checked_add(HEADER_BYTES) != Some(meta.len()) {
        return Err(damaged(path, &format!("its header promises {bytes} bytes, the file has {}", meta.len())));
    }
    Ok(Opened { file, bytes, crc, version })
}

/// Decodes a value from a payload of so many bytes; returns how many of them are left.
fn decode<T: DeserializeOwned>(path: &Path, payload: File, bytes: u64) -> Result<(T, u64)> {
    let source = Limited { inner: BufReader::with_capacity(1 << 16, payload), left: bytes };
    let mut decoder = DecoderImpl::new(source, config(), ());
    let spent = MAX_BYTES.checked_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
    let spent = spent.ok_or_else(|| damaged(path, "larger than any state"))?;
    let misfit = |e: DecodeError| damaged(path, &format!("written by another version of trm? {e}").replace('\n', " "));
    decoder.claim_bytes_read(spent).map_err(misfit)?;
    let value = bincode::serde::Compat::<T>::decode(&mut decoder).map_err(misfit)?.0;
    Ok((value, decoder.reader().left))
}

/// The same of a payload in a format from before.
fn decode_old<T: From<Old>, Old: DeserializeOwned>(
    path: &Path,
    payload: File,
    bytes: u64,
) -> Result<((Vec<RowFile>, T), u64)> {
    let ((files, old), left) = decode::<(Vec<RowFile>, Old)>(path, payload, bytes)?;
    Ok(((files, T::from(old)), left))
}

fn header(bytes: u64, crc: u32) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..20].copy_from_slice(&bytes.to_le_bytes());
    header[20..].copy_from_slice(&crc.to_le_bytes());
    header
}

fn read_header(header: &[u8; HEADER_BYTES as usize]) -> Result<(u32, u64, u32), String> {
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if &header[..8] != MAGIC {
        return Err("not a trm checkpoint".to_owned());
    }
    if word(8) != VERSION && !OLD_VERSIONS.contains(&word(8)) {
        return Err(format!(
            "written by another version of trm: format {}, this one reads {} to {VERSION}",
            word(8),
            OLD_VERSIONS[1]
        ));
    }
    Ok((word(8), u64::from_le_bytes(header[12..20].try_into().expect("eight bytes")), word(20)))
}

/// The checkpoint files of a folder with their steps.
fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let path = entry.map_err(|e| Error::io(dir, e))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let step = name.strip_prefix("state-").and_then(|n| n.strip_suffix(".bin")).and_then(|n| n.parse().ok());
        files.extend(step.map(|step| (step, path)));
    }
    Ok(files)
}

/// A file of which only the payload may be read.
struct Limited {
    inner: BufReader<File>,
    left: u64,
}

impl Reader for Limited {
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), DecodeError> {
        let missing = (bytes.len() as u64).saturating_sub(self.left) as usize;
        if missing > 0 {
            return Err(DecodeError::UnexpectedEnd { additional: missing });
        }
        self.left -= bytes.len() as u64;
        self.inner.read_exact(bytes).map_err(|inner| DecodeError::Io { inner, additional: bytes.len() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct State {
        name: String,
        weights: Vec<f32>,
        tag: Option<char>,
        flags: Vec<bool>,
        step: u64,
    }

    fn save(dir: &Path, step: u64, state: &State) -> Result<PathBuf> {
        super::save(dir, step, &[], state)
    }

    fn load_latest<T: DeserializeOwned>(dir: &Path) -> Result<Option<Loaded<T, ()>>> {
        super::load_latest::<T, T, T, _>(dir, |_| Ok(()))
    }

    fn state(step: u64) -> State {
        let weights = (0..1000).map(|i| i as f32 + step as f32).collect();
        State { name: "größe".to_owned(), weights, tag: Some('é'), flags: vec![true, false], step }
    }

    #[test]
    fn saving_and_loading_is_the_identity_and_two_are_kept() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let dir = dir.path().join("checkpoint");
        assert!(load_latest::<State>(&dir).expect("no folder").is_none());
        for step in [3, 5, 9, 10] {
            save(&dir, step, &state(step)).expect("save");
        }
        let loaded = load_latest::<State>(&dir).expect("load").expect("some");
        assert_eq!((loaded.value, loaded.step, loaded.warnings.len()), (state(10), 10, 0));
        let mut steps: Vec<_> = list(&dir).expect("list").into_iter().map(|(s, _)| s).collect();
        steps.sort_unstable();
        assert_eq!(steps, [9, 10]);
    }

    #[test]
    fn any_damage_to_the_newest_falls_back_with_a_warning() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let dir = dir.path();
        save(dir, 1, &state(1)).expect("save");
        let newest = save(dir, 2, &state(2)).expect("save");
        let good = fs::read(&newest).expect("read");
        let mut damages: Vec<Vec<u8>> =
            [0, 1, 23, 24, 25, good.len() / 2, good.len() - 1].iter().map(|&n| good[..n].to_vec()).collect();
        for at in (0..good.len()).step_by(97).chain([0, 8, 12, 19, 20, 24, good.len() - 1]) {
            let mut flipped = good.clone();
            flipped[at] ^= 0x40;
            damages.push(flipped);
        }
        damages.push([good.clone(), vec![0]].concat());
        for damage in damages {
            fs::write(&newest, damage).expect("write");
            let loaded = load_latest::<State>(dir).expect("load").expect("the older one");
            assert_eq!((loaded.step, loaded.value), (1, state(1)));
            assert_eq!(loaded.warnings.len(), 1);
            assert!(loaded.warnings[0].contains("state-000000000002.bin"), "{:?}", loaded.warnings);
        }
        fs::write(dir.join("state-000000000001.bin"), b"").expect("write");
        let line = load_latest::<State>(dir).expect_err("both damaged").to_string();
        assert!(line.contains("no checkpoint is whole") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn a_save_after_falling_back_removes_the_damaged_newer_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        save(dir.path(), 1, &state(1)).expect("save");
        fs::write(dir.path().join("state-000000000009.bin"), b"rubbish").expect("write");
        save(dir.path(), 2, &state(2)).expect("save");
        let loaded = load_latest::<State>(dir.path()).expect("load").expect("some");
        assert_eq!((loaded.step, loaded.warnings.len()), (2, 0));
    }

    /// A valid checksum over hostile lengths: refused without allocating what they promise.
    #[test]
    fn lengths_that_lie_are_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("state-000000000001.bin");
        for length in [9, 1 << 20, 1 << 40, u64::MAX / 2, u64::MAX] {
            let payload = [&length.to_le_bytes()[..], b"abcdefgh"].concat();
            let head = header(payload.len() as u64, crc32fast::hash(&payload));
            fs::write(&path, [&head[..], &payload].concat()).expect("write");
            for line in [
                load::<String, String, String>(&path).expect_err("string").to_string(),
                load::<Vec<u64>, Vec<u64>, Vec<u64>>(&path).expect_err("numbers").to_string(),
            ] {
                assert!(line.contains("damaged checkpoint") && !line.contains('\n'), "{line}");
            }
        }
    }

    proptest! {
        #[test]
        fn loading_arbitrary_bytes_never_panics(body in proptest::collection::vec(any::<u8>(), 0..80), sum in any::<bool>()) {
            let dir = tempfile::tempdir().expect("temporary folder");
            let path = dir.path().join("x");
            let head = header(body.len() as u64, if sum { crc32fast::hash(&body) } else { 0 });
            fs::write(&path, [&head[..], &body].concat()).expect("write");
            let _ = load::<State, State, State>(&path);
        }
    }
}

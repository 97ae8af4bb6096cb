//! Rows of a sparse table in files of their own, so that a checkpoint writes what changed and not the table.
//!
//! `rows-<since>-<until>.bin` holds every row that changed after update `since`, as it was after update `until`. A
//! checkpoint names a chain of them: the first starts at update 0, each next one where the one before it ends. A save
//! adds one file, which also takes in those before it that are less than twice as large ("binary counter"): the chain of a
//! table of r rows has at most log₂ r files and twice the table's bytes, and in the long run a changed row is written at
//! most log₂ r times.
//!
//! Layout: magic (8 bytes), ndim (u32), rows (u32), their identifiers (u32 each), their values (ndim f32 each); all
//! little-endian. Length and CRC-32 of the whole file are in the checkpoint that names it.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{Summed, atomic};

const MAGIC: &[u8; 8] = b"TRMROWS\x01";
const HEADER_BYTES: u64 = 16;
/// A file smaller than this is not worth being one: the next takes it in.
const SMALL_BYTES: usize = if cfg!(test) { 64 } else { 1 << 20 };

/// A table of which only some rows exist; it knows which update changed each of them last.
pub trait SparseRows {
    /// Width of a row.
    fn ndim(&self) -> usize;

    /// How many rows changed after update `since`.
    fn count_changed(&self, since: u64) -> usize;

    /// Identifier and values of those rows, by identifier.
    fn changed(&self, since: u64) -> Vec<(u32, &[f32])>;
}

/// One file of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowFile {
    /// It holds rows that changed after this update …
    since: u64,
    /// … as they were after this one.
    until: u64,
    rows: u64,
    bytes: u64,
    crc: u32,
}

impl RowFile {
    /// Its name in the checkpoint folder.
    pub(super) fn name(&self) -> String {
        format!("rows-{:012}-{:012}.bin", self.since, self.until)
    }

    /// Whether a file of that name is one of these.
    pub(super) fn is_name(name: &str) -> bool {
        name.starts_with("rows-") && name.ends_with(".bin")
    }
}

/// Saves what changed in `table` since the save that left `chain`, as of update `until`, and returns the new chain.
/// Files that the new chain no longer names stay: the checkpoints before need them.
pub fn save_rows(dir: &Path, chain: &[RowFile], until: u64, table: &impl SparseRows) -> Result<Vec<RowFile>> {
    let small = SMALL_BYTES / (4 * table.ndim()).max(1);
    let since = |files: &[RowFile]| files.last().map_or(0, |file| file.until);
    let mut kept = chain.len();
    let mut rows = table.count_changed(since(chain));
    if rows == 0 {
        return Ok(chain.to_vec());
    }
    while kept > 0 && chain[kept - 1].rows < 2 * rows.max(small) as u64 {
        kept -= 1;
        rows = table.count_changed(since(&chain[..kept]));
    }
    let mut files = chain[..kept].to_vec();
    files.push(write(dir, since(&files), until, table)?);
    Ok(files)
}

fn write(dir: &Path, since: u64, until: u64, table: &impl SparseRows) -> Result<RowFile> {
    fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let rows = table.changed(since);
    let ndim = table.ndim();
    let bytes = file_bytes(rows.len() as u64, ndim as u64).unwrap_or_default();
    let mut file = RowFile { since, until, rows: rows.len() as u64, bytes, crc: 0 };
    let mut crc = crc32fast::Hasher::new();
    atomic::write(&dir.join(file.name()), |target| {
        let mut put = |bytes: &[u8]| {
            crc.update(bytes);
            target.write_all(bytes)
        };
        put(MAGIC)?;
        put(&(ndim as u32).to_le_bytes())?;
        put(&(rows.len() as u32).to_le_bytes())?;
        rows.iter().try_for_each(|(id, _)| put(&id.to_le_bytes()))?;
        let mut line = Vec::with_capacity(4 * ndim);
        for (_, row) in &rows {
            line.clear();
            line.extend(row.iter().flat_map(|value| value.to_le_bytes()));
            put(&line)?;
        }
        Ok(())
    })?;
    file.crc = crc.finalize();
    Ok(file)
}

/// Reads a chain in order, rows `ndim` wide; `visit` gets the update of each row, its identifier and its values, and
/// says what is wrong with them. What it was given counts only if the whole chain is read without an error.
pub fn read_rows(
    dir: &Path,
    chain: &[RowFile],
    ndim: usize,
    mut visit: impl FnMut(u64, u32, &[f32]) -> Result<(), String>,
) -> Result<()> {
    let mut expected = 0;
    for file in chain {
        let path = dir.join(file.name());
        let damaged = |what: &str| Error::input(format!("{}: damaged checkpoint ({what})", path.display()));
        if file.since != expected {
            return Err(damaged(&format!("rows of updates {expected} to {} are missing", file.since)));
        }
        expected = file.until;
        read(&path, file, ndim, |id, row| visit(file.until, id, row)).map_err(|fault| match fault {
            Fault::Damaged(what) => damaged(&what),
            Fault::Io(e) if e.kind() == io::ErrorKind::NotFound => damaged("the file is gone"),
            Fault::Io(e) => Error::io(&path, e),
        })?;
    }
    Ok(())
}

enum Fault {
    Damaged(String),
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

/// Length and header are checked before anything is believed; the checksum comes out at the end.
fn read(
    path: &Path,
    expected: &RowFile,
    ndim: usize,
    mut visit: impl FnMut(u32, &[f32]) -> Result<(), String>,
) -> Result<(), Fault> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let bytes = file_bytes(expected.rows, ndim as u64);
    if !meta.is_file() || meta.len() != expected.bytes || bytes != Some(expected.bytes) {
        return Err(format!("{} bytes where the checkpoint asks for {}", meta.len(), expected.bytes).into());
    }
    let mut source = Summed::new(BufReader::with_capacity(1 << 20, file));
    let mut header = [0; HEADER_BYTES as usize];
    source.read_exact(&mut header)?;
    let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if &header[..8] != MAGIC || word(8) as usize != ndim || u64::from(word(12)) != expected.rows {
        return Err("its header is not that of these rows".to_owned().into());
    }
    // Sizes are those of the file, so what they claim is there.
    let mut ids = vec![0; 4 * expected.rows as usize];
    source.read_exact(&mut ids)?;
    let (mut line, mut row) = (vec![0; 4 * ndim], vec![0f32; ndim]);
    for &id in ids.as_chunks().0 {
        source.read_exact(&mut line)?;
        for (value, &bytes) in row.iter_mut().zip(line.as_chunks().0) {
            *value = f32::from_le_bytes(bytes);
        }
        visit(u32::from_le_bytes(id), &row)?;
    }
    if source.crc.finalize() != expected.crc {
        return Err("its checksum is wrong".to_owned().into());
    }
    Ok(())
}

fn file_bytes(rows: u64, ndim: u64) -> Option<u64> {
    ndim.checked_add(1)?.checked_mul(4)?.checked_mul(rows)?.checked_add(HEADER_BYTES)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The obvious table: a map of rows, each with the update that changed it.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Rows {
        pub ndim: usize,
        pub rows: BTreeMap<u32, (u64, Vec<f32>)>,
    }

    impl Rows {
        pub fn new(ndim: usize) -> Self {
            Self { ndim, rows: BTreeMap::new() }
        }

        /// Writes some rows; what depends on the update and the identifier.
        pub fn touch(&mut self, update: u64, ids: impl IntoIterator<Item = u32>) {
            for id in ids {
                let row = (0..self.ndim).map(|d| (update * 1000 + u64::from(id)) as f32 + d as f32 * 0.25).collect();
                self.rows.insert(id, (update, row));
            }
        }

        pub fn read(dir: &Path, chain: &[RowFile], ndim: usize) -> Result<Self> {
            let mut table = Self::new(ndim);
            read_rows(dir, chain, ndim, |update, id, row| {
                table.rows.insert(id, (update, row.to_vec()));
                Ok(())
            })?;
            Ok(table)
        }

        pub fn values(&self) -> Vec<(u32, Vec<f32>)> {
            self.rows.iter().map(|(id, (_, row))| (*id, row.clone())).collect()
        }
    }

    impl SparseRows for Rows {
        fn ndim(&self) -> usize {
            self.ndim
        }

        fn count_changed(&self, since: u64) -> usize {
            self.changed(since).len()
        }

        fn changed(&self, since: u64) -> Vec<(u32, &[f32])> {
            let rows = self.rows.iter().filter(|(_, (update, _))| *update > since);
            rows.map(|(id, (_, row))| (*id, row.as_slice())).collect()
        }
    }

    /// So wide that two rows are as much as a small file.
    pub const WIDE: usize = SMALL_BYTES / 8;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_chain_gives_back_the_table_and_goes_on_alike_after_a_restart(
            saves in proptest::collection::vec((proptest::collection::btree_set(0..24u32, 0..7), any::<bool>()), 1..14)
        ) {
            let dir = tempfile::tempdir().expect("temporary folder");
            let mut table = Rows::new(WIDE);
            let (mut chain, mut restarted) = (Vec::new(), table.clone());
            for (i, (ids, restart)) in (1..).zip(&saves) {
                table.touch(2 * i, ids.iter().copied());
                restarted.touch(2 * i, ids.iter().copied());
                let next = save_rows(dir.path(), &chain, 2 * i + 1, &table).expect("save");
                // Nobody can tell from the files that the process is another.
                prop_assert_eq!(&save_rows(dir.path(), &chain, 2 * i + 1, &restarted).expect("save"), &next);
                chain = next;
                let read = Rows::read(dir.path(), &chain, WIDE).expect("read");
                prop_assert_eq!(read.values(), table.values());
                if *restart {
                    restarted = read;
                }
                let rows: Vec<u64> = chain.iter().map(|file| file.rows).collect();
                prop_assert!(rows.is_sorted_by(|a, b| *a >= 2 * b), "{rows:?}");
            }
        }
    }

    #[test]
    fn a_save_writes_what_changed_and_not_the_table() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut table = Rows::new(WIDE);
        table.touch(1, 0..40);
        let chain = save_rows(dir.path(), &[], 1, &table).expect("save");
        table.touch(2, 3..6);
        let chain = save_rows(dir.path(), &chain, 2, &table).expect("save");
        assert_eq!(chain.iter().map(|file| file.rows).collect::<Vec<_>>(), [40, 3]);
        assert_eq!(save_rows(dir.path(), &chain, 3, &table).expect("nothing changed"), chain);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 2);
        // Small files are taken in.
        let mut narrow = Rows::new(1);
        narrow.touch(1, 0..20);
        let first = save_rows(dir.path(), &[], 1, &narrow).expect("save");
        narrow.touch(2, 0..2);
        assert_eq!(save_rows(dir.path(), &first, 2, &narrow).expect("save").len(), 1);
    }

    #[test]
    fn damage_is_noticed_and_named() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut table = Rows::new(3);
        table.touch(1, 0..50);
        let chain = save_rows(dir.path(), &[], 1, &table).expect("save");
        let path = dir.path().join(chain[0].name());
        let good = fs::read(&path).expect("read");
        assert_eq!(good.len() as u64, chain[0].bytes);
        let mut damages: Vec<Vec<u8>> = [0, 1, 16, good.len() / 2, good.len() - 1].map(|n| good[..n].to_vec()).into();
        damages.push([good.clone(), vec![0]].concat());
        for at in (0..good.len()).step_by(7) {
            let mut flipped = good.clone();
            flipped[at] ^= 0x10;
            damages.push(flipped);
        }
        for damage in damages {
            fs::write(&path, damage).expect("write");
            let line = Rows::read(dir.path(), &chain, 3).expect_err("damaged").to_string();
            assert!(line.contains("damaged checkpoint") && line.contains(&chain[0].name()), "{line}");
        }
        fs::write(&path, &good).expect("write");
        Rows::read(dir.path(), &chain, 3).expect("whole");
        assert!(Rows::read(dir.path(), &chain, 4).is_err(), "another width");
        fs::remove_file(&path).expect("remove");
        assert!(Rows::read(dir.path(), &chain, 3).expect_err("gone").to_string().contains("gone"));
        let later = [RowFile { since: 5, ..chain[0].clone() }];
        assert!(Rows::read(dir.path(), &later, 3).expect_err("a hole").to_string().contains("0 to 5 are missing"));
    }
}

//! A file that grows at its end: a log.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{atomic, step};
use crate::error::{Error, Result};

/// An open log. What has been appended is on disk after [`AppendFile::sync`].
#[derive(Debug)]
pub struct AppendFile {
    path: PathBuf,
    file: File,
}

impl AppendFile {
    /// Starts an empty file; what was in it is gone.
    pub fn create(path: &Path) -> Result<Self> {
        let log = Self::open(path)?;
        log.truncate(0)?;
        Ok(log)
    }

    /// Opens a file to append to; a missing one is started.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || {
            step("create")?;
            let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
            step("sync folder")?;
            atomic::sync_folder(atomic::parent(path))?;
            Ok(file)
        };
        let file = open().map_err(|e| Error::io(path, e))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Keeps the first `length` bytes.
    pub fn truncate(&self, length: u64) -> Result<()> {
        self.file.set_len(length).and_then(|()| self.file.sync_all()).map_err(|e| Error::io(&self.path, e))
    }

    /// Appends `bytes` in one piece.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        step("append").and_then(|()| self.file.write_all(bytes)).map_err(|e| Error::io(&self.path, e))
    }

    /// Puts everything appended so far on disk.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, e))
    }

    /// The file, to read from its start.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

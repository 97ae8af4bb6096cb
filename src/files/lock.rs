//! One process per folder: an advisory lock on `run.lock`, which the system frees however its holder ends. Where the file system
//! knows no locks, nobody is kept out, and the holder is told so.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use crate::error::{Error, Result};

/// The file in a folder that is locked; it stays there, empty or with the last holder's process id.
pub const LOCK_FILE: &str = "run.lock";

/// Holds a folder until dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
    warning: Option<String>,
}

impl FolderLock {
    /// Locks the folder, or says which process holds it.
    pub fn acquire(folder: &Path) -> Result<Self> {
        Self::acquire_with(folder, File::try_lock)
    }

    /// What the holder should know: that the file system has no locks.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn acquire_with(folder: &Path, try_lock: impl FnOnce(&File) -> Result<(), TryLockError>) -> Result<Self> {
        let path = folder.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|e| Error::io(&path, e))?;
        let mut warning = None;
        match try_lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&file).take(20).read_to_string(&mut holder);
                let process = match holder.trim().parse::<u32>() {
                    Ok(pid) => format!("process {pid}"),
                    Err(_) => "another process".to_owned(),
                };
                return Err(Error::input(format!(
                    "{}: in use by {process}; wait for it to end, or give another --out",
                    folder.display()
                )));
            }
            Err(TryLockError::Error(e)) if has_no_locks(&e) => {
                warning = Some(format!(
                    "{}: this file system has no locks ({e}); going on without one: let no second process write there",
                    folder.display()
                ));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io(&path, e)),
        }
        // For the message above only: a full disk is no reason to refuse.
        let _ = file
            .set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .and_then(|_| file.write_all(std::process::id().to_string().as_bytes()));
        Ok(Self { _file: file, warning })
    }
}

/// Whether the error says that no file can be locked there: Lustre without `-o flock`, NFS without a lock manager.
fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || cfg!(unix) && error.raw_os_error() == Some(libc::ENOLCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_holder_is_refused_with_folder_and_process_until_the_first_is_gone() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let first = FolderLock::acquire(dir.path()).expect("free");
        let line = FolderLock::acquire(dir.path()).expect_err("held").to_string();
        assert!(line.contains(&dir.path().display().to_string()), "{line}");
        assert!(line.contains(&format!("process {}", std::process::id())), "{line}");
        drop(first);
        FolderLock::acquire(dir.path()).expect("free again");
    }

    #[test]
    #[cfg(unix)]
    fn a_file_system_without_locks_is_a_warning_and_any_other_error_an_error() {
        let dir = tempfile::tempdir().expect("temporary folder");
        assert_eq!(FolderLock::acquire(dir.path()).expect("free").warning(), None);
        let failing = |errno| {
            FolderLock::acquire_with(dir.path(), |_| Err(TryLockError::Error(io::Error::from_raw_os_error(errno))))
        };
        for errno in [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOTSUP, libc::ENOSYS] {
            let lock = failing(errno).expect("without a lock");
            let warning = lock.warning().expect("a warning");
            assert!(warning.contains("no locks") && warning.contains(&dir.path().display().to_string()), "{warning}");
        }
        assert!(failing(libc::EIO).is_err());
    }
}

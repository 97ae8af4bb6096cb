//! Whole files or none: write to a temporary in the same folder, sync it, rename it into place, sync the folder.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::step;
use crate::error::{Error, Result};

/// Suffix of files that are not whole yet.
pub(super) const TEMPORARY: &str = ".tmp";

/// Replaces `path` by what `content` writes. On an error the temporary is removed and the old file is untouched; a
/// process that dies on the way leaves at most a temporary, which [`remove_leftovers`] clears.
pub fn write(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<()> {
    let path = &followed(path)?;
    let temporary = temporary_of(path)?;
    let written = write_synced(&temporary, content).and_then(|()| {
        step("rename")?;
        fs::rename(&temporary, path)
    });
    if let Err(e) = written {
        let _ = fs::remove_file(&temporary);
        return Err(explained(path, e));
    }
    step("sync folder").and_then(|()| sync_folder(parent(path))).map_err(|e| Error::io(path, e))
}

/// Replaces `path` by `bytes`.
pub fn write_bytes(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, |file| file.write_all(bytes))
}

/// Writes a file that must not be there yet, and syncs it: for a folder that nobody sees before all of it is written
/// ([`NewFolder`](super::NewFolder)).
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        step("create")?;
        let mut file = File::create_new(path)?;
        step("write")?;
        file.write_all(bytes)?;
        step("sync file")?;
        file.sync_all()
    };
    write().map_err(|e| Error::io(path, e))
}

/// Finds out whether a file can be written to `path`, before the work whose result it is to hold.
pub fn check_target(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::input(format!("{}: is a folder; name a file", path.display())));
    }
    let path = &followed(path)?;
    let temporary = temporary_of(path)?;
    File::create(&temporary).and_then(|_| fs::remove_file(&temporary)).map_err(|e| explained(path, e))
}

/// Removes the temporaries that processes which died left in `folder`. Only the owner of the folder may call it.
pub fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path.file_name().is_some_and(is_leftover) {
            fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
        }
    }
    Ok(())
}

/// Whether a file of that name is a temporary.
pub fn is_leftover(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') && name.ends_with(TEMPORARY)
}

fn write_synced(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> io::Result<()> {
    step("create")?;
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    step("write")?;
    content(&mut file)?;
    step("flush")?;
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    step("sync file")?;
    file.sync_all()
}

/// Makes the entries of `folder` durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|f| f.sync_all()) {
        Err(e) if cannot_sync_folders(&e) => Ok(()),
        other => other,
    }
}

/// Whether the error says that this file system (or system) cannot sync a folder, or lets nobody open this one to do it. The
/// rename itself is still atomic there.
fn cannot_sync_folders(e: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, PermissionDenied, Unsupported};
    matches!(e.kind(), InvalidInput | IsADirectory | PermissionDenied | Unsupported)
        || cfg!(unix) && e.raw_os_error() == Some(libc::EBADF)
}

/// The file itself, where `path` is a link to it: a rename would replace the link.
fn followed(path: &Path) -> Result<PathBuf> {
    match path.is_symlink() {
        true => fs::canonicalize(path).map_err(|e| Error::io(path, e)),
        false => Ok(path.to_path_buf()),
    }
}

fn temporary_of(path: &Path) -> Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| {
        Error::input(format!("{}: not a file name; give the path of a file to write", path.display()))
    })?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}{TEMPORARY}", std::process::id()));
    Ok(path.with_file_name(hidden))
}

pub(super) fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn explained(path: &Path, e: io::Error) -> Error {
    if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Error::input(format!(
            "{}: no space left to write it ({e}); the file there before is untouched: free some space and resume",
            path.display()
        ));
    }
    Error::io(path, e)
}

#[cfg(test)]
mod tests {
    use super::super::crash::temporaries;
    use super::*;

    #[test]
    fn an_error_while_writing_keeps_the_old_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("weights");
        write_bytes(&path, b"old").expect("write");
        let full = |_: &mut BufWriter<File>| Err(io::Error::from(io::ErrorKind::StorageFull));
        let line = write(&path, full).expect_err("full").to_string();
        assert!(line.contains("no space left") && line.contains("weights"), "{line}");
        assert_eq!(fs::read(&path).expect("read"), b"old");
        assert_eq!(temporaries(dir.path()), 0);
        assert!(write_bytes(&dir.path().join("no/such/folder"), b"").is_err());
        assert!(write_bytes(Path::new("/"), b"").is_err());
    }
}

//! A whole folder or none: it is filled under a hidden name beside its place, synced, and renamed.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{atomic, step};
use crate::error::{Error, Result};

/// A folder in the making. Dropped before [`NewFolder::publish`], it leaves nothing behind.
#[derive(Debug)]
pub struct NewFolder {
    hidden: PathBuf,
    target: PathBuf,
}

impl NewFolder {
    /// Starts the folder `target`; missing parents are made. One that holds something already is refused.
    pub fn create(target: &Path) -> Result<Self> {
        let name = check_new_folder(target)?;
        let parent = atomic::parent(target);
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        let mut hidden_name = OsString::from(".");
        hidden_name.push(name);
        hidden_name.push(format!(".{}{}", std::process::id(), atomic::TEMPORARY));
        let hidden = parent.join(hidden_name);
        step("create folder").and_then(|()| fs::create_dir(&hidden)).map_err(|e| Error::io(&hidden, e))?;
        Ok(Self { hidden, target: target.to_path_buf() })
    }

    /// Where its files are written.
    pub fn path(&self) -> &Path {
        &self.hidden
    }

    /// Gives the folder its name, once everything in it is synced: each file by whoever wrote it, subfolders by
    /// [`sync_folder`].
    pub fn publish(self) -> Result<()> {
        sync_folder(&self.hidden)?;
        // On Unix a rename replaces an empty folder and fails on one that has been filled meanwhile.
        if cfg!(not(unix)) && self.target.is_dir() {
            fs::remove_dir(&self.target).map_err(|e| Error::io(&self.target, e))?;
        }
        let renamed = step("rename folder").and_then(|()| fs::rename(&self.hidden, &self.target));
        renamed.map_err(|e| Error::io(&self.target, e))?;
        sync_folder(atomic::parent(&self.target))
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        #[cfg(test)]
        if super::crash::is_dead() {
            return;
        }
        // After the rename there is nothing left to remove. Before it an error is already on its way, and nothing sensible
        // is left to do if this fails too.
        let _ = fs::remove_dir_all(&self.hidden);
    }
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
    step("sync folder").and_then(|()| atomic::sync_folder(folder)).map_err(|e| Error::io(folder, e))
}

/// Whether [`NewFolder::create`] would take `target`, to be asked before the work whose result it is to hold. Returns the
/// folder's name.
pub fn check_new_folder(target: &Path) -> Result<&OsStr> {
    let fault = |what: &str| Error::input(format!("{}: {what}", target.display()));
    let name = target.file_name().ok_or_else(|| fault("is no name for a new folder"))?;
    match fs::read_dir(target) {
        Ok(mut entries) => match entries.next() {
            None => Ok(name),
            Some(_) => Err(fault("already exists and is not empty; choose a new folder, or remove it first")),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(name),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Err(fault("is a file; choose a new folder")),
        Err(e) => Err(Error::io(target, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::crash::{How, Interrupted, interrupt, temporaries};
    use super::*;

    fn make(target: &Path) -> Result<()> {
        let folder = NewFolder::create(target)?;
        atomic::write_new(&folder.path().join("a"), b"first")?;
        fs::create_dir(folder.path().join("inner")).map_err(|e| Error::io(target, e))?;
        atomic::write_new(&folder.path().join("inner/b"), b"second")?;
        sync_folder(&folder.path().join("inner"))?;
        folder.publish()
    }

    #[test]
    fn a_folder_interrupted_at_any_step_is_there_whole_or_not_at_all() {
        for how in [How::Fail, How::Die] {
            for at in 0.. {
                let dir = tempfile::tempdir().expect("temporary folder");
                let target = dir.path().join("set");
                let finished = match interrupt(at, how, || make(&target)) {
                    Interrupted::Finished(result) => {
                        result.expect("no step was left to interrupt");
                        true
                    }
                    Interrupted::Failed(result) => {
                        result.expect_err("interrupted");
                        assert_eq!(temporaries(dir.path()), 0, "an error leaves nothing behind");
                        false
                    }
                    Interrupted::Died => false,
                };
                assert!(!finished || at >= 8, "only {at} steps were interrupted");
                if target.exists() {
                    assert_eq!(fs::read(target.join("a")).expect("whole"), b"first");
                    assert_eq!(fs::read(target.join("inner/b")).expect("whole"), b"second");
                }
                if finished {
                    break;
                }
            }
        }
    }
}

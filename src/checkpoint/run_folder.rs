//! A run folder: `config.toml`, `metrics.jsonl`, `weights.safetensors`, `checkpoint/`, and its lock.

use std::fs;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::lock::LOCK_FILE;
use crate::files::{FolderLock, atomic};

/// Where the parts of a run are. Reading needs no lock: every file there is whole at all times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPaths {
    root: PathBuf,
}

impl RunPaths {
    /// The folder of an existing run.
    pub fn existing(root: impl Into<PathBuf>) -> Result<Self> {
        let paths = Self { root: root.into() };
        let problem = match fs::metadata(paths.config()) {
            Ok(meta) if meta.is_file() => return Ok(paths),
            Ok(_) => "config.toml is not a file there",
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                if paths.root.exists() { "no config.toml there" } else { "no such folder" }
            }
            Err(e) => return Err(Error::io(paths.config(), e)),
        };
        Err(Error::input(format!(
            "{}: not a run folder ({problem}); give the --out of a `trm train`",
            paths.root.display()
        )))
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every setting of the run.
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// What the run's data was.
    pub fn data(&self) -> PathBuf {
        self.root.join("data.json")
    }

    /// Names of the puzzle identifiers it was trained with.
    pub fn identifiers(&self) -> PathBuf {
        self.root.join("identifiers.json")
    }

    /// The log: one JSON object per line.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The weights to use: the EMA where there is one.
    pub fn weights(&self) -> PathBuf {
        self.root.join("weights.safetensors")
    }

    /// The weights of the best evaluation, where they are kept.
    pub fn best_weights(&self) -> PathBuf {
        self.root.join("weights-best.safetensors")
    }

    /// The states to resume from.
    pub fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint")
    }

    /// The stored settings.
    pub fn read_config(&self) -> Result<Config> {
        Config::resolve(None, Some(&self.config()), &[])
    }
}

/// A run folder this process owns, to write to.
#[derive(Debug)]
pub struct RunFolder {
    paths: RunPaths,
    /// The outermost folder that [`RunFolder::create`] made, if any.
    made: Option<PathBuf>,
    lock: FolderLock,
}

impl Deref for RunFolder {
    type Target = RunPaths;

    fn deref(&self) -> &RunPaths {
        &self.paths
    }
}

impl RunFolder {
    /// Makes the folder of a new run (missing parents too) and locks it. Refuses one that holds anything already or
    /// that cannot be written; then nothing is left behind.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let made = first_missing(&root);
        let unwritable = |e: &dyn std::fmt::Display| {
            Error::input(format!("{}: cannot be written ({e}); give another --out", root.display()))
        };
        let attempt = || {
            if root.as_os_str().is_empty() {
                return Err(unwritable(&"the name is empty"));
            }
            fs::create_dir_all(&root).map_err(|e| unwritable(&e))?;
            refuse_taken(&root, false)?;
            let lock = FolderLock::acquire(&root).map_err(|e| match e {
                Error::Io { source, .. } => {
                    if made.is_some() {
                        let _ = fs::remove_file(root.join(LOCK_FILE));
                    }
                    unwritable(&source)
                }
                other => other,
            })?;
            // Whoever was first may have filled and left it in the meantime.
            refuse_taken(&root, true)?;
            Ok(lock)
        };
        match attempt() {
            Ok(lock) => Ok(Self { paths: RunPaths { root }, made, lock }),
            Err(e) => {
                if let Some(made) = made {
                    remove_empty(&root, &made);
                }
                Err(e)
            }
        }
    }

    /// Locks the folder of an existing run, to go on with it.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let paths = RunPaths::existing(root)?;
        let lock = FolderLock::acquire(&paths.root)?;
        atomic::remove_leftovers(&paths.root)?;
        if paths.checkpoint().is_dir() {
            atomic::remove_leftovers(&paths.checkpoint())?;
        }
        Ok(Self { paths, made: None, lock })
    }

    /// What whoever writes there should know: that nobody else is kept out.
    pub fn warning(&self) -> Option<&str> {
        self.lock.warning()
    }

    /// Stores the settings.
    pub fn write_config(&self, config: &Config) -> Result<()> {
        atomic::write_bytes(&self.config(), config.to_toml().as_bytes())
    }

    /// Undoes [`RunFolder::create`], for a run that could not start: nothing is left behind.
    pub fn discard(self) {
        let lock = self.root().join(LOCK_FILE);
        for file in [lock, self.config(), self.metrics(), self.data(), self.identifiers(), self.weights()] {
            let _ = fs::remove_file(file);
        }
        let _ = fs::remove_dir_all(self.checkpoint());
        if let Some(made) = &self.made {
            remove_empty(self.root(), made);
        }
    }
}

fn refuse_taken(root: &Path, locked: bool) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root).map_err(|e| Error::io(root, e))? {
        names.push(entry.map_err(|e| Error::io(root, e))?.file_name());
    }
    // What a process that died before it had written its settings left is no run.
    if locked {
        atomic::remove_leftovers(root)?;
    }
    let at = root.display();
    if names.iter().any(|n| n == "config.toml") {
        // The lock names the holder if there is one; a finished or interrupted run can be resumed.
        if !locked {
            FolderLock::acquire(root)?;
        }
        return Err(Error::input(format!("{at}: holds a run already; go on with --resume, or give another --out")));
    }
    if names.iter().any(|n| n != LOCK_FILE && !atomic::is_leftover(n)) {
        return Err(Error::input(format!("{at}: the folder is not empty; give a new one with --out")));
    }
    Ok(())
}

/// The outermost missing folder on the way to `path`.
fn first_missing(path: &Path) -> Option<PathBuf> {
    path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).last().map(Path::to_path_buf)
}

/// Removes `root` and its parents up to `made`, as long as they are empty.
fn remove_empty(root: &Path, made: &Path) {
    for folder in root.ancestors() {
        if fs::remove_dir(folder).is_err() || folder == made {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_folder_is_made_locked_and_reopened() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let root = dir.path().join("runs/a");
        let run = RunFolder::create(&root).expect("create");
        run.write_config(&Config::default()).expect("write");
        assert_eq!(run.read_config().expect("read"), Config::default());
        for line in [RunFolder::create(&root).unwrap_err().to_string(), RunFolder::open(&root).unwrap_err().to_string()]
        {
            assert!(line.contains("in use by process"), "{line}");
        }
        drop(run);
        fs::write(root.join(".weights.safetensors.1.tmp"), b"torn").expect("write");
        let run = RunFolder::open(&root).expect("open");
        assert!(!root.join(".weights.safetensors.1.tmp").exists());
        assert_eq!(RunPaths::existing(&root).expect("existing"), *run);
        drop(run);
        let line = RunFolder::create(&root).unwrap_err().to_string();
        assert!(line.contains("--resume"), "{line}");
    }

    #[test]
    fn taken_and_unwritable_folders_are_refused_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().expect("temporary folder");
        fs::write(dir.path().join("file"), b"").expect("write");
        let cases = [
            (dir.path().to_path_buf(), "not empty"),
            (dir.path().join("file"), "cannot be written"),
            (dir.path().join("file/under"), "cannot be written"),
            (PathBuf::from("/proc/no/such"), "cannot be written"),
            (PathBuf::from(""), "cannot be written"),
        ];
        for (path, words) in cases {
            let line = RunFolder::create(&path).expect_err("refused").to_string();
            assert!(line.contains(words) && !line.contains('\n'), "{}: {line}", path.display());
        }
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
        for path in ["/no/such", dir.path().to_str().expect("path"), "/dev/null"] {
            let line = RunPaths::existing(path).expect_err("no run").to_string();
            assert!(line.contains("not a run folder"), "{line}");
        }
    }

    #[test]
    fn discarding_a_new_run_leaves_nothing() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let run = RunFolder::create(dir.path().join("a/b/c")).expect("create");
        run.write_config(&Config::default()).expect("write");
        run.discard();
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
    }
}

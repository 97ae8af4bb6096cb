//! What a run keeps of the data it was trained with, so that whoever comes later knows whose data it is (specification,
//! "Files of a run").

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::RunPaths;
use crate::dataset::TaskData;
use crate::error::{Error, Result};
use crate::files::atomic;

/// `data.json` and `identifiers.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunData {
    /// Checksum of the training rows ([`TaskData::fingerprint`]).
    pub fingerprint: u32,
    /// The set's folder as seen from the run's, so that both may be moved together; `None` of a generated set.
    #[serde(default)]
    pub from_run: Option<PathBuf>,
    /// Name of every puzzle identifier; in a file of their own.
    #[serde(skip)]
    pub identifiers: Vec<String>,
}

impl RunData {
    /// What there is to keep of the set that a run in the folder `root` is trained with; `dir` is the set's folder.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn of(data: &TaskData, root: &Path, dir: &str) -> Result<Self> {
        let from_run = if dir.is_empty() { None } else { path_between(root, Path::new(dir)) };
        Ok(Self { fingerprint: data.fingerprint()?, from_run, identifiers: data.dataset().identifiers.clone() })
    }

    /// Writes the files.
    pub fn write(&self, run: &RunPaths) -> Result<()> {
        let names = serde_json::to_vec(&self.identifiers).expect("names serialize");
        atomic::write_bytes(&run.identifiers(), &names)?;
        let json = serde_json::to_string_pretty(self).expect("paths and numbers serialize");
        atomic::write_bytes(&run.data(), format!("{json}\n").as_bytes())
    }

    /// What a run has kept; `None` of one that was started before runs did.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what was written.
    pub fn read(run: &RunPaths) -> Result<Option<Self>> {
        let path = run.data();
        if !path.exists() {
            return Ok(None);
        }
        let fault = |path: &Path, e: serde_json::Error| {
            Error::input(format!("{}: is not what `trm train` wrote there ({e}); bring it back", path.display()))
        };
        let bytes = |path: &Path| fs::read(path).map_err(|e| Error::io(path, e));
        let mut data: Self = serde_json::from_slice(&bytes(&path)?).map_err(|e| fault(&path, e))?;
        let names = run.identifiers();
        data.identifiers = serde_json::from_slice(&bytes(&names)?).map_err(|e| fault(&names, e))?;
        Ok(Some(data))
    }

    /// Refuses to go on with other data than this, and says what differs.
    pub fn refuse_other(&self, other: &Self, root: &Path) -> Result<()> {
        let fault = |what: String| {
            Err(Error::input(format!(
                "{}: the training data is not what this run started with ({what}); bring it back, or train into a new folder",
                root.display()
            )))
        };
        let (mine, theirs) = (&self.identifiers, &other.identifiers);
        if mine.len() != theirs.len() {
            return fault(format!("it had {} puzzle identifiers, and these are {}", mine.len(), theirs.len()));
        }
        if let Some(at) = (0..mine.len()).find(|&at| mine[at] != theirs[at]) {
            return fault(format!("puzzle identifier {at} was {}, and is {}", mine[at], theirs[at]));
        }
        if self.fingerprint != other.fingerprint {
            return fault("its training rows differ".into());
        }
        Ok(())
    }
}

/// The folder of the set that a run was trained with: where its settings say, or else in the place that it had beside the
/// run.
pub fn set_folder(run: &RunPaths, dir: &str) -> PathBuf {
    let said = PathBuf::from(dir);
    let kept = RunData::read(run).ok().flatten().and_then(|data| data.from_run);
    match kept.map(|from_run| run.root().join(from_run)) {
        Some(beside) if !said.is_dir() && beside.is_dir() => beside,
        _ => said,
    }
}

/// How to get from one folder to another; `None` where that is not known.
fn path_between(from: &Path, to: &Path) -> Option<PathBuf> {
    let (from, to) = (fs::canonicalize(from).ok()?, fs::canonicalize(to).ok()?);
    let parts = |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let (from, to) = (parts(&from), parts(&to));
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n(Component::ParentDir.as_os_str().to_owned(), from.len() - shared);
    Some(up.chain(to[shared..].iter().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::RunFolder;
    use crate::config::Config;
    use crate::dataset::sudoku;

    #[test]
    fn what_is_kept_is_read_again_and_other_data_is_refused_by_what_differs() {
        let home = tempfile::tempdir().expect("temporary folder");
        let folder = RunFolder::create(home.path().join("runs/a")).expect("create");
        folder.write_config(&Config::default()).expect("write");
        assert_eq!(RunData::read(&folder).expect("read"), None);
        let set = home.path().join("sets/x");
        let data = sudoku::build(4, 5, 2, 2, 1).expect("data");
        data.write(&set).expect("write");
        let data = TaskData::new(data).expect("data");
        let kept = RunData::of(&data, folder.root(), &set.display().to_string()).expect("kept");
        kept.write(&folder).expect("write");
        assert_eq!(RunData::read(&folder).expect("read"), Some(kept.clone()));
        assert_eq!(kept.from_run, Some(PathBuf::from("../../sets/x")));
        assert!(set_folder(&folder, "nowhere").is_dir());
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let identifiers: Vec<String> = names(&["<blank>", "a", "b"]);
        let known = RunData { identifiers, ..kept };
        known.write(&folder).expect("write");
        assert_eq!(RunData::read(&folder).expect("read"), Some(known.clone()));
        for (other, what) in [
            (RunData { identifiers: names(&["<blank>", "b", "a"]), ..known.clone() }, "identifier 1 was a, and is b"),
            (
                RunData { identifiers: names(&["<blank>"]), ..known.clone() },
                "had 3 puzzle identifiers, and these are 1",
            ),
            (RunData { fingerprint: known.fingerprint ^ 1, ..known.clone() }, "training rows differ"),
        ] {
            let line = known.refuse_other(&other, folder.root()).expect_err("other data").to_string();
            assert!(line.contains(what), "{line}");
        }
        fs::write(folder.data(), "{").expect("write");
        assert!(RunData::read(&folder).expect_err("garbage").to_string().contains("data.json"));
    }
}

//! The published files. Every fault is one line that names file, task, pair and place.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::puzzle::arc::{Grid, Pair, Task};
use crate::{Error, Result};

/// Pairs a task may have: offsets are drawn from streams numbered in 16 bits.
const MOST_PAIRS: usize = 1000;

/// A named collection of tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// `training`, `evaluation`, …
    pub name: String,
    /// In the order of the file.
    pub tasks: Vec<Task>,
    /// Whether test pairs have their answers; without, answers are one cell of background.
    pub solved: bool,
}

#[derive(Deserialize)]
struct RawTask {
    train: Vec<RawPair>,
    test: Vec<RawPair>,
}

#[derive(Deserialize)]
struct RawPair {
    input: Vec<Vec<i64>>,
    output: Option<Vec<Vec<i64>>>,
}

/// An object's entries in order, those with equal keys included.
struct Entries<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = Vec<(String, T)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tasks by their ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Collect(std::marker::PhantomData)).map(Self)
    }
}

/// Reads the subset `name` of the files in `dir`: a folder `dir/name` of one file per task, else Kaggle's
/// `dir/<prefix>_<name>_challenges.json` with its `…_solutions.json`. Where there is no file of solutions, answers that
/// are not in the challenges are unknown.
pub fn read_subset(dir: &Path, prefix: &str, name: &str) -> Result<Subset> {
    let folder = dir.join(name);
    if !name.is_empty() && folder.is_dir() {
        return read_folder(&folder, name);
    }
    let challenges = dir.join(format!("{prefix}_{name}_challenges.json"));
    if !challenges.is_file() {
        let known = subsets_in(dir, prefix)?;
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(fault(&challenges, format!("is missing; the subsets in the folder are: {known}")));
    }
    let Entries(raw) = read_json::<Entries<RawTask>>(&challenges)?;
    let path = dir.join(format!("{prefix}_{name}_solutions.json"));
    let solved = path.is_file();
    let mut solutions: BTreeMap<String, Vec<Vec<Vec<i64>>>> = BTreeMap::new();
    if solved {
        for (id, grids) in read_json::<Entries<_>>(&path)?.0 {
            if solutions.insert(id.clone(), grids).is_some() {
                return Err(fault(&path, format!("has task {id} twice; remove one")));
            }
        }
    }
    let mut tasks = Vec::with_capacity(raw.len());
    let mut seen = HashSet::new();
    let mut answered = true;
    for (id, raw) in raw {
        if !seen.insert(id.clone()) {
            return Err(fault(&challenges, format!("has task {id} twice; remove one")));
        }
        let mut task = task(&challenges, &id, raw, &mut answered)?;
        if solved {
            let answers = solutions.remove(&id).ok_or_else(|| fault(&path, format!("has no solution of task {id}")))?;
            if answers.len() != task.test.len() {
                let (n, m) = (answers.len(), task.test.len());
                return Err(fault(&path, format!("has {n} outputs for the {m} test inputs of task {id}")));
            }
            for ((at, pair), rows) in task.test.iter_mut().enumerate().zip(answers) {
                let place = || format!("task {id}, output {}", at + 1);
                pair.output = Grid::from_rows(&rows).map_err(|e| fault(&path, format!("{}: {e}", place())))?;
            }
        }
        tasks.push(task);
    }
    if let Some((id, _)) = solutions.first_key_value() {
        return Err(fault(&path, format!("solves task {id}, which {} does not have", challenges.display())));
    }
    if tasks.is_empty() {
        return Err(fault(&challenges, "has no tasks"));
    }
    Ok(Subset { name: name.into(), tasks, solved: solved || answered })
}

/// ARC's own files in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    dir: PathBuf,
    prefix: String,
    /// Names of the subsets.
    pub subsets: Vec<String>,
}

impl Sources {
    /// The files that a folder holds: in Kaggle's form, or one file per task, in folders or in itself. `None`: it is a data
    /// set, or nothing of ARC's.
    pub fn of(dir: &Path) -> Option<Self> {
        let names =
            || Some(fs::read_dir(dir).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()));
        let stems = names()?.filter_map(|name| Some(name.strip_suffix("_challenges.json")?.to_owned()));
        let found = |dir: &Path, prefix: &str, subsets: Vec<String>| {
            (!subsets.is_empty()).then(|| Self { dir: dir.into(), prefix: prefix.into(), subsets })
        };
        if let Some((prefix, _)) = stems.min().as_deref().and_then(|stem| stem.rsplit_once('_')) {
            return found(dir, prefix, subsets_in(dir, prefix).ok()?);
        }
        let is_set = |folder: &Path| folder.join("identifiers.json").exists() || folder.join("dataset.json").exists();
        if is_set(dir) || names()?.any(|name| is_set(&dir.join(name))) {
            return None;
        }
        if names()?.any(|name| is_json(Path::new(&name))) {
            let (parent, name) = (dir.parent()?, dir.file_name()?.to_string_lossy().into_owned());
            return found(parent, "", vec![name]);
        }
        found(dir, "", subsets_in(dir, "").ok()?)
    }

    /// All tasks of a subset.
    pub fn read(&self, subset: &str) -> Result<Subset> {
        read_subset(&self.dir, &self.prefix, subset)
    }
}

/// Reads one task from a file of its own; its id is the file's name.
pub fn read_task(path: &Path) -> Result<Task> {
    let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    task(path, &id, read_json(path)?, &mut true)
}

/// Names of the subsets in a folder: Kaggle's files, or where there are none, folders of task files.
pub fn subsets_in(dir: &Path, prefix: &str) -> Result<Vec<String>> {
    let mut names = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
        let entry = entry.map_err(|e| Error::io(dir, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let inner = name.strip_prefix(prefix).and_then(|n| n.strip_prefix('_')?.strip_suffix("_challenges.json"));
        match inner {
            Some(inner) => names.0.push(inner.to_owned()),
            None if task_files(&entry.path()).is_ok_and(|files| !files.is_empty()) => names.1.push(name),
            None => {}
        }
    }
    names.0.sort();
    names.1.sort();
    Ok(if names.0.is_empty() { names.1 } else { names.0 })
}

fn read_folder(folder: &Path, name: &str) -> Result<Subset> {
    let mut solved = true;
    let mut seen = HashSet::new();
    let mut tasks = Vec::new();
    for path in task_files(folder).map_err(|e| Error::io(folder, e))? {
        let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if !seen.insert(id.clone()) {
            return Err(fault(&path, format!("task {id} is there twice; remove one")));
        }
        tasks.push(task(&path, &id, read_json(&path)?, &mut solved)?);
    }
    if tasks.is_empty() {
        return Err(fault(folder, "holds no .json file; expected one for each task"));
    }
    Ok(Subset { name: name.into(), tasks, solved })
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

/// The `.json` files of a folder and of the folders in it, by name.
fn task_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            let inner = fs::read_dir(&path)?.filter_map(|entry| Some(entry.ok()?.path()));
            files.extend(inner.filter(|path| is_json(path)));
        } else if is_json(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn task(path: &Path, id: &str, raw: RawTask, solved: &mut bool) -> Result<Task> {
    let bad = |what: String| fault(path, format!("task {id}{what}"));
    if id.is_empty() || id.contains("|||") || id.chars().any(char::is_control) {
        return Err(fault(path, format!("task {id:?} has a name that identifiers cannot carry; rename it")));
    }
    let pairs = |list: Vec<RawPair>, name: &str, solved: &mut bool| {
        if !(1..=MOST_PAIRS).contains(&list.len()) {
            return Err(bad(format!(" has {} {name} pairs; expected 1 to {MOST_PAIRS}", list.len())));
        }
        let pair = |(at, raw): (usize, RawPair)| {
            let grid = |rows: &[Vec<i64>], what: &str| {
                Grid::from_rows(rows).map_err(|e| bad(format!(", {name} pair {}, {what}: {e}", at + 1)))
            };
            let output = match &raw.output {
                Some(rows) => grid(rows, "output")?,
                None if name == "test" => {
                    *solved = false;
                    Grid::unknown()
                }
                None => return Err(bad(format!(", {name} pair {}: has no output", at + 1))),
            };
            Ok(Pair { input: grid(&raw.input, "input")?, output })
        };
        list.into_iter().enumerate().map(pair).collect::<Result<Vec<Pair>>>()
    };
    Ok(Task { id: id.into(), train: pairs(raw.train, "train", solved)?, test: pairs(raw.test, "test", solved)? })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    super::super::json::read_json(path)
}

fn fault(path: &Path, what: impl fmt::Display) -> Error {
    Error::input(format!("{}: {what}", path.display()))
}

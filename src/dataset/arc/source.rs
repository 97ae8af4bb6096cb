//! The published files. Every fault is one line that names file, task, pair and place.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::raw::{Cell, Entries, RawPair, RawTask, Sides};
use crate::dataset::json::{self, plain};
use crate::puzzle::arc::{ArcError, Grid, Pair, Task};
use crate::{Error, Result};

/// Pairs a task may have: offsets are drawn from streams numbered in 16 bits.
const MOST_PAIRS: usize = 60_000;

/// Tasks that a message names.
const NAMED: usize = 20;

/// How tasks are read.
#[derive(Clone, Copy, Debug)]
pub struct ReadOptions {
    /// Side of the board that grids have to fit.
    pub side: usize,
    /// Leave out tasks that cannot be used.
    pub skip_bad: bool,
    /// Of a task that is one list of pairs: how many, the last ones, are its test pairs.
    pub tests: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { side: super::SIDE, skip_bad: false, tests: 1 }
    }
}

/// A named collection of tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subset {
    /// `training`, `evaluation`, …
    pub name: String,
    /// In the order of the file.
    pub tasks: Vec<Task>,
    /// Whether a task was one list of pairs, as generators of examples write them.
    pub lists: bool,
    /// Tasks that were left out, and why.
    pub left_out: Vec<(String, String)>,
}

impl Subset {
    /// A subset of these tasks.
    pub fn of(name: &str, tasks: Vec<Task>) -> Self {
        Self { name: name.into(), tasks, ..Self::default() }
    }

    /// Test inputs whose answers are not known, and all of them.
    pub fn unknown(&self) -> (usize, usize) {
        let pairs = || self.tasks.iter().flat_map(|task| &task.test);
        (pairs().filter(|pair| !pair.is_answered()).count(), pairs().count())
    }

    /// Takes a task, or leaves it out.
    fn take(&mut self, id: &str, task: Result<Task>, options: ReadOptions) -> Result<()> {
        match task {
            Ok(task) => self.tasks.push(task),
            Err(error) if options.skip_bad => self.left_out.push((id.into(), error.to_string())),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The subset, once all its tasks fit the board.
    fn finished(mut self, path: &Path, options: ReadOptions) -> Result<Self> {
        let side_of = |task: &Task| task.pairs().map(Pair::side).max().unwrap_or(0);
        let all = self.tasks.len();
        let (fitting, large): (Vec<Task>, Vec<Task>) =
            self.tasks.into_iter().partition(|task| side_of(task) <= options.side);
        self.tasks = fitting;
        if !large.is_empty() && !options.skip_bad {
            let named = large.iter().take(NAMED).map(|task| format!("{} ({})", task.id, side_of(task)));
            let named = named.collect::<Vec<_>>().join(", ");
            let more = if large.len() > NAMED { format!(" and {} more", large.len() - NAMED) } else { String::new() };
            let largest = large.iter().map(side_of).max().unwrap_or(0);
            return Err(fault(
                path,
                format!(
                    "{} of {all} tasks have grids that do not fit a board of side {}: {named}{more}; give --side {largest}, or \
                     leave them out with --skip-bad",
                    large.len(),
                    options.side
                ),
            ));
        }
        self.left_out
            .extend(large.iter().map(|task| (task.id.clone(), format!("has a grid of side {}", side_of(task)))));
        match (self.tasks.is_empty(), self.left_out.first()) {
            (false, _) => Ok(self),
            (true, None) => Err(fault(path, "has no tasks")),
            (true, Some((id, why))) => {
                let count = self.left_out.len();
                Err(fault(path, format!("none of {count} tasks can be used; task {id}: {why}")))
            }
        }
    }
}

/// Reads the subset `name` of the files in `dir`: a folder `dir/name` of one file per task, else Kaggle's
/// `dir/<prefix>_<name>_challenges.json` with its `…_solutions.json`. Where there is no file of solutions, answers that
/// are not in the challenges are unknown.
pub fn read_subset(dir: &Path, prefix: &str, name: &str, options: ReadOptions) -> Result<Subset> {
    let folder = dir.join(name);
    if !name.is_empty() && folder.is_dir() {
        return read_folder(&folder, name, options);
    }
    let challenges = dir.join(format!("{prefix}_{name}_challenges.json"));
    if !challenges.is_file() {
        let known = subsets_in(dir, prefix)?;
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        return Err(fault(&challenges, format!("is missing; the subsets in the folder are: {known}")));
    }
    let raw = read_tasks(&challenges, options)?;
    let path = dir.join(format!("{prefix}_{name}_solutions.json"));
    let solved = path.is_file();
    let mut solutions: BTreeMap<String, Vec<Vec<Vec<Cell>>>> = BTreeMap::new();
    if solved {
        for (id, grids) in read_json::<Entries<_>>(&path)?.0 {
            if solutions.insert(id.clone(), grids).is_some() {
                return Err(fault(&path, format!("has task {id} twice; remove one")));
            }
        }
    }
    let mut subset = Subset::of(name, Vec::with_capacity(raw.len()));
    let mut seen = HashSet::new();
    for (id, raw) in raw {
        if !seen.insert(id.clone()) {
            return Err(fault(&challenges, format!("has task {id} twice; remove one")));
        }
        subset.lists |= matches!(raw, Ok(RawTask::List(_)));
        let answers = solved.then(|| solutions.remove(&id));
        let read = raw.and_then(|raw| task(&challenges, &id, raw, options)).and_then(|task| match answers {
            Some(answers) => answered(&path, task, answers),
            None => Ok(task),
        });
        subset.take(&id, read, options)?;
    }
    if let Some((id, _)) = solutions.first_key_value() {
        return Err(fault(&path, format!("solves task {id}, which {} does not have", challenges.display())));
    }
    subset.finished(&challenges, options)
}

/// The tasks of a file. Where bad ones are left out, each is taken by itself, since one that is not what it should be makes the
/// whole file something else.
fn read_tasks(path: &Path, options: ReadOptions) -> Result<Vec<(String, Result<RawTask>)>> {
    if !options.skip_bad {
        let Entries(tasks) = read_json::<Entries<RawTask>>(path)?;
        return Ok(tasks.into_iter().map(|(id, task)| (id, Ok(task))).collect());
    }
    let Entries(tasks) = read_json::<Entries<serde_json::Value>>(path)?;
    let one = |value| serde_json::from_value(value).map_err(|e| fault(path, plain(&e)));
    Ok(tasks.into_iter().map(|(id, value)| (id, one(value))).collect())
}

/// A task with the answers that a file of solutions has for it.
fn answered(path: &Path, mut task: Task, answers: Option<Vec<Vec<Vec<Cell>>>>) -> Result<Task> {
    let id = &task.id;
    let answers = answers.ok_or_else(|| fault(path, format!("has no solution of task {id}")))?;
    if answers.len() != task.test.len() {
        let (n, m) = (answers.len(), task.test.len());
        return Err(fault(path, format!("has {n} outputs for the {m} test inputs of task {id}")));
    }
    for ((at, pair), rows) in task.test.iter_mut().enumerate().zip(answers) {
        let place = || format!("task {id}, output {}", at + 1);
        pair.output = match rows.is_empty() {
            true => Grid::unknown(),
            false => grid(&rows).map_err(|e| fault(path, format!("{}: {e}", place())))?,
        };
    }
    Ok(task)
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
        read_subset(&self.dir, &self.prefix, subset, ReadOptions::default())
    }
}

/// Reads one task from a file of its own; its id is the file's name.
pub fn read_task(path: &Path) -> Result<Task> {
    let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    task(path, &id, read_json(path)?, ReadOptions::default())
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

fn read_folder(folder: &Path, name: &str, options: ReadOptions) -> Result<Subset> {
    let files = task_files(folder).map_err(|e| Error::io(folder, e))?;
    if files.is_empty() {
        return Err(fault(folder, "holds no .json file; expected one for each task"));
    }
    let mut subset = Subset::of(name, Vec::with_capacity(files.len()));
    let mut seen = HashSet::new();
    for path in files {
        let id = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        if !seen.insert(id.clone()) {
            return Err(fault(&path, format!("task {id} is there twice; remove one")));
        }
        let raw = read_json::<RawTask>(&path);
        subset.lists |= matches!(raw, Ok(RawTask::List(_)));
        subset.take(&id, raw.and_then(|raw| task(&path, &id, raw, options)), options)?;
    }
    subset.finished(folder, options)
}

fn is_json(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
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

fn task(path: &Path, id: &str, raw: RawTask, options: ReadOptions) -> Result<Task> {
    let bad = |what: String| fault(path, format!("task {id}{what}"));
    if id.is_empty() || id.contains("|||") || id.chars().any(char::is_control) {
        return Err(fault(path, format!("task {id:?} has a name that identifiers cannot carry; rename it")));
    }
    let (train, test) = match raw {
        RawTask::Sides(Sides { train, test }) => (train, test),
        RawTask::List(mut train) => {
            let (all, tests) = (train.len(), options.tests);
            if all <= tests {
                return Err(bad(format!(
                    " is a list of {all} pairs, of which {tests} would be held out; nothing is left to show"
                )));
            }
            let test = train.split_off(all - tests);
            (train, test)
        }
    };
    let pairs = |list: Vec<RawPair>, name: &str| {
        if !(1..=MOST_PAIRS).contains(&list.len()) {
            return Err(bad(format!(" has {} {name} pairs; expected 1 to {MOST_PAIRS}", list.len())));
        }
        let pair = |(at, raw): (usize, RawPair)| {
            let grid = |rows: &[Vec<Cell>], what: &str| {
                grid(rows).map_err(|e| bad(format!(", {name} pair {}, {what}: {e}", at + 1)))
            };
            let output = match raw.output.as_ref().filter(|rows| !rows.is_empty()) {
                Some(rows) => grid(rows, "output")?,
                None if name == "test" => Grid::unknown(),
                None => return Err(bad(format!(", {name} pair {}: has no output", at + 1))),
            };
            Ok(Pair { input: grid(&raw.input, "input")?, output })
        };
        list.into_iter().enumerate().map(pair).collect::<Result<Vec<Pair>>>()
    };
    Ok(Task { id: id.into(), train: pairs(train, "train")?, test: pairs(test, "test")? })
}

fn grid(rows: &[Vec<Cell>]) -> Result<Grid, ArcError> {
    let rows: Vec<Vec<i64>> = rows.iter().map(|row| row.iter().map(|cell| cell.0).collect()).collect();
    Grid::from_rows(&rows)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    json::read_json(path)
}

fn fault(path: &Path, what: impl fmt::Display) -> Error {
    Error::input(format!("{}: {what}", path.display()))
}

//! A set of published subsets, and a set of originals expanded to all its copies.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Subset;
use crate::dataset::{Dataset, Split, json as json_file};
use crate::puzzle::arc::set::{self, Options, TaskCopies, lay_out};
use crate::puzzle::arc::{Augmentation, Task, VOCAB};
use crate::{Error, Result};

/// Beside the splits: the tasks of the test set, as they were read.
pub const TEST_PUZZLES_FILE: &str = "test_puzzles.json";

/// Beside the splits of a set that holds originals only: what is needed to make the copies.
pub const ONLINE_FILE: &str = "online.json";

/// Makes the set of some subsets, the one called `test_set` among them.
///
/// Tasks are shuffled within their subset. Rows are generated when they are needed; the result depends on the arguments alone.
pub fn build(subsets: Vec<Subset>, test_set: &str, options: Options) -> Result<Dataset> {
    check(&subsets, test_set, options)?;
    let mut tasks: Vec<(Task, bool)> = Vec::new();
    for (at, subset) in subsets.into_iter().enumerate() {
        let mut inside = subset.tasks;
        set::shuffle(&mut inside, at, options.seed);
        tasks.extend(inside.into_iter().map(|task| (task, subset.name == test_set)));
    }
    Dataset::try_from(lay_out(tasks, options)?)
}

fn check(subsets: &[Subset], test_set: &str, options: Options) -> Result<()> {
    if !subsets.iter().any(|subset| subset.name == test_set) {
        let names: Vec<&str> = subsets.iter().map(|subset| subset.name.as_str()).collect();
        let names = names.join(", ");
        return Err(Error::input(format!(
            "the test set {test_set:?} is none of the subsets {names}; name one of them"
        )));
    }
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for subset in subsets {
        for task in &subset.tasks {
            if let Some(before) = seen.insert(&task.id, &subset.name) {
                return Err(Error::input(format!(
                    "task {} is in {before} and in {}; leave one of them out, or have it left out with --disjoint",
                    task.id, subset.name
                )));
            }
            if let Some(pair) = task.pairs().find(|pair| pair.side() > options.side) {
                let (side, found) = (options.side, pair.side());
                return Err(Error::input(format!(
                    "task {}: a grid of side {found} on a board of side {side}",
                    task.id
                )));
            }
        }
    }
    Ok(())
}

/// What `test_puzzles.json` holds: the test set's tasks by name, in the order of the groups.
pub fn test_puzzles(dataset: &Dataset) -> Result<Value> {
    let tasks = dataset.arc_tasks(0)?;
    Ok(Value::Object(tasks.iter().map(|task| (task.id.clone(), json!(task))).collect::<Map<_, _>>()))
}

/// What [`ONLINE_FILE`] holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnlineFile {
    /// Seed of the offsets.
    seed: u64,
}

/// The content of [`ONLINE_FILE`] for a set built with `seed`.
pub fn online_file(seed: u64) -> Value {
    json!(OnlineFile { seed })
}

/// Whether the set in the folder `root` holds originals only, with what is needed to make their copies.
pub fn is_online(root: &Path) -> bool {
    root.join(ONLINE_FILE).is_file()
}

/// The set of all copies that a set of originals in the folder `root` stands for: row by row and identifier by
/// identifier the one that [`Stored::All`](set::Stored::All) would have given.
pub fn expand(root: &Path, originals: &Dataset) -> Result<Dataset> {
    let path = root.join(ONLINE_FILE);
    if !is_online(root) {
        return Err(Error::input(format!(
            "{}: is missing, so the copies cannot be made; import the set with --online, or set data.augment = \"stored\"",
            path.display()
        )));
    }
    let OnlineFile { seed } = json_file::read_json(&path)?;
    let bad = |what: String| Error::input(format!("{}: {what}; import the set again", root.display()));
    if let Some(why) = originals.why_no_named_copies() {
        return Err(bad(format!("is no ARC set ({why})")));
    }
    let side = originals.puzzle.width;
    let names = &originals.identifiers;
    let parsed: Vec<Augmentation> = names[1..]
        .iter()
        .map(|name| Augmentation::of_name(name).map(|(_, made)| made).map_err(|e| bad(e.to_string())))
        .collect::<Result<_>>()?;
    let is_original = |identifier: usize| parsed[identifier - 1] == Augmentation::IDENTITY;
    let mut splits = BTreeMap::new();
    for (name, split) in &originals.splits {
        if split.puzzles() != split.groups() {
            return Err(bad(format!("{name} holds copies already, so augment = \"online\" has nothing to do")));
        }
        let mut tasks = Vec::with_capacity(split.groups());
        for puzzle in 0..split.puzzles() {
            let first = split.puzzle_identifiers[puzzle] as usize;
            if first == 0 || !is_original(first) {
                return Err(bad(format!("{name}: puzzle {puzzle} is no original")));
            }
            let end = (first + 1..names.len()).find(|&id| is_original(id)).unwrap_or(names.len());
            let pair =
                |row: usize| split.arc_pair(row)?.ok_or_else(|| bad(format!("{name}: row {row} is no pair of grids")));
            tasks.push(TaskCopies {
                pairs: split.puzzle(puzzle).map(pair).collect::<Result<_>>()?,
                copies: parsed[first - 1..end - 1].into(),
                identifier: first as u32,
                first_row: 0,
            });
        }
        let translation = (name != super::TEST).then_some(seed);
        let made = set::split(tasks, translation, side)?;
        let mut made = Split::of_generated(made, side * side, VOCAB, names.len())?;
        made.columns = split.columns.clone();
        splits.insert(name.clone(), made);
    }
    Ok(Dataset { splits, identifiers: names.clone(), puzzle: originals.puzzle.clone() })
}

//! From tasks to splits: copies, identifiers, rows by number. Nothing here is as large as the set.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Subset;
use super::rows::{Rows, Source};
use crate::dataset::tokens::Tokens;
use crate::dataset::{Dataset, Metadata, Split, format};
use crate::puzzle::arc::generator::generate;
use crate::puzzle::arc::{Augmentation, Pair, Task, VOCAB};
use crate::puzzle::{Description, Kind};
use crate::rng::Rng;
use crate::{Error, Result};

/// Beside the splits: the tasks of the test set, as they were read.
pub const TEST_PUZZLES_FILE: &str = "test_puzzles.json";

/// Beside the splits of a set that holds originals only: what is needed to make the copies.
pub const ONLINE_FILE: &str = "online.json";

/// Draws for every copy wanted.
const TRIES: usize = 5;

/// Streams of the seed: the order of a subset's tasks, a task's copies. (Offsets have theirs in `rows`.)
const ORDER: u64 = 1 << 60;
const COPIES: u64 = 1 << 61;

/// How a set is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Copies of a task at most, itself not counted.
    pub aug: usize,
    /// Fixes every draw.
    pub seed: u64,
    /// Side of the board.
    pub side: usize,
    /// Which rows the set has.
    pub stored: Stored,
    /// Pairs that a puzzle of `train` holds at most; a task with more takes several groups, all under its identifiers.
    /// `None`: one group, as published.
    pub sheet: Option<usize>,
}

/// [`Options::sheet`] of generated tasks. Of a group, the sampler takes one puzzle's pairs together: tasks of many
/// demonstrations would fill whole batches one by one, and each would unlearn the one before.
pub const GENERATED_SHEET: usize = 1;

/// Which rows a set has; identifiers are the same either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Those of all copies.
    All,
    /// Those of the tasks themselves.
    Originals,
}

/// A task, its copies and its identifiers.
struct Planned {
    task: Task,
    copies: Arc<[Augmentation]>,
    identifier: u32,
    in_test: bool,
}

/// Makes the set of some subsets, the one called `test_set` among them.
///
/// Tasks are shuffled within their subset. The rows are made when asked for; the result depends on the arguments alone.
pub fn build(subsets: Vec<Subset>, test_set: &str, options: Options) -> Result<Dataset> {
    check(&subsets, test_set, options)?;
    let mut tasks: Vec<(Task, bool)> = Vec::new();
    for (at, subset) in subsets.into_iter().enumerate() {
        let mut inside = subset.tasks;
        Rng::stream(options.seed, ORDER + at as u64).shuffle(&mut inside);
        tasks.extend(inside.into_iter().map(|task| (task, subset.name == test_set)));
    }
    let copies: Vec<Arc<[Augmentation]>> = tasks
        .par_iter()
        .enumerate()
        .map(|(at, (task, _))| copies(task, options.aug, &mut Rng::stream(options.seed, COPIES + at as u64)).into())
        .collect();
    let mut identifiers = vec!["<blank>".to_string()];
    let plan = tasks.into_iter().zip(copies).map(|((task, in_test), copies)| {
        let identifier = identifiers.len() as u32;
        identifiers.extend(copies.iter().map(|copy| copy.name(&task.id)));
        Planned { task, copies, identifier, in_test }
    });
    let mut plan: Vec<Planned> = plan.collect();
    if options.stored == Stored::Originals {
        plan.iter_mut().for_each(|planned| planned.copies = [Augmentation::IDENTITY].into());
    }
    let train = plan.iter().map(|planned| match planned.in_test {
        true => (planned, planned.task.train.clone()),
        false => (planned, planned.task.pairs().cloned().collect()),
    });
    let test = plan.iter().filter(|planned| planned.in_test).map(|planned| (planned, planned.task.test.clone()));
    let source = |(planned, pairs): (&Planned, Vec<Pair>)| Source {
        pairs,
        copies: planned.copies.clone(),
        identifier: planned.identifier,
        first_row: 0,
    };
    let sheet = options.sheet.unwrap_or(usize::MAX);
    let train = train
        .flat_map(|(planned, pairs)| pairs.chunks(sheet).map(|pairs| (planned, pairs.to_vec())).collect::<Vec<_>>());
    let known = identifiers.len();
    let splits = BTreeMap::from([
        ("train".to_string(), split(train.map(source).collect(), Some(options.seed), options.side, known)?),
        ("test".to_string(), split(test.map(source).collect(), None, options.side, known)?),
    ]);
    Ok(Dataset { splits, identifiers, puzzle: Description::of(Kind::Arc, options.side * options.side) })
}

/// A set of generated tasks that share `train` demonstrations and `test` test pairs evenly.
pub fn build_small(tasks: usize, (train, test): (usize, usize), side: usize, aug: usize, seed: u64) -> Result<Dataset> {
    if train < tasks || test < tasks {
        return Err(Error::input(format!(
            "{tasks} tasks need a demonstration and a test pair each, not {train} and {test} in all; give more, or fewer \
             tasks"
        )));
    }
    let tasks = generate(tasks, train / tasks, test / tasks, side, seed)?;
    let subset = Subset { name: "generated".into(), tasks, solved: true };
    build(vec![subset], "generated", Options { aug, seed, side, stored: Stored::All, sheet: Some(GENERATED_SHEET) })
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

/// The task itself and up to `aug` copies that differ from it and from each other as sets of pairs.
fn copies(task: &Task, aug: usize, rng: &mut Rng) -> Vec<Augmentation> {
    // What a copy looks like: its pairs, sorted, a byte a cell.
    let key = |made: &Augmentation| {
        let mut pairs: Vec<Vec<u8>> = task.pairs().map(|pair| bytes(&made.apply_pair(pair))).collect();
        pairs.sort_unstable();
        pairs.concat()
    };
    let mut copies = vec![Augmentation::IDENTITY];
    if aug == 0 {
        return copies;
    }
    let mut seen = HashSet::from([key(&Augmentation::IDENTITY)]);
    for _ in 0..TRIES.saturating_mul(aug) {
        let made = Augmentation::random(rng);
        if seen.insert(key(&made)) {
            copies.push(made);
        }
        if copies.len() > aug {
            break;
        }
    }
    copies
}

/// Shapes and cells of a pair.
fn bytes(pair: &Pair) -> Vec<u8> {
    let grids = [&pair.input, &pair.output];
    let shapes = grids.iter().flat_map(|grid| [grid.height() as u8, grid.width() as u8]);
    shapes.chain(grids.iter().flat_map(|grid| grid.cells().iter().copied())).collect()
}

/// A split of these tasks, rows numbered through.
fn split(mut tasks: Vec<Source>, translation: Option<u64>, side: usize, identifiers: usize) -> Result<Split> {
    let (mut puzzle_identifiers, mut puzzle_indices, mut group_indices) = (Vec::new(), vec![0u32], vec![0u32]);
    let mut rows = 0usize;
    for task in &mut tasks {
        task.first_row = rows;
        for copy in 0..task.copies.len() {
            rows += task.pairs.len();
            puzzle_identifiers.push(task.identifier + copy as u32);
            puzzle_indices.push(rows as u32);
        }
        if i32::try_from(rows).is_err() {
            let most = i32::MAX;
            return Err(Error::input(format!(
                "the set would have more than the format's {most} rows; take fewer copies"
            )));
        }
        group_indices.push(puzzle_identifiers.len() as u32);
    }
    let tasks = Arc::new(tasks);
    let tokens = |outputs| {
        let source = Rows { tasks: tasks.clone(), side, translation, outputs };
        Tokens::generated(rows, side * side, Arc::new(source))
    };
    Ok(Split {
        meta: Metadata {
            pad_id: 0,
            ignore_label_id: Some(0),
            blank_identifier_id: 0,
            vocab_size: VOCAB,
            seq_len: side * side,
            num_puzzle_identifiers: identifiers,
            total_groups: tasks.len(),
            mean_puzzle_examples: rows as f64 / puzzle_identifiers.len() as f64,
            total_puzzles: puzzle_identifiers.len(),
            sets: vec!["all".into()],
        },
        inputs: tokens(false),
        labels: tokens(true),
        puzzle_identifiers,
        puzzle_indices,
        group_indices,
    })
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
/// identifier the one that [`Stored::All`] would have given.
pub fn expand(root: &Path, originals: &Dataset) -> Result<Dataset> {
    let path = root.join(ONLINE_FILE);
    if !is_online(root) {
        return Err(Error::input(format!(
            "{}: is missing, so the copies cannot be made; import the set with --online, or set data.augment = \"stored\"",
            path.display()
        )));
    }
    let OnlineFile { seed } = format::read_json(&path)?;
    let bad = |what: String| Error::input(format!("{}: {what}; import the set again", root.display()));
    if let Some(why) = originals.why_not_arc() {
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
            tasks.push(Source {
                pairs: split.puzzle(puzzle).map(pair).collect::<Result<_>>()?,
                copies: parsed[first - 1..end - 1].into(),
                identifier: first as u32,
                first_row: 0,
            });
        }
        let translation = (name != super::TEST).then_some(seed);
        splits.insert(name.clone(), self::split(tasks, translation, side, names.len())?);
    }
    Ok(Dataset { splits, identifiers: names.clone(), puzzle: originals.puzzle.clone() })
}

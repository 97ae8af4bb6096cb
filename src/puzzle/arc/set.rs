//! From tasks to a training set and a test set: copies, identifiers, rows by number. Nothing here is as large as the set.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;

use rayon::prelude::*;

use super::copied_rows::CopiedRows;
use super::{ARC, Augmentation, Pair, Task, VOCAB};
use crate::puzzle::{BLANK, Description, Generated, GeneratedRows, GeneratedSplit};
use crate::rng::Rng;
use crate::{Error, Result};

pub use super::copied_rows::TaskCopies;

/// Draws for every copy wanted.
const TRIES: usize = 5;

/// Streams of the seed: the order of a subset's tasks, a task's copies. (Offsets have theirs in `copied_rows`.)
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
    pub pairs_per_group: Option<usize>,
}

/// [`Options::pairs_per_group`] of generated tasks. Of a group, the sampler takes one puzzle's pairs together: tasks of many
/// demonstrations would fill whole batches one by one, and each would unlearn the one before.
pub const GENERATED_PAIRS_PER_GROUP: usize = 1;

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

/// Puts the tasks of the subset number `subset` in the order in which a set has them.
pub fn shuffle(tasks: &mut [Task], subset: usize, seed: u64) {
    Rng::stream(seed, ORDER + subset as u64).shuffle(tasks);
}

/// The sets of some tasks, each of which is in the test set or not: of one that is, the demonstrations are trained on and
/// the test pairs held out; of the others, all pairs are trained on. Rows are generated when they are needed; the result
/// depends on the arguments alone.
///
/// # Errors
/// When there are more rows than the published format can count.
pub fn lay_out(tasks: Vec<(Task, bool)>, options: Options) -> Result<Generated> {
    let copies: Vec<Arc<[Augmentation]>> = tasks
        .par_iter()
        .enumerate()
        .map(|(at, (task, _))| copies(task, options.aug, &mut Rng::stream(options.seed, COPIES + at as u64)).into())
        .collect();
    let mut identifiers = vec![BLANK.to_string()];
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
        // What is not answered cannot be learned from.
        false => (planned, planned.task.pairs().filter(|pair| pair.is_answered()).cloned().collect()),
    });
    let test = plan.iter().filter(|planned| planned.in_test).map(|planned| (planned, planned.task.test.clone()));
    let source = |(planned, pairs): (&Planned, Vec<Pair>)| TaskCopies {
        pairs,
        copies: planned.copies.clone(),
        identifier: planned.identifier,
        first_row: 0,
    };
    let most = options.pairs_per_group.unwrap_or(usize::MAX);
    let train = train
        .flat_map(|(planned, pairs)| pairs.chunks(most).map(|pairs| (planned, pairs.to_vec())).collect::<Vec<_>>());
    Ok(Generated {
        train: split(train.map(source).collect(), Some(options.seed), options.side)?,
        test: Some(split(test.map(source).collect(), None, options.side)?),
        puzzle: Description::of(ARC, options.side * options.side),
        vocab_size: VOCAB,
        identifiers,
    })
}

/// The task itself and up to `aug` copies that differ from it and from each other as sets of pairs.
fn copies(task: &Task, aug: usize, rng: &mut Rng) -> Vec<Augmentation> {
    // What a copy looks like: its pairs in no order, a byte a cell. Of a thousand copies of a thousand pairs a hash is enough.
    let key = |made: &Augmentation| {
        let mut pairs: Vec<u128> = task.pairs().map(|pair| hash(&bytes(&made.apply_pair(pair)))).collect();
        pairs.sort_unstable();
        hash(&pairs)
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

/// 128 bits that no two copies share but by a chance of one in 10³⁰.
fn hash(item: &impl Hash) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, item).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// Shapes and cells of a pair.
fn bytes(pair: &Pair) -> Vec<u8> {
    let grids = [&pair.input, &pair.output];
    let shapes = grids.iter().flat_map(|grid| [grid.height() as u8, grid.width() as u8]);
    shapes.chain(grids.iter().flat_map(|grid| grid.cells().iter().copied())).collect()
}

/// A split of these tasks, rows numbered through.
///
/// # Errors
/// When there are more rows than the published format can count.
pub fn split(mut tasks: Vec<TaskCopies>, translation: Option<u64>, side: usize) -> Result<GeneratedSplit> {
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
    let rows =
        |outputs| GeneratedRows::OnDemand(Arc::new(CopiedRows { tasks: tasks.clone(), side, translation, outputs }));
    Ok(GeneratedSplit {
        questions: rows(false),
        answers: rows(true),
        puzzle_identifiers,
        puzzle_indices,
        group_indices,
    })
}

//! Tasks that occur in two subsets, and sets without any.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Formatter};

use rayon::prelude::*;
use serde::Serialize;

use super::Subset;
use crate::puzzle::arc::overlap::{augmentation_between, pair_key};
use crate::puzzle::arc::{Pair, Task};

/// What two subsets have in common; the figures count tasks of the second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Overlap {
    pub first: String,
    pub second: String,
    /// Those with a name that the first subset has too.
    pub same_name: usize,
    /// Those whose pairs, all together, are exactly those of a task of the first.
    pub same_pairs: usize,
    /// The same up to symmetry and colours.
    pub same_up_to_augmentation: usize,
    /// Those that share at least one pair with a task of the first, up to symmetry and colours.
    pub sharing_a_pair: usize,
    /// Test pairs that stand in the first, as a pair of a task, up to symmetry and colours.
    pub test_pairs_there: usize,
}

/// Subsets compared with each other (a subset with itself: its tasks among each other, each pair of tasks once).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverlapReport {
    /// Name, tasks, demonstrations and test pairs of each subset.
    pub subsets: Vec<(String, usize, usize, usize)>,
    /// Each two, and each with itself.
    pub across: Vec<Overlap>,
}

/// The canonical forms of a subset's pairs.
struct Keys<'a> {
    tasks: &'a [Task],
    /// For each task, the keys of demonstrations, then of test pairs.
    keys: Vec<Vec<Box<[u8]>>>,
}

impl<'a> Keys<'a> {
    fn of(tasks: &'a [Task]) -> Self {
        Self { tasks, keys: tasks.par_iter().map(|task| task.pairs().map(pair_key).collect()).collect() }
    }

    /// Tasks by the keys they hold.
    fn index(&self) -> HashMap<&[u8], Vec<usize>> {
        let mut index: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (task, keys) in self.keys.iter().enumerate() {
            for key in keys {
                index.entry(key).or_default().push(task);
            }
        }
        index
    }
}

/// Compares subsets with each other.
pub fn overlaps(subsets: &[Subset]) -> OverlapReport {
    let keys: Vec<Keys<'_>> = subsets.iter().map(|subset| Keys::of(&subset.tasks)).collect();
    let mut across = Vec::new();
    for a in 0..subsets.len() {
        for b in a..subsets.len() {
            let found = compare(&keys[a], &keys[b], a == b);
            across.push(Overlap { first: subsets[a].name.clone(), second: subsets[b].name.clone(), ..found });
        }
    }
    let size = |subset: &Subset| {
        let sum = |count: fn(&Task) -> usize| subset.tasks.iter().map(count).sum();
        (subset.name.clone(), subset.tasks.len(), sum(|task| task.train.len()), sum(|task| task.test.len()))
    };
    OverlapReport { subsets: subsets.iter().map(size).collect(), across }
}

fn compare(a: &Keys<'_>, b: &Keys<'_>, same: bool) -> Overlap {
    let index = a.index();
    let names: HashSet<&str> = a.tasks.iter().map(|task| task.id.as_str()).collect();
    let mut found = Overlap::default();
    for (at, task) in b.tasks.iter().enumerate() {
        let there =
            |key: &[u8]| index.get(key).into_iter().flatten().copied().filter(move |&other| !same || other < at);
        let others: HashSet<usize> = b.keys[at].iter().flat_map(|key| there(key)).collect();
        found.same_name += usize::from(!same && names.contains(task.id.as_str()));
        found.sharing_a_pair += usize::from(!others.is_empty());
        found.same_pairs += usize::from(others.iter().any(|&other| sorted(&a.tasks[other]) == sorted(task)));
        found.same_up_to_augmentation +=
            usize::from(others.iter().any(|&other| augmentation_between(&a.tasks[other], task).is_some()));
        let test = &b.keys[at][task.train.len()..];
        found.test_pairs_there += test.iter().filter(|key| there(key).next().is_some()).count();
    }
    found
}

fn sorted(task: &Task) -> Vec<&Pair> {
    let mut pairs: Vec<&Pair> = task.pairs().collect();
    pairs.sort_unstable();
    pairs
}

/// Leaves out every task that has the name of a task of another subset or shares a pair with one, up to symmetry and
/// colours: the test set keeps all of its own, then comes who comes first. Returns what was left out, by subset.
pub fn disjoint(subsets: &mut [Subset], test_set: &str) -> Vec<(String, Vec<String>)> {
    let mut order: Vec<usize> = (0..subsets.len()).collect();
    order.sort_by_key(|&at| subsets[at].name != test_set);
    let (mut names, mut taken): (HashSet<String>, HashSet<Box<[u8]>>) = Default::default();
    let mut left_out = vec![Vec::new(); subsets.len()];
    for at in order {
        let keys = Keys::of(&subsets[at].tasks).keys;
        let is_free = |(task, keys): (&Task, &Vec<Box<[u8]>>)| {
            !names.contains(&task.id) && !keys.iter().any(|key| taken.contains(key))
        };
        let free: Vec<bool> = subsets[at].tasks.iter().zip(&keys).map(is_free).collect();
        let (kept, out): (Vec<_>, Vec<_>) =
            std::mem::take(&mut subsets[at].tasks).into_iter().zip(keys).zip(free).partition(|(_, free)| *free);
        left_out[at] = out.into_iter().map(|((task, _), _)| task.id).collect();
        for ((task, keys), _) in kept {
            names.insert(task.id.clone());
            taken.extend(keys);
            subsets[at].tasks.push(task);
        }
    }
    subsets.iter().map(|subset| subset.name.clone()).zip(left_out).collect()
}

impl Display for OverlapReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16}{:>8}{:>16}{:>12}", "subset", "tasks", "demonstrations", "test pairs")?;
        for (name, tasks, train, test) in &self.subsets {
            writeln!(f, "{name:<16}{tasks:>8}{train:>16}{test:>12}")?;
        }
        let titles = ["same name", "same pairs", "up to symmetry", "sharing a pair", "test pairs"];
        write!(f, "\n{:<32}", "tasks of … found in …")?;
        titles.iter().try_for_each(|title| write!(f, "{title:>16}"))?;
        for pair in &self.across {
            let Overlap { first, second, .. } = pair;
            let title =
                if first == second { format!("{first} twice in itself") } else { format!("{second} in {first}") };
            write!(f, "\n{title:<32}{:>16}{:>16}", pair.same_name, pair.same_pairs)?;
            write!(f, "{:>16}{:>16}", pair.same_up_to_augmentation, pair.sharing_a_pair)?;
            write!(f, "{:>16}", pair.test_pairs_there)?;
        }
        Ok(())
    }
}

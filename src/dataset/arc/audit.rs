//! A built ARC set, row by row: does every copy lead back to its task, and does training see a test answer?

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Formatter};

use rayon::prelude::*;
use serde::Serialize;

use super::TEST;
use crate::dataset::{Dataset, Split};
use crate::puzzle::arc::overlap::pair_key;
use crate::puzzle::arc::{Augmentation, Pair};
use crate::{Error, Result};

/// How many findings of a kind a text lists; it counts all of them.
const LISTED: usize = 5;

/// What an audit of an ARC set found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ArcAudit {
    /// The splits, `train` first.
    pub splits: Vec<ArcSplitAudit>,
    /// Tasks of the split `test`.
    pub test_tasks: usize,
    /// Those whose demonstrations are trained on, under their own identifier: by design.
    pub demonstrated: usize,
    /// Their test pairs.
    pub test_pairs: usize,
    /// Those whose answer is not known.
    pub unknown_answers: usize,
    /// Test pairs that stand in `train` as a pair of another task, input and output: leaks.
    pub leaked: usize,
    /// The same up to symmetry and colours (those as written among them): leaks too.
    pub leaked_up_to_augmentation: usize,
    /// Test pairs that are an image of a demonstration of their own task, as published. For information.
    pub own_demonstrations: usize,
    /// Test inputs that stand in `train` as an input of any task. For information.
    pub inputs_there: usize,
    /// Test outputs that stand in `train` as an output of any task. For information: small grids repeat.
    pub outputs_there: usize,
    /// The first few rows that are wrong, then every test pair that leaks, by its task.
    pub findings: Vec<String>,
}

/// A split of an ARC set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ArcSplitAudit {
    pub name: String,
    pub tasks: usize,
    pub copies: usize,
    pub rows: usize,
    /// Rows that are no pair of grids.
    pub no_pair: usize,
    /// Rows that, undone by their name, are not their task's pair.
    pub not_their_task: usize,
    /// Copies that hold the same pairs as an earlier copy of their task; they differ in the other split. For information.
    pub repeated_copies: usize,
    /// Tasks that share a pair with an earlier task of the split, up to symmetry and colours.
    pub sharing_a_pair: usize,
}

impl ArcAudit {
    /// Test pairs that training sees in other tasks, under whatever symmetry.
    pub fn leaks(&self) -> usize {
        self.leaked_up_to_augmentation
    }

    /// Rows that cannot be right.
    pub fn faults(&self) -> usize {
        self.splits.iter().map(|s| s.no_pair + s.not_their_task).sum()
    }
}

/// What one group turned out to be.
#[derive(Default)]
struct Group {
    /// Name of the task.
    task: String,
    pairs: Vec<Pair>,
    no_pair: usize,
    not_their_task: usize,
    repeated_copies: usize,
    findings: Vec<String>,
}

/// Audits an ARC set, reading every row once.
pub fn audit(dataset: &Dataset) -> Result<ArcAudit> {
    let mut report = ArcAudit::default();
    let mut originals: HashMap<&str, Vec<Group>> = HashMap::new();
    for (name, split) in dataset.in_order() {
        let groups: Vec<Group> = (0..split.groups())
            .into_par_iter()
            .map(|group| look_at(dataset, split, name, group))
            .collect::<Result<_>>()?;
        let mut seen: HashSet<Box<[u8]>> = HashSet::new();
        // A task may have several groups, each with a part of its pairs.
        let tasks: HashSet<&str> = groups.iter().map(|group| group.task.as_str()).collect();
        let identifiers: HashSet<u32> = split.puzzle_identifiers.iter().copied().collect();
        let mut found = ArcSplitAudit {
            name: name.into(),
            tasks: tasks.len(),
            copies: identifiers.len() - tasks.len(),
            rows: split.examples(),
            ..ArcSplitAudit::default()
        };
        for group in &groups {
            found.no_pair += group.no_pair;
            found.not_their_task += group.not_their_task;
            found.repeated_copies += group.repeated_copies;
            report.findings.extend(group.findings.iter().take(LISTED - report.findings.len().min(LISTED)).cloned());
            let keys: Vec<Box<[u8]>> = group.pairs.iter().map(pair_key).collect();
            found.sharing_a_pair += usize::from(keys.iter().any(|key| seen.contains(key)));
            seen.extend(keys);
        }
        report.splits.push(found);
        originals.insert(name, groups);
    }
    let (Some(train), Some(test)) = (originals.get("train"), originals.get("test")) else {
        return Err(Error::input("an ARC set has the splits train and test; build it with `trm data import arc`"));
    };
    let shown: HashSet<u32> = dataset.split("train")?.puzzle_identifiers.iter().copied().collect();
    let split = dataset.split("test")?;
    let first = |group: usize| split.puzzle_identifiers[split.group(group).start];
    report.test_tasks = test.len();
    report.demonstrated = (0..test.len()).filter(|&group| shown.contains(&first(group))).count();
    compare(&mut report, train, test, split.has_no_arc_answers()?);
    Ok(report)
}

/// Names of the tasks that have a pair.
type Tasks<'a> = Vec<&'a str>;

/// Test pairs, whose outputs may be `no_answers` at all, against the tasks that are trained on. Copies add nothing: they are
/// images of these.
fn compare(report: &mut ArcAudit, train: &[Group], test: &[Group], no_answers: bool) {
    let trained = || train.iter().flat_map(|group| group.pairs.iter().map(move |pair| (pair, group.task.as_str())));
    let mut written: HashMap<&Pair, Tasks<'_>> = HashMap::new();
    let mut keys: HashMap<Box<[u8]>, Tasks<'_>> = HashMap::new();
    for (pair, task) in trained() {
        written.entry(pair).or_default().push(task);
        keys.entry(pair_key(pair)).or_default().push(task);
    }
    let (inputs, outputs): (HashSet<_>, HashSet<_>) = trained().map(|(pair, _)| (&pair.input, &pair.output)).unzip();
    let pairs = || test.iter().flat_map(|group| &group.pairs);
    report.unknown_answers = match no_answers {
        true => pairs().count(),
        false => pairs().filter(|pair| !pair.is_answered()).count(),
    };
    let tested =
        test.iter().flat_map(|group| (1..).zip(&group.pairs).map(move |(n, pair)| (n, pair, group.task.as_str())));
    for (n, pair, own) in tested {
        let of_others = |tasks: Option<&Tasks<'_>>| tasks.is_some_and(|tasks| tasks.iter().any(|task| *task != own));
        let alike = keys.get(&pair_key(pair));
        report.test_pairs += 1;
        report.leaked += usize::from(of_others(written.get(pair)));
        report.leaked_up_to_augmentation += usize::from(of_others(alike));
        if let Some(other) = alike.into_iter().flatten().find(|task| **task != own) {
            let as_written = written.get(pair).is_some_and(|tasks| tasks.contains(other));
            let how = if as_written { "" } else { ", up to symmetry and colours" };
            report.findings.push(format!("task {own}, test pair {n}: stands in task {other} of train{how}"));
        }
        report.own_demonstrations += usize::from(alike.is_some_and(|tasks| tasks.contains(&own)));
        report.inputs_there += usize::from(inputs.contains(&pair.input));
        report.outputs_there += usize::from(outputs.contains(&pair.output));
    }
}

fn look_at(dataset: &Dataset, split: &Split, split_name: &str, group: usize) -> Result<Group> {
    let first = split.puzzle_identifiers[split.group(group).start] as usize;
    let mut found = Group { task: dataset.identifiers[first].clone(), ..Group::default() };
    let mut copies: HashSet<Vec<Pair>> = HashSet::new();
    let puzzles = split.group(group);
    let task = &dataset.identifiers[split.puzzle_identifiers[puzzles.start] as usize];
    let note = |findings: &mut Vec<String>, row: usize, what: &str| {
        if findings.len() < LISTED {
            findings.push(format!("{split_name} row {row} (task {task}): {what}"));
        }
    };
    for puzzle in puzzles.clone() {
        let name = &dataset.identifiers[split.puzzle_identifiers[puzzle] as usize];
        let made = Augmentation::of_name(name).ok().filter(|(of, _)| of == task).map(|(_, made)| made);
        let mut seen = Vec::new();
        for (at, row) in split.puzzle(puzzle).enumerate() {
            // What is trained on has an answer.
            let is_whole = |pair: &Pair| pair.is_answered() || split_name == TEST;
            let Some(pair) = split.arc_pair(row)?.filter(is_whole) else {
                found.no_pair += 1;
                note(&mut found.findings, row, "is no pair of grids");
                continue;
            };
            let undone = made.map(|made| Pair { input: made.undo(&pair.input), output: made.undo(&pair.output) });
            if puzzle == puzzles.start {
                found.pairs.push(pair.clone());
            }
            if undone.as_ref() != found.pairs.get(at) {
                found.not_their_task += 1;
                note(&mut found.findings, row, &format!("undone as {name} says, is not the task's pair"));
            }
            seen.push(pair);
        }
        seen.sort_unstable();
        if !copies.insert(seen) {
            found.repeated_copies += 1;
        }
    }
    Ok(found)
}

impl Display for ArcAudit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<60}", "arc")?;
        self.splits.iter().try_for_each(|split| write!(f, "{:>12}", split.name))?;
        type Figure = fn(&ArcSplitAudit) -> usize;
        let lines: [(&str, Figure); 7] = [
            ("tasks", |s| s.tasks),
            ("augmented copies", |s| s.copies),
            ("rows", |s| s.rows),
            ("  that are no pair of grids", |s| s.no_pair),
            ("  that are not their task's pair, undone by their name", |s| s.not_their_task),
            ("copies that hold the pairs of an earlier copy", |s| s.repeated_copies),
            ("tasks sharing a pair with an earlier one, up to symmetry", |s| s.sharing_a_pair),
        ];
        for (label, figure) in lines {
            write!(f, "\n{label:<60}")?;
            self.splits.iter().try_for_each(|split| write!(f, "{:>12}", figure(split)))?;
        }
        let (faults, leaks) = self.findings.split_at(self.findings.len().saturating_sub(self.leaks()));
        faults.iter().try_for_each(|finding| write!(f, "\n  {finding}"))?;
        let verdict = if self.leaks() > 0 { "LEAK" } else { "none leaks" };
        let lines = [
            ("test tasks", self.test_tasks, ""),
            ("  whose demonstrations are trained on", self.demonstrated, "(by design)"),
            ("test pairs", self.test_pairs, ""),
            ("  whose answer is not known", self.unknown_answers, ""),
            ("  that stand in another task of train, input and output", self.leaked, ""),
            ("  that stand there up to symmetry and colours", self.leaked_up_to_augmentation, verdict),
            ("  that are an image of a demonstration of their own task", self.own_demonstrations, "(as published)"),
            ("  whose input alone stands in train", self.inputs_there, "(for information)"),
            ("  whose output alone stands in train", self.outputs_there, "(for information)"),
        ];
        f.write_str("\n")?;
        for (label, count, remark) in lines {
            write!(f, "\n{}", format!("{label:<60}{count:>12}  {remark}").trim_end())?;
        }
        leaks.iter().take(LISTED).try_for_each(|leak| write!(f, "\n  {leak}"))?;
        match leaks.len().saturating_sub(LISTED) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more (--json names all)"),
        }
    }
}

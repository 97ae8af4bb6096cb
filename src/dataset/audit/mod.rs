//! Can this data set be trusted? Every row is looked at; two puzzles count as the same when a symmetry connects them.
//!
//! A set with a thousand copies of every puzzle is audited as what it is: each copy must be a symmetric image of its
//! group's original, question and answer both, which is decided exactly. A copy that is one shares the
//! original's verdict (a symmetry keeps the number of solutions), measure and canonical form, so those are
//! computed once per group. A copy that is no image is reported, and from then on treated as a puzzle of its own, so
//! that nothing can hide in it.
//!
//! Duplicates are counted among puzzles: originals, and copies that are no images. Solution grids "as written" are
//! compared with every stored row, since that is what training sees.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use rayon::prelude::*;

use super::{Dataset, Split};
use crate::puzzle::{Audit, TokenPair, Verdict};
use crate::{Error, Result};

mod report;

pub use report::{AuditReport, CrossAudit, Finding, Match, SplitAudit};

/// How many findings a report lists, and leaks a text; all are counted.
const LISTED: usize = 5;

/// Audits a set of a puzzle whose rules are known. The splits are compared in pairs, `train` first.
pub fn audit(dataset: &Dataset) -> Result<AuditReport> {
    let board = dataset.board()?;
    let rules = board.audit().ok_or_else(|| {
        Error::input(format!(
            "the rows are {}, whose rules are not known: there is nothing to audit them by",
            board.name()
        ))
    })?;
    let looked_at: Vec<Looked> =
        dataset.in_order().into_iter().map(|(name, split)| look_at(rules, name, split)).collect::<Result<_>>()?;
    let pairs = looked_at.iter().enumerate().flat_map(|(i, a)| looked_at[i + 1..].iter().map(move |b| (a, b)));
    let across = pairs.map(|(a, b)| compare(a, b)).collect::<Result<_>>()?;
    Ok(AuditReport {
        puzzle: board.name(),
        measure: rules.measure(),
        several_answers: rules.several_answers(),
        splits: looked_at.into_iter().map(|looked| looked.audit).collect(),
        across,
        notes: rules.notes(),
    })
}

/// A puzzle: the original of a group, or a copy that is no image of it.
struct Representative {
    row: usize,
    is_copy: bool,
    verdict: Verdict,
    size: usize,
    /// Canonical form of the question; the question itself where it has none.
    form: Key,
    /// Canonical form of the answer, likewise.
    grid_class: Key,
}

/// A row of tokens as a key: two to a byte where they fit.
type Key = Box<[u8]>;

/// A split with everything found out about it.
struct Looked<'a> {
    split: &'a Split,
    puzzles: Vec<Representative>,
    audit: SplitAudit,
}

fn look_at<'a>(rules: &dyn Audit, name: &str, split: &'a Split) -> Result<Looked<'a>> {
    let per_group: Vec<Vec<Representative>> =
        (0..split.groups()).into_par_iter().map(|group| look_at_group(rules, split, group)).collect::<Result<_>>()?;
    let puzzles: Vec<Representative> = per_group.into_iter().flatten().collect();
    let mut audit = SplitAudit {
        name: name.to_string(),
        examples: split.examples(),
        groups: split.groups(),
        copies: split.examples() - split.groups(),
        ..SplitAudit::default()
    };
    let mut as_written = HashSet::new();
    let mut forms: HashMap<&Key, usize> = HashMap::new();
    for puzzle in &puzzles {
        let row = puzzle.row;
        *audit.sizes.entry(puzzle.size).or_default() += 1;
        let mut count = |counter: &mut usize, what: &str| {
            *counter += 1;
            if audit.findings.len() < LISTED {
                audit.findings.push(Finding { row, what: what.to_string() });
            }
        };
        if puzzle.is_copy {
            count(&mut audit.copies_that_are_no_images, "is no symmetric image of its group's first row");
        }
        match puzzle.verdict {
            Verdict::Good => {}
            Verdict::NoBoard => count(&mut audit.no_board, "holds what no question holds"),
            Verdict::Unsolvable => count(&mut audit.unsolvable, "has no solution"),
            Verdict::SeveralSolutions if rules.several_answers() => audit.several_solutions += 1,
            Verdict::SeveralSolutions => count(&mut audit.several_solutions, "has more than one solution"),
            Verdict::WrongAnswer => count(&mut audit.wrong_answers, "its answer does not solve its question"),
        }
        if !as_written.insert(split.inputs.row(row)?) {
            audit.duplicates_as_written += 1;
        }
        match forms.entry(&puzzle.form) {
            Entry::Vacant(free) => {
                free.insert(row);
            }
            Entry::Occupied(first) => {
                let what = format!("is the puzzle of row {} again, up to symmetry", first.get());
                count(&mut audit.duplicates_up_to_symmetry, &what);
            }
        }
    }
    audit.solution_grids = answers(split, &puzzles)?.len();
    audit.solution_grids_up_to_symmetry = puzzles.iter().map(|p| &p.grid_class).collect::<HashSet<_>>().len();
    Ok(Looked { split, puzzles, audit })
}

/// The answers of these puzzles, as written.
fn answers<'a>(split: &'a Split, puzzles: &[Representative]) -> Result<HashSet<Cow<'a, [u8]>>> {
    puzzles.iter().map(|puzzle| split.labels.row(puzzle.row)).collect()
}

/// The group's original, and every copy that is no image of it.
fn look_at_group(rules: &dyn Audit, split: &Split, group: usize) -> Result<Vec<Representative>> {
    let rows = split.group_examples(group);
    let original = rows.start;
    let mut found = vec![look_at_row(rules, split, original, false)?];
    let from = Row::of(split, original)?;
    for row in rows.skip(1) {
        if !rules.is_image(from.pair(), Row::of(split, row)?.pair()) {
            found.push(look_at_row(rules, split, row, true)?);
        }
    }
    Ok(found)
}

fn look_at_row(rules: &dyn Audit, split: &Split, row: usize, is_copy: bool) -> Result<Representative> {
    let tokens = Row::of(split, row)?;
    let pair = tokens.pair();
    Ok(Representative {
        row,
        is_copy,
        verdict: rules.verdict(pair),
        size: rules.size(pair),
        form: key(rules.form(pair.question)),
        grid_class: key(rules.form(pair.answer)),
    })
}

/// Question and answer of a row, wherever they come from.
struct Row<'a> {
    question: Cow<'a, [u8]>,
    answer: Cow<'a, [u8]>,
}

impl<'a> Row<'a> {
    fn of(split: &'a Split, row: usize) -> Result<Self> {
        Ok(Self { question: split.inputs.row(row)?, answer: split.labels.row(row)? })
    }

    fn pair(&self) -> TokenPair<'_> {
        TokenPair { question: &self.question, answer: &self.answer }
    }
}

fn key(tokens: Vec<u8>) -> Key {
    if tokens.iter().any(|&token| token > 15) {
        return tokens.into();
    }
    tokens.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4).collect()
}

/// What `b` has in common with `a`; every figure counts puzzles of `b`.
fn compare(a: &Looked<'_>, b: &Looked<'_>) -> Result<CrossAudit> {
    let forms: HashMap<&Key, usize> = a.puzzles.iter().rev().map(|p| (&p.form, p.row)).collect();
    let matches: Vec<Match> = b
        .puzzles
        .iter()
        .filter_map(|p| forms.get(&p.form).map(|&row| Match { row_in_first: row, row_in_second: p.row }))
        .collect();
    let classes: HashSet<&Key> = a.puzzles.iter().map(|p| &p.grid_class).collect();
    let grids = answers(b.split, &b.puzzles)?;
    let shared: HashSet<Cow<'_, [u8]>> = (0..a.split.examples())
        .into_par_iter()
        .map(|row| a.split.labels.row(row))
        .filter(|grid| grid.as_ref().map_or(true, |grid| grids.contains(grid)))
        .collect::<Result<_>>()?;
    let same_solution = b.puzzles.iter().map(|p| Ok(usize::from(shared.contains(&b.split.labels.row(p.row)?))));
    Ok(CrossAudit {
        first: a.audit.name.clone(),
        second: b.audit.name.clone(),
        puzzles: b.puzzles.len(),
        equivalent_puzzles: matches.len(),
        same_solution_as_written: same_solution.sum::<Result<_>>()?,
        same_solution_up_to_symmetry: b.puzzles.iter().filter(|p| classes.contains(&p.grid_class)).count(),
        matches,
    })
}

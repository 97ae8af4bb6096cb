//! Can this data set be trusted? Every row is looked at; two puzzles count as the same when a symmetry connects them.
//!
//! A set with a thousand copies of every puzzle is audited as what it is: each copy must be a symmetric image of its
//! group's original, question and answer both, which [`find_symmetry`] decides exactly. A copy that is one shares the
//! original's verdict (a symmetry keeps the number of solutions), clue count and canonical form, so those are
//! computed once per group. A copy that is no image is reported, and from then on treated as a puzzle of its own, so
//! that nothing can hide in it.
//!
//! Duplicates are counted among puzzles: originals, and copies that are no images. Solution grids "as written" are
//! compared with every stored row, since that is what training sees.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use ndarray::{Array2, ArrayView1};
use rayon::prelude::*;

use super::{Dataset, Split, TokenPair, find_symmetry};
use crate::puzzle::Kind;
use crate::puzzle::sudoku::{Geometry, Grid, canonical, count_solutions};
use crate::{Error, Result};

mod report;

pub use report::{AuditReport, CrossAudit, Finding, Match, SplitAudit};

/// How many findings and matches a report lists; it counts all of them.
const LISTED: usize = 5;

/// Audits a Sudoku set. The splits are compared in pairs, `train` first.
pub fn audit(dataset: &Dataset) -> Result<AuditReport> {
    let board = dataset.board()?;
    if dataset.puzzle.kind != Kind::Sudoku {
        return Err(Error::input(format!(
            "the rows are {}, whose rules are not known; there is nothing to audit",
            board.name()
        )));
    }
    let geometry = Geometry::of_cells(dataset.puzzle.cells())?;
    let looked_at: Vec<Looked> =
        dataset.in_order().into_iter().map(|(name, split)| look_at(geometry, name, split)).collect();
    let pairs = looked_at.iter().enumerate().flat_map(|(i, a)| looked_at[i + 1..].iter().map(move |b| (a, b)));
    let across = pairs.map(|(a, b)| compare(a, b)).collect();
    Ok(AuditReport {
        puzzle: format!("sudoku {geometry}"),
        splits: looked_at.into_iter().map(|looked| looked.audit).collect(),
        across,
        notes: notes(geometry),
    })
}

/// What has to be known to read the figures of small boards.
fn notes(geometry: Geometry) -> Vec<String> {
    let mut notes = Vec::new();
    if geometry == Geometry::FOUR {
        notes.push(
            "4×4 has only 288 solution grids, 2 up to symmetry: splits of any size share grids. Shared grids are no leak; \
             equivalent puzzles are."
                .into(),
        );
    }
    if geometry == Geometry::SIX {
        notes.push(
            "6×6 has 28,200,960 solution grids, but only 49 up to symmetry: splits always share grids up to symmetry. That \
             is no leak; equivalent puzzles are."
                .into(),
        );
    }
    notes
}

/// What one row turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    NoBoard,
    Unsolvable,
    SeveralSolutions,
    WrongAnswer,
}

/// A puzzle: the original of a group, or a copy that is no image of it.
struct Representative {
    row: usize,
    is_copy: bool,
    verdict: Verdict,
    clues: usize,
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

fn look_at<'a>(geometry: Geometry, name: &str, split: &'a Split) -> Looked<'a> {
    let per_group: Vec<Vec<Representative>> =
        (0..split.groups()).into_par_iter().map(|group| look_at_group(geometry, split, group)).collect();
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
        *audit.clues.entry(puzzle.clues).or_default() += 1;
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
            Verdict::NoBoard => count(&mut audit.no_board, "holds a token that is neither empty nor a digit"),
            Verdict::Unsolvable => count(&mut audit.unsolvable, "has no solution"),
            Verdict::SeveralSolutions => count(&mut audit.several_solutions, "has more than one solution"),
            Verdict::WrongAnswer => count(&mut audit.wrong_answers, "its answer does not solve its question"),
        }
        if !as_written.insert(split.inputs.row(row)) {
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
    audit.solution_grids = puzzles.iter().map(|p| split.labels.row(p.row)).collect::<HashSet<_>>().len();
    audit.solution_grids_up_to_symmetry = puzzles.iter().map(|p| &p.grid_class).collect::<HashSet<_>>().len();
    Looked { split, puzzles, audit }
}

/// The group's original, and every copy that is no image of it.
fn look_at_group(geometry: Geometry, split: &Split, group: usize) -> Vec<Representative> {
    let rows = split.group_examples(group);
    let original = rows.start;
    let mut found = vec![look_at_row(geometry, split, original, false)];
    let from = pair(split, original);
    for row in rows.skip(1) {
        if find_symmetry(geometry, from, pair(split, row)).is_none() {
            found.push(look_at_row(geometry, split, row, true));
        }
    }
    found
}

fn look_at_row(geometry: Geometry, split: &Split, row: usize, is_copy: bool) -> Representative {
    let TokenPair { question, answer } = pair(split, row);
    let grid = |tokens: &[u8]| Grid::from_tokens(geometry, tokens).ok();
    let (question_grid, answer_grid) = (grid(question), grid(answer));
    let verdict = match &question_grid {
        None => Verdict::NoBoard,
        Some(grid) => match count_solutions(grid, 2) {
            0 => Verdict::Unsolvable,
            1 if answer_grid.as_ref().is_some_and(|answer| answer.is_solution_of(grid)) => Verdict::Good,
            1 => Verdict::WrongAnswer,
            _ => Verdict::SeveralSolutions,
        },
    };
    let form = |grid: &Option<Grid>, tokens: &[u8]| {
        let form = grid.as_ref().and_then(|grid| canonical(grid).ok());
        form.map_or_else(|| key(tokens.iter().copied()), |canonical| key(canonical.form.tokens()))
    };
    Representative {
        row,
        is_copy,
        verdict,
        clues: question.iter().filter(|&&token| token > 1).count(),
        form: form(&question_grid, question),
        grid_class: form(&answer_grid, answer),
    }
}

fn pair(split: &Split, row: usize) -> TokenPair<'_> {
    TokenPair { question: tokens(&split.inputs, row), answer: tokens(&split.labels, row) }
}

/// A row as a slice. Splits that were read, built or imported are in C order; of another a row is no board.
fn tokens(rows: &Array2<u8>, row: usize) -> &[u8] {
    let columns = rows.ncols();
    rows.as_slice().and_then(|all| all.get(row * columns..(row + 1) * columns)).unwrap_or_default()
}

fn key(tokens: impl Iterator<Item = u8>) -> Key {
    let tokens: Vec<u8> = tokens.collect();
    if tokens.iter().any(|&token| token > 15) {
        return tokens.into();
    }
    tokens.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4).collect()
}

/// What `b` has in common with `a`; every figure counts puzzles of `b`.
fn compare(a: &Looked<'_>, b: &Looked<'_>) -> CrossAudit {
    let forms: HashMap<&Key, usize> = a.puzzles.iter().rev().map(|p| (&p.form, p.row)).collect();
    let matches: Vec<Match> = b
        .puzzles
        .iter()
        .filter_map(|p| forms.get(&p.form).map(|&row| Match { row_in_first: row, row_in_second: p.row }))
        .collect();
    let classes: HashSet<&Key> = a.puzzles.iter().map(|p| &p.grid_class).collect();
    let grids: HashSet<ArrayView1<'_, u8>> = b.puzzles.iter().map(|p| b.split.labels.row(p.row)).collect();
    let shared: HashSet<ArrayView1<'_, u8>> = (0..a.split.examples())
        .into_par_iter()
        .map(|row| a.split.labels.row(row))
        .filter(|grid| grids.contains(grid))
        .collect();
    CrossAudit {
        first: a.audit.name.clone(),
        second: b.audit.name.clone(),
        puzzles: b.puzzles.len(),
        equivalent_puzzles: matches.len(),
        same_solution_as_written: b.puzzles.iter().filter(|p| shared.contains(&b.split.labels.row(p.row))).count(),
        same_solution_up_to_symmetry: b.puzzles.iter().filter(|p| classes.contains(&p.grid_class)).count(),
        matches: matches.into_iter().take(LISTED).collect(),
    }
}

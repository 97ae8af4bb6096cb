//! What an audit found: figures for a program, a table for people.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::LISTED;

/// The outcome of an [`audit`](super::audit). Serializes to JSON; displays as a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// What the rows are, such as `sudoku 9×9`.
    pub puzzle: String,
    /// What `sizes` counts, such as the number of clues.
    pub measure: &'static str,
    /// Whether a puzzle with several right answers is a proper one.
    pub several_answers: bool,
    /// Each split by itself.
    pub splits: Vec<SplitAudit>,
    /// Each pair of splits.
    pub across: Vec<CrossAudit>,
    /// What to know when reading the figures.
    pub notes: Vec<String>,
}

/// One split by itself. "Puzzles" are the originals of the groups and the copies that are no images of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SplitAudit {
    /// The split.
    pub name: String,
    /// Rows.
    pub examples: usize,
    /// Groups: originals.
    pub groups: usize,
    /// Rows that are augmented copies of their group's first.
    pub copies: usize,
    /// Copies that no symmetry connects with their original.
    pub copies_that_are_no_images: usize,
    /// Questions with tokens that no question holds.
    pub no_board: usize,
    /// Questions without solution.
    pub unsolvable: usize,
    /// Questions with more than one solution.
    pub several_solutions: usize,
    /// Answers that do not solve their (proper) question.
    pub wrong_answers: usize,
    /// Puzzles that stand in the split before, cell by cell.
    pub duplicates_as_written: usize,
    /// Puzzles that a symmetry connects with an earlier one (those as written among them).
    pub duplicates_up_to_symmetry: usize,
    /// Different answers among the puzzles, as written.
    pub solution_grids: usize,
    /// Different answers up to symmetry.
    pub solution_grids_up_to_symmetry: usize,
    /// Puzzles by their measure.
    pub sizes: BTreeMap<usize, usize>,
    /// The first few faults.
    pub findings: Vec<Finding>,
}

/// A fault and its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Row of the split, from 0.
    pub row: usize,
    /// What is wrong with it.
    pub what: String,
}

/// What the second split has in common with the first; counts puzzles of the second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CrossAudit {
    /// The split compared with: `train`, if there is one.
    pub first: String,
    /// The split whose puzzles are counted.
    pub second: String,
    /// Puzzles of the second split.
    pub puzzles: usize,
    /// Those a symmetry connects with a puzzle of the first: leaks.
    pub equivalent_puzzles: usize,
    /// Those whose answer stands in the first split, cell by cell (copies included).
    pub same_solution_as_written: usize,
    /// Those whose answer a symmetry connects with one of the first split. For information.
    pub same_solution_up_to_symmetry: usize,
    /// All leaks.
    pub matches: Vec<Match>,
}

/// Two rows that are one puzzle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Match {
    /// Row of the first split.
    pub row_in_first: usize,
    /// Row of the second split.
    pub row_in_second: usize,
}

impl AuditReport {
    /// Whether a puzzle of one split is equivalent to one of another.
    pub fn leaks(&self) -> bool {
        self.across.iter().any(|pair| pair.equivalent_puzzles > 0)
    }

    /// Rows that cannot be right: no proper puzzle, not solved by their answer, or no image of their original.
    pub fn faults(&self) -> usize {
        self.splits
            .iter()
            .map(|s| {
                let several = if self.several_answers { 0 } else { s.several_solutions };
                s.copies_that_are_no_images + s.no_board + s.unsolvable + several + s.wrong_answers
            })
            .sum()
    }
}

impl Display for AuditReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<44}", self.puzzle)?;
        self.splits.iter().try_for_each(|split| write!(f, "{:>12}", split.name))?;
        writeln!(f)?;
        type Figure = fn(&SplitAudit) -> usize;
        let lines: [(&str, Figure); 12] = [
            ("rows", |s| s.examples),
            ("groups", |s| s.groups),
            ("augmented copies", |s| s.copies),
            ("  no symmetric image of their original", |s| s.copies_that_are_no_images),
            ("questions that are no board", |s| s.no_board),
            ("questions without solution", |s| s.unsolvable),
            ("questions with several solutions", |s| s.several_solutions),
            ("answers that do not solve their question", |s| s.wrong_answers),
            ("duplicate puzzles, as written", |s| s.duplicates_as_written),
            ("duplicate puzzles, up to symmetry", |s| s.duplicates_up_to_symmetry),
            ("different solution grids, as written", |s| s.solution_grids),
            ("different solution grids, up to symmetry", |s| s.solution_grids_up_to_symmetry),
        ];
        for (label, figure) in lines {
            write!(f, "{label:<44}")?;
            self.splits.iter().try_for_each(|split| write!(f, "{:>12}", figure(split)))?;
            writeln!(f)?;
        }
        for split in &self.splits {
            for Finding { row, what } in &split.findings {
                writeln!(f, "  {} row {row} {what}", split.name)?;
            }
        }
        for pair in &self.across {
            let CrossAudit { first, second, puzzles, .. } = pair;
            writeln!(f, "\n{second} against {first}: of {puzzles} puzzles")?;
            let verdict = if pair.equivalent_puzzles > 0 { "LEAK" } else { "none leaks" };
            let lines = [
                ("equivalent to a puzzle there", pair.equivalent_puzzles, verdict),
                ("solution stands there, as written", pair.same_solution_as_written, ""),
                ("solution stands there, up to symmetry", pair.same_solution_up_to_symmetry, "(for information)"),
            ];
            for (label, count, remark) in lines {
                writeln!(f, "{}", format!("{label:<44}{count:>12}  {remark}").trim_end())?;
            }
            for Match { row_in_first, row_in_second } in pair.matches.iter().take(LISTED) {
                writeln!(f, "  {second} row {row_in_second} is {first} row {row_in_first}")?;
            }
            let more = pair.matches.len().saturating_sub(LISTED);
            if more > 0 {
                writeln!(f, "  and {more} more (--json names all)")?;
            }
        }
        self.histogram(f)?;
        self.notes.iter().try_for_each(|note| write!(f, "\n{note}"))
    }
}

impl AuditReport {
    /// Puzzles by their measure, a line each, with a bar for the first split.
    fn histogram(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut sizes: Vec<usize> = self.splits.iter().flat_map(|s| s.sizes.keys().copied()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let largest = self.splits.first().and_then(|s| s.sizes.values().max().copied()).unwrap_or(1).max(1);
        let bars = self.splits.first().map_or("", |split| split.name.as_str());
        write!(f, "\n{:<44}", format!("puzzles by {} (bars: {bars})", self.measure))?;
        self.splits.iter().try_for_each(|split| write!(f, "{:>12}", split.name))?;
        writeln!(f)?;
        for n in sizes {
            let bar = self.splits.first().map_or(0, |s| s.sizes.get(&n).map_or(0, |&c| (c * 32).div_ceil(largest)));
            write!(f, "{n:>6}  {:<36}", "▇".repeat(bar))?;
            self.splits.iter().try_for_each(|s| write!(f, "{:>12}", s.sizes.get(&n).unwrap_or(&0)))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

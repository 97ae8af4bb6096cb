//! Puzzles from nothing: random solutions, minimal questions with exactly one answer, and pairs of sets.

use std::ops::ControlFlow;

use super::solver::{Guide, Search};
use super::{Geometry, Grid, Puzzle};
use crate::rng::Rng;

/// Branches after which filling an empty board starts over. The smaller boards never come near; on 16×16 a bad
/// beginning can cost hours, and a new one costs nothing.
const FILL_BRANCHES: usize = 2_000;

/// Branches after which a clue is kept, because proving that it can go is too long. Only 16×16 comes near.
const PROOF_BRANCHES: usize = 2_000;

/// A random full grid: a search from the empty board that tries cells and digits in random order.
///
/// Every grid can come out, and by the choice of digits every relabelling of it is equally likely; over essentially
/// different grids the distribution is close to uniform, not exactly so.
pub fn random_solution(geometry: Geometry, rng: &mut Rng) -> Grid {
    loop {
        if let Some(mut search) = Search::of(&Grid::empty(geometry)) {
            search.shuffle(rng);
            let mut fill = Fill { rng, branches: FILL_BRANCHES, found: None };
            let _ = search.run(&mut fill);
            if let Some(values) = fill.found {
                return Grid::from_valid(geometry, &values);
            }
        }
    }
}

/// Takes clues away from `answer` in random order for as long as it remains the only solution. On sides 4, 6 and 9
/// the result is minimal: it has one solution, and without any one of its clues it has several. On 16×16 a clue
/// also stays when the proof that it can go would take too long.
///
/// # Panics
/// If `answer` is not a solution.
pub fn minimal_question(answer: &Grid, rng: &mut Rng) -> Grid {
    assert!(answer.is_solution(), "only a solution can be turned into a puzzle: {answer}");
    let mut question = answer.clone();
    for cell in rng.permutation(answer.geometry().cells()) {
        let digit = std::mem::take(&mut question.values_mut()[cell]);
        if !is_forced(&question, cell, digit) {
            question.values_mut()[cell] = digit;
        }
    }
    question
}

/// Whether no solution of `question` holds another digit than `digit` in the empty cell `cell`.
fn is_forced(question: &Grid, cell: usize, digit: u8) -> bool {
    let mut any = Any { branches: PROOF_BRANCHES };
    Search::of(question).is_some_and(|mut search| search.run_without(cell, digit, &mut any).is_continue())
}

/// A puzzle with exactly one solution: a minimal question of a random grid with `k` of its clues put back, `k`
/// uniform in `0..=extra_clues` (and at most what was taken away).
pub fn generate(geometry: Geometry, extra_clues: usize, rng: &mut Rng) -> Puzzle {
    let answer = random_solution(geometry, rng);
    let mut question = minimal_question(&answer, rng);
    let mut removed: Vec<usize> = (0..geometry.cells()).filter(|&cell| question.values()[cell] == 0).collect();
    rng.shuffle(&mut removed);
    removed.truncate(rng.below(extra_clues + 1));
    for cell in removed {
        question.values_mut()[cell] = answer.values()[cell];
    }
    Puzzle { question, answer }
}

/// Tries digits in random order and stops at the first solution.
struct Fill<'a> {
    rng: &'a mut Rng,
    branches: usize,
    found: Option<Vec<u8>>,
}

impl Guide for Fill<'_> {
    fn choose(&mut self, candidates: u16) -> ControlFlow<(), u16> {
        if self.branches == 0 {
            return ControlFlow::Break(());
        }
        self.branches -= 1;
        let mut rest = candidates;
        for _ in 0..self.rng.below(candidates.count_ones() as usize) {
            rest &= rest - 1;
        }
        ControlFlow::Continue(rest & rest.wrapping_neg())
    }

    fn solution(&mut self, cells: &[u8]) -> ControlFlow<()> {
        self.found = Some(cells.to_vec());
        ControlFlow::Break(())
    }
}

/// Breaks at the first solution, and when the branches are spent.
struct Any {
    branches: usize,
}

impl Guide for Any {
    fn choose(&mut self, candidates: u16) -> ControlFlow<(), u16> {
        if self.branches == 0 {
            return ControlFlow::Break(());
        }
        self.branches -= 1;
        ControlFlow::Continue(candidates & candidates.wrapping_neg())
    }

    fn solution(&mut self, _: &[u8]) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::puzzle::sudoku::{Solutions, count_solutions, solve};
    use crate::rng::Rng;

    proptest! {
        #[test]
        fn generated_puzzles_have_exactly_one_solution(
            seed in any::<u64>(),
            side in prop::sample::select(&[4, 6, 9][..]),
            extra in 0..8usize,
        ) {
            let puzzle = generate(Geometry::of_side(side)?, extra, &mut Rng::new(seed));
            prop_assert_eq!(solve(&puzzle.question), Solutions::Unique(puzzle.answer));
        }

        #[test]
        fn a_minimal_question_loses_uniqueness_with_any_clue(seed in any::<u64>(), side in prop::sample::select(&[4, 6, 9][..])) {
            let mut rng = Rng::new(seed);
            let question = minimal_question(&random_solution(Geometry::of_side(side)?, &mut rng), &mut rng);
            for cell in (0..question.values().len()).filter(|&cell| question.values()[cell] != 0) {
                let mut less = question.clone();
                less.values_mut()[cell] = 0;
                prop_assert_eq!(count_solutions(&less, 2), 2);
            }
        }
    }
}

//! The rules that an audit of Sudoku applies.

use super::{Geometry, Grid, canonical, count_solutions, find_symmetry};
use crate::puzzle::{Audit, TokenPair, Verdict};

impl Audit for Geometry {
    fn verdict(&self, pair: TokenPair<'_>) -> Verdict {
        let grid = |tokens: &[u8]| Grid::from_tokens(*self, tokens).ok();
        let Some(question) = grid(pair.question) else { return Verdict::NoBoard };
        match count_solutions(&question, 2) {
            0 => Verdict::Unsolvable,
            1 if grid(pair.answer).is_some_and(|answer| answer.is_solution_of(&question)) => Verdict::Good,
            1 => Verdict::WrongAnswer,
            _ => Verdict::SeveralSolutions,
        }
    }

    fn several_answers(&self) -> bool {
        false
    }

    fn measure(&self) -> &'static str {
        "number of clues"
    }

    fn measure_key(&self) -> &'static str {
        "clues"
    }

    fn size(&self, pair: TokenPair<'_>) -> usize {
        pair.question.iter().filter(|&&token| token > 1).count()
    }

    fn form(&self, tokens: &[u8]) -> Vec<u8> {
        let form = Grid::from_tokens(*self, tokens).ok().and_then(|grid| canonical(&grid).ok());
        form.map_or_else(|| tokens.to_vec(), |canonical| canonical.form.tokens().collect())
    }

    fn is_image(&self, from: TokenPair<'_>, to: TokenPair<'_>) -> bool {
        find_symmetry(*self, from, to).is_some()
    }

    fn notes(&self) -> Vec<String> {
        let note = match *self {
            Geometry::FOUR => {
                "4×4 has only 288 solution grids, 2 up to symmetry: splits of any size share grids. Shared grids are no \
                 leak; equivalent puzzles are."
            }
            Geometry::SIX => {
                "6×6 has 28,200,960 solution grids, but only 49 up to symmetry: splits always share grids up to symmetry. \
                 That is no leak; equivalent puzzles are."
            }
            _ => return Vec::new(),
        };
        vec![note.into()]
    }
}

//! What an audit has to know of a puzzle.

use super::super::{TokenPair, find_symmetry};
use crate::puzzle::maze;
use crate::puzzle::sudoku::{Geometry, Grid, canonical, count_solutions};

/// What one row turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    NoBoard,
    Unsolvable,
    SeveralSolutions,
    WrongAnswer,
}

/// A puzzle's rules, as an audit asks for them. A form is a row of tokens that all images of a row share.
pub(super) trait Rules: Sync {
    fn verdict(&self, pair: TokenPair<'_>) -> Verdict;

    /// Whether a puzzle with several right answers, one of them stored, is a proper one.
    fn several_answers(&self) -> bool;

    /// What puzzles are counted by.
    fn measure(&self) -> &'static str;

    /// Its value for a puzzle.
    fn size(&self, pair: TokenPair<'_>) -> usize;

    /// The form of a question or an answer.
    fn form(&self, tokens: &[u8]) -> Vec<u8>;

    /// Whether a symmetry turns `from` into `to`.
    fn is_image(&self, from: TokenPair<'_>, to: TokenPair<'_>) -> bool;

    /// What has to be known to read the figures.
    fn notes(&self) -> Vec<String>;
}

impl Rules for Geometry {
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

impl Rules for maze::Board {
    fn verdict(&self, pair: TokenPair<'_>) -> Verdict {
        if maze::ends(pair.question).is_err() {
            return Verdict::NoBoard;
        }
        match maze::solve(self.side(), pair.question) {
            None => Verdict::Unsolvable,
            Some(_) if !maze::is_solution(self.side(), pair.question, pair.answer) => Verdict::WrongAnswer,
            Some(solved) if solved.paths > 1 => Verdict::SeveralSolutions,
            Some(_) => Verdict::Good,
        }
    }

    fn several_answers(&self) -> bool {
        true
    }

    fn measure(&self) -> &'static str {
        "cells on the shortest path"
    }

    fn size(&self, pair: TokenPair<'_>) -> usize {
        maze::solve(self.side(), pair.question).map_or(0, |solved| solved.length)
    }

    fn form(&self, tokens: &[u8]) -> Vec<u8> {
        maze::canonical(self.side(), tokens)
    }

    fn is_image(&self, from: TokenPair<'_>, to: TokenPair<'_>) -> bool {
        let same = |id: usize, from: &[u8], to: &[u8]| maze::image(self.side(), id, from) == to;
        (0..maze::SYMMETRIES).any(|id| same(id, from.question, to.question) && same(id, from.answer, to.answer))
    }

    fn notes(&self) -> Vec<String> {
        vec!["A maze may have several shortest paths; any of them is a right label.".into()]
    }
}

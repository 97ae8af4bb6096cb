//! The rules that an audit of mazes applies.

use super::{MazeBoard, SYMMETRIES, canonical, ends, image, is_solution, solve};
use crate::puzzle::{Audit, TokenPair, Verdict};

impl Audit for MazeBoard {
    fn verdict(&self, pair: TokenPair<'_>) -> Verdict {
        if ends(pair.question).is_err() {
            return Verdict::NoBoard;
        }
        match solve(self.side(), pair.question) {
            None => Verdict::Unsolvable,
            Some(_) if !is_solution(self.side(), pair.question, pair.answer) => Verdict::WrongAnswer,
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

    fn measure_key(&self) -> &'static str {
        "length"
    }

    fn size(&self, pair: TokenPair<'_>) -> usize {
        solve(self.side(), pair.question).map_or(0, |solved| solved.length)
    }

    fn form(&self, tokens: &[u8]) -> Vec<u8> {
        canonical(self.side(), tokens)
    }

    fn is_image(&self, from: TokenPair<'_>, to: TokenPair<'_>) -> bool {
        let same = |id: usize, from: &[u8], to: &[u8]| image(self.side(), id, from) == to;
        (0..SYMMETRIES).any(|id| same(id, from.question, to.question) && same(id, from.answer, to.answer))
    }

    fn notes(&self) -> Vec<String> {
        vec!["A maze may have several shortest paths; any of them is a right label.".into()]
    }
}

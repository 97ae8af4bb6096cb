//! Sudoku as the rest of the engine sees it: read, drawn, judged, moved about.

use std::fmt::Write as _;

use super::{Geometry, Grid, MAX_SIDE, Solutions, Symmetry, solve};
use crate::puzzle::{Audit, Board, Judge, Moves};
use crate::rng::Rng;
use crate::{Error, Result};

/// The digit that a token says; what is no digit (padding) is empty.
fn value(token: u8) -> u8 {
    token.saturating_sub(1)
}

fn grid_of(geometry: Geometry, tokens: &[u8]) -> Option<Grid> {
    let values: Vec<u8> = tokens.iter().map(|&token| value(token)).collect();
    Grid::from_values(geometry, &values).ok()
}

fn symbol(value: u8) -> char {
    match value {
        0 => '.',
        1..=9 => char::from(b'0' + value),
        _ => char::from(b'A' + value - 10),
    }
}

impl Board for Geometry {
    fn name(&self) -> String {
        format!("sudoku {self}")
    }

    /// Refused unless it has a solution.
    fn parse(&self, text: &str) -> Result<Vec<u8>> {
        let cells: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let question = Grid::parse(*self, &cells)?;
        if let Some(conflict) = question.conflict() {
            return Err(Error::input(format!(
                "the puzzle contradicts itself: {conflict}; correct one of the two cells"
            )));
        }
        match solve(&question) {
            Solutions::Unique(_) | Solutions::Multiple(..) => Ok(question.tokens().collect()),
            Solutions::None => Err(Error::input("the puzzle has no solution; check the clues")),
        }
    }

    fn remark(&self, question: &[u8]) -> Option<String> {
        let Solutions::Multiple(a, b) = solve(&grid_of(*self, question)?) else { return None };
        Some(format!(
            "the puzzle has several solutions, {a} and {b} among them; models are trained on puzzles with one"
        ))
    }

    fn text(&self, tokens: &[u8]) -> String {
        tokens.iter().map(|&token| symbol(value(token))).collect()
    }

    fn draw(&self, question: &[u8], tokens: &[u8], changed: &[bool], colour: bool) -> String {
        let side = self.side();
        let rule = |text: &mut String| {
            for column in 0..side {
                text.push_str(if column > 0 && column.is_multiple_of(self.box_cols()) { "+---" } else { "---" });
            }
            text.push('\n');
        };
        let mut text = String::new();
        for (cell, &token) in tokens.iter().enumerate() {
            let (row, column) = (self.row(cell), self.col(cell));
            if column == 0 && row > 0 && row.is_multiple_of(self.box_rows()) {
                rule(&mut text);
            }
            if column > 0 && column.is_multiple_of(self.box_cols()) {
                text.push('|');
            }
            let symbol = symbol(value(token));
            let _ = match (colour, changed[cell], value(question[cell]) != 0) {
                (false, true, _) => write!(text, " {symbol}*"),
                (true, true, _) => write!(text, " \x1b[1;33m{symbol}\x1b[0m "),
                (true, false, false) => write!(text, " \x1b[32m{symbol}\x1b[0m "),
                _ => write!(text, " {symbol} "),
            };
            if column + 1 == side {
                text.push('\n');
            }
        }
        text
    }

    fn same(&self, a: u8, b: u8) -> bool {
        value(a) == value(b)
    }

    fn judge(&self) -> Judge {
        Judge::Rules { answer: "solution", several: false }
    }

    fn solves(&self, question: &[u8], answer: &[u8]) -> bool {
        let grids = (grid_of(*self, question), grid_of(*self, answer));
        matches!(grids, (Some(question), Some(answer)) if answer.is_solution_of(&question))
    }

    fn audit(&self) -> Option<&dyn Audit> {
        Some(self)
    }

    /// Every symmetry is equally likely, so it makes no difference whether a row is an original or a copy.
    fn random_symmetry(&self, rng: &mut Rng, moves: &mut Moves) {
        let symmetry = Symmetry::random(*self, rng);
        moves.source.iter_mut().zip(symmetry.source()).for_each(|(to, &from)| *to = u32::from(from));
        let tokens = moves.tokens[..MAX_SIDE + 2].iter_mut().skip(1);
        tokens.zip(symmetry.digits()).for_each(|(token, digit)| *token = digit + 1);
    }

    fn heading(&self) -> String {
        let shared = match self.side() {
            6 => "(6×6 has 28,200,960 grids, but only 49 classes of them under symmetry)\n",
            4 => "(4×4 has only 288 grids: solutions are shared)\n",
            _ => "",
        };
        format!("A puzzle it has not seen, under any symmetry:\n{shared}")
    }
}

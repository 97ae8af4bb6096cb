//! Mazes as the rest of the engine sees them: read, drawn, judged, moved about.

use std::fmt::Write as _;

use super::{GOAL, PATH, SIDES, SPACE, START, SYMBOLS, SYMMETRIES, VOCABULARY, WALL, ends, is_solution, solve, source};
use crate::puzzle::{Audit, Board, Judge, Moves};
use crate::rng::Rng;
use crate::{Error, Result};

/// A square of a given side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MazeBoard {
    side: usize,
}

impl MazeBoard {
    /// The board of mazes with `cells` cells and `vocab_size` tokens.
    pub fn new(cells: usize, vocab_size: usize) -> Result<Self> {
        let side = cells.isqrt();
        if side * side != cells || !SIDES.contains(&side) || vocab_size != VOCABULARY {
            return Err(Error::input(format!(
                "mazes are squares of side {} to {} with {VOCABULARY} tokens, not {cells} cells with {vocab_size}",
                SIDES.start(),
                SIDES.end()
            )));
        }
        Ok(Self { side })
    }

    /// Cells in a row.
    pub fn side(self) -> usize {
        self.side
    }

    /// The token of a character; `.` is a space too, for the sake of shells.
    pub fn token(character: char) -> Option<u8> {
        match character {
            '.' => Some(SPACE),
            _ => (WALL..=PATH).find(|&token| SYMBOLS[usize::from(token)] == character),
        }
    }
}

fn symbol(token: u8) -> char {
    SYMBOLS.get(usize::from(token)).copied().unwrap_or('?')
}

impl Board for MazeBoard {
    fn name(&self) -> String {
        format!("maze {0}×{0}", self.side)
    }

    /// Characters row by row; line breaks are ignored. Refused unless S and G are one each and connected.
    fn parse(&self, text: &str) -> Result<Vec<u8>> {
        let cells: Vec<char> = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
        let (side, wanted) = (self.side, self.side * self.side);
        if cells.len() != wanted {
            return Err(Error::input(format!(
                "the maze has {} cells, expected {wanted} ({side} rows of {side}); a free cell is a space or a dot",
                cells.len()
            )));
        }
        let token = |(at, &c): (usize, &char)| {
            Self::token(c).filter(|&token| token != PATH).ok_or_else(|| {
                let (row, column) = (at / side + 1, at % side + 1);
                Error::input(format!(
                    "the maze has {c:?} at row {row}, column {column}; expected # (wall), a space or a dot, S or G"
                ))
            })
        };
        let question = cells.iter().enumerate().map(token).collect::<Result<Vec<u8>>>()?;
        ends(&question).map_err(|what| Error::input(format!("the maze {what}; it needs one S and one G")))?;
        match solve(side, &question) {
            Some(_) => Ok(question),
            None => Err(Error::input("the maze has no way from S to G; take a wall out")),
        }
    }

    fn text(&self, tokens: &[u8]) -> String {
        let rows = tokens.chunks(self.side);
        let line = |row: &[u8]| row.iter().map(|&t| if t == SPACE { '.' } else { symbol(t) }).collect::<String>();
        rows.map(line).collect::<Vec<String>>().join("\n")
    }

    fn draw(&self, question: &[u8], tokens: &[u8], changed: &[bool], colour: bool) -> String {
        let mut text = String::new();
        for (at, &token) in tokens.iter().enumerate() {
            let shown = symbol(token);
            // A wall or an end that the model moved is as wrong as it looks.
            let wrong = token != question[at] && (token != PATH || question[at] != SPACE);
            let _ = match (colour, token) {
                (false, _) => write!(text, "{shown}{}", if changed[at] { '*' } else { ' ' }),
                (true, _) if wrong => write!(text, "\x1b[41m{shown} \x1b[0m"),
                (true, WALL) => write!(text, "\x1b[100m  \x1b[0m"),
                (true, START | GOAL) => write!(text, "\x1b[1m{shown} \x1b[0m"),
                (true, PATH) if changed[at] => write!(text, "\x1b[1;33m{shown} \x1b[0m"),
                (true, PATH) => write!(text, "\x1b[32m{shown} \x1b[0m"),
                (true, _) if changed[at] => text.write_str("\x1b[33m· \x1b[0m"),
                (true, _) => text.write_str("  "),
            };
            if (at + 1).is_multiple_of(self.side) {
                text.truncate(text.trim_end_matches(' ').len());
                text.push('\n');
            }
        }
        text
    }

    fn judge(&self) -> Judge {
        Judge::Rules { answer: "shortest path", several: true }
    }

    fn solves(&self, question: &[u8], answer: &[u8]) -> bool {
        is_solution(self.side, question, answer)
    }

    fn audit(&self) -> Option<&dyn Audit> {
        Some(self)
    }

    fn random_symmetry(&self, rng: &mut Rng, moves: &mut Moves) {
        let id = rng.below(SYMMETRIES);
        moves.source.iter_mut().enumerate().for_each(|(at, from)| *from = source(self.side, id, at) as u32);
    }

    fn heading(&self) -> String {
        "A maze of the test split:\n".into()
    }
}

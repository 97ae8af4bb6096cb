//! ARC as the rest of the engine sees it. A question alone does not say its task: that is what puzzle identifiers are for.

use super::picture::{Panel, side_by_side};
use super::{Augmentation, Grid, crop, decode, encode};
use crate::puzzle::{Board, Judge};
use crate::{Error, Result};

/// A square board that grids stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArcBoard {
    /// Rows and columns.
    pub side: usize,
}

impl ArcBoard {
    /// The grid that tokens say: exactly, wherever it stands, or else the crop of a prediction.
    pub fn grid(&self, tokens: &[u8]) -> Grid {
        decode(tokens, self.side).unwrap_or_else(|| crop(tokens, self.side))
    }
}

impl Board for ArcBoard {
    fn name(&self) -> String {
        format!("arc {0}×{0}", self.side)
    }

    /// Rows of digits, between spaces, slashes or line feeds: `003/030/300`.
    fn parse(&self, text: &str) -> Result<Vec<u8>> {
        let mut rows: Vec<Vec<i64>> = Vec::new();
        for row in text.split(|c: char| c.is_whitespace() || c == '/').filter(|row| !row.is_empty()) {
            let colour = |c: char| match c {
                '.' => Some(0),
                _ => c.to_digit(10).map(i64::from),
            };
            let fault =
                |c| Error::input(format!("{c:?} is no colour; a grid is rows of digits 0–9, such as 003/030/300"));
            rows.push(row.chars().map(|c| colour(c).ok_or_else(|| fault(c))).collect::<Result<_>>()?);
        }
        let grid = Grid::from_rows(&rows)?;
        if grid.side() > self.side {
            return Err(Error::input(format!(
                "a grid of side {} does not fit the board of {}",
                grid.side(),
                self.side
            )));
        }
        let mut tokens = vec![0; self.side * self.side];
        encode(&grid, &Augmentation::IDENTITY, (0, 0), self.side, &mut tokens);
        Ok(tokens)
    }

    fn text(&self, tokens: &[u8]) -> String {
        let grid = self.grid(tokens);
        let rows = grid.rows().map(|row| row.iter().map(|&colour| char::from(b'0' + colour)).collect::<String>());
        rows.collect::<Vec<_>>().join("/")
    }

    /// Question and attempt side by side.
    fn draw(&self, question: &[u8], tokens: &[u8], changed: &[bool], colour: bool) -> String {
        let (input, attempt) = (self.grid(question), self.grid(tokens));
        // A grid that differs from the attempt exactly where a cell has changed; the attempt stands in the corner.
        let before = Grid::from_fn(attempt.height(), attempt.width(), |r, c| {
            let flip = u8::from(changed[r * self.side + c]);
            attempt.at(r, c) ^ flip
        });
        let attempt = Panel { title: "attempt".into(), grid: Some(&attempt), marks: Some(&before) };
        side_by_side(&[Panel::new("input", &input), attempt], colour)
    }

    /// What lies outside the grids looks alike.
    fn same(&self, a: u8, b: u8) -> bool {
        a == b || a < 2 && b < 2
    }

    fn judge(&self) -> Judge {
        Judge::Votes
    }

    fn heading(&self) -> String {
        "A test input of a task whose demonstrations it has seen:\n".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_it_is_written() {
        let board = ArcBoard { side: 4 };
        let tokens = board.parse("012\n9.3").unwrap();
        assert_eq!(tokens, [2, 3, 4, 1, 11, 2, 5, 1, 1, 1, 1, 0, 0, 0, 0, 0]);
        assert_eq!(board.text(&tokens), "012/903");
        assert_eq!(board.parse(&board.text(&tokens)).unwrap(), tokens);
        for (text, what) in
            [("", "empty"), ("12/3", "row 2 has 1"), ("1x", "'x' is no colour"), ("12345", "does not fit")]
        {
            let message = board.parse(text).unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        }
    }

    #[test]
    fn question_and_attempt_stand_side_by_side() {
        let board = ArcBoard { side: 3 };
        let (question, answer) = (board.parse("12").unwrap(), board.parse("3/4").unwrap());
        let mut changed = [false; 9];
        changed[3] = true;
        assert_eq!(board.draw(&question, &answer, &changed, false), "input   attempt\n1 2     3\n        4*\n");
    }
}

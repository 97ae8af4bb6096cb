//! The board of a grid of symbols.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::super::{Board, Description};
use super::{Cells, TOKENS};
use crate::{Error, Result};

/// Symbols of a grid, and the room there is for it.
#[derive(Clone, Debug)]
pub struct Symbols {
    kind: String,
    height: usize,
    width: usize,
    padded: bool,
    /// What each token is called; token 0, padding, is the empty string.
    symbols: Vec<String>,
    tokens: HashMap<String, u8>,
    /// What stands for an empty cell in a text: no symbol's name.
    blank: &'static str,
    /// Columns that a cell takes in a picture.
    columns: usize,
}

/// What may stand for an empty cell in a text.
const BLANKS: [&str; 4] = ["_", "␣", "□", "◌"];

impl Symbols {
    /// The board of a description; where it names no symbols, tokens are called by their numbers.
    pub fn new(description: &Description, vocab_size: usize) -> Result<Self> {
        let Description { kind, height, width, symbols, padded } = description;
        if !symbols.is_empty() && symbols.len() != vocab_size {
            let named = symbols.len();
            return Err(Error::input(format!("{named} symbols are named for a vocabulary of {vocab_size}")));
        }
        let symbols =
            if symbols.is_empty() { (0..vocab_size).map(|t| t.to_string()).collect() } else { symbols.clone() };
        let tokens: HashMap<String, u8> = symbols.iter().cloned().zip(0..=u8::MAX).collect();
        if tokens.len() != symbols.len() {
            return Err(Error::input("a symbol is named twice, or there are more than 256"));
        }
        let columns = symbols.iter().map(|symbol| symbol.chars().count()).max().unwrap_or(1).max(1);
        let blank = BLANKS.into_iter().find(|blank| !tokens.contains_key(*blank)).unwrap_or(" ");
        let (kind, height, width, padded) = (kind.clone(), *height, *width, *padded);
        Ok(Self { kind, height, width, padded, symbols, tokens, blank, columns })
    }

    /// Whether every cell is one character, so that a row of them needs no separators.
    fn one_character(&self) -> bool {
        self.columns == 1
    }

    /// The tokens of a grid that fits.
    pub fn tokens(&self, cells: &Cells) -> Result<Vec<u8>, String> {
        let (height, width) = cells.shape();
        if height > self.height || width > self.width {
            return Err(format!("is {height}×{width}; there is room for {}×{}", self.height, self.width));
        }
        if !self.padded && (height, width) != (self.height, self.width) {
            return Err(format!("is {height}×{width}; all of its data set are {}×{}", self.height, self.width));
        }
        let mut tokens = vec![0; self.height * self.width];
        for (r, row) in cells.rows().iter().enumerate() {
            for (c, symbol) in row.iter().enumerate() {
                let known = || {
                    let all: Vec<&str> = self.symbols.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
                    all.join(" ")
                };
                let symbol = if symbol == self.blank { "" } else { symbol.as_str() };
                tokens[r * self.width + c] = *self.tokens.get(symbol).ok_or_else(|| {
                    format!("has {symbol:?} at row {}, column {}; the symbols are: {}", r + 1, c + 1, known())
                })?;
            }
        }
        Ok(tokens)
    }

    fn symbol(&self, token: u8) -> &str {
        self.symbols.get(usize::from(token)).map_or("", String::as_str)
    }

    /// Rows and columns up to the last that holds more than padding.
    fn extent(&self, tokens: &[u8]) -> (usize, usize) {
        let used = |at: &usize| !self.symbol(tokens[*at]).is_empty();
        let cells = || (0..tokens.len()).filter(used);
        let height = cells().map(|at| at / self.width + 1).max().unwrap_or(0);
        (height, cells().map(|at| at % self.width + 1).max().unwrap_or(0))
    }

    /// What was typed as JSON rows: one row of text is cut into rows of the full width.
    fn typed(&self, text: &str) -> Result<serde_json::Value, String> {
        if text.trim_start().starts_with('[') && !self.tokens.contains_key("[") {
            return serde_json::from_str(text).map_err(|e| format!("is not the JSON expected here: {e}"));
        }
        let ignored = |c: char| c.is_whitespace() && !self.tokens.contains_key(&c.to_string());
        let row = |line: &str| -> Vec<String> {
            match self.one_character() {
                true => line.chars().filter(|&c| !ignored(c)).map(String::from).collect(),
                false => line.split(|c: char| c.is_whitespace() || c == ',').map(String::from).collect(),
            }
        };
        let rows = text.lines().map(row).map(|row| row.into_iter().filter(|cell| !cell.is_empty()).collect());
        let rows: Vec<Vec<String>> = rows.filter(|row: &Vec<String>| !row.is_empty()).collect();
        Ok(match &rows[..] {
            [row] if row.len() > self.width && row.len().is_multiple_of(self.width) => {
                row.chunks(self.width).collect::<Vec<_>>().into()
            }
            _ => rows.into(),
        })
    }
}

impl Board for Symbols {
    fn name(&self) -> String {
        match self.kind.as_str() {
            TOKENS => TOKENS.into(),
            kind => format!("{kind} {}×{}", self.height, self.width),
        }
    }

    fn parse(&self, text: &str) -> Result<Vec<u8>> {
        let cells = self.typed(text).and_then(|rows| Cells::from_json(&rows));
        cells.and_then(|cells| self.tokens(&cells)).map_err(|what| Error::input(format!("the puzzle {what}")))
    }

    fn text(&self, tokens: &[u8]) -> String {
        // An answer without any symbol is one empty cell, so that there is something to see.
        let (height, width) = self.extent(tokens);
        let (height, width) = (height.max(1), width.max(1));
        let separator = if self.one_character() { "" } else { " " };
        let rows = tokens.chunks(self.width).take(height).map(|row| {
            let cell = |&token: &u8| match self.symbol(token) {
                "" => self.blank,
                symbol => symbol,
            };
            row.iter().take(width).map(cell).collect::<Vec<&str>>().join(separator)
        });
        rows.collect::<Vec<String>>().join("\n")
    }

    fn draw(&self, question: &[u8], tokens: &[u8], changed: &[bool], colour: bool) -> String {
        let mut text = String::new();
        let columns = self.columns;
        let (height, width) = self.extent(question);
        let (a, b) = self.extent(tokens);
        for r in 0..height.max(a) {
            for c in 0..width.max(b) {
                let at = r * self.width + c;
                let symbol = self.symbol(tokens[at]);
                let _ = match (colour, changed[at], question[at] == tokens[at]) {
                    (false, true, _) => write!(text, " {symbol:>columns$}*"),
                    (true, true, _) => write!(text, " \x1b[1;33m{symbol:>columns$}\x1b[0m "),
                    (true, false, false) => write!(text, " \x1b[32m{symbol:>columns$}\x1b[0m "),
                    _ => write!(text, " {symbol:>columns$} "),
                };
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }
}

//! Sudoku boards in the terminal, with the cells that matter in colour.

use std::fmt::Write as _;

use crate::puzzle::sudoku::{Geometry, Grid};

/// Draws `values` (0 = empty): cells that `question` gives are plain, answers green, `changed` ones yellow. Without
/// colour, changed cells carry a `*`.
pub fn draw(geometry: Geometry, question: &[u8], values: &[u8], changed: &[bool], colour: bool) -> String {
    let side = geometry.side();
    let rule = |text: &mut String| {
        for column in 0..side {
            text.push_str(if column > 0 && column.is_multiple_of(geometry.box_cols()) { "+---" } else { "---" });
        }
        text.push('\n');
    };
    let mut text = String::new();
    for (cell, &value) in values.iter().enumerate() {
        let (row, column) = (geometry.row(cell), geometry.col(cell));
        if column == 0 && row > 0 && row.is_multiple_of(geometry.box_rows()) {
            rule(&mut text);
        }
        if column > 0 && column.is_multiple_of(geometry.box_cols()) {
            text.push('|');
        }
        let symbol = symbol(value);
        let _ = match (colour, changed[cell], question[cell] != 0) {
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

fn symbol(value: u8) -> char {
    match value {
        0 => '.',
        1..=9 => char::from(b'0' + value),
        _ => char::from(b'A' + value - 10),
    }
}

/// The grid that tokens say; what is no digit (padding) is empty.
pub fn grid_of(geometry: Geometry, tokens: &[u8]) -> Option<Grid> {
    let values: Vec<u8> = tokens.iter().map(|token| token.saturating_sub(1)).collect();
    Grid::from_values(geometry, &values).ok()
}

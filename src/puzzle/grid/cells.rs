//! A grid as its owner writes it: rows of cells, each a symbol.

use serde_json::{Number, Value};

/// Rows of symbols, all of one length, at least one cell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cells(Vec<Vec<String>>);

impl Cells {
    /// Reads a grid from JSON; on a fault, what is wrong with it.
    ///
    /// * a string: a character a cell, a line a row;
    /// * an array of strings: each a row, a character a cell;
    /// * an array of arrays: each a row, of numbers and strings, each of them a cell;
    /// * an array of numbers: one row.
    pub fn from_json(value: &Value) -> Result<Self, String> {
        let rows = match value {
            Value::String(text) => text.lines().map(characters).collect::<Result<_, _>>()?,
            Value::Array(rows) if !rows.is_empty() && rows.iter().all(Value::is_number) => vec![cells(rows)?],
            Value::Array(rows) => rows.iter().map(row).collect::<Result<_, _>>()?,
            _ => return Err(format!("is {}; a grid is a string, or an array of rows", what(value))),
        };
        Self::new(rows)
    }

    fn new(rows: Vec<Vec<String>>) -> Result<Self, String> {
        let width = rows.first().map_or(0, Vec::len);
        if width == 0 {
            return Err("holds no cells".into());
        }
        match rows.iter().position(|row| row.len() != width) {
            Some(at) => Err(format!("is ragged: row {} has {} cells, row 1 has {width}", at + 1, rows[at].len())),
            None => Ok(Self(rows)),
        }
    }

    /// Height and width.
    pub fn shape(&self) -> (usize, usize) {
        (self.0.len(), self.0[0].len())
    }

    /// All symbols, row by row.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flatten().map(String::as_str)
    }

    /// The rows.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.0
    }
}

fn characters(line: &str) -> Result<Vec<String>, String> {
    line.chars().map(|character| symbol(&character.to_string())).collect()
}

fn row(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(line) if line.contains('\n') => Err("has a row with a line break in it".into()),
        Value::String(line) => characters(line),
        Value::Array(row) => cells(row),
        _ => Err(format!("has {} for a row; a row is a string or an array of cells", what(value))),
    }
}

fn cells(row: &[Value]) -> Result<Vec<String>, String> {
    let cell = |value: &Value| match value {
        Value::Number(number) => Ok(numeral(number)),
        Value::String(text) => symbol(text),
        _ => Err(format!("has {} for a cell; a cell is a number or a string", what(value))),
    };
    row.iter().map(cell).collect()
}

/// A number as a symbol: equal numbers are one, so a whole one is written without a fraction.
fn numeral(number: &Number) -> String {
    match number.as_f64() {
        Some(whole) if number.is_f64() && whole.fract() == 0.0 && whole.abs() < 1e15 => (whole as i64).to_string(),
        _ => number.to_string(),
    }
}

/// A symbol that can be shown, and read again.
fn symbol(text: &str) -> Result<String, String> {
    match text.is_empty() || text.chars().any(char::is_control) {
        true => Err(format!("has the cell {}; a symbol is one visible character or more", Value::from(text))),
        false => Ok(text.to_owned()),
    }
}

fn what(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn equal_numbers_are_one_symbol_however_they_are_written() {
        let read = |value: &str| Cells::from_json(&serde_json::from_str(value).unwrap()).unwrap();
        let cells = read("[[1, 1.0, 1e0, -2.0, 0.50, 1e300, \"1.0\"]]");
        assert_eq!(cells.symbols().collect::<Vec<_>>(), ["1", "1", "1", "-2", "0.5", "1e+300", "1.0"]);
        assert_eq!(Cells::from_json(&json!([-0.0, 0])).unwrap(), read("[0, 0]"));
    }
}

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
        let mut symbols = Vec::new();
        let (_, width) = Self::each_of_json(value, &mut |symbol| symbols.push(symbol.to_owned()))?;
        Ok(Self::of(symbols, width))
    }

    /// A grid of rows of `width` symbols, at least one.
    pub fn of(symbols: Vec<String>, width: usize) -> Self {
        Self(symbols.chunks(width).map(<[String]>::to_vec).collect())
    }

    /// Calls `each` with every symbol of a grid, row by row, and returns height and width; on a fault, what is wrong with it.
    pub fn each_of_json(value: &Value, each: &mut dyn FnMut(&str)) -> Result<(usize, usize), String> {
        let mut shape = Shape::default();
        match value {
            Value::String(text) => text.lines().try_for_each(|line| shape.row(characters(line, each)?))?,
            Value::Array(rows) if !rows.is_empty() && rows.iter().all(Value::is_number) => {
                shape.row(cells(rows, each)?)?;
            }
            Value::Array(rows) => rows.iter().try_for_each(|value| shape.row(row(value, each)?))?,
            _ => return Err(format!("is {}; a grid is a string, or an array of rows", what(value))),
        }
        match shape {
            Shape { width: 0, .. } => Err("holds no cells".into()),
            Shape { height, width } => Ok((height, width)),
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

/// A grid as far as it is read.
#[derive(Default)]
struct Shape {
    height: usize,
    width: usize,
}

impl Shape {
    /// The next row has so many cells.
    fn row(&mut self, cells: usize) -> Result<(), String> {
        self.height += 1;
        if self.height == 1 {
            self.width = cells;
        }
        match cells == self.width {
            true => Ok(()),
            false => Err(format!("is ragged: row {} has {cells} cells, row 1 has {}", self.height, self.width)),
        }
    }
}

fn characters(line: &str, each: &mut dyn FnMut(&str)) -> Result<usize, String> {
    let mut room = [0; 4];
    let mut count = 0;
    for character in line.chars() {
        each(symbol(character.encode_utf8(&mut room))?);
        count += 1;
    }
    Ok(count)
}

fn row(value: &Value, each: &mut dyn FnMut(&str)) -> Result<usize, String> {
    match value {
        Value::String(line) if line.contains('\n') => Err("has a row with a line break in it".into()),
        Value::String(line) => characters(line, each),
        Value::Array(row) => cells(row, each),
        _ => Err(format!("has {} for a row; a row is a string or an array of cells", what(value))),
    }
}

fn cells(row: &[Value], each: &mut dyn FnMut(&str)) -> Result<usize, String> {
    for value in row {
        match value {
            Value::Number(number) => each(&numeral(number)),
            Value::String(text) => each(symbol(text)?),
            _ => return Err(format!("has {} for a cell; a cell is a number or a string", what(value))),
        }
    }
    Ok(row.len())
}

/// A number as a symbol: equal numbers are one, so a whole one is written without a fraction.
fn numeral(number: &Number) -> String {
    match number.as_f64() {
        Some(whole) if number.is_f64() && whole.fract() == 0.0 && whole.abs() < 1e15 => (whole as i64).to_string(),
        _ => number.to_string(),
    }
}

/// A symbol that can be shown, and read again.
fn symbol(text: &str) -> Result<&str, String> {
    match text.is_empty() || text.chars().any(char::is_control) {
        true => Err(format!("has the cell {}; a symbol is one visible character or more", Value::from(text))),
        false => Ok(text),
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

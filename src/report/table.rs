//! Aligned text tables.

use std::fmt;

/// A table of text; columns that hold only numbers (with units, `%`, `–`) are aligned to the right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these column titles.
    pub fn new<S: Into<String>>(header: impl IntoIterator<Item = S>) -> Self {
        Self { header: header.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells stay empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) -> &mut Self {
        self.rows.push(cells.into_iter().map(Into::into).collect());
        self
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).chain([self.header.len()]).max().unwrap_or(0);
        let cell = |row: &'_ Vec<String>, c: usize| row.get(c).cloned().unwrap_or_default();
        let width = |s: &str| s.chars().count();
        let widths: Vec<usize> = (0..columns)
            .map(|c| self.rows.iter().chain([&self.header]).map(|r| width(&cell(r, c))).max().unwrap_or(0))
            .collect();
        let right: Vec<bool> =
            (0..columns).map(|c| !self.rows.is_empty() && self.rows.iter().all(|r| is_number(&cell(r, c)))).collect();
        let mut line = |row: &Vec<String>| {
            let mut text = String::new();
            for c in 0..columns {
                let (cell, gap) = (cell(row, c), if c == 0 { "" } else { "  " });
                let pad = " ".repeat(widths[c] - width(&cell));
                text += &if right[c] { format!("{gap}{pad}{cell}") } else { format!("{gap}{cell}{pad}") };
            }
            writeln!(f, "{}", text.trim_end())
        };
        if !self.header.is_empty() {
            line(&self.header)?;
            line(&widths.iter().map(|w| "─".repeat(*w)).collect())?;
        }
        self.rows.iter().try_for_each(line)
    }
}

fn is_number(cell: &str) -> bool {
    let digits = cell.chars().any(|c| c.is_ascii_digit());
    cell.is_empty()
        || cell == "–"
        || digits && cell.starts_with(|c: char| c.is_ascii_digit() || "+-–.<≤≥>~".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_and_words_left() {
        let mut table = Table::new(["operation", "error"]);
        table.row(["swiglu", "1.5e-9"]).row(["größe", "12"]).row(["attention"]);
        let expected = "operation   error\n─────────  ──────\nswiglu     1.5e-9\ngröße          12\nattention\n";
        assert_eq!(table.to_string(), expected);
        assert_eq!(Table::default().to_string(), "");
    }
}

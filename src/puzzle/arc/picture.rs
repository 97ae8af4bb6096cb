//! Grids in a terminal: coloured blocks, or digits where there is no colour.

use std::fmt::Write as _;

use super::{Grid, Pair};

/// The colours of the ARC web page, as red, green, blue.
const PALETTE: [[u8; 3]; super::COLOURS] = [
    [0, 0, 0],
    [0, 116, 217],
    [255, 65, 54],
    [46, 204, 64],
    [255, 220, 0],
    [170, 170, 170],
    [240, 18, 190],
    [255, 133, 27],
    [127, 219, 255],
    [135, 12, 37],
];

/// Between two grids.
const GAP: &str = "   ";

/// A grid and what stands above it.
pub struct Panel<'a> {
    /// The title.
    pub title: String,
    /// What is drawn; `None` where there is nothing to see.
    pub grid: Option<&'a Grid>,
    /// Cells that differ from this grid are marked.
    pub marks: Option<&'a Grid>,
}

impl<'a> Panel<'a> {
    /// A grid without marks.
    pub fn new(title: impl Into<String>, grid: &'a Grid) -> Self {
        Self { title: title.into(), grid: Some(grid), marks: None }
    }
}

/// Panels side by side. With `colour`, a cell is a block two characters wide, a marked one carries a dot; without, it
/// is a digit (`.` for 0), a marked one carries a `*`.
pub fn side_by_side(panels: &[Panel<'_>], colour: bool) -> String {
    let height = panels.iter().map(|panel| panel.grid.map_or(1, Grid::height).max(1)).max().unwrap_or(0);
    let width = |panel: &Panel<'_>| {
        let cells = panel.grid.map_or(0, Grid::width) * 2;
        cells.max(panel.title.chars().count()).max(EMPTY.chars().count() * usize::from(cells == 0))
    };
    let mut text = String::new();
    let mut line = |cells: &dyn Fn(&Panel<'_>, &mut String) -> usize| {
        let mut row = String::new();
        for (at, panel) in panels.iter().enumerate() {
            if at > 0 {
                row.push_str(GAP);
            }
            let used = cells(panel, &mut row);
            row.push_str(&" ".repeat(width(panel) - used));
        }
        text.push_str(row.trim_end_matches(' '));
        text.push('\n');
    };
    line(&|panel, row| {
        row.push_str(&panel.title);
        panel.title.chars().count()
    });
    for r in 0..height {
        line(&|panel, row| match panel.grid.filter(|grid| !grid.is_empty()) {
            Some(grid) if r < grid.height() => {
                (0..grid.width()).for_each(|c| cell(row, grid.at(r, c), is_marked(panel.marks, grid, r, c), colour));
                grid.width() * 2
            }
            None if r == 0 => {
                row.push_str(EMPTY);
                EMPTY.chars().count()
            }
            _ => 0,
        });
    }
    text
}

/// What stands in place of a grid without cells.
const EMPTY: &str = "(no grid)";

fn is_marked(marks: Option<&Grid>, grid: &Grid, r: usize, c: usize) -> bool {
    let inside = |other: &&Grid| r < other.height() && c < other.width();
    marks.is_some_and(|other| Some(other).filter(inside).is_none_or(|other| other.at(r, c) != grid.at(r, c)))
}

fn cell(row: &mut String, value: u8, marked: bool, colour: bool) {
    let _ = if colour {
        let [r, g, b] = PALETTE[usize::from(value)];
        let ink = if usize::from(r) + usize::from(g) + usize::from(b) > 380 { 30 } else { 97 };
        let inside = if marked { "··" } else { "  " };
        write!(row, "\x1b[48;2;{r};{g};{b};{ink}m{inside}\x1b[0m")
    } else {
        let symbol = if value == 0 { '.' } else { char::from(b'0' + value) };
        write!(row, "{symbol}{}", if marked { '*' } else { ' ' })
    };
}

/// A pair: input, then output.
pub fn pair(title: &str, pair: &Pair, colour: bool) -> String {
    side_by_side(&[Panel::new(title, &pair.input), Panel::new("→", &pair.output)], colour)
}

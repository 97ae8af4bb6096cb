//! A grid of digits and empty cells: as text, as a board, as tokens; and where it contradicts itself.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

use super::{Geometry, MAX_SIDE, SudokuError};

/// Characters of the values 0 (empty) to 16.
const CHARACTERS: &[u8; MAX_SIDE + 1] = b".123456789ABCDEFG";

/// A board, row by row: 0 is an empty cell, `1..=side` a digit. It may be full, partly filled or contradictory, but
/// every value is in range.
///
/// Its text is one character per cell (`.` empty, `1`–`9`, then `A`–`G`), written by `to_string` and read by `parse`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grid {
    geometry: Geometry,
    cells: Vec<u8>,
}

impl Grid {
    /// The empty board.
    pub fn empty(geometry: Geometry) -> Self {
        Self { geometry, cells: vec![0; geometry.cells()] }
    }

    /// A board from its values, row by row.
    pub fn from_values(geometry: Geometry, values: &[u8]) -> Result<Self, SudokuError> {
        let side = geometry.side();
        check_length(geometry, values.len())?;
        match values.iter().position(|&value| usize::from(value) > side) {
            Some(cell) => Err(SudokuError::Value { cell, side, value: values[cell] }),
            None => Ok(Self { geometry, cells: values.to_vec() }),
        }
    }

    /// A board from the published tokens: 1 is empty, `1 + digit` a digit; padding (0) is refused.
    pub fn from_tokens(geometry: Geometry, tokens: &[u8]) -> Result<Self, SudokuError> {
        let side = geometry.side();
        check_length(geometry, tokens.len())?;
        match tokens.iter().position(|&token| !(1..=side + 1).contains(&usize::from(token))) {
            Some(cell) => Err(SudokuError::Token { cell, side, token: tokens[cell] }),
            None => Ok(Self { geometry, cells: tokens.iter().map(|token| token - 1).collect() }),
        }
    }

    /// A board of a known size from text. Empty cells are `.` or `0`; white space and the lines of a drawn board
    /// (`|`, `+`, `-` and the box-drawing characters) are passed over.
    pub fn parse(geometry: Geometry, text: &str) -> Result<Self, SudokuError> {
        let side = geometry.side();
        let mut cells = Vec::with_capacity(geometry.cells());
        for character in text.chars().filter(|&c| !is_decoration(c)) {
            let cell = cells.len();
            let value = value_of(character).filter(|&value| usize::from(value) <= side);
            cells.push(value.ok_or(SudokuError::Character { cell, side, character })?);
            if cells.len() > geometry.cells() {
                break;
            }
        }
        let found = text.chars().filter(|&c| !is_decoration(c)).count();
        check_length(geometry, found)?;
        Ok(Self { geometry, cells })
    }

    /// The size of the board.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The values, row by row.
    pub fn values(&self) -> &[u8] {
        &self.cells
    }

    /// The published tokens, row by row: `value + 1`.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = u8> + '_ {
        self.cells.iter().map(|value| value + 1)
    }

    /// How many cells are filled.
    pub fn clues(&self) -> usize {
        self.cells.iter().filter(|&&value| value != 0).count()
    }

    /// Whether no cell is empty.
    pub fn is_full(&self) -> bool {
        !self.cells.contains(&0)
    }

    /// The first pair of cells, if any, that hold one digit in the same row, column or box.
    pub fn conflict(&self) -> Option<Conflict> {
        let units = self.geometry.units();
        let mut seen = [[None; MAX_SIDE + 1]; 3 * MAX_SIDE];
        for (second, &digit) in self.cells.iter().enumerate().filter(|&(_, &digit)| digit != 0) {
            for (&unit, kind) in units[second].iter().zip([Unit::Row, Unit::Column, Unit::Box]) {
                if let Some(first) = seen[unit as usize][digit as usize].replace(second) {
                    return Some(Conflict { geometry: self.geometry, first, second, digit, unit: kind });
                }
            }
        }
        None
    }

    /// Whether the grid is full and free of contradictions.
    pub fn is_solution(&self) -> bool {
        self.is_full() && self.conflict().is_none()
    }

    /// Whether the grid is a solution that agrees with every clue of `question`.
    pub fn is_solution_of(&self, question: &Self) -> bool {
        self.geometry == question.geometry && self.is_solution() && self.extends(question)
    }

    /// Whether every clue of `question`, a board of the same size, stands in this grid too.
    pub fn extends(&self, question: &Self) -> bool {
        question.cells.iter().zip(&self.cells).all(|(&clue, &value)| clue == 0 || clue == value)
    }

    /// The board as people draw it, with lines between the boxes; ends without a line break.
    pub fn board(&self) -> Board<'_> {
        Board(self)
    }

    pub(super) fn from_valid(geometry: Geometry, values: &[u8]) -> Self {
        debug_assert_eq!(values.len(), geometry.cells());
        Self { geometry, cells: values.to_vec() }
    }

    pub(super) fn values_mut(&mut self) -> &mut [u8] {
        &mut self.cells
    }
}

fn check_length(geometry: Geometry, found: usize) -> Result<(), SudokuError> {
    let expected = geometry.cells();
    if found == expected { Ok(()) } else { Err(SudokuError::Length { expected, found }) }
}

fn is_decoration(character: char) -> bool {
    character.is_whitespace() || matches!(character, '|' | '+' | '-' | '\u{2500}'..='\u{257f}')
}

fn value_of(character: char) -> Option<u8> {
    match character.to_ascii_uppercase() {
        '.' | '0' => Some(0),
        digit @ '1'..='9' => Some(digit as u8 - b'0'),
        letter @ 'A'..='G' => Some(letter as u8 - b'A' + 10),
        _ => None,
    }
}

/// Reads a board of any size; the number of cells says which.
impl FromStr for Grid {
    type Err = SudokuError;

    fn from_str(text: &str) -> Result<Self, SudokuError> {
        let cells = text.chars().filter(|&c| !is_decoration(c)).count();
        Self::parse(Geometry::of_cells(cells)?, text)
    }
}

/// The board in one line.
impl Display for Grid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.cells.iter().try_for_each(|&value| write!(f, "{}", CHARACTERS[usize::from(value)] as char))
    }
}

impl fmt::Debug for Grid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Grid({self})")
    }
}

/// A [`Grid`] that displays as a drawn board; see [`Grid::board`].
pub struct Board<'a>(&'a Grid);

impl Display for Board<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let geometry = self.0.geometry;
        let (side, box_rows, box_cols) = (geometry.side(), geometry.box_rows(), geometry.box_cols());
        let rule = vec!["-".repeat(2 * box_cols + 1); side / box_cols].join("+");
        for (r, row) in self.0.cells.chunks(side).enumerate() {
            if r > 0 {
                writeln!(f)?;
            }
            if r > 0 && r % box_rows == 0 {
                writeln!(f, "{rule}")?;
            }
            for (c, &value) in row.iter().enumerate() {
                let gap = if c > 0 && c % box_cols == 0 { " | " } else { " " };
                write!(f, "{gap}{}", CHARACTERS[usize::from(value)] as char)?;
            }
        }
        Ok(())
    }
}

/// The kinds of places in which a digit may stand only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A row.
    Row,
    /// A column.
    Column,
    /// A box.
    Box,
}

/// Two cells that hold the same digit in one unit. Cells count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    geometry: Geometry,
    /// The earlier cell.
    pub first: usize,
    /// The later cell.
    pub second: usize,
    /// What both hold.
    pub digit: u8,
    /// What they share.
    pub unit: Unit,
}

impl std::error::Error for Conflict {}

impl Display for Conflict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let place = |cell| format!("row {}, column {}", self.geometry.row(cell) + 1, self.geometry.col(cell) + 1);
        let unit = match self.unit {
            Unit::Row => "row",
            Unit::Column => "column",
            Unit::Box => "box",
        };
        let digit = CHARACTERS[usize::from(self.digit)] as char;
        write!(f, "two {digit}s in one {unit}: at {} and at {}", place(self.first), place(self.second))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any board, contradictory ones included.
    fn any_grid() -> impl Strategy<Value = Grid> {
        prop::sample::select(&Geometry::ALL[..]).prop_flat_map(|geometry| {
            prop::collection::vec(0..=geometry.side() as u8, geometry.cells())
                .prop_map(move |values| Grid::from_valid(geometry, &values))
        })
    }

    proptest! {
        #[test]
        fn rendering_then_parsing_is_identity(grid in any_grid()) {
            prop_assert_eq!(grid.to_string().parse::<Grid>()?, grid.clone());
            prop_assert_eq!(grid.board().to_string().parse::<Grid>()?, grid.clone());
            let tokens: Vec<u8> = grid.tokens().collect();
            prop_assert_eq!(Grid::from_tokens(grid.geometry(), &tokens)?, grid.clone());
            prop_assert_eq!(Grid::from_values(grid.geometry(), grid.values())?, grid);
        }

        #[test]
        fn a_conflict_is_reported_exactly_when_two_peers_agree(grid in any_grid()) {
            let (g, v) = (grid.geometry(), grid.values());
            let peers = |a: usize, b: usize| g.row(a) == g.row(b) || g.col(a) == g.col(b) || g.box_of(a) == g.box_of(b);
            let clash = (0..g.cells()).any(|b| (0..b).any(|a| v[a] != 0 && v[a] == v[b] && peers(a, b)));
            prop_assert_eq!(grid.conflict().is_some(), clash);
            if let Some(c) = grid.conflict() {
                prop_assert!(c.first < c.second && v[c.first] == c.digit && v[c.second] == c.digit);
                prop_assert!(peers(c.first, c.second));
            }
        }
    }

    #[test]
    fn errors_name_the_position_and_what_was_expected() {
        let error = |text: &str| text.parse::<Grid>().unwrap_err().to_string();
        let mut text = ".".repeat(81);
        text.replace_range(16..17, "x");
        assert_eq!(error(&text), "cell 17 (row 2, column 8) is 'x': expected . or a digit 1–9");
        assert_eq!(error("1234 5... .... ...."), "cell 5 (row 2, column 1) is '5': expected . or a digit 1–4");
        assert!(error(&".".repeat(80)).starts_with("no Sudoku has 80 cells"));
        let error = Grid::parse(Geometry::SIX, &".".repeat(35)).unwrap_err();
        assert_eq!(error.to_string(), "expected 36 cells (6×6), found 35");
        let conflict = "1..1 .... .... ....".parse::<Grid>().ok().and_then(|grid| grid.conflict());
        assert_eq!(
            conflict.map(|c| c.to_string()).as_deref(),
            Some("two 1s in one row: at row 1, column 1 and at row 1, column 4")
        );
    }

    #[test]
    fn a_board_is_drawn_with_lines_between_its_boxes() -> Result<(), SudokuError> {
        let grid: Grid = "123456 456... ...... ...... ...... ......".parse()?;
        let lines: Vec<String> = grid.board().to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], " 1 2 3 | 4 5 6");
        assert_eq!(lines[1], " 4 5 6 | . . .");
        assert_eq!(lines[2], "-------+-------");
        assert_eq!(lines.len(), 8);
        Ok(())
    }
}

//! A grid of colours, at most 30×30.

use serde::{Serialize, Serializer};

use super::ArcError;

/// Rows and columns a grid may have.
pub const MAX_SIDE: usize = 30;

/// Colours are `0..COLOURS`; 0 is the background.
pub const COLOURS: usize = 10;

/// Rows of colours. Only an empty prediction and an unknown answer have no cells; grids that are read have at least one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Grid {
    height: usize,
    width: usize,
    cells: Vec<u8>,
}

impl Grid {
    /// A grid from its cells, row by row; `width · height` of them, colours all.
    pub fn new(height: usize, width: usize, cells: Vec<u8>) -> Result<Self, ArcError> {
        assert_eq!(cells.len(), height * width, "a grid has height × width cells");
        if let Some(at) = cells.iter().position(|&cell| usize::from(cell) >= COLOURS) {
            return Err(ArcError::Colour { row: at / width + 1, column: at % width + 1, value: cells[at].into() });
        }
        match (height, width) {
            (0, _) | (_, 0) => Err(ArcError::Empty),
            _ if height.max(width) > MAX_SIDE => Err(ArcError::TooLarge { height, width, most: MAX_SIDE }),
            _ => Ok(Self { height, width, cells }),
        }
    }

    /// A grid from rows of numbers, as JSON files have them.
    pub fn from_rows(rows: &[Vec<i64>]) -> Result<Self, ArcError> {
        let width = rows.first().map_or(0, Vec::len);
        if let Some((row, found)) = rows.iter().map(Vec::len).enumerate().find(|(_, len)| *len != width) {
            return Err(ArcError::Ragged { row: row + 1, found, expected: width });
        }
        let most = rows.len().max(width);
        if most > MAX_SIDE {
            return Err(ArcError::TooLarge { height: rows.len(), width, most: MAX_SIDE });
        }
        let mut cells = Vec::with_capacity(rows.len() * width);
        for (r, row) in rows.iter().enumerate() {
            for (c, &value) in row.iter().enumerate() {
                let colour = u8::try_from(value).ok().filter(|&colour| usize::from(colour) < COLOURS);
                cells.push(colour.ok_or(ArcError::Colour { row: r + 1, column: c + 1, value })?);
            }
        }
        Self::new(rows.len(), width, cells)
    }

    /// A grid whose cell at (row, column) is `colour(row, column)`.
    pub fn from_fn(height: usize, width: usize, mut colour: impl FnMut(usize, usize) -> u8) -> Self {
        let cells = (0..height * width).map(|at| colour(at / width, at % width)).collect();
        Self { height, width, cells }
    }

    /// No cell at all: what stands for an answer that is not known.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// One cell of background: a grid like any other, which other builders write for an answer that is not known.
    pub fn background() -> Self {
        Self { height: 1, width: 1, cells: vec![0] }
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The larger of the two.
    pub fn side(&self) -> usize {
        self.height.max(self.width)
    }

    /// Whether there is no cell.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Colours row by row.
    pub fn cells(&self) -> &[u8] {
        &self.cells
    }

    /// The colour at a place inside the grid.
    pub fn at(&self, row: usize, column: usize) -> u8 {
        self.cells[row * self.width + column]
    }

    /// The rows, from the top.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.cells.chunks_exact(self.width.max(1))
    }
}

/// As ARC files have it: a list of rows.
impl Serialize for Grid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.rows())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_grid_is_refused_with_its_place() {
        let fault = |rows: &[&[i64]]| {
            let rows: Vec<Vec<i64>> = rows.iter().map(|row| row.to_vec()).collect();
            Grid::from_rows(&rows).unwrap_err()
        };
        assert_eq!(fault(&[]), ArcError::Empty);
        assert_eq!(fault(&[&[], &[]]), ArcError::Empty);
        assert_eq!(fault(&[&[1, 2], &[1]]), ArcError::Ragged { row: 2, found: 1, expected: 2 });
        assert_eq!(fault(&[&[1, 2], &[1, 10]]), ArcError::Colour { row: 2, column: 2, value: 10 });
        assert_eq!(fault(&[&[-1]]), ArcError::Colour { row: 1, column: 1, value: -1 });
        assert_eq!(fault(&[&[0; 31]]), ArcError::TooLarge { height: 1, width: 31, most: 30 });
        assert_eq!(fault(&[&[0i64] as &[i64]; 31]), ArcError::TooLarge { height: 31, width: 1, most: 30 });
    }

    #[test]
    fn a_grid_is_written_as_its_rows() {
        let grid = Grid::from_rows(&[vec![0, 1, 2], vec![3, 4, 5]]).unwrap();
        assert_eq!(serde_json::to_string(&grid).unwrap(), "[[0,1,2],[3,4,5]]");
        assert_eq!(serde_json::to_string(&Grid::default()).unwrap(), "[]");
    }
}

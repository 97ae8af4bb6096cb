//! The size of a board and of its boxes, and which units a cell lies in.

use super::SudokuError;

/// The largest side there are rules for.
pub const MAX_SIDE: usize = 16;
/// Cells of the largest board.
pub const MAX_CELLS: usize = MAX_SIDE * MAX_SIDE;

/// A board: `side × side` cells in boxes of `box_rows × box_cols`, where `side = box_rows · box_cols`.
///
/// A *band* is a row of boxes, a *stack* a column of boxes. A 6×6 board has three bands of two rows and two stacks
/// of three columns; in the other sizes the boxes are square.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Geometry {
    box_rows: u8,
    box_cols: u8,
}

impl Geometry {
    /// 4×4 with boxes of 2×2.
    pub const FOUR: Self = Self { box_rows: 2, box_cols: 2 };
    /// 6×6 with boxes of 2 rows × 3 columns.
    pub const SIX: Self = Self { box_rows: 2, box_cols: 3 };
    /// 9×9 with boxes of 3×3.
    pub const NINE: Self = Self { box_rows: 3, box_cols: 3 };
    /// 16×16 with boxes of 4×4.
    pub const SIXTEEN: Self = Self { box_rows: 4, box_cols: 4 };
    /// Every board there are rules for, smallest first.
    pub const ALL: [Self; 4] = [Self::FOUR, Self::SIX, Self::NINE, Self::SIXTEEN];

    /// The board of a side: 4, 6, 9 or 16.
    pub fn of_side(side: usize) -> Result<Self, SudokuError> {
        Self::ALL.into_iter().find(|g| g.side() == side).ok_or(SudokuError::Side(side))
    }

    /// The board that has `cells` cells: 16, 36, 81 or 256.
    pub fn of_cells(cells: usize) -> Result<Self, SudokuError> {
        Self::ALL.into_iter().find(|g| g.cells() == cells).ok_or(SudokuError::Cells(cells))
    }

    /// Rows of a box, which are the rows of a band and the number of stacks.
    pub const fn box_rows(self) -> usize {
        self.box_rows as usize
    }

    /// Columns of a box, which are the columns of a stack and the number of bands.
    pub const fn box_cols(self) -> usize {
        self.box_cols as usize
    }

    /// Cells along an edge, which is also the number of digits.
    pub const fn side(self) -> usize {
        self.box_rows() * self.box_cols()
    }

    /// Cells of the board.
    pub const fn cells(self) -> usize {
        self.side() * self.side()
    }

    /// Tokens of the published encoding: 0 is padding, 1 an empty cell, `1 + digit` a digit.
    pub const fn vocab_size(self) -> usize {
        self.side() + 2
    }

    /// Row of a cell, from 0.
    pub const fn row(self, cell: usize) -> usize {
        cell / self.side()
    }

    /// Column of a cell, from 0.
    pub const fn col(self, cell: usize) -> usize {
        cell % self.side()
    }

    /// Box of a cell, from 0, counted along the bands.
    pub const fn box_of(self, cell: usize) -> usize {
        let boxes_across = self.side() / self.box_cols();
        self.row(cell) / self.box_rows() * boxes_across + self.col(cell) / self.box_cols()
    }

    /// Whether exchanging rows and columns keeps the boxes: true where boxes are square. The transpose of a 6×6 board
    /// has boxes of 3 rows × 2 columns, which are other rules.
    pub const fn transposable(self) -> bool {
        self.box_rows == self.box_cols
    }

    /// For every cell the three units it lies in, as indices into one list of 48: rows from 0, columns from
    /// `MAX_SIDE`, boxes from `2 · MAX_SIDE`.
    pub(super) fn units(self) -> &'static [[u8; 3]; MAX_CELLS] {
        match self {
            Self::FOUR => const { &units_of(Self::FOUR) },
            Self::SIX => const { &units_of(Self::SIX) },
            Self::NINE => const { &units_of(Self::NINE) },
            _ => const { &units_of(Self::SIXTEEN) },
        }
    }
}

const fn units_of(geometry: Geometry) -> [[u8; 3]; MAX_CELLS] {
    let mut units = [[0; 3]; MAX_CELLS];
    let mut cell = 0;
    while cell < geometry.cells() {
        let (row, col, square) = (geometry.row(cell), geometry.col(cell), geometry.box_of(cell));
        units[cell] = [row as u8, (MAX_SIDE + col) as u8, (2 * MAX_SIDE + square) as u8];
        cell += 1;
    }
    units
}

impl std::fmt::Debug for Geometry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// `9×9`.
impl std::fmt::Display for Geometry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{side}×{side}", side = self.side())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_has_as_many_cells_as_there_are_digits() {
        for geometry in Geometry::ALL {
            let mut sizes = [0; 3 * MAX_SIDE];
            for cell in 0..geometry.cells() {
                geometry.units()[cell].iter().for_each(|&unit| sizes[unit as usize] += 1);
            }
            for kind in sizes.chunks(MAX_SIDE) {
                let (used, unused) = kind.split_at(geometry.side());
                assert!(used.iter().all(|&n| n == geometry.side()), "{geometry}: {sizes:?}");
                assert!(unused.iter().all(|&n| n == 0), "{geometry}: {sizes:?}");
            }
        }
    }

    #[test]
    fn six_by_six_has_boxes_of_two_rows_and_three_columns() {
        let six = Geometry::SIX;
        let corner: Vec<usize> = (0..36).filter(|&cell| six.box_of(cell) == 0).collect();
        assert_eq!(corner, [0, 1, 2, 6, 7, 8]);
        assert!(!six.transposable());
    }

    #[test]
    fn sizes_without_rules_are_refused() {
        assert_eq!(Geometry::of_side(8), Err(SudokuError::Side(8)));
        assert_eq!(Geometry::of_cells(80), Err(SudokuError::Cells(80)));
        for geometry in Geometry::ALL {
            assert_eq!(Geometry::of_side(geometry.side()), Ok(geometry));
            assert_eq!(Geometry::of_cells(geometry.cells()), Ok(geometry));
        }
    }
}

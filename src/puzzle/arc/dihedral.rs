//! The eight symmetries of a rectangle's grid, numbered as in specification, "Details".

use super::Grid;

/// A symmetry: 0 identity, 1–3 rotation by 90°·id counter-clockwise, 4 left-right flip, 5 up-down flip, 6 transpose,
/// 7 rotation by 90°, then left-right flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dihedral(u8);

impl Dihedral {
    /// The symmetry that changes nothing.
    pub const IDENTITY: Self = Self(0);

    /// All eight, by number.
    pub const ALL: [Self; 8] = [Self(0), Self(1), Self(2), Self(3), Self(4), Self(5), Self(6), Self(7)];

    /// The symmetry with this number, if it is one.
    pub fn new(id: u8) -> Option<Self> {
        (id < 8).then_some(Self(id))
    }

    /// Its number.
    pub fn id(self) -> u8 {
        self.0
    }

    /// The symmetry that undoes this one.
    pub fn inverse(self) -> Self {
        Self([0, 3, 2, 1, 4, 5, 6, 7][usize::from(self.0)])
    }

    /// Whether rows become columns.
    pub fn swaps_axes(self) -> bool {
        matches!(self.0, 1 | 3 | 6 | 7)
    }

    /// Height and width of the image of a grid.
    pub fn shape(self, grid: &Grid) -> (usize, usize) {
        if self.swaps_axes() { (grid.width(), grid.height()) } else { (grid.height(), grid.width()) }
    }

    /// Where the image of a grid has the colour for its place `(r, c)` from.
    pub fn source(self, grid: &Grid, r: usize, c: usize) -> (usize, usize) {
        let (h, w) = (grid.height(), grid.width());
        match self.0 {
            0 => (r, c),
            1 => (c, w - 1 - r),
            2 => (h - 1 - r, w - 1 - c),
            3 => (h - 1 - c, r),
            4 => (r, w - 1 - c),
            5 => (h - 1 - r, c),
            6 => (c, r),
            _ => (h - 1 - c, w - 1 - r),
        }
    }

    /// The image of a grid.
    pub fn apply(self, grid: &Grid) -> Grid {
        let (height, width) = self.shape(grid);
        Grid::from_fn(height, width, |r, c| {
            let (row, column) = self.source(grid, r, c);
            grid.at(row, column)
        })
    }
}

//! A grid as a row of tokens on a square board, and back. Tokens: 0 padding, 1 end of grid, 2 + colour (specification, "Details").

use super::{Augmentation, COLOURS, Grid};

/// Padding, end of grid, ten colours.
pub const VOCAB: usize = 12;

/// Token of the strip under and right of a grid.
const END: u8 = 1;
/// Token of colour 0.
const FIRST: u8 = 2;

/// Writes the image of `grid` into a board of `side`, its corner at `offset` (row, column).
pub fn encode(grid: &Grid, made: &Augmentation, offset: (usize, usize), side: usize, out: &mut [u8]) {
    let (height, width) = made.dihedral.shape(grid);
    let (top, left) = offset;
    out.fill(0);
    for r in 0..height {
        let row = &mut out[(top + r) * side..(top + r + 1) * side];
        for c in 0..width {
            row[left + c] = made.colour_at(grid, r, c) + FIRST;
        }
        if left + width < side {
            row[left + width] = END;
        }
    }
    if top + height < side {
        out[(top + height) * side + left..][..width].fill(END);
    }
}

/// The grid in a row, wherever it stands; `None` when the row is not exactly one grid with its strip.
pub fn decode(row: &[u8], side: usize) -> Option<Grid> {
    let start = row.iter().position(|&token| token >= FIRST)?;
    let (top, left) = (start / side, start % side);
    let is_colour = |r: usize, c: usize| row[r * side + c] >= FIRST;
    let width = (left..side).take_while(|&c| is_colour(top, c)).count();
    let height = (top..side).take_while(|&r| is_colour(r, left)).count();
    let cells = (0..height * width).map(|at| row[(top + at / width) * side + left + at % width].checked_sub(FIRST));
    let grid = Grid::new(height, width, cells.collect::<Option<_>>()?).ok()?;
    let mut again = vec![0; row.len()];
    encode(&grid, &Augmentation::IDENTITY, (top, left), side, &mut again);
    (again == row).then_some(grid)
}

/// The largest rectangle of colour tokens in the top left corner of a prediction: going down, the width is the run of
/// colours from the left, never more than above; of equals the first. Empty where the corner is no colour.
pub fn crop(row: &[u8], side: usize) -> Grid {
    let (mut best, mut width) = ((0, 0), side);
    for height in 1..=side {
        let tokens = &row[(height - 1) * side..][..width];
        width = tokens.iter().take_while(|&&token| (FIRST..FIRST + COLOURS as u8).contains(&token)).count();
        if height * width > best.0 * best.1 {
            best = (height, width);
        }
    }
    Grid::from_fn(best.0, best.1, |r, c| row[r * side + c] - FIRST)
}

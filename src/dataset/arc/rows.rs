//! Pairs as rows of tokens, and back. Tokens: 0 padding, 1 end of grid, 2 + colour.

use std::sync::Arc;

use crate::dataset::tokens::RowSource;
use crate::puzzle::arc::{Augmentation, COLOURS, Grid, Pair};
use crate::rng::Rng;

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

/// A task in a split.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Its pairs, in the order of the rows of each copy.
    pub pairs: Vec<Pair>,
    /// Its copies; the first is the task itself.
    pub copies: Arc<[Augmentation]>,
    /// Identifier of the first copy; the others follow.
    pub identifier: u32,
    /// Row of the first pair of the first copy.
    pub first_row: usize,
}

/// All rows of a split by number.
#[derive(Debug)]
pub(super) struct Rows {
    pub tasks: Arc<Vec<Source>>,
    /// Side of the board.
    pub side: usize,
    /// Seed of the offsets; `None`: every grid stands in the corner.
    pub translation: Option<u64>,
    /// Whether these are the labels.
    pub outputs: bool,
}

impl RowSource for Rows {
    fn write_row(&self, row: usize, out: &mut [u8]) {
        let task = &self.tasks[self.tasks.partition_point(|task| task.first_row <= row) - 1];
        let (copy, at) = ((row - task.first_row) / task.pairs.len(), (row - task.first_row) % task.pairs.len());
        let (pair, made) = (&task.pairs[at], &task.copies[copy]);
        let offset = match self.translation {
            Some(seed) => offset(seed, task.identifier + copy as u32, task.pairs.len(), at, pair, made, self.side),
            None => (0, 0),
        };
        encode(if self.outputs { &pair.output } else { &pair.input }, made, offset, self.side, out);
    }
}

/// Offset shared by the two grids of pair `at` of a copy's `pairs`: uniform in what they leave of the board; (0, 0) for
/// one pair of every copy. Each is drawn from a stream of its own, so that any row can be made without the others.
fn offset(
    seed: u64,
    identifier: u32,
    pairs: usize,
    at: usize,
    pair: &Pair,
    made: &Augmentation,
    side: usize,
) -> (usize, usize) {
    let stream = |item: usize| Rng::stream(seed, TRANSLATIONS | u64::from(identifier) << 16 | item as u64);
    if stream(0xffff).below(pairs) == at {
        return (0, 0);
    }
    let (a, b) = (made.dihedral.shape(&pair.input), made.dihedral.shape(&pair.output));
    let mut rng = stream(at);
    (rng.below(side - a.0.max(b.0) + 1), rng.below(side - a.1.max(b.1) + 1))
}

/// Streams of the offsets.
const TRANSLATIONS: u64 = 1 << 62;

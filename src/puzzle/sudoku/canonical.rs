//! One representative for all the puzzles that symmetries connect: two puzzles are the same up to symmetry exactly
//! when their canonical forms are equal.
//!
//! The form is the first, in a fixed order, of all arrangements of the puzzle. To compare two arrangements, lay them
//! out line by line: the rows of the first band, then every column, then the other rows. Each line brings the cells
//! where it crosses the lines laid before. A cell reads as a small number if it holds a digit, digits being renamed
//! in the order in which they appear, and as a large one if it is empty; the lower reading comes first.
//!
//! All arrangements are laid out together, one line at a time, and after every line only those that read lowest so
//! far go on. A cell once read never changes, so no arrangement that is dropped could have come first: the
//! search is exact. It is also quick, because a column of the first band already tells most arrangements apart, long
//! before the 3,359,232 of a 9×9 board have been tried.

use super::{Geometry, Grid, MAX_CELLS, MAX_SIDE, SudokuError, Symmetry};

/// How many arrangements may read alike before the search gives up. A full grid of side 4, 6 or 9 stays far below,
/// and so does every puzzle with one solution; only 16×16 grids made to be symmetric could come here.
const LIMIT: usize = 1 << 20;

/// How an empty cell reads: after everything else.
const EMPTY: u8 = 0xff;

const ROWS: usize = 0;
const COLS: usize = 1;

/// A canonical form and a symmetry that leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical {
    /// The representative of everything equivalent.
    pub form: Grid,
    /// A symmetry that takes the original to the form (there may be others).
    pub symmetry: Symmetry,
}

/// The canonical form of a grid, full or not.
///
/// It fails only on grids with an extreme number of symmetries of their own, which among the sizes up to 9×9 no
/// grid free of contradictions has.
///
/// ```
/// use trm::puzzle::sudoku::{Geometry, Symmetry, canonical, generate};
/// use trm::rng::Rng;
///
/// let mut rng = Rng::new(1);
/// let puzzle = generate(Geometry::NINE, 0, &mut rng).question;
/// let moved = Symmetry::random(Geometry::NINE, &mut rng).apply_grid(&puzzle);
/// assert_eq!(canonical(&puzzle)?.form, canonical(&moved)?.form);
/// # Ok::<(), trm::Error>(())
/// ```
pub fn canonical(grid: &Grid) -> Result<Canonical, SudokuError> {
    let symmetry = first_arrangement(grid.geometry(), grid.values())?;
    Ok(Canonical { form: symmetry.apply_grid(grid), symmetry })
}

/// An arrangement, laid out up to some line.
#[derive(Clone, Copy)]
struct Arrangement {
    transpose: bool,
    /// The rows and the columns laid so far, in order.
    lines: [[u8; MAX_SIDE]; 2],
    /// The same as masks.
    used: [u16; 2],
    /// New names of the digits, 0 where a digit has not appeared.
    names: [u8; MAX_SIDE + 1],
    named: u8,
}

/// One of the two ways to hold the board, rows as rows or rows as columns.
struct Orientation {
    cells: [u8; MAX_CELLS],
    /// `after[kind][line]`: lines that must be laid before this one. Empty lines of a block look alike, as do empty
    /// blocks; laying them in one order only loses nothing.
    after: [[u16; MAX_SIDE]; 2],
}

/// The symmetry that takes the board to its first arrangement.
fn first_arrangement(geometry: Geometry, symbols: &[u8]) -> Result<Symmetry, SudokuError> {
    let side = geometry.side();
    let orientations = [Orientation::of(geometry, symbols, false), Orientation::of(geometry, symbols, true)];
    let start =
        Arrangement { transpose: false, lines: [[0; MAX_SIDE]; 2], used: [0; 2], names: [0; MAX_SIDE + 1], named: 0 };
    let mut alive = vec![start];
    if geometry.transposable() {
        alive.push(Arrangement { transpose: true, ..start });
    }
    let first_band = (0..geometry.box_rows()).map(|row| (ROWS, row));
    let columns = (0..side).map(|col| (COLS, col));
    let other_rows = (geometry.box_rows()..side).map(|row| (ROWS, row));

    let mut next = Vec::new();
    for (kind, position) in first_band.chain(columns).chain(other_rows) {
        let mut lowest = u128::MAX;
        for arrangement in &alive {
            let orientation = &orientations[usize::from(arrangement.transpose)];
            let mut lines = orientation.choices(geometry, arrangement, kind, position);
            while lines != 0 {
                let line = lines.trailing_zeros() as usize;
                lines &= lines - 1;
                let (reading, longer) = orientation.lay(geometry, arrangement, kind, position, line);
                if reading < lowest {
                    lowest = reading;
                    next.clear();
                }
                if reading == lowest {
                    next.push(longer);
                }
            }
            if next.len() > LIMIT {
                return Err(SudokuError::TooSymmetric { side, limit: LIMIT });
            }
        }
        std::mem::swap(&mut alive, &mut next);
        next.clear();
    }
    Ok(alive[0].finish(geometry))
}

impl Orientation {
    fn of(geometry: Geometry, symbols: &[u8], transpose: bool) -> Self {
        let side = geometry.side();
        let mut cells = [0; MAX_CELLS];
        let mut filled = [0u16; 2];
        for (r, c) in (0..side).flat_map(|r| (0..side).map(move |c| (r, c))) {
            let symbol = symbols[if transpose { c * side + r } else { r * side + c }];
            cells[r * side + c] = symbol;
            if symbol != 0 {
                filled[ROWS] |= 1 << r;
                filled[COLS] |= 1 << c;
            }
        }
        let after = [
            order_of_empty_lines(side, geometry.box_rows(), filled[ROWS]),
            order_of_empty_lines(side, geometry.box_cols(), filled[COLS]),
        ];
        Self { cells, after }
    }

    /// The lines, as a mask, that may be laid as number `position` of their kind: of the block that is begun, or of
    /// any block if none is.
    fn choices(&self, geometry: Geometry, laid: &Arrangement, kind: usize, position: usize) -> u16 {
        let size = block_size(geometry, kind);
        let block = match position % size {
            0 => u16::MAX >> (MAX_SIDE - geometry.side()),
            _ => block_mask(usize::from(laid.lines[kind][position - 1]) / size, size),
        };
        let used = laid.used[kind];
        (0..geometry.side()).filter(|&line| self.after[kind][line] & !used == 0).fold(0, |free, line| free | 1 << line)
            & block
            & !used
    }

    /// Lays `line` and reads the cells where it crosses the lines of the other kind.
    fn lay(
        &self,
        geometry: Geometry,
        laid: &Arrangement,
        kind: usize,
        position: usize,
        line: usize,
    ) -> (u128, Arrangement) {
        let mut longer = *laid;
        longer.lines[kind][position] = line as u8;
        longer.used[kind] |= 1 << line;
        let side = geometry.side();
        let crossings = laid.used[1 - kind].count_ones() as usize;
        let mut reading = 0;
        for &other in &laid.lines[1 - kind][..crossings] {
            let other = usize::from(other);
            let symbol = self.cells[if kind == ROWS { line * side + other } else { other * side + line }];
            reading = reading << 8 | u128::from(longer.read(symbol));
        }
        (reading, longer)
    }
}

impl Arrangement {
    /// How a cell reads, giving its digit a name if it has none.
    fn read(&mut self, symbol: u8) -> u8 {
        if symbol == 0 {
            return EMPTY;
        }
        let name = &mut self.names[usize::from(symbol)];
        if *name == 0 {
            self.named += 1;
            *name = self.named;
        }
        *name
    }

    /// The symmetry of a whole arrangement; digits that never appeared get the names that are left.
    fn finish(mut self, geometry: Geometry) -> Symmetry {
        for digit in 1..=geometry.side() as u8 {
            self.read(digit);
        }
        Symmetry::from_lines(geometry, self.transpose, &self.lines[ROWS], &self.lines[COLS], self.names)
    }
}

/// Lines per band or per stack.
fn block_size(geometry: Geometry, kind: usize) -> usize {
    if kind == ROWS { geometry.box_rows() } else { geometry.box_cols() }
}

/// The lines of a block as a mask.
fn block_mask(block: usize, size: usize) -> u16 {
    (u16::MAX >> (MAX_SIDE - size)) << (block * size)
}

/// For every line the lines that have to go before it: for an empty line the empty ones before it in its block, and
/// for a line of an empty block also the lines of the empty block before.
fn order_of_empty_lines(side: usize, size: usize, filled: u16) -> [u16; MAX_SIDE] {
    let mut after = [0; MAX_SIDE];
    let mut empty_block = 0;
    for block in 0..side / size {
        let mask = block_mask(block, size);
        let is_empty = filled & mask == 0;
        for line in (block * size..(block + 1) * size).filter(|line| filled & (1 << line) == 0) {
            after[line] = mask & !filled & ((1 << line) - 1);
            if is_empty {
                after[line] |= empty_block;
            }
        }
        if is_empty {
            empty_block = mask;
        }
    }
    after
}

#[cfg(test)]
mod tests;

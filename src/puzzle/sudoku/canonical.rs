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

use super::{Geometry, Grid, MAX_CELLS, MAX_SIDE, Puzzle, SudokuError, Symmetry};

/// How many arrangements may read alike before the search gives up. A full grid of side 4, 6 or 9 stays far below,
/// and so does every puzzle with one solution; only 16×16 grids made to be symmetric could come here.
const LIMIT: usize = 1 << 20;

/// What a hidden digit adds to its number, so that it comes after every clue.
const HIDDEN: u8 = 0x20;
/// How an empty cell reads: after everything else.
const EMPTY: u8 = 0xff;

const ROWS: usize = 0;
const COLS: usize = 1;

/// A canonical form and a way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical<T> {
    /// The representative of everything equivalent.
    pub form: T,
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
pub fn canonical(grid: &Grid) -> Result<Canonical<Grid>, SudokuError> {
    let symmetry = first_arrangement(grid.geometry(), grid.values())?;
    Ok(Canonical { form: symmetry.apply_grid(grid), symmetry })
}

/// The canonical form of a question together with its answer: equal when one symmetry maps question to question
/// and answer to answer. Where every question has one solution, [`canonical`] of the questions says the same.
///
/// Cells that are neither in the question nor in the answer read as empty; where both have one, the clue counts.
pub fn canonical_pair(puzzle: &Puzzle) -> Result<Canonical<Puzzle>, SudokuError> {
    let geometry = puzzle.question.geometry();
    let pairs = puzzle.question.values().iter().zip(puzzle.answer.values());
    let symbols: Vec<u8> = pairs
        .map(|(&clue, &digit)| match (clue, digit) {
            (0, 0) => 0,
            (0, hidden) => hidden | HIDDEN,
            (clue, _) => clue,
        })
        .collect();
    let symmetry = first_arrangement(geometry, &symbols)?;
    let form = Puzzle { question: symmetry.apply_grid(&puzzle.question), answer: symmetry.apply_grid(&puzzle.answer) };
    Ok(Canonical { form, symmetry })
}

/// A symmetry that maps `from` to `to`; none if they are not equivalent.
pub fn symmetry_between(from: &Grid, to: &Grid) -> Result<Option<Symmetry>, SudokuError> {
    if from.geometry() != to.geometry() || from.clues() != to.clues() {
        return Ok(None);
    }
    Ok(meet(canonical(from)?, canonical(to)?))
}

/// A symmetry that maps `from` to `to`, question to question and answer to answer; none if there is none.
pub fn symmetry_between_pairs(from: &Puzzle, to: &Puzzle) -> Result<Option<Symmetry>, SudokuError> {
    if from.question.geometry() != to.question.geometry() || from.question.clues() != to.question.clues() {
        return Ok(None);
    }
    Ok(meet(canonical_pair(from)?, canonical_pair(to)?))
}

/// There by the one way to the common form and back by the other.
fn meet<T: PartialEq>(from: Canonical<T>, to: Canonical<T>) -> Option<Symmetry> {
    (from.form == to.form).then(|| from.symmetry.then(&to.symmetry.inverse()))
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
        let name = &mut self.names[usize::from(symbol & !HIDDEN)];
        if *name == 0 {
            self.named += 1;
            *name = self.named;
        }
        *name | (symbol & HIDDEN)
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
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::puzzle::sudoku::{for_each_solution, generate, random_solution};
    use crate::rng::Rng;

    /// A grid that breaks no rule, filled to any degree, and a source of symmetries.
    fn boards(sides: &'static [usize]) -> impl Strategy<Value = (Puzzle, Rng)> {
        (prop::sample::select(sides), any::<u64>(), 0..=100u8).prop_map(|(side, seed, percent)| {
            let mut rng = Rng::new(seed);
            let geometry = Geometry::of_side(side).unwrap_or(Geometry::NINE);
            let answer = random_solution(geometry, &mut rng);
            let mut question = answer.clone();
            question.values_mut().iter_mut().for_each(|value| {
                if rng.below(100) >= usize::from(percent) {
                    *value = 0;
                }
            });
            (Puzzle { question, answer }, rng)
        })
    }

    fn moved(puzzle: &Puzzle, s: &Symmetry) -> Puzzle {
        Puzzle { question: s.apply_grid(&puzzle.question), answer: s.apply_grid(&puzzle.answer) }
    }

    proptest! {
        #[test]
        fn equivalent_grids_have_one_canonical_form((puzzle, mut rng) in boards(&[4, 6, 9])) {
            let image = moved(&puzzle, &Symmetry::random(puzzle.question.geometry(), &mut rng));
            let (a, b) = (canonical(&puzzle.question)?, canonical(&image.question)?);
            prop_assert_eq!(&a.symmetry.apply_grid(&puzzle.question), &a.form);
            prop_assert_eq!(&canonical(&a.form)?.form, &a.form);
            prop_assert_eq!(a.form, b.form);
            prop_assert_eq!(canonical_pair(&puzzle)?.form, canonical_pair(&image)?.form);
        }

        #[test]
        fn the_symmetry_between_two_puzzles_is_found((puzzle, mut rng) in boards(&[4, 6, 9])) {
            let image = moved(&puzzle, &Symmetry::random(puzzle.question.geometry(), &mut rng));
            let grids = symmetry_between(&puzzle.question, &image.question)?;
            prop_assert_eq!(grids.map(|s| s.apply_grid(&puzzle.question)), Some(image.question.clone()));
            let pairs = symmetry_between_pairs(&puzzle, &image)?;
            prop_assert_eq!(pairs.map(|s| moved(&puzzle, &s)), Some(image));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn equivalent_16x16_grids_have_one_canonical_form((puzzle, mut rng) in boards(&[16])) {
            let image = moved(&puzzle, &Symmetry::random(puzzle.question.geometry(), &mut rng));
            prop_assert_eq!(canonical(&puzzle.question)?.form, canonical(&image.question)?.form);
        }
    }

    /// Every arrangement of a 4×4 grid, by force.
    fn orbit(grid: &Grid) -> HashSet<Grid> {
        let geometry = grid.geometry();
        let mut lines = Vec::new();
        for (a, b, swap) in (0..8).map(|i| (i & 1, i >> 1 & 1, i >> 2)) {
            let pairs = [[a, 1 - a], [2 + b, 3 - b]];
            lines.push([pairs[swap], pairs[1 - swap]].concat());
        }
        let mut digits = Vec::new();
        for code in 0..256usize {
            let map = [0, 2, 4, 6].map(|shift| (code >> shift & 3) as u8 + 1);
            if (1..=4).all(|digit| map.contains(&digit)) {
                digits.push(map);
            }
        }
        let mut orbit = HashSet::new();
        for (rows, cols) in lines.iter().flat_map(|rows| lines.iter().map(move |cols| (rows, cols))) {
            for (map, transpose) in digits.iter().flat_map(|map| [(map, false), (map, true)]) {
                orbit.extend(Symmetry::new(geometry, transpose, rows, cols, map).map(|s| s.apply_grid(grid)));
            }
        }
        orbit
    }

    #[test]
    fn canonical_forms_of_4x4_puzzles_agree_with_brute_force() -> Result<(), SudokuError> {
        let mut rng = Rng::new(11);
        let puzzles: Vec<Grid> = (0..60).map(|_| generate(Geometry::FOUR, 2, &mut rng).question).collect();
        for a in &puzzles {
            let orbit = orbit(a);
            assert!(orbit.contains(&canonical(a)?.form));
            for b in &puzzles {
                assert_eq!(orbit.contains(b), canonical(a)?.form == canonical(b)?.form, "{a} {b}");
            }
        }
        Ok(())
    }

    /// How many solutions `question` has, and how many of them differ up to symmetry.
    fn classes(question: &Grid) -> Result<(usize, usize), SudokuError> {
        let mut count = 0;
        let mut forms = Ok(HashSet::new());
        for_each_solution(question, |values| {
            count += 1;
            match (&mut forms, canonical(&Grid::from_valid(question.geometry(), values))) {
                (Ok(forms), Ok(canonical)) => _ = forms.insert(canonical.form),
                (_, Err(error)) => forms = Err(error),
                (Err(_), Ok(_)) => {}
            }
            std::ops::ControlFlow::Continue(())
        });
        Ok((count, forms?.len()))
    }

    #[test]
    fn there_are_288_grids_of_4x4_in_2_classes() -> Result<(), SudokuError> {
        assert_eq!(classes(&Grid::empty(Geometry::FOUR))?, (288, 2));
        Ok(())
    }

    #[test]
    fn there_are_28_200_960_grids_of_6x6_in_49_classes() -> Result<(), SudokuError> {
        let first_row = Grid::parse(Geometry::SIX, &format!("123456{}", ".".repeat(30)))?;
        let (count, classes) = classes(&first_row)?;
        assert_eq!(count * 720, 28_200_960);
        assert_eq!(classes, 49);
        Ok(())
    }

    #[test]
    fn sparse_grids_are_no_burden() -> Result<(), SudokuError> {
        for geometry in Geometry::ALL {
            let mut grid = Grid::empty(geometry);
            assert_eq!(canonical(&grid)?.form, grid);
            grid.values_mut()[geometry.cells() - 2] = 3;
            assert_eq!(canonical(&grid)?.form.values()[0], 1);
        }
        Ok(())
    }
}

//! The moves that keep the rules: every one turns a Sudoku into another that is just as hard.
//!
//! A symmetry permutes the digits, the bands, the rows within each band, the stacks, the columns within each stack,
//! and, where the boxes are square, may exchange rows and columns first. On 6×6 the transpose is none: it turns boxes
//! of 2×3 into boxes of 3×2. Together they form a group of order
//!
//! | board | arrangements of cells | × digits | = symmetries |
//! |---|---|---|---|
//! | 4×4 | 2 · (2! · 2!²)² = 128 | 4! | 3,072 |
//! | 6×6 | (3! · 2!³) · (2! · 3!²) = 3,456 | 6! | 2,488,320 |
//! | 9×9 | 2 · (3! · 3!³)² = 3,359,232 | 9! | 1.2e12 |
//! | 16×16 | 2 · (4! · 4!⁴)² = 1.3e14 | 16! | 2.7e27 |

use super::{Geometry, Grid, MAX_CELLS, MAX_SIDE, Puzzle, SudokuError};
use crate::rng::Rng;

/// A symmetry of a board, as what it does: where each cell comes from, and what each digit becomes.
///
/// `out[i] = digits[cells[source[i]]]`. Only arrangements that keep the rules can be made.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Symmetry {
    geometry: Geometry,
    /// `source[i]` is the cell whose digit moves to cell `i`; 0 beyond the board.
    source: [u8; MAX_CELLS],
    /// `digits[d]` is what digit `d` becomes; 0, an empty cell, stays 0.
    digits: [u8; MAX_SIDE + 1],
}

impl Symmetry {
    /// The symmetry that changes nothing.
    pub fn identity(geometry: Geometry) -> Self {
        let lines: [u8; MAX_SIDE] = std::array::from_fn(|i| i as u8);
        Self::from_lines(geometry, false, &lines, &lines, std::array::from_fn(|d| d as u8))
    }

    /// Draws a symmetry like the published builder does: a fair coin for the transpose (no coin where there is no
    /// transpose), then an order of the bands and of the rows in each, the same for stacks and columns, then the
    /// digits; all uniform and independent, so every symmetry is equally likely.
    pub fn random(geometry: Geometry, rng: &mut Rng) -> Self {
        let transpose = geometry.transposable() && rng.below(2) == 1;
        let rows = random_lines(geometry.box_cols(), geometry.box_rows(), rng);
        let cols = random_lines(geometry.box_rows(), geometry.box_cols(), rng);
        let mut digits: [u8; MAX_SIDE + 1] = std::array::from_fn(|d| d as u8);
        rng.shuffle(&mut digits[1..=geometry.side()]);
        Self::from_lines(geometry, transpose, &rows, &cols, digits)
    }

    /// The symmetry that transposes if asked to, then moves row `rows[r]` to row `r` and column `cols[c]` to column
    /// `c`, then turns digit `d` into `digits[d - 1]`. Rows and columns count from 0.
    pub fn new(
        geometry: Geometry,
        transpose: bool,
        rows: &[usize],
        cols: &[usize],
        digits: &[u8],
    ) -> Result<Self, SudokuError> {
        let side = geometry.side();
        let refuse = |reason| Err(SudokuError::NotASymmetry { side, reason });
        if transpose && !geometry.transposable() {
            return refuse("the transpose changes the shape of the boxes");
        }
        if !keeps_blocks(rows, side, geometry.box_rows()) {
            return refuse("the rows must be permuted by bands and within bands");
        }
        if !keeps_blocks(cols, side, geometry.box_cols()) {
            return refuse("the columns must be permuted by stacks and within stacks");
        }
        if digits.len() != side || !(1..=side).all(|digit| digits.contains(&(digit as u8))) {
            return refuse("the digits must be a permutation of 1 to the side");
        }
        let line = |lines: &[usize]| std::array::from_fn(|i| lines.get(i).map_or(0, |&line| line as u8));
        let mut map = [0; MAX_SIDE + 1];
        map[1..=side].copy_from_slice(digits);
        Ok(Self::from_lines(geometry, transpose, &line(rows), &line(cols), map))
    }

    /// As [`Symmetry::new`], with lines known to keep the boxes; what lies beyond the side is ignored.
    pub(super) fn from_lines(
        geometry: Geometry,
        transpose: bool,
        rows: &[u8; MAX_SIDE],
        cols: &[u8; MAX_SIDE],
        mut digits: [u8; MAX_SIDE + 1],
    ) -> Self {
        let side = geometry.side();
        let mut source = [0; MAX_CELLS];
        for r in 0..side {
            for c in 0..side {
                let (row, col) = (usize::from(rows[r]), usize::from(cols[c]));
                source[r * side + c] = if transpose { col * side + row } else { row * side + col } as u8;
            }
        }
        digits[side + 1..].fill(0);
        Self { geometry, source, digits }
    }

    /// The board it acts on.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The cell whose digit moves to each cell.
    pub fn source(&self) -> &[u8] {
        &self.source[..self.geometry.cells()]
    }

    /// What each value becomes; entry 0 is 0.
    pub fn digits(&self) -> &[u8] {
        &self.digits[..=self.geometry.side()]
    }

    /// Writes the image of `cells` (values, 0 empty) to `out`, without allocating.
    ///
    /// # Panics
    /// If the lengths are not those of the board, or a value is above 16.
    pub fn apply(&self, cells: &[u8], out: &mut [u8]) {
        self.map(cells, out, &self.digits);
    }

    /// Writes the image of a row of tokens (0 padding, 1 empty, `1 + digit`) to `out`, without allocating.
    ///
    /// # Panics
    /// If the lengths are not those of the board, or a token is above 17.
    pub fn apply_tokens(&self, tokens: &[u8], out: &mut [u8]) {
        let mut map = [0; MAX_SIDE + 2];
        map.iter_mut().skip(1).zip(&self.digits).for_each(|(token, digit)| *token = digit + 1);
        self.map(tokens, out, &map);
    }

    fn map<const N: usize>(&self, cells: &[u8], out: &mut [u8], map: &[u8; N]) {
        let n = self.geometry.cells();
        assert!(cells.len() == n && out.len() == n, "a {} board has {n} cells", self.geometry);
        for (out, &from) in out.iter_mut().zip(&self.source) {
            *out = map[usize::from(cells[usize::from(from)])];
        }
    }

    /// The image of a grid.
    ///
    /// # Panics
    /// If the grid is of another size.
    pub fn apply_grid(&self, grid: &Grid) -> Grid {
        let mut image = Grid::empty(self.geometry);
        self.apply(grid.values(), image.values_mut());
        image
    }

    /// The image of a puzzle: question and answer move together.
    ///
    /// # Panics
    /// If the puzzle is of another size.
    pub fn apply_puzzle(&self, puzzle: &Puzzle) -> Puzzle {
        Puzzle { question: self.apply_grid(&puzzle.question), answer: self.apply_grid(&puzzle.answer) }
    }

    /// The symmetry that undoes this one.
    pub fn inverse(&self) -> Self {
        let mut inverse = Self { geometry: self.geometry, source: [0; MAX_CELLS], digits: [0; MAX_SIDE + 1] };
        for (i, &from) in self.source().iter().enumerate() {
            inverse.source[usize::from(from)] = i as u8;
        }
        for (d, &to) in self.digits().iter().enumerate() {
            inverse.digits[usize::from(to)] = d as u8;
        }
        inverse
    }

    /// This symmetry, then `next`.
    ///
    /// # Panics
    /// If they act on boards of different size.
    pub fn then(&self, next: &Self) -> Self {
        assert_eq!(self.geometry, next.geometry, "symmetries of different boards cannot be composed");
        let mut both = self.clone();
        for (source, &middle) in both.source.iter_mut().zip(next.source()) {
            *source = self.source[usize::from(middle)];
        }
        for digit in &mut both.digits[..=self.geometry.side()] {
            *digit = next.digits[usize::from(*digit)];
        }
        both
    }
}

/// A uniformly random order of `blocks · size` lines that keeps each block of `size` together.
fn random_lines(blocks: usize, size: usize, rng: &mut Rng) -> [u8; MAX_SIDE] {
    let mut order: [u8; 4] = std::array::from_fn(|i| i as u8);
    rng.shuffle(&mut order[..blocks]);
    let mut lines = [0; MAX_SIDE];
    for (block, from) in lines[..blocks * size].chunks_mut(size).zip(order) {
        block.iter_mut().enumerate().for_each(|(i, line)| *line = from * size as u8 + i as u8);
        rng.shuffle(block);
    }
    lines
}

/// Whether `lines` is a permutation of `0..side` that keeps each block of `size` lines together.
fn keeps_blocks(lines: &[usize], side: usize, size: usize) -> bool {
    lines.len() == side
        && (0..side).all(|line| lines.contains(&line))
        && lines.chunks(size).all(|block| block.iter().all(|line| line / size == block[0] / size))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::puzzle::sudoku::count_solutions;
    use crate::rng::Rng;

    /// A board, some values on it (rules or not) and a source of symmetries.
    fn boards() -> impl Strategy<Value = (Grid, Rng)> {
        (prop::sample::select(&Geometry::ALL[..]), any::<u64>()).prop_map(|(geometry, seed)| {
            let mut rng = Rng::new(seed);
            let values: Vec<u8> = (0..geometry.cells()).map(|_| rng.below(geometry.side() + 1) as u8).collect();
            (Grid::from_valid(geometry, &values), rng)
        })
    }

    proptest! {
        #[test]
        fn symmetries_form_a_group((grid, mut rng) in boards()) {
            let geometry = grid.geometry();
            let [a, b, c] = std::array::from_fn(|_| Symmetry::random(geometry, &mut rng));
            let one = Symmetry::identity(geometry);
            prop_assert_eq!(&one.then(&a), &a);
            prop_assert_eq!(&a.then(&one), &a);
            prop_assert_eq!(&a.then(&a.inverse()), &one);
            prop_assert_eq!(&a.inverse().then(&a), &one);
            prop_assert_eq!(a.then(&b).then(&c), a.then(&b.then(&c)));
            prop_assert_eq!(a.then(&b).apply_grid(&grid), b.apply_grid(&a.apply_grid(&grid)));
            prop_assert_eq!(one.apply_grid(&grid), grid);
        }

        #[test]
        fn symmetries_keep_contradictions_and_their_absence((grid, mut rng) in boards()) {
            let s = Symmetry::random(grid.geometry(), &mut rng);
            prop_assert_eq!(s.apply_grid(&grid).conflict().is_some(), grid.conflict().is_some());
            let full = crate::puzzle::sudoku::random_solution(grid.geometry(), &mut rng);
            prop_assert!(s.apply_grid(&full).is_solution());
        }

        #[test]
        fn tokens_move_like_values((grid, mut rng) in boards()) {
            let s = Symmetry::random(grid.geometry(), &mut rng);
            let mut tokens: Vec<u8> = grid.tokens().collect();
            let mut out = vec![0; tokens.len()];
            s.apply_tokens(&tokens, &mut out);
            prop_assert_eq!(&out, &s.apply_grid(&grid).tokens().collect::<Vec<u8>>());
            tokens.fill(0);
            s.apply_tokens(&tokens, &mut out);
            prop_assert_eq!(out, tokens, "padding stays padding");
        }

        #[test]
        fn symmetries_keep_the_number_of_solutions(seed in any::<u64>(), side in prop::sample::select(&[4, 6, 9][..])) {
            let geometry = Geometry::of_side(side)?;
            let mut rng = Rng::new(seed);
            let mut grid = crate::puzzle::sudoku::random_solution(geometry, &mut rng);
            grid.values_mut().iter_mut().for_each(|value| if rng.below(2) == 0 { *value = 0 });
            let image = Symmetry::random(geometry, &mut rng).apply_grid(&grid);
            prop_assert_eq!(count_solutions(&grid, 200), count_solutions(&image, 200));
        }
    }

    #[test]
    fn the_4x4_group_has_3072_members_and_random_reaches_them_all() {
        let mut rng = Rng::new(3);
        let found: HashSet<Symmetry> = (0..60_000).map(|_| Symmetry::random(Geometry::FOUR, &mut rng)).collect();
        assert_eq!(found.len(), 3_072);
    }

    #[test]
    fn arrangements_that_break_the_boxes_are_refused() -> Result<(), SudokuError> {
        let six = Geometry::SIX;
        let (lines, digits) = ([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 6]);
        assert_eq!(Symmetry::new(six, false, &lines, &lines, &digits)?, Symmetry::identity(six));
        assert!(Symmetry::new(six, true, &lines, &lines, &digits).is_err());
        assert!(Symmetry::new(six, false, &[1, 2, 0, 3, 4, 5], &lines, &digits).is_err());
        assert!(Symmetry::new(six, false, &lines, &[1, 2, 0, 3, 4, 5], &digits).is_ok());
        assert!(Symmetry::new(six, false, &lines, &lines, &[1, 1, 3, 4, 5, 6]).is_err());
        Ok(())
    }
}

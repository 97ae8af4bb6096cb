//! Whether one puzzle is a symmetric image of another. An exact answer in two microseconds on 9×9, an eighth of what a
//! canonical form takes; with a million copies to check, that is the difference.
//!
//! The pattern of clues narrows the orders of rows to a few: a row keeps, through every symmetry that does not
//! transpose, how many clues it has in each stack, up to the order of stacks. Given an order of rows, the full
//! answers do the rest: where the first column comes from fixes the digits, and the digits fix every other column.

use super::{Geometry, MAX_CELLS, MAX_SIDE, Symmetry};
use crate::puzzle::TokenPair;

/// The symmetry that turns `from` into `to`, question and answer both; `None` if there is none, or if either answer is
/// not a full grid of its arrangement.
pub fn find_symmetry(geometry: Geometry, from: TokenPair<'_>, to: TokenPair<'_>) -> Option<Symmetry> {
    let cells = geometry.cells();
    if [from.question, from.answer, to.question, to.answer].iter().any(|row| row.len() != cells) {
        return None;
    }
    let digits = 2..=geometry.side() as u8 + 1;
    if [from.answer, to.answer].iter().any(|answer| !answer.iter().all(|token| digits.contains(token))) {
        return None;
    }
    let target = Arrangement::of(geometry, to, false);
    let transposes: &[bool] = if geometry.transposable() { &[false, true] } else { &[false] };
    transposes.iter().find_map(|&transpose| {
        let source = Arrangement::of(geometry, from, transpose);
        let mut search = Search { geometry, transpose, source: &source, target: &target, rows: [0; MAX_SIDE], used: 0 };
        search.place_row(0)
    })
}

/// One of the two puzzles that are compared: its tokens, perhaps transposed, and what the search compares first.
struct Arrangement {
    question: [u8; MAX_CELLS],
    answer: [u8; MAX_CELLS],
    /// Clues per stack of each row, in falling order, packed five bits each.
    signatures: [u32; MAX_SIDE],
}

impl Arrangement {
    fn of(geometry: Geometry, pair: TokenPair<'_>, transpose: bool) -> Self {
        let side = geometry.side();
        let mut arrangement = Self { question: [0; MAX_CELLS], answer: [0; MAX_CELLS], signatures: [0; MAX_SIDE] };
        for cell in 0..geometry.cells() {
            let from = if transpose { cell % side * side + cell / side } else { cell };
            arrangement.question[cell] = pair.question[from];
            arrangement.answer[cell] = pair.answer[from];
        }
        for (row, signature) in arrangement.question.chunks(side).zip(&mut arrangement.signatures) {
            let mut counts = [0u32; MAX_SIDE];
            for (stack, cells) in row.chunks(geometry.box_cols()).enumerate() {
                counts[stack] = cells.iter().filter(|&&token| token != 1).count() as u32;
            }
            counts.sort_unstable_by(|a, b| b.cmp(a));
            *signature = counts.iter().take(4).fold(0, |packed, count| packed << 5 | count);
        }
        arrangement
    }
}

/// Depth-first over the orders of rows that the signatures allow.
struct Search<'a> {
    geometry: Geometry,
    transpose: bool,
    source: &'a Arrangement,
    target: &'a Arrangement,
    /// Source row of every target row placed so far.
    rows: [usize; MAX_SIDE],
    /// Source rows taken, as bits.
    used: u32,
}

impl Search<'_> {
    fn place_row(&mut self, row: usize) -> Option<Symmetry> {
        let (side, height) = (self.geometry.side(), self.geometry.box_rows());
        if row == side {
            return (0..side).find_map(|first| self.with_first_column(first));
        }
        // The first row of a band may come from any band; the others must follow it.
        let candidates = if row.is_multiple_of(height) {
            0..side
        } else {
            let band = self.rows[row - 1] / height;
            band * height..(band + 1) * height
        };
        for candidate in candidates {
            let fits = self.source.signatures[candidate] == self.target.signatures[row];
            if fits && self.used >> candidate & 1 == 0 {
                self.rows[row] = candidate;
                self.used |= 1 << candidate;
                if let Some(found) = self.place_row(row + 1) {
                    return Some(found);
                }
                self.used &= !(1 << candidate);
            }
        }
        None
    }

    /// Tries source column `first` as the target's column 0.
    fn with_first_column(&self, first: usize) -> Option<Symmetry> {
        let side = self.geometry.side();
        let (source, target) = (self.source, self.target);
        // The clue pattern of the column, then the digits it fixes.
        let mut digits = [0u8; MAX_SIDE];
        for row in 0..side {
            let (from, to) = (self.rows[row] * side + first, row * side);
            if (source.question[from] == 1) != (target.question[to] == 1) {
                return None;
            }
            digits[usize::from(source.answer[from]) - 2] = target.answer[to] - 1;
        }
        // Every other column is found by its token in row 0.
        let mut cols = [0usize; MAX_SIDE];
        for from in 0..side {
            let digit = digits[usize::from(source.answer[self.rows[0] * side + from]) - 2];
            let to = (0..side).find(|&col| target.answer[col] == digit + 1)?;
            cols[to] = from;
        }
        let symmetry =
            Symmetry::new(self.geometry, self.transpose, &self.rows[..side], &cols[..side], &digits[..side]).ok()?;
        // Whatever was skipped above is settled here: the images must be equal, token by token.
        let cells = self.geometry.cells();
        let image = |board: &[u8], row: usize, col: usize| {
            let token = board[self.rows[row] * side + cols[col]];
            if token == 1 { 1 } else { digits[usize::from(token) - 2] + 1 }
        };
        let same = (0..cells).all(|cell| {
            let (row, col) = (cell / side, cell % side);
            image(&source.answer, row, col) == target.answer[cell]
                && image(&source.question, row, col) == target.question[cell]
        });
        same.then_some(symmetry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puzzle::sudoku::{Puzzle, generate};
    use crate::rng::Rng;

    fn tokens(puzzle: &Puzzle) -> (Vec<u8>, Vec<u8>) {
        (puzzle.question.tokens().collect(), puzzle.answer.tokens().collect())
    }

    fn pair(rows: &(Vec<u8>, Vec<u8>)) -> TokenPair<'_> {
        TokenPair { question: &rows.0, answer: &rows.1 }
    }

    fn image(symmetry: &Symmetry, rows: &(Vec<u8>, Vec<u8>)) -> (Vec<u8>, Vec<u8>) {
        let apply = |row: &[u8]| {
            let mut out = vec![0; row.len()];
            symmetry.apply_tokens(row, &mut out);
            out
        };
        (apply(&rows.0), apply(&rows.1))
    }

    #[test]
    fn the_symmetry_found_maps_question_and_answer() {
        let mut rng = Rng::new(11);
        for geometry in [Geometry::FOUR, Geometry::SIX, Geometry::NINE] {
            for extra in [0, 2, 40] {
                for _ in 0..40 {
                    let from = tokens(&generate(geometry, extra, &mut rng));
                    let to = image(&Symmetry::random(geometry, &mut rng), &from);
                    let found = find_symmetry(geometry, pair(&from), pair(&to)).expect("an image is recognised");
                    assert_eq!(image(&found, &from), to);
                }
            }
        }
    }

    #[test]
    fn rows_that_are_no_images_are_told_apart() {
        let mut rng = Rng::new(12);
        for geometry in [Geometry::SIX, Geometry::NINE] {
            for _ in 0..40 {
                let from = tokens(&generate(geometry, 3, &mut rng));
                let mut to = image(&Symmetry::random(geometry, &mut rng), &from);
                // One clue less, then one answer token exchanged for its neighbour.
                let clue = to.0.iter().position(|&t| t != 1).unwrap_or(0);
                let kept = std::mem::replace(&mut to.0[clue], 1);
                assert_eq!(find_symmetry(geometry, pair(&from), pair(&to)), None);
                to.0[clue] = kept;
                to.1.swap(3, 4);
                assert_eq!(find_symmetry(geometry, pair(&from), pair(&to)), None);
                let other = tokens(&generate(geometry, 3, &mut rng));
                assert_eq!(find_symmetry(geometry, pair(&from), pair(&other)), None);
            }
        }
    }

    #[test]
    fn unfinished_answers_and_wrong_lengths_have_no_symmetry() {
        let rows = tokens(&generate(Geometry::FOUR, 1, &mut Rng::new(1)));
        let open = (rows.0.clone(), rows.0.clone());
        assert_eq!(find_symmetry(Geometry::FOUR, pair(&open), pair(&open)), None);
        assert_eq!(find_symmetry(Geometry::SIX, pair(&rows), pair(&rows)), None);
        let outside = (vec![0; 16], vec![17; 16]);
        assert_eq!(find_symmetry(Geometry::FOUR, pair(&outside), pair(&outside)), None);
    }
}

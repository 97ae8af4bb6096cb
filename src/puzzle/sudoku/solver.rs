//! A solver that proves things: whether a puzzle has no solution, exactly one, or more.
//!
//! Depth-first search over bit masks. Before it guesses, it fills every cell that has one digit left (naked singles)
//! and every digit that has one cell left in a row, column or box (hidden singles), until there are none; then it
//! branches on the cell with the fewest digits left. The search works in place and allocates nothing.

use std::ops::ControlFlow;

use super::{Geometry, Grid, MAX_CELLS, MAX_SIDE};

/// How many solutions a puzzle has, as far as it matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Solutions {
    /// None: the clues contradict each other.
    None,
    /// Exactly one: a proper puzzle.
    Unique(Grid),
    /// At least these two, which differ.
    Multiple(Grid, Grid),
}

/// Decides whether `question` has no solution, exactly one, or several.
pub fn solve(question: &Grid) -> Solutions {
    let mut first = None;
    let mut second = None;
    for_each_solution(question, |cells| {
        let grid = Some(Grid::from_valid(question.geometry(), cells));
        if first.is_none() {
            first = grid;
            ControlFlow::Continue(())
        } else {
            second = grid;
            ControlFlow::Break(())
        }
    });
    match (first, second) {
        (None, _) => Solutions::None,
        (Some(only), None) => Solutions::Unique(only),
        (Some(a), Some(b)) => Solutions::Multiple(a, b),
    }
}

/// Counts the solutions of `question`, but stops at `limit`.
pub fn count_solutions(question: &Grid, limit: u64) -> u64 {
    let mut count = 0;
    if limit > 0 {
        for_each_solution(question, |_| {
            count += 1;
            if count < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
    }
    count
}

/// Calls `visit` with the values of every solution of `question`, in a fixed order, until it breaks.
pub fn for_each_solution(question: &Grid, visit: impl FnMut(&[u8]) -> ControlFlow<()>) {
    if let Some(mut search) = Search::of(question) {
        // Whether the visitor broke off is the visitor's own business.
        let _ = search.run(&mut InOrder(visit));
    }
}

/// What a search asks its caller at a branch and at a solution. Breaking ends the search.
pub(super) trait Guide {
    /// The digit to try next: one bit of `candidates`, which are at least one.
    fn choose(&mut self, candidates: u16) -> ControlFlow<(), u16>;
    /// A solution was found.
    fn solution(&mut self, cells: &[u8]) -> ControlFlow<()>;
}

/// Tries digits in ascending order and hands every solution to a function.
struct InOrder<F>(F);

impl<F: FnMut(&[u8]) -> ControlFlow<()>> Guide for InOrder<F> {
    fn choose(&mut self, candidates: u16) -> ControlFlow<(), u16> {
        ControlFlow::Continue(lowest(candidates))
    }

    fn solution(&mut self, cells: &[u8]) -> ControlFlow<()> {
        (self.0)(cells)
    }
}

/// The lowest bit that is set.
fn lowest(mask: u16) -> u16 {
    mask & mask.wrapping_neg()
}

/// A board being filled. Bit `d - 1` of a mask stands for digit `d`.
pub(super) struct Search {
    geometry: Geometry,
    /// The digits there are.
    all: u16,
    /// Digits placed in each row, column and box (see [`Geometry::units`]).
    used: [u16; 3 * MAX_SIDE],
    cells: [u8; MAX_CELLS],
    /// `order[..empty]` are the empty cells, in no order; behind them the cells filled by the search, latest first.
    order: [u8; MAX_CELLS],
    empty: usize,
}

/// What is left once all singles are placed.
enum Reduced {
    Contradiction,
    Solved,
    /// Nothing is forced: branch on the cell in this slot of `order`, which has these candidates.
    Open {
        slot: usize,
        candidates: u16,
    },
}

impl Search {
    /// The search that starts at `question`; nothing if its clues contradict each other.
    pub(super) fn of(question: &Grid) -> Option<Self> {
        let geometry = question.geometry();
        let mut search = Self {
            geometry,
            all: u16::MAX >> (MAX_SIDE - geometry.side()),
            used: [0; 3 * MAX_SIDE],
            cells: [0; MAX_CELLS],
            order: [0; MAX_CELLS],
            empty: 0,
        };
        for (cell, &digit) in question.values().iter().enumerate() {
            if digit == 0 {
                search.order[search.empty] = cell as u8;
                search.empty += 1;
            } else {
                let bit = 1 << (digit - 1);
                if search.candidates(cell) & bit == 0 {
                    return None;
                }
                search.write(cell, bit);
            }
        }
        Some(search)
    }

    /// Visits every solution from here; the board is as before when it returns.
    pub(super) fn run(&mut self, guide: &mut impl Guide) -> ControlFlow<()> {
        let before = self.empty;
        let flow = match self.reduce() {
            Reduced::Contradiction => ControlFlow::Continue(()),
            Reduced::Solved => guide.solution(&self.cells[..self.geometry.cells()]),
            Reduced::Open { slot, candidates } => self.branch(slot, candidates, guide),
        };
        self.undo_to(before);
        flow
    }

    /// Visits every solution in which the cell in `slot` holds one of `candidates`.
    fn branch(&mut self, slot: usize, mut candidates: u16, guide: &mut impl Guide) -> ControlFlow<()> {
        let open = self.empty;
        self.order.swap(slot, open - 1);
        while candidates != 0 {
            let bit = guide.choose(candidates)?;
            candidates &= !bit;
            self.place(open - 1, bit);
            let flow = self.run(guide);
            self.undo_to(open);
            flow?;
        }
        ControlFlow::Continue(())
    }

    /// Visits every solution in which the empty cell `cell` holds another digit than `digit`.
    pub(super) fn run_without(&mut self, cell: usize, digit: u8, guide: &mut impl Guide) -> ControlFlow<()> {
        let candidates = self.candidates(cell) & !(1 << (digit - 1));
        match self.order[..self.empty].iter().position(|&c| usize::from(c) == cell) {
            Some(slot) => self.branch(slot, candidates, guide),
            None => ControlFlow::Continue(()),
        }
    }

    /// Shuffles the empty cells, and with them the choice among cells that have equally few candidates.
    pub(super) fn shuffle(&mut self, rng: &mut crate::rng::Rng) {
        rng.shuffle(&mut self.order[..self.empty]);
    }

    /// Digits that no peer of `cell` holds.
    fn candidates(&self, cell: usize) -> u16 {
        let [row, col, square] = self.geometry.units()[cell].map(usize::from);
        self.all & !(self.used[row] | self.used[col] | self.used[square])
    }

    /// Fills the cell in `slot`, which moves to the end of the empty ones and out of them.
    fn place(&mut self, slot: usize, bit: u16) {
        self.empty -= 1;
        self.order.swap(slot, self.empty);
        self.write(usize::from(self.order[self.empty]), bit);
    }

    fn write(&mut self, cell: usize, bit: u16) {
        self.cells[cell] = bit.trailing_zeros() as u8 + 1;
        self.geometry.units()[cell].iter().for_each(|&unit| self.used[usize::from(unit)] ^= bit);
    }

    /// Empties the cells filled last until `empty` are empty.
    fn undo_to(&mut self, empty: usize) {
        while self.empty < empty {
            let cell = usize::from(self.order[self.empty]);
            let bit = 1u16 << (self.cells[cell] - 1);
            self.geometry.units()[cell].iter().for_each(|&unit| self.used[usize::from(unit)] ^= bit);
            self.cells[cell] = 0;
            self.empty += 1;
        }
    }

    /// Places singles until none is left.
    fn reduce(&mut self) -> Reduced {
        loop {
            // Per unit: digits that some cell, and that more than one cell, of the unit can still take.
            let mut once = [0u16; 3 * MAX_SIDE];
            let mut twice = [0u16; 3 * MAX_SIDE];
            let mut open = (u32::MAX, 0, 0);
            let before = self.empty;
            let mut slot = 0;
            while slot < self.empty {
                let cell = usize::from(self.order[slot]);
                let candidates = self.candidates(cell);
                match candidates.count_ones() {
                    0 => return Reduced::Contradiction,
                    1 => {
                        self.place(slot, candidates);
                        continue; // another cell has moved into this slot
                    }
                    n if n < open.0 => open = (n, slot, candidates),
                    _ => {}
                }
                for unit in self.geometry.units()[cell].map(usize::from) {
                    twice[unit] |= once[unit] & candidates;
                    once[unit] |= candidates;
                }
                slot += 1;
            }
            if self.empty == 0 {
                return Reduced::Solved;
            }
            if self.empty < before {
                continue;
            }
            match self.place_hidden(&once, &twice) {
                None => return Reduced::Contradiction,
                Some(0) => return Reduced::Open { slot: open.1, candidates: open.2 },
                Some(_) => {}
            }
        }
    }

    /// Places the digits that have a single cell left in a unit, and says how many; nothing if a digit has no cell.
    fn place_hidden(&mut self, once: &[u16; 3 * MAX_SIDE], twice: &[u16; 3 * MAX_SIDE]) -> Option<usize> {
        let mut hidden = [0u16; 3 * MAX_SIDE];
        let mut any = 0;
        for kind in 0..3 {
            for unit in kind * MAX_SIDE..kind * MAX_SIDE + self.geometry.side() {
                if self.all & !self.used[unit] & !once[unit] != 0 {
                    return None;
                }
                hidden[unit] = once[unit] & !twice[unit];
                any |= hidden[unit];
            }
        }
        if any == 0 {
            return Some(0);
        }
        let before = self.empty;
        let mut slot = 0;
        while slot < self.empty {
            let cell = usize::from(self.order[slot]);
            let [row, col, square] = self.geometry.units()[cell].map(usize::from);
            let wanted = self.candidates(cell) & (hidden[row] | hidden[col] | hidden[square]);
            match wanted.count_ones() {
                0 => slot += 1,
                1 => self.place(slot, wanted),
                _ => return None,
            }
        }
        Some(before - self.empty)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::puzzle::sudoku::generate;
    use crate::rng::Rng;

    /// The same by plain backtracking: the first empty cell takes every digit that breaks no rule.
    fn naive(grid: &Grid, found: &mut HashSet<Vec<u8>>) {
        if grid.conflict().is_some() {
            return;
        }
        match grid.values().iter().position(|&value| value == 0) {
            None => _ = found.insert(grid.values().to_vec()),
            Some(cell) => {
                for digit in 1..=grid.geometry().side() as u8 {
                    let mut next = grid.clone();
                    next.values_mut()[cell] = digit;
                    naive(&next, found);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn all_solutions_are_found_once_and_no_others(seed in any::<u64>(), side in prop::sample::select(&[4, 6][..])) {
            let geometry = Geometry::of_side(side)?;
            let mut rng = Rng::new(seed);
            let mut grid = generate(geometry, geometry.cells(), &mut rng).question;
            for _ in 0..rng.below(4) {
                // Clues may go, and may change into contradictory ones.
                grid.values_mut()[rng.below(geometry.cells())] = 0;
                if rng.below(8) == 0 {
                    grid.values_mut()[rng.below(geometry.cells())] = 1 + rng.below(side) as u8;
                }
            }
            let mut expected = HashSet::new();
            naive(&grid, &mut expected);
            let mut found = Vec::new();
            for_each_solution(&grid, |values| {
                found.push(values.to_vec());
                ControlFlow::Continue(())
            });
            prop_assert_eq!(found.len(), expected.len());
            prop_assert_eq!(&found.into_iter().collect::<HashSet<_>>(), &expected);
            match solve(&grid) {
                Solutions::None => prop_assert_eq!(expected.len(), 0),
                Solutions::Unique(only) => prop_assert!(expected.len() == 1 && expected.contains(only.values())),
                Solutions::Multiple(a, b) => {
                    prop_assert!(a != b && expected.contains(a.values()) && expected.contains(b.values()));
                }
            }
        }
    }

    #[test]
    fn a_16x16_puzzle_is_solved() {
        let puzzle = generate(Geometry::SIXTEEN, 20, &mut Rng::new(2));
        assert!(puzzle.question.clues() < 140);
        assert_eq!(solve(&puzzle.question), Solutions::Unique(puzzle.answer));
    }

    #[test]
    fn counting_stops_at_the_limit() {
        let empty = Grid::empty(Geometry::FOUR);
        assert_eq!([0, 1, 2, 288, 1000].map(|limit| count_solutions(&empty, limit)), [0, 1, 2, 288, 288]);
    }
}

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::puzzle::sudoku::{Puzzle, for_each_solution, generate, random_solution};
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

proptest! {
    #[test]
    fn equivalent_grids_have_one_canonical_form((puzzle, mut rng) in boards(&[4, 6, 9])) {
        let image = Symmetry::random(puzzle.question.geometry(), &mut rng).apply_puzzle(&puzzle);
        let (a, b) = (canonical(&puzzle.question)?, canonical(&image.question)?);
        prop_assert_eq!(&a.symmetry.apply_grid(&puzzle.question), &a.form);
        prop_assert_eq!(&canonical(&a.form)?.form, &a.form);
        prop_assert_eq!(a.form, b.form);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn equivalent_16x16_grids_have_one_canonical_form((puzzle, mut rng) in boards(&[16])) {
        let image = Symmetry::random(puzzle.question.geometry(), &mut rng).apply_puzzle(&puzzle);
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

/// A grid whose rows are shifts of one another: by whole boxes within a band, by one cell from band to band.
fn shifted_rows(geometry: Geometry) -> Grid {
    let (side, rows) = (geometry.side(), geometry.box_rows());
    let digit = |r: usize, c: usize| ((r % rows * geometry.box_cols() + r / rows + c) % side + 1) as u8;
    let values: Vec<u8> = (0..geometry.cells()).map(|cell| digit(cell / side, cell % side)).collect();
    Grid::from_valid(geometry, &values)
}

#[test]
fn grids_with_many_symmetries_of_their_own_are_recognised() -> Result<(), SudokuError> {
    let mut rng = Rng::new(6);
    for geometry in Geometry::ALL {
        let grid = shifted_rows(geometry);
        assert!(grid.is_solution(), "{grid}");
        let image = Symmetry::random(geometry, &mut rng).apply_grid(&grid);
        assert_eq!(canonical(&grid)?.form, canonical(&image)?.form);
    }
    Ok(())
}

#[test]
fn a_board_of_nothing_but_ones_is_refused() {
    let ones = Grid::from_valid(Geometry::NINE, &[1; 81]);
    assert_eq!(canonical(&ones), Err(SudokuError::TooSymmetric { side: 9, limit: LIMIT }));
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

//! A training set and a test set that share nothing.

use std::collections::HashSet;

use rayon::prelude::*;

use super::{Geometry, Grid, Puzzle, SudokuError, Symmetry, canonical, generate};
use crate::puzzle::TrainTest;
use crate::rng::Rng;

/// Puzzles drawn in a row without a new one among them, after which the board counts as exhausted.
const DRY_RUN: usize = 20_000;

/// The stream that assigns puzzles to sets and makes copies; puzzle number `i` comes from stream `i`.
const ASSIGNMENT: u64 = u64::MAX;

/// Makes a training set and a test set of proper puzzles (see [`generate`]), from a seed alone: the result does not
/// depend on the number of threads.
///
/// * No test puzzle is equivalent under any symmetry to a training puzzle or to another test puzzle, nor, while the
///   board has more to give, are two training puzzles. Chance alone decides which puzzle goes where.
/// * No solution is shared, as written, by two puzzles. 4×4 is the exception: it has only 288 grids (2 up to
///   symmetry), so there training and test puzzles share grids, but never puzzles.
/// * 4×4 runs out: there are 36 inequivalent minimal puzzles, about 1,000 with up to 2 extra clues, 4,500 with up to
///   6, and 4,700 in all. When no new one turns up any more, the training set is filled with random symmetric copies of
///   its own puzzles, counted in [`TrainTest::copies`]. A test set is never filled that way: too few for it is an error.
///
/// Up to symmetry 6×6 has only 49 solutions and 4×4 only 2: at these sizes training and test puzzles differ, but their
/// solutions are the same *up to symmetry*.
pub fn generate_split(
    geometry: Geometry,
    n_train: usize,
    n_test: usize,
    extra_clues: usize,
    seed: u64,
) -> Result<TrainTest<Puzzle>, SudokuError> {
    let mut train = draw_inequivalent(geometry, n_train.saturating_add(n_test), extra_clues, seed)?;
    let found = train.len();
    if found < n_test + usize::from(n_train > 0) {
        return Err(SudokuError::TooFew { side: geometry.side(), wanted: n_test, found });
    }
    let mut rng = Rng::stream(seed, ASSIGNMENT);
    rng.shuffle(&mut train);
    let test = train.split_off(found - n_test);

    let originals = train.len();
    while train.len() < n_train {
        let original = &train[rng.below(originals)];
        let symmetry = Symmetry::random(geometry, &mut rng);
        train.push(symmetry.apply_puzzle(original));
    }
    Ok(TrainTest { train, test, copies: n_train - originals })
}

/// Draws puzzles, in parallel and in a fixed order, until `wanted` inequivalent ones are found or no more turn up.
fn draw_inequivalent(
    geometry: Geometry,
    wanted: usize,
    extra_clues: usize,
    seed: u64,
) -> Result<Vec<Puzzle>, SudokuError> {
    let mut puzzles = Vec::new();
    let mut forms: HashSet<Grid> = HashSet::new();
    let mut answers: HashSet<Grid> = HashSet::new();
    let mut drawn = 0;
    let mut since_new = 0;
    while puzzles.len() < wanted && since_new < DRY_RUN {
        // As many as are missing, and more when the last ones brought little.
        let round = (wanted - puzzles.len()).max(since_new).clamp(16, DRY_RUN) as u64;
        let draws: Vec<_> = (drawn..drawn + round)
            .into_par_iter()
            .map(|number| {
                let puzzle = generate(geometry, extra_clues, &mut Rng::stream(seed, number));
                canonical(&puzzle.question).map(|canonical| (puzzle, canonical.form))
            })
            .collect::<Result<_, _>>()?;
        drawn += round;
        for (puzzle, form) in draws {
            let new_grid = geometry == Geometry::FOUR || !answers.contains(&puzzle.answer);
            if puzzles.len() == wanted || !new_grid || !forms.insert(form) {
                since_new += 1;
                continue;
            }
            since_new = 0;
            answers.insert(puzzle.answer.clone());
            puzzles.push(puzzle);
        }
    }
    Ok(puzzles)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puzzle::sudoku::{Solutions, solve};

    fn forms(puzzles: &[Puzzle]) -> Result<HashSet<Grid>, SudokuError> {
        puzzles.iter().map(|puzzle| Ok(canonical(&puzzle.question)?.form)).collect()
    }

    #[test]
    fn splits_share_no_puzzle_and_no_solution() -> Result<(), SudokuError> {
        for (geometry, n_train, n_test) in [(Geometry::SIX, 600, 200), (Geometry::NINE, 60, 20)] {
            let split = generate_split(geometry, n_train, n_test, 6, 5)?;
            assert_eq!((split.train.len(), split.test.len(), split.copies), (n_train, n_test, 0));
            let all = [&split.train[..], &split.test[..]].concat();
            assert_eq!(forms(&all)?.len(), all.len(), "{geometry}: all inequivalent");
            let answers: HashSet<&Grid> = all.iter().map(|puzzle| &puzzle.answer).collect();
            assert_eq!(answers.len(), all.len(), "{geometry}: all solutions different");
            for puzzle in all {
                assert_eq!(solve(&puzzle.question), Solutions::Unique(puzzle.answer));
            }
        }
        Ok(())
    }

    #[test]
    fn a_small_board_that_runs_out_repeats_training_puzzles_but_never_test_puzzles() -> Result<(), SudokuError> {
        // There are exactly 36 inequivalent minimal puzzles of 4×4.
        let split = generate_split(Geometry::FOUR, 100, 10, 0, 1)?;
        assert_eq!((split.train.len(), split.test.len(), split.copies), (100, 10, 74));
        let (train, test) = (forms(&split.train)?, forms(&split.test)?);
        assert_eq!((train.len(), test.len()), (26, 10));
        assert!(train.is_disjoint(&test));
        let refused = generate_split(Geometry::FOUR, 1, 36, 0, 1);
        assert_eq!(refused, Err(SudokuError::TooFew { side: 4, wanted: 36, found: 36 }));
        Ok(())
    }

    #[test]
    fn the_split_is_the_same_on_one_thread_and_on_five() -> crate::Result<()> {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.map_err(|error| crate::Error::input(error.to_string()))
                .and_then(|pool| Ok(pool.install(|| generate_split(Geometry::SIX, 50, 20, 3, 9))?))
        };
        assert_eq!(on(1)?, on(5)?);
        Ok(())
    }
}

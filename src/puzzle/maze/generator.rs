//! Random mazes with a shortest path of a wanted length.

use std::collections::HashSet;

use rayon::prelude::*;

use super::solver::distances;
use super::{GOAL, SIDES, SPACE, START, WALL, canonical, solve};
use crate::puzzle::{Example, TrainTest};
use crate::rng::Rng;
use crate::{Error, Result};

/// Share of walls, drawn anew for every maze: that of the published mazes, whose walls look as independent as ours are.
const WALLS: std::ops::Range<f64> = 0.28..0.45;

/// Mazes tried before a path counts as too long for the side.
const TRIES: usize = 20_000;

/// The stream that assigns mazes to sets; maze number `i` comes from stream `i`.
const ASSIGNMENT: u64 = u64::MAX;

/// What the shortest path of a generated maze must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathSpec {
    /// Cells on it at least, S and G counted (the published mazes have 110 at side 30).
    pub min_path: usize,
    /// No other path is as short, so that the answer is the only one (every published maze has several).
    pub unique_path: bool,
}

/// A maze within `spec`: walls at random, S a random cell from which some cell is far enough, G one of those. `None` if none
/// turns up.
pub fn generate(side: usize, spec: PathSpec, rng: &mut Rng) -> Option<Example> {
    let PathSpec { min_path, unique_path } = spec;
    (0..TRIES).find_map(|_| {
        let share = WALLS.start + (WALLS.end - WALLS.start) * rng.uniform();
        let mut question: Vec<u8> =
            (0..side * side).map(|_| if rng.uniform() < share { WALL } else { SPACE }).collect();
        let first = rng.below(question.len());
        question[first] = SPACE;
        let open = |cell: usize| question[cell] != WALL;
        // From a random cell, or else from the one that is farthest from it.
        let (start, (steps, reached)) = {
            let from = distances(side, first, open);
            let last = from.1[from.1.len() - 1];
            if from.0[last] as usize + 1 >= min_path { (first, from) } else { (last, distances(side, last, open)) }
        };
        let far: Vec<usize> =
            reached.into_iter().skip(1).filter(|&cell| steps[cell] as usize + 1 >= min_path).collect();
        let goal = *far.get(rng.below(far.len().max(1)))?;
        (question[start], question[goal]) = (START, GOAL);
        let solution = solve(side, &question)?;
        (solution.paths == 1 || !unique_path).then_some(Example { question, answer: solution.answer })
    })
}

/// Makes a training and a test set of mazes that differ up to rotation and reflection; from the seed alone, whatever the
/// number of threads.
pub fn generate_split(
    side: usize,
    n_train: usize,
    n_test: usize,
    spec: PathSpec,
    seed: u64,
) -> Result<TrainTest<Example>> {
    if !SIDES.contains(&side) {
        let (least, most) = (SIDES.start(), SIDES.end());
        return Err(Error::input(format!("cannot generate mazes of side {side}; choose {least} to {most}")));
    }
    let wanted = n_train.saturating_add(n_test);
    let mut found = Vec::new();
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    let mut drawn = 0u64;
    while found.len() < wanted {
        let round = (wanted - found.len()).clamp(16, 1 << 14) as u64;
        let mazes: Vec<Option<(Example, Vec<u8>)>> = (drawn..drawn + round)
            .into_par_iter()
            .map(|number| {
                let maze = generate(side, spec, &mut Rng::stream(seed, number))?;
                let form = canonical(side, &maze.question);
                Some((maze, form))
            })
            .collect();
        drawn += round;
        let before = found.len();
        for maze in mazes {
            let Some((maze, form)) = maze else {
                return Err(Error::input(format!(
                    "no maze of side {side} with a shortest path of {} cells turned up in {TRIES} tries; ask for a shorter \
                     path or a larger side",
                    spec.min_path
                )));
            };
            if found.len() < wanted && seen.insert(form) {
                found.push(maze);
            }
        }
        if found.len() == before {
            return Err(Error::input(format!(
                "side {side} has too few mazes: {before} different ones turned up, {wanted} were asked for; ask for fewer, \
                 or a larger side"
            )));
        }
    }
    Rng::stream(seed, ASSIGNMENT).shuffle(&mut found);
    let test = found.split_off(n_train);
    Ok(TrainTest { train: found, test, copies: 0 })
}

//! Small tasks without end: a [`Rule`], demonstrations of it on random grids, and test inputs nobody has seen.

mod rule;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use super::{ArcError, COLOURS, Grid, MAX_SIDE, Pair, Task};
use crate::rng::Rng;

pub use rule::{KINDS, Rule};

/// The smallest board that has room for every rule.
pub const LEAST_SIDE: usize = 4;

/// Draws of one example, before a repeated input is accepted.
const TRIES: usize = 100;

/// `count` tasks on boards of `side`, each with `demonstrations` and `tests` examples; no input occurs twice in a task,
/// and no rule twice while there are others. Task i has the kind `KINDS[i % 14]`.
pub fn generate(
    count: usize,
    demonstrations: usize,
    tests: usize,
    side: usize,
    seed: u64,
) -> Result<Vec<Task>, ArcError> {
    if !(LEAST_SIDE..=MAX_SIDE).contains(&side) {
        return Err(ArcError::Side { side, least: LEAST_SIDE });
    }
    let mut rules = HashSet::new();
    let draw = |at: usize| {
        let mut rng = Rng::stream(seed, at as u64);
        let mut rule = Rule::random(at, &mut rng);
        for _ in 0..TRIES {
            if rules.insert(rule) {
                break;
            }
            rule = Rule::random(at, &mut rng);
        }
        let mut seen = HashSet::new();
        let mut pairs = Vec::with_capacity(demonstrations + tests);
        while pairs.len() < demonstrations + tests {
            let mut input = random_input(&rule, side, &mut rng);
            for _ in 0..TRIES {
                if !seen.contains(&input) {
                    break;
                }
                input = random_input(&rule, side, &mut rng);
            }
            seen.insert(input.clone());
            pairs.push(Pair { output: rule.apply(&input), input });
        }
        let test = pairs.split_off(demonstrations);
        Task { id: format!("{at:03}-{rule}"), train: pairs, test }
    };
    Ok((0..count).map(draw).collect())
}

/// A random grid on which the rule has something to do and whose output fits the board.
fn random_input(rule: &Rule, side: usize, rng: &mut Rng) -> Grid {
    let (most_height, most_width) = rule.most(side);
    let (height, width) = (2 + rng.below(most_height - 1), 2 + rng.below(most_width - 1));
    let mut palette: Vec<u8> = (1..COLOURS as u8).filter(|colour| !rule.colours().contains(colour)).collect();
    rng.shuffle(&mut palette);
    palette.truncate(2);
    palette.extend(rule.colours());
    let share = 0.15 + 0.35 * rng.uniform();
    let mut cells: Vec<u8> = (0..height * width)
        .map(|_| if rng.uniform() < share { palette[rng.below(palette.len())] } else { 0 })
        .collect();
    match rule {
        // A hollow box, so that there is something to fill.
        Rule::Fill { .. } if height > 2 && width > 2 => {
            let (h, w) = (3 + rng.below(height - 2), 3 + rng.below(width - 2));
            let (top, left) = (rng.below(height - h + 1), rng.below(width - w + 1));
            for (r, c) in (0..h).flat_map(|r| (0..w).map(move |c| (r, c))) {
                let wall = r == 0 || c == 0 || r + 1 == h || c + 1 == w;
                cells[(top + r) * width + left + c] = if wall { palette[0] } else { 0 };
            }
        }
        // No more cells of the colour than a row has room for.
        Rule::Count { colour } => {
            let extra = cells.iter().enumerate().filter(|(_, cell)| *cell == colour).map(|(at, _)| at).skip(side);
            let extra: Vec<usize> = extra.collect();
            extra.into_iter().for_each(|at| cells[at] = 0);
        }
        _ => {}
    }
    let spot = rng.below(cells.len());
    if cells.iter().all(|&cell| cell == 0) {
        cells[spot] = palette[palette.len() - 1];
    }
    Grid::from_fn(height, width, |r, c| cells[r * width + c])
}

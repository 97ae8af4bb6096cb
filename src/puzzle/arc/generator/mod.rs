//! Small tasks without end: a [`Rule`], demonstrations of it on random grids, and test inputs nobody has seen.

mod rule;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use super::overlap::pair_key;
use super::{ArcError, COLOURS, Grid, MAX_SIDE, Pair, Task};
use crate::rng::Rng;

pub use rule::{KINDS, Rule};

/// The smallest board that has room for every rule.
pub const LEAST_SIDE: usize = 4;

/// Draws of one example, before a repeated input is accepted.
const TRIES: usize = 1000;

/// `count` tasks on boards of `side`, each with `demonstrations` and `tests` examples; no input occurs twice in a task
/// (as long as its rule finds others), no rule twice while there are others, and no test pair is, up to symmetry and
/// colours, a demonstration of any task. Task i has the kind `KINDS[i % 14]`.
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
    let mut drafts: Vec<Draft> = Vec::with_capacity(count);
    for at in 0..count {
        let mut rng = Rng::stream(seed, at as u64);
        let mut rule = Rule::random(at, &mut rng);
        for _ in 0..TRIES {
            if rules.insert(rule) {
                break;
            }
            rule = Rule::random(at, &mut rng);
        }
        let task = Task { id: format!("{at:03}-{rule}"), train: Vec::new(), test: Vec::new() };
        drafts.push(Draft { rule, side, rng, seen: HashSet::new(), task });
    }
    // Test pairs first: what demonstrations must not show is known before the first of them is drawn.
    let mut held_out = HashSet::new();
    for draft in &mut drafts {
        for _ in 0..tests {
            let pair = draft.pair(|_| true)?;
            held_out.insert(pair_key(&pair));
            draft.task.test.push(pair);
        }
    }
    for draft in &mut drafts {
        for _ in 0..demonstrations {
            let pair = draft.pair(|pair| !held_out.contains(&pair_key(pair)))?;
            draft.task.train.push(pair);
        }
    }
    Ok(drafts.into_iter().map(|draft| draft.task).collect())
}

/// A task in the making.
struct Draft {
    rule: Rule,
    side: usize,
    rng: Rng,
    /// Its inputs so far.
    seen: HashSet<Grid>,
    task: Task,
}

impl Draft {
    /// An example that is `allowed`, with a new input if one is found.
    fn pair(&mut self, allowed: impl Fn(&Pair) -> bool) -> Result<Pair, ArcError> {
        let mut repeated = None;
        for _ in 0..TRIES {
            let input = random_input(&self.rule, self.side, &mut self.rng);
            let is_new = !self.seen.contains(&input);
            if !is_new && repeated.is_some() {
                continue;
            }
            let pair = Pair { output: self.rule.apply(&input), input };
            if allowed(&pair) {
                if is_new {
                    self.seen.insert(pair.input.clone());
                    return Ok(pair);
                }
                repeated = Some(pair);
            }
        }
        repeated.ok_or_else(|| ArcError::Exhausted { task: self.task.id.clone(), side: self.side })
    }
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

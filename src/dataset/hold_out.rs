//! What is kept from training: a test split by a hash of the question, a split `valid` out of what would be training.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use ndarray::Array2;
use rayon::prelude::*;

use super::{Dataset, MoreAnswers, Split, Tokens};
use crate::rng::Rng;
use crate::{Error, Result};

/// The split that `--valid` makes.
pub const VALID: &str = "valid";

/// Stream of the seed that says which groups become `valid`.
const VALID_STREAM: u64 = 1 << 63;

/// Whether `share` can be held out.
pub(super) fn check_share(share: f64) -> Result<()> {
    match (0.0..1.0).contains(&share) {
        true => Ok(()),
        false => Err(Error::input(format!("a test share of {share} cannot be held out; give 0 to below 1"))),
    }
}

/// The uniform draw of a question with this hash.
pub(super) fn draw(seed: u64, hash: u32) -> f64 {
    Rng::stream(seed, u64::from(hash)).uniform()
}

/// Which questions are held out: those whose draw is below the share, at least one and not all.
pub(super) fn held_out(draws: &[f64], share: f64) -> impl Fn(f64) -> bool + use<> {
    let least = draws.iter().copied().fold(f64::INFINITY, f64::min);
    let most = draws.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    move |draw| share > 0.0 && draw < most && (draw < share || draw == least)
}

/// A hash that no two of a set's rows share but by a chance of one in 10²⁰.
pub(super) fn hash128(item: &impl Hash) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, item).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

impl Dataset {
    /// Takes `count` groups out of the split `train`, chosen by `seed`, and makes them the split [`VALID`]. Puzzles that a
    /// symmetry connects stay together where the rules are known, else equal questions do, so that training never sees a
    /// question of `valid`.
    ///
    /// # Errors
    /// When there is such a split already, nothing would be left to train on, or questions do not say whose they are (ARC).
    pub fn hold_out_valid(&mut self, count: usize, seed: u64) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        if self.splits.contains_key(VALID) {
            return Err(Error::input("--valid: the file has a split \"valid\" already; leave the option out"));
        }
        if self.puzzle.game()?.copies().are_named() {
            return Err(Error::input(
                "--valid: of ARC, the pairs of a task belong together; hold out the tasks of a subset of their own with \
                 --test-set",
            ));
        }
        let board = self.board()?;
        let train = self.split("train")?;
        let class = |group: usize| -> Result<u128> {
            let question = train.inputs.row(train.group_examples(group).start)?;
            Ok(match board.audit() {
                Some(rules) => hash128(&rules.form(&question)),
                None => hash128(&question),
            })
        };
        let classes: Vec<u128> = (0..train.groups()).into_par_iter().map(class).collect::<Result<_>>()?;
        let taken = choose(&classes, count, seed).ok_or_else(|| {
            Error::input(format!(
                "--valid {count}: cannot be taken out of {} training puzzles, of which those that are alike stay together, \
                 with something left to train on; give fewer",
                train.groups()
            ))
        })?;
        let (valid, rest): (Vec<usize>, Vec<usize>) = (0..train.groups()).partition(|&group| taken[group]);
        let (valid, rest) = (train.of_groups(&valid)?, train.of_groups(&rest)?);
        self.splits.insert(VALID.into(), valid);
        self.splits.insert("train".into(), rest);
        Ok(())
    }
}

/// Which groups are taken: whole classes in random order, as far as they fit, `count` groups in all; `None` when they do not
/// come to that, or nothing is left.
fn choose(classes: &[u128], count: usize, seed: u64) -> Option<Vec<bool>> {
    let mut sizes: HashMap<u128, usize> = HashMap::new();
    let mut order = Vec::new();
    for &class in classes {
        let size = sizes.entry(class).or_insert(0);
        if *size == 0 {
            order.push(class);
        }
        *size += 1;
    }
    Rng::stream(seed, VALID_STREAM).shuffle(&mut order);
    let mut room = count;
    let mut taken = HashSet::new();
    for class in order {
        if sizes[&class] <= room {
            room -= sizes[&class];
            taken.insert(class);
        }
    }
    let taken: Vec<bool> = classes.iter().map(|class| taken.contains(class)).collect();
    (room == 0 && !taken.iter().all(|&taken| taken)).then_some(taken)
}

impl Split {
    /// Some of the groups, in the given order, as a split of their own.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn of_groups(&self, groups: &[usize]) -> Result<Self> {
        let puzzles = || groups.iter().flat_map(|&group| self.group(group));
        let examples = || puzzles().flat_map(|puzzle| self.puzzle(puzzle));
        let gather = |tokens: &Tokens, rows: &mut dyn Iterator<Item = usize>| -> Result<Tokens> {
            let mut all = Vec::new();
            for row in rows {
                all.extend_from_slice(&tokens.row(row)?);
            }
            let columns = tokens.ncols();
            let array = Array2::from_shape_vec((all.len() / columns.max(1), columns), all);
            array.map(Tokens::from).map_err(|e| Error::input(format!("rows of unequal length: {e}")))
        };
        let sums = |sizes: &mut dyn Iterator<Item = usize>| {
            let grow = sizes.scan(0u32, |sum, size| {
                *sum += size as u32;
                Some(*sum)
            });
            std::iter::once(0).chain(grow).collect::<Vec<u32>>()
        };
        let mut meta = self.meta.clone();
        // Of published Sudoku and mazes, puzzles are counted as groups are.
        let as_groups = meta.total_puzzles == meta.total_groups;
        (meta.total_groups, meta.total_puzzles) =
            (groups.len(), if as_groups { groups.len() } else { puzzles().count() });
        let more_answers = match &self.more_answers {
            None => None,
            Some(more) => Some(MoreAnswers {
                rows: gather(&more.rows, &mut examples().flat_map(|example| more.of(example)))?,
                indices: sums(&mut examples().map(|example| more.of(example).len())),
            }),
        };
        Ok(Self {
            inputs: gather(&self.inputs, &mut examples())?,
            labels: gather(&self.labels, &mut examples())?,
            puzzle_identifiers: puzzles().map(|puzzle| self.puzzle_identifiers[puzzle]).collect(),
            puzzle_indices: sums(&mut puzzles().map(|puzzle| self.puzzle(puzzle).len())),
            group_indices: sums(&mut groups.iter().map(|&group| self.group(group).len())),
            more_answers,
            columns: if self.columns.is_empty() {
                self.columns.clone()
            } else {
                self.columns.of(groups.iter().copied())
            },
            meta,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{audit, maze, sudoku};
    use super::*;
    use crate::puzzle::maze::PathSpec;

    #[test]
    fn valid_is_taken_out_of_training_and_shares_no_puzzle_with_it_up_to_symmetry() {
        // Of 4×4 there are 36 minimal puzzles up to symmetry: training is filled with images of its own.
        let spec = PathSpec { min_path: 2, unique_path: false };
        let sets =
            [sudoku::build(4, 100, 5, 0, 1), sudoku::build(6, 60, 10, 3, 1), maze::build(6, 40, 8, spec, true, 2)];
        for data in sets {
            let mut data = data.unwrap();
            let before = data.clone();
            data.hold_out_valid(7, 3).unwrap();
            let (train, valid) = (data.split("train").unwrap(), data.split(VALID).unwrap());
            assert_eq!((valid.groups(), train.groups() + 7), (7, before.splits["train"].groups()));
            assert_eq!((valid.meta.total_groups, train.meta.total_groups), (7, train.groups()));
            assert_eq!(data.splits["test"], before.splits["test"]);
            data.splits.values().for_each(|split| split.check().unwrap());
            let report = audit(&data).unwrap();
            assert!(!report.leaks() && report.faults() == 0, "{report}");
            let mut again = before.clone();
            again.hold_out_valid(7, 3).unwrap();
            assert_eq!(again, data);
            again = before.clone();
            again.hold_out_valid(7, 4).unwrap();
            assert_ne!(again, data, "the seed chooses");
        }
    }

    #[test]
    fn what_cannot_be_held_out_is_one_line() {
        let mut data = sudoku::build(4, 10, 0, 2, 1).unwrap();
        let message = data.hold_out_valid(10, 0).unwrap_err().to_string();
        assert!(message.contains("--valid 10") && message.contains("10 training puzzles"), "{message}");
        data.hold_out_valid(2, 0).unwrap();
        assert!(data.hold_out_valid(2, 0).unwrap_err().to_string().contains("\"valid\" already"));
        let game = crate::puzzle::game("arc").unwrap();
        let settings = crate::puzzle::Settings::default();
        let order = crate::puzzle::Order { train: 56, test: 28, seed: 0, settings: &settings };
        let mut arc = Dataset::generate(game, &order).unwrap();
        assert!(arc.hold_out_valid(2, 0).unwrap_err().to_string().contains("--test-set"));
    }
}

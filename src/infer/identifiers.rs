//! What an evaluation tells the model about whose puzzle it sees.

use crate::dataset::Split;
use crate::error::{Error, Result};
use crate::rng::Rng;

/// Which row of the puzzle table an example gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Identifiers {
    /// Its own.
    #[default]
    Keep,
    /// The blank one.
    Blank,
    /// That of another task.
    Shuffle,
}

/// Stream of the shuffle; it is the same in every evaluation.
const SHUFFLE: u64 = 0;

impl Identifiers {
    /// The identifier of each puzzle of a split. Shuffled ones come from another group, copy for copy; every group's go
    /// to exactly one other.
    ///
    /// # Errors
    /// When there is only one identifier, or only one group, and another is to be shown.
    pub fn of(self, split: &Split) -> Result<Vec<u32>> {
        let own = &split.puzzle_identifiers;
        match self {
            Self::Keep => Ok(own.clone()),
            _ if split.meta.num_puzzle_identifiers < 2 => {
                Err(Error::input("the data set has no puzzle identifiers but the blank one; leave --id out"))
            }
            Self::Blank => Ok(vec![split.meta.blank_identifier_id; own.len()]),
            Self::Shuffle => {
                let groups = Rng::new(SHUFFLE).permutation(split.groups());
                if groups.len() < 2 {
                    return Err(Error::input("--id shuffle needs two tasks at least"));
                }
                let mut given = own.clone();
                for (&group, &other) in groups.iter().zip(groups.iter().cycle().skip(1)) {
                    let from = split.group(other);
                    for (copy, puzzle) in split.group(group).enumerate() {
                        given[puzzle] = own[from.start + copy % from.len()];
                    }
                }
                Ok(given)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::dataset::arc::{Options, Stored, Subset, build};
    use crate::puzzle::arc::generator::generate;

    #[test]
    fn every_task_gets_the_identifiers_of_another_and_none_is_lost() {
        let subset = Subset::of("all", generate(5, 2, 1, 6, 0).unwrap());
        let options = Options { aug: 3, seed: 0, side: 6, stored: Stored::All, pairs_per_group: None };
        let data = build(vec![subset], "all", options).unwrap();
        let split = data.split("test").unwrap();
        let (keep, shuffled) = (Identifiers::Keep.of(split).unwrap(), Identifiers::Shuffle.of(split).unwrap());
        assert_eq!(keep, split.puzzle_identifiers);
        let sorted = |ids: &[u32]| ids.iter().copied().collect::<BTreeSet<u32>>();
        assert_eq!(sorted(&keep), sorted(&shuffled));
        for group in 0..split.groups() {
            assert!(sorted(&keep[split.group(group)]).is_disjoint(&sorted(&shuffled[split.group(group)])));
        }
        assert_eq!(Identifiers::Blank.of(split).unwrap(), vec![0; keep.len()]);
        let sudoku = crate::dataset::sudoku::build(4, 2, 0, 2, 1).unwrap();
        assert!(Identifiers::Blank.of(sudoku.split("train").unwrap()).is_err());
    }
}

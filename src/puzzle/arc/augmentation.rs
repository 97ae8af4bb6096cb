//! Copies of a task: one symmetry and one renaming of colours for all its grids, and the name that says which.

use std::fmt::{self, Display, Formatter};

use super::{ArcError, COLOURS, Dihedral, Grid, Pair};
use crate::rng::Rng;

/// Between the parts of a copy's name.
const SEPARATOR: &str = "|||";

/// Colours first, then the symmetry; undoing goes the other way round. Background stays background.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Augmentation {
    /// The symmetry.
    pub dihedral: Dihedral,
    /// What each colour becomes: a permutation that keeps 0.
    pub colours: [u8; COLOURS],
}

impl Augmentation {
    /// The one that changes nothing.
    pub const IDENTITY: Self = Self { dihedral: Dihedral::IDENTITY, colours: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] };

    /// One of the 8 · 9! copies, each equally likely.
    pub fn random(rng: &mut Rng) -> Self {
        let mut made = Self { dihedral: Dihedral::ALL[rng.below(8)], ..Self::IDENTITY };
        rng.shuffle(&mut made.colours[1..]);
        made
    }

    /// The image of a grid.
    pub fn apply(&self, grid: &Grid) -> Grid {
        let (height, width) = self.dihedral.shape(grid);
        Grid::from_fn(height, width, |r, c| self.colour_at(grid, r, c))
    }

    /// The images of a pair.
    pub fn apply_pair(&self, pair: &Pair) -> Pair {
        Pair { input: self.apply(&pair.input), output: self.apply(&pair.output) }
    }

    /// The colour of the image of `grid` at `(r, c)`.
    pub fn colour_at(&self, grid: &Grid, r: usize, c: usize) -> u8 {
        let (row, column) = self.dihedral.source(grid, r, c);
        self.colours[usize::from(grid.at(row, column))]
    }

    /// The grid that this one is the image of.
    pub fn undo(&self, grid: &Grid) -> Grid {
        let mut back = [0u8; COLOURS];
        for (from, &to) in (0..).zip(&self.colours) {
            back[usize::from(to)] = from;
        }
        let inverse = self.dihedral.inverse();
        let (height, width) = inverse.shape(grid);
        Grid::from_fn(height, width, |r, c| {
            let (row, column) = inverse.source(grid, r, c);
            back[usize::from(grid.at(row, column))]
        })
    }

    /// The name of the copy of `task` it makes; the task itself goes by its bare name.
    pub fn name(&self, task: &str) -> String {
        if *self == Self::IDENTITY { task.to_string() } else { format!("{task}{SEPARATOR}{self}") }
    }

    /// Task and augmentation of a name. A bare name is the task itself.
    pub fn of_name(name: &str) -> Result<(&str, Self), ArcError> {
        let fault = || ArcError::Name(name.chars().take(80).collect());
        let Some((task, rest)) = name.split_once(SEPARATOR) else { return Ok((name, Self::IDENTITY)) };
        let (dihedral, digits) = rest.split_once(SEPARATOR).ok_or_else(fault)?;
        let dihedral = dihedral.strip_prefix('t').and_then(|id| id.parse().ok()).and_then(Dihedral::new);
        let digits: [u8; COLOURS] = digits.as_bytes().try_into().map_err(|_| fault())?;
        let colours = digits.map(|digit| digit.wrapping_sub(b'0'));
        let mut sorted = colours;
        sorted.sort_unstable();
        match dihedral {
            Some(dihedral) if sorted == Self::IDENTITY.colours && colours[0] == 0 => {
                Ok((task, Self { dihedral, colours }))
            }
            _ => Err(fault()),
        }
    }
}

/// `t<dihedral>|||<10 colours>`
impl Display for Augmentation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "t{}{SEPARATOR}", self.dihedral.id())?;
        self.colours.iter().try_for_each(|colour| write!(f, "{colour}"))
    }
}

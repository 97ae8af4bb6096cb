//! What the generated tasks demand: fourteen transformations, each a plain function of a grid.

use std::fmt::{self, Display, Formatter};

use super::super::{COLOURS, Dihedral, Grid};
use crate::rng::Rng;

/// A transformation with its parameters. Documentation of each says what the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // fields say by their names what they are
pub enum Rule {
    /// Cells of one colour take another.
    Recolour { from: u8, to: u8 },
    /// Two colours change places.
    Swap { a: u8, b: u8 },
    /// The whole grid, rotated or reflected.
    Reflect { symmetry: Dihedral },
    /// The smallest rectangle that holds everything but background.
    Crop,
    /// Background that the border cannot reach (in steps up, down, left and right) takes a colour.
    Fill { colour: u8 },
    /// Every column's coloured cells fall to the floor, and the symmetry turns the floor to another wall.
    Gravity { floor: Dihedral },
    /// One row with a cell of the colour for every cell of that colour in the grid (one background cell for none).
    Count { colour: u8 },
    /// Background cells with a coloured neighbour (of eight) take a colour.
    Outline { colour: u8 },
    /// The grid twice, side by side; the second one flipped.
    Mirror,
    /// Every cell becomes a block of 2×2.
    Enlarge,
    /// Every coloured cell is drawn out to the whole row; where two meet, the left one wins.
    Beam,
    /// Everything moves to the right, and comes in again on the left.
    Shift { by: usize },
    /// All cells take the colour that most cells have; of equals, the smaller number. Background does not count.
    Majority,
    /// The left-right flip is laid under the grid: background takes the flip's colour.
    Symmetrise,
}

/// The kinds of rule, in the order in which tasks take them.
pub const KINDS: [&str; 14] = [
    "recolour",
    "reflect",
    "crop",
    "fill",
    "gravity",
    "count",
    "outline",
    "mirror",
    "swap",
    "enlarge",
    "beam",
    "shift",
    "majority",
    "symmetrise",
];

impl Rule {
    /// A rule of the kind `KINDS[kind % 14]` with random parameters.
    pub fn random(kind: usize, rng: &mut Rng) -> Self {
        let mut colours: Vec<u8> = (1..COLOURS as u8).collect();
        rng.shuffle(&mut colours);
        let (a, b) = (colours[0], colours[1]);
        match KINDS[kind % KINDS.len()] {
            "recolour" => Self::Recolour { from: a, to: b },
            "reflect" => Self::Reflect { symmetry: Dihedral::ALL[1 + rng.below(7)] },
            "crop" => Self::Crop,
            "fill" => Self::Fill { colour: a },
            "gravity" => Self::Gravity { floor: Dihedral::ALL[rng.below(4)] },
            "count" => Self::Count { colour: a },
            "outline" => Self::Outline { colour: a },
            "mirror" => Self::Mirror,
            "swap" => Self::Swap { a, b },
            "enlarge" => Self::Enlarge,
            "beam" => Self::Beam,
            "shift" => Self::Shift { by: 1 + rng.below(2) },
            "majority" => Self::Majority,
            _ => Self::Symmetrise,
        }
    }

    /// The colours a grid must show for the rule to be seen at work.
    pub fn colours(&self) -> Vec<u8> {
        match *self {
            Self::Recolour { from, .. } => vec![from],
            Self::Swap { a, b } => vec![a, b],
            Self::Count { colour } => vec![colour],
            _ => Vec::new(),
        }
    }

    /// Height and width of an input may be at most these, for the output to fit a board of this side.
    pub fn most(&self, side: usize) -> (usize, usize) {
        match self {
            Self::Mirror => (side, side / 2),
            Self::Enlarge => (side / 2, side / 2),
            _ => (side, side),
        }
    }

    /// The output for an input.
    pub fn apply(&self, grid: &Grid) -> Grid {
        let (height, width) = (grid.height(), grid.width());
        let same_size = |colour: &dyn Fn(usize, usize) -> u8| Grid::from_fn(height, width, colour);
        match *self {
            Self::Recolour { from, to } => same_size(&|r, c| if grid.at(r, c) == from { to } else { grid.at(r, c) }),
            Self::Swap { a, b } => same_size(&|r, c| match grid.at(r, c) {
                colour if colour == a => b,
                colour if colour == b => a,
                colour => colour,
            }),
            Self::Reflect { symmetry } => symmetry.apply(grid),
            Self::Crop => crop(grid),
            Self::Fill { colour } => {
                let outside = reachable_background(grid);
                same_size(&|r, c| match grid.at(r, c) {
                    0 if !outside[r * width + c] => colour,
                    other => other,
                })
            }
            Self::Gravity { floor } => floor.inverse().apply(&fallen(&floor.apply(grid))),
            Self::Count { colour } => match grid.cells().iter().filter(|&&cell| cell == colour).count() {
                0 => Grid::background(),
                n => Grid::from_fn(1, n, |_, _| colour),
            },
            Self::Outline { colour } => same_size(&|r, c| {
                let near = |r: usize| r.saturating_sub(1)..=r + 1;
                let mut around = near(r).flat_map(|r| near(c).map(move |c| (r, c)));
                match grid.at(r, c) {
                    0 if around.any(|(r, c)| r < height && c < width && grid.at(r, c) != 0) => colour,
                    other => other,
                }
            }),
            Self::Mirror => {
                Grid::from_fn(height, 2 * width, |r, c| grid.at(r, if c < width { c } else { 2 * width - 1 - c }))
            }
            Self::Enlarge => Grid::from_fn(2 * height, 2 * width, |r, c| grid.at(r / 2, c / 2)),
            Self::Beam => same_size(&|r, c| match grid.at(r, c) {
                0 => (0..width).map(|c| grid.at(r, c)).find(|&colour| colour != 0).unwrap_or(0),
                other => other,
            }),
            Self::Shift { by } => same_size(&|r, c| grid.at(r, (c + width - by % width) % width)),
            Self::Majority => {
                let count = |colour: u8| grid.cells().iter().filter(|&&cell| cell == colour).count();
                let most = (1..COLOURS as u8).rev().max_by_key(|&colour| count(colour)).unwrap_or(0);
                same_size(&|_, _| if count(most) == 0 { 0 } else { most })
            }
            Self::Symmetrise => same_size(&|r, c| match grid.at(r, c) {
                0 => grid.at(r, width - 1 - c),
                other => other,
            }),
        }
    }
}

/// The rule and its parameters, as part of a task's name: `recolour-3-5`.
impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recolour { from, to } => write!(f, "recolour-{from}-{to}"),
            Self::Swap { a, b } => write!(f, "swap-{a}-{b}"),
            Self::Reflect { symmetry } => write!(f, "reflect-{}", symmetry.id()),
            Self::Crop => write!(f, "crop"),
            Self::Fill { colour } => write!(f, "fill-{colour}"),
            Self::Gravity { floor } => write!(f, "gravity-{}", floor.id()),
            Self::Count { colour } => write!(f, "count-{colour}"),
            Self::Outline { colour } => write!(f, "outline-{colour}"),
            Self::Mirror => write!(f, "mirror"),
            Self::Enlarge => write!(f, "enlarge"),
            Self::Beam => write!(f, "beam"),
            Self::Shift { by } => write!(f, "shift-{by}"),
            Self::Majority => write!(f, "majority"),
            Self::Symmetrise => write!(f, "symmetrise"),
        }
    }
}

fn crop(grid: &Grid) -> Grid {
    let coloured = |r: usize, c: usize| grid.at(r, c) != 0;
    let rows: Vec<usize> = (0..grid.height()).filter(|&r| (0..grid.width()).any(|c| coloured(r, c))).collect();
    let columns: Vec<usize> = (0..grid.width()).filter(|&c| (0..grid.height()).any(|r| coloured(r, c))).collect();
    let (Some(&top), Some(&left)) = (rows.first(), columns.first()) else { return Grid::background() };
    let (bottom, right) = (rows[rows.len() - 1], columns[columns.len() - 1]);
    Grid::from_fn(bottom - top + 1, right - left + 1, |r, c| grid.at(top + r, left + c))
}

/// For every cell, whether it is background that is connected with the border.
fn reachable_background(grid: &Grid) -> Vec<bool> {
    let (height, width) = (grid.height(), grid.width());
    let mut reached = vec![false; height * width];
    let on_border = |r: usize, c: usize| r == 0 || c == 0 || r + 1 == height || c + 1 == width;
    let mut open: Vec<(usize, usize)> =
        (0..height * width).map(|at| (at / width, at % width)).filter(|&(r, c)| on_border(r, c)).collect();
    while let Some((r, c)) = open.pop() {
        if grid.at(r, c) != 0 || std::mem::replace(&mut reached[r * width + c], true) {
            continue;
        }
        open.extend([(r.wrapping_sub(1), c), (r + 1, c), (r, c.wrapping_sub(1)), (r, c + 1)]);
        open.retain(|&(r, c)| r < height && c < width);
    }
    reached
}

fn fallen(grid: &Grid) -> Grid {
    let height = grid.height();
    let columns: Vec<Vec<u8>> =
        (0..grid.width()).map(|c| (0..height).map(|r| grid.at(r, c)).filter(|&colour| colour != 0).collect()).collect();
    Grid::from_fn(height, grid.width(), |r, c| {
        let air = height - columns[c].len();
        if r < air { 0 } else { columns[c][r - air] }
    })
}

//! Are two pairs, or two tasks, the same up to one of the 8 · 9! augmentations?

use super::{Augmentation, COLOURS, Dihedral, Grid, Pair, Task};

/// A pair's canonical form: equal for two pairs exactly if an augmentation turns one into the other.
///
/// Of the eight images, each with its colours renamed in the order in which they appear, the smallest.
pub fn pair_key(pair: &Pair) -> Box<[u8]> {
    let images = Dihedral::ALL.into_iter().map(|symmetry| {
        let mut names = Names::default();
        let mut key = Vec::with_capacity(4 + pair.input.cells().len() + pair.output.cells().len());
        for grid in [&pair.input, &pair.output] {
            let (height, width) = symmetry.shape(grid);
            key.extend([height as u8, width as u8]);
            for at in 0..height * width {
                let (row, column) = symmetry.source(grid, at / width, at % width);
                key.push(names.of(grid.at(row, column)));
            }
        }
        key
    });
    images.min().unwrap_or_default().into()
}

/// New names for colours, given out in order; background keeps its own.
#[derive(Default)]
struct Names {
    names: [u8; COLOURS],
    given: u8,
}

impl Names {
    fn of(&mut self, colour: u8) -> u8 {
        if colour != 0 && self.names[usize::from(colour)] == 0 {
            self.given += 1;
            self.names[usize::from(colour)] = self.given;
        }
        self.names[usize::from(colour)]
    }
}

/// An augmentation that turns the pairs of `a`, demonstrations and test pairs together and in whatever order, into
/// those of `b`.
pub fn augmentation_between(a: &Task, b: &Task) -> Option<Augmentation> {
    let (from, to): (Vec<&Pair>, Vec<&Pair>) = (a.pairs().collect(), b.pairs().collect());
    if from.len() != to.len() {
        return None;
    }
    Dihedral::ALL.into_iter().find_map(|dihedral| {
        let images: Vec<Pair> = from
            .iter()
            .map(|pair| Pair { input: dihedral.apply(&pair.input), output: dihedral.apply(&pair.output) })
            .collect();
        let colours = match_up(&images, &to, &mut vec![false; to.len()], Colours::background_only())?;
        Some(Augmentation { dihedral, colours: colours.completed() })
    })
}

/// Gives every image a partner among the targets that are not `taken`, all by one renaming of colours.
fn match_up(images: &[Pair], targets: &[&Pair], taken: &mut [bool], colours: Colours) -> Option<Colours> {
    let Some((image, rest)) = images.split_first() else { return Some(colours) };
    for at in 0..targets.len() {
        if taken[at] {
            continue;
        }
        let with = colours.extended(&image.input, &targets[at].input);
        let Some(with) = with.and_then(|colours| colours.extended(&image.output, &targets[at].output)) else {
            continue;
        };
        taken[at] = true;
        if let Some(found) = match_up(rest, targets, taken, with) {
            return Some(found);
        }
        taken[at] = false;
    }
    None
}

/// A one-to-one renaming of some colours.
#[derive(Clone, Copy)]
struct Colours {
    to: [Option<u8>; COLOURS],
    from: [Option<u8>; COLOURS],
}

impl Colours {
    fn background_only() -> Self {
        let mut ends = [None; COLOURS];
        ends[0] = Some(0);
        Self { to: ends, from: ends }
    }

    /// With what `a → b` adds to it, if that does not contradict it.
    fn extended(mut self, a: &Grid, b: &Grid) -> Option<Self> {
        if (a.height(), a.width()) != (b.height(), b.width()) {
            return None;
        }
        for (&from, &to) in a.cells().iter().zip(b.cells()) {
            let (forth, back) = (&mut self.to[usize::from(from)], &mut self.from[usize::from(to)]);
            match (*forth, *back) {
                (None, None) => (*forth, *back) = (Some(to), Some(from)),
                (Some(known), _) if known == to => {}
                _ => return None,
            }
        }
        Some(self)
    }

    /// Colours that do not occur go to those that are left, in order.
    fn completed(self) -> [u8; COLOURS] {
        let mut left = (0..COLOURS as u8).filter(|&to| self.from[usize::from(to)].is_none());
        self.to.map(|to| to.or_else(|| left.next()).unwrap_or(0))
    }
}

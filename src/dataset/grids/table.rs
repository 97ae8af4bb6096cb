//! All grids of a file, a byte a cell.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;

use crate::puzzle::grid::Cells;

/// Most cells of a grid.
pub(super) const MOST_CELLS: usize = 4096;

/// Symbols that can be told apart; one more token is padding.
pub(super) const MOST_SYMBOLS: usize = 255;

/// Symbols by the number they have in the order in which they are met.
pub(super) struct Interner {
    numbers: HashMap<String, u8>,
    /// Of single characters, which is what most cells are; number + 1.
    characters: [u8; 128],
    pub symbols: Vec<String>,
    /// The first that there was no number for.
    pub excess: Option<String>,
}

impl Default for Interner {
    fn default() -> Self {
        Self { numbers: HashMap::new(), characters: [0; 128], symbols: Vec::new(), excess: None }
    }
}

impl Interner {
    fn number(&mut self, symbol: &str) -> u8 {
        // A single byte of UTF-8 is below 128.
        let character = match symbol.as_bytes() {
            &[byte] => Some(usize::from(byte)),
            _ => None,
        };
        if let Some(byte) = character
            && self.characters[byte] > 0
        {
            return self.characters[byte] - 1;
        }
        if let Some(&number) = self.numbers.get(symbol) {
            return number;
        }
        if self.symbols.len() == MOST_SYMBOLS {
            self.excess.get_or_insert_with(|| symbol.to_owned());
            return 0;
        }
        let number = self.symbols.len() as u8;
        self.symbols.push(symbol.to_owned());
        self.numbers.insert(symbol.to_owned(), number);
        if let Some(byte) = character {
            self.characters[byte] = number + 1;
        }
        number
    }
}

/// Where a grid stands among the cells, and its shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    start: usize,
    height: u16,
    width: u16,
}

impl Place {
    /// Height and width.
    pub fn shape(self) -> (usize, usize) {
        (self.height.into(), self.width.into())
    }

    fn of(self, cells: &[u8]) -> &[u8] {
        let (height, width) = self.shape();
        &cells[self.start..][..height * width]
    }
}

/// A puzzle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Its line or item.
    pub at: usize,
    pub question: Place,
    /// The first of its answers.
    pub answer: Place,
    /// Number of its split among [`Table::splits`].
    pub split: Option<u8>,
}

/// The puzzles of a file.
#[derive(Default)]
pub(super) struct Table {
    pub symbols: Interner,
    cells: Vec<u8>,
    pub rows: Vec<Row>,
    /// Further answers, by row.
    pub more: BTreeMap<usize, Vec<Place>>,
    pub splits: Vec<String>,
    questions: HashMap<u64, u32>,
}

impl Table {
    /// Appends the grid of a JSON value; `width` cuts a single row into rows. On a fault, what is wrong with it.
    pub fn grid(&mut self, value: &Value, width: Option<usize>) -> Result<Place, String> {
        let (start, symbols, cells) = (self.cells.len(), &mut self.symbols, &mut self.cells);
        let read = Cells::each_of_json(value, &mut |symbol| cells.push(symbols.number(symbol)));
        let shape = read.and_then(|(height, found)| match width {
            Some(width) if height == 1 && found > width => match found.is_multiple_of(width) {
                true => Ok((found / width, width)),
                false => Err(format!("has {found} cells, which are no rows of {width}")),
            },
            _ => Ok((height, found)),
        });
        let small = |(height, width): (usize, usize)| match height * width > MOST_CELLS {
            true => Err(format!("has {} cells; at most {MOST_CELLS} can be learned", height * width)),
            false => Ok(Place { start, height: height as u16, width: width as u16 }),
        };
        shape.and_then(small).inspect_err(|_| self.cells.truncate(start))
    }

    /// How many cells there are so far; to be given to [`Table::take_back`].
    pub fn mark(&self) -> usize {
        self.cells.len()
    }

    /// Takes grids back that were appended last.
    pub fn take_back(&mut self, mark: usize) {
        self.cells.truncate(mark);
    }

    /// The numbers of a grid's symbols, row by row.
    pub fn cells(&self, place: Place) -> &[u8] {
        place.of(&self.cells)
    }

    /// Whether two grids are equal.
    pub fn same(&self, a: Place, b: Place) -> bool {
        a.shape() == b.shape() && self.cells(a) == self.cells(b)
    }

    /// The first row with this question; where there is none, the row that is pushed next becomes it.
    pub fn first_with(&mut self, question: Place) -> Option<usize> {
        let mut hasher = DefaultHasher::new();
        (question.shape(), self.cells(question)).hash(&mut hasher);
        let mut key = hasher.finish();
        loop {
            match self.questions.entry(key) {
                Entry::Vacant(free) => {
                    free.insert(self.rows.len() as u32);
                    return None;
                }
                Entry::Occupied(first) => {
                    let (row, cells) = (*first.get() as usize, &self.cells);
                    let other = self.rows[row].question;
                    if other.shape() == question.shape() && other.of(cells) == question.of(cells) {
                        return Some(row);
                    }
                    // Another question with the same hash: this one stands beside it.
                    key = key.wrapping_add(1);
                }
            }
        }
    }

    /// The number of a split.
    pub fn split(&mut self, name: &str) -> Result<u8, String> {
        let at = self.splits.iter().position(|known| known == name).unwrap_or_else(|| {
            self.splits.push(name.to_owned());
            self.splits.len() - 1
        });
        u8::try_from(at).map_err(|_| format!("has the split {name:?}, one of more than 256; name fewer"))
    }

    /// All right answers of a row, the stored one first.
    pub fn answers(&self, row: usize) -> impl Iterator<Item = Place> {
        std::iter::once(self.rows[row].answer).chain(self.more.get(&row).into_iter().flatten().copied())
    }

    /// A grid in its own symbols.
    pub fn in_symbols(&self, place: Place) -> Cells {
        let symbols = self.cells(place).iter().map(|&number| self.symbols.symbols[usize::from(number)].clone());
        Cells::of(symbols.collect(), place.shape().1)
    }
}

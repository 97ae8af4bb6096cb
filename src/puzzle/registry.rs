//! The kinds of puzzles there are: those built in, and those that a program has added.

use std::sync::{PoisonError, RwLock};

use super::{Game, arc, grid, maze, sudoku};
use crate::error::did_you_mean;
use crate::{Error, Result};

/// One line for each kind of puzzle. A data set that does not say what it is is the first that has its shape.
static BUILT_IN: &[&dyn Game] =
    &[&sudoku::SudokuGame, &arc::ArcGame, &maze::MazeGame, &grid::GridGame, &grid::TokensGame];

/// Those that a program has added.
static ADDED: RwLock<Vec<&'static dyn Game>> = RwLock::new(Vec::new());

/// Adds a kind of puzzle to those that settings and data sets may name, for the rest of the process. Register it before
/// settings are read: they then know its generator's settings.
///
/// A whole puzzle, from its rules to two updates of a model that learns it:
///
/// ```
/// use trm::config::Config;
/// use trm::dataset::TaskData;
/// use trm::engine::{Lanes, Weights};
/// use trm::infer::{Identifiers, Inference, InferenceOptions};
/// use trm::puzzle::{
///     Board, Description, Example, Game, Generated, Judge, Order, Setting, register,
/// };
/// use trm::{Error, Result};
///
/// /// Put the digits of a row in order: `3121` becomes `1123`. Token 0 is padding, tokens 1 to 4 are digits.
/// struct Sort;
///
/// const VOCABULARY: usize = 5;
///
/// impl Game for Sort {
///     fn name(&self) -> &'static str {
///         "sort"
///     }
///
///     fn board(&self, description: &Description, _vocab_size: usize) -> Result<Box<dyn Board>> {
///         Ok(Box::new(SortBoard { len: description.cells() }))
///     }
///
///     fn settings(&self) -> &'static [Setting] {
///         const { &[Setting::number("sort_len", "Digits in a row", 4, (2, 16))] }
///     }
///
///     fn generate(&self, order: &Order<'_>) -> Result<Generated> {
///         let len = order.settings.number("sort_len");
///         let rows = order.train + order.test;
///         if rows > 4usize.pow(len as u32) {
///             return Err(Error::input("there are not so many rows; raise data.sort_len"));
///         }
///         // A row is its number in base 4, so no two are equal.
///         let row = |number: usize| {
///             let question: Vec<u8> = (0..len).map(|at| 1 + (number >> (2 * at) & 3) as u8).collect();
///             let mut answer = question.clone();
///             answer.sort_unstable();
///             Example { question, answer }
///         };
///         let mut numbers: Vec<usize> = (0..4usize.pow(len as u32)).collect();
///         trm::rng::Rng::new(order.seed).shuffle(&mut numbers);
///         let examples: Vec<Example> = numbers.into_iter().take(rows).map(row).collect();
///         let (train, test) = examples.split_at(order.train);
///         Ok(Generated::of(Description { height: 1, width: len, ..Description::of("sort", len) }, VOCABULARY, train, test))
///     }
/// }
///
/// struct SortBoard {
///     len: usize,
/// }
///
/// impl Board for SortBoard {
///     fn name(&self) -> String {
///         format!("sort {}", self.len)
///     }
///
///     fn parse(&self, text: &str) -> Result<Vec<u8>> {
///         let digits = text.chars().map(|c| c.to_digit(10).map(|digit| digit as u8));
///         let digits = digits.collect::<Option<Vec<u8>>>().filter(|d| d.len() == self.len && d.iter().all(|d| (1..=4).contains(d)));
///         digits.ok_or_else(|| Error::input(format!("{text:?} is not {} digits from 1 to 4", self.len)))
///     }
///
///     fn text(&self, tokens: &[u8]) -> String {
///         tokens.iter().map(u8::to_string).collect()
///     }
///
///     fn draw(&self, _question: &[u8], tokens: &[u8], _changed: &[bool], _colour: bool) -> String {
///         self.text(tokens) + "\n"
///     }
///
///     fn judge(&self) -> Judge {
///         Judge::Rules { answer: "order", several: true }
///     }
///
///     fn solves(&self, question: &[u8], answer: &[u8]) -> bool {
///         let mut sorted = question.to_vec();
///         sorted.sort_unstable();
///         sorted == answer
///     }
/// }
///
/// register(&Sort)?;
/// assert!(register(&Sort).is_err(), "a name is taken once");
/// let sets = ["generate=sort", "sort_len=3", "train_puzzles=40", "test_puzzles=10", "augment=stored", "hidden_size=32"];
/// let mut config = Config::resolve(None, None, &sets.map(String::from))?;
/// let data = TaskData::load(&config.data)?;
/// config.task = data.task().clone();
/// config.validate()?;
///
/// let weights = Weights::new(&trm::model::Model::new(&config.model, &config.task), &config);
/// let lanes = Lanes::new(1)?;
/// let mut trainer = trm::train::Trainer::on(&lanes, config, weights, 2)?;
/// let mut batches = data.batches(&trainer.config, None)?;
/// for _ in 0..2 {
///     assert!(trainer.step(&mut batches)?.loss.is_finite());
/// }
/// let (weights, options) = (trainer.evaluation_weights(), InferenceOptions { steps: 2, halt: None });
/// let inference = Inference { lanes: &lanes, model: &trainer.model, weights: &weights, options };
/// let result = data.evaluate(&inference, "test", 0, Identifiers::Keep, None, || false)?.expect("not stopped");
/// // Rows of one order have one answer, so valid answers are the stored ones.
/// assert_eq!((result.puzzles, result.valid), (10, Some(result.exact_accuracy)));
///
/// // What it generates is a data set like any other: it is written, and read as what it is.
/// let home = tempfile::tempdir().expect("a temporary folder");
/// data.dataset().write(home.path().join("set"))?;
/// assert_eq!(trm::dataset::Dataset::read(home.path().join("set"))?.board()?.name(), "sort 3");
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// When another game has its name, or one of its settings' keys.
pub fn register(game: &'static dyn Game) -> Result<()> {
    let mut added = ADDED.write().unwrap_or_else(PoisonError::into_inner);
    for other in BUILT_IN.iter().chain(added.iter()) {
        if other.name() == game.name() {
            return Err(Error::input(format!("a puzzle called {:?} is registered already", game.name())));
        }
        let taken = |key: &str| other.settings().iter().any(|setting| setting.key == key);
        if let Some(setting) = game.settings().iter().find(|setting| taken(setting.key)) {
            let (key, name, other) = (setting.key, game.name(), other.name());
            return Err(Error::input(format!("the setting {key} of the puzzle {name:?} is one of {other:?} already")));
        }
    }
    added.push(game);
    Ok(())
}

/// Every kind of puzzle, those built in first.
pub fn games() -> Vec<&'static dyn Game> {
    let added = ADDED.read().unwrap_or_else(PoisonError::into_inner);
    BUILT_IN.iter().chain(added.iter()).copied().collect()
}

/// The kind of puzzle of that name.
///
/// # Errors
/// When there is none; the message says which there are.
pub fn game(name: &str) -> Result<&'static dyn Game> {
    let games = games();
    games.iter().find(|game| game.name() == name).copied().ok_or_else(|| {
        let names: Vec<&str> = games.iter().map(|game| game.name()).collect();
        let hint = did_you_mean(name, names.iter().copied());
        Error::input(format!("there is no puzzle {name:?}{hint}; give one of {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puzzle::{Board, Description, Setting};

    struct Other(&'static str, &'static [Setting]);

    impl Game for Other {
        fn name(&self) -> &'static str {
            self.0
        }

        fn board(&self, description: &Description, vocab_size: usize) -> Result<Box<dyn Board>> {
            grid::TokensGame.board(description, vocab_size)
        }

        fn settings(&self) -> &'static [Setting] {
            self.1
        }
    }

    #[test]
    fn names_and_keys_are_unique_and_what_is_registered_is_found() {
        static SAME_NAME: Other = Other("maze", &[]);
        static SAME_KEY: Other =
            Other("registry-test-key", &[Setting::number("maze_size", "Taken by mazes", 3, (1, 4))]);
        static FREE: Other = Other("registry-test", &[Setting::flag("registry_test_flag", "Nothing", false)]);
        let refused = |game: &'static Other| register(game).unwrap_err().to_string();
        assert!(refused(&SAME_NAME).contains("\"maze\""));
        assert!(refused(&SAME_KEY).contains("maze_size"));
        register(&FREE).unwrap();
        assert!(refused(&FREE).contains("already"));
        assert_eq!(game("registry-test").unwrap().name(), "registry-test");
        let unknown = game("registry-tset").map(|game| game.name()).unwrap_err().to_string();
        assert!(unknown.contains("did you mean `registry-test`"), "{unknown}");
        for one in games() {
            let keys = one.settings().iter().filter(|setting| setting.fault(setting.default).is_some());
            assert_eq!(keys.count(), 0, "{}: a default is allowed", one.name());
        }
    }
}

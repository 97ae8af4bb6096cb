//! `trm data`.

mod arc;
mod import;

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::{complain, print, print_json};
use crate::dataset::{self, Dataset, Imported, maze, sudoku};
use crate::error::{Error, Result};
use crate::files::new_folder::check_new_folder;
use crate::puzzle::maze::PathSpec;
use crate::puzzle::{Game, Order, Settings, Value, game, grid};

/// Make, import, describe and audit data sets
///
/// A data set is a folder in the published layout: one folder a split, with `dataset.json` and five `.npy` files. What
/// is written here can be read by the published training code, and the other way round.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  trm data build sudoku --size 6 --count 3000 --test 500 --seed 0 --out data/sudoku-6x6
  trm data audit data/sudoku-6x6
  trm train --preset sudoku-6x6 --data data/sudoku-6x6

Where the published sets come from is written in data/README.md.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a data set from nothing
    Build {
        #[command(subcommand)]
        what: Build,
    },
    /// Turn published source files into a data set
    Import {
        #[command(subcommand)]
        what: import::Import,
    },
    /// Say what a data set holds
    ///
    /// Groups (puzzles with their augmented copies), rows, tokens a row, vocabulary, labelled positions, memory.
    #[command(after_help = "Example:\n  trm data info data/sudoku-extreme --json | jq '.splits[].examples'")]
    Info {
        /// Root folder of the data set
        dir: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Find out whether a data set can be trusted
    ///
    /// Sudoku: looks at every row: questions that are no board, have no solution or several, answers that do not solve their
    /// question, copies that are no symmetric image of their original. Counts duplicates inside and across the splits,
    /// as written and up to symmetry (digits, bands, rows, stacks, columns, transposition), solution grids shared by
    /// the splits, and puzzles by their number of clues.
    ///
    /// Mazes: the same, by their rules: no way from S to G, answers that are no shortest path, copies that are no rotation
    /// or reflection of their original; puzzles by the cells on their shortest path. That several paths are shortest is no
    /// fault.
    ///
    /// ARC: undoes every row by its name and compares it with its task; says which test tasks' demonstrations are trained
    /// on (by design) and that no test pair is. Of a folder of ARC's JSON files (Kaggle's form, or one file per task): tasks
    /// that occur in two subsets, as written and up to symmetry and colours.
    ///
    /// The exit code is 1 when a test puzzle is equivalent to a training puzzle, or when a row is not valid; the whole
    /// report is printed first, and names the first few (--json: all leaks). Shared solution grids are no leak: small
    /// boards have too few to go round.
    #[command(after_help = "Examples:
  trm data audit data/sudoku-6x6
  trm data audit data/sudoku-extreme --json > audit.json && echo clean
  trm data audit downloads/arc")]
    Audit {
        /// Root folder of the data set
        dir: PathBuf,
        /// Print one JSON object: the report, and `leaks` (equivalent puzzles across splits) and `faults` (bad rows)
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum Build {
    /// Mazes on a square of any side
    ///
    /// Walls are drawn at random, S and G so that the shortest path is long enough. Of several shortest paths the label
    /// is the one whose moves come first in the order up, left, right, down. No two mazes of the set are equal up to
    /// rotation and reflection. The result depends on the arguments alone.
    #[command(after_help = "Examples:
  trm data build maze --size 12 --count 10000 --test 500 --min-path 20 --out data/maze-12x12
  trm data build maze --size 30 --count 1000 --test 1000 --min-path 110 --out data/maze-30x30")]
    Maze {
        /// Side of the square
        #[arg(long, value_name = "SIDE")]
        size: usize,
        /// Training mazes
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        count: usize,
        /// Test mazes; 0: no test split
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        test: usize,
        /// Cells on the shortest path at least, S and G included (Maze-Hard at 30×30: 110)
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 2)]
        min_path: usize,
        /// Only mazes with a single shortest path
        #[arg(long)]
        unique_path: bool,
        /// Give training all eight rotations and reflections of each maze (`--set augment=online` draws them instead)
        #[arg(long)]
        dihedral: bool,
        /// Seed of the set
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
        seed: u64,
        #[command(flatten)]
        place: Place,
    },
    /// Sudoku of side 4, 6 or 9
    ///
    /// Every puzzle is proved to have exactly one solution. Puzzles are minimal ones with up to K clues put back. No
    /// test puzzle is equivalent to a training puzzle under any symmetry; beyond 4×4 no two puzzles share a solution as
    /// written. The result depends on the arguments alone.
    #[command(after_help = "Examples:
  trm data build sudoku --size 6 --count 3000 --test 500 --seed 0 --out data/sudoku-6x6
  trm data build sudoku --size 9 --count 10000 --test 1000 --extra-clues 12 --out data/sudoku-9x9")]
    Sudoku {
        /// Side of the board: 4, 6 (boxes of 2×3) or 9
        #[arg(long, value_name = "SIDE")]
        size: usize,
        /// Training puzzles
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        count: usize,
        /// Test puzzles; 0: no test split
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        test: usize,
        /// Seed of the set
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
        seed: u64,
        /// Clues put back on top of a minimal puzzle: uniform in 0..=K
        #[arg(long, value_name = "K", default_value_t = 6)]
        extra_clues: usize,
        #[command(flatten)]
        place: Place,
    },
    Arc(arc::BuildArgs),
    /// Any puzzle that has a generator, by the generator's settings
    ///
    /// The settings are those that `[data]` has for it in a run's config.toml. The result depends on the arguments alone.
    #[command(after_help = "Example:
  trm data build puzzle maze --count 1000 --test 100 --set maze_size=9 --set min_path=20 \\
      --out data/maze-9x9")]
    Puzzle {
        /// Its name, as in `data.generate`
        name: String,
        /// Training puzzles
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        count: usize,
        /// Test puzzles; 0: no test split
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        test: usize,
        /// A setting of the generator; may be repeated
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Seed of the set
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
        seed: u64,
        #[command(flatten)]
        place: Place,
    },
}

pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Build { what: Build::Sudoku { size, count, test, seed, extra_clues, place } } => {
            place.make(seed, || sudoku::build(size, count, test, extra_clues, seed))
        }
        Command::Build { what: Build::Maze { size, count, test, min_path, unique_path, dihedral, seed, place } } => {
            place.make(seed, || maze::build(size, count, test, PathSpec { min_path, unique_path }, dihedral, seed))
        }
        Command::Build { what: Build::Arc(args) } => arc::build(&args),
        Command::Build { what: Build::Puzzle { name, count, test, set, seed, place } } => {
            let game = game(&name)?;
            let settings = generator_settings(game, &set)?;
            place.make(seed, || Dataset::generate(game, &Order { train: count, test, seed, settings: &settings }))
        }
        Command::Import { what } => import::run(what),
        Command::Info { dir, json } => {
            let info = dataset::info(&Dataset::read(dir)?)?;
            if json { print_json(&info) } else { print(&format!("{info}\n")) }
        }
        Command::Audit { dir, json } => audit(&dir, json),
    }
}

/// The settings of a game's generator that `key=value` arguments give.
fn generator_settings(game: &dyn Game, arguments: &[String]) -> Result<Settings> {
    let mut settings = Settings::default();
    for argument in arguments {
        let (key, text) = argument.split_once('=').unwrap_or((argument, ""));
        let Some(setting) = game.settings().iter().find(|setting| setting.key == key) else {
            let known = game.settings().iter().map(|setting| format!("{} ({})", setting.key, setting.about));
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(Error::input(format!("--set {argument}: the settings of {} are: {known}", game.name())));
        };
        let value = text.parse().map(Value::Flag).or_else(|_| text.parse().map(Value::Number));
        let value = value.map_err(|_| Error::input(format!("--set {argument}: give a whole number, true or false")))?;
        if let Some(what) = setting.fault(value) {
            return Err(Error::input(format!("--set {argument}: {key} = {value} {what}")));
        }
        settings = settings.with(key, value);
    }
    Ok(settings)
}

/// Where a set goes, and what is kept from training before it does.
#[derive(clap::Args)]
struct Place {
    /// Puzzles taken out of training as a split `valid`, to choose a checkpoint by; never puzzles of the test split.
    /// Puzzles that a symmetry connects stay on one side
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    valid: usize,
    /// Folder to make; it must not hold anything yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Place {
    /// Makes a data set in a folder that is free, and says what was written.
    fn make(&self, seed: u64, data: impl FnOnce() -> Result<Dataset>) -> Result<()> {
        self.import(seed, || Ok(Imported { data: data()?, notes: Vec::new() }))
    }

    /// The same of an import, whose notes are said too.
    fn import(&self, seed: u64, imported: impl FnOnce() -> Result<Imported>) -> Result<()> {
        check_new_folder(&self.out)?;
        let Imported { mut data, notes } = imported()?;
        data.hold_out_valid(self.valid, seed)?;
        data.write(&self.out)?;
        notes.iter().for_each(|note| complain(note));
        print(&format!("{}\n", written(&self.out, &data)))
    }
}

/// `DIR: sudoku 9×9; train 1001000 rows (1000 puzzles, each with 1000 copies), test 500 rows; 162.2 MB`
fn written(out: &Path, data: &Dataset) -> String {
    let splits = data.in_order().into_iter().map(|(name, split)| {
        let copies = match (split.puzzles() / split.groups().max(1)).saturating_sub(1) {
            0 => String::new(),
            copies => format!(" ({} puzzles, each with {copies} copies)", split.groups()),
        };
        format!("{name} {} rows{copies}", split.examples())
    });
    let splits: Vec<String> = splits.collect();
    let bytes: usize = data.splits.values().map(|split| split.inputs.nrows() * split.inputs.ncols() * 2).sum();
    let puzzle = data.board().map_or_else(|_| grid::TOKENS.into(), |board| board.name());
    let symbols = match data.puzzle.symbols.split_first() {
        Some((_, symbols)) => format!("\n{} symbols: {}", symbols.len(), symbols.join(" ")),
        None => String::new(),
    };
    format!("{}: {puzzle}; {}; {:.1} MB{symbols}", out.display(), splits.join(", "), bytes as f64 / 1e6)
}

/// What `--json` prints.
#[derive(Serialize)]
struct Audited<'a, R> {
    #[serde(flatten)]
    report: &'a R,
    leaks: usize,
    faults: usize,
}

fn audit(dir: &Path, json: bool) -> Result<()> {
    if let Some(sources) = dataset::arc::Sources::of(dir) {
        return arc::audit_sources(&sources, json);
    }
    let data = Dataset::read(dir)?;
    if data.puzzle.game()?.copies().are_named() {
        if let Some(why) = data.why_no_named_copies() {
            return Err(Error::input(format!("{}: is no ARC set ({why}); import it again", dir.display())));
        }
        let report = dataset::arc::audit(&data)?;
        return conclude(dir, &report, (report.leaks(), report.faults()), json);
    }
    let report = dataset::audit(&data)?;
    let leaks = report.across.iter().map(|pair| pair.equivalent_puzzles).sum();
    conclude(dir, &report, (leaks, report.faults()), json)
}

/// Prints a report; the exit code says whether it is a good one.
fn conclude<R: Serialize + Display>(dir: &Path, report: &R, found: (usize, usize), json: bool) -> Result<()> {
    let (leaks, faults) = found;
    if json {
        print_json(&Audited { report, leaks, faults })?;
    } else {
        print(&format!("{report}\n"))?;
    }
    verdict(dir, leaks, faults)
}

fn verdict(dir: &Path, leaks: usize, faults: usize) -> Result<()> {
    let rows = |n: usize, one: &str, many: &str| (n > 0).then(|| format!("{n} {}", if n == 1 { one } else { many }));
    let found = [
        rows(
            leaks,
            "puzzle of one split is equivalent to one of another",
            "puzzles of one split are equivalent to puzzles of another",
        ),
        rows(faults, "row is not valid", "rows are not valid"),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::CheckFailed(format!("{}: {}; see the report", dir.display(), found.join(", and "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_folder_is_refused_before_any_work() {
        let taken = tempfile::tempdir().unwrap();
        std::fs::write(taken.path().join("precious"), "x").unwrap();
        let place = Place { valid: 0, out: taken.path().into() };
        let error = place.make(0, || panic!("work was done")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("not empty"), "{error}");
    }

    #[test]
    fn what_was_written_is_said_in_one_line() {
        let data = sudoku::build(4, 12, 3, 2, 1).unwrap();
        assert_eq!(written(Path::new("d"), &data), "d: sudoku 4×4; train 12 rows, test 3 rows; 0.0 MB");
    }

    #[test]
    fn leaks_and_bad_rows_end_with_code_1() {
        let dir = Path::new("d");
        assert!(verdict(dir, 0, 0).is_ok());
        for (leaks, faults, what) in [(1, 0, "1 puzzle of"), (0, 2, "2 rows are"), (3, 1, "another, and 1 row is")] {
            let error = verdict(dir, leaks, faults).unwrap_err();
            assert_eq!(error.exit_code(), 1);
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}

//! `trm data import`.

use std::path::PathBuf;

use clap::Subcommand;

use super::{Place, arc};
use crate::dataset::grids::{self, FileKind, GridOptions, Keys};
use crate::dataset::sudoku::{self, SudokuOptions};
use crate::dataset::{Dataset, Imported, RowOptions, maze};
use crate::error::{Error, Result};

#[derive(Subcommand)]
pub enum Import {
    /// A puzzle of your own, from JSON: an object a line, or one list of objects
    ///
    /// One object a puzzle: {"question": GRID, "answer": GRID, "id": …, "split": "train" or "test"}; id and split may be left
    /// out, and "answers": [GRID, …] holds several right answers. A grid is a string (a character a cell, a line a row), an
    /// array of such rows, or an array of arrays of numbers or strings. Grids may differ in size. The vocabulary is what the
    /// file holds, is printed, and is stored with the set. Further keys (a rating, a source) are kept beside the puzzle.
    ///
    /// Where puzzles name no split, a share of the questions is held out as `test`, chosen by a hash: equal questions stay
    /// together. Lines that cannot be used are all reported, by number, and nothing is written.
    #[command(after_help = "Examples:
  trm data import jsonl puzzles.jsonl --out data/mine
  trm data import jsonl other.json --keys question=puzzle,answer=solution --valid 100 \\
      --out data/other
  trm data import jsonl harder.jsonl --like data/mine --test-share 0.9 --out data/harder
  trm train --data data/mine

docs/your-own-puzzle.md goes all the way from an empty file to a trained model.")]
    Jsonl(GridArgs),
    /// A puzzle of your own, from CSV: a header, then a puzzle a line
    ///
    /// The columns question and answer (or those that --keys names) hold grids: characters, cut into rows of --width cells,
    /// or JSON as in `trm data import jsonl`, whose rules for all else hold here too.
    #[command(after_help = "Example:
  trm data import csv puzzles.csv --keys question=quiz,answer=solution --width 6 --out data/mine")]
    Csv(GridArgs),
    /// Mazes from published CSV files
    ///
    /// The columns are source,question,answer,rating; a maze is a square of any side, row by row: `#` wall, space, `S`,
    /// `G`, and in the answer `o` on the path, which has to be one of the shortest. (The published `.npy` folder needs no
    /// import: name it with --data.)
    #[command(after_help = "Examples:
  trm data import maze --csv train.csv --test-csv test.csv --out data/maze-hard
  trm data import maze --csv train.csv --test-csv test.csv --dihedral --out data/maze-hard-8")]
    Maze {
        /// CSV file of training mazes
        #[arg(long, value_name = "FILE")]
        csv: PathBuf,
        /// CSV file of test mazes
        #[arg(long, value_name = "FILE")]
        test_csv: Option<PathBuf>,
        /// Give training all eight rotations and reflections of each maze (`--set augment=online` draws them instead)
        #[arg(long)]
        dihedral: bool,
        /// Seed of the choice that --valid makes
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
        seed: u64,
        #[command(flatten)]
        place: Place,
    },
    /// Sudoku from files: CSV with any columns, or lists of puzzles, which are solved
    ///
    /// Boards are 4×4, 6×6, 9×9 or 16×16, row by row: digits (A to G from 10 on), `.` or `0` for an empty cell. Of a CSV file, the
    /// columns of questions and answers are found by what they hold, or named with --columns; the others (rating, source)
    /// are kept beside the puzzle. A header may be missing, and so may the answers: then every puzzle is solved, and those
    /// without a solution or with several are refused by their lines. Lines that begin with `#` say nothing.
    ///
    /// Without a test file, a share of the puzzles is held out, chosen by a hash that all images of a puzzle under a symmetry
    /// share.
    #[command(after_help = "Examples:
  trm data import sudoku --csv sudoku.csv --out data/kaggle
  trm data import sudoku --csv 17-clues.txt --test-share 0.2 --valid 1000 --out data/17-clues
  trm data import sudoku --csv train.csv --test-csv test.csv --columns quiz,solution \\
      --skip-bad --out data/mine")]
    Sudoku {
        /// Training puzzles
        #[arg(long, value_name = "FILE")]
        csv: PathBuf,
        /// Test puzzles
        #[arg(long, value_name = "FILE")]
        test_csv: Option<PathBuf>,
        /// Share of the puzzles that is held out, where there is no test file
        #[arg(
            long,
            value_name = "SHARE",
            allow_negative_numbers = true,
            default_value_t = 0.1,
            conflicts_with = "test_csv"
        )]
        test_share: f64,
        /// Training puzzles to draw [default: all]
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        subsample: Option<usize>,
        /// Augmented copies of each training puzzle (`--set augment=online` draws them instead)
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
        aug: usize,
        #[command(flatten)]
        rows: RowArgs,
        /// Seed of the draws
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
        seed: u64,
        #[command(flatten)]
        place: Place,
    },
    /// Sudoku-Extreme from its CSV files
    ///
    /// `trm data import sudoku` with the defaults of the published set: draws training rows from the one file and gives each
    /// its augmented copies; takes the test file as it is. With `--aug 0` nothing is lost for training: `--set
    /// augment=online` draws a fresh symmetry for every example instead.
    #[command(after_help = "Examples:
  trm data import sudoku-extreme --csv train.csv --test-csv test.csv --out data/sudoku-extreme
  trm data import sudoku-extreme --csv train.csv --test-csv test.csv --aug 0 \\
      --out data/sudoku-extreme-small")]
    SudokuExtreme {
        /// CSV file of training rows: source,question,answer,rating
        #[arg(long, value_name = "FILE")]
        csv: PathBuf,
        /// CSV file of test rows
        #[arg(long, value_name = "FILE")]
        test_csv: PathBuf,
        /// Training rows to draw; if there are fewer, all
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1000)]
        subsample: usize,
        /// Augmented copies of each training row
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1000)]
        aug: usize,
        #[command(flatten)]
        rows: RowArgs,
        /// Seed of the draws
        #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
        seed: u64,
        #[command(flatten)]
        place: Place,
    },
    Arc(arc::ImportArgs),
}

/// How rows of puzzles are read.
#[derive(clap::Args)]
pub struct RowArgs {
    /// Columns of questions and answers, by name or by number from 1; Q alone where there are no answers
    #[arg(long, value_name = "Q,A")]
    columns: Option<String>,
    /// Leave out rows that cannot be used; they are counted, and the first are named
    #[arg(long)]
    skip_bad: bool,
}

impl RowArgs {
    fn options(&self) -> RowOptions<'_> {
        RowOptions { columns: self.columns.as_deref(), skip_bad: self.skip_bad }
    }
}

/// How a file of grids is read.
#[derive(clap::Args)]
pub struct GridArgs {
    /// The file
    file: PathBuf,
    /// What the parts of a puzzle are called in the file: question, answer, answers, id, split
    #[arg(long, value_name = "PART=KEY,…")]
    keys: Option<String>,
    /// Cut grids that stand on one line into rows of so many cells
    #[arg(long, value_name = "CELLS", allow_negative_numbers = true)]
    width: Option<usize>,
    /// Take puzzles with the same question together: their answers are all right
    #[arg(long)]
    several: bool,
    /// Take vocabulary, board and padding of this data set, so that a model trained on it can be given this one
    #[arg(long, value_name = "SET")]
    like: Option<PathBuf>,
    /// Share of the questions that is held out, where puzzles name no split
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true, default_value_t = 0.1)]
    test_share: f64,
    /// Seed of that choice
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    place: Place,
}

impl GridArgs {
    fn import(&self, format: FileKind) -> Result<Imported> {
        if self.width == Some(0) {
            return Err(Error::input("--width 0: a row has at least one cell"));
        }
        let like = self.like.as_ref().map(Dataset::read).transpose()?;
        let options = GridOptions {
            format,
            keys: self.keys.as_deref().map(Keys::parse).transpose()?.unwrap_or_default(),
            width: self.width,
            several: self.several,
            like: like.as_ref(),
            test_share: self.test_share,
            seed: self.seed,
        };
        grids::import(&self.file, &options)
    }
}

pub fn run(what: Import) -> Result<()> {
    match what {
        Import::Jsonl(args) => args.place.import(args.seed, || args.import(FileKind::Json)),
        Import::Csv(args) => args.place.import(args.seed, || args.import(FileKind::Csv)),
        Import::Maze { csv, test_csv, dihedral, seed, place } => {
            place.make(seed, || maze::import(&csv, test_csv.as_deref(), dihedral))
        }
        Import::Sudoku { csv, test_csv, test_share, subsample, aug, rows, seed, place } => {
            let options = SudokuOptions { subsample, aug, test_share, seed, rows: rows.options() };
            place.import(seed, || sudoku::import(&csv, test_csv.as_deref(), options))
        }
        Import::SudokuExtreme { csv, test_csv, subsample, aug, rows, seed, place } => {
            let (subsample, rows) = (Some(subsample), rows.options());
            let options = SudokuOptions { subsample, aug, test_share: 0.0, seed, rows };
            place.import(seed, || sudoku::import(&csv, Some(&test_csv), options))
        }
        Import::Arc(args) => arc::import(&args),
    }
}

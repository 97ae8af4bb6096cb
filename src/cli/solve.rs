//! `trm solve`: one puzzle, and the model thinking about it.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::board::{draw, grid_of};
use super::common::{StoredModel, Threads};
use crate::error::{Error, Result};
use crate::model::{Model, model_flops};
use crate::puzzle::sudoku::{Geometry, Grid, Solutions, solve};
use crate::train::{Lanes, TaskData, Thought, Weights, attempt};

/// Longest puzzle text that is read from standard input.
const MAX_TEXT: u64 = 1 << 16;

/// Model FLOPs that the choice of a sample may cost.
const SAMPLE_FLOPS: f64 = 2e11;

/// Pause between two boards when they are drawn over each other.
const FRAME: Duration = Duration::from_millis(300);

/// Solve a puzzle with a trained model
///
/// Prints the answer, whether it is a valid solution of the puzzle, how sure the model is (σ of the halting head), and
/// the supervision steps it took. With --watch, the board after every step, changed cells marked.
#[derive(clap::Args)]
#[command(after_help = "\
A puzzle is its cells row by row, `.` or `0` for an empty one; spaces and line breaks are ignored.

Examples:
  trm solve runs/sudoku-6x6 '5..3.. ...1.. .3.... 4..... ..5... ...2.1' --watch
  echo 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79 | trm solve runs/nine -")]
pub struct Args {
    /// A run folder, or a safetensors file (with --config)
    run: PathBuf,
    /// The puzzle, or `-` to read it from standard input
    #[arg(allow_hyphen_values = true)]
    puzzle: String,
    /// Settings for a safetensors file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show the board after each supervision step
    #[arg(long)]
    watch: bool,
    /// Supervision steps [default: what the run was trained with]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    steps: Option<u32>,
    /// Stop as soon as the model believes it is done
    #[arg(long)]
    halt: bool,
    #[command(flatten)]
    threads: Threads,
}

pub fn run(args: Args) -> Result<()> {
    let lanes = args.threads.lanes()?;
    crate::simd::choose_isa()?;
    let StoredModel { config, model, weights } = StoredModel::load(&args.run, args.config.as_deref())?;
    let geometry = match config.task.puzzle.as_str() {
        "sudoku" => Geometry::of_cells(config.task.seq_len)?,
        other => return Err(Error::input(format!("{}: `solve` knows Sudoku, not {other}", args.run.display()))),
    };
    let question = read_puzzle(&args.puzzle, geometry)?;
    let steps = match args.steps {
        Some(0) => return Err(Error::input("--steps 0: the model has to think at least once; give 1 or more")),
        Some(steps) => steps,
        None => config.train.halt_max_steps,
    };
    let tokens: Vec<u8> = question.tokens().collect();
    let thoughts = attempt(&lanes, &model, &weights, &tokens, 0, steps, args.halt);
    show(&question, &thoughts, args.watch)
}

/// The puzzle as given, refused unless it has exactly one solution.
fn read_puzzle(text: &str, geometry: Geometry) -> Result<Grid> {
    let mut piped = String::new();
    let text = if text == "-" {
        std::io::stdin().take(MAX_TEXT).read_to_string(&mut piped).map_err(|e| Error::io("standard input", e))?;
        &piped
    } else {
        text
    };
    let cells: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let question = Grid::parse(geometry, &cells)?;
    if let Some(conflict) = question.conflict() {
        return Err(Error::input(format!("the puzzle contradicts itself: {conflict}; correct one of the two cells")));
    }
    match solve(&question) {
        Solutions::Unique(_) => Ok(question),
        Solutions::None => Err(Error::input("the puzzle has no solution; check the clues")),
        Solutions::Multiple(a, b) => {
            Err(Error::input(format!("the puzzle has several solutions, {a} and {b} among them; add clues")))
        }
    }
}

/// Prints the thoughts (all of them with `watch`), and the verdict on the last.
fn show(question: &Grid, thoughts: &[Thought], watch: bool) -> Result<()> {
    let geometry = question.geometry();
    let terminal = std::io::stdout().is_terminal();
    let given = question.values();
    let mut before = given.to_vec();
    let Some(last) = thoughts.last() else { return Ok(()) };
    let mut text = String::new();
    for (i, thought) in thoughts.iter().enumerate() {
        let values: Vec<u8> = thought.tokens.iter().map(|token| token.saturating_sub(1)).collect();
        let changed: Vec<bool> = values.iter().zip(&before).map(|(a, b)| watch && a != b).collect();
        let board = draw(geometry, given, &values, &changed, terminal);
        if watch {
            let heading =
                format!("step {} of {}, confidence {:.1} %", i + 1, thoughts.len(), 100.0 * thought.confidence);
            if terminal && i > 0 {
                std::thread::sleep(FRAME);
                super::print(&format!("\x1b[{}A\x1b[J", board.lines().count() + 1))?;
            }
            super::print(&format!("{heading}\n{board}"))?;
            if !terminal {
                super::print("\n")?;
            }
        } else if i + 1 == thoughts.len() {
            text.push_str(&board);
        }
        before = values;
    }
    let verdict = match grid_of(geometry, &last.tokens) {
        Some(answer) if answer.is_solution_of(question) => "a valid solution",
        _ => "not a solution",
    };
    let line: String = before.iter().map(|&v| char::from_digit(u32::from(v), 36).unwrap_or('.')).collect();
    text.push_str(&format!(
        "{}\n{verdict}, confidence {:.1} %, {} supervision step{}\n",
        line.to_uppercase(),
        100.0 * last.confidence,
        thoughts.len(),
        if thoughts.len() == 1 { "" } else { "s" }
    ));
    super::print(&text)
}

/// The end of a training run: one unseen puzzle solved step by step, and what to try next.
pub fn show_sample(
    lanes: &Lanes,
    model: &Model,
    weights: &Weights,
    data: &TaskData,
    steps: u32,
    run: &Path,
) -> Result<()> {
    let split = data.split("test")?;
    let Some(geometry) = split.sudoku_geometry() else { return Ok(()) };
    // Of some puzzles, the one that takes the most thought and ends right; few when a thought is expensive.
    let cost = model_flops(model).forward * f64::from(steps);
    let candidates = (SAMPLE_FLOPS / cost).clamp(1.0, 24.0) as usize;
    let mut sample: Option<(Grid, Vec<Thought>)> = None;
    for (row, &id) in split.inputs.rows().into_iter().zip(&split.puzzle_identifiers).take(candidates) {
        let question = Grid::from_tokens(geometry, &row.to_vec())?;
        let thoughts = attempt(lanes, model, weights, &row.to_vec(), id, steps, true);
        let right = thoughts.last().and_then(|last| grid_of(geometry, &last.tokens));
        let right = right.is_some_and(|answer| answer.is_solution_of(&question));
        if sample.as_ref().is_none_or(|(_, best)| right && thoughts.len() > best.len()) {
            sample = Some((question, thoughts));
        }
    }
    let Some((question, thoughts)) = sample else { return Ok(()) };
    let shared = match geometry.side() {
        6 => "(6×6 has 28,200,960 grids, but only 49 classes of them under symmetry)\n",
        4 => "(4×4 has only 288 grids: solutions are shared)\n",
        _ => "",
    };
    super::print(&format!("\nA puzzle it has not seen, under any symmetry:\n{shared}\n"))?;
    super::print(&draw(geometry, question.values(), question.values(), &vec![false; geometry.cells()], false))?;
    super::print("\n")?;
    show(&question, &thoughts, true)?;
    super::print(&format!("\nNext: trm eval {0}\n      trm solve {0} {question} --watch\n", run.display()))
}

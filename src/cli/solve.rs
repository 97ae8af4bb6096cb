//! `trm solve`: one puzzle, and how the model comes to its answer.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::common::{DeviceArg, FRAME, Thinking, Threads, WeightsArg, load_model, on_device};
use super::run_set::load_set;
use super::task;
use crate::dataset::{TaskData, arc, board_of};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::{Inference, StepAnswer, StoredModel};
use crate::model::model_flops;
use crate::puzzle::{Board, Judge, game};
use crate::report::Terminal;

/// Longest puzzle text that is read from standard input.
const MAX_TEXT: u64 = 1 << 16;

/// Model FLOPs that the choice of a sample may cost.
const SAMPLE_FLOPS: f64 = 2e11;

/// Solve a puzzle with a trained model
///
/// Prints the answer, whether it is a valid solution of the puzzle, how sure the model is (σ of the halting head), and
/// the supervision steps it took. With --watch, the board after every step, changed cells marked.
#[derive(clap::Args)]
#[command(after_help = "\
A Sudoku is its cells row by row, `.` or `0` for an empty one; spaces and line breaks are ignored. One with several solutions
is answered too, with a note. A puzzle of your own is
written with your symbols, a line a row, or as in the file it was imported from. Of a run on ARC, give the name of a task
of its data set: demonstrations, input, attempt and truth are drawn side by side.

Examples:
  trm solve runs/sudoku-6x6 '.61.4. .2.... ..2.5. 51..3. ....6. ...4..' --watch
  echo 53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79 \\
      | trm solve runs/nine -")]
pub struct Args {
    /// A run folder, or a safetensors file (with --config)
    run: PathBuf,
    /// The puzzle, or `-` to read it from standard input
    #[arg(allow_hyphen_values = true)]
    puzzle: String,
    /// Settings for a safetensors file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    weights: WeightsArg,
    /// ARC: the folder of the data set that holds the task [default: the one the run was trained with]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Show the board after each supervision step
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    thinking: Thinking,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: DeviceArg,
}

pub fn run(args: Args) -> Result<()> {
    on_device!(args.device.device, D => run_on::<D>(args))
}

fn run_on<D: Device<T = f32>>(args: Args) -> Result<()> {
    let lanes = args.threads.lanes_for::<D>(args.device)?;
    crate::simd::choose_isa()?;
    let StoredModel { config, model, weights } =
        load_model::<D>(&args.run, args.config.as_deref(), &args.weights, lanes.threads())?;
    let options = args.thinking.options(&model, &config.train)?;
    if game(&config.task.puzzle)?.copies().are_named() {
        let data = load_set(&args.run, args.config.as_deref(), &config, args.data.as_deref())?;
        let name = typed(args.puzzle)?;
        let task = data.dataset().arc_task_named(name.trim())?;
        if task.test.is_empty() {
            return Err(Error::input(format!(
                "task {} has no test input in the data set: all of it is trained on",
                task.id
            )));
        }
        let inference = Inference { lanes: &lanes, model: &model, weights: &weights, options };
        return task::solve(&inference, &data, &task, args.watch);
    }
    let board = board_of(&config.task)?;
    let question = board.parse(&typed(args.puzzle)?)?;
    board.remark(&question).iter().for_each(|remark| super::complain(remark));
    let steps = Inference { lanes: &lanes, model: &model, weights: &weights, options }.answers(&question, 0);
    show(&*board, &question, None, &steps, args.watch)
}

/// The puzzle as given, or as standard input has it.
fn typed(text: String) -> Result<String> {
    if text != "-" {
        return Ok(text);
    }
    let mut piped = String::new();
    std::io::stdin().take(MAX_TEXT).read_to_string(&mut piped).map_err(|e| Error::io("standard input", e))?;
    Ok(piped)
}

/// Prints the answers (all of them with `watch`), and the verdict on the last: by the rules where they are known, else
/// by the stored answer where there is one.
fn show(board: &dyn Board, question: &[u8], stored: Option<&[u8]>, steps: &[StepAnswer], watch: bool) -> Result<()> {
    let terminal = Terminal::stdout();
    let mut before = question;
    let Some(last) = steps.last() else { return Ok(()) };
    let mut text = String::new();
    for (i, step) in steps.iter().enumerate() {
        let changed: Vec<bool> = step.tokens.iter().zip(before).map(|(&a, &b)| watch && !board.same(a, b)).collect();
        let picture = board.draw(question, &step.tokens, &changed, terminal.colour);
        if watch {
            let heading = format!("step {} of {}, confidence {:.1} %", i + 1, steps.len(), 100.0 * step.confidence);
            let shown = format!("{heading}\n{picture}");
            let redraw = terminal.can_redraw(&shown);
            if redraw && i > 0 {
                std::thread::sleep(FRAME);
                super::print(&format!("\x1b[{}A\x1b[J", shown.lines().count()))?;
            }
            super::print(&shown)?;
            if !redraw {
                super::print("\n")?;
            }
        } else if i + 1 == steps.len() {
            text.push_str(&picture);
        }
        before = &step.tokens;
    }
    let verdict = match (board.judge(), stored) {
        (Judge::Rules { answer, .. }, _) if board.solves(question, &last.tokens) => format!("a valid {answer}, "),
        (Judge::Rules { answer, .. }, _) => format!("not a {answer}, "),
        (_, Some(stored)) if stored == last.tokens => "the stored answer, ".into(),
        (_, Some(_)) => "not the stored answer, ".into(),
        (_, None) => String::new(),
    };
    text.push_str(&format!(
        "{}\n{verdict}confidence {:.1} %, {} supervision step{}\n",
        board.text(&last.tokens),
        100.0 * last.confidence,
        steps.len(),
        if steps.len() == 1 { "" } else { "s" }
    ));
    super::print(&text)
}

/// The end of a training run: one unseen puzzle of the split it was evaluated on, solved step by step, and what to try next.
pub fn show_sample<D: Device>(inference: &Inference<'_, D>, data: &TaskData, split: &str, run: &Path) -> Result<()> {
    if data.dataset().has_named_copies() {
        // Tasks are shown as the test split has them: demonstrations and test inputs.
        if split != arc::TEST {
            return Ok(());
        }
        let tasks = data.dataset().arc_tasks(1)?;
        super::print("\nA task whose demonstrations it has seen, and whose test inputs it has not:\n\n")?;
        task::solve(inference, data, &tasks[0], true)?;
        let run = run.display();
        return super::print(&format!(
            "\nNext: trm eval {run}\n      trm solve {run} {} --watch\n",
            quoted(&tasks[0].id)
        ));
    }
    let (split, board) = (data.split(split)?, data.board());
    // Of some puzzles, the one that takes the most supervision steps and ends right; few when a step is expensive.
    let cost = model_flops(inference.model).forward * f64::from(inference.options.steps);
    let candidates = (SAMPLE_FLOPS / cost).clamp(1.0, 24.0) as usize;
    let mut sample: Option<(Vec<u8>, Vec<u8>, Vec<StepAnswer>)> = None;
    for row in 0..candidates.min(split.examples()) {
        let (question, answer) = (split.inputs.row(row)?.into_owned(), split.labels.row(row)?.into_owned());
        let id = split.puzzle_identifiers[split.puzzle_of(row)];
        let steps = inference.answers(&question, id);
        let last = steps.last().map_or(&[][..], |last| &last.tokens);
        let right =
            split.answers(row).any(|right| right.is_ok_and(|right| *right == *last)) || board.solves(&question, last);
        if sample.as_ref().is_none_or(|(.., best)| right && steps.len() > best.len()) {
            sample = Some((question, answer, steps));
        }
    }
    let Some((question, answer, steps)) = sample else { return Ok(()) };
    super::print(&format!("\n{}\n", board.heading()))?;
    super::print(&board.draw(&question, &question, &vec![false; question.len()], false))?;
    super::print("\n")?;
    show(board, &question, Some(&answer), &steps, true)?;
    let (run, typed) = (run.display(), quoted(&board.text(&question)));
    super::print(&format!("\nNext: trm eval {run}\n      trm solve {run} {typed} --watch\n"))
}

/// Text as one word of a shell command.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

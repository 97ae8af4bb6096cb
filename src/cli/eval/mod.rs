//! `trm eval`: accuracy after each supervision step.

mod print;

use std::path::{Path, PathBuf};

use super::common::{DeviceArg, Thinking, Threads, WeightsArg, load_model, on_device};
use super::run_set::load_set;
use crate::dataset::{TaskData, arc};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files::output::{PREDICTIONS, SUBMISSION};
use crate::files::{atomic, check_output};
use crate::infer::{
    Answered, Bucket, Evaluated, Identifiers, Inference, Observer, PredictionFormat, Predictions, Row, StoredModel,
    buckets,
};
use crate::puzzle::TokenPair;
use crate::puzzle::arc::vote::Score;
use crate::report::RowBar;

/// Evaluate a trained model: accuracy after each supervision step
///
/// Every puzzle gets all supervision steps, as in the paper, or with --halt only as many as the model wants. Exact
/// accuracy counts puzzles that are right in every cell; halting accuracy is how often the model knows whether it is
/// right. Puzzles whose answers are not known have no part in any figure.
///
/// Of ARC, every copy of a test input is a vote: pass@k says how many tasks have the right answer among the k answers
/// with most votes (a task with several test inputs counts in parts).
///
/// The set need not be the one that the run was trained with: its symbols and, of ARC, its tasks are recognised by name.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  trm eval runs/sudoku-6x6
  trm eval runs/sudoku-6x6 --halt 0.95              stop when it is 95 % sure
  trm eval runs/sudoku-6x6 --data sets/harder --split test --json
  trm eval runs/arc-1 --limit 20 --submission submission.json
  trm eval runs/arc-small --id shuffle
  trm eval runs/sudoku-6x6 --weights raw            the weights themselves, not their average
  trm eval runs/sudoku-6x6 --by clues --predictions answers.jsonl
  trm eval weights.safetensors --config config.toml --data sets/sudoku-extreme

What --halt costs on the quick start's own model: 95.4 % exact in all 8 steps without it, 95.0 % in 2.5 steps on average with
--halt 0.95, 94.2 % in 2.0 with --halt 0.9, 89.2 % in 1.7 with --halt alone.")]
pub struct Args {
    /// A run folder, or a safetensors file (with --config)
    run: PathBuf,
    /// Settings for a safetensors file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    weights: WeightsArg,
    /// Data set folder [default: the one the run was trained with]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Which split
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    #[command(flatten)]
    thinking: Thinking,
    /// Only the first N puzzles of the split; of ARC, the first N tasks with all their copies
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    limit: Option<usize>,
    /// ARC: let only the first N augmented copies of each task vote beside itself [default: all]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    copies: Option<usize>,
    /// What the model is told about whose puzzle it sees: its own identifier, none, or that of another task
    #[arg(long, value_name = "WHICH", default_value = "keep")]
    id: Id,
    /// ARC: write the two best answers to every test input as submission.json has them
    #[arg(long, value_name = "FILE")]
    submission: Option<PathBuf>,
    /// Accuracy by what is known of the puzzles: clues (Sudoku), length (mazes), task (ARC), identifier, or a column that
    /// the set keeps, such as rating
    #[arg(long, value_name = "KEY")]
    by: Option<String>,
    /// Write each puzzle's answers after every supervision step: a line of JSON each (FILE.jsonl), or one array of tokens
    /// [puzzles, steps, tokens] (FILE.npy)
    #[arg(long, value_name = "FILE")]
    predictions: Option<PathBuf>,
    /// Replace the files there even if they are none that trm wrote
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: DeviceArg,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// `--id`
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Id {
    Keep,
    Blank,
    Shuffle,
}

impl From<Id> for Identifiers {
    fn from(id: Id) -> Self {
        match id {
            Id::Keep => Self::Keep,
            Id::Blank => Self::Blank,
            Id::Shuffle => Self::Shuffle,
        }
    }
}

pub fn run(args: Args) -> Result<()> {
    on_device!(args.device.device, D => run_on::<D>(args))
}

fn run_on<D: Device<T = f32>>(args: Args) -> Result<()> {
    let lanes = args.threads.lanes_for::<D>(args.device)?;
    crate::simd::choose_isa()?;
    let StoredModel { config, model, mut weights } =
        load_model::<D>(&args.run, args.config.as_deref(), &args.weights, lanes.threads())?;
    lanes.replicate(&mut weights.params);
    let data = load_set(&args.run, args.config.as_deref(), &config, args.data.as_deref())?;
    let options = args.thinking.options(&model, &config.train)?;
    let limit = match args.limit {
        Some(0) => {
            return Err(Error::input("--limit 0: nothing would be evaluated; give 1 or more, or leave it out for all"));
        }
        limit => limit.unwrap_or(0),
    };
    if !matches!(args.id, Id::Keep) && config.model.puzzle_emb_ndim == 0 {
        return Err(Error::input(
            "--id is for a model that is told whose puzzle it sees, and this one is not (puzzle_emb_ndim = 0); leave it out",
        ));
    }
    let inference = Inference { lanes: &lanes, model: &model, weights: &weights, options };
    let arc = data.dataset().has_named_copies() && args.split == arc::TEST;
    for (argument, given) in [("--copies", args.copies.is_some()), ("--submission", args.submission.is_some())] {
        if given && !arc {
            let why = data.dataset().why_no_named_copies().map_or_else(String::new, |why| format!(" ({why})"));
            return Err(Error::input(format!("{argument} is for the test split of an ARC set{why}; leave it out")));
        }
    }
    if let Some(file) = &args.submission {
        check_output(file, SUBMISSION, args.force)?;
    }
    let predictions =
        args.predictions.as_deref().map(|file| Ok::<_, Error>((file, format_of(file, args.force)?))).transpose()?;
    let copies = args.copies.unwrap_or(usize::MAX);
    let rows = if arc { data.arc_rows(limit, copies)? } else { data.rows(&args.split, limit)? };
    let value_of = args.by.as_deref().map(|key| values(&data, &args.split, key)).transpose()?;
    let bar = RowBar::new(rows.len() as u64);
    let evaluate = |watch: Observer<'_>| -> Result<(Evaluated, Option<(Score, serde_json::Value)>)> {
        let tell = |answered: &Answered<'_>| {
            (watch.tell)(answered);
            bar.add(1);
        };
        let observer = Observer { tell: &tell, ..watch };
        if arc {
            let evaluated = data.evaluate_arc(&inference, limit, copies, args.id.into(), observer)?;
            return Ok((evaluated.rows, Some((evaluated.score, evaluated.submission))));
        }
        let split = data.split(&args.split)?;
        let evaluated =
            data.evaluate_rows(&inference, split, rows.clone(), args.id.into(), Some(observer), || false)?;
        Ok((evaluated.expect("nothing stops it"), None))
    };
    let (evaluated, arc) = match predictions {
        None => evaluate(Observer::new(&|_| {}))?,
        Some((file, format)) => {
            let of = ((data.dataset(), data.board()), (data.split(&args.split)?, &*rows));
            let mut evaluated = Ok(None);
            let written = atomic::write(file, |out| {
                let predictions = Predictions::new(out, of.0, of.1, options.steps as usize, format)?;
                let tell = |answered: &Answered<'_>| predictions.add(answered);
                evaluated = evaluate(Observer { tell: &tell, every_answer: true }).map(Some);
                match &evaluated {
                    Ok(_) => predictions.finish(),
                    // It is told below; the file is not kept.
                    Err(_) => Err(std::io::Error::other("not evaluated")),
                }
            });
            let evaluated = evaluated?;
            written?;
            evaluated.expect("it was evaluated while the file was written")
        }
    };
    bar.finish();
    let (score, submission) = arc.unzip();
    if let (Some(file), Some(submission)) = (&args.submission, submission) {
        atomic::write_bytes(file, submission.to_string().as_bytes())?;
    }
    let split = data.split(&args.split)?;
    let by: Option<Vec<Bucket>> = match value_of {
        None => None,
        Some(value_of) => {
            let row = |(at, steps): &(usize, Vec<crate::infer::StepScore>)| {
                let row = evaluated.rows[*at];
                let exact = steps.last().and_then(crate::infer::StepScore::is_exact);
                Ok(Row { value: value_of(row)?, group: split.group_of(row), exact })
            };
            Some(buckets(&evaluated.outcomes.puzzles.iter().map(row).collect::<Result<Vec<Row>>>()?))
        }
    };
    let halted = options.halt.map(|_| options.steps);
    let report = print::Report {
        evaluation: &evaluated.evaluation,
        score: score.as_ref(),
        by: args.by.as_deref().zip(by.as_deref()),
        judge: data.board().judge(),
        halted,
    };
    if args.json { super::print_json(&report.json()) } else { super::print(&report.text()) }
}

/// What a file of predictions is to be like, by the ending of its name.
fn format_of(file: &Path, force: bool) -> Result<PredictionFormat> {
    let format = PredictionFormat::of(file).ok_or_else(|| {
        Error::input(format!("--predictions {}: give a name that ends in .jsonl or .npy", file.display()))
    })?;
    check_output(file, PREDICTIONS, force)?;
    Ok(format)
}

/// The value that a row of a split has for `--by`.
type ValueOf<'a> = Box<dyn Fn(usize) -> Result<String> + 'a>;

/// What `--by KEY` asks of a row.
fn values<'a>(data: &'a TaskData, split: &str, key: &str) -> Result<ValueOf<'a>> {
    let (dataset, split) = (data.dataset(), data.split(split)?);
    let audit = data.board().audit();
    let name = |puzzle: usize| dataset.identifiers[split.puzzle_identifiers[puzzle] as usize].clone();
    match key {
        _ if audit.is_some_and(|audit| audit.measure_key() == key) => Ok(Box::new(move |row| {
            let (question, answer) = (split.inputs.row(row)?, split.labels.row(row)?);
            let pair = TokenPair { question: &question, answer: &answer };
            Ok(audit.map_or_else(String::new, |audit| audit.size(pair).to_string()))
        })),
        "task" if dataset.has_named_copies() => {
            Ok(Box::new(move |row| Ok(name(split.group(split.group_of(row)).start))))
        }
        "identifier" if dataset.identifiers.len() > 1 => Ok(Box::new(move |row| Ok(name(split.puzzle_of(row))))),
        _ if split.columns.names().any(|name| name == key) => {
            let key = key.to_owned();
            Ok(Box::new(move |row| Ok(split.columns.get(&key, split.group_of(row)).unwrap_or("–").to_owned())))
        }
        _ => {
            let mut known: Vec<String> = audit.map(|audit| audit.measure_key().to_owned()).into_iter().collect();
            known.extend(dataset.has_named_copies().then(|| "task".into()));
            known.extend((dataset.identifiers.len() > 1).then(|| "identifier".into()));
            known.extend(split.columns.names().map(String::from));
            let known = if known.is_empty() { "nothing that --by could take".into() } else { known.join(", ") };
            Err(Error::input(format!("--by {key}: of these puzzles is known: {known}")))
        }
    }
}

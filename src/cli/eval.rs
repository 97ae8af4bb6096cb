//! `trm eval`: accuracy after each supervision step.

use std::path::PathBuf;

use serde_json::Value;

use super::common::{DeviceArg, Threads, load_model, on_device};
use crate::dataset::TaskData;
use crate::dataset::arc;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::files::atomic;
use crate::infer::{ArcEvaluation, HaltRule, Identifiers, Inference, InferenceOptions, StoredModel};
use crate::puzzle::Judge;
use crate::puzzle::arc::vote::{PASS_AT, Score};
use crate::report::{RowBar, Table, wilson_95};

/// Evaluate a trained model: accuracy after each supervision step
///
/// Every puzzle gets all supervision steps, as in the paper, or with --halt only as many as the model wants. Exact
/// accuracy counts puzzles that are right in every cell; halting accuracy is how often the model knows whether it is
/// right.
///
/// Of ARC, every copy of a test input is a vote: pass@k says how many tasks have the right answer among the k answers
/// with most votes (a task with several test inputs counts in parts).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  trm eval runs/sudoku-6x6
  trm eval runs/sudoku-6x6 --halt                   faster: about as right, in fewer steps
  trm eval runs/sudoku-6x6 --data sets/harder --split test --json
  trm eval runs/arc-1 --limit 20 --submission submission.json
  trm eval runs/arc-small --id shuffle
  trm eval weights.safetensors --config config.toml --data sets/sudoku-extreme")]
pub struct Args {
    /// A run folder, or a safetensors file (with --config)
    run: PathBuf,
    /// Settings for a safetensors file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data set folder [default: the one the run was trained with]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Which split
    #[arg(long, value_name = "NAME", default_value = "test")]
    split: String,
    /// Supervision steps [default: what the run was trained with]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    steps: Option<u32>,
    /// Let a puzzle stop as soon as the model believes it is done; its answer then stays
    #[arg(long)]
    halt: bool,
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
        load_model::<D>(&args.run, args.config.as_deref(), lanes.threads())?;
    lanes.replicate(&mut weights.params);
    let mut source = config.data.clone();
    let data = match &args.data {
        // Whichever form the set has, its rows are the same: that of the run's own set need not be its.
        Some(dir) => {
            source.dir = dir.display().to_string();
            TaskData::load_fitting(&mut source)?
        }
        None => TaskData::load(&source)?,
    };
    if *data.task() != config.task {
        return Err(Error::input(format!(
            "the data set has {} tokens per puzzle, {} in the vocabulary and {} puzzle identifiers, the model {}, {} and \
             {}; give a data set like the one it was trained on with --data",
            data.task().seq_len,
            data.task().vocab_size,
            data.task().num_puzzle_identifiers,
            config.task.seq_len,
            config.task.vocab_size,
            config.task.num_puzzle_identifiers,
        )));
    }
    let steps = match args.steps {
        Some(0) => return Err(Error::input("--steps 0: the model has to think at least once; give 1 or more")),
        Some(steps) => steps,
        None => config.train.halt_max_steps,
    };
    let options = InferenceOptions { steps, halt: args.halt.then(|| HaltRule::of(&model, &config.train)) };
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
    let identifiers = args.id.into();
    let arc = data.dataset().has_named_copies() && args.split == arc::TEST;
    for (argument, given) in [("--copies", args.copies.is_some()), ("--submission", args.submission.is_some())] {
        if given && !arc {
            let why = data.dataset().why_no_named_copies().map_or_else(String::new, |why| format!(" ({why})"));
            return Err(Error::input(format!("{argument} is for the test split of an ARC set{why}; leave it out")));
        }
    }
    if let Some(file) = &args.submission {
        atomic::check_target(file)?;
    }
    let copies = args.copies.unwrap_or(usize::MAX);
    let rows = if arc { data.arc_rows(limit, copies)? } else { data.rows(&args.split, limit)? };
    let bar = RowBar::new(rows.len() as u64);
    let (result, arc) = if arc {
        let evaluated = data.evaluate_arc(&inference, limit, copies, identifiers, &|| bar.add(1))?;
        if let Some(file) = &args.submission {
            atomic::write_bytes(file, evaluated.submission.to_string().as_bytes())?;
        }
        (evaluated.rows.clone(), Some(evaluated))
    } else {
        let answered = |_: usize, _: &[u8], _: f64| bar.add(1);
        let rows = data.evaluate(&inference, &args.split, limit, identifiers, Some(&answered), || false)?;
        (rows.expect("nothing stops it"), None)
    };
    bar.finish();
    let nothing_known = arc.as_ref().is_some_and(|arc| arc.unknown == arc.score.tasks);
    let right = (result.exact_accuracy * result.puzzles as f64).round() as u64;
    let (low, high) = wilson_95(right, result.puzzles as u64);
    if args.json {
        let mut value = serde_json::to_value(&result).expect("reports serialize");
        value["exact_accuracy_95"] = serde_json::json!([low, high]);
        if let Some(ArcEvaluation { score, unknown, .. }) = &arc {
            value["arc"] = serde_json::to_value(score).expect("scores serialize");
            value["arc"]["unknown"] = (*unknown).into();
        }
        if nothing_known {
            let judged = ["exact_accuracy", "exact_accuracy_95", "token_accuracy", "halt_accuracy", "by_step"];
            judged.into_iter().for_each(|key| value[key] = Value::Null);
            value["arc"]["pass"] = Value::Null;
        }
        return super::print_json(&value);
    }
    if let Some(arc) = arc.as_ref().filter(|_| nothing_known) {
        return super::print(&by_tasks(arc));
    }
    let valid = result.valid.map(|_| "valid %");
    let mut table = Table::new(["step", "exact %", "tokens %", "halting %"].into_iter().chain(valid));
    for step in &result.by_step {
        let percent = |share: f64| format!("{:.2}", 100.0 * share);
        let shares = [step.exact_accuracy, step.token_accuracy, step.halt_accuracy].into_iter().chain(step.valid);
        table.row(std::iter::once(step.step.to_string()).chain(shares.map(percent)));
    }
    let halting = match args.halt {
        true => format!("; {:.2} of {steps} supervision steps used on average", result.mean_steps),
        false => String::new(),
    };
    let valid = result.valid.map_or_else(String::new, |share| {
        let Judge::Rules { answer, .. } = data.board().judge() else { return String::new() };
        format!("{:.2} % of the answers are a valid {answer}, the stored one or another\n", 100.0 * share)
    });
    super::print(&format!(
        "{table}\n{right} of {} puzzles exact: {:.2} % (95 % interval {:.2} to {:.2} %){halting}\n{valid}",
        result.puzzles,
        100.0 * result.exact_accuracy,
        100.0 * low,
        100.0 * high
    ))?;
    arc.map_or(Ok(()), |arc| super::print(&by_tasks(&arc)))
}

/// pass@k, a line; where no answer is known, that.
fn by_tasks(arc: &ArcEvaluation) -> String {
    let Score { tasks, answered, pass } = &arc.score;
    let counted = format!("{tasks} task{}, {answered} with answers", if *tasks == 1 { "" } else { "s" });
    if arc.unknown == *tasks {
        return format!(
            "{counted}: the set has no solutions, so none of them can be scored (--submission writes them)\n"
        );
    }
    let shares = PASS_AT.iter().zip(pass).map(|(k, share)| format!("pass@{k} {:.2} %", 100.0 * share));
    let unknown = match arc.unknown {
        0 => String::new(),
        unknown => format!(" ({unknown} without a known answer counted as wrong)"),
    };
    format!("{counted}: {}{unknown}\n", shares.collect::<Vec<_>>().join(", "))
}

//! `trm plot`: pictures of runs, from their logs.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::checkpoint::RunPaths;
use crate::error::{Error, Result};
use crate::files::check_output;
use crate::files::output::PICTURE;
use crate::report::{Points, Scale, accuracy_chart, loss_chart, metric_points, read_metrics};

/// Draw the loss or the accuracy of runs as an SVG picture
///
/// Loss: one line per run. Accuracy: exact accuracy on the test split at each evaluation, the runs taken together as
/// median and spread (give the seeds of one setting).
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  trm plot runs/a runs/b --out loss.svg
  trm plot runs/seed-* --what accuracy --against seconds --out accuracy.svg")]
pub struct Args {
    /// Run folders
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// What to draw
    #[arg(long, value_enum, default_value = "loss")]
    what: What,
    /// The horizontal axis of the accuracy
    #[arg(long, value_enum, default_value = "seconds")]
    against: Against,
    /// Title of the picture
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Mark a level in per cent, e.g. a goal
    #[arg(long, value_name = "PERCENT")]
    level: Option<f64>,
    /// Picture to write
    #[arg(long, value_name = "FILE.svg")]
    out: PathBuf,
    /// Replace the file there even if it is no picture of trm's
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    Loss,
    Accuracy,
}

#[derive(Clone, Copy, ValueEnum)]
enum Against {
    Seconds,
    Flops,
    Step,
}

pub fn run(args: Args) -> Result<()> {
    check_output(&args.out, PICTURE, args.force)?;
    let logs: Vec<PathBuf> =
        args.runs.iter().map(|run| Ok(RunPaths::existing(run)?.metrics())).collect::<Result<_>>()?;
    let name = |run: &Path| run.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let names: Vec<String> = args.runs.iter().map(|run| name(run)).collect();
    let mut chart = match args.what {
        What::Loss => {
            let runs: Vec<(String, &Path)> = names.iter().cloned().zip(logs.iter().map(PathBuf::as_path)).collect();
            loss_chart(args.title.as_deref().unwrap_or("Training loss"), &runs)?
        }
        What::Accuracy => {
            let (key, label) = match args.against {
                Against::Seconds => ("seconds", "seconds of training"),
                Against::Flops => ("model_flops", "model FLOPs"),
                Against::Step => ("step", "updates"),
            };
            let points: Vec<Points> = logs
                .iter()
                .map(|log| Ok(metric_points(&read_metrics(log)?, key, "eval.exact_accuracy")))
                .collect::<Result<_>>()?;
            if let Some(empty) = points.iter().position(Vec::is_empty) {
                return Err(Error::input(format!(
                    "{}: no evaluation yet; set train.eval_interval, or wait for the end of the run",
                    logs[empty].display()
                )));
            }
            let title = args.title.as_deref().unwrap_or("Accuracy on unseen puzzles");
            accuracy_chart(title, label, Scale::Linear, &[("test".to_owned(), points)])
        }
    };
    chart.levels.extend(args.level.map(|level| (level, format!("{level} %"))));
    chart.save(&args.out)?;
    super::print(&format!("{}\n", args.out.display()))
}

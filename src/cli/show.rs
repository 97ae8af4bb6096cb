//! `trm show`: an ARC task in colour.

use std::path::PathBuf;

use super::task;
use crate::checkpoint::RunPaths;
use crate::dataset::TaskData;
use crate::dataset::{Dataset, arc};
use crate::error::{Error, Result};

/// Show an ARC task: its demonstrations and test pairs
///
/// Grids are drawn side by side, in colour on a terminal, as digits elsewhere. The task comes from a file of its own, or
/// by its name from a data set, from what a run was trained on, or from a folder of ARC's JSON files (Kaggle's form, or
/// one file per task).
#[derive(clap::Args)]
#[command(after_help = "Examples:
  trm show data/arc-1 007bbfb7
  trm show runs/arc-small 003-fill-1
  trm show downloads/arc 007bbfb7
  trm show ARC-AGI/data 007bbfb7
  trm show ARC-AGI/data/training/007bbfb7.json")]
pub struct Args {
    /// A data set folder, a run folder, a folder of JSON files, or the JSON file of one task
    from: PathBuf,
    /// The task's name; not for a file of one task
    task: Option<String>,
}

pub fn run(args: Args) -> Result<()> {
    let from = &args.from;
    if from.is_file() {
        return task::show(&arc::read_task(from)?, true);
    }
    let name = args.task.as_deref().ok_or_else(|| {
        Error::input(format!("{}: which task? Give its name, or the JSON file of one task", from.display()))
    })?;
    let shown = |data: &Dataset| {
        if let Some(why) = data.why_no_named_copies() {
            return Err(Error::input(format!("{}: is no ARC set ({why}); `show` knows ARC tasks", from.display())));
        }
        task::show(&data.arc_task_named(name)?, true)
    };
    if let Ok(run) = RunPaths::existing(from) {
        return shown(TaskData::load(&run.read_config()?.data)?.dataset());
    }
    let Some(sources) = arc::Sources::of(from) else {
        return shown(&Dataset::read(from)?);
    };
    for subset in &sources.subsets {
        if let Some(found) = sources.read(subset)?.tasks.iter().find(|task| task.id == name) {
            return task::show(found, true);
        }
    }
    Err(Error::input(format!("{}: no task {name:?} in the subsets {}", from.display(), sources.subsets.join(", "))))
}

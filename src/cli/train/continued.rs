//! Runs that go on from something: a run in its folder, or stored weights.

use std::path::Path;

use super::{Args, InitTable, Opened, absolute, augmentation_is_said, shorthands};
use crate::checkpoint::{RunFolder, RunPaths};
use crate::cli::common::{Experiment, claim_training};
use crate::cli::run_set::no_data;
use crate::config::{Config, PrecisionSetting, TrainOnly};
use crate::dataset::TaskData;
use crate::device::Device;
use crate::engine::{TableStart, Weights};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::puzzle::game;
use crate::train::{RunData, set_folder};

/// Settings that may change between two processes of a run: no update depends on them, if the schedule does not.
const MAY_CHANGE: [&str; 2] = ["train.max_steps", "train.stop_after"];

/// The run folder that a new run begins with, if it is one.
fn init_run(args: &Args) -> Option<&Path> {
    args.init.as_deref().filter(|path| path.is_dir())
}

/// The experiment that the arguments name; without one, that of the run folder of `--init`.
pub(super) fn experiment_of(args: &Args) -> Experiment {
    let mut experiment = args.experiment.clone();
    if experiment.preset.is_none() && experiment.config.is_none() {
        experiment.config = init_run(args).map(|run| run.join("config.toml"));
    }
    experiment
}

/// What a new run is called where nobody says.
pub(super) fn name_of(args: &Args) -> String {
    let named = args.experiment.preset.is_some() || args.experiment.config.is_some();
    let run = init_run(args).filter(|_| !named).and_then(Path::file_name);
    run.map_or_else(|| args.experiment.name(), |name| name.to_string_lossy().into_owned())
}

/// The weights that `--init` says a new run begins with, and what there is to say of them.
pub(super) fn initial_weights<D: Device<T = f32>>(
    args: &Args,
    config: &Config,
    data: &TaskData,
) -> Result<Option<(Weights<D>, Vec<String>)>> {
    let Some(init) = &args.init else {
        return match config.train.train_only {
            TrainOnly::All => Ok(None),
            TrainOnly::PuzzleTable => Err(Error::input(
                "train.train_only = \"puzzle_table\" leaves all other weights as they are; give trained ones with --init",
            )),
        };
    };
    let file = match init_run(args) {
        Some(run) => RunPaths::existing(run)?.weights(),
        None => init.clone(),
    };
    // A run knows whose rows its table holds; of a bare file, as many rows are taken for the same puzzles.
    let kept = init_run(args).map(|run| RunData::read(&RunPaths::existing(run)?)).transpose()?.flatten();
    let others = kept.is_some_and(|kept| kept.identifiers != data.dataset().identifiers);
    let table = match args.init_table {
        None if others => TableStart::New,
        None => TableStart::Fitting,
        Some(InitTable::Keep) => TableStart::Keep,
        Some(InitTable::New) => TableStart::New,
    };
    let mut weights = Weights::new(&Model::new(&config.model, &config.task), config);
    let of_table = weights.begin_with(&file, table)?;
    let names = (others && config.model.puzzle_emb_ndim > 0)
        .then(|| "its puzzle identifiers have other names than those of the data".to_owned());
    let said = std::iter::once(format!("begins with the weights in {}", file.display()));
    let said = said.chain(names).chain(of_table);
    Ok(Some((weights, said.collect())))
}

/// The run in `--out`, to go on with.
pub(super) fn reopen<D: Device>(args: &Args, threads: usize) -> Result<Opened<D>> {
    let root = args.out.clone().unwrap_or_default();
    let folder = RunFolder::open(&root)?;
    let mut stored = folder.read_config()?;
    let mut asked = args.experiment.clone();
    if asked.preset.is_none() && asked.config.is_none() {
        asked.config = Some(folder.config());
    }
    let mut wanted = asked.resolve(&shorthands(args))?;
    wanted.task = stored.task.clone();
    if game(&stored.task.puzzle)?.copies().are_named() && !augmentation_is_said(args) {
        wanted.data.augment = stored.data.augment;
    }
    if wanted.train.precision == PrecisionSetting::Auto {
        wanted.train.precision = stored.train.precision;
    }
    // The place of the data may change, its content may not: that is compared when the run is opened.
    let place = stored.data.dir.clone();
    stored.data.dir = match (&args.data, place.is_empty()) {
        (Some(dir), false) => absolute(&dir.display().to_string())?,
        (_, true) => String::new(),
        (None, false) => absolute(&set_folder(&folder, &place).display().to_string())?,
    };
    if !stored.data.dir.is_empty() {
        wanted.data.dir.clone_from(&stored.data.dir);
    }
    let may_change = |difference: &String| {
        MAY_CHANGE.iter().any(|key| difference.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
    };
    let (further, differences): (Vec<String>, Vec<String>) =
        stored.differences(&wanted).into_iter().partition(may_change);
    if !differences.is_empty() {
        return Err(Error::input(format!(
            "{}: --resume with changed settings ({}); leave them as they were, or train into a new folder",
            root.display(),
            differences.join(", ")
        )));
    }
    (stored.train.max_steps, stored.train.stop_after) = (wanted.train.max_steps, wanted.train.stop_after);
    let eval_split = stored.train.eval_split.clone();
    let data = TaskData::load_for_training(&mut stored.data, &eval_split, false)
        .map_err(|error| no_data(&stored.data.dir, error))?;
    if *data.task() != stored.task {
        return Err(Error::input(format!(
            "{}: the data set has another shape than the run was started with",
            root.display()
        )));
    }
    claim_training::<D>(&stored, data.total_steps(&stored)?, threads)?;
    let said = further.iter().map(|change| format!("goes on with {change}")).collect();
    let store_config = !further.is_empty() || stored.data.dir != place;
    Ok(Opened { folder, config: stored, data, weights: None, store_config, said, warnings: Vec::new() })
}

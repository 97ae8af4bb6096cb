//! The data set that a stored model is asked about: its own, or another one that it can be shown.

use std::path::Path;

use super::complain;
use crate::checkpoint::RunPaths;
use crate::config::Config;
use crate::dataset::TaskData;
use crate::error::{Error, Result};
use crate::train::{RunData, set_folder};

/// Loads the set in the folder `other`, or the one that the run was trained with, as its model sees it. `run` and `config_file`
/// are those that the model was loaded by.
pub fn load_set(run: &Path, config_file: Option<&Path>, config: &Config, other: Option<&Path>) -> Result<TaskData> {
    // The settings of a safetensors file usually stand in a run's folder still.
    let root = if run.is_dir() { Some(run) } else { config_file.and_then(Path::parent) };
    let paths = root.and_then(|root| RunPaths::existing(root).ok());
    let kept = paths.as_ref().map(RunData::read).transpose()?.flatten();
    let mut source = config.data.clone();
    let data = match other {
        // Whichever form the set has, its rows are the same: that of the run's own set need not be its.
        Some(dir) => {
            source.dir = dir.display().to_string();
            TaskData::load_fitting(&mut source)?
        }
        None => {
            if let Some(paths) = &paths {
                source.dir = set_folder(paths, &source.dir).display().to_string();
            }
            TaskData::load(&source).map_err(|error| no_data(&source.dir, error))?
        }
    };
    let data = data.fitted(&config.task, kept.as_ref().map(|kept| &*kept.identifiers))?;
    if let Some(kept) = kept.filter(|_| other.is_none() || data.dataset().has_named_copies()) {
        // Of another set there is nothing to say, but where tasks are taken to be the same because their names are.
        if data.split("train").is_ok() && data.fingerprint()? != kept.fingerprint {
            complain(&format!(
                "{}: its training rows are not those that the run was trained with{}",
                source.dir,
                if data.dataset().identifiers.len() > 1 {
                    "; puzzles are taken for the same where their names are"
                } else {
                    ""
                }
            ));
        }
    }
    Ok(data)
}

/// What kept a run's own data set from being read, where that is no more than that the folder is gone.
pub fn no_data(dir: &str, error: Error) -> Error {
    if dir.is_empty() || Path::new(dir).is_dir() {
        return error;
    }
    Error::input(format!(
        "{dir}: the data set that the run was trained with is not there; say where it is now with --data"
    ))
}

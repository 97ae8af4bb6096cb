//! `trm presets`.

use super::{print, print_json};
use crate::config::{DEFAULT_PRESET, presets};
use crate::error::Result;
use crate::report::Table;

/// List the presets: complete experiments to start from
///
/// A preset is an experiment by name: model, data and training settings. Every experiment is a short list of
/// differences to one of them, given as a file (`--config`) or as `--set key=value` arguments of `trm train`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  trm presets
  trm train --preset sudoku-4x4
  trm train --preset sudoku-extreme --data data/sudoku-extreme --set batch_size=32")]
pub struct Args {
    /// Print a JSON list of {name, group, description, published_accuracy, source}; the first is the default
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> Result<()> {
    let presets = presets();
    if args.json {
        return print_json(&presets);
    }
    let mut table = Table::default();
    let mut group = presets[0].group.clone();
    for preset in &presets {
        if preset.group != group {
            group.clone_from(&preset.group);
            table.row([""]).row([group.as_str()]);
        }
        let accuracy = preset.published_accuracy.filter(|_| preset.is_of_the_paper());
        let accuracy = accuracy.map_or_else(String::new, |percent| format!("{percent:.1} %"));
        table.row([preset.name, accuracy.as_str(), preset.description.as_str()]);
    }
    print(&format!(
        "{table}\nWithout --preset, `trm train` takes {DEFAULT_PRESET}. Percentages were published (arXiv 2510.04871); `trm plan \
         PRESET` says what a run takes.\n"
    ))
}

//! The presets, embedded from `data/presets`: one complete base, the others short files of differences.

use serde::Serialize;

use crate::error::{Error, Result, did_you_mean};

/// The preset a run without arguments uses; also the base that every layer is a difference to.
pub const DEFAULT_PRESET: &str = "sudoku-6x6";

/// One preset as `trm presets` lists it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preset {
    /// What `--preset` takes.
    pub name: &'static str,
    /// Which presets it stands with: `engine`, or `paper, table 1` to `5`.
    pub group: String,
    /// One line saying what it is for.
    pub description: String,
    /// Test accuracy in per cent where it was published.
    pub published_accuracy: Option<f64>,
    /// Where that was.
    pub source: Option<String>,
    /// The TOML text.
    #[serde(skip)]
    pub text: &'static str,
}

impl Preset {
    /// The preset of that name.
    pub fn named(name: &str) -> Result<Self> {
        let known = TEXTS.iter().find(|(known, _)| *known == name);
        known.map(|&(name, text)| Self::parse(name, text)).ok_or_else(|| {
            let hint = did_you_mean(name, names());
            Error::input(format!("unknown preset `{}`{hint} (`trm presets` lists them)", name.escape_debug()))
        })
    }

    /// Whether it is a row of the paper's tables.
    pub fn is_of_the_paper(&self) -> bool {
        self.group != ENGINE
    }
}

/// The group of the presets that are not the paper's.
const ENGINE: &str = "engine";

/// `(name, text)` of files below `data/presets`; the name is the file's.
macro_rules! embedded {
    ($($folder:literal: $($name:literal)*;)*) => {
        &[$($(($name, include_str!(concat!("../../data/presets/", $folder, $name, ".toml"))),)*)*]
    };
}

/// One line for each preset, the default first.
const TEXTS: &[(&str, &str)] = embedded! {
    "":
        "sudoku-6x6"
        "sudoku-4x4"
        "sudoku-9x9"
        "sudoku-extreme"
        "sudoku-extreme-att"
        "maze-8x8"
        "maze-12x12"
        "maze-30x30-hard"
        "arc-small"
        "arc-1"
        "arc-2";
    "paper/":
        "table1-trm"
        "table1-continue-loss"
        "table1-separate-nets"
        "table1-no-ema"
        "table1-4-layers"
        "table1-attention"
        "table1-t2-n2"
        "table1-one-step"
        "table1-hrm"
        "table2-y-z"
        "table2-multi-scale-z"
        "table2-single-z"
        "table3-hrm-t1-k1"
        "table3-trm-t1-k1"
        "table3-hrm-t2-k2"
        "table3-trm-t2-k2"
        "table3-hrm-t3-k3"
        "table3-trm-t3-k3"
        "table3-hrm-t4-k4"
        "table3-trm-t4-k4"
        "table3-hrm-t3-k6"
        "table3-trm-t3-k6"
        "table3-hrm-t6-k3"
        "table3-trm-t6-k3"
        "table3-hrm-t6-k6"
        "table3-trm-t6-k6"
        "table4-sudoku-direct"
        "table4-sudoku-hrm"
        "table4-sudoku-trm-att"
        "table4-sudoku-trm-mlp"
        "table4-maze-direct"
        "table4-maze-hrm"
        "table4-maze-trm-att"
        "table4-maze-trm-mlp"
        "table5-arc1-direct"
        "table5-arc1-hrm"
        "table5-arc1-trm-att"
        "table5-arc1-trm-mlp"
        "table5-arc2-direct"
        "table5-arc2-hrm"
        "table5-arc2-trm-att"
        "table5-arc2-trm-mlp";
};

/// Every preset, the default first.
pub fn presets() -> Vec<Preset> {
    TEXTS.iter().map(|&(name, text)| Preset::parse(name, text)).collect()
}

impl Preset {
    /// Takes a file apart: what stands at its top beside the settings.
    fn parse(name: &'static str, text: &'static str) -> Self {
        let table: toml::Table = text.parse().expect("presets are checked by a test");
        let string = |key: &str| table.get(key).and_then(toml::Value::as_str).map(str::to_owned);
        let group = match name.strip_prefix("table").and_then(|rest| rest.split_once('-')) {
            Some((number, _)) => format!("paper, table {number}"),
            None => ENGINE.to_owned(),
        };
        Self {
            name,
            group,
            description: string("description").unwrap_or_default(),
            published_accuracy: table.get("published_accuracy").and_then(toml::Value::as_float),
            source: string("source"),
            text,
        }
    }
}

/// The names, the default first.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().map(|&(name, _)| name)
}

/// The TOML text of the preset called `name`.
pub(super) fn text(name: &str) -> Option<&'static str> {
    TEXTS.iter().find(|(n, _)| *n == name).map(|&(_, text)| text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_below_data_presets_is_a_preset() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/presets");
        let files = |folder: &Path| {
            let entries = std::fs::read_dir(folder).expect("the folder is there");
            let paths: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
            let stems =
                paths.iter().filter(|p| p.extension().is_some_and(|e| e == "toml")).filter_map(|p| p.file_stem());
            stems.map(|stem| stem.to_string_lossy().into_owned()).collect::<BTreeSet<String>>()
        };
        let paper = files(&root.join("paper"));
        let listed = |of_the_paper: bool| {
            let presets = presets().into_iter().filter(|p| p.is_of_the_paper() == of_the_paper);
            presets.map(|p| p.name.to_owned()).collect::<BTreeSet<String>>()
        };
        assert_eq!(listed(true), paper);
        assert_eq!(listed(false), files(&root));
    }

    #[test]
    fn every_row_of_the_paper_says_where_its_figure_is_from_and_only_two_have_none() {
        let rows: Vec<Preset> = presets().into_iter().filter(Preset::is_of_the_paper).collect();
        assert!(rows.iter().all(|p| p.source.as_deref().is_some_and(|s| s.contains("Table"))));
        let without: Vec<&str> = rows.iter().filter(|p| p.published_accuracy.is_none()).map(|p| p.name).collect();
        assert_eq!(without, ["table3-trm-t3-k6", "table3-trm-t6-k6"], "out of memory in the paper");
    }
}

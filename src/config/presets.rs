//! The presets, embedded from `data/presets`: one complete base, the others short files of differences.

use serde::Serialize;

/// The preset a run without arguments uses; also the base that every layer is a difference to.
pub const DEFAULT_PRESET: &str = "sudoku-6x6";

/// One preset as `trm presets` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Preset {
    /// What `--preset` takes.
    pub name: &'static str,
    /// One line saying what it is for.
    pub description: String,
    /// The TOML text.
    #[serde(skip)]
    pub text: &'static str,
}

const TEXTS: [(&str, &str); 8] = [
    (DEFAULT_PRESET, include_str!("../../data/presets/sudoku-6x6.toml")),
    ("sudoku-4x4", include_str!("../../data/presets/sudoku-4x4.toml")),
    ("sudoku-9x9", include_str!("../../data/presets/sudoku-9x9.toml")),
    ("sudoku-extreme", include_str!("../../data/presets/sudoku-extreme.toml")),
    ("sudoku-extreme-att", include_str!("../../data/presets/sudoku-extreme-att.toml")),
    ("maze-8x8", include_str!("../../data/presets/maze-8x8.toml")),
    ("maze-12x12", include_str!("../../data/presets/maze-12x12.toml")),
    ("maze-30x30-hard", include_str!("../../data/presets/maze-30x30-hard.toml")),
];

/// Every preset, the default first.
pub fn presets() -> Vec<Preset> {
    let describe = |text: &str| {
        let table: toml::Table = text.parse().expect("presets are checked by a test");
        table.get("description").and_then(toml::Value::as_str).unwrap_or_default().to_owned()
    };
    TEXTS.iter().map(|&(name, text)| Preset { name, description: describe(text), text }).collect()
}

/// The names, the default first.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TEXTS.iter().map(|&(name, _)| name)
}

/// The TOML text of the preset called `name`.
pub(super) fn text(name: &str) -> Option<&'static str> {
    TEXTS.iter().find(|(n, _)| *n == name).map(|&(_, text)| text)
}

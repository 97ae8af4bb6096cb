//! The recursion of a supervision step as data: states, networks, and the calls between them, read from TOML.
//!
//! `model.recursion` is such a table, or the name of a file that holds one; without it, `model.arch` names one of the files
//! below `data/recursions`. TRM's:
//!
//! ```toml
//! name = "trm"
//! states = [{ symbol = "y", name = "H" }, { symbol = "z", name = "L" }]
//! networks = [{ symbol = "f", name = "L_level", layers = "l_layers" }]
//! answer = "y"
//! steps = [
//!     { repeat = "h_cycles", steps = [
//!         { repeat = "l_cycles", steps = ["z = f(z + y + x)"] },
//!         "y = f(y + z)",
//!     ] },
//! ]
//! ```
//!
//! | key | what |
//! |---|---|
//! | `name` | what it is called in reports; `own` if left out |
//! | `states` | at most seven. `symbol` is for the steps, `name` for the tensors: the start vector is `inner.NAME_init`. One string is both |
//! | `networks` | likewise: weights are `inner.NAME.layers.0.…`; `layers` is a count, `n_layers` if left out |
//! | `answer` | the state that the heads read |
//! | `steps` | in order: a call `"state = network(sum)"`, or a table of steps (below). In a sum, `x` is the embedded question |
//! | `prefix` | positions in front of the tokens: `"puzzle_emb_len"` as that setting says (if left out), `"fit"` as many as a puzzle's row fills |
//! | `compares_q` | it halts where q_halt > q_continue, even without the continue loss |
//! | `continue_loss` | it needs `train.continue_loss` |
//! | `mixing` | the only `model.mixing` it is meant for |
//!
//! A table of steps has `steps` and either `repeat = COUNT` (all of them, so many times) or `first = COUNT` (the first so
//! many of them, once). A count is a number or the name of a setting: `h_cycles`, `l_cycles`, and for layers `n_layers`,
//! `h_layers`, `l_layers`.
//!
//! Which calls are recorded is up to `model.gradient`, or with `gradient = "marked"` to the recursion itself: a step's table
//! (a call's is `{ call = "…", recorded = true }`) with `recorded = true` is, and of a repeated one with
//! `recorded = "last"` the last pass.

mod parse;
#[cfg(test)]
mod tests;
mod text;
mod unroll;

use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::Value;

pub(in crate::config) use unroll::MAX_CALLS;

use super::{Arch, Mixing, ModelConfig};

/// Most states a model has: y and six latents (specification, "hier6").
pub const MAX_STATES: usize = 7;

/// Most summands of a call: every state, and x.
pub const MAX_INPUTS: usize = MAX_STATES + 1;

/// See the [module](self).
#[derive(Clone, Debug, PartialEq)]
pub struct Recursion {
    name: String,
    states: Vec<StateName>,
    networks: Vec<NetworkName>,
    /// Which of the states.
    answer: usize,
    steps: Vec<Step>,
    prefix: Prefix,
    compares_q: bool,
    continue_loss: bool,
    mixing: Option<Mixing>,
}

/// What a state is called.
#[derive(Clone, Debug, PartialEq)]
pub struct StateName {
    /// In the steps.
    pub symbol: String,
    /// Among the tensors.
    pub name: String,
}

/// What a network is called, and how deep it is.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkName {
    /// In the steps.
    pub symbol: String,
    /// Among the tensors.
    pub name: String,
    /// Its blocks.
    pub layers: Count,
}

/// A call, or several steps.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Call { call: CallStep, recorded: bool },
    Steps { take: Take, steps: Vec<Step>, recorded: Recorded },
}

/// `target = network(Σ inputs)`, by position in the recursion's lists.
#[derive(Clone, Debug, PartialEq)]
pub struct CallStep {
    /// The state that is replaced.
    pub target: usize,
    /// The network that is applied.
    pub network: usize,
    /// What is added up for it.
    pub inputs: Vec<Input>,
}

/// A summand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A state, by its place in the list.
    State(usize),
    /// x, the embedded question.
    Question,
}

/// How steps are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Take {
    /// All, so many times.
    Repeat(Count),
    /// The first so many, once.
    First(Count),
}

/// Which passes of steps are marked as recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Recorded {
    /// None, apart from steps that say so themselves.
    No,
    Last,
    All,
}

/// A number, or the setting that is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// As written.
    Number(usize),
    /// The setting `h_cycles`.
    HCycles,
    /// The setting `l_cycles`.
    LCycles,
    /// The setting `n_layers`.
    NLayers,
    /// The setting `h_layers`.
    HLayers,
    /// The setting `l_layers`.
    LLayers,
}

impl Count {
    /// The counts with a name.
    const NAMED: [(&'static str, Self); 5] = [
        ("h_cycles", Self::HCycles),
        ("l_cycles", Self::LCycles),
        ("n_layers", Self::NLayers),
        ("h_layers", Self::HLayers),
        ("l_layers", Self::LLayers),
    ];

    /// The number it stands for.
    pub fn of(self, config: &ModelConfig) -> usize {
        let or_all = |layers: usize| if layers == 0 { config.n_layers } else { layers };
        match self {
            Self::Number(n) => n,
            Self::HCycles => config.h_cycles,
            Self::LCycles => config.l_cycles,
            Self::NLayers => config.n_layers,
            Self::HLayers => or_all(config.h_layers),
            Self::LLayers => or_all(config.l_layers),
        }
    }
}

/// Positions in front of the tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// `puzzle_emb_len`; where that is 0, as `Fit`.
    Setting,
    /// As many as a row of the puzzle table fills.
    Fit,
}

impl Recursion {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// In the order of their start vectors.
    pub fn states(&self) -> &[StateName] {
        &self.states
    }

    /// In the order of their weights.
    pub fn networks(&self) -> &[NetworkName] {
        &self.networks
    }

    /// Which of the states the heads read.
    pub fn answer(&self) -> usize {
        self.answer
    }

    /// Whether it halts where q_halt > q_continue even without the continue loss.
    pub fn compares_q(&self) -> bool {
        self.compares_q
    }

    /// Whether it needs the continue loss.
    pub fn needs_continue_loss(&self) -> bool {
        self.continue_loss
    }

    /// The only mixing it is meant for, if there is one.
    pub fn mixing(&self) -> Option<Mixing> {
        self.mixing
    }
}

/// `(the arch, with separate networks, text)` of the embedded recursions.
const TEXTS: [(Arch, bool, &str); 7] = [
    (Arch::Trm, false, include_str!("../../../data/recursions/trm.toml")),
    (Arch::Trm, true, include_str!("../../../data/recursions/trm-separate-nets.toml")),
    (Arch::Hrm, false, include_str!("../../../data/recursions/hrm.toml")),
    (Arch::Singlez, false, include_str!("../../../data/recursions/singlez.toml")),
    (Arch::Hier6, false, include_str!("../../../data/recursions/hier6.toml")),
    (Arch::Transformer, false, include_str!("../../../data/recursions/transformer.toml")),
    (Arch::Direct, false, include_str!("../../../data/recursions/direct.toml")),
];

/// The embedded recursion of an `arch`; `None` of `own`, and of separate networks where there is no such variant.
pub(super) fn embedded(arch: Arch, separate_nets: bool) -> Option<&'static Recursion> {
    static EMBEDDED: LazyLock<Vec<Recursion>> =
        LazyLock::new(|| TEXTS.iter().map(|(_, _, text)| text.parse().expect("a test reads them")).collect());
    TEXTS.iter().position(|&(known, separate, _)| (known, separate) == (arch, separate_nets)).map(|i| &EMBEDDED[i])
}

impl ModelConfig {
    /// The recursion: `recursion` itself, or that of `arch`.
    ///
    /// # Panics
    /// Where there is none, which [`Config::validate`](super::Config::validate) refuses.
    pub fn recursion(&self) -> &Recursion {
        self.known_recursion().expect("validated settings have a recursion")
    }

    pub(super) fn known_recursion(&self) -> Option<&Recursion> {
        self.recursion.as_ref().or_else(|| embedded(self.arch, self.separate_nets))
    }

    /// P: positions in front of the tokens. A learned prefix has its own length; a puzzle table's is `puzzle_emb_len`, or
    /// ceil(ndim / D) where that is 0 or the recursion says so.
    pub fn prefix_len(&self) -> usize {
        let asked = match self.recursion().prefix {
            Prefix::Setting => self.puzzle_emb_len,
            Prefix::Fit => 0,
        };
        match (self.learned_prefix, asked) {
            (0, 0) => self.puzzle_emb_ndim.div_ceil(self.hidden_size),
            (0, len) => len,
            (learned, _) => learned,
        }
    }
}

/// Inside other settings, a recursion is the text of its table.
impl Serialize for Recursion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The text of its table, or the table.
impl<'de> Deserialize<'de> for Recursion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => text.parse(),
            value => Self::from_value(&value),
        }
        .map_err(serde::de::Error::custom)
    }
}

/// For a setting that may be empty: the recursion of `arch`.
pub(super) fn or_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Recursion>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    if value.as_str() == Some("") {
        return Ok(None);
    }
    Recursion::deserialize(value).map(Some).map_err(serde::de::Error::custom)
}

/// The other way round: nothing is an empty text.
pub(super) fn to_text<S: Serializer>(recursion: &Option<Recursion>, serializer: S) -> Result<S::Ok, S::Error> {
    match recursion {
        None => serializer.serialize_str(""),
        Some(recursion) => recursion.serialize(serializer),
    }
}

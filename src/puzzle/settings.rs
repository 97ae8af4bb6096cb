//! A generator's own settings: declared once, read by key.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::Game;

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Number(u64),
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// What a setting may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// True or false.
    Flag,
    /// A number in this range, both ends included.
    Range(u64, u64),
    /// One of these numbers.
    OneOf(&'static [u64]),
}

/// A setting of a generator, under the key it has in `[data]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key, unique among all settings; by custom `<game>_<what>`.
    pub key: &'static str,
    /// What it means, in one line.
    pub about: &'static str,
    /// Its value where nobody says otherwise.
    pub default: Value,
    /// What is accepted.
    pub allowed: Allowed,
}

impl Setting {
    /// A whole number from `low` to `high`.
    pub const fn number(key: &'static str, about: &'static str, default: u64, (low, high): (u64, u64)) -> Self {
        Self { key, about, default: Value::Number(default), allowed: Allowed::Range(low, high) }
    }

    /// One of some numbers.
    pub const fn choice(key: &'static str, about: &'static str, default: u64, choices: &'static [u64]) -> Self {
        Self { key, about, default: Value::Number(default), allowed: Allowed::OneOf(choices) }
    }

    /// True or false.
    pub const fn flag(key: &'static str, about: &'static str, default: bool) -> Self {
        Self { key, about, default: Value::Flag(default), allowed: Allowed::Flag }
    }

    /// What is wrong with a value, if something is: `… is out of range; give 1 to 9`.
    pub fn fault(&self, value: Value) -> Option<String> {
        match (self.allowed, value) {
            (Allowed::Flag, Value::Flag(_)) => None,
            (Allowed::Flag, Value::Number(_)) => Some("is a number; give true or false".into()),
            (_, Value::Flag(_)) => Some("is no number; give a whole number".into()),
            (Allowed::Range(low, high), Value::Number(number)) => {
                (!(low..=high).contains(&number)).then(|| format!("is out of range; give {low} to {high}"))
            }
            (Allowed::OneOf(choices), Value::Number(number)) => (!choices.contains(&number)).then(|| {
                let words: Vec<String> = choices.iter().map(u64::to_string).collect();
                let (last, others) = words.split_last().expect("a choice of something");
                match others {
                    [] => format!("cannot be used; give {last}"),
                    _ => format!("cannot be used; give {} or {last}", others.join(", ")),
                }
            }),
        }
    }
}

/// Values by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Settings(BTreeMap<String, Value>);

impl Settings {
    /// All settings of a game: those given here, and the defaults of the others.
    pub fn completed(&self, game: &dyn Game) -> Self {
        let value = |setting: &Setting| self.0.get(setting.key).copied().unwrap_or(setting.default);
        Self(game.settings().iter().map(|setting| (setting.key.to_owned(), value(setting))).collect())
    }

    /// The same with another value.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.0.insert(key.to_owned(), value);
        self
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), *value))
    }

    /// A number.
    ///
    /// # Panics
    /// When its game does not declare it, or declares a flag.
    pub fn number(&self, key: &str) -> usize {
        match self.0.get(key) {
            Some(Value::Number(number)) => usize::try_from(*number).unwrap_or(usize::MAX),
            other => panic!("{key} is declared as a number, not {other:?}"),
        }
    }

    /// A flag.
    ///
    /// # Panics
    /// When its game does not declare it, or declares a number.
    pub fn flag(&self, key: &str) -> bool {
        match self.0.get(key) {
            Some(Value::Flag(flag)) => *flag,
            other => panic!("{key} is declared as a flag, not {other:?}"),
        }
    }
}

//! Tasks as JSON has them, in all the forms that are about.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A task as a file has it.
pub(super) enum RawTask {
    /// Demonstrations and test pairs.
    Sides(Sides),
    /// Pairs, all alike.
    List(Vec<RawPair>),
}

#[derive(Deserialize)]
pub(super) struct Sides {
    pub train: Vec<RawPair>,
    pub test: Vec<RawPair>,
}

#[derive(Deserialize)]
pub(super) struct RawPair {
    pub input: Vec<Vec<Cell>>,
    pub output: Option<Vec<Vec<Cell>>>,
}

impl<'de> Deserialize<'de> for RawTask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawTask;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a task (train and test, or a list of pairs)")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawTask, A::Error> {
                Sides::deserialize(MapAccessDeserializer::new(map)).map(RawTask::Sides)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RawTask, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(RawTask::List)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A number of a grid. Mini-ARC has them as text too, and nothing for the background.
pub(super) struct Cell(pub i64);

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Colour;
        impl Visitor<'_> for Colour {
            type Value = Cell;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a colour from 0 to 9")
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Cell, E> {
                Ok(Cell(i64::try_from(value).unwrap_or(i64::MAX)))
            }
            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Cell, E> {
                Ok(Cell(value))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Cell, E> {
                let wrong = |_| E::invalid_type(serde::de::Unexpected::Str(text), &self);
                text.parse().map(Cell).map_err(wrong)
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Cell, E> {
                Ok(Cell(0))
            }
        }
        deserializer.deserialize_any(Colour)
    }
}

/// An object's entries in order, those with equal keys included.
pub(super) struct Entries<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Collect<T> {
            type Value = Vec<(String, T)>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tasks by their ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Collect(std::marker::PhantomData)).map(Self)
    }
}

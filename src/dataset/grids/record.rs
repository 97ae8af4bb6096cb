//! One puzzle of a file: its question and its answers, and what else is said of it.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// What the parts of a puzzle are called in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The grid that is given.
    pub question: String,
    /// A right answer.
    pub answer: String,
    /// A list of right answers.
    pub answers: String,
    /// A name that no two puzzles share.
    pub id: String,
    /// The split.
    pub split: String,
}

impl Default for Keys {
    fn default() -> Self {
        let [question, answer, answers, id, split] = PARTS.map(String::from);
        Self { question, answer, answers, id, split }
    }
}

/// The parts, called as they are where nothing else is said.
const PARTS: [&str; 5] = ["question", "answer", "answers", "id", "split"];

impl Keys {
    /// Reads `question=Q,answer=A,…`; parts that are not named are called as they are.
    ///
    /// # Errors
    /// What is no part of a puzzle, and a key that is to be two.
    pub fn parse(text: &str) -> Result<Self> {
        let mut keys = Self::default();
        for assignment in text.split(',') {
            let (part, key) = assignment.split_once('=').unwrap_or((assignment, ""));
            let (part, key) = (part.trim(), key.trim());
            let known = [&mut keys.question, &mut keys.answer, &mut keys.answers, &mut keys.id, &mut keys.split];
            let place = PARTS.iter().zip(known).find(|(name, _)| **name == part);
            match place {
                Some((_, place)) if !key.is_empty() => *place = key.into(),
                Some(_) => {
                    return Err(Error::input(format!("--keys: {part} needs the name of a key, as in {part}=KEY")));
                }
                None => {
                    let parts = PARTS.join(", ");
                    return Err(Error::input(format!(
                        "--keys: there is no {part:?}; the parts of a puzzle are {parts}"
                    )));
                }
            }
        }
        let all = keys.all();
        match all.iter().enumerate().find(|(at, key)| all[..*at].contains(key)) {
            Some((_, key)) => {
                Err(Error::input(format!("--keys: {key:?} stands for two parts of a puzzle; name two keys")))
            }
            None => Ok(keys),
        }
    }

    fn all(&self) -> [&str; 5] {
        [&self.question, &self.answer, &self.answers, &self.id, &self.split]
    }
}

/// One puzzle as its file has it.
pub(super) struct Record {
    pub question: Value,
    /// At least one.
    pub answers: Vec<Value>,
    /// As text that tells names apart: a number is no string.
    pub id: Option<String>,
    pub split: Option<String>,
    /// Further keys with a text, a number or a truth value, and the id.
    pub further: Vec<(String, String)>,
    /// Further keys with a list or an object.
    pub nested: Vec<String>,
}

/// Several right answers, as they are to be written.
pub(super) const SEVERAL: &str = "several right answers are written \"answers\": [GRID, …]";

/// Takes an object apart; on a fault, what is wrong with it.
pub(super) fn record(value: Value, keys: &Keys) -> Result<Record, String> {
    let Value::Object(mut fields) = value else { return Err(format!("is not {}: it is no object", form(keys))) };
    let missing = |key: &str| format!("is not {}: missing field `{key}`", form(keys));
    let question = take(&mut fields, &keys.question).ok_or_else(|| missing(&keys.question))?;
    let answer = take(&mut fields, &keys.answer);
    let list = match take(&mut fields, &keys.answers) {
        None => Vec::new(),
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(_) => return Err(format!("has {:?} that is no list of grids", keys.answers)),
    };
    if let Some(answer) = &answer {
        check_answer(&question, answer)?;
    }
    if answer.is_none() && list.is_empty() {
        return Err(missing(&keys.answer));
    }
    let mut further = Vec::new();
    let id = match take(&mut fields, &keys.id) {
        None => None,
        Some(id @ (Value::String(_) | Value::Number(_))) => {
            further.push((keys.id.clone(), text(&id)));
            Some(id.to_string())
        }
        Some(_) => return Err("has an id that is neither a string nor a number".into()),
    };
    let split = match take(&mut fields, &keys.split) {
        None => None,
        Some(Value::String(split)) if is_split(&split) => Some(split),
        Some(split) => return Err(format!("has the split {split}; a split is a name of letters, digits, - and _")),
    };
    let mut nested = Vec::new();
    for (key, value) in fields {
        match value {
            Value::Array(_) | Value::Object(_) => nested.push(key),
            _ => further.push((key, text(&value))),
        }
    }
    Ok(Record { question, answers: answer.into_iter().chain(list).collect(), id, split, further, nested })
}

/// What an object is expected to be.
pub(super) fn form(keys: &Keys) -> String {
    format!("{{\"{}\": …, \"{}\": …}}", keys.question, keys.answer)
}

/// A field that is there and not null.
fn take(fields: &mut Map<String, Value>, key: &str) -> Option<Value> {
    fields.shift_remove(key).filter(|value| !value.is_null())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_split(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// A list of grids is also a grid whose cells are words: refuses what can only be meant as the list.
fn check_answer(question: &Value, answer: &Value) -> Result<(), String> {
    let Value::Array(rows) = answer else { return Ok(()) };
    let cells = || rows.iter().filter_map(Value::as_array).flatten();
    if cells().any(|cell| cell.is_array()) {
        return Err(format!("answer is a list of grids; {SEVERAL}"));
    }
    let word =
        |cell: &Value| cell.as_str().filter(|cell| cell.parse::<f64>().is_err()).map_or(0, |cell| cell.chars().count());
    let mut lengths = cells().map(word);
    let length = lengths.next().unwrap_or(0);
    let are_rows = length > 1 && lengths.all(|other| other == length) && rows.iter().all(Value::is_array);
    if are_rows && is_of_characters(question) {
        let cell = cells().next().unwrap_or(&Value::Null);
        return Err(format!(
            "answer has the cell {cell} beside a question of single characters; {SEVERAL}, even if it is one"
        ));
    }
    Ok(())
}

/// Whether every cell of a grid is a single character.
fn is_of_characters(grid: &Value) -> bool {
    let is_character = |cell: &Value| match cell {
        Value::String(text) => text.chars().count() == 1,
        other => other.to_string().chars().count() == 1,
    };
    match grid {
        Value::Array(rows) => rows.iter().all(|row| match row {
            Value::Array(cells) => cells.iter().all(is_character),
            Value::String(_) => true,
            cell => is_character(cell),
        }),
        grid => grid.is_string(),
    }
}

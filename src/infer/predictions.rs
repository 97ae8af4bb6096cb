//! A file of what a model answers: a line, or a row of an array, for each puzzle, in the order of the split.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::{Answered, StepScore};
use crate::dataset::{Dataset, Split};
use crate::files::npy;
use crate::puzzle::Board;

/// What a file of predictions is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictionFormat {
    /// One JSON object a line: question, answers as text, whether they are right, confidence.
    Jsonl,
    /// One array of bytes, `[puzzles, steps, tokens]`: the tokens of the answer after each supervision step; a puzzle that has
    /// halted keeps its answer.
    Npy,
}

impl PredictionFormat {
    /// The one that the ending of a file name asks for.
    pub fn of(file: &std::path::Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "jsonl" => Some(Self::Jsonl),
            "npy" => Some(Self::Npy),
            _ => None,
        }
    }
}

/// Writes predictions in the order of the puzzles, whatever the order in which they come.
pub struct Predictions<'a, W> {
    dataset: &'a Dataset,
    split: &'a Split,
    board: &'a dyn Board,
    rows: &'a [usize],
    steps: usize,
    format: PredictionFormat,
    queue: Mutex<Queue<W>>,
}

struct Queue<W> {
    file: W,
    /// The puzzle that is written next.
    next: usize,
    /// Those behind it that are there already.
    waiting: BTreeMap<usize, Vec<u8>>,
    fault: Option<io::Error>,
}

impl<'a, W: Write> Predictions<'a, W> {
    /// Begins the file of these rows of a split, each answered `steps` times at most.
    pub fn new(
        mut file: W,
        (dataset, board): (&'a Dataset, &'a dyn Board),
        (split, rows): (&'a Split, &'a [usize]),
        steps: usize,
        format: PredictionFormat,
    ) -> io::Result<Self> {
        if format == PredictionFormat::Npy {
            file.write_all(&npy::byte_header(&[rows.len(), steps, split.meta.seq_len]))?;
        }
        let queue = Mutex::new(Queue { file, next: 0, waiting: BTreeMap::new(), fault: None });
        Ok(Self { dataset, split, board, rows, steps, format, queue })
    }

    /// A puzzle has been answered; its answers after all steps are needed.
    pub fn add(&self, answered: &Answered<'_>) {
        let made = match self.format {
            PredictionFormat::Jsonl => self.line(answered).map_err(io::Error::other),
            PredictionFormat::Npy => Ok(self.tokens(answered)),
        };
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        match made {
            Ok(bytes) => _ = queue.waiting.insert(answered.at, bytes),
            Err(fault) => queue.fault = Some(fault),
        }
        let Queue { file, next, waiting, fault } = &mut *queue;
        while fault.is_none()
            && let Some(bytes) = waiting.remove(next)
        {
            *next += 1;
            *fault = file.write_all(&bytes).err();
        }
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The first that writing met.
    pub fn finish(self) -> io::Result<()> {
        let mut queue = self.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
        queue.fault.take().map_or_else(|| queue.file.flush(), Err)
    }

    fn line(&self, answered: &Answered<'_>) -> crate::Result<Vec<u8>> {
        let row = self.rows[answered.at];
        let mut object = Map::new();
        object.insert("row".into(), row.into());
        let identifier = self.split.puzzle_identifiers[self.split.puzzle_of(row)] as usize;
        if self.dataset.identifiers.len() > 1 {
            object.insert("identifier".into(), self.dataset.identifiers[identifier].clone().into());
        }
        let group = self.split.group_of(row);
        let columns = self.split.columns.names().filter_map(|name| Some((name, self.split.columns.get(name, group)?)));
        let columns: Map<String, Value> = columns.map(|(name, value)| (name.into(), value.into())).collect();
        if !columns.is_empty() {
            object.insert("columns".into(), columns.into());
        }
        object.insert("question".into(), self.board.text(&self.split.inputs.row(row)?).into());
        let texts = answered.answers.chunks(self.split.meta.seq_len).map(|tokens| self.board.text(tokens));
        let texts: Vec<String> = texts.collect();
        let said = |score: &StepScore, text: &str| {
            [
                ("answer", json!(text)),
                ("exact", json!(score.is_exact())),
                ("right_tokens", json!(score.correct)),
                ("labelled_tokens", json!(score.labelled)),
                ("confidence", json!(score.confidence())),
            ]
        };
        if let (Some(score), Some(text)) = (answered.steps.last(), texts.last()) {
            object.extend(said(score, text).map(|(key, value)| (key.into(), value)));
        }
        object.insert("steps".into(), answered.steps.len().into());
        let by_step = answered.steps.iter().zip(&texts).map(|(score, text)| {
            said(score, text).into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>()
        });
        object.insert("by_step".into(), by_step.map(Value::from).collect());
        let mut line = Value::from(object).to_string().into_bytes();
        line.push(b'\n');
        Ok(line)
    }

    fn tokens(&self, answered: &Answered<'_>) -> Vec<u8> {
        let mut tokens = answered.answers.to_vec();
        while tokens.len() < self.steps * self.split.meta.seq_len {
            tokens.extend_from_slice(answered.answer());
        }
        tokens
    }
}

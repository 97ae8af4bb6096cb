//! From one prediction per copy of a task to ranked answers (specification, "ARC vote"): undo, group, rank, score.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Grid, Task};

/// The k of pass@k.
pub const PASS_AT: [usize; 6] = [1, 2, 5, 10, 100, 1000];

/// Attempts a submission has room for.
const ATTEMPTS: usize = 2;

/// A different answer to a test input, and who is for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// The answer.
    pub grid: Grid,
    /// Copies that predicted it.
    pub votes: usize,
    /// Sum over them of σ(q_halt).
    confidence: f64,
}

impl Candidate {
    /// Mean σ(q_halt) of those that predicted it.
    pub fn confidence(&self) -> f64 {
        self.confidence / self.votes as f64
    }
}

/// The votes on all test inputs of some tasks.
pub struct Ballot<'a> {
    tasks: &'a [Task],
    places: HashMap<&'a str, usize>,
    /// For each task and test input, candidates in the order in which they came, and where each grid is among them.
    boxes: Vec<Vec<Votes>>,
}

#[derive(Clone, Default)]
struct Votes {
    candidates: Vec<Candidate>,
    places: HashMap<Grid, usize>,
}

impl<'a> Ballot<'a> {
    /// No votes yet on the test inputs of `tasks`.
    pub fn new(tasks: &'a [Task]) -> Self {
        let places = tasks.iter().enumerate().map(|(at, task)| (task.id.as_str(), at)).collect();
        Self { tasks, places, boxes: tasks.iter().map(|task| vec![Votes::default(); task.test.len()]).collect() }
    }

    /// One prediction, cropped and with its augmentation undone, as its own input is. It counts for the test inputs
    /// equal to that input; for none it is dropped, and the answer is false.
    pub fn cast(&mut self, task: &str, input: &Grid, prediction: Grid, confidence: f64) -> bool {
        let Some(&at) = self.places.get(task) else { return false };
        let mut counted = false;
        for (pair, ballot) in self.tasks[at].test.iter().zip(&mut self.boxes[at]) {
            if pair.input == *input {
                ballot.add(&prediction, confidence);
                counted = true;
            }
        }
        counted
    }

    /// The answers to one test input, best first: by votes, then by mean confidence, then first come.
    pub fn ranked(&self, task: usize, test: usize) -> Vec<&Candidate> {
        let mut ranked: Vec<&Candidate> = self.boxes[task][test].candidates.iter().collect();
        ranked.sort_by(|a, b| b.votes.cmp(&a.votes).then(b.confidence().total_cmp(&a.confidence())));
        ranked
    }

    /// The share of each task's test inputs whose answer is among the best k, averaged over tasks. Test inputs whose answer is
    /// not known have no part in it, and neither have tasks without any other.
    pub fn score(&self) -> Score {
        let mut sums = [0.0; PASS_AT.len()];
        let (mut answered, mut scored, mut unknown_inputs) = (0, 0, 0);
        for (at, task) in self.tasks.iter().enumerate() {
            answered += usize::from(self.boxes[at].iter().any(|ballot| !ballot.candidates.is_empty()));
            let known = task.test.iter().filter(|pair| pair.is_answered()).count();
            unknown_inputs += task.test.len() - known;
            if known == 0 {
                continue;
            }
            scored += 1;
            let mut right = [0usize; PASS_AT.len()];
            for (test, pair) in task.test.iter().enumerate().filter(|(_, pair)| pair.is_answered()) {
                let ranked = self.ranked(at, test);
                let place = ranked.iter().position(|candidate| candidate.grid == pair.output);
                for (right, k) in right.iter_mut().zip(PASS_AT) {
                    *right += usize::from(place.is_some_and(|place| place < k));
                }
            }
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum += right as f64 / known as f64;
            }
        }
        let (tasks, pass) = (self.tasks.len(), sums.map(|sum| sum / scored as f64));
        Score { tasks, answered, scored, unknown_inputs, pass }
    }

    /// What the ARC competition takes: two attempts for each test input that has an answer. An attempt without any cell
    /// is one cell of background there, as the competition takes no empty grid.
    pub fn submission(&self) -> Value {
        let attempts = |at: usize, test: usize| {
            let ranked = self.ranked(at, test);
            let first = ranked.first()?;
            let background = Grid::background();
            let grids = (0..ATTEMPTS).map(|i| &ranked.get(i).unwrap_or(first).grid);
            let grids = grids.map(|grid| if grid.is_empty() { &background } else { grid });
            let entry: Map<String, Value> =
                (1..).zip(grids).map(|(i, grid)| (format!("attempt_{i}"), json!(grid))).collect();
            Some(Value::Object(entry))
        };
        let of_task = |(at, task): (usize, &Task)| {
            let list = (0..task.test.len()).filter_map(|test| attempts(at, test)).collect();
            (task.id.clone(), Value::Array(list))
        };
        Value::Object(self.tasks.iter().enumerate().map(of_task).collect())
    }
}

impl Votes {
    fn add(&mut self, prediction: &Grid, confidence: f64) {
        let next = self.candidates.len();
        let at = *self.places.entry(prediction.clone()).or_insert(next);
        if at == next {
            self.candidates.push(Candidate { grid: prediction.clone(), votes: 0, confidence: 0.0 });
        }
        self.candidates[at].votes += 1;
        self.candidates[at].confidence += confidence;
    }
}

/// How good the ranked answers are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Tasks voted on.
    pub tasks: usize,
    /// Those with a prediction for at least one test input.
    pub answered: usize,
    /// Those with a test input whose answer is known: the n of pass@k.
    pub scored: usize,
    /// Test inputs whose answer is not known.
    pub unknown_inputs: usize,
    /// pass@k for the k of [`PASS_AT`]; NaN where no answer is known.
    #[serde(serialize_with = "by_name")]
    pub pass: [f64; PASS_AT.len()],
}

/// `{"pass@1": …, …}`
fn by_name<S: serde::Serializer>(pass: &[f64; PASS_AT.len()], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(PASS_AT.iter().zip(pass).map(|(k, share)| (format!("pass@{k}"), share)))
}

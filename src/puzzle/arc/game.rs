//! ARC as a kind of puzzle: its shapes, its generator and its settings, the names of its copies.

use super::generator::{LEAST_SIDE, generate};
use super::set::{GENERATED_PAIRS_PER_GROUP, Options, Stored, lay_out, shuffle};
use super::{ArcBoard, Augmentation, MAX_SIDE, VOCAB};
use crate::puzzle::{Board, Copies, Description, Game, Generated, Order, Setting};
use crate::{Error, Result};

/// The name of the puzzle.
pub const ARC: &str = "arc";

/// Tasks of the Abstraction and Reasoning Corpus.
#[derive(Clone, Copy, Debug)]
pub struct ArcGame;

impl Game for ArcGame {
    fn name(&self) -> &'static str {
        ARC
    }

    /// The published board: 30×30.
    fn has_shape(&self, seq_len: usize, vocab_size: usize) -> bool {
        seq_len == MAX_SIDE * MAX_SIDE && vocab_size == VOCAB
    }

    fn board(&self, description: &Description, vocab_size: usize) -> Result<Box<dyn Board>> {
        let Description { height, width, .. } = *description;
        if height != width || height > MAX_SIDE || vocab_size != VOCAB {
            return Err(Error::input(format!(
                "arc has square boards of at most {MAX_SIDE}×{MAX_SIDE} and {VOCAB} tokens, not {height}×{width} and \
                 {vocab_size}"
            )));
        }
        Ok(Box::new(ArcBoard { side: height }))
    }

    fn copies(&self) -> Copies {
        Copies::Named(|name| Augmentation::of_name(name).map(drop).map_err(Error::from))
    }

    fn settings(&self) -> &'static [Setting] {
        const {
            &[
                Setting::number(
                    "arc_side",
                    "Board of the generated ARC-like tasks: side of the square",
                    6,
                    (LEAST_SIDE as u64, MAX_SIDE as u64),
                ),
                Setting::number(
                    "arc_tasks",
                    "Generated ARC-like tasks; they share train_puzzles demonstrations and test_puzzles test pairs",
                    28,
                    (1, 100_000),
                ),
                Setting::number("arc_copies", "Augmented copies of each of them", 0, (0, 10_000)),
            ]
        }
    }

    fn generate(&self, order: &Order<'_>) -> Result<Generated> {
        let (train, test, seed) = (order.train, order.test, order.seed);
        let [tasks, side, aug] = ["arc_tasks", "arc_side", "arc_copies"].map(|key| order.settings.number(key));
        if train < tasks || test < tasks {
            return Err(Error::input(format!(
                "{tasks} tasks need a demonstration and a test pair each, not {train} and {test} in all; give more, or fewer \
                 tasks"
            )));
        }
        let mut tasks = generate(tasks, train / tasks, test / tasks, side, seed)?;
        shuffle(&mut tasks, 0, seed);
        let options =
            Options { aug, seed, side, stored: Stored::All, pairs_per_group: Some(GENERATED_PAIRS_PER_GROUP) };
        lay_out(tasks.into_iter().map(|task| (task, true)).collect(), options)
    }
}

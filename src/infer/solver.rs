//! A trained model that answers puzzles: load it once, ask it often.

use std::path::{Path, PathBuf};

use super::{Inference, InferenceOptions, StepAnswer};
use crate::checkpoint::RunPaths;
use crate::config::Config;
use crate::dataset::board_of;
use crate::device::{Cpu, Device};
use crate::engine::{Lanes, Weights};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::puzzle::{Board, Judge};

/// A model with its weights, and the settings it was made with.
pub struct StoredModel<D: Device = Cpu<f32>> {
    /// The settings.
    pub config: Config,
    /// The structure.
    pub model: Model,
    /// The weights.
    pub weights: Weights<D>,
}

impl<D: Device<T = f32>> StoredModel<D> {
    /// Loads a run folder, or a safetensors file together with a file of settings.
    ///
    /// # Errors
    /// When a file is missing or cannot be read, or the weights are another model's.
    pub fn load(run: &Path, config: Option<&Path>) -> Result<Self> {
        let (config, file) = Self::locate(run, config)?;
        let model = Model::new(&config.model, &config.task);
        Self::read(config, model, &file)
    }

    /// The settings and the file of weights of a run folder, or of a safetensors file together with a file of settings.
    ///
    /// # Errors
    /// When settings or weights are missing.
    pub fn locate(run: &Path, config: Option<&Path>) -> Result<(Config, PathBuf)> {
        let (config, file) = if run.is_dir() || config.is_none() {
            let paths = RunPaths::existing(run)?;
            let config = match config {
                Some(file) => Config::resolve(None, Some(file), &[])?,
                None => paths.read_config()?,
            };
            (config, paths.weights())
        } else {
            (Config::resolve(None, config, &[])?, run.to_path_buf())
        };
        if !file.exists() {
            return Err(Error::input(format!(
                "{}: no weights yet; they are written with the first checkpoint",
                file.display()
            )));
        }
        Ok((config, file))
    }

    /// Reads the weights of a model.
    ///
    /// # Errors
    /// When the file cannot be read, or holds another model.
    pub fn read(config: Config, model: Model, weights: &Path) -> Result<Self> {
        let file = weights;
        let mut weights = Weights::zeros(&model, &config);
        weights.load(file)?;
        Ok(Self { config, model, weights })
    }
}

/// A trained model, the board it knows, and threads to work on.
///
/// ```no_run
/// let solver = trm::Solver::load("runs/sudoku-6x6")?;
/// let solution = solver.solve(".61.4. .2.... ..2.5. 51..3. ....6. ...4..")?;
/// println!("{} (confidence {:.2})", solution.text, solution.confidence);
/// # Ok::<(), trm::Error>(())
/// ```
pub struct Solver {
    stored: StoredModel,
    board: Box<dyn Board>,
    lanes: Lanes,
    options: InferenceOptions,
}

/// A model's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// The answer, as the puzzle's board writes it.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u8>,
    /// σ(q_halt) of the last step: how sure the model is that the answer is right.
    pub confidence: f64,
    /// Supervision steps taken.
    pub steps: usize,
    /// Whether the answer solves the puzzle by its rules; `None` where the rules are not known.
    pub is_valid: Option<bool>,
}

impl Solver {
    /// Loads the run folder that `trm train` wrote; all cores of this process work.
    ///
    /// # Errors
    /// As [`StoredModel::load`].
    pub fn load(run: impl AsRef<Path>) -> Result<Self> {
        Self::new(StoredModel::load(run.as_ref(), None)?, Lanes::default_threads())
    }

    /// Of a model that is at hand, on so many threads.
    ///
    /// # Errors
    /// When the settings describe no puzzle, or the system refuses to start the threads.
    pub fn new(stored: StoredModel, threads: usize) -> Result<Self> {
        let (board, lanes) = (board_of(&stored.config.task)?, Lanes::new(threads)?);
        let options = InferenceOptions { steps: stored.config.train.halt_max_steps, halt: None };
        Ok(Self { stored, board, lanes, options })
    }

    /// How many supervision steps it may take, and whether it may stop before.
    pub fn options_mut(&mut self) -> &mut InferenceOptions {
        &mut self.options
    }

    /// The puzzle it knows.
    pub fn board(&self) -> &dyn Board {
        &*self.board
    }

    /// Solves a puzzle as somebody would type it.
    ///
    /// # Errors
    /// When the text is no question of this puzzle.
    pub fn solve(&self, puzzle: &str) -> Result<Solution> {
        self.solve_tokens(&self.board.parse(puzzle)?, 0)
    }

    /// Solves a row of tokens; the identifier is the puzzle table's (0: none).
    ///
    /// # Errors
    /// When the row has another length, or a token is none of the model's.
    pub fn solve_tokens(&self, question: &[u8], identifier: u32) -> Result<Solution> {
        let StoredModel { config, model, weights } = &self.stored;
        let (seq_len, vocab) = (config.task.seq_len, config.task.vocab_size);
        if question.len() != seq_len || question.iter().any(|&token| usize::from(token) >= vocab) {
            return Err(Error::input(format!("a question is {seq_len} tokens below {vocab}")));
        }
        if identifier as usize >= config.task.num_puzzle_identifiers {
            let identifiers = config.task.num_puzzle_identifiers;
            return Err(Error::input(format!("puzzle identifier {identifier}: the model knows {identifiers}")));
        }
        let inference = Inference { lanes: &self.lanes, model, weights, options: self.options };
        let steps = inference.answers(question, identifier);
        let count = steps.len();
        let Some(StepAnswer { tokens, confidence }) = steps.into_iter().next_back() else {
            return Err(Error::input("a solver has to take one supervision step at least"));
        };
        let is_valid = matches!(self.board.judge(), Judge::Rules { .. }).then(|| self.board.solves(question, &tokens));
        Ok(Solution { text: self.board.text(&tokens), tokens, confidence, steps: count, is_valid })
    }
}

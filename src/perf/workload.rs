//! A training step to time: random tokens, no data set, slots that never halt early.

use super::{Profile, Trajectory};
use crate::config::Config;
use crate::dataset::Examples;
use crate::device::{Cpu, Real as _};
use crate::engine::{Engine, Lanes, TrainingDevice, Weights};
use crate::error::Result;
use crate::model::{Model, forward_flops, int8_share, update_flops};
use crate::rng::Rng;
use crate::train::Trainer;

/// Examples of random tokens, which depend on the batch and the slot alone.
pub struct RandomTokens {
    batch: u64,
    vocab: usize,
    identifiers: usize,
}

impl RandomTokens {
    /// Tokens below `vocab`, puzzle identifiers below `identifiers`.
    pub fn new(vocab: usize, identifiers: usize) -> Self {
        Self { batch: 0, vocab, identifiers }
    }
}

impl Examples for RandomTokens {
    fn next_batch(&mut self) {
        self.batch += 1;
    }

    fn write(&mut self, slot: usize, inputs: &mut [u8], labels: &mut [i32]) -> Result<u32> {
        let mut rng = Rng::stream(self.batch, slot as u64);
        for (input, label) in inputs.iter_mut().zip(labels) {
            *input = rng.below(self.vocab) as u8;
            *label = rng.below(self.vocab) as i32;
        }
        Ok(rng.below(self.identifiers) as u32)
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A whole update: forward, backward, optimizer, packing.
    Train,
    /// One supervision step of a batch without gradient.
    Forward,
}

/// A step that can be repeated.
pub struct Workload<'a, D: TrainingDevice + 'a = Cpu<f32>> {
    trainer: Trainer<D::Engine<'a>>,
    examples: RandomTokens,
    /// Model FLOPs of the last update.
    last_update: Option<f64>,
}

impl<'a, D: TrainingDevice> Workload<'a, D> {
    /// A fresh model of `config` and a batch of random puzzles.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub fn new(lanes: &'a Lanes<D>, config: Config) -> Result<Self> {
        let model = Model::new(&config.model, &config.task);
        let weights = Weights::new(&model, &config);
        let examples = RandomTokens::new(config.task.vocab_size, config.task.num_puzzle_identifiers);
        Ok(Self { trainer: Trainer::on(lanes, config, weights, u64::MAX)?, examples, last_update: None })
    }

    /// Supervision steps that a sequence may live.
    pub fn steps(&self) -> u32 {
        self.trainer.config.train.halt_max_steps
    }

    /// Model FLOPs of one repetition; of the last one, where the number of calls is not fixed.
    pub fn model_flops(&self, work: Work) -> f64 {
        let train = &self.trainer.config.train;
        match work {
            Work::Train => self.last_update.unwrap_or_else(|| update_flops(&self.trainer.model, train)),
            Work::Forward => train.batch_size as f64 * forward_flops(&self.trainer.model),
        }
    }

    /// The share of its products that has operands of eight bits.
    pub fn int8_share(&self, work: Work) -> f64 {
        int8_share(&self.trainer.model, &self.trainer.config.train, work == Work::Train)
    }

    /// Profiles so many updates.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn profile(&mut self, updates: u64) -> Result<Profile> {
        let Self { trainer, examples, .. } = self;
        Profile::record(trainer, updates, |trainer| trainer.step(examples).map(|_| ()))
    }

    /// Does so many updates, and says what they came to.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn trajectory(&mut self, updates: usize) -> Result<Trajectory> {
        let mut course = Trajectory { start: self.dense(), ..Trajectory::default() };
        for _ in 0..updates {
            let report = self.trainer.step(&mut self.examples)?;
            course.losses.push(report.loss);
            course.grad_norms.push(report.grad_norm);
        }
        course.weights = self.dense();
        Ok(course)
    }

    /// The dense weights as they are now.
    fn dense(&self) -> Vec<f64> {
        self.trainer.engine.dense(false).iter().map(|weight| weight.to_f64()).collect()
    }

    /// What its engine says of itself; see [`Engine::describe`].
    pub fn describe(&self) -> Option<String> {
        self.trainer.engine.describe()
    }

    /// The model that is timed.
    pub fn model(&self) -> &Model {
        &self.trainer.model
    }

    /// Does the work once.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn run(&mut self, work: Work) -> Result<()> {
        match work {
            Work::Train => self.last_update = Some(self.trainer.step(&mut self.examples)?.model_flops),
            Work::Forward => self.trainer.engine.infer(&self.trainer.model),
        }
        Ok(())
    }
}

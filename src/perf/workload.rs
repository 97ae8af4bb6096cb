//! A training step to time: random tokens, no data set, slots that never halt early.

use rayon::prelude::*;

use super::Profile;
use crate::config::Config;
use crate::dataset::Examples;
use crate::engine::{Group, Lanes, Weights, shard};
use crate::error::Result;
use crate::model::{Model, forward_flops, update_flops};
use crate::rng::Rng;
use crate::train::Trainer;

/// Examples of random tokens.
pub struct RandomTokens {
    rng: Rng,
    vocab: usize,
    identifiers: usize,
}

impl RandomTokens {
    /// Tokens below `vocab`, puzzle identifiers below `identifiers`.
    pub fn new(vocab: usize, identifiers: usize) -> Self {
        Self { rng: Rng::new(0), vocab, identifiers }
    }
}

impl Examples for RandomTokens {
    fn next_batch(&mut self) {}

    fn write(&mut self, _slot: usize, inputs: &mut [u8], labels: &mut [i32]) -> Result<u32> {
        for (input, label) in inputs.iter_mut().zip(labels) {
            *input = self.rng.below(self.vocab) as u8;
            *label = self.rng.below(self.vocab) as i32;
        }
        Ok(self.rng.below(self.identifiers) as u32)
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
pub struct Workload {
    trainer: Trainer,
    examples: RandomTokens,
    /// Model FLOPs of the last update.
    last_update: Option<f64>,
}

impl Workload {
    /// A fresh model of `config` and a batch of random puzzles.
    pub fn new(config: Config) -> Self {
        let model = Model::new(&config.model, &config.task);
        let weights = Weights::new(&model, &config);
        let examples = RandomTokens::new(config.task.vocab_size, config.task.num_puzzle_identifiers);
        Self { trainer: Trainer::new(config, weights, u64::MAX), examples, last_update: None }
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

    /// Profiles so many updates.
    pub fn profile(&mut self, lanes: &Lanes, updates: u64) -> Result<Profile> {
        let Self { trainer, examples, .. } = self;
        Profile::record(lanes, trainer, updates, |trainer| trainer.step(lanes, examples).map(|_| ()))
    }

    /// The model that is timed.
    pub fn model(&self) -> &Model {
        &self.trainer.model
    }

    /// Does the work once.
    pub fn run(&mut self, lanes: &Lanes, work: Work) -> Result<()> {
        match work {
            Work::Train => {
                self.last_update = Some(self.trainer.step(lanes, &mut self.examples)?.model_flops);
                Ok(())
            }
            Work::Forward => {
                let (model, weights) = (&self.trainer.model, &self.trainer.weights);
                let groups = &mut self.trainer.groups;
                let shard = shard(model.len);
                lanes.install(|| match &mut groups[..] {
                    [one] if one.slots() <= shard => {
                        lanes.alone(|lane| lane.infer(model, weights, one, 0..one.slots()));
                    }
                    many => many.par_iter_mut().for_each(|group| infer_group(lanes, model, weights, group, shard)),
                });
                Ok(())
            }
        }
    }
}

fn infer_group(lanes: &Lanes, model: &Model, weights: &Weights, group: &mut Group, shard: usize) {
    for first in (0..group.slots()).step_by(shard) {
        let slots = first..group.slots().min(first + shard);
        lanes.with_lane(|lane| lane.infer(model, weights, group, slots));
    }
}

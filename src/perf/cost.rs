//! What an experiment costs, before it is started: weights, arithmetic, memory.

use serde::Serialize;

use super::Footprint;
use crate::config::Config;
use crate::model::{Model, update_flops};

/// The size of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunCost {
    /// Dense weights.
    pub parameters: usize,
    /// Elements of the puzzle table.
    pub table_parameters: usize,
    /// Updates of the whole run.
    pub updates: u64,
    /// Model FLOPs of an update; with a fixed point, at most.
    pub flops_per_update: f64,
    /// Model FLOPs of the whole run.
    pub run_flops: f64,
    /// Estimated memory.
    pub memory: Footprint,
}

impl RunCost {
    /// Of a complete experiment on so many threads. Without `max_steps`, the updates are those of `train_puzzles` examples
    /// an epoch.
    pub fn new(config: &Config, threads: usize) -> Self {
        let model = Model::new(&config.model, &config.task);
        let train = &config.train;
        let updates = match train.max_steps {
            0 => (train.epochs as f64 * config.data.train_puzzles as f64 / train.batch_size as f64) as u64,
            steps => steps,
        };
        let flops_per_update = update_flops(&model, train);
        Self {
            parameters: model.layout.n_weights(),
            table_parameters: config.task.num_puzzle_identifiers * config.model.puzzle_emb_ndim,
            updates,
            flops_per_update,
            run_flops: updates as f64 * flops_per_update,
            memory: Footprint::of_training(&model, config, updates, threads),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(sets: &[&str]) -> RunCost {
        let sets: Vec<String> = sets.iter().map(|&s| s.to_owned()).collect();
        RunCost::new(&Config::resolve(Some("sudoku-extreme"), None, &sets).expect("settings"), 2)
    }

    #[test]
    fn the_published_run_is_counted_as_published() {
        let published = cost(&[]);
        assert_eq!(published.updates, 65_104);
        assert!((5.0e6..5.1e6).contains(&(published.parameters as f64)), "{}", published.parameters);
        // 440 MFLOP for each token and step; 2.2e18 for the run.
        assert!((published.flops_per_update / 768.0 / 97.0 / 440e6 - 1.0).abs() < 0.02);
        assert!((2.0e18..2.4e18).contains(&published.run_flops), "{:e}", published.run_flops);
    }
}

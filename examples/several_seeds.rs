//! Trains one experiment with several seeds, side by side on cores of their own, and says how far their accuracies lie apart.
//!
//! `cargo run --release --example several_seeds -- 4 300` trains four seeds for 300 updates each. A third number is the threads of
//! each run (without it, the cores in equal shares); with all cores, the runs follow each other.

use std::time::Instant;

use trm::dataset::TaskData;
use trm::engine::Lanes;
use trm::infer::{Identifiers, Inference, InferenceOptions};
use trm::perf::{Footprint, SideBySide};
use trm::{Config, Model, Trainer};

fn main() -> trm::Result<()> {
    let given: Vec<usize> = std::env::args().skip(1).filter_map(|number| number.parse().ok()).collect();
    let number = |i: usize, otherwise: usize| given.get(i).copied().unwrap_or(otherwise);
    let (seeds, updates, threads) = (number(0, 3), number(1, 20), number(2, 0));
    let settings = ["train_puzzles=500".into(), "test_puzzles=200".into(), format!("max_steps={updates}")];
    let mut config = Config::resolve(Some("sudoku-4x4"), None, &settings)?;
    let data = TaskData::load(&config.data)?;
    config.task = data.task().clone();

    let model = Model::new(&config.model, &config.task);
    let needed = |threads: usize| Footprint::of_training(&model, &config, updates as u64, threads);
    let side_by_side = SideBySide::plan(seeds, threads, needed)?;
    println!("{seeds} runs, {} at a time, {} threads each", side_by_side.places(), side_by_side.threads());

    let started = Instant::now();
    let accuracies = side_by_side.run(seeds, |seed, lanes| train(seed as u64, lanes, &config, &data))?;
    let seconds = started.elapsed().as_secs_f64();

    let n = accuracies.len() as f64;
    let mean = accuracies.iter().sum::<f64>() / n;
    let variance = accuracies.iter().map(|accuracy| (accuracy - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let (least, most) = accuracies.iter().fold((1.0f64, 0.0f64), |(low, high), &a| (low.min(a), high.max(a)));
    println!(
        "exact accuracy {:.1} % ± {:.1} (standard deviation), {:.1} to {:.1}; {:.1} updates a second in all",
        100.0 * mean,
        100.0 * variance.sqrt(),
        100.0 * least,
        100.0 * most,
        (seeds * updates) as f64 / seconds
    );
    Ok(())
}

/// A run from its first update to its last, and the share of unseen puzzles that it solves.
fn train(seed: u64, lanes: &Lanes, config: &Config, data: &TaskData) -> trm::Result<f64> {
    let mut config = config.clone();
    config.train.seed = seed;
    let mut trainer = Trainer::for_data(lanes, config, data)?;
    let mut batches = data.batches(&trainer.config, None)?;
    while trainer.step_count() < trainer.total_steps() {
        trainer.step(&mut batches)?;
    }
    let weights = trainer.evaluation_weights();
    let options = InferenceOptions { steps: trainer.config.train.halt_max_steps, halt: None };
    let inference = Inference { lanes, model: &trainer.model, weights: &weights, options };
    let accuracy = data.evaluate(&inference, "test", 0, Identifiers::Keep, None, || false)?;
    let accuracy = accuracy.expect("nothing stops it").exact_accuracy;
    println!("seed {seed}: {:.1} %", 100.0 * accuracy);
    Ok(accuracy)
}

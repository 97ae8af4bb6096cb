//! Trains a small model on 4×4 Sudokus that are generated in memory, evaluates it, and lets it solve one.
//!
//! `cargo run --release --example train_sudoku -- 400` trains for 400 updates, some seconds; without a number, for 20.

use trm::dataset::TaskData;
use trm::engine::Lanes;
use trm::infer::{Identifiers, Inference, InferenceOptions, Solver, StoredModel};
use trm::{Config, Trainer};

fn main() -> trm::Result<()> {
    let updates = std::env::args().nth(1).unwrap_or_else(|| "20".into());
    let settings = ["train_puzzles=500".into(), "test_puzzles=100".into(), format!("max_steps={updates}")];
    let config = Config::resolve(Some("sudoku-4x4"), None, &settings)?;
    let (data, lanes) = (TaskData::load(&config.data)?, Lanes::new(Lanes::default_threads())?);

    let mut trainer = Trainer::for_data(&lanes, config, &data)?;
    let mut batches = data.batches(&trainer.config, None)?;
    while trainer.step_count() < trainer.total_steps() {
        let report = trainer.step(&mut batches)?;
        if report.step.is_multiple_of(20) {
            println!("update {:5}: loss {:.3}", report.step, report.loss / trainer.config.train.batch_size as f64);
        }
    }

    let weights = trainer.evaluation_weights();
    let options = InferenceOptions { steps: trainer.config.train.halt_max_steps, halt: None };
    let inference = Inference { lanes: &lanes, model: &trainer.model, weights: &weights, options };
    let accuracy = data.evaluate(&inference, "test", 0, Identifiers::Keep, None, || false)?;
    println!("exact accuracy {:.1} %", 100.0 * accuracy.expect("nothing stops it").exact_accuracy);

    let (config, model) = (trainer.config.clone(), trainer.model.clone());
    let solver = Solver::new(StoredModel { config, model, weights }, 1)?;
    let solution = solver.solve("1... ..2. .3.. ...4")?;
    println!("{}\nconfidence {:.2}, valid: {:?}", solution.text, solution.confidence, solution.is_valid);
    Ok(())
}

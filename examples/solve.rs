//! Asks a trained model: `cargo run --release --example solve -- runs/sudoku-6x6 '5..3.. ...1.. .3.... 4..... ..5... ...2.1'`.
//!
//! Without arguments it first trains a very small model into a temporary folder, so that there is one to ask.

use trm::checkpoint::RunFolder;
use trm::dataset::TaskData;
use trm::engine::Lanes;
use trm::train::{Requests, Run};
use trm::{Config, Solver};

fn main() -> trm::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (run, puzzle) = match &arguments[..] {
        [run, puzzle] => (run.into(), puzzle.clone()),
        _ => (trained()?, "1... ..2. .3.. ...4".to_owned()),
    };
    let solution = Solver::load(&run)?.solve(&puzzle)?;
    println!("{}", solution.text);
    println!("confidence {:.2} after {} supervision steps", solution.confidence, solution.steps);
    match solution.is_valid {
        Some(true) => println!("a valid solution"),
        Some(false) => println!("not a solution"),
        None => {}
    }
    Ok(())
}

/// A run of a few updates.
fn trained() -> trm::Result<std::path::PathBuf> {
    let folder = std::env::temp_dir().join(format!("trm-example-{}", std::process::id()));
    let settings = ["train_puzzles=100", "test_puzzles=10", "max_steps=20"].map(String::from);
    let mut config = Config::resolve(Some("sudoku-4x4"), None, &settings)?;
    let (data, lanes) = (TaskData::load(&config.data)?, Lanes::new(2)?);
    config.task = data.task().clone();
    let run_folder = RunFolder::create(&folder)?;
    run_folder.write_config(&config)?;
    Run::new(&run_folder, config, &data, &lanes, false)?.train(&Requests::new())?;
    Ok(folder)
}

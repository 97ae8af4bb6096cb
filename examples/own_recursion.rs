//! A recursion of one's own: states, networks and calls are a file. This one has a slow memory beside y and z.

use trm::dataset::TaskData;
use trm::engine::Lanes;
use trm::{Config, Trainer};

const EXPERIMENT: &str = r#"
preset = "sudoku-4x4"

[model]
h_cycles = 2
l_cycles = 3
n_layers = 1

[train]
max_steps = 20

[data]
train_puzzles = 200
test_puzzles = 10

[model.recursion]
name = "slow-memory"
states = ["y", "z", "m"]
networks = ["f", { name = "g", layers = 1 }]
answer = "y"
steps = [
    { repeat = "h_cycles", steps = [
        { repeat = "l_cycles", steps = ["z = f(z + y + m + x)"] },
        "m = g(m + z)",
        "y = f(y + z + m)",
    ] },
]
"#;

fn main() -> trm::Result<()> {
    let file = std::env::temp_dir().join(format!("own-recursion-{}.toml", std::process::id()));
    std::fs::write(&file, EXPERIMENT).map_err(|e| trm::Error::io(&file, e))?;
    let config = Config::resolve(None, Some(&file), &[])?;
    let (data, lanes) = (TaskData::load(&config.data)?, Lanes::new(2)?);
    let mut trainer = Trainer::for_data(&lanes, config, &data)?;
    for call in &trainer.model.schedule.calls {
        let state = |id: trm::model::StateId| trainer.model.schedule.states[id.index()].as_str();
        let inputs = call.inputs.iter().map(|input| match input {
            trm::model::Source::State(id) => state(*id),
            trm::model::Source::Question => "x",
        });
        let inputs: Vec<&str> = inputs.collect();
        let net = &trainer.model.schedule.nets[call.net].name;
        let how = if call.recorded { "recorded" } else { "detached" };
        println!("{} ← {net}({})   {how}", state(call.target), inputs.join(" + "));
    }
    let mut batches = data.batches(&trainer.config, None)?;
    while trainer.step_count() < trainer.total_steps() {
        let report = trainer.step(&mut batches)?;
        println!("update {:3}: loss {:.3}", report.step, report.loss / trainer.config.train.batch_size as f64);
    }
    Ok(())
}

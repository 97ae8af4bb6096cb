//! What the integration tests share: a tiny experiment, and the binary to run it with.

pub mod golden;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use trm::config::{Config, Mixing, Positions, PrecisionSetting};
use trm::dataset::Examples;
use trm::rng::Rng;

/// Settings over `sudoku-4x4` whose updates take about a millisecond.
pub const TINY: [&str; 8] = [
    "hidden_size=32",
    "inner_multiple=32",
    "h_cycles=1",
    "l_cycles=2",
    "train_puzzles=60",
    "test_puzzles=20",
    "batch_size=8",
    "halt_max_steps=4",
];

/// The arguments for [`TINY`] with `more` settings on top.
pub fn tiny(more: &[&str]) -> Vec<String> {
    let mut args = vec!["--preset".to_owned(), "sudoku-4x4".to_owned()];
    for set in TINY.iter().chain(more) {
        args.extend(["--set".to_owned(), (*set).to_owned()]);
    }
    args
}

/// The binary.
pub fn trm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trm"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `trm train` of the tiny experiment into `out`.
pub fn train(out: &Path, more: &[&str]) -> Command {
    let mut command = trm();
    command.arg("train").args(tiny(more)).args(["--threads", "2", "--out"]).arg(out);
    command
}

/// `trm train --resume` of the run in `out`.
pub fn resume(out: &Path) -> Command {
    let mut command = trm();
    command.args(["train", "--resume", "--threads", "2", "--out"]).arg(out);
    command
}

/// What a process said on standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a process said on standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that must succeed.
pub fn succeed(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, stderr(&output));
    output
}

/// Runs a command that must end with `code`, and returns its standard error.
pub fn fail(mut command: Command, code: i32) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {}", stderr(&output));
    stderr(&output)
}

/// A small model with everything on that a training step may have.
pub fn config(mixing: Mixing, batch_size: usize) -> Config {
    let mut config = Config::preset("sudoku-4x4").unwrap();
    let m = &mut config.model;
    (m.hidden_size, m.inner_multiple, m.h_cycles, m.l_cycles, m.mixing) = (32, 32, 2, 2, mixing);
    m.positions = if mixing == Mixing::Attention { Positions::Rope } else { Positions::None };
    (m.learned_prefix, m.puzzle_emb_ndim, m.puzzle_emb_len) = (0, 48, 3);
    config.task.num_puzzle_identifiers = 5;
    let t = &mut config.train;
    (t.batch_size, t.continue_loss, t.halt_max_steps, t.halt_exploration_prob) = (batch_size, true, 4, 0.5);
    (t.lr_warmup_steps, t.grad_clip, t.precision) = (2, 1.0, PrecisionSetting::F32);
    config.validate().unwrap();
    config
}

/// Random examples that depend on the batch and the slot alone.
pub struct RandomExamples {
    pub batch: u64,
    pub vocab: usize,
    pub identifiers: usize,
}

impl RandomExamples {
    pub fn new(config: &Config) -> Self {
        Self { batch: 0, vocab: config.task.vocab_size, identifiers: config.task.num_puzzle_identifiers }
    }
}

impl Examples for RandomExamples {
    fn next_batch(&mut self) {
        self.batch += 1;
    }

    fn write(&mut self, slot: usize, inputs: &mut [u8], labels: &mut [i32]) -> trm::Result<u32> {
        let mut rng = Rng::stream(self.batch, slot as u64);
        inputs.fill_with(|| rng.below(self.vocab) as u8);
        labels.fill_with(|| if rng.uniform() < 0.1 { -100 } else { rng.below(self.vocab) as i32 });
        Ok(rng.below(self.identifiers) as u32)
    }
}

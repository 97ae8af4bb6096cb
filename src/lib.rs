//! **trm** is a CPU-first research engine for tiny recursive reasoning models
//! ([TRM](https://arxiv.org/abs/2510.04871) and its relatives): networks of a few million weights that are applied to
//! their own answer again and again until it is right. Everything from the puzzles to the SIMD kernels is here and
//! made to be read; every run can be repeated bit for bit.
//!
//! The `trm` command does all of this from a terminal. As a library, a few updates on freshly generated 4×4 Sudokus:
//!
//! ```
//! use trm::{config::Config, dataset::TaskData, engine::{Lanes, Weights}, model::Model, train::Trainer};
//!
//! let settings = ["train_puzzles=64", "test_puzzles=8", "max_steps=5"].map(String::from);
//! let config = Config::resolve(Some("sudoku-4x4"), None, &settings)?;
//! let (data, lanes) = (TaskData::load(&config.data)?, Lanes::new(2)?);
//! let model = Model::new(&config.model, &config.task);
//! let mut batches = data.batches(&config, None)?;
//! let mut trainer = Trainer::new(config.clone(), Weights::new(&model, &config), data.total_steps(&config)?);
//! while trainer.step_count() < trainer.total_steps() {
//!     let report = trainer.step(&lanes, &mut batches)?;
//!     println!("update {}: loss {:.3}", report.step, report.loss / config.train.batch_size as f64);
//!     # assert!(report.loss.is_finite());
//! }
//! # Ok::<(), trm::Error>(())
//! ```
//!
//! # The rooms
//!
//! In the order data walks through them; a room knows only those it is made of, never the ones that use it.
//! `ARCHITECTURE.md` has the map and the reasons.
//!
//! | room | what it is for | begin with |
//! |---|---|---|
//! | [`puzzle`] | rules, solvers, generators and symmetries; no word about models | [`puzzle::sudoku`] |
//! | [`config`] | one experiment = one [`Config`](config::Config): presets, files of differences, `--set` | [`config::Config::resolve`] |
//! | [`dataset`] | the published layout on disk, import, audit, the way to a batch | [`dataset::Dataset`] |
//! | [`simd`] | CPU kernels, written once, compiled for each instruction set | [`simd::PackedWeight`] |
//! | [`tape`] | reverse-mode differentiation: a dozen fat operations over one arena | [`tape::Tape`], [`tape::ops`] |
//! | [`model`] | embedding, blocks, heads, and the recursion as data | [`model::Schedule`] |
//! | [`train`] | lanes, halting, the order of summation, optimizers, the run | [`train::Lane`], [`train::Trainer`] |
//! | [`checkpoint`] | what outlives a process: weights, states, the run folder | [`checkpoint::RunFolder`] |
//! | [`report`] | what a run tells: log, progress, tables, pictures | [`report::MetricsLog`] |
//! | [`cli`] | one file per command | [`cli::main`] |
//!
//! Three small things everybody may use: [`error`] (one line: what, where, what to do), [`files`] (whole files or none) and
//! [`rng`] (random draws that no dependency can change).

pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod dataset;
pub mod device;
pub mod engine;
pub mod error;
pub mod files;
pub mod infer;
pub mod model;
pub mod perf;
pub mod puzzle;
pub mod report;
pub mod rng;
pub mod simd;
pub mod tape;
pub mod train;

pub use error::{Error, Result};

//! **trm** is a CPU-first research engine for tiny recursive reasoning models
//! ([TRM](https://arxiv.org/abs/2510.04871) and its relatives): networks of a few million weights that are applied to
//! their own answer again and again until it is right. Everything from the puzzles to the SIMD kernels is here and
//! made to be read; every run can be repeated bit for bit.
//!
//! The `trm` command does all of this from a terminal. As a library, a few updates on freshly generated 4×4 Sudokus:
//!
//! ```
//! use trm::dataset::TaskData;
//! use trm::engine::Lanes;
//! use trm::{Config, Trainer};
//!
//! let settings = ["train_puzzles=64", "test_puzzles=8", "max_steps=5"].map(String::from);
//! let config = Config::resolve(Some("sudoku-4x4"), None, &settings)?;
//! let (data, lanes) = (TaskData::load(&config.data)?, Lanes::new(2)?);
//! let mut trainer = Trainer::for_data(&lanes, config, &data)?;
//! let mut batches = data.batches(&trainer.config, None)?;
//! while trainer.step_count() < trainer.total_steps() {
//!     let report = trainer.step(&mut batches)?;
//!     println!("update {}: loss {:.3}", report.step, report.loss / trainer.config.train.batch_size as f64);
//!     # assert!(report.loss.is_finite());
//! }
//! # Ok::<(), trm::Error>(())
//! ```
//!
//! | to | begin with |
//! |---|---|
//! | train on rows of your own | [`Dataset::from_rows`], [`dataset::TaskData::new`] |
//! | ask a trained model | [`Solver::load`] |
//! | try another recursion | a file of states, networks and calls: [`config::recursion`] |
//! | add an operation, with its gradient check | [`tape::ops::custom`], [`tape::gradcheck::Sample`] |
//! | add an optimizer | [`engine::Optimizer`], [`engine::LaneEngine::with_optimizer`] |
//! | add a puzzle with rules and generator | [`puzzle::register`] |
//! | follow a run | [`report::Sink`] |
//!
//! The folder `examples/` has a page for each. Without the default feature `cli` there is neither command line nor plot nor
//! progress bar, and few dependencies.
//!
//! # The rooms
//!
//! From the ground up; a room knows only those below it, never the ones that use it. `ARCHITECTURE.md` has the map and the
//! reasons.
//!
//! | room | what it is for | begin with |
//! |---|---|---|
//! | [`error`] | one line: what, where, what to do | [`Error`] |
//! | [`rng`] | random draws that no dependency can change | [`rng::Rng`] |
//! | [`files`] | whole files or none | [`files::atomic`] |
//! | [`puzzle`] | rules, solvers, generators and symmetries; no word about models | [`puzzle::Game`], [`puzzle::sudoku`] |
//! | [`config`] | one experiment = one [`Config`]: presets, files of differences, `--set`; recursions | [`config::Config::resolve`], [`config::recursion`] |
//! | [`dataset`] | the published layout on disk, import, audit, the way to a batch | [`dataset::Dataset`] |
//! | [`simd`] | CPU kernels, written once, compiled for each instruction set | [`simd::gemm`], [`simd::PackedWeight`] |
//! | `cuda` | calls into the CUDA kernels of the folder `kernels`, made safe; there with the feature `cuda` or `cuda-twin` | `cuda::Queue` |
//! | [`device`] | what can be computed, on handles; the CPU, and the plain reference that it is tested against | [`device::Device`] |
//! | [`tape`] | reverse-mode differentiation: a few fat operations on a device | [`tape::Tape`], [`tape::ops`] |
//! | [`model`] | embedding, blocks, heads, and the recursion as data | [`model::Schedule`] |
//! | [`checkpoint`] | what outlives a process: weights, states, the run folder | [`checkpoint::RunFolder`] |
//! | [`report`] | what a run measures: records, sinks, tables, pictures | [`report::Sink`] |
//! | [`engine`] | lanes, gradient groups and the order of summation, optimizers, ranks | [`engine::Engine`], [`engine::Lane`] |
//! | [`infer`] | answers of a trained model, and how good they are | [`infer::Inference`] |
//! | [`train`] | an update: slots, halting; a run from its first update to its last | [`train::Trainer`], [`train::Run`] |
//! | [`perf`] | what a run costs, what a step takes and why, what larger machines would give | [`perf::Profile`] |
//! | [`cli`] | one file per command | [`cli::main`] |

#![warn(missing_docs)]

pub mod checkpoint;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
#[cfg(cuda)]
pub mod cuda;
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
pub mod tape;
pub mod train;

pub use config::Config;
pub use dataset::Dataset;
pub use error::{Error, Result};
pub use infer::Solver;
pub use model::Model;
pub use train::Trainer;
pub use trm_simd as simd;

//! trm: a CPU-first research engine for tiny recursive reasoning models.

pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod dataset;
pub mod error;
pub mod model;
pub mod puzzle;
pub mod report;
pub mod rng;
pub mod simd;
pub mod tape;
pub mod train;

pub use error::{Error, Result};

//! trm: a CPU-first research engine for tiny recursive reasoning models.

pub mod config;
pub mod dataset;
pub mod error;
pub mod puzzle;
pub mod rng;

pub use error::{Error, Result};

//! trm: a CPU-first research engine for tiny recursive reasoning models.

pub mod checkpoint;
pub mod config;
pub mod error;
pub mod report;
pub mod rng;

pub use error::{Error, Result};

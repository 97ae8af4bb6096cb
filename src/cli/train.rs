//! `trm train`.

use crate::error::Result;

/// train
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<()> {
    Ok(())
}

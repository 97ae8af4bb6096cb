//! `trm presets`.

use crate::error::Result;

/// presets
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<()> {
    Ok(())
}

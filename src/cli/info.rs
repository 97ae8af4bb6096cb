//! `trm info`.

use crate::error::Result;

/// info
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<()> {
    Ok(())
}

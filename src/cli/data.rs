//! `trm data`.

use crate::error::Result;

/// data
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<()> {
    Ok(())
}

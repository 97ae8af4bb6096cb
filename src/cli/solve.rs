//! `trm solve`.

use crate::error::Result;

/// solve
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<()> {
    Ok(())
}

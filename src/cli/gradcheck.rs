//! `trm gradcheck`.

use crate::error::Result;

/// gradcheck
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<()> {
    Ok(())
}

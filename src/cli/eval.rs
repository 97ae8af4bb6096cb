//! `trm eval`.

use crate::error::Result;

/// eval
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<()> {
    Ok(())
}

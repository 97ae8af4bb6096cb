//! The `trm` command: parse arguments, run a command, print one clear error.

use std::process::ExitCode;

fn main() -> ExitCode {
    trm::cli::main()
}

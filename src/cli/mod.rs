//! The command line: one file per command, one line per error.

mod bench;
mod common;
mod data;
mod drawing;
mod eval;
mod gradcheck;
mod info;
mod plan;
mod plot;
mod presets;
mod run_set;
mod show;
mod signals;
mod solve;
mod task;
mod train;
mod weights;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::error::{DeviceFailure, Error, Result};

/// Train, examine and time tiny recursive reasoning models on CPUs.
#[derive(Parser)]
#[command(name = "trm", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "Start with `trm train`: it builds a set of 6×6 Sudokus, trains on it for about a minute, and \
                        solves a puzzle it has not seen. `trm help COMMAND` has examples.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(train::Args),
    Eval(eval::Args),
    Solve(solve::Args),
    Show(show::Args),
    Bench(bench::Args),
    Data(data::Args),
    Weights(weights::Args),
    Plot(plot::Args),
    Presets(presets::Args),
    Plan(plan::Args),
    Gradcheck(gradcheck::Args),
    Info(info::Args),
    /// Print a completion script for a shell
    ///
    /// Example: trm completions bash > ~/.local/share/bash-completion/completions/trm
    Completions {
        shell: clap_complete::Shell,
    },
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            return refuse(&error);
        }
    };
    match DeviceFailure::catch(|| run(cli.command)).and_then(|result| result) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Train(args) => train::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Solve(args) => solve::run(args),
        Command::Show(args) => show::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Data(args) => data::run(args),
        Command::Weights(args) => weights::run(args),
        Command::Plot(args) => plot::run(args),
        Command::Presets(args) => presets::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Gradcheck(args) => gradcheck::run(args),
        Command::Info(args) => info::run(args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trm", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Arguments that cannot be used, in one line; help and version as they are.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return ExitCode::from(2);
    }
    let text = error.to_string();
    let said: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let said = said.join(" ");
    complain(&format!("{} (see `trm help`)", said.strip_prefix("error: ").unwrap_or(&said)));
    ExitCode::from(2)
}

/// Says on standard error what is wrong, in one line whatever it quotes: a control character of somebody's file or name is
/// escaped, so that it neither ends the line nor moves a terminal's cursor.
fn complain(text: &str) {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    note(&format!("trm: {}", text.chars().map(shown).collect::<String>()));
}

/// Writes a line to standard error; a reader that has gone away is no reason to stop.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes to standard output; a reader that has gone away (`trm … | head`) is no error.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(()),
    }
}

/// A value as indented JSON and a newline.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("reports serialize");
    print(&format!("{text}\n"))
}

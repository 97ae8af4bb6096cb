//! `trm gradcheck`.

use clap::value_parser;
use serde::Serialize;

use super::common::{DeviceName, on_device};
use super::{print, print_json};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model;
use crate::report::Table;
use crate::rng::Rng;
use crate::simd::choose_isa;
use crate::tape::gradcheck::{Outcome, TOLERANCE, check};
use crate::tape::ops;

/// Check every gradient the engine computes against central differences
///
/// Every operation of the tape, then every composition of them (a block, a full recursion cycle, a deep-supervision
/// step), is run in f64 on random small problems: sizes include 1 and odd numbers, weights and inputs are normal
/// draws. Each gradient is compared with a five-point finite difference; the figure is the norm of the difference
/// over the norm of the gradient, the worst of all tensors and problems. Above 1e-6 the check has failed and the exit
/// code is 1.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  trm gradcheck                          the same problems every time
  trm gradcheck --seed 7 --rounds 50     other problems, and more of them
  trm gradcheck --device reference       the plain loops that other devices are tested against
  trm gradcheck --json | jq 'max_by(.worst_error)'")]
pub struct Args {
    /// Seed of the random problems
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    seed: u64,
    /// Problems for each variant of an operation
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 8, value_parser = value_parser!(u32).range(1..))]
    rounds: u32,
    /// Whose gradients: cpu, through the paths that training takes; cuda or cuda-twin, by the plain kernels; or reference
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    device: DeviceName,
    /// Print a JSON list of {name, problems, worst_error, tolerance, passed}; an error that is not finite is null
    #[arg(long)]
    json: bool,
}

/// A line of the JSON list.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    outcome: &'a Outcome,
    tolerance: f64,
    passed: bool,
}

pub fn run(args: Args) -> Result<()> {
    choose_isa()?;
    let outcomes = on_device!(args.device, f64, D => Ok(outcomes::<D>(&args)))?;
    if args.json {
        let line = |outcome| Line { outcome, tolerance: TOLERANCE, passed: Outcome::passed(outcome) };
        print_json(&outcomes.iter().map(line).collect::<Vec<_>>())?;
    } else {
        print(&table(&outcomes).to_string())?;
    }
    verdict(&outcomes)
}

fn outcomes<D: Device<T = f64>>(args: &Args) -> Vec<Outcome> {
    let entries = ops::catalogue::<D>().into_iter().chain(model::catalogue::<D>()).enumerate();
    // Each entry has a stream of its own: a new one in front leaves the problems of the others as they were.
    let check = |(i, entry)| check(&entry, &mut Rng::stream(args.seed, i as u64), args.rounds as usize);
    entries.flat_map(check).collect()
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new(["gradient of", "problems", "worst error", ""]);
    for outcome in outcomes {
        let error = format!("{:.1e}", outcome.worst_error);
        let passed = if outcome.passed() { "ok" } else { "FAILED" };
        table.row([outcome.name.as_str(), &outcome.problems.to_string(), &error, passed]);
    }
    table
}

fn verdict(outcomes: &[Outcome]) -> Result<()> {
    let failed: Vec<&str> = outcomes.iter().filter(|o| !o.passed()).map(|o| o.name.as_str()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let message = format!("{} of {} gradients are off by more than {TOLERANCE:e}", failed.len(), outcomes.len());
    Err(Error::CheckFailed(format!("{message}: {}", failed.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gradient_off_by_more_than_the_bound_is_named_and_ends_with_code_1() {
        let outcome = |name: &str, worst_error| Outcome { name: name.into(), problems: 3, worst_error };
        let (good, bad) = (outcome("add", 1e-9), outcome("linear", f64::INFINITY));
        assert!(verdict(std::slice::from_ref(&good)).is_ok());
        let error = verdict(&[good.clone(), bad.clone()]).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert_eq!(error.to_string(), "1 of 2 gradients are off by more than 1e-6: linear");
        assert!(table(&[good, bad]).to_string().contains("FAILED"));
    }
}

//! `trm bench`: how fast a training step is, next to what the processor could do.

mod limit;
mod profile;
mod scaling;

use std::time::Instant;

use serde::Serialize;

use super::common::{DeviceArg, Experiment, Threads, claim_training, on_device};
use crate::config::Config;
use crate::engine::{Lanes, TrainingDevice, precision_for};
use crate::error::{Error, Result};
use crate::perf::{Work, Workload};
use crate::report::Table;
use crate::simd::{self, Precision};
use limit::FmaLimit;

/// Time the whole training step and the forward pass, against the FMA limit measured in the same process
///
/// Needs no data set (random tokens). Model FLOPs count 2·M·N·K for every GEMM, attention scores and values
/// included: the forward pass of every call, twice that again for calls that carry gradient, nothing for
/// recomputation. MFU is model FLOPs / seconds / FMA limit.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  trm bench                                         the quick start's model
  trm bench --preset sudoku-extreme --batch 32      the published model
  trm bench --preset sudoku-extreme --batch 1 --only forward    what one step of `trm solve` takes
  trm bench --preset sudoku-extreme-att --batch 32 --precision bf16 --threads 1 --json
  trm bench --preset sudoku-extreme --batch 32 --profile
  trm bench --preset sudoku-extreme --batch 32 --scaling --pin")]
pub struct Args {
    #[command(flatten)]
    experiment: Experiment,
    /// Sequences in the batch [default: the preset's]
    #[arg(long, value_name = "B")]
    batch: Option<usize>,
    /// Number format of GEMM operands: f32, bf16 or auto [default: the preset's]
    #[arg(long, value_name = "FORMAT")]
    precision: Option<String>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: DeviceArg,
    /// Seconds to measure each for, after one repetition to warm up; at least two repetitions
    #[arg(long, value_name = "S", default_value_t = 5.0, allow_negative_numbers = true)]
    seconds: f64,
    /// Measure only this: train or forward
    #[arg(long, value_name = "NAME", conflicts_with_all = ["profile", "scaling"])]
    only: Option<String>,
    /// Show where the time of a training step goes, operation by operation
    #[arg(long, conflicts_with = "scaling")]
    profile: bool,
    /// Measure 1, 2, 4 … threads, and predict servers of 64, 128 and 192 cores
    #[arg(long)]
    scaling: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Updates that memory is claimed for: a table's rows are those of a few batches.
const TIMED: u64 = 100;

/// One measurement; seconds are the median over the repetitions.
#[derive(Serialize)]
struct Measurement {
    name: &'static str,
    seconds: f64,
    fastest_seconds: f64,
    repetitions: usize,
    model_flops: f64,
    gflops: f64,
    limit_gflops: f64,
    mfu: f64,
    peak_rss_bytes: u64,
    batch: usize,
    threads: usize,
    precision: &'static str,
    simd: &'static str,
}

pub fn run(args: Args) -> Result<()> {
    simd::choose_isa()?;
    let mut sets = Vec::new();
    sets.extend(args.precision.as_ref().map(|precision| format!("train.precision={}", quoted(precision))));
    let whole = args.experiment.resolve(&sets)?;
    sets.extend(args.batch.map(|batch| format!("train.batch_size={batch}")));
    let config = args.experiment.resolve(&sets)?;
    if !(args.seconds.is_finite() && args.seconds >= 0.0) {
        return Err(Error::input(format!("--seconds {}: not a duration; give 0 or more", args.seconds)));
    }
    let works: &[(&'static str, Work)] = match args.only.as_deref() {
        None => &[("train", Work::Train), ("forward", Work::Forward)],
        Some("train") => &[("train", Work::Train)],
        Some("forward") => &[("forward", Work::Forward)],
        Some(other) => return Err(Error::input(format!("--only {other}: unknown; give train or forward"))),
    };
    if args.scaling {
        return scaling::run(&args, config, &whole);
    }
    on_device!(args.device.device, D => run_on::<D>(&args, config, works))
}

fn run_on<D: TrainingDevice>(args: &Args, config: Config, works: &[(&'static str, Work)]) -> Result<()> {
    let lanes = args.threads.lanes_for::<D>(args.device)?;
    claim_training::<D>(&config, TIMED, lanes.threads())?;
    if args.profile {
        return profile::run(args, &lanes, config);
    }
    let precision = precision_for::<D>(config.train.precision);
    let batch = config.train.batch_size;
    let mut workload = Workload::new(&lanes, config)?;
    let mut measurements = Vec::new();
    for &(name, work) in works {
        measurements.push(measure(&lanes, &mut workload, name, work, args.seconds, precision, batch)?);
    }
    if args.json {
        return super::print_json(&measurements);
    }
    let mut table = Table::new(["", "seconds", "model GFLOP", "GFLOP/s", "limit", "MFU %", "puzzles/s", "peak MB"]);
    for m in &measurements {
        table.row([
            m.name.to_owned(),
            format!("{:.4}", m.seconds),
            format!("{:.1}", m.model_flops / 1e9),
            format!("{:.1}", m.gflops),
            format!("{:.1}", m.limit_gflops),
            format!("{:.1}", 100.0 * m.mfu),
            format!("{:.1}", batch as f64 / m.seconds),
            format!("{:.0}", m.peak_rss_bytes as f64 / 1e6),
        ]);
    }
    let forward = measurements.iter().find(|m| m.name == "forward").map_or(String::new(), |m| {
        let (step, steps) = (1e3 * m.seconds, workload.steps());
        format!(
            "one supervision step without gradient: {step:.2} ms; {steps} of them: {:.1} ms\n",
            step * f64::from(steps)
        )
    });
    let threads = lanes.threads();
    let precision = precision_name(precision);
    let simd = simd::isa().name();
    super::print(&format!("{table}\n{forward}batch {batch}, {threads} threads, {precision}, {simd}\n"))
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn precision_name(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32",
        Precision::Bf16 => "bf16",
    }
}

/// The median; the upper one of two.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn measure<D: TrainingDevice>(
    lanes: &Lanes<D>,
    workload: &mut Workload<'_, D>,
    name: &'static str,
    work: Work,
    seconds: f64,
    precision: Precision,
    batch: usize,
) -> Result<Measurement> {
    workload.run(work)?;
    let mut limit = FmaLimit::new(lanes, precision);
    let (started, mut times) = (Instant::now(), Vec::new());
    while times.len() < 2 || started.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        workload.run(work)?;
        times.push(start.elapsed().as_secs_f64());
        limit.refresh();
    }
    let median = median(&mut times);
    let model_flops = workload.model_flops(work);
    let limit_gflops = limit.finish(model_flops / times[0] / 1e9);
    let gflops = model_flops / median / 1e9;
    Ok(Measurement {
        name,
        seconds: median,
        fastest_seconds: times[0],
        repetitions: times.len(),
        model_flops,
        gflops,
        limit_gflops,
        mfu: gflops / limit_gflops,
        peak_rss_bytes: crate::report::peak_rss_bytes().unwrap_or(0),
        batch,
        threads: lanes.threads(),
        precision: precision_name(precision),
        simd: simd::isa().name(),
    })
}

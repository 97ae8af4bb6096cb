//! `trm bench`: how fast a training step is, next to what the processor or the GPU could do.

mod devices;
mod limit;
mod profile;
mod scaling;

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::common::{DeviceArg, DeviceName, Experiment, Threads, claim_training, on_device};
use crate::config::{Config, DetachedPrecision};
use crate::engine::{Lanes, TrainingDevice, precision_for};
use crate::error::{Error, Result};
use crate::perf::{Work, Workload};
use crate::report::{Table, peak_rss_bytes, processor_seconds};
use crate::simd::{self, Precision};
use limit::FmaLimit;

/// Time the whole training step and the forward pass, against the FMA limit measured in the same process
///
/// Needs no data set (random tokens). Model FLOPs count 2·M·N·K for every GEMM, attention scores and values
/// included: the forward pass of every call, twice that again for calls that carry gradient, nothing for
/// recomputation. MFU is model FLOPs / seconds / FMA limit; on a GPU, the limit in bf16 is that of its tensor cores.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  trm bench                                         the quick start's model
  trm bench --preset sudoku-extreme --batch 32      the published model
  trm bench --preset sudoku-extreme --batch 1 --only forward    what one step of `trm solve` takes
  trm bench --preset sudoku-extreme-att --batch 32 --precision bf16 --threads 1 --json
  trm bench --preset sudoku-extreme --batch 32 --profile
  trm bench --preset sudoku-extreme --batch 32 --scaling --pin
  trm bench --preset sudoku-extreme --device cuda               the published batch, on a GPU
  trm bench --preset sudoku-extreme --device cuda --profile     timed by the GPU's own clock
  trm bench --devices cpu,reference --precision f32             do they compute the same?
  trm bench --preset sudoku-extreme --batch 32 --devices cpu,cuda --plot devices.svg")]
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
    ///
    /// Each operation's speed is set against two limits that are measured too: of multiply-adds, and of copies between
    /// memory and itself. Bytes count every operand once; what stays in a cache may be faster than memory. The residual and
    /// norm behind a product are done by its kernel in the forward pass, so that their own line has next to no time.
    #[arg(long, conflicts_with = "scaling")]
    profile: bool,
    /// Measure 1, 2, 4 … threads, and predict servers of 64, 96, 128 and 192 cores
    #[arg(long)]
    scaling: bool,
    /// Measure on each of these devices in turn, e.g. cpu,cuda, and show how far their results come apart
    ///
    /// All begin with the same weights and see the same tokens. Compared are the losses and gradient norms of the first updates, and
    /// the weights after them. Where the preset leaves the number format to the device, they may compute in different ones: give
    /// --precision f32 for one that all have.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', conflicts_with_all = ["device", "profile", "scaling"])]
    devices: Vec<DeviceName>,
    /// Draw the puzzles per second of --devices as a picture
    #[arg(long, value_name = "FILE.svg", requires = "devices")]
    plot: Option<PathBuf>,
    /// Replace the file there even if it is no picture of trm's
    #[arg(long, requires = "plot")]
    force: bool,
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
    /// Processors of the host that this process kept busy, on average; `None` where the system does not say.
    busy_cores: Option<f64>,
    peak_rss_bytes: u64,
    /// Of an accelerator's own memory.
    peak_device_bytes: Option<u64>,
    batch: usize,
    device: &'static str,
    hardware: &'static str,
    threads: usize,
    precision: &'static str,
    simd: &'static str,
}

impl Measurement {
    fn puzzles_per_second(&self) -> f64 {
        self.batch as f64 / self.seconds
    }
}

/// In what a table shows FLOP/s: TFLOP/s where the limit is ten of them or more.
#[derive(Clone, Copy)]
struct Rate {
    unit: &'static str,
    gflops: f64,
}

impl Rate {
    fn for_limit(gflops: f64) -> Self {
        if gflops >= 1e4 { Self { unit: "TFLOP/s", gflops: 1e3 } } else { Self { unit: "GFLOP/s", gflops: 1.0 } }
    }

    fn show(self, gflops: f64) -> String {
        format!("{:.1}", gflops / self.gflops)
    }
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
        if args.device.device != DeviceName::Cpu {
            let name = args.device.device.name();
            return Err(Error::input(format!("--scaling is about threads of the CPU: leave out --device {name}")));
        }
        return scaling::run(&args, config, &whole);
    }
    if !args.devices.is_empty() {
        return devices::run(&args, config, works);
    }
    on_device!(args.device.device, D => run_on::<D>(&args, config, works))
}

fn run_on<D: TrainingDevice>(args: &Args, config: Config, works: &[(&'static str, Work)]) -> Result<()> {
    let lanes = args.threads.lanes_for::<D>(args.device)?;
    claim_training::<D>(&config, TIMED, lanes.threads())?;
    if args.profile {
        return profile::run(args, &lanes, config);
    }
    let (precision, batch) = (precision_for::<D>(config.train.precision), config.train.batch_size);
    let formats = format_names(precision, &config);
    let mut workload = Workload::new(&lanes, config)?;
    let mut measurements = Vec::new();
    for &(name, work) in works {
        measurements.push(measure(&lanes, &mut workload, name, work, args.seconds, precision, batch)?);
    }
    if args.json {
        return super::print_json(&measurements);
    }
    let rate = Rate::for_limit(measurements.iter().map(|m| m.limit_gflops).fold(0.0, f64::max));
    let mut table =
        Table::new(["", "seconds", "model GFLOP", rate.unit, "limit", "MFU %", "puzzles/s", "busy cores", "peak MB"]);
    for m in &measurements {
        table.row([
            m.name.to_owned(),
            format!("{:.4}", m.seconds),
            format!("{:.1}", m.model_flops / 1e9),
            rate.show(m.gflops),
            rate.show(m.limit_gflops),
            format!("{:.1}", 100.0 * m.mfu),
            format!("{:.1}", m.puzzles_per_second()),
            m.busy_cores.map_or(String::new(), |cores| format!("{cores:.2}")),
            format!("{:.0}", m.peak_device_bytes.unwrap_or(m.peak_rss_bytes) as f64 / 1e6),
        ]);
    }
    let forward = measurements.iter().find(|m| m.name == "forward").map_or(String::new(), |m| {
        let (step, steps) = (1e3 * m.seconds, workload.steps());
        format!(
            "one supervision step without gradient: {step:.2} ms; {steps} of them: {:.1} ms\n",
            step * f64::from(steps)
        )
    });
    let end = match workload.describe() {
        Some(engine) => format!("{formats}, {engine}; busy cores are the host's, peak MB of the device's memory"),
        None => format!("batch {batch}, {} threads, {formats}, {}", lanes.threads(), D::hardware()),
    };
    super::print(&format!("{table}\n{forward}{end}\n"))
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

/// The number formats of products, for a reader.
fn format_names(precision: Precision, config: &Config) -> String {
    let detached = match config.train.detached_precision {
        DetachedPrecision::Same => "",
        DetachedPrecision::Int8 => ", int8 in calls without gradient",
    };
    format!("{}{detached}", precision_name(precision))
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
    let mut limit = FmaLimit::new(lanes, precision, workload.int8_share(work));
    let (started, mut times, mut used) = (Instant::now(), Vec::new(), Some(0.0));
    while times.len() < 2 || started.elapsed().as_secs_f64() < seconds {
        let (start, before) = (Instant::now(), processor_seconds());
        workload.run(work)?;
        times.push(start.elapsed().as_secs_f64());
        used = used.zip(processor_seconds().zip(before)).map(|(used, (after, before))| used + after - before);
        limit.refresh();
    }
    let busy_cores = used.map(|used: f64| used / times.iter().sum::<f64>());
    let median = median(&mut times);
    let model_flops = workload.model_flops(work);
    let (_, limit_gflops) = limit.finish(model_flops / times[0] / 1e9);
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
        busy_cores,
        peak_rss_bytes: peak_rss_bytes().unwrap_or(0),
        peak_device_bytes: D::peak_bytes(),
        batch,
        device: D::NAME,
        hardware: D::hardware(),
        threads: lanes.threads(),
        precision: precision_name(precision),
        simd: simd::isa().name(),
    })
}

//! `trm plan`: what an experiment would take, next to what was published for it.

mod amx;
mod markdown;

use std::time::Instant;

use serde::Serialize;

use super::common::{Threads, claim_training};
use super::{print, print_json};
use crate::config::{Arch, Config, DetachedPrecision, Mixing, Preset, presets};
use crate::device::Cpu;
use crate::engine::{Lanes, precision_for};
use crate::error::{Error, Result};
use crate::model::{Model, int8_share};
use crate::perf::scaling::{MachineFigures, TEAM_SERIAL, UpdateWork, predict};
use crate::perf::{RunCost, Work, Workload};
use crate::report::{Table, engineering, grouped};
use crate::simd::{self, Precision};

/// Sequences a lane gets in the measurement: a gradient group of its own.
const SEQUENCES_PER_THREAD: usize = 4;

/// With `--all`, rows longer than this are timed with one sequence a thread, which is what a lane takes of them at a time.
const LONG_ROWS: usize = 400;

/// Updates timed after one to warm up, unless they take longer than this many seconds.
const UPDATES: usize = 3;
const SECONDS: f64 = 3.0;

/// Estimate what an experiment takes: parameters, FLOPs, memory, hours, next to the published accuracy
///
/// The speed is measured in this moment: a few updates of the experiment itself on random tokens, with a batch of four
/// sequences a thread. Hours are the run's model FLOPs over that speed; hours on more cores come from the scaling model
/// (`trm bench --scaling`), which keeps the speed of a core. Memory is an estimate. Updates are those of `epochs` over
/// `train_puzzles` examples, unless `max_steps` is set. No data set is read.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  trm plan sudoku-extreme                       the published model on this machine
  trm plan table3-trm-t6-k6 --cores 64 --cores 192
  trm plan sudoku-extreme --set l_cycles=12 --set precision=bf16 --json
  trm plan sudoku-extreme --amx                          what AMX would make of it: estimates
  trm plan --all --markdown > docs/reproduce.md          the rows of the paper's tables")]
pub struct Args {
    /// The preset to plan (see `trm presets`)
    #[arg(value_name = "PRESET", required_unless_present = "all", conflicts_with = "all")]
    preset: Option<String>,
    /// Every row of the paper's tables; the speed is measured on the first row of each sequence length, recursion and mixing
    #[arg(long)]
    all: bool,
    /// Change one setting, e.g. --set l_cycles=12; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Also estimate hours on so many cores; may be repeated
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    cores: Vec<usize>,
    #[command(flatten)]
    threads: Threads,
    /// Take this speed of all threads together instead of measuring it
    #[arg(long, value_name = "GFLOP/S", allow_negative_numbers = true)]
    gflops: Option<f64>,
    /// Instead: estimate what a training step would take on a server core with AMX, by a roofline; nothing is measured
    #[arg(long, conflicts_with_all = ["all", "cores", "gflops"])]
    amx: bool,
    /// With --all: print a document in Markdown
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print JSON: an object, or with --all a list of them
    #[arg(long)]
    json: bool,
}

/// Model FLOPs per second of all threads together, and where the figure is from.
#[derive(Clone, Debug, Serialize)]
struct Speed {
    gflops: f64,
    /// Share of the FMA limit measured in the same process.
    mfu: Option<f64>,
    /// Sequences in the batch that was timed; `None` when the speed was given.
    measured_with_batch: Option<usize>,
    /// The preset that was timed.
    measured_on: Option<&'static str>,
    threads: usize,
    precision: &'static str,
    simd: &'static str,
}

/// Everything about one experiment.
#[derive(Serialize)]
struct Plan {
    preset: &'static str,
    description: String,
    #[serde(flatten)]
    cost: RunCost,
    batch_size: usize,
    /// Of a row, without what stands in front of it.
    tokens: usize,
    speed: Speed,
    hours: f64,
    /// On more cores.
    cores: Vec<OnCores>,
    published_accuracy: Option<f64>,
    source: Option<String>,
}

#[derive(Serialize)]
struct OnCores {
    cores: usize,
    hours: f64,
}

pub fn run(args: Args) -> Result<()> {
    if let Some(name) = args.preset.as_deref().filter(|_| args.amx) {
        return amx::print_estimate(&Config::resolve(Some(Preset::named(name)?.name), None, &args.set)?, args.json);
    }
    let lanes = args.threads.lanes()?;
    simd::choose_isa()?;
    if args.markdown && !args.all {
        return Err(Error::input("--markdown writes the page of all rows; add --all in place of a preset"));
    }
    if let Some(cores) = args.cores.iter().find(|&&cores| cores == 0 || cores > 1 << 20) {
        return Err(Error::input(format!("--cores {cores}: give 1 to {}", 1 << 20)));
    }
    if let Some(gflops) = args.gflops.filter(|gflops| !(gflops.is_finite() && *gflops > 0.0)) {
        return Err(Error::input(format!("--gflops {gflops}: not a speed; give a number above 0")));
    }
    let mut speeds = Speeds { lanes: &lanes, given: args.gflops, measured: Vec::new() };
    let larger = LargerMachines::measure(&lanes, &args.cores)?;
    let plan = |preset: &Preset, speeds: &mut Speeds<'_>| {
        let config = Config::resolve(Some(preset.name), None, &args.set)?;
        let speed = speeds.of(preset.name, &config, args.all)?;
        Plan::new(preset, &config, speed, &larger)
    };
    if let Some(name) = &args.preset {
        let plan = plan(&Preset::named(name)?, &mut speeds)?;
        return if args.json { print_json(&plan) } else { print(&plan.table().to_string()) };
    }
    let rows = presets().into_iter().filter(Preset::is_of_the_paper);
    let plans: Vec<Plan> = rows.map(|preset| plan(&preset, &mut speeds)).collect::<Result<_>>()?;
    match (args.json, args.markdown) {
        (true, _) => print_json(&plans),
        (_, true) => print(&markdown::document(&plans)),
        _ => print(&overview(&plans).to_string()),
    }
}

impl Plan {
    fn new(preset: &Preset, config: &Config, speed: Speed, larger: &LargerMachines<'_>) -> Result<Self> {
        let cost = RunCost::new(config, speed.threads);
        let hours = cost.run_flops / (speed.gflops * 1e9) / 3600.0;
        let on = larger.cores.iter();
        let on = on.map(|&cores| OnCores { cores, hours: larger.hours(config, &cost, &speed, cores) });
        Ok(Self {
            preset: preset.name,
            description: preset.description.clone(),
            batch_size: config.train.batch_size,
            tokens: config.task.seq_len,
            hours,
            cores: on.collect(),
            published_accuracy: preset.published_accuracy,
            source: preset.source.clone(),
            cost,
            speed,
        })
    }

    /// The published accuracy in per cent, or why there is none: the rows without a figure are those that the paper could
    /// not run.
    fn figure(&self) -> String {
        match (self.published_accuracy, &self.source) {
            (Some(percent), _) => format!("{percent:.1}"),
            (None, Some(_)) => "out of memory".into(),
            (None, None) => "–".into(),
        }
    }

    fn published(&self) -> String {
        let unit = if self.published_accuracy.is_some() { " %" } else { "" };
        match &self.source {
            Some(source) => format!("{}{unit} ({source})", self.figure()),
            None => "no figure: not from a paper".into(),
        }
    }

    fn table(&self) -> Table {
        let Self { cost, speed, .. } = self;
        let memory = &cost.memory;
        let mb = |bytes: u64| format!("{:.0} MB", bytes as f64 / 1e6);
        let parts = [
            ("weights and optimizer", memory.weights),
            ("gradients", memory.gradients),
            ("activations", memory.activations),
            ("carry", memory.carry),
            ("puzzle table", memory.puzzle_table),
        ];
        let parts: Vec<String> = parts.iter().map(|(name, bytes)| format!("{name} {}", mb(*bytes))).collect();
        let mut table = Table::default();
        table
            .row(["preset", self.preset])
            .row(["", &self.description])
            .row(["parameters", &grouped(cost.parameters)])
            .row(["puzzle table", &format!("{} parameters", grouped(cost.table_parameters))])
            .row(["updates", &format!("{} of {} sequences", grouped(cost.updates as usize), self.batch_size)])
            .row(["an update", &engineering(cost.flops_per_update)])
            .row(["the run", &engineering(cost.run_flops)])
            .row(["memory", &format!("{} on {} threads", mb(memory.total), memory.threads)])
            .row(["", &parts.join(", ")])
            .row(["speed", &speed.to_string()])
            .row(["time here", &duration(self.hours)]);
        for on in &self.cores {
            table.row([format!("on {} cores", on.cores), duration(on.hours)]);
        }
        table.row(["published", &self.published()]);
        table
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gflops, threads, precision, simd, .. } = self;
        write!(f, "{gflops:.0} GFLOP/s, {threads} threads, {precision}, {simd}")?;
        match (self.measured_with_batch, self.mfu) {
            (Some(batch), Some(mfu)) => {
                write!(f, "; measured now with a batch of {batch}, {:.0} % of the FMA limit", 100.0 * mfu)
            }
            _ => write!(f, "; given"),
        }
    }
}

/// Hours with days behind, or minutes, or seconds.
fn duration(hours: f64) -> String {
    match hours {
        h if h < 1.0 / 60.0 => format!("{:.1} s", h * 3600.0),
        h if h < 1.0 => format!("{:.1} min", h * 60.0),
        h if h < 48.0 => format!("{h:.1} h"),
        h => format!("{h:.0} h ({:.1} days)", h / 24.0),
    }
}

fn overview(plans: &[Plan]) -> Table {
    let mut table = Table::new(["preset", "parameters", "run", "memory", "hours here", "published %"]);
    for plan in plans {
        table.row([
            plan.preset.to_owned(),
            grouped(plan.cost.parameters),
            engineering(plan.cost.run_flops),
            format!("{:.0} MB", plan.cost.memory.total as f64 / 1e6),
            format!("{:.0}", plan.hours),
            plan.figure(),
        ]);
    }
    table
}

/// Machines with more cores like this one's, for which hours are predicted.
struct LargerMachines<'a> {
    cores: &'a [usize],
    core_bandwidth: f64,
    handover_seconds: f64,
}

impl<'a> LargerMachines<'a> {
    /// Measures what the scaling model wants to know beside the speed, where there is anything to predict.
    fn measure(lanes: &Lanes, cores: &'a [usize]) -> Result<Self> {
        let (core_bandwidth, handover_seconds) = match cores {
            [] => (f64::INFINITY, 0.0),
            _ => (MachineFigures::core_bandwidth(lanes), MachineFigures::handover_seconds(lanes)?),
        };
        Ok(Self { cores, core_bandwidth, handover_seconds })
    }

    /// Hours of the run on so many cores, each as fast as one of this machine is now.
    fn hours(&self, config: &Config, cost: &RunCost, speed: &Speed, cores: usize) -> f64 {
        let per_core = speed.gflops * 1e9 / speed.threads as f64;
        let machine = MachineFigures {
            core_limit: speed.mfu.map_or(per_core, |mfu| per_core / mfu),
            sequence_seconds: cost.flops_per_update / config.train.batch_size as f64 / per_core,
            core_bandwidth: self.core_bandwidth,
            handover_seconds: self.handover_seconds,
            serial_per_sequence: 0.0,
            team_serial: TEAM_SERIAL,
        };
        cost.updates as f64 * predict(&UpdateWork::new(config), &machine, cores).seconds() / 3600.0
    }
}

/// What makes the speed of rows differ: number format, sequence length, mixing, recursion.
type Class = (&'static str, usize, Mixing, Arch);

/// Speeds measured so far; a given one takes their place.
struct Speeds<'a> {
    lanes: &'a Lanes,
    given: Option<f64>,
    measured: Vec<(Class, Speed)>,
}

impl Speeds<'_> {
    /// The speed of an experiment; with `shared`, that of the first one of its class.
    fn of(&mut self, preset: &'static str, config: &Config, shared: bool) -> Result<Speed> {
        let precision = precision_for::<Cpu<f32>>(config.train.precision);
        let name = match (precision, config.train.detached_precision) {
            (Precision::F32, DetachedPrecision::Same) => "f32",
            (Precision::Bf16, DetachedPrecision::Same) => "bf16",
            (Precision::F32, DetachedPrecision::Int8) => "f32 and int8",
            (Precision::Bf16, DetachedPrecision::Int8) => "bf16 and int8",
        };
        let (threads, simd) = (self.lanes.threads(), simd::isa().name());
        let known = Speed {
            gflops: self.given.unwrap_or(0.0),
            mfu: None,
            measured_with_batch: None,
            measured_on: None,
            threads,
            precision: name,
            simd,
        };
        if self.given.is_some() {
            return Ok(known);
        }
        let class = (name, config.task.seq_len, config.model.mixing, config.model.arch);
        if let Some((_, speed)) = self.measured.iter().find(|(known, _)| shared && *known == class) {
            return Ok(speed.clone());
        }
        let per_thread = if shared && config.task.seq_len > LONG_ROWS { 1 } else { SEQUENCES_PER_THREAD };
        let batch = config.train.batch_size.min(per_thread * threads);
        let gflops = measure(self.lanes, config, batch)?;
        let model = Model::new(&config.model, &config.task);
        let mfu = Some(gflops / self.lanes.fma_limit(precision, int8_share(&model, &config.train, true), 0.2));
        let speed = Speed { gflops, mfu, measured_with_batch: Some(batch), measured_on: Some(preset), ..known };
        self.measured.push((class, speed.clone()));
        Ok(speed)
    }
}

/// GFLOP/s of the fastest of a few updates.
fn measure(lanes: &Lanes, config: &Config, batch: usize) -> Result<f64> {
    let mut config = config.clone();
    config.train.batch_size = batch;
    config.train.gradient_groups = batch.min(lanes.threads());
    // An update touches the rows of its batch only; a table of a million rows need not be filled for that.
    config.task.num_puzzle_identifiers = config.task.num_puzzle_identifiers.min(1000);
    claim_training::<Cpu<f32>>(&config, 1 + UPDATES as u64, lanes.threads())
        .map_err(|error| Error::input(format!("the speed cannot be measured here: {error}; give it with --gflops")))?;
    let mut workload = Workload::new(lanes, config)?;
    workload.run(Work::Train)?;
    let (started, mut fastest) = (Instant::now(), f64::INFINITY);
    for _ in 0..UPDATES {
        let start = Instant::now();
        workload.run(Work::Train)?;
        fastest = fastest.min(start.elapsed().as_secs_f64());
        if started.elapsed().as_secs_f64() > SECONDS {
            break;
        }
    }
    Ok(workload.model_flops(Work::Train) / fastest / 1e9)
}

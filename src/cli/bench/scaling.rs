//! `trm bench --scaling`: how a training step gains from threads, and what servers would give by a stated model.

use serde::Serialize;

use super::{Args, Measurement, TIMED, measure, precision_name};
use crate::cli::common::claim_training;
use crate::cli::{print, print_json};
use crate::config::Config;
use crate::device::Cpu;
use crate::engine::precision_for;
use crate::error::Result;
use crate::perf::scaling::{MachineFigures, Prediction, UpdateWork, predict};
use crate::perf::{Work, Workload};
use crate::report::Table;
use crate::simd;

/// Cores of the servers that are predicted.
const SERVERS: [usize; 4] = [64, 96, 128, 192];

#[derive(Serialize)]
struct Measured {
    #[serde(flatten)]
    measurement: Measurement,
    speed_up: f64,
    /// Counted, not measured: packed weights, reduction, optimizer.
    bytes: f64,
    /// What the model says to the same step.
    predicted: Prediction,
    predicted_seconds: f64,
}

#[derive(Serialize)]
struct Predicted {
    #[serde(flatten)]
    prediction: Prediction,
    seconds: f64,
    speed_up: f64,
    mfu: f64,
    bytes: f64,
    worst: &'static str,
}

#[derive(Serialize)]
struct Report {
    machine: MachineFigures,
    measured_step: UpdateWork,
    measured: Vec<Measured>,
    predicted_step: UpdateWork,
    predicted: Vec<Predicted>,
    precision: &'static str,
}

/// Measures `config`, predicts `whole`: the same with the experiment's own batch.
pub fn run(args: &Args, config: Config, whole: &Config) -> Result<()> {
    let precision = precision_for::<Cpu<f32>>(config.train.precision);
    let (batch, step) = (config.train.batch_size, UpdateWork::new(&config));
    let most = args.threads.count()?;
    let mut counts: Vec<usize> = std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|&n| n < most).collect();
    counts.push(most);
    claim_training::<Cpu<f32>>(&config, TIMED, most)?;
    let mut measurements = Vec::new();
    let mut machine = None;
    for &threads in &counts {
        let lanes = args.threads.start(threads)?;
        let mut workload = Workload::new(&lanes, config.clone())?;
        let timed = measure(&lanes, &mut workload, "train", Work::Train, args.seconds, precision, batch)?;
        if threads == most {
            drop(workload);
            machine = Some(MachineFigures::measure(&lanes, &config, timed.limit_gflops)?);
        }
        measurements.push(timed);
    }
    let machine = machine.expect("the last count is the most");
    let one = measurements[0].seconds;
    let measured: Vec<Measured> = measurements
        .into_iter()
        .map(|measurement| {
            let predicted = predict(&step, &machine, measurement.threads);
            Measured {
                speed_up: one / measurement.seconds,
                bytes: step.bytes(measurement.threads),
                predicted_seconds: predicted.seconds(),
                predicted,
                measurement,
            }
        })
        .collect();
    let predicted_step = UpdateWork::new(whole);
    let predicted = SERVERS.map(|cores| server(&predicted_step, &machine, cores)).into();
    let report = Report {
        machine,
        measured_step: step,
        measured,
        predicted_step,
        predicted,
        precision: precision_name(precision),
    };
    if args.json { print_json(&report) } else { print(&text(&report)) }
}

fn server(step: &UpdateWork, machine: &MachineFigures, cores: usize) -> Predicted {
    let prediction = predict(step, machine, cores);
    let seconds = prediction.seconds();
    let sequences = step.batch as f64;
    let ideal = sequences * machine.sequence_seconds / cores as f64;
    Predicted {
        seconds,
        speed_up: predict(step, machine, 1).seconds() / seconds,
        mfu: sequences * step.flops_per_sequence / seconds / (cores as f64 * machine.core_limit),
        bytes: step.bytes(cores),
        worst: prediction.bottleneck(ideal),
        prediction,
    }
}

fn text(report: &Report) -> String {
    let Report { machine, measured, predicted, measured_step, predicted_step, .. } = report;
    let mut table = Table::new(["threads", "seconds", "speed-up", "MFU %", "GB moved", "by the model"]);
    for m in measured {
        table.row([
            m.measurement.threads.to_string(),
            format!("{:.4}", m.measurement.seconds),
            format!("{:.2}", m.speed_up),
            format!("{:.1}", 100.0 * m.measurement.mfu),
            format!("{:.2}", m.bytes / 1e9),
            format!("{:.4}", m.predicted_seconds),
        ]);
    }
    let mut servers = Table::new([
        "cores",
        "seconds",
        "speed-up",
        "of linear %",
        "MFU %",
        "GB moved",
        "compute",
        "weights",
        "reduction",
        "optimizer",
        "barrier",
        "serial",
        "breaks first",
    ]);
    for p in predicted {
        let part = |seconds: f64| format!("{seconds:.5}");
        let parts = &p.prediction;
        servers.row([
            parts.cores.to_string(),
            format!("{:.4}", p.seconds),
            format!("{:.1}", p.speed_up),
            format!("{:.1}", 100.0 * p.speed_up / parts.cores as f64),
            format!("{:.1}", 100.0 * p.mfu),
            format!("{:.2}", p.bytes / 1e9),
            part(parts.compute),
            part(parts.streaming),
            part(parts.reduction),
            part(parts.optimizer),
            part(parts.barrier),
            part(parts.serial),
            p.worst.to_owned(),
        ]);
    }
    format!(
        "{table}\nbatch {}, {}, {}; GB moved are counted: packed weights, gradient sums, optimizer\n\n{servers}\n\
         predicted for batch {} in {} gradient groups, from: {:.0} GFLOP/s and {:.1} GB/s a core, {:.4} s a sequence, \
         {:.1} µs a hand-over, {:.2} µs of one thread a sequence, {:.1} % of a group's work not divided by a team\n",
        measured_step.batch,
        report.precision,
        simd::isa().name(),
        predicted_step.batch,
        predicted_step.groups,
        machine.core_limit / 1e9,
        machine.core_bandwidth / 1e9,
        machine.sequence_seconds,
        1e6 * machine.handover_seconds,
        1e6 * machine.serial_per_sequence,
        100.0 * machine.team_serial,
    )
}

//! `trm bench --profile`: where the time of a training step goes.

use std::time::Instant;

use serde::Serialize;

use super::{Args, precision_name};
use crate::cli::{print, print_json};
use crate::config::Config;
use crate::device::precision_for;
use crate::engine::Lanes;
use crate::error::Result;
use crate::perf::{Profile, Work, Workload};
use crate::report::Table;
use crate::simd;
use crate::tape::profile::{Line, Phase};

/// A profile, with what it is measured against.
#[derive(Serialize)]
struct Report {
    profile: Profile,
    /// Seconds of an update with the stopwatches on, the median.
    seconds: f64,
    /// The same without them.
    seconds_without: f64,
    /// What the stopwatches cost, as a share of the step.
    overhead: f64,
    model_flops: f64,
    limit_gflops: f64,
    precision: &'static str,
    simd: &'static str,
}

pub fn run(args: &Args, lanes: &Lanes, config: Config) -> Result<()> {
    let precision = precision_for(config.train.precision);
    let mut workload = Workload::new(config);
    workload.run(lanes, Work::Train)?;
    let before = lanes.fma_limit(precision, 0.2);
    // With and without stopwatches in turn, so that both see the same neighbours.
    let (started, mut on, mut off) = (Instant::now(), Vec::new(), Vec::new());
    let mut profile: Option<Profile> = None;
    while on.len() < 3 || started.elapsed().as_secs_f64() < args.seconds {
        let start = Instant::now();
        workload.run(lanes, Work::Train)?;
        off.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let more = workload.profile(lanes, 1)?;
        on.push(start.elapsed().as_secs_f64());
        match &mut profile {
            Some(profile) => profile.add(&more),
            None => profile = Some(more),
        }
    }
    let limit_gflops = before.max(lanes.fma_limit(precision, 0.2));
    let (seconds, seconds_without) = (median(on), median(off));
    let report = Report {
        profile: profile.expect("there were three"),
        seconds,
        seconds_without,
        overhead: seconds / seconds_without - 1.0,
        model_flops: workload.model_flops(Work::Train),
        limit_gflops,
        precision: precision_name(precision),
        simd: simd::isa().name(),
    };
    if args.json { print_json(&report) } else { print(&text(&report)) }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn text(report: &Report) -> String {
    let Report { profile, limit_gflops, .. } = report;
    let (updates, whole) = (profile.updates as f64, profile.seconds());
    let mut table = Table::new(["operation", "phase", "calls", "seconds", "share %", "GFLOP", "of limit %", "MB"]);
    let mut row = |name: &str, phase: &str, line: &Line| {
        let seconds = line.seconds / updates;
        let gflop = line.flops / updates / 1e9;
        let of_limit =
            if line.flops > 0.0 { format!("{:.1}", 100.0 * gflop / seconds / limit_gflops) } else { "–".into() };
        table.row([
            name.to_owned(),
            phase.to_owned(),
            format!("{:.0}", line.calls as f64 / updates),
            format!("{seconds:.5}"),
            format!("{:.2}", 100.0 * seconds / whole),
            if line.flops > 0.0 { format!("{gflop:.3}") } else { "–".into() },
            of_limit,
            if line.bytes > 0.0 { format!("{:.1}", line.bytes / updates / 1e6) } else { "–".into() },
        ]);
    };
    for line in &profile.lines {
        let phase = match line.phase {
            Phase::Detached => "forward",
            Phase::Recorded => "forward, recorded",
            Phase::Backward => "backward",
            Phase::Outside => "",
        };
        row(line.name, phase, line);
    }
    let sum = |of: fn(&Line) -> f64| profile.lines.iter().map(of).sum::<f64>();
    let (seconds, flops, bytes) = (sum(|l| l.seconds), sum(|l| l.flops), sum(|l| l.bytes));
    let calls = profile.lines.iter().map(|line| line.calls).sum();
    row("all", "", &Line { name: "all", phase: Phase::Outside, calls, seconds, flops, bytes });
    format!(
        "{table}\nper update, batch {}; seconds are means over {} lanes; limit {limit_gflops:.0} GFLOP/s, {}, {}\n\
         the stopwatches cost {:.2} % ({:.4} s with, {:.4} s without them)\n",
        profile.batch,
        profile.lanes,
        report.precision,
        report.simd,
        100.0 * report.overhead,
        report.seconds,
        report.seconds_without,
    )
}

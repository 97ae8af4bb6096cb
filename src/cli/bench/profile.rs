//! `trm bench --profile`: where the time of a training step goes.

use std::time::Instant;

use serde::Serialize;

use super::limit::FmaLimit;
use super::{Args, Rate, format_names, median, precision_name};
use crate::cli::{print, print_json};
use crate::config::Config;
use crate::engine::{Lanes, ProductLimits, TrainingDevice, precision_for};
use crate::error::Result;
use crate::perf::{Profile, Work, Workload};
use crate::report::Table;
use crate::simd;
use crate::tape::profile::{Phase, Timing};

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
    /// The same of products in eight bits alone; 0 where there are none.
    int8_limit_gflops: f64,
    /// The same of the others alone.
    usual_limit_gflops: f64,
    /// Share of an update's time that operations with products take (with what they do beside: activation, softmax, norm).
    products_share: f64,
    /// What share of the limit they reach.
    products_of_limit: f64,
    /// What copies between memory and itself reach, in GB/s read and written together.
    copy_limit_gbs: f64,
    device: &'static str,
    hardware: &'static str,
    precision: &'static str,
    /// The number formats of products.
    formats: String,
    simd: &'static str,
}

/// Seconds for which copies are measured.
const COPY_SECONDS: f64 = 0.1;

pub fn run<D: TrainingDevice>(args: &Args, lanes: &Lanes<D>, config: Config) -> Result<()> {
    let precision = precision_for::<D>(config.train.precision);
    let formats = format_names(precision, &config);
    // Before the workload takes the memory.
    let copy_limit_gbs = lanes.copy_limit(COPY_SECONDS);
    let mut workload = Workload::new(lanes, config)?;
    workload.run(Work::Train)?;
    let int8_share = workload.int8_share(Work::Train);
    let mut limit = FmaLimit::new(lanes, precision, int8_share);
    let (started, mut on, mut off) = (Instant::now(), Vec::new(), Vec::new());
    let mut profile: Option<Profile> = None;
    // With and without stopwatches in turn, so that both see the same neighbours.
    while on.len() < 3 || started.elapsed().as_secs_f64() < args.seconds {
        let start = Instant::now();
        workload.run(Work::Train)?;
        off.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let more = workload.profile(1)?;
        on.push(start.elapsed().as_secs_f64());
        match &mut profile {
            Some(profile) => profile.add(&more),
            None => profile = Some(more),
        }
        limit.refresh();
    }
    let (seconds, seconds_without) = (median(&mut on), median(&mut off));
    let model_flops = workload.model_flops(Work::Train);
    let (limits, limit_gflops) = limit.finish(model_flops / off[0] / 1e9);
    let profile = profile.expect("there were three");
    let with_products = profile.lines.iter().filter(|line| line.flops > 0.0);
    let products = with_products.fold([0.0; 2], |[seconds, ideal], line| {
        [seconds + line.seconds, ideal + line.flops / 1e9 / limits.of(line.int8_flops / line.flops)]
    });
    let report = Report {
        products_share: products[0] / profile.updates as f64 / profile.seconds(),
        products_of_limit: products[1] / products[0].max(f64::MIN_POSITIVE),
        profile,
        seconds,
        seconds_without,
        overhead: seconds / seconds_without - 1.0,
        model_flops,
        limit_gflops,
        usual_limit_gflops: limits.usual,
        int8_limit_gflops: limits.int8,
        copy_limit_gbs,
        device: D::NAME,
        hardware: D::hardware(),
        precision: precision_name(precision),
        formats,
        simd: simd::isa().name(),
    };
    if args.json { print_json(&report) } else { print(&text(&report)) }
}

fn text(report: &Report) -> String {
    let Report { profile, limit_gflops, copy_limit_gbs, .. } = report;
    let (updates, whole) = (profile.updates as f64, profile.seconds());
    let rate = Rate::for_limit(*limit_gflops);
    let mut table = Table::new([
        "operation",
        "phase",
        "calls",
        "seconds",
        "share %",
        "GFLOP",
        rate.unit,
        "of limit %",
        "MB",
        "of bandwidth %",
    ]);
    let limits = ProductLimits { usual: report.usual_limit_gflops, int8: report.int8_limit_gflops };
    let mut row = |name: &str, phase: &str, sums: [f64; 5]| {
        let [calls, seconds, gflop, mb, int8] = sums.map(|sum| sum / updates);
        let limit = limits.of(int8 / gflop.max(1.0));
        let (gflop, mb) = (gflop / 1e9, mb / 1e6);
        let known = |value: f64, text: String| if value > 0.0 { text } else { "–".into() };
        table.row([
            name.to_owned(),
            phase.to_owned(),
            format!("{calls:.0}"),
            format!("{seconds:.5}"),
            format!("{:.2}", 100.0 * seconds / whole),
            known(gflop, format!("{gflop:.3}")),
            known(gflop, rate.show(gflop / seconds)),
            known(gflop, format!("{:.1}", 100.0 * gflop / seconds / limit)),
            known(mb, format!("{mb:.1}")),
            known(mb, format!("{:.1}", 100.0 * mb / 1e3 / seconds / copy_limit_gbs)),
        ]);
    };
    let sums = |line: &Timing| [line.calls as f64, line.seconds, line.flops, line.bytes, line.int8_flops];
    let mut all = [0.0; 5];
    for line in &profile.lines {
        let phase = match line.phase {
            Phase::Detached => "forward",
            Phase::Recorded => "forward, recorded",
            Phase::Backward => "backward",
            Phase::Outside(_) => "",
        };
        row(line.name, phase, sums(line));
        all.iter_mut().zip(sums(line)).for_each(|(to, sum)| *to += sum);
    }
    row("all", "", all);
    let seconds = if profile.lanes > 1 { format!("means over {} lanes", profile.lanes) } else { "of one lane".into() };
    format!(
        "{table}\nper update, batch {}; seconds are {seconds}; limit {} {}; bandwidth {copy_limit_gbs:.0} GB/s\n\
         operations with products, in {} on {}: {:.1} % of the step, at {:.1} % of the limit\n\
         the stopwatches cost {:.2} % ({:.4} s with, {:.4} s without them)\n",
        profile.batch,
        rate.show(*limit_gflops),
        rate.unit,
        report.formats,
        report.hardware,
        100.0 * report.products_share,
        100.0 * report.products_of_limit,
        100.0 * report.overhead,
        report.seconds,
        report.seconds_without,
    )
}

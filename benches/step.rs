//! The whole step, a training update and a forward pass, by criterion: `cargo bench -p trm-benches --bench step`.
//!
//! Throughput is model FLOP/s (counted as in `src/model/flops.rs`), printed as elements per second. For the share of the
//! processor's limit, memory and JSON see `trm bench`; against PyTorch `benches/peer/run`.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use trm::config::Config;
use trm::engine::Lanes;
use trm::perf::{Work, Workload};

/// Preset, batch (the published ones would take seconds a step), number formats.
const CASES: [(&str, usize, &[&str]); 4] = [
    ("sudoku-6x6", 32, &["f32", "bf16"]),
    ("sudoku-4x4", 32, &["f32"]),
    ("sudoku-extreme", 8, &["f32", "bf16"]),
    ("sudoku-extreme-att", 8, &["f32", "bf16"]),
];

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let lanes = Lanes::new(trm::device::available()).expect("threads");
    for (preset, batch, precisions) in CASES {
        for precision in precisions {
            let sets = [format!("train.batch_size={batch}"), format!("train.precision=\"{precision}\"")];
            let config = Config::resolve(Some(preset), None, &sets).expect("a preset");
            let mut group = criterion.benchmark_group(format!("{preset}/batch {batch}/{precision}"));
            // The same number of steps in every sample: a step of the published model is long.
            group.sampling_mode(SamplingMode::Flat);
            for (name, work) in [("train", Work::Train), ("forward", Work::Forward)] {
                let mut workload = Workload::new(&lanes, config.clone()).expect("room for it");
                group.throughput(Throughput::Elements(workload.model_flops(work) as u64));
                let id = BenchmarkId::new(name, lanes.threads());
                group.bench_function(id, |bencher| bencher.iter(|| workload.run(work).expect("a step")));
            }
            group.finish();
        }
    }
}

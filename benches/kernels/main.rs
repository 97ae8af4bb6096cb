//! The kernels on the presets' shapes, per instruction set: `cargo bench -p trm-benches --bench kernels`.
//!
//! Criterion times each kernel; before that tables give GFLOP/s, the share of the FMA limit measured in the same
//! process, and the crates `matrixmultiply` and `gemm` on the same product (best of many runs, one thread). `TRM_SIMD`
//! limits the run to one path. `cargo bench -p trm-benches --bench kernels -- table` prints the tables alone;
//! `cargo bench -p trm-benches --bench kernels -- products [THREADS]` prints the forward products as JSON, for `benches/peer/run`.

mod tables;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use trm::simd::{ISA_VARIABLE, Isa, Precision, choose_isa};

/// One benchmark, with FLOP/s as its throughput.
fn time(group: &mut BenchmarkGroup<WallTime>, name: &str, flops: f64, mut work: impl FnMut()) {
    group.throughput(Throughput::Elements(flops as u64));
    group.bench_function(name, |bencher| bencher.iter(&mut work));
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "products") {
        let threads = arguments.get(at + 1).and_then(|n| n.parse().ok()).unwrap_or_else(trm::device::available);
        return tables::products(threads);
    }
    let paths: Vec<Isa> = match std::env::var_os(ISA_VARIABLE) {
        Some(_) => vec![choose_isa().unwrap_or_else(|error| panic!("{error}"))],
        None => Isa::available().collect(),
    };
    for &isa in &paths {
        isa.run(|| {
            for precision in [Precision::F32, Precision::Bf16] {
                tables::kernels(precision);
            }
            tables::elementwise();
        });
    }
    if arguments.iter().any(|argument| argument == "table") {
        return;
    }
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .configure_from_args();
    for isa in paths {
        for precision in [Precision::F32, Precision::Bf16] {
            isa.run(|| {
                let name = |case: &str| format!("{isa}/{precision:?}/{case}");
                for (case, mut product) in cases::products(precision) {
                    let flops = product.flops();
                    let mut group = criterion.benchmark_group(name(case));
                    time(&mut group, "forward", flops, || black_box(&mut product).forward());
                    time(&mut group, "backward", flops, || black_box(&mut product).backward());
                    time(&mut group, "gradient", flops, || black_box(&mut product).gradient());
                }
                for (case, mut attention) in cases::attentions(precision) {
                    let flops = attention.flops();
                    let mut group = criterion.benchmark_group(name(case));
                    time(&mut group, "forward", flops, || black_box(&mut attention).forward());
                    time(&mut group, "backward", 2.0 * flops, || black_box(&mut attention).backward());
                }
                for (case, mut swiglu) in cases::swiglus(precision) {
                    let flops = swiglu.flops();
                    let mut group = criterion.benchmark_group(name(case));
                    time(&mut group, "detached", flops, || black_box(&mut swiglu).detached());
                    time(&mut group, "recorded", flops, || black_box(&mut swiglu).recorded());
                    time(&mut group, "int8", flops, || black_box(&mut swiglu).int8());
                    time(&mut group, "backward", flops, || black_box(&mut swiglu).backward());
                }
            });
        }
    }
}

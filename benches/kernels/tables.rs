//! The tables: GFLOP/s, the share of the FMA limit, and other people's products, as text and as JSON.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::json;
use trm::simd::{
    AdamCoefficients, PackedWeight, Precision, Side, Update, adam_step, add_rmsnorm_cols, add_rmsnorm_rows, fma_limit,
    int8_limit,
};

use cases::{self, Library, Product, values};

/// Shortest of many runs, in seconds.
fn best(mut work: impl FnMut()) -> f64 {
    work();
    let end = Instant::now() + Duration::from_millis(150);
    let mut best = f64::INFINITY;
    loop {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
        if Instant::now() >= end {
            return best;
        }
    }
}

/// Every kernel that multiplies matrices, in one number format.
pub fn kernels(precision: Precision) {
    let limit = fma_limit(precision, 0.5);
    println!("\n{} {precision:?}, one thread, FMA limit {limit:.0} GFLOP/s", trm::simd::isa());
    println!("| product | forward | backward | weight gradient | plain f32 | matrixmultiply f32 | gemm f32 |");
    println!("|---|---|---|---|---|---|---|");
    let figure = |flops: f64, time: f64| {
        let gflops = flops / time / 1e9;
        format!("{gflops:.0} ({:.0} %)", 100.0 * gflops / limit)
    };
    for (name, mut case) in cases::products(precision) {
        let flops = case.flops();
        let forward = figure(flops, best(|| case.forward()));
        let backward = figure(flops, best(|| case.backward()));
        let gradient = figure(flops, best(|| case.gradient()));
        let plain = flops / best(|| case.plain()) / 1e9;
        let [matrixmultiply, gemm] = [Library::Matrixmultiply, Library::Gemm { threads: 1 }]
            .map(|library| flops / best(|| case.peer(library)) / 1e9);
        println!("| {name} | {forward} | {backward} | {gradient} | {plain:.0} | {matrixmultiply:.0} | {gemm:.0} |");
    }
    for (name, mut case) in cases::attentions(precision) {
        let flops = case.flops();
        let forward = figure(flops, best(|| case.forward()));
        println!("| {name} | {forward} | {} | | | | |", figure(2.0 * flops, best(|| case.backward())));
    }
    let int8_limit = int8_limit(0.5);
    println!(
        "\n| | detached | recorded | backward without weight gradients | in eight bits, of {int8_limit:.0} |\n|---|---|---|---|---|"
    );
    for (name, mut case) in cases::swiglus(precision) {
        let flops = case.flops();
        let (detached, recorded) = (best(|| case.detached()), best(|| case.recorded()));
        let [detached, recorded, backward] =
            [detached, recorded, best(|| case.backward())].map(|time| figure(flops, time));
        let int8 = flops / best(|| case.int8()) / 1e9;
        let of_limit = 100.0 * int8 / int8_limit;
        println!("| {name} | {detached} | {recorded} | {backward} | {int8:.0} ({of_limit:.0} %) |");
    }
}

pub fn elementwise() {
    println!("\n{}, nanoseconds an element\n| kernel | ns |\n|---|---|", trm::simd::isa());
    let n = 388 * 512;
    let report = |name: &str, n: usize, time: f64| println!("| {name} | {:.3} |", time * 1e9 / n as f64);
    let (h, mut x) = (values(n), values(n));
    report("add_rmsnorm_rows", n, best(|| add_rmsnorm_rows(512, &h, &mut x, &mut [0.0; 388])));
    report("add_rmsnorm_cols", n, best(|| add_rmsnorm_cols(97, 512, &h, &mut x, &mut [0.0; 4 * 512])));
    let n = 1 << 20;
    let [mut p, mut m, mut e, g] = [(); 4].map(|()| values(n));
    let mut v = vec![0.1; n];
    let c = AdamCoefficients {
        update: Update::Atan2,
        beta1: 0.9,
        beta2: 0.95,
        decay: 0.99,
        step: 1e-4,
        inv_sqrt_correction2: 1.0,
        ema_rate: 0.999,
        grad_scale: 1.0,
    };
    report("adam_step (atan2)", n, best(|| adam_step(&c, &mut p, &mut m, &mut v, &mut e, &g)));
    let (mut w, values) = (PackedWeight::new(3072, 512, Side::Rows, Precision::F32), values(3072 * 512));
    report("pack, forward and backward", 3072 * 512, best(|| w.pack(&values)));
}

/// GFLOP/s of the forward product of shape `index` on `threads` threads that each have rows of their own, as lanes do.
fn together(precision: Precision, index: usize, threads: usize, work: impl Fn(&mut Product) + Sync) -> f64 {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let run = || {
            let (_, mut case) = cases::products(precision).nth(index).expect("a shape");
            start.wait();
            case.flops() / best(|| work(&mut case)) / 1e9
        };
        let lanes: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        lanes.into_iter().map(|lane| lane.join().expect("a measurement")).sum()
    })
}

/// The forward products as JSON: each shape, who multiplies it how fast, on one thread and on `threads`.
pub fn products(threads: usize) {
    let mut rows = Vec::new();
    for threads in [1, threads].into_iter().take(threads.min(2)) {
        for precision in [Precision::F32, Precision::Bf16] {
            let lanes = trm::engine::Lanes::new(threads).expect("threads");
            let limit = lanes.fma_limit(precision, 0.0, 0.5);
            for (index, (name, case)) in cases::products(precision).enumerate() {
                let (n_out, n_in) = case.weight.shape();
                let ours = together(precision, index, threads, Product::forward);
                let mut others = [None; 2];
                if precision == Precision::F32 {
                    let matrixmultiply = |case: &mut Product| case.peer(Library::Matrixmultiply);
                    let mut whole = Product::new(precision, n_out, n_in, case.rows * threads);
                    let gemm = whole.flops() / best(|| whole.peer(Library::Gemm { threads })) / 1e9;
                    others = [Some(together(precision, index, threads, matrixmultiply)), Some(gemm)];
                }
                rows.push(json!({
                    "name": name, "rows": case.rows, "in": n_in, "out": n_out,
                    "threads": threads, "precision": if precision == Precision::F32 { "f32" } else { "bf16" },
                    "limit_gflops": limit, "trm": ours, "matrixmultiply": others[0], "gemm": others[1],
                }));
            }
        }
    }
    println!("{}", json!({ "simd": trm::simd::isa().name(), "products": rows }));
}

//! The plain GEMM: matrices as they lie in memory, and how fast it is here. `cargo run --release --example gemm -- 768 512 3072`

use std::time::Instant;

use trm::simd::{Matrix, gemm};

fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).map(|size| size.parse().expect("sizes m k n")).collect();
    let [m, k, n] = sizes.try_into().unwrap_or([512, 512, 512]);
    let a: Vec<f32> = (0..m * k).map(|i| (i % 13) as f32 - 6.0).collect();
    let b: Vec<f32> = (0..k * n).map(|i| (i % 7) as f32 - 3.0).collect();
    let mut c = vec![0.0f32; m * n];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);

    // The transpose moves nothing: aᵀ here is [m, k] read from [k, m].
    gemm(Matrix::new(&a, k, m).transposed(), Matrix::new(&b, k, n), &mut c, false, threads);
    let (i, j) = (m / 2, n / 3);
    let expected: f32 = (0..k).map(|l| a[l * m + i] * b[l * n + j]).sum();
    assert_eq!(c[i * n + j], expected, "small integers have exact sums");

    let best = (0..20).map(|_| {
        let start = Instant::now();
        gemm(Matrix::new(&a, m, k), Matrix::new(&b, k, n), &mut c, false, threads);
        start.elapsed().as_secs_f64()
    });
    let best = best.fold(f64::INFINITY, f64::min);
    println!("{m} × {k} · {k} × {n} on {threads} threads: {:.1} GFLOP/s", 2e-9 * (m * k * n) as f64 / best);
}

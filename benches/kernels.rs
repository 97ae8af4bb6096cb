//! The kernels on the presets' shapes, per instruction set: `cargo bench --bench kernels`.
//!
//! Criterion times each product; before that one table gives GFLOP/s, the share of the FMA limit measured in the same
//! process, and the crates `matrixmultiply` and `gemm` on the same product (best of many runs, one thread). `TRM_SIMD`
//! limits the run to one path. `cargo bench --bench kernels -- table` prints the tables alone;
//! `cargo bench --bench kernels -- products [THREADS]` prints the forward products as JSON, for `benches/peer/run`.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use gemm::Parallelism;
use serde_json::json;
use trm::simd::{
    AdamCoefficients, AttentionShape, ISA_VARIABLE, Isa, Precision, RopeTable, Side, SwigluOperands, Update, Weight,
    adam_step, add_rmsnorm_cols, add_rmsnorm_rows, attention_backward, attention_forward, choose_isa, fma_limit,
    gathered_gate_up_len, gathered_len, swiglu, swiglu_backward, swiglu_saved_len, weight_grad_rows,
};

/// `[rows, in] → [rows, out]`: features of D 512 (4 sequences of 97), D 96 (4 of 37), D 128 (8 of 20).
const ROWS: [(&str, usize, usize, usize); 10] = [
    ("gate_up D512", 388, 512, 3072),
    ("down D512", 388, 1536, 512),
    ("qkv D512", 388, 512, 1536),
    ("out D512", 388, 512, 512),
    ("gate_up D512, one puzzle", 97, 512, 3072),
    ("gate_up D96", 148, 96, 512),
    ("down D96", 148, 256, 96),
    ("gate_up D128", 160, 128, 1024),
    ("down D128", 160, 512, 128),
    ("lm_head D512", 388, 512, 11),
];

/// `W [out, in] · X [in, n]`: positions of L 97, 37, 20.
const COLS: [(&str, usize, usize, usize); 6] = [
    ("gate_up L97", 1024, 97, 512),
    ("down L97", 97, 512, 512),
    ("gate_up L37", 512, 37, 96),
    ("down L37", 37, 256, 96),
    ("gate_up L20", 512, 20, 128),
    ("down L20", 20, 256, 128),
];

fn values(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

/// One weight with everything its three products need.
struct Case {
    weight: Weight<f32>,
    side: Side,
    precision: Precision,
    values: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    other: usize,
}

impl Case {
    fn new(side: Side, precision: Precision, n_out: usize, n_in: usize, other: usize) -> Self {
        let mut weight = Weight::with(n_out, n_in, side, precision);
        let w = values(n_out * n_in);
        weight.pack(&w);
        let (x, dy) = (values(other * n_in), values(other * n_out));
        let (y, dx, dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        Self { weight, side, precision, values: w, x, dy, y, dx, dw, other }
    }

    fn flops(&self) -> f64 {
        2.0 * (self.values.len() * self.other) as f64
    }

    fn forward(&mut self) {
        match self.side {
            Side::Cols => self.weight.forward_cols(&self.x, &mut self.y),
            _ => self.weight.forward_rows(&self.x, &mut self.y, None),
        }
    }

    fn backward(&mut self) {
        match self.side {
            Side::Cols => self.weight.backward_cols(&self.dy, &mut self.dx, true),
            _ => self.weight.backward_rows(&self.dy, &mut self.dx, true),
        }
    }

    fn gradient(&mut self) {
        let shape = self.weight.shape();
        weight_grad_rows(self.precision, shape, 1.0, &self.dy, &self.x, &mut self.dw);
    }

    /// The forward product by another crate.
    fn peer(&mut self, library: Library) {
        let (n_out, n_in) = self.weight.shape();
        let (out, inner, other) = (n_out as isize, n_in as isize, self.other as isize);
        let (w, x, y) = (self.values.as_ptr(), self.x.as_ptr(), self.y.as_mut_ptr());
        // y [m, n] = a [m, inner] · b [inner, n]; strides of rows and columns.
        let (m, n, a, a_rows, b, (b_rows, b_cols), y_rows) = match self.side {
            Side::Cols => (n_out, self.other, w, inner, x, (other, 1), other),
            _ => (self.other, n_out, x, inner, w, (1, inner), out),
        };
        // SAFETY: the slices hold the matrices these shapes and strides describe.
        unsafe {
            match library {
                Library::Matrixmultiply => {
                    matrixmultiply::sgemm(m, n_in, n, 1.0, a, a_rows, 1, b, b_rows, b_cols, 0.0, y, y_rows, 1);
                }
                Library::Gemm { threads } => {
                    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
                    gemm::gemm(
                        m,
                        n,
                        n_in,
                        y,
                        1,
                        y_rows,
                        false,
                        a,
                        1,
                        a_rows,
                        b,
                        b_cols,
                        b_rows,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        parallelism,
                    );
                }
            }
        }
    }
}

/// Other people's products.
#[derive(Clone, Copy)]
enum Library {
    Matrixmultiply,
    Gemm { threads: usize },
}

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

fn cases(precision: Precision) -> impl Iterator<Item = (&'static str, Case)> {
    let rows = ROWS.iter().map(move |&(name, m, k, n)| (name, Case::new(Side::Rows, precision, n, k, m)));
    let cols = COLS.iter().map(move |&(name, out, inner, n)| (name, Case::new(Side::Cols, precision, out, inner, n)));
    rows.chain(cols)
}

fn attention_shapes() -> [(&'static str, AttentionShape); 3] {
    let shape = |sequences, len, heads| AttentionShape { sequences, len, heads, head_dim: 64 };
    [("attention L97", shape(4, 97, 8)), ("attention L916", shape(1, 916, 8)), ("attention D128 L20", shape(8, 20, 2))]
}

fn table(precision: Precision) {
    let limit = fma_limit(precision, 0.5);
    println!("\n{} {precision:?}, one thread, FMA limit {limit:.0} GFLOP/s", trm::simd::isa());
    println!("| product | forward | backward | weight gradient | matrixmultiply f32 | gemm f32 |");
    println!("|---|---|---|---|---|---|");
    let figure = |gflop: f64, time: f64| format!("{:.0} ({:.0} %)", gflop / time, 100.0 * gflop / time / limit);
    for (name, mut case) in cases(precision) {
        let gflop = case.flops() / 1e9;
        let (forward, backward) = (best(|| case.forward()), best(|| case.backward()));
        let gradient = figure(gflop, best(|| case.gradient()));
        let [matrixmultiply, gemm] =
            [Library::Matrixmultiply, Library::Gemm { threads: 1 }].map(|library| gflop / best(|| case.peer(library)));
        let (forward, backward) = (figure(gflop, forward), figure(gflop, backward));
        println!("| {name} | {forward} | {backward} | {gradient} | {matrixmultiply:.0} | {gemm:.0} |");
    }
    for (name, shape) in attention_shapes() {
        let n = shape.sequences * shape.len * shape.width();
        let rope = RopeTable::new(shape.len, shape.head_dim);
        let (mut qkv, mut out, d_out) = (values(3 * n), vec![0.0; n], values(n));
        let mut lse = vec![0.0; shape.sequences * shape.heads * shape.len];
        let mut d_qkv = vec![0.0; 3 * n];
        // Counted: two products forward, four backward; the scores computed again are not.
        let gflop = 4.0 * (n * shape.len) as f64 / 1e9;
        let forward = best(|| {
            attention_forward(precision, &shape, Some(&rope), &mut qkv, &mut out, &mut lse);
        });
        let backward = best(|| {
            d_qkv.fill(0.0);
            let (rope, ones) = (Some(&rope), [1.0; 3]);
            attention_backward(precision, &shape, rope, &qkv, &out, &lse, &d_out, &mut d_qkv, ones);
        });
        println!("| {name} | {} | {} | | | |", figure(gflop, forward), figure(2.0 * gflop, backward));
    }
}

/// Memory on cache lines, as the arena has it.
struct Lines(Vec<[f32; 16]>);

impl Lines {
    fn new(n: usize) -> Self {
        let mut lines = Vec::new();
        trm::simd::reserve(&mut lines, n.div_ceil(16) + 4);
        lines.resize(n.div_ceil(16) + 4, [0.25; 16]);
        Self(lines)
    }

    fn first(&mut self, n: usize) -> &mut [f32] {
        let lines = self.0.as_flattened_mut();
        let before = lines.as_ptr().align_offset(64);
        &mut lines[before..before + n]
    }
}

/// SwiGLU of D 512, L 97, four sequences: as the detached calls run it, as the recorded ones do, and backwards up to the
/// packed operands of the weights' gradients. What is saved and packed belongs to one of 14 uses (seven calls of two
/// blocks), so that it comes from memory and goes there, as in a step.
fn swiglu_table(precision: Precision) {
    const USES: usize = 14;
    let limit = fma_limit(precision, 0.5);
    println!("\n{} {precision:?}, SwiGLU of 4 sequences, share of the FMA limit", trm::simd::isa());
    println!("| over | detached | recorded | backward without weight gradients |\n|---|---|---|---|");
    // One product of so many rows, or of so many columns four times.
    let sides = [("features", Side::Rows, 512, 1536, 388, 1), ("positions", Side::Cols, 97, 512, 512, 4)];
    for (name, side, width, inner, vectors, times) in sides {
        let mut gate_up = Weight::gate_up(inner, width, side, precision);
        let mut down = Weight::with(width, inner, side, precision);
        gate_up.pack(&values(2 * inner * width));
        down.pack(&values(inner * width));
        let saved_len = swiglu_saved_len(&gate_up, side, vectors);
        let [(dy_len, a_len), (x_len, dh_len)] = [
            gathered_len::<f32>(precision, (width, inner), vectors),
            gathered_gate_up_len::<f32>(precision, (2 * inner, width), vectors),
        ];
        let (x, dy) = (values(vectors * width), values(vectors * width));
        let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
        let mut saved: Vec<Lines> = (0..USES * times).map(|_| Lines::new(saved_len)).collect();
        let lens = [dy_len, a_len, x_len, dh_len];
        let mut operands: Vec<[Lines; 4]> = (0..USES * times).map(|_| lens.map(Lines::new)).collect();
        let mut next = 0;
        let mut turn = || {
            next = (next + 1) % USES;
            next * times..(next + 1) * times
        };
        let detached = best(|| (0..times).for_each(|_| swiglu(side, &gate_up, &down, &x, None, &mut y, None)));
        let recorded = best(|| {
            for i in turn() {
                swiglu(side, &gate_up, &down, &x, Some(saved[i].first(saved_len)), &mut y, None);
            }
        });
        let back = best(|| {
            for i in turn() {
                let [a, b, c, d] = &mut operands[i];
                let down_to = [a.first(dy_len), b.first(a_len)];
                let to = SwigluOperands { down: down_to, gate_up: [c.first(x_len), d.first(dh_len)] };
                let saved = saved[i].first(saved_len);
                swiglu_backward(side, (&gate_up, &down), [1.0, 1.0], (&dy, saved, &x), to, Some(&mut dx));
            }
        });
        let gflop = 6.0 * (vectors * width * inner * times) as f64 / 1e9;
        let share = |seconds: f64| format!("{:.1} %", 100.0 * gflop / seconds / limit);
        println!("| {name} | {} | {} | {} |", share(detached), share(recorded), share(back));
    }
}

fn elementwise() {
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
    let (mut w, values) = (Weight::with(3072, 512, Side::Rows, Precision::F32), values(3072 * 512));
    report("pack, forward and backward", 3072 * 512, best(|| w.pack(&values)));
}

/// GFLOP/s of the forward product of shape `index` on `threads` threads that each have rows of their own, as lanes do.
fn together(precision: Precision, index: usize, threads: usize, work: impl Fn(&mut Case) + Sync) -> f64 {
    let start = Barrier::new(threads);
    std::thread::scope(|scope| {
        let run = || {
            let (_, mut case) = cases(precision).nth(index).expect("a shape");
            start.wait();
            case.flops() / best(|| work(&mut case)) / 1e9
        };
        let lanes: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        lanes.into_iter().map(|lane| lane.join().expect("a measurement")).sum()
    })
}

/// The forward products as JSON: each shape, who multiplies it how fast, on one thread and on `threads`.
fn products(threads: usize) {
    let mut rows = Vec::new();
    for threads in [1, threads].into_iter().take(threads.min(2)) {
        for precision in [Precision::F32, Precision::Bf16] {
            let lanes = trm::train::Lanes::new(threads).expect("threads");
            let limit = lanes.fma_limit(precision, 0.5);
            for (index, (name, case)) in cases(precision).enumerate() {
                let (n_out, n_in) = case.weight.shape();
                let ours = together(precision, index, threads, Case::forward);
                let mut others = [None; 2];
                if precision == Precision::F32 {
                    let matrixmultiply = |case: &mut Case| case.peer(Library::Matrixmultiply);
                    let mut whole = Case::new(case.side, precision, n_out, n_in, case.other * threads);
                    let gemm = whole.flops() / best(|| whole.peer(Library::Gemm { threads })) / 1e9;
                    others = [Some(together(precision, index, threads, matrixmultiply)), Some(gemm)];
                }
                rows.push(json!({
                    "name": name, "rows": case.other, "in": n_in, "out": n_out,
                    "threads": threads, "precision": if precision == Precision::F32 { "f32" } else { "bf16" },
                    "limit_gflops": limit, "trm": ours, "matrixmultiply": others[0], "gemm": others[1],
                }));
            }
        }
    }
    println!("{}", json!({ "simd": trm::simd::isa().name(), "products": rows }));
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "products") {
        let threads = arguments.get(at + 1).and_then(|n| n.parse().ok()).unwrap_or_else(trm::train::Lanes::available);
        return products(threads);
    }
    let paths: Vec<Isa> = match std::env::var_os(ISA_VARIABLE) {
        Some(_) => vec![choose_isa().unwrap_or_else(|error| panic!("{error}"))],
        None => Isa::available().collect(),
    };
    for &isa in &paths {
        isa.run(|| {
            for precision in [Precision::F32, Precision::Bf16] {
                table(precision);
                swiglu_table(precision);
            }
            elementwise();
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
                for (name, mut case) in cases(precision) {
                    let mut group = criterion.benchmark_group(format!("{isa}/{precision:?}/{name}"));
                    group.throughput(Throughput::Elements(case.flops() as u64));
                    group.bench_function("forward", |b| b.iter(|| black_box(&mut case).forward()));
                    group.bench_function("backward", |b| b.iter(|| black_box(&mut case).backward()));
                    group.bench_function("gradient", |b| b.iter(|| black_box(&mut case).gradient()));
                    group.finish();
                }
            });
        }
    }
}

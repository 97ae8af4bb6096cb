//! What is timed: a product with its twins backwards, attention, SwiGLU, each on the shapes of the presets.

use gemm::Parallelism;
use trm::simd::{
    AttentionShape, Matrix, PackedWeight, Precision, RopeTable, Side, SwigluOperands, add_weight_grad,
    attention_backward, attention_forward, deferred_gate_up_len, deferred_len, gemm, swiglu, swiglu_backward,
    swiglu_int8, swiglu_saved_len,
};

/// `[rows, in] → [rows, out]`: features of D 512 (4 sequences of 97), D 96 (4 of 37), D 128 (8 of 20: two lanes' worth),
/// a 30×30 maze or ARC grid; the products over positions that have few rows; and a square of 1024.
const ROWS: [(&str, usize, usize, usize); 16] = [
    ("gate_up D512", 388, 512, 3072),
    ("down D512", 388, 1536, 512),
    ("qkv D512", 388, 512, 1536),
    ("out D512", 388, 512, 512),
    ("gate_up D512, one puzzle", 97, 512, 3072),
    ("gate_up D96", 148, 96, 512),
    ("down D96", 148, 256, 96),
    ("gate_up D128", 160, 128, 1024),
    ("down D128", 160, 512, 128),
    ("down over positions, L 20", 20, 256, 128),
    ("down over positions, L 37", 37, 256, 96),
    ("down over positions, L 97", 97, 512, 512),
    ("lm_head D512", 388, 512, 11),
    ("gate_up L916", 916, 512, 3072),
    ("down L916", 916, 1536, 512),
    ("square 1024", 1024, 1024, 1024),
];

pub fn values(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

/// One weight with everything its three products need.
pub struct Product {
    pub weight: PackedWeight<f32>,
    pub precision: Precision,
    values: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    pub rows: usize,
}

impl Product {
    pub fn new(precision: Precision, n_out: usize, n_in: usize, rows: usize) -> Self {
        let mut weight = PackedWeight::new(n_out, n_in, Side::Rows, precision);
        let w = values(n_out * n_in);
        weight.pack(&w);
        let (x, dy) = (values(rows * n_in), values(rows * n_out));
        let (y, dx, dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        Self { weight, precision, values: w, x, dy, y, dx, dw, rows }
    }

    pub fn flops(&self) -> f64 {
        2.0 * (self.values.len() * self.rows) as f64
    }

    pub fn forward(&mut self) {
        self.weight.forward_rows(&self.x, &mut self.y, None, 1);
    }

    pub fn backward(&mut self) {
        self.weight.backward_rows(&self.dy, &mut self.dx, true, 1);
    }

    pub fn gradient(&mut self) {
        let shape = self.weight.shape();
        add_weight_grad(self.precision, shape, &self.dy, &self.x, &mut self.dw);
    }

    /// The forward product from matrices as they lie in memory: packing is part of it, as it is in other crates.
    pub fn plain(&mut self) {
        let (n_out, n_in) = self.weight.shape();
        let x = Matrix::new(&self.x, self.rows, n_in);
        gemm(x, Matrix::new(&self.values, n_out, n_in).transposed(), &mut self.y, false, 1);
    }

    /// The forward product by another crate.
    pub fn peer(&mut self, library: Library) {
        let (n_out, n_in) = self.weight.shape();
        let (out, inner) = (n_out as isize, n_in as isize);
        let (w, x, y) = (self.values.as_ptr(), self.x.as_ptr(), self.y.as_mut_ptr());
        // SAFETY: the slices hold the matrices these shapes and strides describe.
        unsafe {
            match library {
                Library::Matrixmultiply => {
                    matrixmultiply::sgemm(self.rows, n_in, n_out, 1.0, x, inner, 1, w, 1, inner, 0.0, y, out, 1);
                }
                Library::Gemm { threads } => {
                    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
                    let (m, n) = (self.rows, n_out);
                    gemm::gemm(
                        m,
                        n,
                        n_in,
                        y,
                        1,
                        out,
                        false,
                        x,
                        1,
                        inner,
                        w,
                        inner,
                        1,
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
pub enum Library {
    Matrixmultiply,
    Gemm { threads: usize },
}

pub fn products(precision: Precision) -> impl Iterator<Item = (&'static str, Product)> {
    ROWS.iter().map(move |&(name, m, k, n)| (name, Product::new(precision, n, k, m)))
}

/// Attention of one shard: its inputs, and everything it writes.
pub struct Attention {
    precision: Precision,
    shape: AttentionShape,
    rope: RopeTable<f32>,
    qkv: Vec<f32>,
    out: Vec<f32>,
    lse: Vec<f32>,
    d_out: Vec<f32>,
    d_qkv: Vec<f32>,
}

impl Attention {
    pub fn new(precision: Precision, shape: AttentionShape) -> Self {
        let n = shape.sequences * shape.len * shape.width();
        Self {
            precision,
            shape,
            rope: RopeTable::new(shape.len, shape.head_dim),
            qkv: values(3 * n),
            out: vec![0.0; n],
            lse: vec![0.0; shape.sequences * shape.heads * shape.len],
            d_out: values(n),
            d_qkv: vec![0.0; 3 * n],
        }
    }

    /// Of the forward pass, two products; backwards are four, and the scores computed again are not counted.
    pub fn flops(&self) -> f64 {
        4.0 * (self.out.len() * self.shape.len) as f64
    }

    pub fn forward(&mut self) {
        attention_forward(
            self.precision,
            &self.shape,
            Some(&self.rope),
            &mut self.qkv,
            &mut self.out,
            &mut self.lse,
            1,
        );
    }

    pub fn backward(&mut self) {
        self.d_qkv.fill(0.0);
        let Self { precision, shape, rope, qkv, out, lse, d_out, d_qkv } = self;
        attention_backward(*precision, shape, Some(rope), qkv, out, lse, d_out, d_qkv, 1);
    }
}

pub fn attentions(precision: Precision) -> impl Iterator<Item = (&'static str, Attention)> {
    [("attention L97", 4, 97, 8), ("attention L916", 1, 916, 8), ("attention D128 L20", 8, 20, 2)].into_iter().map(
        move |(name, sequences, len, heads)| {
            (name, Attention::new(precision, AttentionShape { sequences, len, heads, head_dim: 64 }))
        },
    )
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

/// SwiGLU of four sequences, of D 512, L 97 and of small models: as the detached calls run it, as the recorded ones do, and backwards up to the
/// packed operands of the weights' gradients. What is saved and packed belongs to one of 14 uses (seven calls of two
/// blocks), so that it comes from memory and goes there, as in a step.
pub struct Swiglu {
    gate_up: PackedWeight<f32>,
    down: PackedWeight<f32>,
    /// Calls a turn: one over the features of all rows, or one over the positions of each sequence.
    times: usize,
    x: Vec<f32>,
    dy: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    saved_len: usize,
    saved: Vec<Lines>,
    operand_lens: [usize; 4],
    operands: Vec<[Lines; 4]>,
    flops: f64,
    turn: usize,
}

impl Swiglu {
    const USES: usize = 14;

    fn new(precision: Precision, side: Side, width: usize, inner: usize, vectors: usize, times: usize) -> Self {
        let mut gate_up = PackedWeight::gate_up(inner, width, side, precision).with_int8();
        let mut down = PackedWeight::new(width, inner, side, precision).with_int8();
        gate_up.pack(&values(2 * inner * width));
        down.pack(&values(inner * width));
        let saved_len = swiglu_saved_len(&gate_up, vectors);
        let [(dy_len, a_len), (x_len, dh_len)] = [
            deferred_len::<f32>(precision, (width, inner), vectors),
            deferred_gate_up_len::<f32>(precision, (2 * inner, width), vectors),
        ];
        let operand_lens = [dy_len, a_len, x_len, dh_len];
        let n = vectors * width;
        let uses = Self::USES * times;
        Self {
            gate_up,
            down,
            times,
            x: values(n),
            dy: values(n),
            y: vec![0.0; n],
            dx: vec![0.0; n],
            saved_len,
            saved: (0..uses).map(|_| Lines::new(saved_len)).collect(),
            operand_lens,
            operands: (0..uses).map(|_| operand_lens.map(Lines::new)).collect(),
            flops: 6.0 * (n * inner * times) as f64,
            turn: 0,
        }
    }

    /// Of the forward pass, and of the backward one without the weights' gradients.
    pub fn flops(&self) -> f64 {
        self.flops
    }

    pub fn detached(&mut self) {
        for _ in 0..self.times {
            swiglu(&self.gate_up, &self.down, &self.x, None, &mut self.y, None, 1);
        }
    }

    /// As [`Swiglu::detached`], in whole numbers of eight bits.
    pub fn int8(&mut self) {
        for _ in 0..self.times {
            swiglu_int8(&self.gate_up, &self.down, &self.x, &mut self.y, None, 1);
        }
    }

    pub fn recorded(&mut self) {
        for i in self.next_use() {
            let saved = Some(self.saved[i].first(self.saved_len));
            swiglu(&self.gate_up, &self.down, &self.x, saved, &mut self.y, None, 1);
        }
    }

    pub fn backward(&mut self) {
        let [dy_len, a_len, x_len, dh_len] = self.operand_lens;
        for i in self.next_use() {
            let [a, b, c, d] = &mut self.operands[i];
            let down = [a.first(dy_len), b.first(a_len)];
            let to = SwigluOperands { down, gate_up: [c.first(x_len), d.first(dh_len)] };
            let saved = self.saved[i].first(self.saved_len);
            let weights = (&self.gate_up, &self.down);
            swiglu_backward(weights, (&self.dy, saved, &self.x), to, Some(&mut self.dx), 1);
        }
    }

    fn next_use(&mut self) -> std::ops::Range<usize> {
        self.turn = (self.turn + 1) % Self::USES;
        self.turn * self.times..(self.turn + 1) * self.times
    }
}

pub fn swiglus(precision: Precision) -> impl Iterator<Item = (&'static str, Swiglu)> {
    [
        ("swiglu over features", Side::Rows, 512, 1536, 388, 1),
        ("swiglu over positions", Side::Cols, 97, 512, 512, 4),
        ("swiglu over features D96", Side::Rows, 96, 256, 148, 1),
        ("swiglu over positions D96 L37", Side::Cols, 37, 128, 96, 4),
        ("swiglu over features D128", Side::Rows, 128, 512, 328, 1),
        ("swiglu over positions D128 L82", Side::Cols, 82, 256, 128, 4),
    ]
    .into_iter()
    .map(move |(name, side, width, inner, vectors, times)| {
        (name, Swiglu::new(precision, side, width, inner, vectors, times))
    })
}

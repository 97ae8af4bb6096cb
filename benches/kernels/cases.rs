//! What is timed: a product with its twins backwards, attention, SwiGLU, each on the shapes of the presets.

use gemm::Parallelism;
use trm::simd::{
    AttentionShape, Precision, RopeTable, Side, SwigluOperands, Weight, attention_backward, attention_forward,
    gathered_gate_up_len, gathered_len, swiglu, swiglu_backward, swiglu_saved_len, weight_grad_rows,
};

/// `[rows, in] → [rows, out]`: features of D 512 (4 sequences of 97), D 96 (4 of 37), D 128 (8 of 20: two lanes' worth),
/// a 30×30 maze or ARC grid.
const ROWS: [(&str, usize, usize, usize); 12] = [
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
    ("gate_up L916", 916, 512, 3072),
    ("down L916", 916, 1536, 512),
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
    pub weight: Weight<f32>,
    pub side: Side,
    pub precision: Precision,
    values: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
    pub other: usize,
}

impl Product {
    pub fn new(side: Side, precision: Precision, n_out: usize, n_in: usize, other: usize) -> Self {
        let mut weight = Weight::with(n_out, n_in, side, precision);
        let w = values(n_out * n_in);
        weight.pack(&w);
        let (x, dy) = (values(other * n_in), values(other * n_out));
        let (y, dx, dw) = (vec![0.0; dy.len()], vec![0.0; x.len()], vec![0.0; w.len()]);
        Self { weight, side, precision, values: w, x, dy, y, dx, dw, other }
    }

    pub fn flops(&self) -> f64 {
        2.0 * (self.values.len() * self.other) as f64
    }

    pub fn forward(&mut self) {
        match self.side {
            Side::Cols => self.weight.forward_cols(&self.x, &mut self.y),
            _ => self.weight.forward_rows(&self.x, &mut self.y, None),
        }
    }

    pub fn backward(&mut self) {
        match self.side {
            Side::Cols => self.weight.backward_cols(&self.dy, &mut self.dx, true),
            _ => self.weight.backward_rows(&self.dy, &mut self.dx, true),
        }
    }

    pub fn gradient(&mut self) {
        let shape = self.weight.shape();
        weight_grad_rows(self.precision, shape, 1.0, &self.dy, &self.x, &mut self.dw);
    }

    /// The forward product by another crate.
    pub fn peer(&mut self, library: Library) {
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
pub enum Library {
    Matrixmultiply,
    Gemm { threads: usize },
}

pub fn products(precision: Precision) -> impl Iterator<Item = (&'static str, Product)> {
    let rows = ROWS.iter().map(move |&(name, m, k, n)| (name, Product::new(Side::Rows, precision, n, k, m)));
    let cols =
        COLS.iter().map(move |&(name, out, inner, n)| (name, Product::new(Side::Cols, precision, out, inner, n)));
    rows.chain(cols)
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
        attention_forward(self.precision, &self.shape, Some(&self.rope), &mut self.qkv, &mut self.out, &mut self.lse);
    }

    pub fn backward(&mut self) {
        self.d_qkv.fill(0.0);
        let Self { precision, shape, rope, qkv, out, lse, d_out, d_qkv } = self;
        attention_backward(*precision, shape, Some(rope), qkv, out, lse, d_out, d_qkv, [1.0; 3]);
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

/// SwiGLU of D 512, L 97, four sequences: as the detached calls run it, as the recorded ones do, and backwards up to the
/// packed operands of the weights' gradients. What is saved and packed belongs to one of 14 uses (seven calls of two
/// blocks), so that it comes from memory and goes there, as in a step.
pub struct Swiglu {
    side: Side,
    gate_up: Weight<f32>,
    down: Weight<f32>,
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
        let mut gate_up = Weight::gate_up(inner, width, side, precision);
        let mut down = Weight::with(width, inner, side, precision);
        gate_up.pack(&values(2 * inner * width));
        down.pack(&values(inner * width));
        let saved_len = swiglu_saved_len(&gate_up, side, vectors);
        let [(dy_len, a_len), (x_len, dh_len)] = [
            gathered_len::<f32>(precision, (width, inner), vectors),
            gathered_gate_up_len::<f32>(precision, (2 * inner, width), vectors),
        ];
        let operand_lens = [dy_len, a_len, x_len, dh_len];
        let n = vectors * width;
        let uses = Self::USES * times;
        Self {
            side,
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
            swiglu(self.side, &self.gate_up, &self.down, &self.x, None, &mut self.y, None);
        }
    }

    pub fn recorded(&mut self) {
        for i in self.next_use() {
            let saved = Some(self.saved[i].first(self.saved_len));
            swiglu(self.side, &self.gate_up, &self.down, &self.x, saved, &mut self.y, None);
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
            swiglu_backward(self.side, weights, [1.0, 1.0], (&self.dy, saved, &self.x), to, Some(&mut self.dx));
        }
    }

    fn next_use(&mut self) -> std::ops::Range<usize> {
        self.turn = (self.turn + 1) % Self::USES;
        self.turn * self.times..(self.turn + 1) * self.times
    }
}

pub fn swiglus(precision: Precision) -> impl Iterator<Item = (&'static str, Swiglu)> {
    [("swiglu over features", Side::Rows, 512, 1536, 388, 1), ("swiglu over positions", Side::Cols, 97, 512, 512, 4)]
        .into_iter()
        .map(move |(name, side, width, inner, vectors, times)| {
            (name, Swiglu::new(precision, side, width, inner, vectors, times))
        })
}

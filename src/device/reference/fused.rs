//! The operations that the CPU fuses, step by step: SwiGLU, attention, residual and norm.

use super::products::{Matrix, Multiply, Rounding, operand};
use crate::device::{AttentionShape, NORM_EPSILON, Precision, Real};

/// Weights of a SwiGLU: W_gate_up `[2·inner, width]`, W_down `[out, inner]`.
#[derive(Clone, Copy)]
pub(crate) struct SwiGluMatrices<'a, T> {
    pub gate_up: &'a [T],
    pub down: &'a [T],
    pub inner: usize,
    pub width: usize,
    pub out: usize,
}

/// Gradients of a SwiGLU for m rows.
pub(crate) struct SwiGluGrads<T> {
    /// `[m, width]`.
    pub x: Vec<T>,
    pub gate_up: Vec<T>,
    pub down: Vec<T>,
}

/// `y = W_down (silu(g) ⊙ u)`, `[g; u] = W_gate_up x`, `silu(g) = g·σ(g)`, for each row of x. Returns y `[m, out]` and
/// `[g, u]` `[m, 2·inner]`.
pub(crate) fn swiglu<T: Multiply>(rounding: Rounding, w: SwiGluMatrices<'_, T>, x: &[T]) -> (Vec<T>, Vec<T>) {
    let m = x.len() / w.width;
    let (rounded_x, gate_up) = (rounding.of(x, w.width), rounding.of(w.gate_up, w.width));
    let sizes = [m, w.width, 2 * w.inner];
    let gu = T::product(sizes, Matrix::new(&rounded_x, w.width), Matrix::new(&gate_up, w.width).transposed());
    let activation = activations(&gu, w.inner);
    let (activation, down) = (rounding.of(&activation, w.inner), rounding.of(w.down, w.inner));
    let sizes = [m, w.inner, w.out];
    let y = T::product(sizes, Matrix::new(&activation, w.inner), Matrix::new(&down, w.inner).transposed());
    (y, rounding.kept(&gu).into_owned())
}

/// `silu(g) ⊙ u` of each row `[g, u]`.
fn activations<T: Real>(gu: &[T], inner: usize) -> Vec<T> {
    let row = |gu: &[T]| -> Vec<T> { (0..inner).map(|i| gu[i] * sigmoid(gu[i]) * gu[inner + i]).collect() };
    gu.chunks_exact(2 * inner).flat_map(row).collect()
}

/// With `s = σ(g)` and `d = dy W_down`: `dg = d·u·s(1 + g(1 − s))`, `du = d·g·s`, `dx = [dg, du] W_gate_up`,
/// `dW_gate_up = [dg, du]ᵀ x`, `dW_down = dyᵀ (silu(g) ⊙ u)`.
pub(crate) fn swiglu_backward<T: Multiply>(
    precision: Precision,
    w: SwiGluMatrices<'_, T>,
    dy: &[T],
    gu: &[T],
    x: &[T],
) -> SwiGluGrads<T> {
    let (m, inner) = (x.len() / w.width, w.inner);
    let dy = operand(precision, dy);
    let down = operand(precision, w.down);
    let d = T::product([m, w.out, inner], Matrix::new(&dy, w.out), Matrix::new(&down, inner));
    let mut d_gu = vec![T::ZERO; gu.len()];
    for ((d_gu, gu), d) in d_gu.chunks_exact_mut(2 * inner).zip(gu.chunks_exact(2 * inner)).zip(d.chunks_exact(inner)) {
        for i in 0..inner {
            let (g, u, s) = (gu[i], gu[inner + i], sigmoid(gu[i]));
            d_gu[i] = term!("gate", d[i] * u * s * (T::ONE + g * (T::ONE - s)));
            d_gu[inner + i] = term!("up", d[i] * g * s);
        }
    }
    let d_gu = operand(precision, &d_gu);
    let gate_up = operand(precision, w.gate_up);
    let dx = T::product([m, 2 * inner, w.width], Matrix::new(&d_gu, 2 * inner), Matrix::new(&gate_up, w.width));
    let activation = activations(gu, inner);
    SwiGluGrads {
        x: dx,
        gate_up: weight_grad(precision, (2 * inner, w.width), &d_gu, x),
        down: weight_grad(precision, (w.out, inner), &dy, &activation),
    }
}

/// `dyᵀ x`, dy `[m, out]`, x `[m, in]`.
pub(crate) fn weight_grad<T: Multiply>(
    precision: Precision,
    (n_out, n_in): (usize, usize),
    dy: &[T],
    x: &[T],
) -> Vec<T> {
    let (dy, x) = (operand(precision, dy), operand(precision, x));
    let sizes = [n_out, dy.len() / n_out, n_in];
    let mut product = T::product(sizes, Matrix::new(&dy, n_out).transposed(), Matrix::new(&x, n_in));
    product.iter_mut().for_each(|dw| *dw = term!("weight", *dw));
    product
}

fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// For each row `v = h + x`: `r = (mean v² + ε)^(−1/2)`, `x ← v·r`.
pub(crate) fn add_rmsnorm<T: Real>(width: usize, h: &[T], x: &mut [T], inv_rms: &mut [T]) {
    for ((x, h), r) in x.chunks_exact_mut(width).zip(h.chunks_exact(width)).zip(inv_rms) {
        x.iter_mut().zip(h).for_each(|(x, &h)| *x += h);
        let squares: T = x.iter().map(|&v| v * v).sum();
        *r = T::ONE / Real::sqrt(squares / T::from_f64(width as f64) + T::from_f64(NORM_EPSILON));
        x.iter_mut().for_each(|x| *x *= *r);
    }
}

/// For each row: `d ← r (d − y · mean(d·y))`.
pub(crate) fn rmsnorm_backward<T: Real>(width: usize, y: &[T], inv_rms: &[T], d: &mut [T]) {
    for ((d, y), &r) in d.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(inv_rms) {
        let sum: T = d.iter().zip(y).map(|(&d, &y)| d * y).sum();
        let mean = term!("projection", sum / T::from_f64(width as f64));
        d.iter_mut().zip(y).for_each(|(d, &y)| *d = r * (*d - y * mean));
    }
}

/// One head of one sequence: q, k or v are `len` rows of `head_dim`, every `3·width` elements from `at`.
#[derive(Clone, Copy)]
struct Head {
    shape: AttentionShape,
    /// The first element of the sequence in qkv.
    sequence: usize,
    head: usize,
}

impl Head {
    fn of(shape: &AttentionShape) -> impl Iterator<Item = Self> + use<> {
        let shape = *shape;
        (0..shape.sequences).flat_map(move |b| {
            let sequence = b * shape.len * 3 * shape.width();
            (0..shape.heads).map(move |head| Self { shape, sequence, head })
        })
    }

    /// Where row `position` of q (part 0), k (1) or v (2) starts.
    fn at(&self, part: usize, position: usize) -> usize {
        let width = self.shape.width();
        self.sequence + position * 3 * width + part * width + self.head * self.shape.head_dim
    }

    /// The same in `[sequences·len, width]`.
    fn at_out(&self, position: usize) -> usize {
        self.sequence / 3 + position * self.shape.width() + self.head * self.shape.head_dim
    }

    /// Rows of q, k or v, one after the other, as operand.
    fn rows<T: Real>(&self, precision: Precision, qkv: &[T], part: usize) -> Vec<T> {
        let row = |l| qkv[self.at(part, l)..][..self.shape.head_dim].iter().copied();
        let rows: Vec<T> = (0..self.shape.len).flat_map(row).collect();
        operand(precision, &rows).into_owned()
    }

    /// Rows of what has the output's shape.
    fn rows_out<T: Real>(&self, out: &[T]) -> Vec<T> {
        (0..self.shape.len).flat_map(|l| out[self.at_out(l)..][..self.shape.head_dim].iter().copied()).collect()
    }

    /// `q kᵀ/√head_dim`, `[len, len]`.
    fn scores<T: Multiply>(&self, precision: Precision, qkv: &[T]) -> Vec<T> {
        let AttentionShape { len, head_dim, .. } = self.shape;
        let (q, k) = (self.rows(precision, qkv, 0), self.rows(precision, qkv, 1));
        let mut scores =
            T::product([len, head_dim, len], Matrix::new(&q, head_dim), Matrix::new(&k, head_dim).transposed());
        scores.iter_mut().for_each(|s| *s *= self.scale());
        scores
    }

    fn scale<T: Real>(&self) -> T {
        T::from_f64(1.0 / (self.shape.head_dim as f64).sqrt())
    }
}

/// RoPE in the half-split form: the pair `(i, i + head_dim/2)` of q and k at position l turns by `l · 10000^(−2i/head_dim)`;
/// the other way round for gradients.
fn rotate<T: Real>(head: Head, qkv: &mut [T], inverse: bool) {
    let half = head.shape.head_dim / 2;
    for part in [0, 1] {
        for l in 0..head.shape.len {
            for i in 0..half {
                let angle = l as f64 * 10_000f64.powf(-2.0 * i as f64 / head.shape.head_dim as f64);
                let (cos, sin) =
                    (T::from_f64(angle.cos()), T::from_f64(if inverse { -angle.sin() } else { angle.sin() }));
                let (a, b) = (head.at(part, l) + i, head.at(part, l) + i + half);
                (qkv[a], qkv[b]) = (qkv[a] * cos - qkv[b] * sin, qkv[b] * cos + qkv[a] * sin);
            }
        }
    }
}

/// `out = softmax(q kᵀ/√head_dim) v` per head; `lse` receives the logarithm of each row's sum of exponentials.
pub(crate) fn attention<T: Multiply>(
    precision: Precision,
    shape: &AttentionShape,
    rope: bool,
    qkv: &mut [T],
    out: &mut [T],
    lse: &mut [T],
) {
    let AttentionShape { len, head_dim, .. } = *shape;
    for (head, lse) in Head::of(shape).zip(lse.chunks_exact_mut(len)) {
        if rope {
            rotate(head, qkv, false);
        }
        let mut p = head.scores(precision, qkv);
        for (p, lse) in p.chunks_exact_mut(len).zip(lse) {
            let max = p.iter().copied().reduce(T::maximum).expect("a key at least");
            let total: T = p.iter().map(|&s| (s - max).exp()).sum();
            *lse = max + T::from_f64(total.to_f64().ln());
            p.iter_mut().for_each(|p| *p = (*p - max).exp() / total);
        }
        let v = head.rows(precision, qkv, 2);
        let answer =
            T::product([len, len, head_dim], Matrix::new(&operand(precision, &p), len), Matrix::new(&v, head_dim));
        for (l, row) in answer.chunks_exact(head_dim).enumerate() {
            out[head.at_out(l)..][..head_dim].copy_from_slice(row);
        }
    }
}

/// With `p = exp(s − lse)`, d the gradient of the output: `dv = pᵀ d`, `dp = d vᵀ`, `ds = p (dp − Σ d·out)/√head_dim`,
/// `dq = ds k`, `dk = dsᵀ q`; q and k as [`attention`] has rotated them.
#[allow(clippy::too_many_arguments)]
pub(crate) fn attention_backward<T: Multiply>(
    precision: Precision,
    shape: &AttentionShape,
    rope: bool,
    qkv: &[T],
    out: &[T],
    lse: &[T],
    d_out: &[T],
    d_qkv: &mut [T],
) {
    let AttentionShape { len, head_dim, .. } = *shape;
    for (head, lse) in Head::of(shape).zip(lse.chunks_exact(len)) {
        let [q, k, v] = [0, 1, 2].map(|part| head.rows(precision, qkv, part));
        let (out, d_rows) = (head.rows_out(out), head.rows_out(d_out));
        let d = operand(precision, &d_rows);
        let mut p = head.scores(precision, qkv);
        for (p, &lse) in p.chunks_exact_mut(len).zip(lse) {
            p.iter_mut().for_each(|p| *p = (*p - lse).exp());
        }
        let rounded_p = operand(precision, &p);
        let dv = T::product([len, len, head_dim], Matrix::new(&rounded_p, len).transposed(), Matrix::new(&d, head_dim));
        let mut ds =
            T::product([len, head_dim, len], Matrix::new(&d, head_dim), Matrix::new(&v, head_dim).transposed());
        for (l, (ds, p)) in ds.chunks_exact_mut(len).zip(p.chunks_exact(len)).enumerate() {
            let row = l * head_dim..(l + 1) * head_dim;
            let mean: T = d_rows[row.clone()].iter().zip(&out[row]).map(|(&d, &out)| d * out).sum();
            ds.iter_mut().zip(p).for_each(|(ds, &p)| *ds = p * (*ds - mean) * head.scale());
        }
        let ds = operand(precision, &ds);
        let dq = T::product([len, len, head_dim], Matrix::new(&ds, len), Matrix::new(&k, head_dim));
        let dk = T::product([len, len, head_dim], Matrix::new(&ds, len).transposed(), Matrix::new(&q, head_dim));
        for l in 0..len {
            for i in 0..head_dim {
                d_qkv[head.at(0, l) + i] = term!("query", dq[l * head_dim + i]);
                d_qkv[head.at(1, l) + i] = term!("key", dk[l * head_dim + i]);
                d_qkv[head.at(2, l) + i] = term!("value", dv[l * head_dim + i]);
            }
        }
        if rope {
            rotate(head, d_qkv, true);
        }
    }
}

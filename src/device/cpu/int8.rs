//! Experiment: products of detached cycles with operands of eight bits, one scale for each row of either operand.

use std::cell::Cell;
use std::sync::OnceLock;

use super::super::{Block, NormEpilogue, Over, ParamId, Params, Real, SwiGlu};
use super::Cpu;
use crate::device::Device;
use crate::simd::{PackedWeight, Precision, Side};

thread_local! { pub static INT8: Cell<bool> = const { Cell::new(false) }; }

/// The most a quantised number may be: TRM_INT8=127 for eight bits; not set: no quantising.
fn levels() -> f64 {
    static LEVELS: OnceLock<f64> = OnceLock::new();
    *LEVELS.get_or_init(|| std::env::var("TRM_INT8").ok().and_then(|v| v.parse().ok()).unwrap_or(0.0))
}
pub fn wanted() -> bool {
    levels() > 0.0
}

/// Whole numbers in place of each row of `x`, and their scales.
fn quantise<T: Real>(x: &mut [T], width: usize) -> Vec<T> {
    x.chunks_exact_mut(width)
        .map(|row| {
            let most = row.iter().fold(0.0f64, |m, v| m.max(v.to_f64().abs()));
            if most == 0.0 {
                return T::ZERO;
            }
            let by = (levels() / most) as f32;
            row.iter_mut().for_each(|v| *v = T::from_f64((v.to_f64() as f32 * by).round_ties_even() as f64));
            T::from_f64(most / levels())
        })
        .collect()
}

/// y = x W^T by whole numbers.
fn product<T: Real>(x: &[T], w: &[T], (n_out, n_in): (usize, usize)) -> Vec<T> {
    let mut xq = x.to_vec();
    let mut wq = w.to_vec();
    let xs = quantise(&mut xq, n_in);
    let ws = quantise(&mut wq, n_in);
    let mut packed = PackedWeight::<T>::new(n_out, n_in, Side::Rows, Precision::F32);
    packed.pack(&wq);
    let mut y = vec![T::ZERO; xs.len() * n_out];
    packed.forward_rows(&xq, &mut y, None, 1);
    for (row, &s) in y.chunks_exact_mut(n_out).zip(&xs) {
        for (v, &t) in row.iter_mut().zip(&ws) {
            *v = *v * (s * t);
        }
    }
    y
}

impl<T: Real> Cpu<T> {
    pub(super) fn linear_int8(&mut self, params: &Params<Self>, weight: ParamId, x: Block, y: Block, epilogue: Option<NormEpilogue>) {
        let shape = params.shape(weight);
        {
            let ([x], [y]) = self.memory.split([x], [y]);
            y.copy_from_slice(&product(x, params.get(weight), shape));
        }
        if let Some(e) = epilogue {
            self.add_rmsnorm(Over::Features, shape.0, e.h, y, e.inv_rms);
        }
    }

    pub(super) fn swiglu_int8(&mut self, params: &Params<Self>, swiglu: SwiGlu, x: Block, y: Block, epilogue: Option<NormEpilogue>) {
        let (gu, down) = (params.shape(swiglu.gate_up), params.shape(swiglu.down));
        let inner = down.1;
        let (count, vectors) = swiglu.pieces(x.len());
        let over_rows = swiglu.over == Over::Features;
        {
            let ([x], [y]) = self.memory.split([x], [y]);
            // Rows to multiply: those of x, or its columns, sequence by sequence.
            let len = gu.1;
            let rows: Vec<T> = if over_rows {
                x.to_vec()
            } else {
                (0..count).flat_map(|b| (0..vectors).flat_map(move |d| (0..len).map(move |l| (b * len + l) * vectors + d))).map(|i| x[i]).collect()
            };
            let g = product(&rows, params.get(swiglu.gate_up), gu);
            let mut hidden = Vec::with_capacity(g.len() / 2);
            for row in g.chunks_exact(2 * inner) {
                for i in 0..inner {
                    let (a, b) = (row[i].to_f64() as f32, row[inner + i].to_f64() as f32);
                    hidden.push(T::from_f64((a / (1.0 + (-a).exp()) * b) as f64));
                }
            }
            let out = product(&hidden, params.get(swiglu.down), down);
            if over_rows {
                y.copy_from_slice(&out);
            } else {
                for b in 0..count {
                    for d in 0..vectors {
                        for l in 0..down.0 {
                            y[(b * len + l) * vectors + d] = out[(b * vectors + d) * down.0 + l];
                        }
                    }
                }
            }
        }
        if let Some(e) = epilogue {
            let width = if over_rows { down.0 } else { vectors };
            self.add_rmsnorm(swiglu.over, width, e.h, y, e.inv_rms);
        }
    }
}

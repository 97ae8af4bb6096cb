//! What an iteration towards a fixed point has to know of its states.

use crate::device::Real;

/// Adds `‖after − before‖²` and `‖after‖²` of each sequence.
pub(crate) fn distance<T: Real>(before: &[T], after: &[T], sequences: usize, sums: &mut [[f64; 2]]) {
    let size = after.len() / sequences;
    for ((before, after), sums) in before.chunks_exact(size).zip(after.chunks_exact(size)).zip(sums) {
        for (x, y) in before.iter().zip(after) {
            sums[0] += (y.to_f64() - x.to_f64()).powi(2);
            sums[1] += y.to_f64().powi(2);
        }
    }
}

/// Adds the inner product of two residuals `after − before` of each sequence.
pub(crate) fn residual_product<T: Real>([p, q]: [[&[T]; 2]; 2], sequences: usize, sums: &mut [f64]) {
    let size = p[0].len() / sequences;
    for (b, sum) in sums.iter_mut().enumerate() {
        let [[s, g], [t, h]] = [p, q].map(|pair| pair.map(|values| &values[b * size..(b + 1) * size]));
        for (((s, g), t), h) in s.iter().zip(g).zip(t).zip(h) {
            *sum += (g.to_f64() - s.to_f64()) * (h.to_f64() - t.to_f64());
        }
    }
}

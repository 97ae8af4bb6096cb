//! Residual + RMSNorm, over rows (features) and over columns (positions); no weights (SPEC "Block").

use super::Real;

/// The epsilon inside the norm.
pub const NORM_EPSILON: f64 = 1e-5;

/// `x ← rmsnorm(h + x)` for each row of `width`; `inv_rms[row]` receives the factor, for the backward pass.
pub fn add_rmsnorm_rows<T: Real>(width: usize, h: &[T], x: &mut [T], inv_rms: &mut [T]) {
    assert!(h.len() == x.len() && x.len() == width * inv_rms.len());
    let epsilon = T::from_f64(NORM_EPSILON);
    let inv_width = T::from_f64(1.0 / width as f64);
    for ((x, h), inv) in x.chunks_exact_mut(width).zip(h.chunks_exact(width)).zip(inv_rms) {
        let mut lanes = [T::ZERO; 8];
        for (i, (x, &h)) in x.iter_mut().zip(h).enumerate() {
            *x += h;
            lanes[i % 8] += *x * *x;
        }
        let squares: T = lanes.iter().skip(1).fold(lanes[0], |a, &b| a + b);
        *inv = T::ONE / (squares / T::from_f64(width as f64) + epsilon).sqrt();
        for x in x {
            *x *= *inv;
        }
    }
}

/// The backward pass of [`add_rmsnorm_rows`], in place: with y the output and d its gradient,
/// `d ← inv_rms · (d − scale · y · mean(d·y))`, the gradient of both summands. `scale` is 1 outside fault injection.
pub fn rmsnorm_backward_rows<T: Real>(width: usize, y: &[T], inv_rms: &[T], d: &mut [T], scale: T) {
    assert!(y.len() == d.len() && d.len() == width * inv_rms.len());
    let inv_width = T::from_f64(1.0 / width as f64);
    for ((d, y), &inv) in d.chunks_exact_mut(width).zip(y.chunks_exact(width)).zip(inv_rms) {
        let mean = scale * super::dot(d, y) * inv_width;
        for (d, &y) in d.iter_mut().zip(y) {
            *d = inv * (*d - y * mean);
        }
    }
}

/// `x ← rmsnorm(h + x)` over the positions of each sequence: x is `[sequences, positions, width]`, the mean of
/// squares runs over positions; `inv_rms` is `[sequences, width]`.
pub fn add_rmsnorm_cols<T: Real>(positions: usize, width: usize, h: &[T], x: &mut [T], inv_rms: &mut [T]) {
    assert!(h.len() == x.len() && x.len() == positions * inv_rms.len() && inv_rms.len().is_multiple_of(width));
    let epsilon = T::from_f64(NORM_EPSILON);
    let inv_positions = T::from_f64(1.0 / positions as f64);
    let per_sequence = positions * width;
    for ((x, h), inv) in
        x.chunks_exact_mut(per_sequence).zip(h.chunks_exact(per_sequence)).zip(inv_rms.chunks_exact_mut(width))
    {
        for (x, &h) in x.iter_mut().zip(h) {
            *x += h;
        }
        for (c, v) in inv.iter_mut().enumerate() {
            let mut lanes = [T::ZERO; 4];
            for l in 0..positions {
                let lane = if l < positions / 4 * 4 { l % 4 } else { 0 };
                lanes[lane] += x[l * width + c] * x[l * width + c];
            }
            let squares: T = lanes.iter().skip(1).fold(lanes[0], |a, &b| a + b);
            *v = T::ONE / (squares / T::from_f64(positions as f64) + epsilon).sqrt();
        }
        for x in x.chunks_exact_mut(width) {
            for (x, &v) in x.iter_mut().zip(inv.iter()) {
                *x *= v;
            }
        }
    }
}

/// The backward pass of [`add_rmsnorm_cols`], in place, as [`rmsnorm_backward_rows`]; `mean` is scratch `[width]`.
#[allow(clippy::too_many_arguments)]
pub fn rmsnorm_backward_cols<T: Real>(
    positions: usize,
    width: usize,
    y: &[T],
    inv_rms: &[T],
    d: &mut [T],
    mean: &mut [T],
    scale: T,
) {
    assert!(y.len() == d.len() && d.len() == positions * inv_rms.len() && mean.len() == width);
    let inv_positions = T::from_f64(1.0 / positions as f64);
    let per_sequence = positions * width;
    for ((d, y), inv) in
        d.chunks_exact_mut(per_sequence).zip(y.chunks_exact(per_sequence)).zip(inv_rms.chunks_exact(width))
    {
        mean.fill(T::ZERO);
        for (d, y) in d.chunks_exact(width).zip(y.chunks_exact(width)) {
            for ((&d, &y), mean) in d.iter().zip(y).zip(mean.iter_mut()) {
                *mean += d * y;
            }
        }
        super::scale(mean, scale * inv_positions);
        for (d, y) in d.chunks_exact_mut(width).zip(y.chunks_exact(width)) {
            for (((d, &y), &mean), &inv) in d.iter_mut().zip(y).zip(mean.iter()).zip(inv) {
                *d = inv * (*d - y * mean);
            }
        }
    }
}

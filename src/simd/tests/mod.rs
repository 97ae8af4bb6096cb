//! Every kernel against a naive twin, on every instruction set of the machine.

mod attention;
mod elementwise;
mod gathered;
mod products;
mod silu;
mod split;
mod swiglu;

use super::Real;

/// Small deterministic values in −½…½.
fn values<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            T::from_f64((state >> 11) as f64 / (1u64 << 53) as f64 - 0.5)
        })
        .collect()
}

/// Panics unless `got` is `want` within `tolerance` relative to the larger of 1 and the value.
fn assert_close<T: Real>(got: &[T], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, &want)) in got.iter().zip(want).enumerate() {
        let error = (got.to_f64() - want).abs();
        assert!(error <= tolerance * want.abs().max(1.0), "{what}, element {i}: {got} is not {want}");
    }
}

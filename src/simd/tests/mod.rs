//! Every kernel against a naive twin, on every instruction set of the machine. A program of its own, so that the kernels are compiled once: it
//! sees what is inside of the library by modules that are public and hidden.

mod array;
mod attention;
mod choice;
mod deferred;
mod elementwise;
mod int8;
mod isa;
mod kept;
mod math;
mod products;
mod silu;
mod split;
mod swiglu;
#[cfg(target_arch = "x86_64")]
mod twin;

use std::ops::{Deref, DerefMut};

use trm_simd::{Aligned, Real};

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

/// Memory on cache lines, as the arena's is (non-temporal stores want it), that nobody has written to: NaN.
struct Unset<T> {
    memory: Aligned<T>,
    len: usize,
}

fn unset<T: Real>(len: usize) -> Unset<T> {
    let mut memory = Aligned::new();
    memory.at_least(len).fill(T::from_f64(f64::NAN));
    Unset { memory, len }
}

impl<T: Real> Deref for Unset<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory.as_slice()[..self.len]
    }
}

impl<T: Real> DerefMut for Unset<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory.at_least(self.len)[..self.len]
    }
}

/// Panics unless `got` is `want` within `tolerance` relative to the larger of 1 and the value.
fn assert_close<T: Real>(got: &[T], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, &want)) in got.iter().zip(want).enumerate() {
        let error = (got.to_f64() - want).abs();
        assert!(error <= tolerance * want.abs().max(1.0), "{what}, element {i}: {got} is not {want}");
    }
}

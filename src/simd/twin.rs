//! The twin of the tile registers: what Intel's manual says that they compute, in plain Rust, bit for bit.
//!
//! TDPBF16PS, in the words of the manual's pseudo-code (Intel 64 and IA-32 Architectures Software Developer's Manual,
//! volume 2, "TDPBF16PS"): for every row m of A, two sums for each column n start at zero and take, k after k, the even and the
//! odd elements,
//!
//! ```text
//! temp[2n]     ← fma(A[m][2k],     B[k][2n],     temp[2n])
//! temp[2n + 1] ← fma(A[m][2k + 1], B[k][2n + 1], temp[2n + 1])
//! ```
//!
//! and at the end `C[m][n] ← C[m][n] + (temp[2n] + temp[2n + 1])`. Every operation rounds to nearest, ties to even; takes
//! denormal operands for zeros of their sign (DAZ) and flushes results that are tiny after rounding to zeros of theirs (FTZ);
//! MXCSR is not consulted. Which NaN comes of NaNs is not said, so one NaN is as good as another.

use super::registers::{SIDE, TileRegisters};

/// The least normal number: what is smaller is flushed.
const LEAST: f32 = f32::MIN_POSITIVE;

/// Below this, half of the last place of the largest number below [`LEAST`] under it, an exact value does not round up to
/// [`LEAST`] with the exponent unbounded, as tininess is detected: 2⁻¹²⁶ − 2⁻¹⁵¹.
const ROUNDS_TO_LEAST: f64 = f64::from_bits(((1023 - 126) << 52) - (1 << 28));

/// Eight tile registers.
pub struct TwinRegisters {
    rows: [u8; 8],
    registers: [[[f32; SIDE]; SIDE]; 8],
}

impl TileRegisters for TwinRegisters {
    #[inline(always)]
    unsafe fn configured(rows: [u8; 8]) -> Self {
        assert!(rows.iter().all(|&rows| usize::from(rows) <= SIDE), "a register has 16 rows");
        Self { rows, registers: [[[0.0; SIDE]; SIDE]; 8] }
    }

    #[inline(always)]
    fn zero<const TO: usize>(&mut self) {
        self.registers[TO] = [[0.0; SIDE]; SIDE];
    }

    #[inline(always)]
    unsafe fn load<const TO: usize>(&mut self, from: *const f32, stride: usize) {
        for (i, row) in self.registers[TO].iter_mut().enumerate().take(self.rows[TO].into()) {
            // SAFETY: the caller's contract; an array needs no more alignment than its elements.
            *row = unsafe { from.add(i * stride).cast::<[f32; SIDE]>().read() };
        }
    }

    #[inline(always)]
    fn dot<const SUM: usize, const A: usize, const B: usize>(&mut self) {
        assert!(self.rows[SUM] == self.rows[A] && usize::from(self.rows[B]) == SIDE, "registers fit each other");
        let mut halves = [[[0.0; SIDE]; 2]; SIDE];
        for (halves, row) in halves.iter_mut().zip(&self.registers[B]) {
            for half in 0..2 {
                for (to, &pair) in halves[half].iter_mut().zip(row) {
                    *to = element(pair, half);
                }
            }
        }
        for m in 0..self.rows[A].into() {
            let mut sums = [[0.0; SIDE]; 2];
            for (&pair, halves) in self.registers[A][m].iter().zip(&halves) {
                for half in 0..2 {
                    multiply_add(element(pair, half), &halves[half], &mut sums[half]);
                }
            }
            for (n, c) in self.registers[SUM][m].iter_mut().enumerate() {
                *c = flushed(flushed(*c) + flushed(sums[0][n] + sums[1][n]));
            }
        }
    }

    #[inline(always)]
    unsafe fn store<const FROM: usize>(&self, to: *mut f32, stride: usize) {
        for (i, row) in self.registers[FROM].iter().enumerate().take(self.rows[FROM].into()) {
            // SAFETY: the caller's contract; an array needs no more alignment than its elements.
            unsafe { to.add(i * stride).cast::<[f32; SIDE]>().write(*row) };
        }
    }
}

/// The first or second element of a pair, in f32.
#[inline(always)]
fn element(pair: f32, half: usize) -> f32 {
    let bits = pair.to_bits();
    flushed(f32::from_bits(if half == 0 { bits << 16 } else { bits & 0xffff_0000 }))
}

/// A denormal's zero; of a sum of two normal numbers, which is exact where it is tiny, what FTZ makes of it.
#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < LEAST { 0f32.copysign(x) } else { x }
}

/// `sums ← a·b + sums`, flushed.
#[inline(always)]
fn multiply_add(a: f32, b: &[f32; SIDE], sums: &mut [f32; SIDE]) {
    let before = *sums;
    let mut on_the_edge = false;
    for (sum, &b) in sums.iter_mut().zip(b) {
        let rounded = f32::mul_add(a, b, *sum);
        on_the_edge |= rounded.abs() == LEAST;
        *sum = flushed(rounded);
    }
    if on_the_edge {
        for ((sum, &b), &before) in sums.iter_mut().zip(b).zip(&before) {
            if sum.abs() == LEAST && rounds_below(a, b, before) {
                *sum = 0f32.copysign(*sum);
            }
        }
    }
}

/// Whether `a·b + c`, which rounds to the least normal number among denormals, does not with the exponent unbounded.
#[cold]
fn rounds_below(a: f32, b: f32, c: f32) -> bool {
    // The product of two bf16 is exact in f64; of its sum with c, `rest` is what f64 cannot hold.
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let of_c = sum - product;
    let rest = (product - (sum - of_c)) + (c - of_c);
    let (sum, rest) = (sum.abs(), rest * sum.signum());
    sum < ROUNDS_TO_LEAST || (sum == ROUNDS_TO_LEAST && rest < 0.0)
}

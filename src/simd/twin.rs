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
//!
//! TDPBUSD adds, to a whole number of 32 bits, four products of a byte without and a byte with a sign; overflow wraps around.

use super::registers::{REGISTER_ROWS, TileRegisters};

/// The least normal number: what is smaller is flushed.
pub const LEAST: f32 = f32::MIN_POSITIVE;

/// Below this, half of the last place of the largest number below [`LEAST`] under it, an exact value does not round up to
/// [`LEAST`] with the exponent unbounded, as tininess is detected: 2⁻¹²⁶ − 2⁻¹⁵¹.
const ROUNDS_TO_LEAST: f64 = f64::from_bits(((1023 - 126) << 52) - (1 << 28));

/// Eight tile registers.
pub struct TwinRegisters {
    pub rows: [u8; 8],
    pub registers: [[[f32; REGISTER_ROWS]; REGISTER_ROWS]; 8],
}

impl TileRegisters for TwinRegisters {
    #[inline(always)]
    unsafe fn configured(rows: [u8; 8]) -> Self {
        assert!(rows.iter().all(|&rows| usize::from(rows) <= REGISTER_ROWS), "a register has 16 rows");
        Self { rows, registers: [[[0.0; REGISTER_ROWS]; REGISTER_ROWS]; 8] }
    }

    #[inline(always)]
    fn zero<const TO: usize>(&mut self) {
        self.registers[TO] = [[0.0; REGISTER_ROWS]; REGISTER_ROWS];
    }

    #[inline(always)]
    unsafe fn load<const TO: usize>(&mut self, from: *const f32, stride: usize) {
        for (i, row) in self.registers[TO].iter_mut().enumerate().take(self.rows[TO].into()) {
            // SAFETY: the caller's contract; an array needs no more alignment than its elements.
            *row = unsafe { from.add(i * stride).cast::<[f32; REGISTER_ROWS]>().read() };
        }
    }

    #[inline(always)]
    fn dot<const SUM: usize, const A: usize, const B: usize>(&mut self) {
        assert!(
            self.rows[SUM] == self.rows[A] && usize::from(self.rows[B]) == REGISTER_ROWS,
            "registers fit each other"
        );
        let mut halves = [[[0.0; REGISTER_ROWS]; 2]; REGISTER_ROWS];
        for (halves, row) in halves.iter_mut().zip(&self.registers[B]) {
            for (half, elements) in halves.iter_mut().enumerate() {
                for (to, &pair) in elements.iter_mut().zip(row) {
                    *to = element(pair, half);
                }
            }
        }
        for m in 0..self.rows[A].into() {
            let mut sums = [[0.0; REGISTER_ROWS]; 2];
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
    fn dot_quads<const SUM: usize, const A: usize, const B: usize>(&mut self) {
        assert!(
            self.rows[SUM] == self.rows[A] && usize::from(self.rows[B]) == REGISTER_ROWS,
            "registers fit each other"
        );
        let (a, b) = (self.registers[A], self.registers[B]);
        for (sums, row) in self.registers[SUM].iter_mut().zip(a).take(self.rows[A].into()) {
            for (quad, column_quads) in row.into_iter().zip(b) {
                let numbers = quad.to_bits().to_le_bytes();
                for (sum, column) in sums.iter_mut().zip(column_quads) {
                    let products = numbers.into_iter().zip(column.to_bits().to_le_bytes());
                    let dot: i32 = products.map(|(a, b)| i32::from(a) * i32::from(b.cast_signed())).sum();
                    *sum = f32::from_bits(sum.to_bits().wrapping_add(dot.cast_unsigned()));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn store<const FROM: usize>(&self, to: *mut f32, stride: usize) {
        for (i, row) in self.registers[FROM].iter().enumerate().take(self.rows[FROM].into()) {
            // SAFETY: the caller's contract; an array needs no more alignment than its elements.
            unsafe { to.add(i * stride).cast::<[f32; REGISTER_ROWS]>().write(*row) };
        }
    }
}

/// The first or second element of a pair, in f32.
#[inline(always)]
pub fn element(pair: f32, half: usize) -> f32 {
    let bits = pair.to_bits();
    flushed(f32::from_bits(if half == 0 { bits << 16 } else { bits & 0xffff_0000 }))
}

/// A denormal's zero; of a sum of two normal numbers, which is exact where it is tiny, what FTZ makes of it.
#[inline(always)]
pub fn flushed(x: f32) -> f32 {
    if x.abs() < LEAST { 0f32.copysign(x) } else { x }
}

/// `sums ← a·b + sums`, flushed.
#[inline(always)]
pub fn multiply_add(a: f32, b: &[f32; REGISTER_ROWS], sums: &mut [f32; REGISTER_ROWS]) {
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

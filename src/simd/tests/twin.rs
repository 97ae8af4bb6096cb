//! The tile registers' twin against the processor's fused multiply-add.

use std::arch::asm;

use trm_simd::registers::*;
use trm_simd::self_test::self_test;
use trm_simd::twin::*;

/// `a·b + c` by the processor, with denormals taken for zeros and flushed to them.
fn fused(a: f32, b: f32, c: f32) -> f32 {
    /// All exceptions masked, round to nearest, DAZ and FTZ.
    const FLUSHING: u32 = 0x1f80 | 1 << 6 | 1 << 15;
    let (mut sum, flushing, mut before) = (c, FLUSHING, 0u32);
    // SAFETY: the processor has FMA, which the tests ask for; the register of modes is what it was at the end.
    unsafe {
        asm!("stmxcsr [{before}]", "ldmxcsr [{flushing}]", "vfmadd231ss {sum}, {a}, {b}", "ldmxcsr [{before}]",
             before = in(reg) &raw mut before, flushing = in(reg) &raw const flushing,
             sum = inout(xmm_reg) sum, a = in(xmm_reg) a, b = in(xmm_reg) b, options(nostack));
    }
    sum
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// bf16 numbers, in f32, of every exponent, and what is special among them.
fn elements() -> Vec<f32> {
    let mantissas = [0u32, 1, 0x2a, 0x7f];
    let all = (0..512).flat_map(|exponent| mantissas.map(|mantissa| f32::from_bits(exponent << 23 | mantissa << 16)));
    all.collect()
}

#[test]
fn a_multiply_add_is_the_processors_where_denormals_are_flushed() {
    if !is_x86_feature_detected!("fma") {
        return;
    }
    let elements = elements();
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    for i in 0..2_000_000 {
        let mut pick = || elements[next() as usize % elements.len()];
        let (a, b) = (element(f32::from_bits(pick().to_bits() >> 16), 0), element(pick(), 1));
        // Half of the sums lie near the product's negative, a few near the boundary to what is flushed.
        let c = match i % 4 {
            0 => f32::from_bits(next() as u32),
            1 => f32::from_bits((-(a * b)).to_bits().wrapping_add(next() as u32 % 16)),
            2 => f32::from_bits((LEAST - a * b).to_bits().wrapping_sub(next() as u32 % 4)),
            _ => f32::from_bits(LEAST.to_bits() | (next() as u32 & 0x80ff_ffff)),
        };
        let mut sums = [flushed(c); REGISTER_ROWS];
        multiply_add(a, &[b; REGISTER_ROWS], &mut sums);
        assert!(same(sums[0], fused(a, b, c)), "{a:e} · {b:e} + {c:e}: {:e}, not {:e}", sums[0], fused(a, b, c));
    }
}

#[test]
fn what_rounds_to_the_least_normal_number_is_flushed_only_where_it_does_not_with_more_digits() {
    if !is_x86_feature_detected!("fma") {
        return;
    }
    // LEAST − 2⁻¹⁵⁰ + a·b with products from below to above half of the last place.
    let (mut flushed_ones, mut kept) = (0, 0);
    let c = f32::from_bits(LEAST.to_bits() + 3);
    for exponent in -160..-140 {
        for mantissa in 0..128u32 {
            let a = -(1.0 + mantissa as f32 / 128.0) * f32::from_bits(((exponent + 60 + 127) as u32) << 23);
            let b = f32::from_bits((127 - 60) << 23);
            for c in [c, LEAST, f32::from_bits(LEAST.to_bits() + 1)] {
                let mut sums = [c; REGISTER_ROWS];
                multiply_add(a, &[b; REGISTER_ROWS], &mut sums);
                assert!(same(sums[0], fused(a, b, c)), "{a:e} · {b:e} + {c:e}");
                if sums[0] == 0.0 { flushed_ones += 1 } else { kept += 1 }
            }
        }
    }
    assert!(flushed_ones > 100 && kept > 100, "both happen: {flushed_ones}, {kept}");
}

/// Registers with a flaw: 0, even and odd elements go into one sum; 1, denormal sums stay; 2, none.
struct Flawed<const FLAW: usize>(TwinRegisters);

impl<const FLAW: usize> TileRegisters for Flawed<FLAW> {
    unsafe fn configured(rows: [u8; 8]) -> Self {
        // SAFETY: the twin is plain Rust.
        Self(unsafe { TwinRegisters::configured(rows) })
    }
    fn zero<const TO: usize>(&mut self) {
        self.0.zero::<TO>();
    }
    unsafe fn load<const TO: usize>(&mut self, from: *const f32, stride: usize) {
        // SAFETY: the caller's contract.
        unsafe { self.0.load::<TO>(from, stride) }
    }
    fn dot<const SUM: usize, const A: usize, const B: usize>(&mut self) {
        let TwinRegisters { rows, registers } = &mut self.0;
        for m in 0..rows[A].into() {
            for n in 0..REGISTER_ROWS {
                let mut sums = [0f32; 2];
                for (pair, row) in registers[A][m].into_iter().zip(registers[B]) {
                    for half in 0..2 {
                        let (a, b) = (element(pair, half), element(row[n], half));
                        let to = if FLAW == 0 { 0 } else { half };
                        sums[to] = if FLAW == 1 { a.mul_add(b, sums[to]) } else { fused(a, b, sums[to]) };
                    }
                }
                let pair = fused(sums[0], 1.0, sums[1]);
                let c = &mut registers[SUM][m][n];
                *c = fused(*c, 1.0, pair);
            }
        }
    }
    fn dot_quads<const SUM: usize, const A: usize, const B: usize>(&mut self) {
        self.0.dot_quads::<SUM, A, B>();
    }
    unsafe fn store<const FROM: usize>(&self, to: *mut f32, stride: usize) {
        // SAFETY: the caller's contract.
        unsafe { self.0.store::<FROM>(to, stride) }
    }
}

#[test]
fn the_self_test_finds_another_order_and_denormals_that_stay() {
    if !is_x86_feature_detected!("fma") {
        return;
    }
    // SAFETY: all are plain Rust.
    unsafe {
        assert!(self_test::<Flawed<2>, TwinRegisters>(), "the pseudo-code, operation by operation");
        assert!(!self_test::<Flawed<0>, TwinRegisters>());
        assert!(!self_test::<Flawed<1>, TwinRegisters>());
    }
}

//! Whether tile registers compute what their twin does.

use super::registers::{REGISTER_ROWS, TileRegisters};

/// Shapes that are tried: rows of the left operand.
const ROWS: [u8; 3] = [16, 9, 1];

/// Random operands for each.
const ROUNDS: u64 = 8;

/// Whether two implementations of tile registers give the same bits, of random operands of all magnitudes: denormals,
/// infinities and NaN among them, sums that cancel, and sums that are tiny. (One NaN is as good as another.) The same bits serve
/// as whole numbers.
/// # Safety
/// As [`TileRegisters::configured`], of both.
pub unsafe fn self_test<A: TileRegisters, B: TileRegisters>() -> bool {
    let tried = ROWS.into_iter().flat_map(|rows| (0..ROUNDS).map(move |round| (rows, round)));
    for (rows, round) in tried {
        let operands = Operands::random(u64::from(rows) << 32 | round);
        // SAFETY: the caller's contract.
        let [found, wanted] = unsafe { [operands.product::<A, false>(rows), operands.product::<B, false>(rows)] };
        let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        // SAFETY: as above.
        let [quads, wanted_quads] = unsafe { [operands.product::<A, true>(rows), operands.product::<B, true>(rows)] };
        let identical = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
        if !found.iter().zip(&wanted).all(same) || !quads.iter().zip(&wanted_quads).all(identical) {
            return false;
        }
    }
    true
}

/// Three tiles: sums so far, left and right operand.
struct Operands([[f32; REGISTER_ROWS * REGISTER_ROWS]; 3]);

impl Operands {
    fn random(seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 16
        };
        // Exponents of the sums so far and of the operands, from which on they are drawn: ordinary ones, products and sums at
        // the lower end of the normal numbers, products that all vanish, and sums that overflow.
        let centers = [(127, 127), (120, 120), (1, 64), (1, 30), (250, 187), (128, 124), (1, 62), (1, 60)];
        let (sums, operands) = centers[(seed % ROUNDS) as usize];
        let mut half = |center: u32| {
            let bits = next();
            // One in 64 is any number at all.
            let any = (bits >> 8) as u32 & 0xffff;
            let near = (bits >> 16) as u32 & 0x807f | (center + (bits >> 8 & 3) as u32) << 7;
            if bits % 64 == 0 { any } else { near }
        };
        let mut tile = |center| std::array::from_fn(|_| f32::from_bits(half(center) | half(center) << 16));
        Self([tile(sums), tile(operands), tile(operands)])
    }

    /// The tile of sums after one multiplication, and after a second one.
    unsafe fn product<R: TileRegisters, const QUADS: bool>(
        &self,
        rows: u8,
    ) -> [f32; 2 * REGISTER_ROWS * REGISTER_ROWS] {
        let [sums, left, right] = &self.0;
        let mut out = [0.0; 2 * REGISTER_ROWS * REGISTER_ROWS];
        // SAFETY: the caller's contract; tiles of 16 rows.
        unsafe {
            let mut registers = R::configured([rows, 0, 0, 0, rows, 0, REGISTER_ROWS as u8, 0]);
            registers.load::<0>(sums.as_ptr(), REGISTER_ROWS);
            registers.load_passing::<4>(left.as_ptr(), REGISTER_ROWS);
            registers.load::<6>(right.as_ptr(), REGISTER_ROWS);
            let dot = if QUADS { R::dot_quads::<0, 4, 6> } else { R::dot::<0, 4, 6> };
            dot(&mut registers);
            registers.store::<0>(out.as_mut_ptr(), REGISTER_ROWS);
            dot(&mut registers);
            registers.store::<0>(out.as_mut_ptr().add(REGISTER_ROWS * REGISTER_ROWS), REGISTER_ROWS);
        }
        out
    }
}

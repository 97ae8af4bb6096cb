//! Rounding to bf16.

use trm_simd::array::round_bf16;

#[test]
fn bf16_rounds_to_nearest_with_ties_to_even() {
    assert_eq!(round_bf16(1.0), 1.0);
    assert_eq!(round_bf16(1.0 + 1.0 / 256.0), 1.0, "a tie goes to the even neighbour below");
    assert_eq!(round_bf16(1.0 + 3.0 / 256.0), 1.0 + 4.0 / 256.0, "a tie goes to the even neighbour above");
    assert_eq!(round_bf16(1.0 + 1.01 / 256.0), 1.0 + 2.0 / 256.0);
    assert_eq!(round_bf16(f32::MAX), f32::INFINITY);
    assert_eq!(round_bf16(f32::NEG_INFINITY), f32::NEG_INFINITY);
    assert!(round_bf16(f32::from_bits(0x7f80_0001)).is_nan());
}

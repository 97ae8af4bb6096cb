//! What only the CUDA device's kernels do, on its twin.

use super::*;

type Twin = crate::device::Cuda<f32, crate::cuda::Twin>;

/// The tests of kernels ask the device; this one says what it has to answer.
#[test]
fn warpgroups_send_gradients_through_norms() {
    for (precision, n_in, expected) in
        [(Precision::Bf16, 512, true), (Precision::Bf16, 520, false), (Precision::F32, 512, false)]
    {
        let mut lab = Lab::<Twin>::new(0, precision);
        let (params, _, [weight]) = lab.weights([(1024, n_in, Usage::Rows)]);
        let (x, dy) = (lab.random(3 * n_in), lab.random(3 * 1024));
        assert_eq!(lab.device.norms_input_grad(&params, &[weight], &[dy, x]), expected, "{precision:?}, {n_in}");
    }
}

/// Rows that are wider than a tile, of which each cluster of blocks makes several after each other: sums over them pass between the
/// blocks. Tiles are 128 or 256 wide, whichever takes less time, so there are clusters of two, three and four (`TWIN_PROCESSORS`).
#[test]
fn norms_of_rows_that_several_blocks_share() {
    for (seed, sizes) in [[700, 512, 512], [250, 704, 376], [250, 376, 704], [140, 1024, 256]].into_iter().enumerate() {
        let seed = seed as u64;
        let exact = linear(&mut Lab::<Reference<f64>>::new(seed, Precision::F32), sizes);
        let ours = linear(&mut Lab::<Twin>::new(seed, Precision::Bf16), sizes);
        assert_close(&format!("linear {sizes:?}"), "cuda bf16", seed, &ours, &exact, 2e-2);
    }
}

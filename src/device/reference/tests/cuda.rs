//! What only a CUDA device's kernels do: on the twin, and with `TRM_TEST_GPU` set on a GPU.

use super::*;
use crate::cuda::Backend;
use crate::device::{Cuda, SumEpilogue};

fn lab<B: Backend>(seed: u64, precision: Precision) -> Lab<Cuda<f32, B>> {
    Lab::new(seed, precision)
}

/// The tests of kernels ask the device; this one says what it has to answer.
#[cfg(cuda_twin)]
#[test]
fn warpgroups_send_gradients_through_norms() {
    let cases = [(Precision::Bf16, 512, true), (Precision::Bf16, 520, false), (Precision::F32, 512, false)];
    for (precision, n_in, expected) in cases {
        let mut lab = lab::<crate::cuda::Twin>(0, precision);
        let (params, _, [weight]) = lab.weights([(1024, n_in, Usage::Rows)]);
        let (x, dy) = (lab.random(3 * n_in), lab.random(3 * 1024));
        assert_eq!(lab.device.norms_input_grad(&params, &[weight], &[dy, x]), expected, "{precision:?}, {n_in}");
    }
}

#[cfg(cuda_twin)]
#[test]
fn warpgroups_rotate_q_and_k_where_they_make_them() {
    let cases = [
        (Precision::Bf16, 97, 64, true),
        (Precision::Bf16, 916, 64, true),
        (Precision::Bf16, 97, 32, false),
        (Precision::F32, 97, 64, false),
    ];
    for (precision, len, head_dim, expected) in cases {
        let mut lab = lab::<crate::cuda::Twin>(0, precision);
        let (params, _, [weight]) = lab.weights([(1536, 512, Usage::Rows)]);
        let shape = AttentionShape { sequences: 1, len, heads: 512 / head_dim, head_dim };
        let x = lab.random(len * 512);
        assert_eq!(lab.device.fuses_rope(&params, weight, &shape, &[x]), expected, "{precision:?}, {len}, {head_dim}");
    }
}

/// A product that ends with the norm, forward and backward, and the two kernels that it stands for.
fn norms_together_and_apart<B: Backend>(seed: u64, [m, n_in, n_out]: [usize; 3]) {
    let mut lab = lab::<B>(seed, Precision::Bf16);
    let (params, _, [weight]) = lab.weights([(n_out, n_in, Usage::Rows)]);
    let (x, h, dy, base) = (lab.random(m * n_in), lab.random(m * n_out), lab.random(m * n_out), lab.random(m * n_in));
    let norm = Normed { y: x, inv_rms: lab.numbers(m) };
    let [together, apart] = [true, false].map(|together| {
        let (y, inv_rms, to) = (lab.zeros(m * n_out), lab.factors(m), lab.zeros(m * n_in));
        let goes_on = lab.device.norms_input_grad(&params, &[weight], &[dy, x]);
        let dx = InputGrad { to, base: Some(base), norm: Some(norm).filter(|_| together && goes_on) };
        lab.device.linear(&params, weight, x, y, Some(NormEpilogue::new(h, inv_rms)).filter(|_| together));
        lab.device.linear_backward(&params, weight, dy, dx);
        if !together {
            lab.device.add_rmsnorm(Over::Features, n_out, h, y, inv_rms);
        }
        if dx.norm.is_none() {
            lab.device.rmsnorm_backward(Over::Features, n_in, x, norm.inv_rms, to);
        }
        lab.read(&[y, inv_rms, to])
    });
    assert_close(&format!("norm after {m} × {n_in} × {n_out}"), B::NAME, seed, &together, &apart, 1e-2);
}

/// Rows that are wider than a tile, of which each cluster of blocks makes several after each other: sums over them pass between the
/// blocks. Tiles are 128 or 256 wide, whichever takes less time, so there are clusters of one to four (`TWIN_PROCESSORS`).
#[test]
fn norms_of_rows_that_several_blocks_share() {
    for (seed, sizes) in [[700, 512, 512], [250, 704, 376], [250, 376, 704], [140, 1024, 256]].into_iter().enumerate() {
        #[cfg(cuda_twin)]
        norms_together_and_apart::<crate::cuda::Twin>(seed as u64, sizes);
        #[cfg(cuda_gpu)]
        if std::env::var_os("TRM_TEST_GPU").is_some() {
            norms_together_and_apart::<crate::cuda::Gpu>(seed as u64, sizes);
            norms_together_and_apart::<crate::cuda::Gpu>(seed as u64, [100 * sizes[0], sizes[1], sizes[2]]);
        }
    }
}

/// A SwiGLU with residual and norm, and the sum that begins with its result: made by the kernel beside the result, instead of it, or by a
/// kernel of its own, which has the same bits. The value says whether the device does that.
fn sums_together_and_apart<B: Backend>(seed: u64, [m, width, inner]: [usize; 3]) -> bool {
    let mut lab = lab::<B>(seed, Precision::Bf16);
    let weights = [(2 * inner, width, Usage::GateUpRows), (width, inner, Usage::DownRows)];
    let (params, _, [gate_up, down]) = lab.weights(weights);
    let swiglu = SwiGlu { gate_up, down, over: Over::Features, width };
    let (x, added, then) = (lab.random(m * width), lab.random(m * width), lab.random(m * width));
    if !lab.device.fuses_sum(&params, swiglu, &[x, added, then]) {
        return false;
    }
    for then in [None, Some(then)] {
        let (y, inv_rms, apart) = (lab.zeros(m * width), lab.factors(m), lab.zeros(m * width));
        lab.device.swiglu(&params, swiglu, x, None, y, Some(NormEpilogue::new(x, inv_rms)));
        lab.device.sum(&[y, added].into_iter().chain(then).collect::<Vec<_>>(), apart);
        let expected = lab.read(&[y, inv_rms, apart]);
        for alone in [false, true] {
            let (y, inv_rms, beside) = (lab.zeros(m * width), lab.factors(m), lab.zeros(m * width));
            let out = if alone { y } else { beside };
            let epilogue =
                NormEpilogue { sum: Some(SumEpilogue { added, then, out }), ..NormEpilogue::new(x, inv_rms) };
            lab.device.swiglu(&params, swiglu, x, None, y, Some(epilogue));
            let made = lab.read(&[y, inv_rms, out]);
            let of_y = usize::from(alone); // which then holds the sum
            assert!(made[of_y..] == expected[of_y..], "{} {m} × {width} × {inner}, {then:?}, alone {alone}", B::NAME);
        }
    }
    true
}

#[test]
fn sums_after_norms_have_the_bits_of_a_kernel_of_their_own() {
    for (seed, sizes) in [[300, 512, 512], [130, 376, 704], [70, 256, 1024]].into_iter().enumerate() {
        #[cfg(cuda_twin)]
        assert!(sums_together_and_apart::<crate::cuda::Twin>(seed as u64, sizes), "{sizes:?}");
        #[cfg(cuda_gpu)]
        if std::env::var_os("TRM_TEST_GPU").is_some() {
            sums_together_and_apart::<crate::cuda::Gpu>(seed as u64, sizes);
            sums_together_and_apart::<crate::cuda::Gpu>(seed as u64, [100 * sizes[0], sizes[1], sizes[2]]);
        }
    }
}

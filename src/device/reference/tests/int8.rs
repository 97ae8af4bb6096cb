//! Products in eight bits, on the CPU against the reference.

use super::*;
use crate::device::Detached;

/// Products of calls without gradient, in whole numbers of eight bits: `linear` and `swiglu` in both orientations, with residual and norm.
fn in_int8<D: Device>(lab: &mut Lab<D>) -> Outputs {
    let [sequences, len, width, inner] = lab.sizes([3, 40, 50, 60]);
    let formats = Formats { precision: lab.precision, detached: Detached::Int8 };
    let shapes = [
        (2 * inner, width, Usage::GateUpRows),
        (width, inner, Usage::DownRows),
        (2 * inner, len, Usage::GateUpCols),
        (len, inner, Usage::Cols),
        (inner, width, Usage::Rows),
    ];
    let (params, _, [gate_up, down, gate_up_cols, down_cols, weight]) = lab.weights_in(shapes, formats);
    let size = sequences * len * width;
    let mut outputs = Vec::new();
    lab.device.set_detached(true);
    let over_positions = SwiGlu { gate_up: gate_up_cols, down: down_cols, over: Over::Positions(len), width };
    for swiglu in [SwiGlu { gate_up, down, over: Over::Features, width }, over_positions] {
        let (x, y, h) = (lab.random(size), lab.zeros(size), lab.random(size));
        let factors = if swiglu.over == Over::Features { sequences * len } else { sequences * width };
        let inv_rms = lab.factors(factors);
        lab.device.swiglu(&params, swiglu, x, None, y, Some(NormEpilogue::new(h, inv_rms)));
        outputs.extend(lab.read(&[y, inv_rms]));
    }
    let (x, y) = (lab.random(size), lab.zeros(sequences * len * inner));
    lab.device.linear(&params, weight, x, y, None);
    lab.device.set_detached(false);
    let usual = lab.zeros(sequences * len * inner);
    lab.device.linear(&params, weight, x, usual, None);
    outputs.extend(lab.read(&[y, usual]));
    outputs
}

#[test]
fn products_of_detached_calls_in_eight_bits() {
    for seed in 0..rounds("int8") {
        let exact = in_int8(&mut Lab::<Reference<f64>>::new(seed, Precision::F32));
        let ours = in_int8(&mut Lab::<Cpu<f64>>::new(seed, Precision::F32));
        assert_close("int8", "cpu f64", seed, &ours, &exact, 1e-11);
        // An element that lies between two whole numbers may become either, which the activation's rounding in f32 decides.
        let plain = in_int8(&mut Lab::<Reference<f32>>::new(seed, Precision::F32));
        for isa in crate::simd::Isa::available() {
            let ours = isa.run(|| in_int8(&mut Lab::<Cpu<f32>>::new(seed, Precision::F32)));
            assert_close("int8", &format!("cpu f32, {isa}"), seed, &ours, &plain, 3e-3);
        }
        // What is rounded is another result than what is not.
        let (int8, usual) = (&exact[4], &exact[5]);
        let differ = int8.iter().zip(usual).any(|(a, b)| a != b);
        assert!(differ || int8.len() == 1, "seed {seed}: rounded");
        let sum = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let error: Vec<f64> = int8.iter().zip(usual).map(|(a, b)| a - b).collect();
        assert!(sum(&error) <= 0.02 * sum(usual), "seed {seed}: {} of {}", sum(&error), sum(usual));
    }
}

//! The profile of a training step: every operation is there, called as the schedule says, and FLOPs are the model's.

use std::collections::BTreeMap;

use crate::common::config;
use trm::config::Mixing;
use trm::engine::Lanes;
use trm::model::{Model, model_flops};
use trm::perf::{Profile, Workload};
use trm::tape::profile::Phase;

const UPDATES: u64 = 3;

fn profile(mixing: Mixing, batch_size: usize, threads: usize) -> (Profile, Model) {
    let mut config = config(mixing, batch_size);
    // The continue loss runs the model once more, which the counting rule leaves out.
    config.train.continue_loss = false;
    let lanes = Lanes::new(threads).unwrap();
    let mut workload = Workload::new(&lanes, config).expect("room for it");
    let profile = workload.profile(UPDATES).unwrap();
    let model = workload.model().clone();
    (profile, model)
}

/// Calls of each operation in one update of one shard.
fn expected(model: &Model, mixing: Mixing) -> BTreeMap<(&'static str, Phase), u64> {
    let blocks = model.nets[0].blocks.len() as u64;
    let recorded = model.schedule.calls.iter().filter(|call| call.recorded).count() as u64;
    let detached = model.schedule.calls.len() as u64 - recorded;
    let mut calls = BTreeMap::new();
    let mut count = |name, phase, n| *calls.entry((name, phase)).or_insert(0) += n;
    for (phase, n) in [(Phase::Detached, detached), (Phase::Recorded, recorded), (Phase::Backward, recorded)] {
        count("add", phase, n);
        count("swiglu", phase, n * blocks);
        count("add + rmsnorm", phase, 2 * n * blocks);
        match mixing {
            Mixing::MlpT => count("swiglu over positions", phase, n * blocks),
            Mixing::Attention => {
                count("attention", phase, n * blocks);
                count("linear", phase, 2 * n * blocks);
            }
        }
    }
    count("deferred weight gradients", Phase::Backward, 1);
    for phase in [Phase::Recorded, Phase::Backward] {
        count("token embedding", phase, 1);
        count("puzzle prefix", phase, 1);
        count("select positions", phase, 2);
        count("linear", phase, 2);
        count("cross-entropy", phase, 1);
        count("bce with logits", phase, 1);
    }
    calls
}

#[test]
fn every_operation_is_listed_and_called_as_the_schedule_says() {
    for mixing in [Mixing::MlpT, Mixing::Attention] {
        for threads in [1, 2, 3] {
            let (profile, model) = profile(mixing, 14, threads);
            let shards = 4;
            let found: BTreeMap<_, _> = profile
                .lines
                .iter()
                .filter(|line| !matches!(line.phase, Phase::Outside(_)))
                .map(|line| ((line.name, line.phase), line.calls))
                .collect();
            let mut wanted = expected(&model, mixing);
            wanted.values_mut().for_each(|calls| *calls *= shards * UPDATES);
            assert_eq!(found, wanted, "{mixing:?}, {threads} threads");
        }
    }
}

#[test]
fn the_flops_of_the_operations_are_the_models() {
    for mixing in [Mixing::MlpT, Mixing::Attention] {
        let (profile, model) = profile(mixing, 6, 2);
        let sum: f64 = profile.lines.iter().map(|line| line.flops).sum();
        assert_eq!(sum, model_flops(&model).total() * 6.0 * UPDATES as f64, "{mixing:?}");
    }
}

#[test]
fn the_parts_are_the_whole_and_what_is_outside_of_the_tape_is_named() {
    let (profile, _) = profile(Mixing::MlpT, 8, 2);
    assert_eq!((profile.updates, profile.lanes, profile.batch), (UPDATES, 2, 8));
    let outside: Vec<&str> =
        profile.lines.iter().filter(|line| matches!(line.phase, Phase::Outside(_))).map(|line| line.name).collect();
    for name in [
        "carry in and out",
        "metrics",
        "gradient buffer",
        "gradient tree",
        "helping, waiting",
        "gradient sum",
        "optimizer, average, packing",
        "deal examples",
        "losses, norm",
        "halting",
    ] {
        assert!(outside.contains(&name), "{name}: {outside:?}");
    }
    let sum: f64 = profile.lines.iter().map(|line| line.seconds).sum();
    assert!((sum - profile.seconds() * UPDATES as f64).abs() < 1e-9);
    assert!(profile.lines.iter().all(|line| line.seconds > -1e-4 && line.calls > 0), "{profile:?}");
    assert!(profile.sequence_seconds() > 0.0 && profile.serial_per_sequence() > 0.0);
}

#[test]
fn after_a_profile_nothing_is_timed_any_more() {
    let lanes = Lanes::new(2).unwrap();
    let mut workload = Workload::new(&lanes, config(Mixing::MlpT, 8)).expect("room for it");
    let first = workload.profile(1).unwrap();
    workload.run(trm::perf::Work::Train).unwrap();
    let second = workload.profile(1).unwrap();
    let calls = |profile: &Profile| profile.lines.iter().map(|line| line.calls).collect::<Vec<_>>();
    assert_eq!(calls(&first), calls(&second));
}

/// The same on the twin of a GPU, whose times are those between events in its queue.
#[cfg(cuda_twin)]
mod on_the_twin {
    use std::time::Instant;

    use trm::config::PrecisionSetting;
    use trm::cuda::Twin;
    use trm::device::Cuda;

    use super::*;

    /// A profile, its model, and seconds that it took on the host.
    fn profile(mixing: Mixing, precision: PrecisionSetting) -> (Profile, Model, f64) {
        let mut config = config(mixing, 6);
        (config.train.continue_loss, config.train.precision, config.model.hidden_size) = (false, precision, 64);
        let lanes = Lanes::<Cuda<f32, Twin>>::start(1).unwrap();
        let mut workload = Workload::new(&lanes, config).expect("room for it");
        let started = Instant::now();
        let profile = workload.profile(UPDATES).unwrap();
        let seconds = started.elapsed().as_secs_f64();
        let model = workload.model().clone();
        (profile, model, seconds)
    }

    #[test]
    fn every_operation_is_listed_and_flops_are_the_models() {
        for mixing in [Mixing::MlpT, Mixing::Attention] {
            for precision in [PrecisionSetting::F32, PrecisionSetting::Bf16] {
                let (profile, model, _) = profile(mixing, precision);
                let of_tape = profile.lines.iter().filter(|line| !matches!(line.phase, Phase::Outside(_)));
                let found: BTreeMap<_, _> = of_tape.map(|line| ((line.name, line.phase), line.calls)).collect();
                let mut wanted = expected(&model, mixing);
                // No weight gradient is put off.
                wanted.remove(&("deferred weight gradients", Phase::Backward)).expect("on the host");
                wanted.values_mut().for_each(|calls| *calls *= UPDATES);
                assert_eq!(found, wanted, "{mixing:?}");
                let flops: f64 = profile.lines.iter().map(|line| line.flops).sum();
                assert_eq!(flops, model_flops(&model).total() * 6.0 * UPDATES as f64, "{mixing:?}");
            }
        }
    }

    #[test]
    fn the_parts_are_the_whole_which_is_no_longer_than_on_the_host() {
        let (profile, _, on_the_host) = profile(Mixing::MlpT, PrecisionSetting::Bf16);
        assert_eq!((profile.updates, profile.lanes), (UPDATES, 1));
        // A time between two events is an f32, so what is left of a difference of sums may lie below 0 by that.
        let rounding = 1e-6 * on_the_host;
        assert!(profile.lines.iter().all(|line| line.seconds >= -rounding && line.calls > 0), "{profile:?}");
        let whole = profile.seconds() * UPDATES as f64;
        assert!(0.0 < whole && whole <= on_the_host + rounding, "{whole} of {on_the_host}");
        // Everything that was queued is somebody's: between two operations no time is lost.
        let waiting = profile.lines.iter().find(|line| line.name == "helping, waiting").expect("listed");
        assert!(waiting.seconds < 0.5 * whole, "{profile:?}");
    }

    #[test]
    fn activations_in_bf16_are_half_the_bytes_of_f32() {
        let bytes = |precision| -> BTreeMap<_, _> {
            let (profile, ..) = profile(Mixing::Attention, precision);
            profile.lines.iter().map(|line| ((line.name, line.phase), line.bytes)).collect()
        };
        let (f32, bf16) = (bytes(PrecisionSetting::F32), bytes(PrecisionSetting::Bf16));
        for operation in ["add", "attention", "add + rmsnorm", "swiglu"] {
            let key = (operation, Phase::Recorded);
            assert_eq!(2.0 * bf16[&key], f32[&key], "{operation}");
        }
        // Losses stay exact.
        let key = ("cross-entropy", Phase::Recorded);
        assert_eq!(bf16[&key], f32[&key]);
    }
}

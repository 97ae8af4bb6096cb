//! What an update would take on a machine with more cores: an analytic model of data-parallel training, pure functions only.
//!
//! | part | seconds |
//! |---|---|
//! | lanes | the larger of compute and weight traffic (bytes of packed weights that the calls read ÷ bandwidth): a roofline |
//! | compute | a group's seconds on one core × (whole rounds of groups, `⌊groups / cores⌋`, + what the last groups take) |
//! | reduction | bytes that the all-reduce of the gradients moves ÷ bandwidth |
//! | optimizer | bytes that Adam, EMA and packing move ÷ bandwidth |
//! | barrier | [`JOINS`] fork-joins, each a binary tree of `⌈log₂ cores⌉` hand-overs |
//! | serial | what one thread does for every sequence: refilling slots, losses, halting (Amdahl's serial part) |
//!
//! In the last round there are fewer groups than cores, r of them left: each is worked on by a team of c / r cores, which divides all
//! of its work but a share σ (Amdahl): it takes σ + (1 − σ) · r / c of a round. Every core of a team reads the weights.
//!
//! Bandwidth is what one core was measured to stream, times cores, up to what the memory of its sockets gives
//! ([`SOCKET_BANDWIDTH`], [`CORES_PER_SOCKET`]: stated, not measured). Everything else of [`MachineFigures`] is measured
//! on the machine at hand. No weight is taken to stay in a cache, so weight traffic is an upper bound.

use serde::Serialize;

use crate::config::Config;
use crate::device::{Cpu, Device};
use crate::engine::{partial_sums, precision_for};
use crate::model::{Model, model_flops};

/// Barriers of an update, where all lanes meet: after the groups, after the sum, after the optimizer.
pub const JOINS: f64 = 3.0;

/// Bytes per second of a server socket's memory: 12 channels of DDR5-4800.
pub const SOCKET_BANDWIDTH: f64 = 460e9;

/// Cores of a server socket.
pub const CORES_PER_SOCKET: usize = 128;

/// [`MachineFigures::team_serial`] where it is not measured: as [`MachineFigures::team_serial_of`] found it for the published settings.
pub const TEAM_SERIAL: f64 = 0.1;

/// Bytes of an f32.
const F32: f64 = 4.0;

/// What one update of an experiment has to do, on whatever machine.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct UpdateWork {
    /// Sequences in the batch.
    pub batch: usize,
    /// Gradient groups, the units of data parallelism. Cores beyond these help with their products.
    pub groups: usize,
    /// Sequences a lane takes at a time.
    pub shard: usize,
    /// Model FLOPs of one sequence (see [`model_flops`]).
    pub flops_per_sequence: f64,
    /// Dense weights.
    pub weights: usize,
    /// Bytes of packed weights that the GEMMs of one shard read.
    pub streamed_per_shard: f64,
    /// Bytes of one packed element; a weight is packed twice, as it is and transposed.
    pub packed_element: f64,
}

/// What was measured on the machine at hand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MachineFigures {
    /// FMA limit of one core while all work, FLOP/s.
    pub core_limit: f64,
    /// Lane seconds per sequence, forward and backward pass without reduction, while the other cores work too.
    pub sequence_seconds: f64,
    /// Bytes per second one core streams (read and write together) while all do.
    pub core_bandwidth: f64,
    /// Seconds of one hand-over between two threads: the latency of one level of a fork-join.
    pub handover_seconds: f64,
    /// Seconds per sequence of what one thread does while the lanes wait.
    pub serial_per_sequence: f64,
    /// Share of a group's work that a team of cores does not divide.
    pub team_serial: f64,
}

/// Predicted seconds of one update, by part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// Cores of the machine.
    pub cores: usize,
    /// Forward and backward passes of the lanes, if arithmetic bounds them.
    pub compute: f64,
    /// The same, if the traffic of the packed weights bounds them.
    pub streaming: f64,
    /// Summing the gradients.
    pub reduction: f64,
    /// The optimizer's sweep.
    pub optimizer: f64,
    /// Meeting at the ends of the parallel parts.
    pub barrier: f64,
    /// What one thread does.
    pub serial: f64,
}

impl UpdateWork {
    /// The update of a complete experiment.
    pub fn new(config: &Config) -> Self {
        let model = Model::new(&config.model, &config.task);
        let train = &config.train;
        let weights = model.layout.n_weights();
        let packed_element = precision_for::<Cpu<f32>>(train.precision).element_bytes() as f64;
        let recorded = model.schedule.calls.iter().filter(|call| call.recorded).count();
        // A forward pass reads a weight as it is, a backward pass transposed; several nets share the calls.
        let passes = (model.schedule.calls.len() + recorded) as f64 / model.nets.len() as f64;
        Self {
            batch: train.batch_size,
            groups: crate::engine::gradient_groups(train),
            shard: Cpu::<f32>::shard(model.len),
            flops_per_sequence: model_flops(&model).total(),
            weights,
            streamed_per_shard: passes * weights as f64 * packed_element,
            packed_element,
        }
    }

    /// Shards of an update.
    pub fn shards(&self) -> f64 {
        let per_group = self.batch as f64 / self.groups as f64;
        self.groups as f64 * (per_group / self.shard as f64).ceil()
    }

    /// Bytes of packed weights that all calls of an update read.
    pub fn streamed_bytes(&self, cores: usize) -> f64 {
        let left = self.groups % cores;
        let readers = if left == 0 { 0 } else { cores.div_ceil(left) };
        let reads = (self.groups - left + left * readers) as f64 / self.groups as f64;
        reads * self.shards() * self.streamed_per_shard
    }

    /// Rounds of groups that an update takes: whole ones, and the share of one in which teams work on the last groups.
    pub fn rounds(&self, cores: usize, team_serial: f64) -> f64 {
        let left = self.groups % cores;
        let last = team_serial + (1.0 - team_serial) * left as f64 / cores as f64;
        (self.groups / cores) as f64 + if left == 0 { 0.0 } else { last }
    }

    /// Bytes that the all-reduce of the groups' gradients moves. While there are more partial sums than `cores`, an addition
    /// reads two and writes one; those that are left are each read once, and their sum is written.
    pub fn reduction_bytes(&self, cores: usize) -> f64 {
        let left = partial_sums(self.groups, cores) as f64;
        let gradient = F32 * self.weights as f64;
        (self.groups as f64 - left) * 3.0 * gradient + if left > 1.0 { (left + 1.0) * gradient } else { gradient }
    }

    /// Bytes of the optimizer's sweep: it reads and writes weight, two moments and EMA, reads the gradient, and writes both
    /// packed forms.
    pub fn optimizer_bytes(&self) -> f64 {
        (9.0 * F32 + 2.0 * self.packed_element) * self.weights as f64
    }

    /// Memory traffic of an update: all bytes counted.
    pub fn bytes(&self, cores: usize) -> f64 {
        self.streamed_bytes(cores) + self.reduction_bytes(cores) + self.optimizer_bytes()
    }
}

impl MachineFigures {
    /// Memory bandwidth of so many cores together, bytes per second.
    pub fn bandwidth(&self, cores: usize) -> f64 {
        let sockets = cores.div_ceil(CORES_PER_SOCKET) as f64;
        (cores as f64 * self.core_bandwidth).min(sockets * SOCKET_BANDWIDTH.max(self.core_bandwidth))
    }
}

impl Prediction {
    /// Seconds of the update.
    pub fn seconds(&self) -> f64 {
        self.compute.max(self.streaming) + self.reduction + self.optimizer + self.barrier + self.serial
    }

    /// The part that takes most of the time beyond `ideal_compute`, the seconds of perfect scaling.
    pub fn bottleneck(&self, ideal_compute: f64) -> &'static str {
        let lanes = self.compute.max(self.streaming) - ideal_compute;
        let name = if self.streaming > self.compute { "weight streaming" } else { "uneven groups" };
        let parts = [
            (name, lanes),
            ("reduction", self.reduction),
            ("optimizer", self.optimizer),
            ("barrier", self.barrier),
            ("serial part", self.serial),
        ];
        parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).map_or("", |(name, _)| name)
    }
}

/// An update on `cores` cores like those of `machine`.
pub fn predict(work: &UpdateWork, machine: &MachineFigures, cores: usize) -> Prediction {
    let cores = cores.max(1);
    let bandwidth = machine.bandwidth(cores);
    let group_seconds = work.batch as f64 / work.groups as f64 * machine.sequence_seconds;
    Prediction {
        cores,
        compute: work.rounds(cores, machine.team_serial) * group_seconds,
        streaming: work.streamed_bytes(cores) / bandwidth,
        reduction: work.reduction_bytes(cores) / bandwidth,
        optimizer: work.optimizer_bytes() / bandwidth,
        barrier: JOINS * machine.handover_seconds * f64::from(cores.next_power_of_two().ilog2()),
        serial: work.batch as f64 * machine.serial_per_sequence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> UpdateWork {
        UpdateWork::new(&Config::resolve(Some("sudoku-extreme"), None, &[]).unwrap())
    }

    const MACHINE: MachineFigures = MachineFigures {
        core_limit: 240e9,
        sequence_seconds: 0.2,
        core_bandwidth: 15e9,
        handover_seconds: 2e-6,
        serial_per_sequence: 1e-5,
        team_serial: TEAM_SERIAL,
    };

    #[test]
    fn the_published_step_is_counted_as_published() {
        let step = published();
        assert_eq!((step.batch, step.groups, step.shards()), (768, 192, 192.0));
        // 440 MFLOP per token and step.
        let per_token = step.flops_per_sequence / 97.0;
        assert!((per_token / 440e6 - 1.0).abs() < 0.02, "{per_token}");
    }

    #[test]
    fn one_core_does_everything_one_after_the_other() {
        let step = published();
        let one = predict(&step, &MACHINE, 1);
        assert_eq!(one.compute, 768.0 * MACHINE.sequence_seconds);
        assert_eq!(one.barrier, 0.0);
        let parts = one.compute.max(one.streaming) + one.reduction + one.optimizer + one.serial;
        assert_eq!(one.seconds(), parts);
    }

    #[test]
    fn more_cores_never_cost_more_than_the_part_of_a_group_that_a_team_does_not_divide() {
        let step = published();
        let group = 4.0 * MACHINE.sequence_seconds;
        let compute = |cores| predict(&step, &MACHINE, cores).compute;
        for cores in 1..1000 {
            let ideal = 192.0 * group / cores as f64;
            assert!(compute(cores) >= ideal * 0.9999 && compute(cores) <= ideal + TEAM_SERIAL * group, "{cores}");
        }
        // One round, and many cores for each of its groups.
        assert!((compute(192) - group).abs() < 1e-9);
        assert!((compute(768) - (TEAM_SERIAL + (1.0 - TEAM_SERIAL) / 4.0) * group).abs() < 1e-9);
    }

    #[test]
    fn groups_that_do_not_divide_by_the_cores_cost_their_share_of_a_round() {
        let step = published();
        let group = 4.0 * MACHINE.sequence_seconds;
        let half = TEAM_SERIAL + (1.0 - TEAM_SERIAL) / 2.0;
        assert!((predict(&step, &MACHINE, 128).compute - (1.0 + half) * group).abs() < 1e-9);
        assert!((predict(&step, &MACHINE, 96).compute - 2.0 * group).abs() < 1e-9);
        let nothing_is_shared = MachineFigures { team_serial: 1.0, ..MACHINE };
        assert!((predict(&step, &nothing_is_shared, 128).compute - 2.0 * group).abs() < 1e-9, "a whole round");
        assert_eq!(predict(&step, &nothing_is_shared, 128).bottleneck(1.5 * group), "uneven groups");
    }

    #[test]
    fn servers_keep_nine_tenths_of_their_cores_at_the_published_batch_and_four_fifths_at_a_third_of_it() {
        for (batch, least) in [("768", 0.9), ("256", 0.8)] {
            let config = Config::resolve(Some("sudoku-extreme"), None, &[format!("train.batch_size={batch}")]).unwrap();
            let step = UpdateWork::new(&config);
            for cores in [64, 96, 128, 192] {
                let speed_up = predict(&step, &MACHINE, 1).seconds() / predict(&step, &MACHINE, cores).seconds();
                assert!(speed_up >= least * cores as f64, "batch {batch} on {cores} cores: {speed_up}");
            }
        }
    }

    #[test]
    fn every_core_of_a_team_reads_the_weights() {
        let step = published();
        let once = step.shards() * step.streamed_per_shard;
        for (cores, times) in [(1, 1.0), (64, 1.0), (192, 1.0), (128, (128.0 + 64.0 * 2.0) / 192.0), (400, 3.0)] {
            assert!((step.streamed_bytes(cores) / once - times).abs() < 1e-9, "{cores}");
        }
    }

    #[test]
    fn a_machine_that_streams_slowly_is_held_by_streaming() {
        let slow = MachineFigures { core_bandwidth: 1e8, ..MACHINE };
        let prediction = predict(&published(), &slow, 64);
        assert!(prediction.streaming > prediction.compute);
        assert_eq!(prediction.bottleneck(prediction.compute), "weight streaming");
    }

    #[test]
    fn the_sum_moves_three_buffers_an_addition_on_one_core_and_each_once_when_every_group_has_its_own() {
        let step = UpdateWork { groups: 8, weights: 100, ..published() };
        assert_eq!(step.reduction_bytes(1), 400.0 * (7.0 * 3.0 + 1.0));
        assert_eq!(step.reduction_bytes(8), 400.0 * 9.0);
        assert_eq!([1, 2, 3, 4, 7, 8, 100].map(|cores| partial_sums(8, cores)), [1, 2, 2, 4, 4, 8, 8]);
        assert_eq!(partial_sums(6, 100), 4);
    }

    #[test]
    fn bandwidth_grows_with_cores_up_to_what_the_sockets_give() {
        assert_eq!(MACHINE.bandwidth(4), 60e9);
        assert_eq!(MACHINE.bandwidth(128), SOCKET_BANDWIDTH);
        assert_eq!(MACHINE.bandwidth(192), 2.0 * SOCKET_BANDWIDTH);
    }
}

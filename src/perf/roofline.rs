//! What a training step would take in AMX's tile registers, by a roofline: estimates for a server core that no machine here
//! has, from stated figures ([`ServerCore`]) and counts of what the kernels do.
//!
//! | part | cycles of a core |
//! |---|---|
//! | products | multiply-adds ÷ 512: a TDPBF16PS of 16 × 16 × 32 takes 16 cycles |
//! | vectors | what AVX-512 does between products: activations, norms, softmax, rounding (`ACTIVATION`, `NORM`, `SCORE`: instructions for 16 elements, counted in the kernels), two a cycle |
//! | L2 | left tiles that a block of 2 × 2 registers of sums reads: 2 KiB for 32 × 32 × 32 multiply-adds |
//! | L3 | packed weights, once for each shard and call |
//! | memory | what the recorded calls keep for the backward pass and for the weight gradients, written once and read once |
//!
//! Registers multiply 16 times as fast as AVX-512's multiply-adds in f32, so what else there is decides. The estimate takes
//! products and vector work one after the other, as the kernels do (a strip is multiplied, then activated), and the traffic
//! as hidden behind them where it is less.
//!
//! What follows for the kernels, and is built so (measured, a step took four times this estimate on the one processor it has run on:
//! EXPERIMENTS.md, "An Intel server with tile registers"):
//!
//! * Sums take four of eight registers (2 × 2). A block of one operand then serves two of the other, and a core reads 32 bytes
//!   a cycle from L2, of the 48 or so that it can; with one register of sums it would be 64.
//! * The right panel's block of 256 units stays in L1 (32 of 48 KiB), left tiles pass through from L2.
//! * What follows a product is done on its strip while that is in L1 or L2: SwiGLU's activation, residual and norm, softmax.
//!   A pass over memory of its own would cost more than the product.
//! * Weights come from L3 once for a shard. At four sequences of 97 rows that is a sixth to a fifth of the products' time,
//!   behind which it hides: a lane takes as many sequences as on other paths.
//! * What is left to gain is in the vectors' work, a third of the whole with an MLP over positions, which a core could do
//!   while its tile registers multiply the next strip.
//! * A block of a weight's gradient is twice as high as in AVX-512 (`deferred.rs`).

use serde::Serialize;

use super::footprint::recorded_bytes;
use super::scaling::UpdateWork;
use crate::config::Config;
use crate::device::{Cpu, Device};
use crate::model::{Mix, Mlp, Model};

/// A core of a server with AMX while all cores of its socket work: stated, not measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ServerCore {
    /// Clock with all cores in AMX, GHz.
    pub ghz: f64,
    /// bf16 multiply-adds of the tile registers in a cycle.
    pub multiply_adds: f64,
    /// Multiply-adds of AVX-512 in f32 in a cycle.
    pub f32_multiply_adds: f64,
    /// Bytes that L1 gets from L2 in a cycle.
    pub l2: f64,
    /// Bytes from L3 in a cycle.
    pub l3: f64,
    /// A core's share of the memory's bytes in a cycle: 8 channels of DDR5-4800 for 56 cores.
    pub memory: f64,
}

/// Sapphire Rapids and Emerald Rapids.
pub const SERVER_CORE: ServerCore =
    ServerCore { ghz: 2.0, multiply_adds: 512.0, f32_multiply_adds: 32.0, l2: 48.0, l3: 10.0, memory: 2.75 };

/// Instructions for 16 elements of SwiGLU's activation, rounded and packed.
const ACTIVATION: f64 = 24.0;
/// … of residual and norm.
const NORM: f64 = 8.0;
/// … of softmax.
const SCORE: f64 = 16.0;
/// So many times as much in a backward pass.
const BACKWARD: f64 = 2.0;

/// Bytes from L2 for a multiply-add: 2 KiB of left tiles for 32 × 32 × 32.
const L2_BYTES: f64 = 2048.0 / 32768.0;

/// Milliseconds of a training step of one sequence on a core, by part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Roofline {
    /// Sequences that a lane takes at a time.
    pub sequences: usize,
    /// Multiply-adds in tile registers.
    pub products: f64,
    /// AVX-512's work between them.
    pub vectors: f64,
    /// Left tiles from L2.
    pub l2: f64,
    /// Weights from L3.
    pub l3: f64,
    /// What the backward pass keeps.
    pub memory: f64,
    /// All of it, traffic hidden behind arithmetic where it is less.
    pub estimate: f64,
    /// The same step at the limit of AVX-512's multiply-adds in f32.
    pub f32_limit: f64,
}

impl Roofline {
    /// Of an experiment, for so many sequences a lane.
    pub fn new(config: &Config, core: &ServerCore, sequences: usize) -> Self {
        let model = Model::new(&config.model, &config.task);
        let work = UpdateWork::new(config);
        let multiply_adds = work.flops_per_sequence / 2.0;
        let weights = work.streamed_per_shard / work.packed_element * BF16;
        let milliseconds = |cycles: f64| cycles / core.ghz / 1e6;
        let products = milliseconds(multiply_adds / core.multiply_adds);
        let vectors = milliseconds(vector_instructions(&model) / 2.0);
        let l2 = milliseconds(multiply_adds * L2_BYTES / core.l2);
        let l3 = milliseconds(weights / sequences as f64 / core.l3);
        let memory = milliseconds(2.0 * recorded_bytes(&model, &config.train) / core.memory);
        let f32_limit = milliseconds(multiply_adds / core.f32_multiply_adds);
        let estimate = (products + vectors).max(l2).max(l3).max(memory);
        Self { sequences, products, vectors, l2, l3, memory, estimate, f32_limit }
    }

    /// For as many sequences a lane as are taken now, and for two and four times as many.
    pub fn of_shards(config: &Config, core: &ServerCore) -> Vec<Self> {
        let now = Cpu::<f32>::shard(Model::new(&config.model, &config.task).len);
        [1, 2, 4].map(|times| Self::new(config, core, times * now)).into()
    }
}

/// Bytes of a bf16.
const BF16: f64 = 2.0;

/// AVX-512 instructions of a training step of one sequence.
fn vector_instructions(model: &Model) -> f64 {
    let (len, hidden) = (model.len as f64, model.hidden as f64);
    let inner = |gate_up: crate::device::ParamId| model.layout.tensors()[gate_up.index()].rows as f64 / 2.0;
    let of_net = |net: usize| -> f64 {
        let blocks = model.nets[net].blocks.iter().map(|block| {
            let mix = match &block.mix {
                Mix::Attention { heads, .. } => SCORE * *heads as f64 * len * len,
                Mix::Positions(weights) => ACTIVATION * inner(weights.gate_up) * hidden,
            };
            let mlp = match &block.mlp {
                Mlp::SwiGlu(weights) => ACTIVATION * inner(weights.gate_up) * len,
                Mlp::Experts(experts) => {
                    ACTIVATION * experts.per_token as f64 * inner(experts.weights[0].gate_up) * len
                }
            };
            mix + mlp + 2.0 * NORM * len * hidden
        });
        blocks.sum()
    };
    let calls = model.schedule.calls.iter();
    calls.map(|call| of_net(call.net) * if call.recorded { 1.0 + BACKWARD } else { 1.0 }).sum::<f64>() / 16.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(preset: &str, sequences: usize) -> Roofline {
        Roofline::new(&Config::resolve(Some(preset), None, &[]).expect("settings"), &SERVER_CORE, sequences)
    }

    #[test]
    fn products_take_a_sixteenth_of_what_f32_takes() {
        let step = of("sudoku-extreme", 4);
        assert!((step.f32_limit / step.products / 16.0 - 1.0).abs() < 1e-9, "{step:?}");
        // 440 MFLOP for each of 97 tokens at 2 TFLOP/s.
        assert!((step.products / (440e6 * 97.0 / 2.048e12 * 1e3) - 1.0).abs() < 0.02, "{step:?}");
    }

    #[test]
    fn more_sequences_a_lane_need_the_weights_less_often_and_nothing_else_changes() {
        for preset in ["sudoku-extreme", "sudoku-extreme-att"] {
            let (four, eight) = (of(preset, 4), of(preset, 8));
            assert!((four.l3 / eight.l3 - 2.0).abs() < 1e-9);
            assert_eq!(Roofline { sequences: 8, l3: eight.l3, estimate: eight.estimate, ..four }, eight);
            assert!(four.estimate >= four.products + four.vectors && four.estimate < four.f32_limit, "{four:?}");
        }
    }

    #[test]
    fn blocks_of_two_by_two_registers_are_fed_by_l2() {
        let step = of("sudoku-extreme", 4);
        assert!(step.l2 < step.products && 2.0 * step.l2 > step.products, "{step:?}");
    }
}

//! What an experiment asks for before it is started: weights, arithmetic, memory.

use serde::Serialize;

use crate::config::{Config, TrainConfig};
use crate::device::precision_for;
use crate::engine::{gradient_groups, shard};
use crate::model::{Block, Mix, Mlp, Model, update_flops};
use crate::simd::Precision;
use crate::tape::{ParamId, ROWS_ENOUGH};

/// Bytes of an f32.
const F32: usize = 4;

/// What a process needs apart from all that is counted: code, threads, buffers of files.
const PROCESS: usize = 16 << 20;

/// The size of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Dense weights.
    pub parameters: usize,
    /// Numbers in the puzzle table.
    pub table_parameters: usize,
    /// Updates of the whole run.
    pub updates: u64,
    /// Model FLOPs of an update; with a fixed point, at most.
    pub flops_per_update: f64,
    /// Model FLOPs of the whole run.
    pub run_flops: f64,
    pub memory: Footprint,
}

/// Estimated bytes of a training run, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Footprint {
    /// Threads it was counted for.
    pub threads: usize,
    /// Weights, packed forms, moments, moving average, and the copies that saving makes.
    pub weights: usize,
    /// Partial sums of the gradient tree, and the total.
    pub gradients: usize,
    /// What all lanes keep of the recorded calls, and their working space.
    pub activations: usize,
    /// States, logits and examples of all slots.
    pub carry: usize,
    pub puzzle_table: usize,
    pub total: usize,
}

impl Cost {
    /// Of a complete experiment on so many threads. Without `max_steps`, the updates are those of `train_puzzles` examples
    /// an epoch.
    pub fn new(config: &Config, threads: usize) -> Self {
        let model = Model::new(&config.model, &config.task);
        let train = &config.train;
        let updates = match train.max_steps {
            0 => (train.epochs as f64 * config.data.train_puzzles as f64 / train.batch_size as f64) as u64,
            steps => steps,
        };
        let flops_per_update = update_flops(&model, train);
        Self {
            parameters: model.layout.n_weights(),
            table_parameters: config.task.num_puzzle_identifiers * config.model.puzzle_emb_ndim,
            updates,
            flops_per_update,
            run_flops: updates as f64 * flops_per_update,
            memory: Footprint::new(&model, config, threads),
        }
    }
}

impl Footprint {
    fn new(model: &Model, config: &Config, threads: usize) -> Self {
        let train = &config.train;
        let n = model.layout.len();
        let packed = match precision_for(train.precision) {
            Precision::F32 => 2 * F32,
            Precision::Bf16 => F32,
        };
        // Values, packed, moments, moving average; saving: the average with packed forms, and its file.
        let weights = n * (F32 + packed + 3 * F32 + F32 + packed + F32);
        let groups = gradient_groups(train);
        let depth = groups.next_power_of_two().ilog2() as usize;
        let gradients = (1 + groups.min(threads + depth)) * n * F32;
        let halves = precision_for(train.precision) == Precision::Bf16;
        let sequence = recorded_elements(model, train, halves) + working_elements(model, halves);
        let activations = threads.min(groups) * shard(model.len).min(train.batch_size) * sequence * F32;
        let state = model.len * model.hidden;
        let logits = model.embedding.seq_len * model.vocab_size();
        let carry =
            train.batch_size * (model.schedule.states.len() * state + logits + 2 * model.embedding.seq_len) * F32;
        let puzzle_table = config.task.num_puzzle_identifiers * config.model.puzzle_emb_ndim * F32;
        let total = PROCESS + weights + gradients + activations + carry + puzzle_table;
        Self { threads, weights, gradients, activations, carry, puzzle_table, total }
    }
}

/// Numbers that one sequence leaves behind for the backward pass. In bf16, what SwiGLU saves and packs takes half (`halves`).
fn recorded_elements(model: &Model, train: &TrainConfig, halves: bool) -> usize {
    let recorded = model.schedule.calls.iter().filter(|call| call.recorded);
    let calls: usize = recorded.map(|call| call_elements(model, call.net, halves)).sum();
    // Logits, their gradient and that of the loss; with the continue loss, copies of the states.
    let heads = 3 * model.embedding.seq_len * model.vocab_size();
    let copies = if train.continue_loss { model.schedule.states.len() } else { 0 };
    calls + heads + (1 + model.schedule.states.len() + copies) * model.len * model.hidden
}

/// Of one recorded call: the sum it starts from, and what each block keeps.
fn call_elements(model: &Model, net: usize, halves: bool) -> usize {
    let state = model.len * model.hidden;
    state + model.nets[net].blocks.iter().map(|block| block_elements(model, block, halves)).sum::<usize>()
}

fn block_elements(model: &Model, block: &Block, halves: bool) -> usize {
    let state = model.len * model.hidden;
    let packed = |elements: usize| if halves { elements / 2 } else { elements };
    let mix = match &block.mix {
        // q, k, v; the mixture; the normalised sum.
        Mix::Attention { .. } => 5 * state,
        Mix::Positions(weights) => packed(rows(model, weights.gate_up) * model.hidden) + state,
    };
    let mlp = match &block.mlp {
        Mlp::SwiGlu(weights) => packed(rows(model, weights.gate_up) * model.len) + state,
        Mlp::Experts(experts) => {
            let own = packed(rows(model, experts.weights[0].gate_up) * model.len) + 2 * state;
            // Gathered rows are filled up to the next eighth of all.
            let routed = 8 * experts.per_token + experts.weights.len();
            routed * own / 8 + 3 * experts.weights.len() * model.len + state
        }
    };
    mix + mlp + packed(gathered_elements(model, block))
}

/// What the operands that wait for the gradient of their weight take beyond the values whose place they take.
fn gathered_elements(model: &Model, block: &Block) -> usize {
    if shard(model.len) * model.len >= ROWS_ENOUGH {
        return 0;
    }
    let state = model.len * model.hidden;
    let mix = if matches!(block.mix, Mix::Attention { .. }) { 3 * state } else { 0 };
    let mlp = match &block.mlp {
        Mlp::SwiGlu(weights) => rows(model, weights.gate_up) / 2 * model.len + 2 * state,
        Mlp::Experts(experts) => {
            experts.per_token * (rows(model, experts.weights[0].gate_up) / 2 * model.len + 2 * state)
        }
    };
    mix + mlp
}

/// Numbers of one sequence in flight: gradients and packed operands of the widest operation of a block, and the states of
/// a detached call.
fn working_elements(model: &Model, halves: bool) -> usize {
    let state = model.len * model.hidden;
    let blocks = || model.nets.iter().flat_map(|net| &net.blocks);
    let widest = blocks().map(|block| block_elements(model, block, halves)).max();
    let operands = blocks().map(|block| match &block.mix {
        Mix::Positions(weights) => 3 * rows(model, weights.gate_up) / 2 * model.hidden + 2 * state,
        Mix::Attention { .. } => 0,
    });
    let operands = operands.max().unwrap_or(0) / if halves { 2 } else { 1 };
    let past = if model.schedule.iteration.is_some() { 10 * model.schedule.states.len() * state } else { 0 };
    widest.unwrap_or(0) + operands + 6 * state + past
}

fn rows(model: &Model, id: ParamId) -> usize {
    model.layout.tensors()[id.index()].rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(sets: &[&str]) -> Cost {
        let sets: Vec<String> = sets.iter().map(|&s| s.to_owned()).collect();
        Cost::new(&Config::resolve(Some("sudoku-extreme"), None, &sets).expect("settings"), 2)
    }

    #[test]
    fn the_published_run_is_counted_as_published() {
        let published = cost(&[]);
        assert_eq!(published.updates, 65_104);
        assert!((5.0e6..5.1e6).contains(&(published.parameters as f64)), "{}", published.parameters);
        // 440 MFLOP for each token and step; 2.2e18 for the run.
        assert!((published.flops_per_update / 768.0 / 97.0 / 440e6 - 1.0).abs() < 0.02);
        assert!((2.0e18..2.4e18).contains(&published.run_flops), "{:e}", published.run_flops);
    }

    #[test]
    fn the_recursions_that_ran_out_of_memory_in_the_paper_fit_3_gb() {
        for sets in [["l_cycles=12", "h_cycles=3"], ["l_cycles=6", "h_cycles=6"], ["l_cycles=12", "h_cycles=6"]] {
            for mixing in [&["mixing=mlp_t"][..], &["mixing=attention", "positions=rope"]] {
                let memory = cost(&[&sets[..], mixing].concat()).memory;
                assert!(memory.total < 3_000_000_000, "{sets:?} {mixing:?}: {memory:?}");
            }
        }
    }

    #[test]
    fn outer_cycles_cost_no_memory_and_inner_ones_do() {
        let total = |sets: &[&str]| cost(sets).memory.total;
        assert_eq!(total(&["h_cycles=1"]), total(&["h_cycles=9"]));
        assert!(total(&["l_cycles=7"]) > total(&["l_cycles=6"]));
    }
}

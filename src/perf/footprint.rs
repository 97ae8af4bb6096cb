//! The memory that work takes, part by part, and whether this process may use that much.
//!
//! The counts are f64: valid settings can be far beyond any machine, and a size that is refused must not overflow first.

use serde::Serialize;

use super::MemoryLimits;
use crate::config::{Config, TrainConfig};
use crate::device::cpu::ROWS_ENOUGH;
use crate::device::{Cpu, Detached, Device as _, Formats, ParamId};
use crate::engine::{formats_for, gradient_groups, precision_for};
use crate::error::{Error, Result};
use crate::model::{Block, Mix, Mlp, Model};
use crate::simd::int8_bytes;

/// Bytes of an f32.
const F32: f64 = 4.0;

/// What a process needs apart from all that is counted: code, threads, buffers of files.
const PROCESS: f64 = (16 << 20) as f64;

/// Bytes that some work takes, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Footprint {
    /// Threads it was counted for.
    pub threads: usize,
    /// Weights and packed forms; in training also moments, EMA, and the copies that saving makes.
    pub weights: u64,
    /// Partial sums of the gradient tree, and the total.
    pub gradients: u64,
    /// What all lanes keep of the recorded calls, and their working space.
    pub activations: u64,
    /// States, logits and examples of all slots.
    pub carry: u64,
    /// Rows of the puzzle table that are trained.
    pub puzzle_table: u64,
    /// All of it.
    pub total: u64,
    /// Of the total, what is allocated in any case; the rest is estimated.
    #[serde(skip)]
    pub certain: u64,
    /// Of the threads, those that have something to do.
    #[serde(skip)]
    pub busy: usize,
    /// Of the total, what each of these brings along at least.
    #[serde(skip)]
    pub per_thread: u64,
}

impl Footprint {
    /// Of a training run of `updates` updates on so many threads.
    pub fn of_training(model: &Model, config: &Config, updates: u64, threads: usize) -> Self {
        let train = &config.train;
        let n = model.layout.len() as f64;
        let precision = precision_for::<Cpu<f32>>(train.precision);
        let packed = packed_bytes(train);
        // Values, packed, moments, EMA; saving: the EMA with packed forms, and its file.
        let (held, saving) = (n * (F32 + packed + 3.0 * F32), n * (F32 + packed + F32));
        let groups = gradient_groups(train);
        let depth = groups.next_power_of_two().ilog2() as usize;
        let gradients = (1 + groups.min(threads + depth)) as f64 * n * F32;
        let elements = Elements { model, halves: precision.element_bytes() == 2 };
        let sequence = elements.recorded(train) + elements.working();
        let lane = Cpu::<f32>::shard(model.len).min(train.batch_size) as f64 * sequence * F32;
        let activations = threads.min(groups) as f64 * lane;
        let sum_of_thread = if groups >= threads + depth { n * F32 } else { 0.0 };
        let carry = train.batch_size as f64 * slot_bytes(model);
        // Rows that no batch has touched take no memory.
        let rows = (config.task.num_puzzle_identifiers as f64).min(updates as f64 * train.batch_size as f64);
        let puzzle_table = rows * config.model.puzzle_emb_ndim as f64 * F32;
        Self {
            threads,
            weights: (held + saving) as u64,
            gradients: gradients as u64,
            activations: activations as u64,
            carry: carry as u64,
            puzzle_table: puzzle_table as u64,
            total: (PROCESS + held + saving + gradients + activations + carry + puzzle_table) as u64,
            certain: (held + 2.0 * n * F32 + carry + puzzle_table) as u64,
            busy: threads.min(groups),
            per_thread: (lane + sum_of_thread) as u64,
        }
    }

    /// Of evaluating or solving with stored weights: no gradient, no optimizer, one shard of sequences a thread. (How many
    /// rows of the puzzle table are filled, only the file says.)
    pub fn of_inference(model: &Model, config: &Config, threads: usize) -> Self {
        let precision = precision_for::<Cpu<f32>>(config.train.precision);
        let weights = model.layout.len() as f64 * (F32 + packed_bytes(&config.train));
        let sequences = (threads * Cpu::<f32>::shard(model.len)) as f64;
        let working = Elements { model, halves: precision.element_bytes() == 2 }.working();
        let (activations, carry) = (sequences * working * F32, sequences * slot_bytes(model));
        Self {
            threads,
            weights: weights as u64,
            gradients: 0,
            activations: activations as u64,
            carry: carry as u64,
            puzzle_table: 0,
            total: (PROCESS + weights + activations + carry) as u64,
            certain: weights as u64,
            busy: threads,
            per_thread: (activations + carry) as u64 / threads.max(1) as u64,
        }
    }

    /// Refuses, in one line, work that needs more than the limits allow in any case. A warning where only the estimate says
    /// so, or where that much is not free.
    pub fn check(&self, limits: &MemoryLimits) -> Result<Option<String>> {
        if let Some((usable, who)) = limits.usable().filter(|(usable, _)| self.certain > *usable) {
            let (part, smaller) = self.most();
            return Err(Error::input(format!(
                "this needs at least {} of memory, most of it for {part}, but {} {who}; make {smaller} smaller",
                bytes(self.certain),
                bytes(usable)
            )));
        }
        let Some((free, who)) = limits.free().filter(|(free, _)| self.total > *free) else { return Ok(None) };
        let over = self.total - free;
        let threads_less = over.div_ceil(self.per_thread.max(1));
        let (part, smaller) = self.most();
        let advice = match (self.busy as u64).checked_sub(threads_less) {
            Some(fewer @ 1..) => format!("--threads {fewer} would fit"),
            _ => format!("make {smaller} smaller"),
        };
        Ok(Some(format!(
            "this may take {} of memory, most of it for {part}, and {} {who}: the system may end it without a word; {advice}",
            bytes(self.total),
            bytes(free)
        )))
    }

    /// What most of it is for, and the settings to make smaller: of that, and of every other part of a quarter or more.
    fn most(&self) -> (&'static str, String) {
        let mut parts = [
            (self.weights + self.gradients, "weights, gradients and optimizer", "model.hidden_size, n_layers"),
            (self.carry, "the states of all slots", "train.batch_size, model.hidden_size"),
            (self.puzzle_table, "the puzzle table", "model.puzzle_emb_ndim"),
            (self.activations, "what the backward pass keeps", "--threads, model.l_cycles, hidden_size"),
        ];
        parts.sort_by_key(|&(bytes, ..)| std::cmp::Reverse(bytes));
        let large = parts.iter().enumerate().filter(|(i, (bytes, ..))| *i == 0 || *bytes >= self.total / 4);
        let mut settings: Vec<&str> = Vec::new();
        for setting in large.flat_map(|(_, (.., settings))| settings.split(", ")) {
            let plain = setting.trim_start_matches("model.");
            if !settings.iter().any(|known| known.trim_start_matches("model.") == plain) {
                settings.push(setting);
            }
        }
        (parts[0].1, settings.join(" or "))
    }
}

/// A size in GiB, or in MiB below one.
fn bytes(bytes: u64) -> String {
    match bytes as f64 / f64::from(1 << 20) {
        mib if mib < 1024.0 => format!("{mib:.0} MiB"),
        mib => format!("{:.1} GiB", mib / 1024.0),
    }
}

/// Bytes that a sequence leaves behind for the backward pass where pairs of bf16 are multiplied.
pub fn recorded_bytes(model: &Model, train: &TrainConfig) -> f64 {
    Elements { model, halves: true }.recorded(train) * F32
}

/// Bytes of an element's packed forms, for the forward and the backward pass.
fn packed_bytes(train: &TrainConfig) -> f64 {
    let Formats { precision, detached } = formats_for::<Cpu<f32>>(train);
    let int8 = if detached == Detached::Int8 { int8_bytes() } else { 0 };
    (2 * precision.element_bytes() + int8) as f64
}

/// Bytes of a slot: states, logits, example.
fn slot_bytes(model: &Model) -> f64 {
    let state = model.len as f64 * model.hidden as f64;
    let seq_len = model.embedding.seq_len as f64;
    (model.schedule.states.len() as f64 * state + seq_len * (model.vocab_size() as f64 + 2.0)) * F32
}

/// Counts the f32 elements of one sequence. In bf16, what SwiGLU saves and packs takes half (`halves`).
struct Elements<'a> {
    model: &'a Model,
    halves: bool,
}

impl Elements<'_> {
    /// L·D.
    fn state(&self) -> f64 {
        self.model.len as f64 * self.model.hidden as f64
    }

    fn packed(&self, elements: f64) -> f64 {
        if self.halves { elements / 2.0 } else { elements }
    }

    fn rows(&self, id: ParamId) -> f64 {
        self.model.layout.tensors()[id.index()].rows as f64
    }

    /// What a sequence leaves behind for the backward pass.
    fn recorded(&self, train: &TrainConfig) -> f64 {
        let Self { model, .. } = self;
        let per_net: Vec<f64> = (0..model.nets.len()).map(|net| self.call(net)).collect();
        let calls: f64 = model.schedule.calls.iter().filter(|call| call.recorded).map(|call| per_net[call.net]).sum();
        // Logits, their gradient and that of the loss; with the continue loss, copies of the states.
        let heads = 3.0 * model.embedding.seq_len as f64 * model.vocab_size() as f64;
        let states = model.schedule.states.len();
        let copies = if train.continue_loss { states } else { 0 };
        calls + heads + (1 + states + copies) as f64 * self.state()
    }

    /// Of one recorded call: the sum it starts from, and what each block keeps.
    fn call(&self, net: usize) -> f64 {
        self.state() + self.model.nets[net].blocks.iter().map(|block| self.block(block)).sum::<f64>()
    }

    fn block(&self, block: &Block) -> f64 {
        let (state, len, hidden) = (self.state(), self.model.len as f64, self.model.hidden as f64);
        let mix = match &block.mix {
            // q, k, v; the mixture; the normalised sum.
            Mix::Attention { .. } => 5.0 * state,
            Mix::Positions(weights) => self.packed(self.rows(weights.gate_up) * hidden) + state,
        };
        let mlp = match &block.mlp {
            Mlp::SwiGlu(weights) => self.packed(self.rows(weights.gate_up) * len) + state,
            Mlp::Experts(experts) => {
                let own = self.packed(self.rows(experts.weights[0].gate_up) * len) + 2.0 * state;
                // An expert's rows are filled up to the next eighth of all.
                let routed = (8 * experts.per_token + experts.weights.len()) as f64;
                routed * own / 8.0 + 3.0 * experts.weights.len() as f64 * len + state
            }
        };
        mix + mlp + self.packed(self.deferred(block))
    }

    /// What the operands of deferred weight gradients take beyond the values whose place they take.
    fn deferred(&self, block: &Block) -> f64 {
        if Cpu::<f32>::shard(self.model.len) * self.model.len >= ROWS_ENOUGH {
            return 0.0;
        }
        let (state, len) = (self.state(), self.model.len as f64);
        let mix = if matches!(block.mix, Mix::Attention { .. }) { 3.0 * state } else { 0.0 };
        let swiglu = |gate_up: ParamId| self.rows(gate_up) / 2.0 * len + 2.0 * state;
        let mlp = match &block.mlp {
            Mlp::SwiGlu(weights) => swiglu(weights.gate_up),
            Mlp::Experts(experts) => experts.per_token as f64 * swiglu(experts.weights[0].gate_up),
        };
        mix + mlp
    }

    /// A sequence in flight: gradients and packed operands of the widest operation of a block, and the states of a detached
    /// call.
    fn working(&self) -> f64 {
        let (state, hidden) = (self.state(), self.model.hidden as f64);
        let blocks = || self.model.nets.iter().flat_map(|net| &net.blocks);
        let widest = blocks().map(|block| self.block(block)).fold(0.0, f64::max);
        let operands = blocks().map(|block| match &block.mix {
            Mix::Positions(weights) => 3.0 * self.rows(weights.gate_up) / 2.0 * hidden + 2.0 * state,
            Mix::Attention { .. } => 0.0,
        });
        let operands = self.packed(operands.fold(0.0, f64::max));
        let schedule = &self.model.schedule;
        let past = if schedule.iteration.is_some() { 10.0 * schedule.states.len() as f64 * state } else { 0.0 };
        widest + operands + 6.0 * state + past
    }
}

#[cfg(test)]
mod tests {
    use super::super::RunCost;
    use super::*;

    fn config(sets: &[&str]) -> Config {
        let sets: Vec<String> = sets.iter().map(|&s| s.to_owned()).collect();
        Config::resolve(Some("sudoku-extreme"), None, &sets).expect("settings")
    }

    fn training(sets: &[&str]) -> Footprint {
        RunCost::new(&config(sets), 2).memory
    }

    fn inference(sets: &[&str]) -> Footprint {
        let config = config(sets);
        Footprint::of_inference(&Model::new(&config.model, &config.task), &config, 2)
    }

    /// Limits of a process in a control group.
    fn group_of(bytes: u64) -> MemoryLimits {
        let root = tempfile::tempdir().expect("temporary folder");
        for (file, text) in [
            ("proc/meminfo", "MemTotal: 65536000 kB\n".to_owned()),
            ("proc/self/cgroup", "0::/job\n".to_owned()),
            ("sys/fs/cgroup/job/memory.max", bytes.to_string()),
        ] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
            std::fs::write(path, text).expect("write");
        }
        MemoryLimits::read_below(root.path())
    }

    #[test]
    fn the_recursions_that_ran_out_of_memory_in_the_paper_fit_3_gb() {
        for sets in [["l_cycles=12", "h_cycles=3"], ["l_cycles=6", "h_cycles=6"], ["l_cycles=12", "h_cycles=6"]] {
            for mixing in [&["mixing=mlp_t"][..], &["mixing=attention", "positions=rope"]] {
                let memory = training(&[&sets[..], mixing].concat());
                assert!(memory.total < 3_000_000_000, "{sets:?} {mixing:?}: {memory:?}");
            }
        }
    }

    #[test]
    fn outer_cycles_cost_no_memory_and_inner_ones_do() {
        let total = |sets: &[&str]| training(sets).total;
        assert_eq!(total(&["h_cycles=1"]), total(&["h_cycles=9"]));
        assert!(total(&["l_cycles=7"]) > total(&["l_cycles=6"]));
    }

    #[test]
    fn weights_in_eight_bits_are_counted_where_a_run_has_them() {
        let weights = |sets: &[&str]| training(sets).weights;
        let (usual, int8) = (weights(&["precision=f32"]), weights(&["precision=f32", "detached_precision=int8"]));
        let share = (int8 - usual) as f64 / usual as f64;
        // Beside 40 bytes of a weight while a checkpoint is saved, twice one byte, or twice four.
        assert!(share > 0.03 && share < 0.25, "{share}");
    }

    #[test]
    fn a_control_group_too_small_for_training_is_refused_or_warned_of_and_settings_stay_valid_there() {
        // f32 on every machine, so that the figures are the same everywhere.
        let run = training(&["precision=f32"]);
        assert!(run.certain < 600_000_000 && run.total > 600_000_000, "{run:?}");
        assert_eq!(run.check(&group_of(run.total)).expect("fits"), None);
        let warning = run.check(&group_of(600_000_000)).expect("may fit").expect("a warning");
        assert!(warning.contains("572 MiB its control group allows") && !warning.contains('\n'), "{warning}");
        assert!(
            warning.ends_with("; make --threads or model.l_cycles or hidden_size or n_layers smaller"),
            "{warning}"
        );
        // One thread less is enough where little is missing; it changes no result.
        let warning = run.check(&group_of(run.total - 1)).expect("may fit").expect("a warning");
        assert!(warning.ends_with("; --threads 1 would fit"), "{warning}");
        // Of 64 threads, 62 have nothing to do and hold nothing.
        let idle = RunCost::new(&config(&["precision=f32", "gradient_groups=2"]), 64).memory;
        let warning = idle.check(&group_of(idle.total - 1)).expect("may fit").expect("a warning");
        assert!(warning.ends_with("; --threads 1 would fit"), "{warning}");
        // What is free now is no reason to refuse.
        let busy = MemoryLimits { total: Some(1 << 36), available: Some(200_000_000), ..MemoryLimits::default() };
        let warning = run.check(&busy).expect("not refused").expect("a warning");
        assert!(warning.contains("191 MiB are free"), "{warning}");
        let line = run.check(&group_of(300_000_000)).unwrap_err().to_string();
        assert!(line.contains("286 MiB") && line.contains("smaller") && !line.contains('\n'), "{line}");
        // Who only evaluates allocates neither optimizer nor batch.
        assert_eq!(inference(&["precision=f32"]).check(&group_of(300_000_000)).expect("fits"), None);
        assert!(inference(&["precision=f32"]).check(&group_of(10_000_000)).is_err());
        assert_eq!(run.check(&MemoryLimits::default()).expect("nothing is known"), None);
    }

    #[test]
    fn the_refusal_names_what_to_make_smaller() {
        for (sets, named) in [
            (&["hidden_size=65536", "n_layers=1000", "puzzle_emb_ndim=0", "puzzle_emb_len=0"][..], "n_layers"),
            (&["batch_size=1000000", "max_steps=9"], "train.batch_size"),
            (&["num_puzzle_identifiers=2000000000", "puzzle_emb_ndim=8192"], "model.puzzle_emb_ndim"),
        ] {
            let line = training(sets).check(&group_of(1 << 34)).unwrap_err().to_string();
            assert!(line.contains(named) && line.contains("16.0 GiB"), "{line}");
        }
    }

    #[test]
    fn the_largest_settings_there_are_overflow_nothing() {
        let sets = [
            "hidden_size=65536",
            "n_layers=2",
            "expansion=1000",
            "inner_multiple=65536",
            "experts=64",
            "experts_per_token=64",
            "h_cycles=1000",
            "l_cycles=1000",
            "gradient=last_k",
            "last_k=1001000",
            "seq_len=65536",
            "vocab_size=256",
            "puzzle_emb_ndim=16777216",
            "puzzle_emb_len=65536",
            "num_puzzle_identifiers=2147483648",
            "batch_size=1048576",
            "gradient_groups=1048576",
        ];
        let run = training(&sets);
        assert!(run.total > 1 << 60 && run.check(&group_of(1 << 40)).is_err(), "{run:?}");
        assert!(inference(&sets).check(&group_of(1 << 40)).is_err());
    }
}

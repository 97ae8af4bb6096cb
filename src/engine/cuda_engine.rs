//! The engine of a CUDA device: one lane that takes as many sequences at a time as there is memory for.
//!
//! Weights, moments, EMA, gradients and the states of all slots stay on the device. An update sends tokens, labels and flags up
//! and a few numbers for each slot down. Between the two nothing waits for the host; where the schedule is fixed, all of it
//! is one CUDA graph, which is made in the second update and launched from then on.
//!
//! The batch is cut into *slices*, whose number follows from the settings alone. Each has an array of gradients of its own,
//! in which its sequences' gradients are summed in one order; the arrays are summed in a binary tree. So a run has the same
//! bits however many slices a *micro-batch* takes at a time, which is a matter of memory.

mod cut;
mod exchange;
mod micro_batch;

use std::borrow::Cow;
use std::sync::Arc;

use super::{
    Adam, BoxedGroup, EMA, Engine, Group, Lanes, NamedBuffer, Peers, PuzzleTable, Slots, TrainingDevice, UpdateRule,
    WEIGHTS, Weights, check_formats, check_restored, first_slot, groups_of_rank, suspects,
};
use crate::config::TrainConfig;
use crate::cuda::{AdamStep, Backend, DeviceMemory, Graph, HostMemory, Queue};
use crate::device::cuda::{AdamArrays, CudaBuffer, CudaScalar};
use crate::device::{AdamCoefficients, Cuda, Device, Grads, Update};
use crate::error::Result;
use crate::model::{Model, Pass};
use crate::tape::profile::Part;
use crate::tape::{Memory, Tape};
use cut::Cut;
use micro_batch::{Resident, micro_batch, run_forward, spread_logits};

/// The share of the device's memory that is left to others.
const SPARE: f64 = 0.04;

/// One lane, and everything that training needs in device memory.
pub struct CudaEngine<'a, T: CudaScalar, B: Backend> {
    lanes: &'a Lanes<Cuda<T, B>>,
    weights: Weights<Cuda<T, B>>,
    ema: CudaBuffer<T, B>,
    moments: [CudaBuffer<T, B>; 2],
    adam: Adam,
    groups: Vec<BoxedGroup<T>>,
    /// An array for each slice.
    slices: Grads<Cuda<T, B>>,
    /// Their sum.
    total: Grads<Cuda<T, B>>,
    /// Where the sum of squares is made, and where the host finds it.
    squares: (DeviceMemory<B>, HostMemory<B>),
    /// Whether the gradients of the last update are summed, or will be by what is queued.
    is_reduced: bool,
    cut: Cut,
    resident: Resident<B>,
    /// Everything between the last copy up and the first copy down, once it has been remembered.
    graph: Option<Graph<B>>,
    /// Whether the schedule is the same in every update.
    is_fixed: bool,
    /// Whether an update has been run since memory last changed, so that all that it needs is there.
    settled: bool,
    /// Calls of the recursion in the last update.
    calls: u32,
}

impl<T: CudaScalar, B: Backend> TrainingDevice for Cuda<T, B> {
    type Engine<'a>
        = CudaEngine<'a, T, B>
    where
        Self: 'a;

    fn engine<'a>(
        lanes: &'a Lanes<Self>,
        model: &Model,
        config: &TrainConfig,
        weights: Weights<Self>,
        peers: &dyn Peers<T>,
    ) -> Result<CudaEngine<'a, T, B>> {
        check_formats::<Self>(config)?;
        crate::error::DeviceFailure::catch(|| CudaEngine::new(lanes, model, config, weights, peers))
    }
}

impl<'a, T: CudaScalar, B: Backend> CudaEngine<'a, T, B> {
    fn new(
        lanes: &'a Lanes<Cuda<T, B>>,
        model: &Model,
        config: &TrainConfig,
        weights: Weights<Cuda<T, B>>,
        peers: &dyn Peers<T>,
    ) -> Self {
        let (layout, queue) = (weights.params.layout().clone(), Queue::get());
        let (groups, _) = groups_of_rank(config, peers.rank(), peers.size());
        let slots = |group: usize| first_slot(config, group + 1) - first_slot(config, group);
        let groups: Vec<_> = groups.map(|group| Box::new(Group::resident(model, slots(group)))).collect();
        let batch = groups.iter().map(|group| group.len()).sum();
        let cut = Cut::new(batch, model.len, layout.n_weights(), config.gradient_groups);
        let flat = || CudaBuffer::new(layout.len(), 1);
        let mut ema = flat();
        ema.write(weights.params.values());
        let precision = weights.params.precision();
        let resident = lanes.install(|| {
            lanes.with_lane(|lane| {
                lane.memory.device.reset(precision);
                Resident::new(&mut lane.memory.device, model, batch)
            })
        });
        let mut engine = Self {
            ema,
            moments: [flat(), flat()],
            adam: Adam::new(config),
            slices: Grads::from_buffer(layout.clone(), CudaBuffer::new(layout.len(), cut.slices())),
            total: Grads::new(layout),
            squares: (
                DeviceMemory::new(queue, Queue::<B>::sum_squares_bytes()),
                HostMemory::zeros(queue, size_of::<f64>()),
            ),
            is_reduced: false,
            is_fixed: model.schedule.iteration.is_none() && model.recorded_routers() == 0,
            groups,
            lanes,
            weights,
            cut,
            resident,
            graph: None,
            settled: false,
            calls: 0,
        };
        engine.choose_micro_batch(model, config);
        engine
    }

    /// Takes as many slices at a time as there is memory for. How much that is, a step without kernels tells.
    fn choose_micro_batch(&mut self, model: &Model, config: &TrainConfig) {
        let Self { lanes, weights, slices, resident, cut, is_fixed, .. } = self;
        let queue = Queue::<B>::get();
        lanes.install(|| {
            lanes.with_lane(|lane| {
                let memory = &mut lane.memory;
                let limit = memory.device.micro_batch;
                let spare = SPARE * queue.description().memory as f64;
                let free = (queue.free_memory() as f64 - spare).max(0.0) as usize + memory.device.room();
                let mut extent = |sequences: usize, slices: &mut Grads<Cuda<T, B>>| {
                    memory.device.begin_dry_run();
                    slices.buffer_mut().set_window(0, sequences, cut.per_slice);
                    micro_batch(memory, model, weights, config, slices, resident, 0..sequences, None);
                    memory.device.end_dry_run()
                };
                // Where sizes depend on values, the first step finds out; it takes what the setting says.
                let fits_limit = |sequences: usize| limit == 0 || sequences <= limit.max(cut.per_slice);
                if !*is_fixed {
                    *cut = cut.grown(fits_limit);
                    return;
                }
                let extents: Vec<usize> = (1..=cut.slices())
                    .map(|n| (n * cut.per_slice).min(cut.batch))
                    .map(|sequences| if fits_limit(sequences) { extent(sequences, slices) } else { usize::MAX })
                    .collect();
                let per_slice = cut.per_slice;
                let of = |sequences: usize| extents[sequences.div_ceil(per_slice) - 1];
                *cut = cut.grown(|sequences| of(sequences) <= free);
                memory.device.make_room(of(cut.micro_batch));
            });
        });
    }

    /// Sends up what a step reads; where it is the `most_steps`-th of an example, it is the last.
    fn send(&mut self, device: &mut Cuda<T, B>, most_steps: u32) {
        let Self { groups, resident, weights, .. } = self;
        resident.exchange.send_examples(device, groups, most_steps);
        if let Some(table) = &weights.table {
            resident.exchange.send_rows(groups, table);
        }
    }

    /// Queues the sum of the slices' gradients.
    fn queue_sum(&mut self) {
        self.slices.buffer().sum_into(self.total.buffer_mut());
        self.queue_norm();
        self.is_reduced = true;
    }

    /// Queues the sum of the total's squares, and sends for it.
    fn queue_norm(&mut self) {
        let (room, found) = &mut self.squares;
        Queue::<B>::get().sum_squares(self.total.buffer().view(0..self.total.layout().len()), room);
        room.download_into(found, size_of::<f64>());
    }

    /// Reads what the step said about each slot.
    fn receive(&mut self, model: &Model) {
        let Self { groups, resident, calls, .. } = self;
        resident.exchange.receive(groups, model.recorded_routers());
        groups.iter_mut().for_each(|group| group.outcome.calls.fill(*calls));
    }

    /// All micro-batches, one after the other.
    fn work(&mut self, memory: &mut Memory<Cuda<T, B>>, model: &Model, config: &TrainConfig) {
        let keeps_logits = self.keeps_logits();
        let Self { slices, weights, resident, cut, groups, .. } = self;
        slices.clear();
        if let Some(watch) = &mut memory.stopwatch {
            watch.lap(Part::GradientBuffer, slices.buffer().bytes() as f64);
        }
        for slots in cut.parts() {
            slices.buffer_mut().set_window(slots.start / cut.per_slice, slots.len(), cut.per_slice);
            let mut logits = Vec::new();
            let kept = keeps_logits.then_some(&mut logits);
            self.calls = micro_batch(memory, model, weights, config, slices, resident, slots.clone(), kept) as u32;
            if keeps_logits {
                spread_logits(groups, slots, &logits);
            }
        }
    }

    /// The same, by the graph where there is one that is still of use, or one can be made.
    fn work_or_replay(&mut self, memory: &mut Memory<Cuda<T, B>>, model: &Model, config: &TrainConfig) {
        if !self.is_fixed || memory.stopwatch.is_some() || self.keeps_logits() {
            return self.work(memory, model, config);
        }
        if self.graph.as_ref().is_some_and(Graph::launch) {
            return;
        }
        if self.graph.take().is_some() {
            self.settled = false;
        }
        if !std::mem::replace(&mut self.settled, true) {
            return self.work(memory, model, config);
        }
        let graph = Queue::<B>::get().capture(|| self.work(memory, model, config));
        if !graph.launch() {
            return self.work(memory, model, config);
        }
        self.graph = Some(graph);
    }

    /// The groups' own logits, where somebody keeps them.
    fn keeps_logits(&self) -> bool {
        self.groups.iter().any(|group| !group.outcome.logits.is_empty())
    }
}

/// An update of Adam, as the kernel takes it.
fn adam_step(c: &AdamCoefficients<f64>) -> AdamStep {
    AdamStep {
        beta1: c.beta1,
        beta2: c.beta2,
        decay: c.decay,
        step: c.step,
        inv_sqrt_correction2: c.inv_sqrt_correction2,
        ema_rate: c.ema_rate,
        grad_scale: c.grad_scale,
        ratio: c.update == Update::Ratio,
    }
}

impl<T: CudaScalar, B: Backend> Engine for CudaEngine<'_, T, B> {
    type T = T;
    type Device = Cuda<T, B>;

    fn lanes(&self) -> &Lanes<Cuda<T, B>> {
        self.lanes
    }

    fn weights(&self) -> &Weights<Cuda<T, B>> {
        &self.weights
    }

    fn dense(&self, averaged: bool) -> Cow<'_, [T]> {
        if averaged { self.ema.read() } else { Cuda::read_weights(&self.weights.params) }.into()
    }

    fn describe(&self) -> Option<String> {
        let device = Queue::<B>::get().description();
        let Cut { batch, micro_batch, .. } = self.cut;
        let gigabytes = Queue::<B>::get().used_memory() as f64 / 1e9;
        Some(format!(
            "{}: {}, batch of {batch} in micro-batches of {micro_batch}, {gigabytes:.2} GB of device memory",
            B::NAME,
            device.name
        ))
    }

    fn gradient(&self) -> Cow<'_, [T]> {
        self.total.read().into()
    }

    fn groups(&self) -> &[BoxedGroup<T>] {
        &self.groups
    }

    fn groups_mut(&mut self) -> &mut [BoxedGroup<T>] {
        &mut self.groups
    }

    fn accumulate(&mut self, model: &Model, config: &TrainConfig) {
        let lanes = self.lanes;
        lanes.install(|| {
            lanes.with_lane(|lane| {
                lane.start_watch();
                self.send(&mut lane.memory.device, config.halt_max_steps);
                lane.lap(Part::Carry, 0.0);
                self.work_or_replay(&mut lane.memory, model, config);
                self.resident.exchange.send_for_numbers::<T>();
                // The device sums gradients while the host reads numbers, unless somebody wants to know how long each takes.
                self.is_reduced = false;
                if lane.memory.stopwatch.is_none() {
                    self.queue_sum();
                }
                self.receive(model);
                lane.lap(Part::Carry, 0.0);
            });
        });
    }

    fn infer(&mut self, model: &Model) {
        let (lanes, seq_len) = (self.lanes, model.embedding.seq_len);
        let (mut tokens, mut q) = (vec![0; self.cut.batch * seq_len], vec![[T::ZERO; 2]; self.cut.batch]);
        lanes.install(|| {
            lanes.with_lane(|lane| {
                self.send(&mut lane.memory.device, u32::MAX);
                for slots in self.cut.parts() {
                    let mut tape = Tape::new(&mut lane.memory, &self.weights.params);
                    let forward = run_forward(&mut tape, model, &self.resident, &slots, Pass::Infer);
                    tape.predict(&forward.logits, &mut tokens[slots.start * seq_len..slots.end * seq_len]);
                    tape.download(&forward.q, q[slots].as_flattened_mut());
                }
            });
        });
        let mut first = 0;
        for group in &mut self.groups {
            let slots = first..first + group.len();
            group.outcome.tokens.copy_from_slice(&tokens[slots.start * seq_len..slots.end * seq_len]);
            group.outcome.q.copy_from_slice(&q[slots.clone()]);
            group.slots.halted.fill(false);
            first = slots.end;
        }
    }

    fn reduce(&mut self, peers: &mut dyn Peers<T>) -> Result<f64> {
        if !self.is_reduced {
            self.queue_sum();
        }
        if peers.size() > 1 {
            let mut sum = self.total.read();
            peers.sum_tree(&mut sum)?;
            self.total.buffer_mut().write(&sum);
            self.queue_norm();
        }
        Ok(self.squares.1.values::<f64>(0, 1)[0].sqrt())
    }

    fn update(&mut self, rule: &UpdateRule) {
        let Self { weights, ema, moments: [m, v], total, adam, .. } = self;
        let arrays = AdamArrays { state: [m, v, ema], gradient: total.buffer() };
        Cuda::adam(&mut weights.params, &adam_step(&adam.step_of(rule)), &arrays);
    }

    fn table_mut(&mut self) -> Option<&mut PuzzleTable<T>> {
        self.weights.table.as_mut().map(Arc::make_mut)
    }

    fn suspects(&self) -> [String; 2] {
        let sum_squares = |values: &[T]| values.iter().map(|g| g.to_f64().powi(2)).sum();
        suspects(self.total.layout(), &self.total.read(), sum_squares)
    }

    fn carried(&self) -> Vec<Cow<'_, [Vec<T>]>> {
        let states: Vec<Vec<T>> = (0..self.resident.states()).map(|state| self.resident.carried.read(state)).collect();
        let mut first = 0;
        let mut of_group = |group: &BoxedGroup<T>| -> Cow<'_, [Vec<T>]> {
            let part = |all: &Vec<T>| {
                let per_slot = all.len() / self.cut.batch;
                all[first * per_slot..(first + group.len()) * per_slot].to_vec()
            };
            let own = states.iter().map(part).collect::<Vec<_>>();
            first += group.len();
            Cow::Owned(own)
        };
        self.groups.iter().map(&mut of_group).collect()
    }

    fn snapshot(&self) -> Vec<NamedBuffer<'_, T>> {
        let [m, v] = &self.moments;
        let own = [(WEIGHTS, self.dense(false).into_owned()), (EMA, self.ema.read()), ("m", m.read()), ("v", v.read())];
        own.into_iter().map(|(name, values)| (name.into(), values.into())).collect()
    }

    fn restore(
        &mut self,
        buffers: Vec<NamedBuffer<'_, T>>,
        table: Option<PuzzleTable<T>>,
        groups: Vec<(Slots, Vec<Vec<T>>)>,
    ) -> Result<()> {
        let len = self.total.layout().len();
        let known = [WEIGHTS, EMA, "m", "v"].map(|name| (name, len));
        let states = self.resident.states();
        let per_slot = self.resident.carried.len() / self.cut.batch;
        check_restored(&known, &buffers, (&self.weights, table.as_ref()), &self.groups, &groups, |group| {
            vec![group.len() * per_slot; states]
        })?;
        for (name, values) in buffers {
            match &*name {
                WEIGHTS => self.weights.params.update(|own| own.copy_from_slice(&values)),
                EMA => self.ema.write(&values),
                "m" => self.moments[0].write(&values),
                _ => self.moments[1].write(&values),
            }
        }
        self.weights.table = table.map(Arc::new);
        for state in 0..states {
            let all: Vec<T> = groups.iter().flat_map(|(_, states)| &states[state]).copied().collect();
            self.resident.carried.write(state, &all);
        }
        for (group, (slots, _)) in self.groups.iter_mut().zip(groups) {
            group.slots = slots;
        }
        Ok(())
    }

    fn sweep_bytes(&self) -> [f64; 2] {
        let (n, t) = (self.total.layout().n_weights() as f64, size_of::<T>() as f64);
        [(self.cut.slices() + 2) as f64 * n * t, n * (9.0 * t + 4.0)]
    }
}

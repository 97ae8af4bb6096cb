//! The engine of devices whose memory the host sees: lanes, and the tree that sums their gradients.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::tree::{Sums, accumulate};
use super::{
    BoxedGroup, Engine, Group, Lanes, NamedBuffer, OptimizerState, Peers, PuzzleTable, Slots, UpdateRule, Weights,
    gradient_groups, largest_gradient, node, non_finite_tensor, optimizer,
};
use crate::config::TrainConfig;
use crate::device::{Cpu, Grads, HostDevice, Precision};
use crate::error::{Error, Result};
use crate::model::Model;

/// Lanes with weights, their EMA and the optimizer's state in host memory.
pub struct LaneEngine<'a, D: HostDevice = Cpu<f32>> {
    /// The threads.
    pub lanes: &'a Lanes<D>,
    /// What is trained.
    pub weights: Weights<D>,
    /// EMA of the dense weights, in their flat order.
    pub ema: Vec<D::T>,
    optimizer: OptimizerState<D>,
    /// Boxed, so that they can be handed to the lanes one by one.
    groups: Vec<BoxedGroup<D::T>>,
    /// Sum of all groups' gradients in the last step.
    total: Grads<D>,
    /// Buffers for partial sums, and the place where they wait for each other.
    sums: Sums<D>,
}

/// The slots of a rank: which groups of the batch they are in, and how many slots come before them.
pub(crate) fn groups_of_rank(config: &TrainConfig, rank: usize, size: usize) -> (Range<usize>, usize) {
    let groups = node(gradient_groups(config), rank, size);
    let first = first_slot(config, groups.start);
    (groups, first)
}

/// The first slot of a gradient group.
fn first_slot(config: &TrainConfig, group: usize) -> usize {
    group * config.batch_size / gradient_groups(config)
}

impl<'a, D: HostDevice> LaneEngine<'a, D> {
    /// Everything that the batch of `config` needs, fresh, for the groups that `peers` leave to this process.
    pub fn new(
        lanes: &'a Lanes<D>,
        model: &Model,
        config: &TrainConfig,
        weights: Weights<D>,
        peers: &dyn Peers<D::T>,
    ) -> Self {
        let layout = weights.params.layout().clone();
        let (groups, _) = groups_of_rank(config, peers.rank(), peers.size());
        let slots = |group: usize| first_slot(config, group + 1) - first_slot(config, group);
        Self {
            lanes,
            ema: weights.params.values().to_vec(),
            optimizer: OptimizerState::new(optimizer(config), &layout),
            groups: groups.map(|group| Box::new(Group::new(model, slots(group)))).collect(),
            total: Grads::new(layout),
            sums: Sums::default(),
            weights,
        }
    }

    /// Replaces the optimizer by a rule of one's own; its state starts anew.
    pub fn with_optimizer(mut self, rule: Box<dyn super::Optimizer<D>>) -> Self {
        self.optimizer = OptimizerState::new(rule, self.weights.params.layout());
        self
    }

    /// The gradient of the last step, summed over the batch, of total/batch.
    pub fn grads(&self) -> &Grads<D> {
        &self.total
    }
}

impl<D: HostDevice> Engine for LaneEngine<'_, D> {
    type T = D::T;
    type Device = D;

    fn lanes(&self) -> &Lanes<D> {
        self.lanes
    }

    fn weights(&self) -> &Weights<D> {
        &self.weights
    }

    fn dense(&self, averaged: bool) -> Cow<'_, [D::T]> {
        if averaged { &self.ema[..] } else { self.weights.params.values() }.into()
    }

    fn groups(&self) -> &[BoxedGroup<D::T>] {
        &self.groups
    }

    fn groups_mut(&mut self) -> &mut [BoxedGroup<D::T>] {
        &mut self.groups
    }

    fn accumulate(&mut self, model: &Model, config: &TrainConfig) {
        let Self { lanes, weights, groups, sums, total, .. } = self;
        lanes.replicate(&mut weights.params);
        let shard = D::shard(model.len);
        lanes.install(|| {
            accumulate(lanes, groups, sums, total, |lane, group, grads| {
                for first in (0..group.len()).step_by(shard) {
                    let slots = first..group.len().min(first + shard);
                    lane.train(model, weights, config, group, slots, grads);
                }
            });
        });
    }

    fn infer(&mut self, model: &Model) {
        let Self { lanes, weights, groups, .. } = self;
        let shard = D::shard(model.len);
        let infer = |group: &mut Group<D::T>| {
            for first in (0..group.len()).step_by(shard) {
                let slots = first..group.len().min(first + shard);
                lanes.with_lane(|lane| lane.infer(model, weights, group, slots));
            }
        };
        lanes.install(|| match &mut groups[..] {
            [one] if one.len() <= shard => lanes.alone(|lane| lane.infer(model, weights, one, 0..one.len())),
            many => many.par_iter_mut().for_each(|group| infer(group)),
        });
    }

    fn reduce(&mut self, peers: &mut dyn Peers<D::T>) -> Result<f64> {
        let Self { lanes, sums, total, .. } = self;
        lanes.install(|| sums.finish(lanes, total));
        if peers.size() > 1 {
            peers.sum_tree(total.values_mut())?;
            lanes.install(|| sums.square(total));
        }
        Ok(sums.norm())
    }

    fn update(&mut self, rule: &UpdateRule) {
        let Self { lanes, weights, ema, optimizer, total, .. } = self;
        lanes.install(|| optimizer.update(rule, &mut weights.params, ema, total));
    }

    fn table_mut(&mut self) -> Option<&mut PuzzleTable<D::T>> {
        self.weights.table.as_mut().map(Arc::make_mut)
    }

    fn suspects(&self) -> [String; 2] {
        [non_finite_tensor(&self.total), largest_gradient(&self.total)]
    }

    fn carried(&self) -> Vec<Cow<'_, [Vec<D::T>]>> {
        self.groups.iter().map(|group| Cow::Borrowed(&group.states[..])).collect()
    }

    fn snapshot(&self) -> Vec<NamedBuffer<'_, D::T>> {
        let own = [(WEIGHTS, self.weights.params.values()), (EMA, &self.ema[..])];
        own.into_iter().chain(self.optimizer.buffers()).map(|(name, values)| (name.into(), values.into())).collect()
    }

    fn restore(
        &mut self,
        buffers: Vec<NamedBuffer<'_, D::T>>,
        table: Option<PuzzleTable<D::T>>,
        groups: Vec<(Slots, Vec<Vec<D::T>>)>,
    ) -> Result<()> {
        let misfit = || Error::input("the checkpoint belongs to a model of another shape; train into a new folder");
        let shape = |table: &PuzzleTable<D::T>| (table.rows(), table.ndim());
        let lengths = |slots: &Slots, states: &[Vec<D::T>]| {
            let states: Vec<usize> = states.iter().map(Vec::len).collect();
            let Slots { inputs, labels, puzzle_ids, steps, halted } = slots;
            (inputs.len(), labels.len(), puzzle_ids.len(), steps.len(), halted.len(), states)
        };
        let slots_fit = groups.len() == self.groups.len()
            && groups
                .iter()
                .zip(&self.groups)
                .all(|((slots, states), group)| lengths(slots, states) == lengths(&group.slots, &group.states));
        let known: Vec<(Cow<'_, str>, usize)> =
            self.snapshot().iter().map(|(name, values)| (Cow::Owned(name.to_string()), values.len())).collect();
        let given: Vec<(Cow<'_, str>, usize)> =
            buffers.iter().map(|(name, values)| (name.clone(), values.len())).collect();
        if known != given || !slots_fit || table.as_ref().map(shape) != self.weights.table.as_deref().map(shape) {
            return Err(misfit());
        }
        for (name, values) in buffers {
            match &*name {
                WEIGHTS => self.weights.params.update(|own| own.copy_from_slice(&values)),
                EMA => self.ema.copy_from_slice(&values),
                _ => {
                    let own = self.optimizer.buffers_mut().find(|(own, _)| *own == name);
                    own.ok_or_else(misfit)?.1.copy_from_slice(&values);
                }
            }
        }
        self.weights.table = table.map(Arc::new);
        for (group, (slots, states)) in self.groups.iter_mut().zip(groups) {
            (group.slots, group.states) = (slots, states);
        }
        Ok(())
    }

    fn sweep_bytes(&self) -> [f64; 2] {
        let packed = match self.weights.params.precision() {
            Precision::F32 => size_of::<D::T>(),
            Precision::Bf16 => 2,
        };
        [self.sums.finish_bytes(), self.optimizer.sweep_bytes(self.weights.params.layout(), packed)]
    }
}

/// Names of an engine's own buffers.
pub(crate) const WEIGHTS: &str = "weights";
pub(crate) const EMA: &str = "ema";

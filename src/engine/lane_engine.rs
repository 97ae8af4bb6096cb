//! The engine of devices whose memory the host sees: lanes, and the tree that sums their gradients.

use std::borrow::Cow;
use std::sync::Arc;

use rayon::prelude::*;

use super::tree::{Sums, accumulate};
use super::{
    BoxedGroup, EMA, Engine, Group, Lanes, NamedBuffer, OptimizerState, Peers, PuzzleTable, Slots, UpdateRule, WEIGHTS,
    Weights, check_restored, first_slot, groups_of_rank, optimizer, suspects,
};
use crate::config::TrainConfig;
use crate::device::{Cpu, Grads, HostDevice, Precision};
use crate::error::Result;
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

    fn gradient(&self) -> Cow<'_, [D::T]> {
        self.total.values().into()
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
        suspects(self.total.layout(), self.total.values(), D::sum_squares)
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
        let known: Vec<(String, usize)> =
            self.snapshot().iter().map(|(name, values)| (name.to_string(), values.len())).collect();
        check_restored(&known, &buffers, (&self.weights, table.as_ref()), &self.groups, &groups, |group| {
            group.states.iter().map(Vec::len).collect()
        })?;
        for (name, values) in buffers {
            match &*name {
                WEIGHTS => self.weights.params.update(|own| own.copy_from_slice(&values)),
                EMA => self.ema.copy_from_slice(&values),
                _ => {
                    let own = self.optimizer.buffers_mut().find(|(own, _)| *own == name);
                    own.expect("a buffer of that name, as was checked").1.copy_from_slice(&values);
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

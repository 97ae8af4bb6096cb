//! The seam above the lane: what training asks of a machine.
//!
//! A [`Lane`] is a core, or a GPU: below it everything is sequential and owns its memory. An [`Engine`] is what a
//! [`Trainer`](crate::train::Trainer) sees: all slots of a batch, worked on somehow, whose gradients come to one sum in a fixed
//! order. [`LaneEngine`] is the one for devices whose memory the host sees: as many [`Lanes`] as there are cores take
//! gradient groups in turn and help each other with the last ones, and a binary tree of fixed shape adds them up, so that no number
//! of threads changes a bit of the result. The same tree goes on above a process: see [`Peers`].

#[cfg(cuda)]
mod cuda_engine;
mod group;
mod hand_out;
mod lane;
mod lane_engine;
mod lanes;
mod optimizer;
mod peers;
mod precision;
pub mod puzzle_table;
mod restore;
mod step;
mod tree;
mod weights;

#[cfg(cuda)]
pub use cuda_engine::CudaEngine;
pub use group::{BoxedGroup, Group, Outcome, Slots, gradient_groups};
pub(crate) use group::{first_slot, groups_of_rank};
pub use lane::Lane;
pub use lane_engine::LaneEngine;
pub use lanes::{Lanes, ProductLimits};
pub use optimizer::{Adam, Optimizer, OptimizerState, UpdateRule, WeightPart, optimizer, suspects};
pub use peers::{Alone, Peers};
pub use precision::{check_formats, formats_for, precision_for};
pub use puzzle_table::PuzzleTable;
use restore::check_restored;
pub(crate) use restore::{EMA, WEIGHTS};
pub use tree::{node, partial_sums};
pub use weights::{TableStart, Weights};

use std::borrow::Cow;

use crate::config::TrainConfig;
use crate::device::{Device, HostDevice, Real};
use crate::error::Result;
use crate::model::Model;

/// A buffer of a training state, by the name that checkpoints know it under.
pub type NamedBuffer<'a, T> = (Cow<'a, str>, Cow<'a, [T]>);

/// Where training steps happen.
///
/// A step is [`accumulate`](Engine::accumulate), [`reduce`](Engine::reduce), [`update`](Engine::update), in this order;
/// between steps the slots may be refilled.
pub trait Engine {
    /// Scalars of states, weights and gradients.
    type T: Real;
    /// What it runs on.
    type Device: Device<T = Self::T>;

    /// The threads that drive the device.
    fn lanes(&self) -> &Lanes<Self::Device>;

    /// Shapes and puzzle table of what is trained. A device with memory of its own may have newer dense weights than
    /// these: see [`Engine::dense`].
    fn weights(&self) -> &Weights<Self::Device>;

    /// The dense weights as they are now, or their EMA, in flat order.
    fn dense(&self, averaged: bool) -> Cow<'_, [Self::T]>;

    /// What a user may want to know about where and how it works; `None` where there is nothing to say.
    fn describe(&self) -> Option<String> {
        None
    }

    /// The gradient groups of this process, in order: examples, ages, and what the last step said.
    fn groups(&self) -> &[BoxedGroup<Self::T>];

    /// The same, to be refilled and halted.
    fn groups_mut(&mut self) -> &mut [BoxedGroup<Self::T>];

    /// One supervision step of every slot: forward, losses, backward. States are carried on, outcomes written; the gradients
    /// of total/batch stay with the engine.
    fn accumulate(&mut self, model: &Model, config: &TrainConfig);

    /// The gradient of the last step, summed over the batch, of total/batch, in flat order.
    fn gradient(&self) -> Cow<'_, [Self::T]>;

    /// One supervision step without gradient of every slot.
    fn infer(&mut self, model: &Model);

    /// Sums the gradients of all groups, of other processes too. Returns the norm of the sum; not finite when one of its
    /// elements is not.
    ///
    /// # Errors
    /// When another process cannot be reached.
    fn reduce(&mut self, peers: &mut dyn Peers<Self::T>) -> Result<f64>;

    /// Changes the dense weights and their EMA.
    fn update(&mut self, rule: &UpdateRule);

    /// The sparse puzzle table, for the update of the rows that were seen.
    fn table_mut(&mut self) -> Option<&mut PuzzleTable<Self::T>>;

    /// The first tensor with a gradient that is not finite, and the one with the largest, for messages.
    fn suspects(&self) -> [String; 2];

    /// What the slots of each group carry on: for each state of the model, `[slots·len, hidden]`.
    fn carried(&self) -> Vec<Cow<'_, [Vec<Self::T>]>>;

    /// Weights, EMA and optimizer state: what a checkpoint holds but for slots, states and puzzle table.
    fn snapshot(&self) -> Vec<NamedBuffer<'_, Self::T>>;

    /// Takes over what [`Engine::snapshot`] gave, a whole puzzle table, and for each group its slots and states.
    ///
    /// # Errors
    /// When the shapes do not fit: the state belongs to another model.
    fn restore(
        &mut self,
        buffers: Vec<NamedBuffer<'_, Self::T>>,
        table: Option<PuzzleTable<Self::T>>,
        groups: Vec<(Slots, Vec<Vec<Self::T>>)>,
    ) -> Result<()>;

    /// Bytes that a reduction and an update move, for the profile.
    fn sweep_bytes(&self) -> [f64; 2];
}

/// A device that models can be trained on: it has an engine.
pub trait TrainingDevice: Device {
    /// The engine.
    type Engine<'a>: Engine<T = Self::T, Device = Self> + Send
    where
        Self: 'a;

    /// Everything that the batch of `config` needs, fresh, for the groups that `peers` leave to this process.
    ///
    /// # Errors
    /// When the device has no room for it.
    fn engine<'a>(
        lanes: &'a Lanes<Self>,
        model: &Model,
        config: &TrainConfig,
        weights: Weights<Self>,
        peers: &dyn Peers<Self::T>,
    ) -> Result<Self::Engine<'a>>;
}

impl<D: HostDevice> TrainingDevice for D {
    type Engine<'a>
        = LaneEngine<'a, D>
    where
        D: 'a;

    fn engine<'a>(
        lanes: &'a Lanes<D>,
        model: &Model,
        config: &TrainConfig,
        weights: Weights<D>,
        peers: &dyn Peers<D::T>,
    ) -> Result<LaneEngine<'a, D>> {
        Ok(LaneEngine::new(lanes, model, config, weights, peers))
    }
}

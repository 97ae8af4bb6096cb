//! Optimizers of the dense weights: what an update makes of a gradient.
//!
//! An [`Optimizer`] is a rule; [`OptimizerState`] is the rule with its named buffers, each of the weights' shape. An update
//! has two parts: first the rule sees whole matrices, one after the other (a rule that needs GEMMs, such as Muon's
//! orthogonalisation, works there), then all weights in one sweep, part by part, together with their EMA and the device's
//! form of the weights.

mod adam;

pub use adam::Adam;

use arrayvec::ArrayVec;

use crate::config::TrainConfig;
use crate::device::{Grads, HostDevice, Layout, Params, Real, Tensor};

/// Buffers an optimizer may keep for each weight.
const MAX_BUFFERS: usize = 3;

/// The figures of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateRule {
    /// Which update it is, from 1.
    pub t: u64,
    /// Learning rate.
    pub lr: f64,
    /// Factor on the gradient (clipping).
    pub grad_scale: f64,
    /// Share of the EMA that is kept; 1 leaves it as it is.
    pub ema_rate: f64,
}

/// Elements of one tensor, all of equal length, during an update.
pub struct WeightPart<'a, T> {
    /// The weights themselves.
    pub weights: &'a mut [T],
    /// In the order of [`Optimizer::buffers`].
    pub state: &'a mut [&'a mut [T]],
    /// Their EMA.
    pub ema: &'a mut [T],
    /// Their gradient, not yet clipped.
    pub gradient: &'a [T],
}

/// What an update makes of a gradient.
pub trait Optimizer<D: HostDevice>: Send + Sync {
    /// Names of the buffers it keeps for each weight, at most three; zeros at first. Checkpoints know them by these names.
    fn buffers(&self) -> &'static [&'static str];

    /// The rule for one tensor, where tensors differ.
    fn rule_of(&self, _tensor: &Tensor, rule: &UpdateRule) -> UpdateRule {
        *rule
    }

    /// Sees a whole matrix before the sweep: its state, and its gradient, which it may replace by another direction.
    fn whole(&self, _tensor: &Tensor, _rule: &UpdateRule, _state: &mut [&mut [D::T]], _gradient: &mut [D::T]) {}

    /// Updates some elements of a tensor, and their EMA: `ema ← rate · ema + (1 − rate) · weights`.
    fn sweep(&self, tensor: &Tensor, rule: &UpdateRule, part: WeightPart<'_, D::T>);
}

/// The optimizer of a configuration.
pub fn optimizer<D: HostDevice>(config: &TrainConfig) -> Box<dyn Optimizer<D>> {
    Box::new(Adam::new(config))
}

/// An optimizer and its buffers, in the flat order of the weights.
pub struct OptimizerState<D: HostDevice> {
    rule: Box<dyn Optimizer<D>>,
    buffers: Vec<Vec<D::T>>,
}

impl<D: HostDevice> OptimizerState<D> {
    /// Buffers of zeros for a layout.
    pub fn new(rule: Box<dyn Optimizer<D>>, layout: &Layout) -> Self {
        let buffers = rule.buffers().iter().map(|_| vec![D::T::ZERO; layout.len()]).collect();
        Self { rule, buffers }
    }

    /// Name and values of every buffer.
    pub fn buffers(&self) -> impl Iterator<Item = (&'static str, &[D::T])> {
        self.rule.buffers().iter().copied().zip(self.buffers.iter().map(Vec::as_slice))
    }

    /// The same, for writing.
    pub fn buffers_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut [D::T])> {
        self.rule.buffers().iter().copied().zip(self.buffers.iter_mut().map(Vec::as_mut_slice))
    }

    /// Bytes that an update moves: weights, buffers and EMA read and written, the gradient read, packed weights written.
    pub fn sweep_bytes(&self, layout: &Layout, packed_bytes: usize) -> f64 {
        let arrays = 2 * (2 + self.buffers.len()) + 1;
        ((arrays * size_of::<D::T>() + 2 * packed_bytes) * layout.n_weights()) as f64
    }

    /// One update of all trained tensors and of their EMA. A rule that changes directions does so in `grads`.
    pub fn update(&mut self, rule: &UpdateRule, params: &mut Params<D>, ema: &mut [D::T], grads: &mut Grads<D>) {
        let layout = params.layout().clone();
        for tensor in layout.tensors().iter().filter(|tensor| tensor.trained) {
            let own = self.rule.rule_of(tensor, rule);
            let mut state: ArrayVec<&mut [D::T], MAX_BUFFERS> =
                self.buffers.iter_mut().map(|buffer| &mut buffer[tensor.range()]).collect();
            self.rule.whole(tensor, &own, &mut state, &mut grads.values_mut()[tensor.range()]);
        }
        let gradient = grads.values();
        let optimizer = &*self.rule;
        macro_rules! sweep {
            ($($buffers:literal => $arrays:literal, $all:literal;)*) => {
                match self.buffers.len() {
                    $($buffers => {
                        let mut buffers = self.buffers.iter_mut().map(Vec::as_mut_slice);
                        let mut arrays = std::iter::once(ema).chain(&mut buffers);
                        let arrays: [&mut [D::T]; $arrays] =
                            std::array::from_fn(|_| arrays.next().expect("the EMA and the buffers"));
                        params.sweep::<$arrays, $all>(arrays, |tensor, range, [weights, ema, state @ ..]| {
                            if tensor.trained {
                                let mut state = state;
                                let part = WeightPart { weights, ema, state: &mut state, gradient: &gradient[range] };
                                optimizer.sweep(tensor, &optimizer.rule_of(tensor, rule), part);
                            }
                        });
                    })*
                    more => panic!("an optimizer keeps at most {MAX_BUFFERS} buffers, not {more}"),
                }
            };
        }
        sweep! { 0 => 1, 2; 1 => 2, 3; 2 => 3, 4; 3 => 4, 5; }
    }
}

/// The first tensor in whose gradient something is not finite, and the one with the largest, for messages; `sum_squares` is the
/// device's.
pub fn suspects<T>(layout: &Layout, gradient: &[T], sum_squares: impl Fn(&[T]) -> f64) -> [String; 2] {
    let size = |tensor: &&Tensor| sum_squares(&gradient[tensor.range()]);
    let tensors = || layout.tensors().iter();
    let not_finite = tensors().find(|tensor| !size(tensor).is_finite());
    let largest = tensors().max_by(|a, b| size(a).total_cmp(&size(b)));
    [not_finite, largest]
        .map(|tensor| format!("the gradient of {}", tensor.map_or("all weights", |tensor| &tensor.name)))
}

//! Mixture of experts in place of a block's SwiGLU over features: several SwiGLUs, of which each position uses a few.
//!
//! `y = Σ chosen e: g[e] · swiglu_e(h)`, gates g by a softmax over the largest of the router's logits `h W_routerᵀ`.
//! A loss keeps the router from always choosing the same ones (paper, "Ideas that failed": it did not generalise).

use super::network::SwiGluWeights;
use crate::simd::Real;
use crate::tape::{ParamId, Tape, Var, ops};

/// The weights of the mixture in one block.
#[derive(Clone, Debug)]
pub struct Experts {
    /// `[experts, width]`.
    pub router: ParamId,
    pub weights: Vec<SwiGluWeights>,
    /// How many each position uses.
    pub per_token: usize,
}

impl Experts {
    /// The mixture's answer for h `[sequences·len, width]`.
    pub fn forward<T: Real>(&self, tape: &mut Tape<'_, T>, h: &Var, balance: &mut Balance) -> Var {
        let (rows, width) = tape.shape(h);
        let logits = ops::linear(tape, h, self.router, None);
        let (gates, routing) = ops::route(tape, &logits, self.per_token);
        balance.add(tape, &logits, routing);
        tape.release(logits);
        let mut sum = tape.zeros(rows, width);
        for (e, expert) in self.weights.iter().enumerate() {
            if let Some(own) = ops::gather_rows(tape, h, routing, e) {
                let answers = ops::swiglu(tape, &own, expert.gate_up, expert.down);
                tape.release(own);
                sum = ops::add_expert(tape, sum, answers, &gates, routing, e);
            }
        }
        tape.release(gates);
        sum
    }
}

/// Collects the load-balancing loss of the routers that a pass goes through with gradient.
pub struct Balance {
    total: Option<Var>,
    /// L.
    len: usize,
    /// Each router's weight: the loss is their mean.
    weight: f64,
}

impl Balance {
    /// For sequences of `len` positions that go through `routers` routers.
    pub fn new(len: usize, routers: usize) -> Self {
        Self { total: None, len, weight: 1.0 / routers.max(1) as f64 }
    }

    fn add<T: Real>(&mut self, tape: &mut Tape<'_, T>, logits: &Var, routing: ops::Routing) {
        if !tape.needs_grad(logits) {
            return;
        }
        let loss = ops::load_balance(tape, logits, routing, self.len, self.weight);
        self.total = Some(match self.total.take() {
            None => loss,
            Some(before) => {
                let total = ops::add(tape, &[&before, &loss]);
                tape.release(before);
                tape.release(loss);
                total
            }
        });
    }

    /// `[sequences, 1]`: the mean over the routers; `None` without any.
    pub fn finish(self) -> Option<Var> {
        self.total
    }
}

//! Mixture of experts in place of a block's SwiGLU over features: several SwiGLUs, of which each position uses a few.
//!
//! `y = Σ chosen e: g[e] · swiglu_e(h)`, gates g by a softmax over the largest of the router's logits `h W_routerᵀ`.
//! A loss keeps the router from always choosing the same ones (paper, "Ideas that failed": it did not generalise).

use super::network::SwiGluWeights;
use crate::device::{Device, ParamId};
use crate::tape::{Tape, Var, ops};

/// The weights of the mixture in one block.
#[derive(Clone, Debug)]
pub struct Experts {
    /// `[experts, width]`.
    pub router: ParamId,
    /// Each expert.
    pub weights: Vec<SwiGluWeights>,
    /// How many each position uses.
    pub per_token: usize,
}

impl Experts {
    /// The mixture's answer for h `[sequences·len, width]`. Where gradient flows, the router's load-balancing loss is a side
    /// loss of the tape.
    pub fn forward<D: Device>(&self, tape: &mut Tape<'_, D>, h: &Var, len: usize) -> Var {
        let (rows, width) = tape.shape(h);
        let logits = ops::linear_exact(tape, h, self.router, None);
        let (gates, routing) = ops::route(tape, &logits, self.per_token);
        if tape.needs_grad(&logits) {
            let loss = ops::load_balance(tape, &logits, routing, len, 1.0);
            tape.add_side_loss(loss);
        }
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

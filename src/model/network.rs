//! The network f: a stack of post-norm blocks without biases or norm weights (paper §2.1, specification, "Block").

use super::NetworkSpec;
use super::experts::Experts;
use crate::config::{Mixing, ModelConfig, Positions};
use crate::device::{Device, Layout, ParamId, Usage};
use crate::tape::ops::{Made, Rest};
use crate::tape::{Tape, Var, ops};

/// `f(h) = block_k(… block_1(h))`.
#[derive(Clone, Debug)]
pub struct Network {
    /// In the order they are applied.
    pub blocks: Vec<Block>,
}

/// One block's weights.
#[derive(Clone, Debug)]
pub struct Block {
    /// Over positions.
    pub mix: Mix,
    /// Over features.
    pub mlp: Mlp,
    /// L.
    len: usize,
}

/// Over features.
#[derive(Clone, Debug)]
pub enum Mlp {
    /// One SwiGLU for all positions.
    SwiGlu(SwiGluWeights),
    /// A mixture of experts.
    Experts(Experts),
}

/// Mixing over positions.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // fields say by their names what they are
pub enum Mix {
    Attention {
        qkv: ParamId,
        out: ParamId,
        heads: usize,
        rope: bool,
    },
    /// A SwiGLU over positions (mlp_t).
    Positions(SwiGluWeights),
}

/// `[2·inner, width]` and `[width, inner]`.
#[derive(Clone, Copy, Debug)]
pub struct SwiGluWeights {
    pub gate_up: ParamId,
    pub down: ParamId,
}

/// SwiGLU's inner width: round(expansion · width · 2/3), half to even, up to a multiple of `multiple` (specification, "Block").
pub fn inner_width(expansion: f64, width: usize, multiple: usize) -> usize {
    let inner = (expansion * width as f64 * 2.0 / 3.0).round_ties_even() as usize;
    inner.next_multiple_of(multiple)
}

impl Network {
    /// Adds the tensors of a network to the layout; `len` is L.
    pub(super) fn new(layout: &mut Layout, spec: &NetworkSpec, config: &ModelConfig, len: usize) -> Self {
        let name = &spec.name;
        let hidden = config.hidden_size;
        let swiglu = |layout: &mut Layout, prefix: String, width: usize, (gate_up, down): (Usage, Usage)| {
            let inner = inner_width(config.expansion, width, config.inner_multiple);
            SwiGluWeights {
                gate_up: layout.push(format!("{prefix}.gate_up_proj.weight"), 2 * inner, width, gate_up),
                down: layout.push(format!("{prefix}.down_proj.weight"), width, inner, down),
            }
        };
        let blocks = (0..spec.layers)
            .map(|i| {
                let prefix = format!("inner.{name}.layers.{i}");
                let mix = match config.mixing {
                    Mixing::Attention => Mix::Attention {
                        qkv: layout.push(
                            format!("{prefix}.self_attn.qkv_proj.weight"),
                            3 * hidden,
                            hidden,
                            Usage::Rows,
                        ),
                        out: layout.push(format!("{prefix}.self_attn.o_proj.weight"), hidden, hidden, Usage::Rows),
                        heads: config.n_heads,
                        rope: config.positions == Positions::Rope,
                    },
                    Mixing::MlpT => {
                        Mix::Positions(swiglu(layout, format!("{prefix}.mlp_t"), len, (Usage::GateUpCols, Usage::Cols)))
                    }
                };
                let mlp = match config.experts {
                    0 => Mlp::SwiGlu(swiglu(
                        layout,
                        format!("{prefix}.mlp"),
                        hidden,
                        (Usage::GateUpRows, Usage::DownRows),
                    )),
                    experts => Mlp::Experts(Experts {
                        router: layout.push(format!("{prefix}.mlp.router.weight"), experts, hidden, Usage::Rows),
                        weights: (0..experts)
                            .map(|e| {
                                swiglu(
                                    layout,
                                    format!("{prefix}.mlp.experts.{e}"),
                                    hidden,
                                    (Usage::GateUpRows, Usage::DownRows),
                                )
                            })
                            .collect(),
                        per_token: config.experts_per_token,
                    }),
                };
                Block { mix, mlp, len }
            })
            .collect();
        Self { blocks }
    }

    /// `f(h)`; uses up h `[sequences·len, hidden]`.
    pub fn forward<D: Device>(&self, tape: &mut Tape<'_, D>, h: Var) -> Var {
        self.forward_then_add(tape, h, None).value
    }

    /// `f(h)`, and its sum with `rest` where the device makes that on the way.
    pub(super) fn forward_then_add<D: Device>(&self, tape: &mut Tape<'_, D>, h: Var, rest: Option<&Rest<'_>>) -> Made {
        let (last, before) = self.blocks.split_last().expect("networks have at least one block");
        let h = before.iter().fold(h, |h, block| block.forward(tape, h));
        last.forward_then_add(tape, h, rest)
    }

    /// Blocks with a mixture of experts.
    pub(super) fn routers(&self) -> usize {
        self.blocks.iter().filter(|block| matches!(block.mlp, Mlp::Experts(_))).count()
    }
}

impl Block {
    /// One block: mix over positions, then over features; post-norm.
    pub fn forward<D: Device>(&self, tape: &mut Tape<'_, D>, h: Var) -> Var {
        self.forward_then_add(tape, h, None).value
    }

    fn forward_then_add<D: Device>(&self, tape: &mut Tape<'_, D>, h: Var, rest: Option<&Rest<'_>>) -> Made {
        let h = match self.mix {
            Mix::Attention { qkv, out, heads, rope } => {
                let attended = ops::linear_attention(tape, &h, qkv, heads, self.len, rope);
                let h = ops::linear_add_rmsnorm(tape, &attended, out, h);
                tape.release(attended);
                h
            }
            Mix::Positions(mlp_t) => ops::swiglu_add_rmsnorm_over_positions(tape, h, mlp_t.gate_up, mlp_t.down),
        };
        match &self.mlp {
            Mlp::SwiGlu(mlp) => ops::swiglu_add_rmsnorm_then_add(tape, h, mlp.gate_up, mlp.down, rest),
            Mlp::Experts(experts) => {
                let wide = experts.forward(tape, &h, self.len);
                Made { value: ops::add_rmsnorm(tape, h, wide), sum: None }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::inner_width;

    #[test]
    fn inner_widths_are_the_published_ones() {
        assert_eq!(inner_width(4.0, 512, 256), 1536);
        assert_eq!(inner_width(4.0, 97, 256), 512);
        assert_eq!(inner_width(4.0, 16, 256), 256);
        assert_eq!(inner_width(4.0, 96, 64), 256);
    }
}

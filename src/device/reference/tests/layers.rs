//! Layers forward and backward, for the tests of kernels.

use super::*;

/// A linear layer forward, with and without residual and norm, and backward.
pub(super) fn linear<D: Device>(lab: &mut Lab<D>, [m, n_in, n_out]: [usize; 3]) -> Outputs {
    let (params, mut grads, [weight]) = lab.weights([(n_out, n_in, Usage::Rows)]);
    let (x, dy, h) = (lab.random(m * n_in), lab.random(m * n_out), lab.random(m * n_out));
    let (y, normed, inv_rms) = (lab.zeros(m * n_out), lab.zeros(m * n_out), lab.factors(m));
    let (dx, added) = (lab.random(m * n_in), lab.random(m * n_in));
    lab.device.linear(&params, weight, x, y, None);
    lab.device.linear(&params, weight, x, normed, Some(NormEpilogue::new(h, inv_rms)));
    lab.device.linear_backward(&params, weight, dy, InputGrad::overwriting(dx));
    lab.device.linear_backward(&params, weight, dy, InputGrad::added_to(added));
    let through = through_norm(lab, &params, &[weight], [dy, x], |device, dx| {
        device.linear_backward(&params, weight, dy, dx);
    });
    // Twice, so that a deferred gradient has two uses.
    lab.device.weight_grad(&params, &mut grads, weight, dy, x);
    lab.device.weight_grad(&params, &mut grads, weight, y, x);
    lab.device.finish_weight_grads(&params, &mut grads);
    [lab.read(&[y, normed, inv_rms, dx, added]), through, vec![gradients(&grads)]].concat()
}

/// The gradient of x, an operation's input of `[rows, width of the weight]`, added to another block's elements; and on through a norm
/// that is supposed to have made x, by the operation itself where the device says so.
fn through_norm<D: Device>(
    lab: &mut Lab<D>,
    params: &Params<D>,
    weights: &[ParamId],
    [dy, x]: [Block; 2],
    mut backward: impl FnMut(&mut D, InputGrad),
) -> Outputs {
    let (_, width) = params.shape(weights[0]);
    let (base, plain, normed) = (lab.random(x.len()), lab.random(x.len()), lab.random(x.len()));
    let norm = Normed { y: x, inv_rms: lab.numbers(x.len() / width) };
    backward(&mut lab.device, InputGrad { to: plain, base: Some(base), norm: None });
    if lab.device.norms_input_grad(params, weights, &[dy, x]) {
        backward(&mut lab.device, InputGrad { to: normed, base: Some(base), norm: Some(norm) });
    } else {
        lab.device.copy(plain, normed);
        lab.device.rmsnorm_backward(Over::Features, width, x, norm.inv_rms, normed);
    }
    lab.read(&[plain, normed])
}

/// Residual and norm forward and backward.
pub(super) fn norms_along_both_axes<D: Device>(lab: &mut Lab<D>, [sequences, len, width]: [usize; 3]) -> Outputs {
    let mut outputs = Vec::new();
    for (over, factors) in [(Over::Features, sequences * len), (Over::Positions(len), sequences * width)] {
        let size = sequences * len * width;
        let (h, x, d, inv_rms) = (lab.random(size), lab.random(size), lab.random(size), lab.factors(factors));
        lab.device.add_rmsnorm(over, width, h, x, inv_rms);
        lab.device.rmsnorm_backward(over, width, x, inv_rms, d);
        outputs.extend(lab.read(&[x, d, inv_rms]));
    }
    outputs
}

/// Attention forward and backward, with or without rotary positions.
pub(super) fn attend<D: Device>(lab: &mut Lab<D>, shape: AttentionShape, rope: bool) -> Outputs {
    let AttentionShape { sequences, len, heads, .. } = shape;
    let qkv = lab.random(3 * sequences * len * heads * shape.head_dim);
    attend_to(lab, shape, if rope { Rope::InAttention } else { Rope::Nowhere }, qkv)
}

/// Attention of each length and head size, with and without rotary positions.
pub(super) fn attend_each<D: Device>(lab: &mut Lab<D>, shapes: &[(usize, usize)]) -> Outputs {
    let mut outputs = Vec::new();
    for &(len, head_dim) in shapes {
        for rope in [false, true] {
            let [sequences, heads] = lab.sizes([2, 2]);
            outputs.extend(attend(lab, AttentionShape { sequences, len, heads, head_dim }, rope));
        }
    }
    outputs
}

/// The product that makes q, k and v, and attention; q and k turn in the product where the device says so.
pub(super) fn attend_after_product<D: Device>(lab: &mut Lab<D>, shape: AttentionShape, n_in: usize) -> Outputs {
    let (rows, triple) = (shape.sequences * shape.len, 3 * shape.width());
    let (mut params, _, [weight]) = lab.weights([(triple, n_in, Usage::Rows)]);
    let scale = D::T::from_f64(1.0 / (n_in as f64).sqrt());
    params.update(|values| values.iter_mut().for_each(|value| *value *= scale));
    let (x, qkv) = (lab.random(rows * n_in), lab.zeros(rows * triple));
    if lab.device.fuses_rope(&params, weight, &shape, &[x, qkv]) {
        lab.device.linear_rope(&params, weight, &shape, x, qkv);
        return attend_to(lab, shape, Rope::InProduct, qkv);
    }
    lab.device.linear(&params, weight, x, qkv, None);
    attend_to(lab, shape, Rope::InAttention, qkv)
}

fn attend_to<D: Device>(lab: &mut Lab<D>, shape: AttentionShape, rope: Rope, qkv: Block) -> Outputs {
    let (rows, width, precision) = (shape.sequences * shape.len, shape.width(), lab.precision);
    let d_out = lab.random(rows * width);
    let (out, lse, d_qkv) = (lab.zeros(rows * width), lab.factors(rows * shape.heads), lab.zeros(3 * rows * width));
    lab.device.attention(precision, &shape, rope, qkv, out, lse);
    lab.device.attention_backward(precision, &shape, rope, qkv, out, lse, d_out, d_qkv);
    lab.read(&[out, d_qkv])
}

/// A SwiGLU forward, with and without residual and norm, and backward.
pub(super) fn both_ways<D: Device>(
    lab: &mut Lab<D>,
    params: Params<D>,
    mut grads: Grads<D>,
    swiglu: SwiGlu,
    size: usize,
    factors: usize,
) -> Outputs {
    let (x, h, dy, dx) = (lab.random(size), lab.random(size), lab.random(size), lab.random(size));
    let (y, normed, inv_rms) = (lab.zeros(size), lab.zeros(size), lab.factors(factors));
    let len = lab.device.swiglu_saved_len(&params, swiglu, size);
    let saved = lab.device.alloc(len, Store::Activation);
    lab.device.swiglu(&params, swiglu, x, Some(saved), y, None);
    lab.device.swiglu(&params, swiglu, x, None, normed, Some(NormEpilogue::new(h, inv_rms)));
    let (own, own_inv_rms) = (lab.zeros(size), lab.factors(factors));
    lab.device.swiglu(&params, swiglu, x, None, own, Some(NormEpilogue::new(x, own_inv_rms)));
    lab.device.swiglu_backward(&params, &mut grads, swiglu, dy, saved, x, Some(InputGrad::added_to(dx)));
    let mut through = Vec::new();
    if swiglu.over == Over::Features {
        through = through_norm(lab, &params, &[swiglu.gate_up, swiglu.down], [dy, x], |device, dx| {
            device.swiglu_backward(&params, &mut grads, swiglu, dy, saved, x, Some(dx));
        });
    } else {
        let (base, to) = (lab.random(size), lab.random(size));
        let dx = InputGrad { to, base: Some(base), norm: None };
        lab.device.swiglu_backward(&params, &mut grads, swiglu, dy, saved, x, Some(dx));
        through.extend(lab.read(&[to]));
    }
    lab.device.swiglu_backward(&params, &mut grads, swiglu, y, saved, x, None);
    lab.device.finish_weight_grads(&params, &mut grads);
    [lab.read(&[y, normed, inv_rms, own, own_inv_rms, dx]), through, vec![gradients(&grads)]].concat()
}

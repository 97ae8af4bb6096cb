//! The ways of a SwiGLU: over features on tensor cores, over positions in fused kernels, and plain.

use arrayvec::ArrayVec;

use super::{Cuda, CudaScalar, master};
use crate::cuda::{Backend, PlainProduct, Rows, View};
use crate::device::{Block, Device as _, Grads, InputGrad, NormEpilogue, Over, Params, Store, SwiGlu};

/// Sizes of a SwiGLU on a block.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Sequences, or 1 for a SwiGLU over features.
    pub pieces: usize,
    /// Rows, or columns of a sequence.
    pub vectors: usize,
    pub inner: usize,
    pub n_in: usize,
    pub n_out: usize,
}

impl Sizes {
    pub fn of<T: CudaScalar, B: Backend>(params: &Params<Cuda<T, B>>, swiglu: SwiGlu, len: usize) -> Self {
        let ((double, n_in), (n_out, inner)) = (params.shape(swiglu.gate_up), params.shape(swiglu.down));
        assert_eq!(double, 2 * inner, "the projections of one SwiGLU");
        let (pieces, vectors) = swiglu.pieces(len);
        Self { pieces, vectors, inner, n_in, n_out }
    }

    /// Gates and ups together.
    pub fn gate_up_len(self) -> usize {
        self.pieces * self.vectors * 2 * self.inner
    }

    fn hidden_len(self) -> usize {
        self.pieces * self.vectors * self.inner
    }

    /// Elements in a row of gates before the ups begin.
    fn stretch(self, over: Over) -> usize {
        if over == Over::Features { self.inner } else { self.inner * self.vectors }
    }
}

/// Distances of `[pieces, vectors or rows, …]`: a vector is a row of a piece over features, a column over positions.
/// `[vector, element, piece]` for vectors of `len` elements.
fn distances(over: Over, sizes: Sizes, len: usize) -> [usize; 3] {
    match over {
        Over::Features => [len, 1, 0],
        Over::Positions(_) => [1, sizes.vectors, len * sizes.vectors],
    }
}

impl<T: CudaScalar, B: Backend> Cuda<T, B> {
    /// Whether the fused kernels take this SwiGLU over positions: its two weights are neighbours in the layout, and sizes fit.
    pub(super) fn mixes(&self, params: &Params<Self>, swiglu: SwiGlu, blocks: &[Block]) -> bool {
        let (len, inner) = params.shape(swiglu.down);
        matches!(swiglu.over, Over::Positions(_))
            && self.on_tensor_cores(blocks, &[swiglu.width])
            && self.queue.mix_packed_bytes(len, swiglu.width, inner).is_some()
    }

    /// Whether tensor cores take this SwiGLU over features.
    pub(super) fn gates_on_tensor_cores(&self, params: &Params<Self>, swiglu: SwiGlu, blocks: &[Block]) -> bool {
        swiglu.over == Over::Features
            && self.on_tensor_cores(blocks, &[])
            && params.weights[swiglu.gate_up.index()].packed().is_some()
            && params.weights[swiglu.down.index()].packed_down().is_some()
    }

    pub(super) fn mix_rows(swiglu: SwiGlu, len: usize) -> Rows {
        let Over::Positions(positions) = swiglu.over else { unreachable!("over positions") };
        Rows { sequences: len / (positions * swiglu.width), len: positions, width: swiglu.width }
    }

    /// Over features, on tensor cores.
    pub(super) fn swiglu_on_tensor_cores(
        &mut self,
        params: &Params<Self>,
        swiglu: SwiGlu,
        x: Block,
        saved: Option<Block>,
        y: Block,
        epilogue: Option<NormEpilogue>,
    ) {
        let sizes = Sizes::of(params, swiglu, x.len());
        let hidden = self.alloc(sizes.hidden_len(), Store::Activation);
        let [gate_up, _] = params.weights[swiglu.gate_up.index()].packed().expect("asked before");
        let kept = saved.map(|saved| self.view(saved));
        self.queue.swiglu_bf16(self.view(x), gate_up, self.view(hidden), kept, (sizes.inner, sizes.n_in));
        self.linear(params, swiglu.down, hidden, y, epilogue);
        self.release(hidden);
    }

    /// `y ← rmsnorm(h + x wᵀ)` on tensor cores, and the sum that begins with it; w is `[n, k]`.
    pub(super) fn linear_add_rmsnorm(
        &self,
        x: Block,
        w: View<'_>,
        y: Block,
        NormEpilogue { h, inv_rms, sum }: NormEpilogue,
        sizes: (usize, usize),
    ) {
        let added: ArrayVec<View<'_>, 2> =
            sum.iter().flat_map(|sum| [Some(sum.added), sum.then]).flatten().map(|block| self.view(block)).collect();
        let keeps_y = sum.is_none_or(|sum| sum.out != y);
        let made = (keeps_y.then(|| self.view(y)), self.view(inv_rms));
        let sum = sum.map(|sum| (&added[..], self.view(sum.out)));
        self.queue.linear_add_rmsnorm_bf16(self.view(x), w, self.view(h), made, sum, sizes);
    }

    /// The gradient of [`Cuda::swiglu_on_tensor_cores`].
    #[allow(clippy::too_many_arguments)]
    pub(super) fn swiglu_backward_on_tensor_cores(
        &mut self,
        params: &Params<Self>,
        grads: &mut Grads<Self>,
        swiglu: SwiGlu,
        dy: Block,
        kept: Block,
        x: Block,
        dx: Option<InputGrad>,
    ) {
        let sizes = Sizes::of(params, swiglu, x.len());
        let Sizes { inner, n_in, n_out, .. } = sizes;
        let hidden = self.alloc(sizes.hidden_len(), Store::Activation);
        let d_gu = self.alloc(sizes.gate_up_len(), Store::Activation);
        let [_, down_t] = params.weights[swiglu.down.index()].packed_down().expect("asked before");
        let gate_up_t = params.weights[swiglu.gate_up.index()].transposed().expect("asked before");
        let made = (self.view(d_gu), self.view(hidden));
        self.queue.swiglu_backward_bf16(self.view(dy), down_t, self.view(kept), made, (inner, n_out));
        if let Some(dx) = dx {
            self.input_grad(d_gu, gate_up_t, dx, (n_in, 2 * inner));
        }
        let gate_up = self.sums(grads, swiglu.gate_up);
        self.queue.weight_grad_bf16(self.view(d_gu), self.view(x), gate_up, true, (2 * inner, n_in));
        let down = self.sums(grads, swiglu.down);
        self.queue.weight_grad_bf16(self.view(dy), self.view(hidden), down, false, (n_out, inner));
        self.release(hidden);
        self.release(d_gu);
    }

    /// `dx ← base + dy wᵀ` on tensor cores, and on through the norm that made x; w is transposed, `[n, k]`.
    pub(super) fn input_grad(&self, dy: Block, w: View<'_>, dx: InputGrad, (n, k): (usize, usize)) {
        let (dy, to, base) = (self.view(dy), self.view(dx.to), dx.base.map(|base| self.view(base)));
        match (dx.norm.map(|norm| (self.view(norm.y), self.view(norm.inv_rms))), base) {
            (Some(norm), Some(base)) => self.queue.linear_rmsnorm_backward_bf16(dy, w, base, norm, to, (n, k)),
            (norm, base) => {
                self.queue.linear_bf16(dy, w, base, to, (n, k));
                if let Some((y, inv_rms)) = norm {
                    let rows = Rows { sequences: 1, len: inv_rms.len(), width: n };
                    self.queue.rmsnorm_backward(false, rows, y, inv_rms, to);
                }
            }
        }
    }

    /// Either axis, plain; gates and ups are kept in `gu`.
    pub(super) fn swiglu_plain(&mut self, params: &Params<Self>, swiglu: SwiGlu, x: Block, gu: Block, y: Block) {
        let sizes = Sizes::of(params, swiglu, x.len());
        let hidden = self.alloc(sizes.hidden_len(), Store::Activation);
        let (gate_up, down) = (master(params, swiglu.gate_up), master(params, swiglu.down));
        self.apply(swiglu.over, sizes, gate_up, self.view(x), self.view(gu), [2 * sizes.inner, sizes.n_in], false);
        self.queue.swiglu_hidden(self.view(gu), self.view(hidden), sizes.stretch(swiglu.over));
        self.apply(swiglu.over, sizes, down, self.view(hidden), self.view(y), [sizes.n_out, sizes.inner], false);
        self.release(hidden);
    }

    /// The gradient of [`Cuda::swiglu_plain`].
    #[allow(clippy::too_many_arguments)]
    pub(super) fn swiglu_backward_plain(
        &mut self,
        params: &Params<Self>,
        grads: &mut Grads<Self>,
        swiglu: SwiGlu,
        dy: Block,
        gu: Block,
        x: Block,
        dx: Option<Block>,
    ) {
        let sizes = Sizes::of(params, swiglu, x.len());
        let (over, inner) = (swiglu.over, sizes.inner);
        let hidden = self.alloc(sizes.hidden_len(), Store::Activation);
        let d = self.alloc(sizes.hidden_len(), Store::Activation);
        let d_gu = self.alloc(sizes.gate_up_len(), Store::Activation);
        let (gate_up, down) = (master(params, swiglu.gate_up), master(params, swiglu.down));
        self.queue.swiglu_hidden(self.view(gu), self.view(hidden), sizes.stretch(over));
        self.apply_transposed(over, sizes, down, self.view(dy), self.view(d), [sizes.n_out, inner], false);
        self.queue.swiglu_hidden_backward(self.view(gu), self.view(d), self.view(d_gu), sizes.stretch(over));
        if let Some(dx) = dx {
            self.apply_transposed(over, sizes, gate_up, self.view(d_gu), self.view(dx), [2 * inner, sizes.n_in], true);
        }
        let shape = [2 * inner, sizes.n_in];
        self.add_weight_grad(over, sizes, (grads, swiglu.gate_up), self.view(d_gu), self.view(x), shape);
        let shape = [sizes.n_out, inner];
        self.add_weight_grad(over, sizes, (grads, swiglu.down), self.view(dy), self.view(hidden), shape);
        for block in [hidden, d, d_gu] {
            self.release(block);
        }
    }

    /// `y ← W x` for each vector of x; W is `[n_out, n_in]`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn apply(
        &self,
        over: Over,
        sizes: Sizes,
        w: View<'_>,
        x: View<'_>,
        y: View<'_>,
        [n_out, n_in]: [usize; 2],
        accumulate: bool,
    ) {
        let weight = (w, [n_in, 1, 0, 0]);
        self.map(over, sizes, weight, (x, n_in), (y, n_out), accumulate);
    }

    /// `x ← Wᵀ y` for each vector of y, or `x ← x + Wᵀ y`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn apply_transposed(
        &self,
        over: Over,
        sizes: Sizes,
        w: View<'_>,
        y: View<'_>,
        x: View<'_>,
        [n_out, n_in]: [usize; 2],
        accumulate: bool,
    ) {
        let weight = (w, [1, n_in, 0, 0]);
        self.map(over, sizes, weight, (y, n_out), (x, n_in), accumulate);
    }

    /// A matrix, whose distances of rows and columns are given, applied to each vector.
    fn map(
        &self,
        over: Over,
        sizes: Sizes,
        (w, w_distances): (View<'_>, [usize; 4]),
        (x, n_in): (View<'_>, usize),
        (y, n_out): (View<'_>, usize),
        accumulate: bool,
    ) {
        let [x_vector, x_element, x_piece] = distances(over, sizes, n_in);
        let [y_vector, y_element, y_piece] = distances(over, sizes, n_out);
        self.queue.product(&PlainProduct {
            a: (w, w_distances),
            b: (x, [x_element, x_vector, x_piece, 0]),
            c: (y, [y_element, y_vector, y_piece, 0]),
            sizes: [n_out, sizes.vectors, n_in],
            batch: sizes.pieces,
            parts: 1,
            last: (n_in, 1),
            accumulate,
        });
    }

    /// `dW ← dW + Σ vectors dy xᵀ`, slice by slice.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn add_weight_grad(
        &self,
        over: Over,
        sizes: Sizes,
        (grads, weight): (&Grads<Self>, crate::device::ParamId),
        dy: View<'_>,
        x: View<'_>,
        [n_out, n_in]: [usize; 2],
    ) {
        let sums = self.sums(grads, weight);
        let (slices, per_slice, in_last) = sums.slices();
        let (to, stride) = sums.arrays();
        let [y_vector, y_element, y_piece] = distances(over, sizes, n_out);
        let [x_vector, x_element, x_piece] = distances(over, sizes, n_in);
        // Over features, a slice is a stretch of rows; over positions, it is a few sequences, whose products are summed.
        let per_sequence = sizes.vectors / sums.sequences();
        let (k, parts, last, y_slice, x_slice) = match over {
            Over::Features => {
                let rows = per_slice * per_sequence;
                (rows, 1, (in_last * per_sequence, 1), rows * n_out, rows * n_in)
            }
            Over::Positions(_) if sums.sequences() == 1 => {
                (sizes.vectors, sizes.pieces, (sizes.vectors, sizes.pieces), 0, 0)
            }
            Over::Positions(_) => {
                (sizes.vectors, per_slice, (sizes.vectors, in_last), per_slice * y_piece, per_slice * x_piece)
            }
        };
        self.queue.product(&PlainProduct {
            a: (dy, [y_element, y_vector, y_slice, y_piece]),
            b: (x, [x_vector, x_element, x_slice, x_piece]),
            c: (to, [n_in, 1, stride, 0]),
            sizes: [n_out, n_in, k],
            batch: slices,
            parts,
            last,
            accumulate: true,
        });
    }
}

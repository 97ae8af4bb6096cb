//! SwiGLU over the columns of several sequences, which threads may share.

use arrayvec::ArrayVec;

use super::super::{Block, Device as _, Grads, NormEpilogue, ParamId, Params, Real, SwiGlu};
use super::deferred::Use;
use super::{AddRmsNorm, Cpu, SwigluOperands};
use crate::simd;

/// Sequences whose operands are packed at a time: a whole shard.
const AT_ONCE: usize = 4;

/// One sequence on its way back.
struct Sequence<'a, T> {
    reads: [&'a [T]; 3],
    operands: Option<SwigluOperands<'a, T>>,
    dx: Option<&'a mut [T]>,
}

/// Sequence `i` of `count`.
fn nth<T>(values: &[T], i: usize, count: usize) -> &[T] {
    &values[values.len() / count * i..][..values.len() / count]
}

impl<T: Real> Cpu<T> {
    /// Multiplications of a forward pass over one row or column.
    fn multiplications(params: &Params<Self>, swiglu: SwiGlu) -> usize {
        let ((double, width), (out, inner)) = (params.shape(swiglu.gate_up), params.shape(swiglu.down));
        double * width + out * inner
    }

    /// The forward pass, piece by piece: all rows, or the columns of each sequence.
    pub(super) fn swiglu_pieces(
        &mut self,
        params: &Params<Self>,
        swiglu: SwiGlu,
        x: Block,
        saved: Option<Block>,
        y: Block,
        epilogue: Option<NormEpilogue>,
    ) {
        let (gate_up, down) = (self.weight(params, swiglu.gate_up), self.weight(params, swiglu.down));
        let ((count, vectors), threads) = (swiglu.pieces(x.len()), self.team.size());
        let (h, inv_rms) = epilogue.map_or((x, Block::default()), |then| (then.h, then.inv_rms));
        let writes = [saved.unwrap_or_default(), y, inv_rms];
        // What is saved for a backward pass is of the usual format.
        let is_int8 = self.is_int8(params) && saved.is_none();
        let ([x, h], writes) = self.memory.split([x, h], writes);
        let work = vectors * Self::multiplications(params, swiglu);
        let threads_each = threads.div_ceil(count.max(1));
        simd::share_items((count, work), threads, [x, h], writes, |part, [x, h], [kept, y, inv_rms]| {
            let count = part.len();
            let mut pieces = [kept, y, inv_rms].map(|array| (array.len() / count, array));
            for i in 0..count {
                let [kept, y, inv_rms] = pieces.each_mut().map(|(len, rest)| {
                    let (piece, behind) = std::mem::take(rest).split_at_mut(*len);
                    *rest = behind;
                    piece
                });
                let epilogue = epilogue.map(|_| AddRmsNorm { h: nth(h, i, count), inv_rms });
                let (x, kept) = (nth(x, i, count), saved.map(|_| kept));
                if is_int8 {
                    simd::swiglu_int8(gate_up, down, x, y, epilogue, threads_each);
                } else {
                    simd::swiglu(gate_up, down, x, kept, y, epilogue, threads_each);
                }
            }
        });
    }

    /// The backward pass over the columns of each sequence. Uses of the weights are deferred in the order of the sequences.
    pub(super) fn swiglu_columns_backward(
        &mut self,
        params: &Params<Self>,
        grads: &mut Grads<Self>,
        swiglu: SwiGlu,
        [dy, saved, x]: [Block; 3],
        dx: Option<Block>,
    ) {
        let ((count, vectors), threads) = (swiglu.pieces(x.len()), self.team.size());
        let work = 2 * vectors * Self::multiplications(params, swiglu);
        for first in (0..count).step_by(AT_ONCE) {
            let sequences = AT_ONCE.min(count - first);
            let new_use = |cpu: &mut Self, weight: ParamId| cpu.new_use(params, weight, vectors);
            let uses: ArrayVec<[Use; 2], AT_ONCE> =
                (0..sequences).map(|_| [new_use(self, swiglu.down), new_use(self, swiglu.gate_up)]).collect();
            let mut writes = [Block::default(); 5 * AT_ONCE];
            for (i, ([down, gate_up], writes)) in uses.iter().zip(writes.chunks_exact_mut(5)).enumerate() {
                let dx = dx.map_or(Block::default(), |dx| dx.nth(first + i, count));
                let ([a, b], [c, d]) = (down.operands, gate_up.operands);
                writes.copy_from_slice(&[a, b, c, d, dx]);
            }
            let weights = (self.weight(params, swiglu.gate_up), self.weight(params, swiglu.down));
            let (reads, writes) = self.memory.split([dy, saved, x], writes);
            let mut writes = writes.into_iter();
            let mut sequences: ArrayVec<Sequence<'_, T>, AT_ONCE> = (first..first + sequences)
                .map(|i| {
                    let mut next = || writes.next().expect("five arrays for each sequence");
                    let operands = SwigluOperands { down: [next(), next()], gate_up: [next(), next()] };
                    let to = next();
                    let reads = reads.map(|array| nth(array, i, count));
                    Sequence { reads, operands: Some(operands), dx: dx.map(|_| to) }
                })
                .collect();
            drop(writes);
            simd::each_item(&mut sequences, work, threads, &|sequence| {
                let ([dy, saved, x], dx) = (sequence.reads, sequence.dx.as_deref_mut());
                if let Some(operands) = sequence.operands.take() {
                    simd::swiglu_backward(weights, (dy, saved, x), operands, dx, 1);
                }
            });
            drop(sequences);
            for [down, gate_up] in uses {
                self.defer(params, grads, down);
                self.defer(params, grads, gate_up);
            }
        }
    }
}

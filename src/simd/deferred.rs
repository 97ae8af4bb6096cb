//! Deferred weight gradients: the gradient of a weight that a recursion uses several times, as one tall GEMM instead of a
//! thin one for each use.
//!
//! Each use packs its operands when its backward pass has just written them ([`pack_deferred`], or
//! [`swiglu_backward`](super::swiglu_backward) does); at the end [`add_deferred`] runs all of them over one block of the
//! gradient after the other, so that the gradient itself (28 MB for the published model) goes through the cache once and not
//! once per use.

use super::Real;
use super::format::{Format, Precision, in_format};
use super::gemm::{LeftTiles, multiply_panels};
use super::isa::isa;
use super::pack::{Strided, Tiles, pack_panels, pack_tiles, padded};
use super::shared::Shared;
use super::split::{TILE, each_part, worthwhile};
use super::transpose::add_transposed;
use super::vector::{Kernel, Simd, dispatch_on, is_streamed};

/// Tiles a block of the gradient is high.
const BLOCK_TILES: usize = 16;
/// The same on tile registers, of processors with 2 MiB of L2: a block twice as high needs two thirds of the operands'
/// bandwidth.
const BLOCK_REGISTER_TILES: usize = 12;
/// Columns a block of the gradient is wide: 192 × 512 elements, 384 KiB, stay in L2.
const BLOCK_COLUMNS: usize = 512;

/// The packed operands of one use of a weight, whose gradient is `leftᵀ right` summed over `rows` rows.
///
/// Of a weight `[out, in]`, left is the output gradient dy `[rows, out]` and right the input x `[rows, in]`. Of a gate and up
/// projection the gradient is computed transposed, so that the gradients of gates and ups are right operands, which are
/// packed as rows as they come: left is x, right the gradients of the gates, then those of the ups.
#[derive(Clone, Copy, Debug)]
pub struct DeferredGrad<'a, T> {
    /// Rows of both operands before they were packed.
    pub rows: usize,
    /// Packed dy, or x of a gate and up projection.
    pub left: &'a [T],
    /// Packed x, or the gradients of gates and ups.
    pub right: &'a [T],
}

/// Elements of the packed operands (left, right) of a weight `[out, in]` on `rows` rows.
pub fn deferred_len<T: Real>(precision: Precision, (n_out, n_in): (usize, usize), rows: usize) -> (usize, usize) {
    dispatch_on::<T, _>(isa(), OperandLens { precision, n_out, n_in, rows })
}

/// As [`deferred_len`], of a gate and up projection `[2·inner, in]`.
pub fn deferred_gate_up_len<T: Real>(
    precision: Precision,
    (double, n_in): (usize, usize),
    rows: usize,
) -> (usize, usize) {
    let (left, half) = deferred_len::<T>(precision, (n_in, double / 2), rows);
    (left, 2 * half)
}

/// Packs dy `[rows, out]` and x `[rows, in]` of one use of a weight `[out, in]` into `left` and `right`, of [`deferred_len`].
pub fn pack_deferred<T: Real>(
    precision: Precision,
    (n_out, n_in): (usize, usize),
    (dy, x): (&[T], &[T]),
    (left, right): (&mut [T], &mut [T]),
) {
    let rows = dy.len() / n_out;
    assert!(dy.len() == rows * n_out && x.len() == rows * n_in, "operand shapes");
    T::pack_operands(isa(), PackOperands { precision, n_out, n_in, rows, dy, x, left, right });
}

/// `dw ← dw + Σ dyᵀ x` over the uses `0..count`, in order; dw is `[out, in]`. So many threads of the pool that this runs in
/// share the rows of dw (`parts` 1: the caller does all); the result is the same for any number.
pub fn add_deferred<'a, T: Real>(
    precision: Precision,
    (n_out, n_in): (usize, usize),
    count: usize,
    uses: impl Fn(usize) -> DeferredGrad<'a, T> + Sync,
    dw: &mut [T],
    parts: usize,
) {
    assert_eq!(dw.len(), n_out * n_in, "weight gradient shape");
    sum_uses(SumUses { precision, n_out, n_in, count, uses: &uses, accumulate: true, dw: &Shared::new(dw) }, parts);
}

/// In up to so many parts.
fn sum_uses<T: Real>(sum: SumUses<'_, '_, T>, parts: usize) {
    let rows: usize = (0..sum.count).map(|i| (sum.uses)(i).rows).sum();
    let (isa, parts) = (isa(), worthwhile(parts, sum.n_out, TILE, sum.n_in * rows));
    each_part(parts, &|part| T::sum_part(isa, SumPart { sum, part: (part, parts) }));
}

/// [`add_deferred`] of a gate and up projection `[2·inner, in]`; `transposed` is scratch for half of the weight.
pub fn add_deferred_gate_up<'a, T: Real>(
    precision: Precision,
    (double, n_in): (usize, usize),
    count: usize,
    uses: impl Fn(usize) -> DeferredGrad<'a, T> + Sync,
    transposed: &mut [T],
    dw: &mut [T],
    parts: usize,
) {
    let inner = double / 2;
    assert!(dw.len() == double * n_in && transposed.len() == inner * n_in, "weight gradient shape");
    if count == 0 {
        return;
    }
    for (half, dw) in dw.chunks_exact_mut(inner * n_in).enumerate() {
        let uses = |i: usize| {
            let DeferredGrad { rows, left, right } = uses(i);
            DeferredGrad { rows, left, right: &right[half * right.len() / 2..][..right.len() / 2] }
        };
        let to = &Shared::new(&mut *transposed);
        let sum = SumUses { precision, n_out: n_in, n_in: inner, count, uses: &uses, accumulate: false, dw: to };
        sum_uses(sum, parts);
        add_transposed(transposed, (n_in, inner), dw, parts);
    }
}

/// `dw ← dw + dyᵀ x` of one use, at once; dy and x are rounded to the precision: dy is `[m, out]`, x `[m, in]`, dw
/// `[out, in]`.
pub fn add_weight_grad<T: Real>(precision: Precision, (n_out, n_in): (usize, usize), dy: &[T], x: &[T], dw: &mut [T]) {
    let m = dy.len() / n_out;
    assert!(dy.len() == m * n_out && x.len() == m * n_in && dw.len() == n_out * n_in, "weight gradient shapes");
    let Some(library) = T::LIBRARY_GEMM else {
        return T::with_scratch(|scratch| {
            let (left_len, right_len) = deferred_len::<T>(precision, (n_out, n_in), m);
            let left = &mut scratch.left.at_least(left_len)[..left_len];
            let right = &mut scratch.right.at_least(right_len)[..right_len];
            pack_deferred(precision, (n_out, n_in), (dy, x), (left, right));
            let (left, right) = (&*left, &*right);
            add_deferred(precision, (n_out, n_in), 1, |_| DeferredGrad { rows: m, left, right }, dw, 1);
        });
    };
    let (rows, columns) = (n_out as isize, n_in as isize);
    let (a, b, c) = (dy.as_ptr(), x.as_ptr(), dw.as_mut_ptr());
    // SAFETY: the slices were checked to be the three matrices these shapes and strides describe; `dw` is exclusive.
    unsafe { library(n_out, m, n_in, T::ONE, a, 1, rows, b, columns, 1, T::ONE, c, columns, 1) }
}

struct OperandLens {
    precision: Precision,
    n_out: usize,
    n_in: usize,
    rows: usize,
}

impl<T: Real> Kernel<T> for OperandLens {
    type Output = (usize, usize);
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, _: S) -> (usize, usize) {
        let depth = self.rows.div_ceil(self.precision.steps::<S>());
        (depth * self.n_out, depth * padded::<S>(self.n_in))
    }
}

pub struct PackOperands<'a, T> {
    precision: Precision,
    n_out: usize,
    n_in: usize,
    rows: usize,
    dy: &'a [T],
    x: &'a [T],
    left: &'a mut [T],
    right: &'a mut [T],
}

impl<T: Real> Kernel<T> for PackOperands<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, self.pack(s))
    }
}

impl<T: Real> PackOperands<'_, T> {
    #[inline(always)]
    fn pack<S: Simd<T = T>, F: Format<S>>(self, s: S) {
        let steps = (0, self.rows);
        let tiles = Tiles::new(self.n_out, F::TILE_ROWS);
        let (dy, x) = (Strided::columns(self.dy, self.n_out), Strided::columns(self.x, self.n_in));
        pack_tiles::<S, F>(s, dy, (tiles, 0, tiles.count), steps, self.left);
        if is_streamed(self.right) {
            pack_panels::<S, F, true>(s, x, (0, self.n_in), steps, self.right);
        } else {
            pack_panels::<S, F, false>(s, x, (0, self.n_in), steps, self.right);
        }
        s.fence();
    }
}

pub struct SumUses<'s, 'a, T> {
    precision: Precision,
    n_out: usize,
    n_in: usize,
    count: usize,
    uses: &'s (dyn Fn(usize) -> DeferredGrad<'a, T> + Sync),
    /// Whether the first use is added to the gradient or overwrites it.
    accumulate: bool,
    dw: &'s Shared<'s, T>,
}

impl<T> Clone for SumUses<'_, '_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for SumUses<'_, '_, T> {}

/// One part of so many of the gradient's rows.
pub struct SumPart<'s, 'a, T> {
    sum: SumUses<'s, 'a, T>,
    part: (usize, usize),
}

impl<T: Real> Kernel<T> for SumPart<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.sum.precision, S, self.add(s))
    }
}

impl<T: Real> SumPart<'_, '_, T> {
    #[inline(always)]
    fn add<S: Simd<T = T>, F: Format<S>>(self, s: S) {
        let Self { sum, part: (part, parts) } = self;
        let n_in = sum.n_in;
        let tiles = Tiles::new(sum.n_out, F::TILE_ROWS);
        let [begin, end] = [part, part + 1].map(|part| tiles.count * part / parts);
        // SAFETY: the rows of this part alone.
        let dw = unsafe { sum.dw.slice(tiles.start(begin) * n_in..tiles.start(end) * n_in) };
        let limit = if F::ROW_UNITS > 1 { BLOCK_REGISTER_TILES } else { BLOCK_TILES };
        let blocks = Tiles::new(end - begin, limit);
        for block in (0..blocks.count).take(end - begin) {
            let (first, last) = (begin + blocks.start(block), begin + blocks.start(block + 1));
            let row = tiles.start(first);
            for start in (0..n_in).step_by(BLOCK_COLUMNS) {
                let end = n_in.min(start + BLOCK_COLUMNS);
                for i in 0..sum.count {
                    let DeferredGrad { rows, left, right } = (sum.uses)(i);
                    let depth = rows.div_ceil(F::STEPS);
                    let left = LeftTiles::some((tiles, first, last), depth, &left[depth * row..]);
                    let (right, out) = (&right[depth * start..], &mut dw[(row - tiles.start(begin)) * n_in + start..]);
                    let accumulate = sum.accumulate || i > 0;
                    let to = (out, n_in);
                    multiply_panels::<S, F>(s, left, (right, depth, 0), end - start, T::ONE, accumulate, to);
                }
            }
        }
    }
}

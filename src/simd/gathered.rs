//! The gradient of a weight that was used several times in a recursion: one tall product instead of a thin one for each
//! use.
//!
//! Each use packs its operands when its backward pass has just written them ([`gather_rows`]); at the end
//! [`weight_grad_gathered`] runs all of them over one block of the gradient after the other, so that the gradient itself
//! (28 MB for the published model) goes through the cache once and not once per use.

use super::Real;
use super::elementwise::add_transposed;
use super::gemm::{LeftTiles, multiply_panels};
use super::isa::isa;
use super::pack::{Precision, Strided, Tiles, in_format, pack_panels, pack_tiles, padded, per_unit};
use super::vector::{Kernel, Simd, dispatch_on, past_caches};

/// Tiles a block of the gradient is high.
const BLOCK_TILES: usize = 16;
/// Columns a block of the gradient is wide: 192 × 512 numbers, 384 KiB, stay in L2.
const BLOCK_COLUMNS: usize = 512;

/// Operands of one use of a weight `[out, in]` on `rows` rows, packed by [`gather_rows`].
#[derive(Clone, Copy, Debug)]
pub struct Gathered<'a, T> {
    pub rows: usize,
    pub scale: T,
    pub dy: &'a [T],
    pub x: &'a [T],
}

/// Elements of the two packed operands of a weight `[out, in]` on `rows` rows.
pub fn gathered_len<T: Real>(precision: Precision, (n_out, n_in): (usize, usize), rows: usize) -> (usize, usize) {
    dispatch_on::<T, _>(isa(), Len { precision, n_out, n_in, rows })
}

/// Packs dy `[rows, out]` and x `[rows, in]` into buffers of [`gathered_len`].
pub fn gather_rows<T: Real>(
    precision: Precision,
    (n_out, n_in): (usize, usize),
    (dy, x): (&[T], &[T]),
    (packed_dy, packed_x): (&mut [T], &mut [T]),
) {
    let rows = dy.len() / n_out;
    assert!(dy.len() == rows * n_out && x.len() == rows * n_in, "operand shapes");
    dispatch_on(isa(), Pack { precision, n_out, n_in, rows, dy, x, packed_dy, packed_x });
}

/// `dw ← dw + Σ scale · dyᵀ x` over the uses `0..count`, in order; dw is `[out, in]`.
pub fn weight_grad_gathered<'a, T: Real>(
    precision: Precision,
    (n_out, n_in): (usize, usize),
    count: usize,
    gathered: impl Fn(usize) -> Gathered<'a, T>,
    dw: &mut [T],
) {
    assert_eq!(dw.len(), n_out * n_in, "weight gradient shape");
    dispatch_on(isa(), Sum { precision, n_out, n_in, count, gathered, accumulate: true, dw });
}

/// As [`gathered_len`], of a gate and up projection `[2·inner, in]`: its gradient is computed transposed, gates and ups
/// apart, so that the gradients of g and u are right operands, which are rows as they come. The operands of each half are
/// those of a weight `[in, inner]`: `dy` of a [`Gathered`] is x, and `x` the gradients of g, then those of u.
pub fn gathered_gate_up_len<T: Real>(
    precision: Precision,
    (double, n_in): (usize, usize),
    rows: usize,
) -> (usize, usize) {
    let (x, half) = gathered_len::<T>(precision, (n_in, double / 2), rows);
    (x, 2 * half)
}

/// [`weight_grad_gathered`] of a gate and up projection `[2·inner, in]` from operands of [`gathered_gate_up_len`];
/// `turned` is scratch for half of the weight.
pub fn gate_up_grad_gathered<'a, T: Real>(
    precision: Precision,
    (double, n_in): (usize, usize),
    count: usize,
    gathered: impl Fn(usize) -> Gathered<'a, T>,
    turned: &mut [T],
    dw: &mut [T],
) {
    let inner = double / 2;
    assert!(dw.len() == double * n_in && turned.len() == inner * n_in, "weight gradient shape");
    if count == 0 {
        return;
    }
    for (half, dw) in dw.chunks_exact_mut(inner * n_in).enumerate() {
        let gathered = |i: usize| {
            let Gathered { rows, scale, dy, x } = gathered(i);
            Gathered { rows, scale, dy, x: &x[half * x.len() / 2..][..x.len() / 2] }
        };
        let dw_turned = &mut *turned;
        let sum = Sum { precision, n_out: n_in, n_in: inner, count, gathered, accumulate: false, dw: dw_turned };
        dispatch_on(isa(), sum);
        add_transposed(turned, (n_in, inner), dw);
    }
}

/// `dw ← dw + scale · dyᵀ x` of one use, dy and x rounded to the precision: dy is `[m, out]`, x `[m, in]`, dw `[out, in]`.
pub fn weight_grad_rows<T: Real>(
    precision: Precision,
    (n_out, n_in): (usize, usize),
    scale: T,
    dy: &[T],
    x: &[T],
    dw: &mut [T],
) {
    let m = dy.len() / n_out;
    assert!(dy.len() == m * n_out && x.len() == m * n_in && dw.len() == n_out * n_in, "weight gradient shapes");
    let Some(library) = T::LIBRARY_GEMM else {
        return T::with_scratch(|scratch| {
            let (dy_len, x_len) = gathered_len::<T>(precision, (n_out, n_in), m);
            let packed_dy = &mut scratch.left.at_least(dy_len)[..dy_len];
            let packed_x = &mut scratch.right.at_least(x_len)[..x_len];
            gather_rows(precision, (n_out, n_in), (dy, x), (packed_dy, packed_x));
            let gathered = |_| Gathered { rows: m, scale, dy: packed_dy, x: packed_x };
            weight_grad_gathered(precision, (n_out, n_in), 1, gathered, dw);
        });
    };
    let (rows, columns) = (n_out as isize, n_in as isize);
    let (a, b, c) = (dy.as_ptr(), x.as_ptr(), dw.as_mut_ptr());
    // SAFETY: the slices were checked to be the three matrices these shapes and strides describe; `dw` is exclusive.
    unsafe { library(n_out, m, n_in, scale, a, 1, rows, b, columns, 1, T::ONE, c, columns, 1) }
}

struct Len {
    precision: Precision,
    n_out: usize,
    n_in: usize,
    rows: usize,
}

impl<T: Real> Kernel<T> for Len {
    type Output = (usize, usize);
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, _: S) -> (usize, usize) {
        let depth = in_format!(self.precision, S, |FORMAT| self.rows.div_ceil(per_unit(FORMAT)));
        (depth * self.n_out, depth * padded::<S>(self.n_in))
    }
}

struct Pack<'a, T> {
    precision: Precision,
    n_out: usize,
    n_in: usize,
    rows: usize,
    dy: &'a [T],
    x: &'a [T],
    packed_dy: &'a mut [T],
    packed_x: &'a mut [T],
}

impl<T: Real> Kernel<T> for Pack<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, |FORMAT| self.pack::<S, FORMAT>(s))
    }
}

impl<T: Real> Pack<'_, T> {
    #[inline(always)]
    fn pack<S: Simd<T = T>, const FORMAT: u8>(self, s: S) {
        let steps = (0, self.rows);
        let tiles = Tiles::new(self.n_out, S::TILE_ROWS);
        let (dy, x) = (Strided::columns(self.dy, self.n_out), Strided::columns(self.x, self.n_in));
        pack_tiles::<S, FORMAT>(s, dy, (tiles, 0, tiles.count), steps, self.packed_dy);
        if past_caches(self.packed_x) {
            pack_panels::<S, FORMAT, true>(s, x, (0, self.n_in), steps, self.packed_x);
        } else {
            pack_panels::<S, FORMAT, false>(s, x, (0, self.n_in), steps, self.packed_x);
        }
        s.fence();
    }
}

struct Sum<'a, T, F> {
    precision: Precision,
    n_out: usize,
    n_in: usize,
    count: usize,
    gathered: F,
    /// Whether the first use is added to the gradient or overwrites it.
    accumulate: bool,
    dw: &'a mut [T],
}

impl<'a, T: Real, F: Fn(usize) -> Gathered<'a, T>> Kernel<T> for Sum<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, |FORMAT| self.sum::<S, FORMAT>(s))
    }
}

impl<'a, T: Real, F: Fn(usize) -> Gathered<'a, T>> Sum<'_, T, F> {
    #[inline(always)]
    fn sum<S: Simd<T = T>, const FORMAT: u8>(self, s: S) {
        let n_in = self.n_in;
        let tiles = Tiles::new(self.n_out, S::TILE_ROWS);
        let blocks = Tiles::new(tiles.count, BLOCK_TILES);
        for block in 0..blocks.count {
            let (first, last) = (blocks.start(block), blocks.start(block) + blocks.height(block));
            let row = tiles.start(first);
            for start in (0..n_in).step_by(BLOCK_COLUMNS) {
                let end = n_in.min(start + BLOCK_COLUMNS);
                for use_ in 0..self.count {
                    let Gathered { rows, scale, dy, x } = (self.gathered)(use_);
                    let depth = rows.div_ceil(per_unit(FORMAT));
                    let panels = &dy[depth * row..];
                    let left = LeftTiles::some((tiles, first, last), depth, panels);
                    let (right, out) = (&x[depth * start..], &mut self.dw[row * n_in + start..]);
                    let accumulate = self.accumulate || use_ > 0;
                    let to = (out, n_in);
                    multiply_panels::<S, FORMAT>(s, left, (right, depth, 0), end - start, scale, accumulate, to);
                }
            }
        }
    }
}

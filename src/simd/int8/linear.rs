//! Rows through a weight.

use super::super::Real;
use super::super::format::UnitFormat;
use super::super::gemm::{LeftTiles, multiply_panels};
use super::super::norm::AddRmsNorm;
use super::super::pack::Tiles;
use super::super::scratch::Scratch;
use super::super::vector::{Kernel, Simd};
use super::quantize::{Along, elements_of_row, pack_tiles};

/// Rows that are packed at a time, as much as L2 holds of them, in units.
const LEFT_BLOCK: usize = 64 << 10;

/// `y ← x Wᵀ`, then residual and norm if there are any: x `[m, k]`, y `[m, n]`.
pub struct LinearInt8<'a, T> {
    pub m: usize,
    pub k: usize,
    pub n: usize,
    pub x: &'a [T],
    /// The weight's panels and slots.
    pub weight: [&'a [T]; 2],
    pub y: &'a mut [T],
    pub epilogue: Option<AddRmsNorm<'a, T>>,
    pub scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for LinearInt8<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(mut self, s: S) {
        let (m, k, n) = (self.m, self.k, self.n);
        if m == 0 {
            return;
        }
        let depth = k.div_ceil(<S::Int8 as UnitFormat<S>>::STEPS);
        let limit = <S::Int8 as UnitFormat<S>>::TILE_ROWS;
        let tiles = Tiles::new(m, limit);
        let blocks = Tiles::new(tiles.count, (LEFT_BLOCK / (depth * limit)).max(1));
        let Scratch { left, scales, .. } = self.scratch;
        let [panels, slots] = self.weight;
        for block in 0..blocks.count {
            let some = (tiles, blocks.start(block), blocks.start(block + 1));
            let (row, end) = (tiles.start(some.1), tiles.start(some.2));
            let (left, scales) = (left.at_least(depth * (end - row)), scales.at_least(end - row));
            pack_tiles::<S>(s, Along::rows::<S>(&self.x[row * k..end * k], k), some, left, scales);
            let y = &mut self.y[row * n..end * n];
            let left = LeftTiles::some(some, depth, &*left);
            multiply_panels::<S, S::Int8>(s, left, (panels, depth, 0), n, T::ONE, false, (&mut *y, n));
            for (y, &scale) in y.chunks_exact_mut(n).zip(&*scales) {
                elements_of_row::<S, S::Int8>(s, y, scale, slots);
            }
            if let Some(epilogue) = &mut self.epilogue {
                epilogue.rows(s, n, row, y);
            }
        }
    }
}

//! Adding a transposed matrix.

use super::Real;
use super::vector::{Kernel, Simd, dispatch};

/// `to ← to + fromᵀ`: from is `[rows, columns]`, to `[columns, rows]`.
pub fn add_transposed<T: Real>(from: &[T], (rows, columns): (usize, usize), to: &mut [T]) {
    assert!(from.len() == rows * columns && to.len() == from.len(), "shapes");
    dispatch(AddTransposed { from, rows, columns, to });
}

struct AddTransposed<'a, T> {
    from: &'a [T],
    rows: usize,
    columns: usize,
    to: &'a mut [T],
}

impl<T: Real> Kernel<T> for AddTransposed<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let Self { from, rows, columns, to } = self;
        for i in (0..columns).step_by(S::LANES) {
            let height = (columns - i).min(S::LANES);
            for j in (0..rows).step_by(S::LANES) {
                let width = (rows - j).min(S::LANES);
                let mut block = s.block();
                for (c, v) in block.as_mut().iter_mut().enumerate() {
                    let from = &from[(j + c.min(width - 1)) * columns + i..][..height];
                    // SAFETY: exactly the slice is read.
                    *v = unsafe { s.load_first_ptr(from.as_ptr(), height) };
                }
                let block = s.transpose(block);
                for (r, &v) in block.as_ref().iter().enumerate().take(height) {
                    let to = &mut to[(i + r) * rows + j..][..width];
                    // SAFETY: exactly the slice is read and written.
                    unsafe {
                        s.store_first_ptr(to.as_mut_ptr(), s.add(v, s.load_first_ptr(to.as_ptr(), width)), width)
                    };
                }
            }
        }
    }
}

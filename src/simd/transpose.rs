//! Adding a transposed matrix.

use std::ops::Range;

use super::Real;
use super::isa::isa;
use super::scratch::LINE;
use super::split::{ELEMENT, stretches, worthwhile};
use super::vector::{Kernel, Simd, dispatch_on};

/// `to ← to + fromᵀ`: from is `[rows, columns]`, to `[columns, rows]`. So many threads of the pool that this runs in share the
/// rows of `to`.
pub fn add_transposed<T: Real>(from: &[T], (rows, columns): (usize, usize), to: &mut [T], parts: usize) {
    assert!(from.len() == rows * columns && to.len() == from.len(), "shapes");
    let isa = isa();
    let parts = worthwhile(parts, columns, LINE, rows * ELEMENT);
    stretches((0..columns, LINE), parts, [], [to], &|part, [], [to]| {
        dispatch_on(isa, AddTransposed { from, rows, columns, part, to });
    });
}

struct AddTransposed<'a, T> {
    from: &'a [T],
    rows: usize,
    columns: usize,
    /// Columns of `from`, which are the rows that `to` holds.
    part: Range<usize>,
    to: &'a mut [T],
}

impl<T: Real> Kernel<T> for AddTransposed<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        let Self { from, rows, columns, part, to } = self;
        for i in part.clone().step_by(S::LANES) {
            let height = (part.end - i).min(S::LANES);
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
                    let to = &mut to[(i - part.start + r) * rows + j..][..width];
                    // SAFETY: exactly the slice is read and written.
                    unsafe {
                        s.store_first_ptr(to.as_mut_ptr(), s.add(v, s.load_first_ptr(to.as_ptr(), width)), width)
                    };
                }
            }
        }
    }
}

//! SwiGLU, in both orientations.

use super::super::Real;
use super::super::norm::AddRmsNorm;
use super::super::pack::Side;
use super::super::scratch::Scratch;
use super::super::split::{Vectors, by_columns, by_rows};
use super::super::swiglu::Shape;
use super::super::vector::{Kernel, Simd};
use super::super::weight::PackedWeight;

/// As [`swiglu`](super::super::swiglu()), of weights that are packed as whole numbers too; nothing is saved.
///
/// # Panics
/// As [`swiglu`](super::super::swiglu()), and if the weights are not packed so.
pub fn swiglu_int8<T: Real>(
    gate_up: &PackedWeight<T>,
    down: &PackedWeight<T>,
    x: &[T],
    y: &mut [T],
    epilogue: Option<AddRmsNorm<'_, T>>,
    parts: usize,
) {
    let (shape, vectors) = Shape::of_forward((gate_up, down), x, y, epilogue.as_ref());
    let (isa, side) = (gate_up.isa(), gate_up.side());
    let [gate_up, down] = [gate_up, down].map(|weight| weight.int8_panels());
    let forward = |Vectors { x, y, epilogue, .. }: Vectors<'_, T>| {
        let vectors = x.len() / shape.width;
        T::with_scratch(|scratch| {
            T::swiglu_int8(isa, SwigluInt8 { side, shape, vectors, gate_up, down, x, y, epilogue, scratch });
        });
    };
    let all = Vectors { first: 0, x, y, epilogue };
    match side {
        Side::Cols => by_columns(all, (vectors, shape.width, shape.out), shape.multiplications(), parts, forward),
        Side::Rows => by_rows(all, vectors, shape.multiplications(), parts, forward),
    }
}

/// A pass over rows (`rows.rs`) or columns (`cols.rs`).
pub struct SwigluInt8<'a, T> {
    pub side: Side,
    pub shape: Shape,
    pub vectors: usize,
    /// Panels, and slots or scales.
    pub gate_up: [&'a [T]; 2],
    pub down: [&'a [T]; 2],
    pub x: &'a [T],
    pub y: &'a mut [T],
    pub epilogue: Option<AddRmsNorm<'a, T>>,
    pub scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for SwigluInt8<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        match self.side {
            Side::Cols => self.cols(s),
            Side::Rows => self.rows(s),
        }
    }
}

//! SwiGLU, `W_down (silu(g) ⊙ u)` with `[g; u] = W_gate_up x`, as one kernel in each direction: what lies between the two
//! products never leaves the cache.
//!
//! The panels of W_gate_up hold gates and their ups side by side, so a strip of its product (a few tiles high, one panel
//! wide, in L1) has both; the activation turns it into the packed operand of the second product. Rows go through in
//! blocks whose packed operands fit L2; columns in panels, whose activation (64 KiB at an inner width of 512) does.
//!
//! g and u are saved only where a backward pass will want them, in the order in which it does: units of a vector of g and
//! the vector of their u, in bf16 both in one vector. Units of the vectors that a panel of W_down's backward product holds
//! lie side by side: rows are `[inner panels, m, vectors of the panel]`, columns `[column panels, inner, vectors]`.

mod backward_cols;
mod backward_rows;
mod cols;
mod rows;

use super::Real;
use super::norm::AddRmsNorm;
use super::pack::{PAIRS, Precision, ROUNDED, in_format, panel_width};
use super::scratch::Scratch;
use super::split::{Vectors, by_columns, by_rows};
use super::vector::{Kernel, Simd, dispatch_on};
use super::weight::{Side, Weight};

/// `y ← W_down (silu(g) ⊙ u)`, `[g; u] = W_gate_up x`: for each row of x `[m, width]`, y `[m, out]`, or for each column of
/// one sequence, x `[width, n]`, y `[out, n]`, as the side says; then residual and norm, if there are any. `saved`, of
/// [`swiglu_saved_len`] elements, receives g and u.
pub fn swiglu<T: Real>(
    side: Side,
    gate_up: &Weight<T>,
    down: &Weight<T>,
    x: &[T],
    saved: Option<&mut [T]>,
    y: &mut [T],
    then: Option<AddRmsNorm<'_, T>>,
) {
    let shape = Shape::of(gate_up, down);
    let vectors = x.len() / shape.width;
    assert_eq!(x.len(), vectors * shape.width, "input shape");
    assert_eq!(y.len(), vectors * shape.out, "output shape");
    let saved_len = swiglu_saved_len(gate_up, side, vectors);
    assert!(saved.as_ref().is_none_or(|saved| saved.len() == saved_len), "room for g and u");
    if let Some(then) = &then {
        then.check(vectors, y.len());
    }
    let (isa, precision) = (gate_up.isa(), gate_up.precision());
    let [gate_up, down] = [gate_up, down].map(|weight| weight.forward_panels(side));
    let forward = |Vectors { x, y, then }: Vectors<'_, T>, saved| {
        let vectors = x.len() / shape.width;
        T::with_scratch(|scratch| {
            dispatch_on(isa, Forward { side, shape, vectors, precision, gate_up, down, x, saved, y, then, scratch });
        });
    };
    let all = Vectors { x, y, then };
    let (sizes, weights) = ((vectors, shape.width, shape.out), shape.inner * (2 * shape.width + shape.out));
    match (saved, side) {
        (None, Side::Cols) => by_columns(all, sizes, weights, |part| forward(part, None)),
        (None, _) => by_rows(all, sizes, weights, |part| forward(part, None)),
        (saved, _) => forward(all, saved),
    }
}

/// Room for the packed operands of one use's weight gradients: the `dy` and `x` of a [`Gathered`](super::Gathered) each,
/// of [`gathered_len`](super::gathered_len) for W_down `[out, inner]` and
/// [`gathered_gate_up_len`](super::gathered_gate_up_len) for W_gate_up.
pub struct SwigluOperands<'a, T> {
    pub down: [&'a mut [T]; 2],
    pub gate_up: [&'a mut [T]; 2],
}

/// The backward pass of [`swiglu`] from dy, of y's shape, for what the forward pass saved and its x: fills the operands of the
/// weights' gradients, and adds the gradient of x to `dx`, if it is wanted. The gradients of g and u are multiplied by
/// `scales`.
pub fn swiglu_backward<T: Real>(
    side: Side,
    (gate_up, down): (&Weight<T>, &Weight<T>),
    scales: [T; 2],
    (dy, saved, x): (&[T], &[T], &[T]),
    operands: SwigluOperands<'_, T>,
    dx: Option<&mut [T]>,
) {
    let shape = Shape::of(gate_up, down);
    let vectors = dy.len() / shape.out;
    assert!(dy.len() == vectors * shape.out && x.len() == vectors * shape.width, "shapes of output gradient and input");
    assert!(dx.as_ref().is_none_or(|dx| dx.len() == x.len()), "input gradient shape");
    assert_eq!(saved.len(), swiglu_saved_len(gate_up, side, vectors), "g and u");
    let (isa, precision) = (gate_up.isa(), gate_up.precision());
    let [gate_up, down] = [gate_up, down].map(|weight| weight.backward_panels(side));
    T::with_scratch(|scratch| {
        let pass =
            Backward { side, shape, vectors, precision, scales, gate_up, down, dy, saved, x, operands, dx, scratch };
        dispatch_on(isa, pass);
    });
}

/// Elements in which the forward pass saves g and u of `vectors` rows or columns.
pub fn swiglu_saved_len<T: Real>(gate_up: &Weight<T>, side: Side, vectors: usize) -> usize {
    let (inner, precision) = (gate_up.shape().0 / 2, gate_up.precision());
    dispatch_on::<T, _>(gate_up.isa(), SavedLen { side, vectors, inner, precision })
}

/// `W_gate_up [2·inner, width]`, `W_down [out, inner]`.
#[derive(Clone, Copy)]
struct Shape {
    width: usize,
    inner: usize,
    out: usize,
}

impl Shape {
    fn of<T: Real>(gate_up: &Weight<T>, down: &Weight<T>) -> Self {
        let ((double, width), (out, inner)) = (gate_up.shape(), down.shape());
        assert!(double == 2 * inner && inner > 0 && width > 0, "the projections of one SwiGLU");
        assert!(gate_up.is_gated() && !down.is_gated(), "gate and up first, down second");
        assert!(gate_up.isa() == down.isa() && gate_up.precision() == down.precision(), "packed alike");
        Self { width, inner, out }
    }
}

/// A forward pass over rows (`rows.rs`) or columns (`cols.rs`).
struct Forward<'a, T> {
    side: Side,
    shape: Shape,
    vectors: usize,
    precision: Precision,
    gate_up: &'a [T],
    down: &'a [T],
    x: &'a [T],
    saved: Option<&'a mut [T]>,
    y: &'a mut [T],
    then: Option<AddRmsNorm<'a, T>>,
    scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for Forward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        match self.side {
            Side::Cols => in_format!(self.precision, S, |FORMAT| self.cols::<S, FORMAT>(s)),
            _ => in_format!(self.precision, S, |FORMAT| self.rows::<S, FORMAT>(s)),
        }
    }
}

/// A backward pass over rows (`backward_rows.rs`) or columns (`backward_cols.rs`).
struct Backward<'a, T> {
    side: Side,
    shape: Shape,
    vectors: usize,
    precision: Precision,
    scales: [T; 2],
    gate_up: &'a [T],
    down: &'a [T],
    dy: &'a [T],
    saved: &'a [T],
    x: &'a [T],
    operands: SwigluOperands<'a, T>,
    dx: Option<&'a mut [T]>,
    scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for Backward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        match self.side {
            Side::Cols => in_format!(self.precision, S, |FORMAT| self.cols::<S, FORMAT>(s)),
            _ => in_format!(self.precision, S, |FORMAT| self.rows::<S, FORMAT>(s)),
        }
    }
}

struct SavedLen {
    side: Side,
    vectors: usize,
    inner: usize,
    precision: Precision,
}

impl<T: Real> Kernel<T> for SavedLen {
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, _: S) -> usize {
        let unit = in_format!(self.precision, S, |FORMAT| saved_unit::<S>(FORMAT));
        match self.side {
            Side::Cols => self.vectors.div_ceil(S::LANES) * self.inner * unit,
            _ => self.inner.div_ceil(S::LANES) * self.vectors * unit,
        }
    }
}

/// Elements of a vector of g and its u, saved.
#[inline(always)]
const fn saved_unit<S: Simd>(format: u8) -> usize {
    if format == PAIRS { S::LANES } else { 2 * S::LANES }
}

/// Vectors that stand beside each other in the panel of vector `at / LANES` of `n` numbers, itself included.
#[inline(always)]
fn vectors_beside<S: Simd>(n: usize, at: usize) -> usize {
    panel_width::<S>(n, at - at % (2 * S::LANES)) / S::LANES
}

/// Saves a vector of g and its u, past the caches if asked to: a fence must follow.
#[inline(always)]
fn save<S: Simd, const FORMAT: u8>(s: S, (g, u): (S::V, S::V), past: bool, to: &mut [S::T]) {
    match FORMAT {
        PAIRS => s.store_past(past, to, s.pair(g, u)),
        _ => {
            let (g, u) = if FORMAT == ROUNDED { (s.round_bf16(g), s.round_bf16(u)) } else { (g, u) };
            let (first, second) = to.split_at_mut(S::LANES);
            s.store_past(past, first, g);
            s.store_past(past, second, u);
        }
    }
}

/// What [`save`] saved.
#[inline(always)]
fn saved<S: Simd, const FORMAT: u8>(s: S, from: &[S::T]) -> (S::V, S::V) {
    match FORMAT {
        PAIRS => s.unpair(s.load(from)),
        _ => (s.load(from), s.load(&from[S::LANES..])),
    }
}

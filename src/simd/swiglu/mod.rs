//! SwiGLU, `W_down (silu(g) ⊙ u)` with `[g; u] = W_gate_up x`, as one kernel in each direction: what lies between the two
//! products never leaves the cache.
//!
//! The panels of W_gate_up hold gates and their ups side by side, so a strip of its product (a few tiles high, one panel
//! wide, in L1) has both; the activation turns it into the packed operand of the second product. Rows go through in
//! blocks whose packed operands fit L2; columns in panels, whose activation (64 KiB at an inner width of 512) does.
//!
//! g and u are saved only where a backward pass will want them, in the order in which it does: units of a vector of g and
//! the vector of their u, in bf16 both in one vector. Units of the vectors that a panel of W_down's backward product holds
//! lie side by side: rows are `[inner panels, m, vectors of the panel]`, columns `[column panels, inner, vectors]`; in f32
//! the vectors of g of a panel's columns are followed by those of u.
//!
//! The activation goes through [`ABREAST`] vectors at a time, whose operations do not wait for each other.

mod backward_cols;
mod backward_rows;
mod cols;
mod rows;

use std::ops::Range;

use super::Real;
use super::format::{Format, Precision, in_format};
use super::math::{ABREAST, silu_mul_backward};
use super::norm::AddRmsNorm;
use super::pack::{Side, Strided, Tiles, pack_tiles, panel_width};
use super::scratch::Scratch;
use super::shared::Shared;
use super::split::{TILE, Vectors, by_columns, by_rows, each_part, stretches, worthwhile};
use super::vector::{Kernel, Simd, dispatch_on};
use super::weight::PackedWeight;

/// `y ← W_down (silu(g) ⊙ u)`, `[g; u] = W_gate_up x`, then residual and norm, if there are any. Weights packed for rows map
/// each row of x `[m, width]` to one of y `[m, out]`; weights packed for columns map each column of one sequence, x
/// `[width, n]`, y `[out, n]`.
///
/// `saved`, of [`swiglu_saved_len`] elements, receives g and u for the backward pass. So many threads of the pool that this
/// runs in share the rows or columns (`parts` 1: the caller does all); the result is the same for any number.
///
/// # Panics
/// If shapes disagree, or the weights are not packed alike, W_gate_up as a gate and up projection.
pub fn swiglu<T: Real>(
    gate_up: &PackedWeight<T>,
    down: &PackedWeight<T>,
    x: &[T],
    saved: Option<&mut [T]>,
    y: &mut [T],
    epilogue: Option<AddRmsNorm<'_, T>>,
    parts: usize,
) {
    let (shape, vectors) = Shape::of_forward((gate_up, down), x, y, epilogue.as_ref());
    let saved_len = swiglu_saved_len(gate_up, vectors);
    assert!(saved.as_ref().is_none_or(|saved| saved.len() == saved_len), "room for g and u");
    let (isa, side, precision) = (gate_up.isa(), gate_up.side(), gate_up.precision());
    let [gate_up, down] = [gate_up, down].map(|weight| weight.forward_panels());
    let saved = saved.map(Shared::new);
    let forward = |Vectors { first, x, y, epilogue }: Vectors<'_, T>| {
        let saved = saved.as_ref().map(|all| Saved { all, first, vectors });
        let vectors = x.len() / shape.width;
        T::with_scratch(|scratch| {
            let pass = SwigluForward { side, shape, vectors, precision, gate_up, down, x, saved, y, epilogue, scratch };
            T::swiglu_forward(isa, pass);
        });
    };
    let all = Vectors { first: 0, x, y, epilogue };
    let weights = shape.multiplications();
    match side {
        Side::Cols => by_columns(all, (vectors, shape.width, shape.out), weights, parts, forward),
        Side::Rows => by_rows(all, vectors, weights, parts, forward),
    }
}

/// Room for the packed operands of one use's weight gradients: left and right of a
/// [`DeferredGrad`](super::DeferredGrad) each, of [`deferred_len`](super::deferred_len) for W_down `[out, inner]` and
/// [`deferred_gate_up_len`](super::deferred_gate_up_len) for W_gate_up.
pub struct SwigluOperands<'a, T> {
    /// Left and right of W_down.
    pub down: [&'a mut [T]; 2],
    /// Left and right of W_gate_up.
    pub gate_up: [&'a mut [T]; 2],
}

/// The backward pass of [`swiglu`] from dy, of y's shape, for what the forward pass saved and its x: fills the operands of the
/// weights' gradients, and adds the gradient of x to `dx`, if it is wanted. Rows may be shared by threads, as in [`swiglu`]; the
/// columns of a sequence are not.
pub fn swiglu_backward<T: Real>(
    (gate_up, down): (&PackedWeight<T>, &PackedWeight<T>),
    (dy, saved, x): (&[T], &[T], &[T]),
    operands: SwigluOperands<'_, T>,
    dx: Option<&mut [T]>,
    parts: usize,
) {
    let shape = Shape::of(gate_up, down);
    let vectors = dy.len() / shape.out;
    assert!(dy.len() == vectors * shape.out && x.len() == vectors * shape.width, "shapes of output gradient and input");
    assert!(dx.as_ref().is_none_or(|dx| dx.len() == x.len()), "input gradient shape");
    assert_eq!(saved.len(), swiglu_saved_len(gate_up, vectors), "g and u");
    let (isa, side, precision) = (gate_up.isa(), gate_up.side(), gate_up.precision());
    let [gate_up, down] = [gate_up, down].map(|weight| weight.backward_panels());
    let operands = SharedOperands { down: operands.down.map(Shared::new), gate_up: operands.gate_up.map(Shared::new) };
    let (has_dx, dx) = (dx.is_some(), dx.unwrap_or_default());
    let parts = match side {
        Side::Rows => worthwhile(parts, vectors, TILE, shape.multiplications()),
        Side::Cols => 1,
    };
    stretches((0..vectors, TILE), parts, [dy, x], [dx], &|part, [dy, x], [dx]| {
        let (operands, dx) = (&operands, has_dx.then_some(dx));
        T::with_scratch(|scratch| {
            let pass = SwigluBackward {
                side,
                shape,
                vectors,
                part: part.clone(),
                precision,
                gate_up,
                down,
                dy,
                saved,
                x,
                operands,
                dx,
                scratch,
            };
            T::swiglu_backward(isa, pass);
        });
    });
    // A left tile holds all rows of some columns, so threads share these packings by their tiles and not by rows.
    if side == Side::Rows {
        let SharedOperands { down: [left_dy, _], gate_up: [left_x, _] } = &operands;
        each_part(parts, &|part| {
            for (values, n, to) in [(dy, shape.out, left_dy), (x, shape.width, left_x)] {
                T::pack_left(isa, PackLeft { values, n, vectors, precision, part: (part, parts), to });
            }
        });
    }
}

/// [`SwigluOperands`] that threads fill together.
struct SharedOperands<'a, T> {
    down: [Shared<'a, T>; 2],
    gate_up: [Shared<'a, T>; 2],
}

/// Where a part of the rows or columns saves its g and u: those from `first` on, of all `vectors`.
#[derive(Clone, Copy)]
struct Saved<'a, T> {
    all: &'a Shared<'a, T>,
    first: usize,
    vectors: usize,
}

/// Packs `values` `[vectors, n]` as left tiles, vector by vector the steps of the sum: one part of so many of the tiles.
pub struct PackLeft<'a, T> {
    values: &'a [T],
    n: usize,
    vectors: usize,
    precision: Precision,
    part: (usize, usize),
    to: &'a Shared<'a, T>,
}

impl<T: Real> Kernel<T> for PackLeft<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, self.pack(s))
    }
}

impl<T: Real> PackLeft<'_, T> {
    #[inline(always)]
    fn pack<S: Simd<T = T>, F: Format<S>>(self, s: S) {
        let Self { values, n, vectors, part: (part, parts), to, .. } = self;
        let (tiles, depth) = (Tiles::new(n, F::TILE_ROWS), vectors.div_ceil(F::STEPS));
        let [first, last] = [part, part + 1].map(|part| tiles.count * part / parts);
        // SAFETY: the tiles of this part alone.
        let to = unsafe { to.slice(depth * tiles.start(first)..depth * tiles.start(last)) };
        pack_tiles::<S, F>(s, Strided::columns(values, n), (tiles, first, last), (0, vectors), to);
        s.fence();
    }
}

/// Elements in which the forward pass saves g and u of `vectors` rows or columns.
pub fn swiglu_saved_len<T: Real>(gate_up: &PackedWeight<T>, vectors: usize) -> usize {
    let (inner, precision) = (gate_up.shape().0 / 2, gate_up.precision());
    dispatch_on::<T, _>(gate_up.isa(), SavedLen { side: gate_up.side(), vectors, inner, precision })
}

/// `W_gate_up [2·inner, width]`, `W_down [out, inner]`.
#[derive(Clone, Copy)]
pub struct Shape {
    pub width: usize,
    pub inner: usize,
    pub out: usize,
}

impl Shape {
    pub fn of<T: Real>(gate_up: &PackedWeight<T>, down: &PackedWeight<T>) -> Self {
        let ((double, width), (out, inner)) = (gate_up.shape(), down.shape());
        assert!(double == 2 * inner && inner > 0 && width > 0, "the projections of one SwiGLU");
        assert!(gate_up.is_gated() && !down.is_gated(), "gate and up first, down second");
        assert!(
            gate_up.isa() == down.isa() && gate_up.side() == down.side() && gate_up.precision() == down.precision(),
            "packed alike"
        );
        Self { width, inner, out }
    }

    /// And how many vectors a forward pass maps that was asked for with these.
    pub fn of_forward<T: Real>(
        (gate_up, down): (&PackedWeight<T>, &PackedWeight<T>),
        x: &[T],
        y: &[T],
        epilogue: Option<&AddRmsNorm<'_, T>>,
    ) -> (Self, usize) {
        let shape = Self::of(gate_up, down);
        let vectors = x.len() / shape.width;
        assert_eq!(x.len(), vectors * shape.width, "input shape");
        assert_eq!(y.len(), vectors * shape.out, "output shape");
        if let Some(epilogue) = epilogue {
            epilogue.check(vectors, y.len());
        }
        (shape, vectors)
    }

    /// Of one row or column, in a forward pass.
    pub fn multiplications(self) -> usize {
        self.inner * (2 * self.width + self.out)
    }
}

/// A forward pass over rows (`rows.rs`) or columns (`cols.rs`).
pub struct SwigluForward<'a, T> {
    side: Side,
    shape: Shape,
    vectors: usize,
    precision: Precision,
    gate_up: &'a [T],
    down: &'a [T],
    x: &'a [T],
    saved: Option<Saved<'a, T>>,
    y: &'a mut [T],
    epilogue: Option<AddRmsNorm<'a, T>>,
    scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for SwigluForward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        match self.side {
            Side::Cols => in_format!(self.precision, S, self.cols(s)),
            Side::Rows => in_format!(self.precision, S, self.rows(s)),
        }
    }
}

/// A backward pass over rows (`backward_rows.rs`) or columns (`backward_cols.rs`).
pub struct SwigluBackward<'a, T> {
    side: Side,
    shape: Shape,
    /// Rows or columns in all.
    vectors: usize,
    /// Those that dy, x and dx hold.
    part: Range<usize>,
    precision: Precision,
    gate_up: &'a [T],
    down: &'a [T],
    dy: &'a [T],
    /// Of all.
    saved: &'a [T],
    x: &'a [T],
    operands: &'a SharedOperands<'a, T>,
    dx: Option<&'a mut [T]>,
    scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for SwigluBackward<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        match self.side {
            Side::Cols => in_format!(self.precision, S, self.cols(s)),
            Side::Rows => in_format!(self.precision, S, self.rows(s)),
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
        let unit = saved_unit::<S>(self.precision.steps::<S>());
        match self.side {
            Side::Cols => self.vectors.div_ceil(S::LANES) * self.inner * unit,
            Side::Rows => self.inner.div_ceil(S::LANES) * self.vectors * unit,
        }
    }
}

/// Elements of a vector of g and its u, saved in a format of so many steps.
#[inline(always)]
const fn saved_unit<S: Simd>(steps: usize) -> usize {
    2 / steps * S::LANES
}

/// SIMD vectors per panel, of the panel of `n` columns that column `at` belongs to: 2, or 1 for a narrow last one.
#[inline(always)]
fn vectors_in_panel<S: Simd>(n: usize, at: usize) -> usize {
    panel_width::<S>(n, at - at % (2 * S::LANES)) / S::LANES
}

/// [`ABREAST`] vectors.
type Abreast<S> = [<S as Simd>::V; ABREAST];

/// Saves a vector of g and its u, in f32 u `apart` from g, by non-temporal stores where `streamed`: a fence must follow.
#[inline(always)]
fn save<S: Simd, F: Format<S>>(s: S, (g, u): (S::V, S::V), apart: usize, streamed: bool, to: &mut [S::T]) {
    s.store_streamed(streamed, to, F::pack(s, g, u));
    if F::STEPS == 1 {
        s.store_streamed(streamed, &mut to[apart..], F::pack(s, u, u));
    }
}

/// What [`save`] saved.
#[inline(always)]
fn saved<S: Simd, F: Format<S>>(s: S, from: &[S::T], apart: usize) -> (S::V, S::V) {
    if F::STEPS == 2 { F::unpack(s, s.load(from)) } else { (s.load(from), s.load(&from[apart..])) }
}

/// Where the unit of vector `i` of rows of `vectors` vectors begins among those saved, in an order in which u lies `apart`
/// from g.
#[inline(always)]
fn unit_at<S: Simd, F: Format<S>>(i: usize, vectors: usize, apart: usize) -> usize {
    if F::STEPS == 2 {
        i * S::LANES
    } else if apart == S::LANES {
        2 * i * S::LANES
    } else {
        (i + i / vectors * vectors) * S::LANES
    }
}

/// The backward pass of the activation for `valid` vectors, zeros for those that do not exist: dg, du and the activation, from
/// the gradient of the activation, side by side, and what was saved.
#[inline(always)]
fn backward_abreast<S: Simd, F: Format<S>, const VECTORS: usize>(
    s: S,
    (d, from): (&[S::T], &[S::T]),
    apart: usize,
    valid: usize,
) -> [Abreast<S>; 3] {
    let (mut da, mut gu) = ([s.zero(); ABREAST], [[s.zero(); ABREAST]; 2]);
    for i in 0..valid {
        da[i] = s.load(&d[i * S::LANES..]);
        (gu[0][i], gu[1][i]) = saved::<S, F>(s, &from[unit_at::<S, F>(i, VECTORS, apart)..], apart);
    }
    silu_mul_backward(s, gu, da, F::USE)
}

/// Stores `valid` vectors side by side.
#[inline(always)]
fn store_abreast<S: Simd>(s: S, of: Abreast<S>, valid: usize, to: &mut [S::T]) {
    for (i, v) in of.into_iter().enumerate().take(valid) {
        s.store(&mut to[i * S::LANES..], v);
    }
}

/// Stores `valid` vectors, of rows of `VECTORS`, as units, which hold [`Format::STEPS`] rows: where the last is missing, zeros.
#[inline(always)]
fn store_units<S: Simd, F: Format<S>, const VECTORS: usize>(
    s: S,
    of: Abreast<S>,
    valid: usize,
    streamed: bool,
    to: &mut [S::T],
) {
    let mut units = [s.zero(); ABREAST];
    let mut count = 0;
    for i in 0..valid {
        if (i / VECTORS).is_multiple_of(F::STEPS) {
            units[count] = F::pack(s, of[i], if F::STEPS == 2 { of[i + VECTORS] } else { of[i] });
            count += 1;
        }
    }
    if streamed {
        for (i, &unit) in units.iter().enumerate().take(count) {
            s.store_streamed(true, &mut to[i * S::LANES..], unit);
        }
    } else {
        store_abreast(s, units, count, to);
    }
}

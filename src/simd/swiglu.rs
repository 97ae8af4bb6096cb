//! SwiGLU forward, `W_down (silu(g) ⊙ u)` with `[g; u] = W_gate_up x`, as one kernel: what lies between the two products
//! never leaves the cache.
//!
//! The panels of W_gate_up hold gates and their ups side by side, so a strip of its product (a few tiles high, one panel
//! wide, in L1) has both; the activation turns it into the packed operand of the second product. Rows go through in
//! blocks whose packed input and activation fit L2; columns in panels, whose activation (64 KiB at an inner width of
//! 512) does. g and u are written out only where a backward pass will want them.

use super::Real;
use super::gemm::{LeftTiles, PanelOutput, multiply_panel};
use super::math::silu;
use super::pack::{
    PAIRS, Precision, ROUNDED, Strided, Tiles, in_format, pack_panel, pack_tiles, panel_width, per_unit,
};
use super::scratch::Scratch;
use super::vector::{Kernel, Simd, dispatch_on, sweep};
use super::weight::Weight;

/// Units of packed input and activation of a block of rows, kept in L2 and, in f32, a little beyond (1 MiB).
const ROW_BLOCK: usize = 256 << 10;
/// Tiles of a strip: with 12 rows of 2 vectors 24 KiB.
const STRIP_TILES: usize = 16;

/// `y ← W_down (silu(g) ⊙ u)`, `[g; u] = W_gate_up x` for each row: x is `[m, width]`, y `[m, out]`; `hidden`
/// `[m, 2·inner]` receives g and u.
pub fn swiglu_rows<T: Real>(gate_up: &Weight<T>, down: &Weight<T>, x: &[T], hidden: Option<&mut [T]>, y: &mut [T]) {
    let shape = Shape::of(gate_up, down);
    let m = x.len() / shape.width;
    shape.check(m, x, hidden.as_deref(), y);
    T::with_scratch(|scratch| {
        let (gate_up_panels, down_panels) = (gate_up.row_panels(), down.row_panels());
        let precision = gate_up.precision();
        dispatch_on(
            gate_up.isa(),
            Rows { shape, m, precision, gate_up: gate_up_panels, down: down_panels, x, hidden, y, scratch },
        );
    });
}

/// The same for each column of one sequence: x is `[width, n]`, y `[out, n]`; `hidden` `[2·inner, n]`.
pub fn swiglu_cols<T: Real>(gate_up: &Weight<T>, down: &Weight<T>, x: &[T], hidden: Option<&mut [T]>, y: &mut [T]) {
    let shape = Shape::of(gate_up, down);
    let n = x.len() / shape.width;
    shape.check(n, x, hidden.as_deref(), y);
    T::with_scratch(|scratch| {
        let (gate_up_tiles, down_tiles) = (gate_up.col_tiles(), down.col_tiles());
        let precision = gate_up.precision();
        dispatch_on(
            gate_up.isa(),
            Cols { shape, n, precision, gate_up: gate_up_tiles, down: down_tiles, x, hidden, y, scratch },
        );
    });
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

    fn check<T>(&self, vectors: usize, x: &[T], hidden: Option<&[T]>, y: &[T]) {
        assert_eq!(x.len(), vectors * self.width, "input shape");
        assert_eq!(y.len(), vectors * self.out, "output shape");
        assert!(hidden.is_none_or(|hidden| hidden.len() == vectors * 2 * self.inner), "shape of g and u");
    }
}

struct Rows<'a, T> {
    shape: Shape,
    m: usize,
    precision: Precision,
    gate_up: &'a [T],
    down: &'a [T],
    x: &'a [T],
    hidden: Option<&'a mut [T]>,
    y: &'a mut [T],
    scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for Rows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, |FORMAT| self.forward::<S, FORMAT>(s))
    }
}

impl<T: Real> Rows<'_, T> {
    #[inline(always)]
    fn forward<S: Simd<T = T>, const FORMAT: u8>(mut self, s: S) {
        let Shape { width, inner, out } = self.shape;
        if self.m == 0 {
            return;
        }
        let (x_depth, a_depth) = (width.div_ceil(per_unit(FORMAT)), inner.div_ceil(per_unit(FORMAT)));
        let tiles = Tiles::new(self.m, S::TILE_ROWS);
        let blocks = Tiles::new(tiles.count, (ROW_BLOCK / ((x_depth + a_depth) * S::TILE_ROWS)).max(1));
        let Scratch { left, right, out: strip } = self.scratch;
        for block in 0..blocks.count {
            let (first, last) = (blocks.start(block), blocks.start(block) + blocks.height(block));
            let (row, rows) = (tiles.start(first), tiles.start(last) - tiles.start(first));
            let x = left.at_least(x_depth * rows);
            let a = right.at_least(a_depth * rows);
            let strip = strip.at_least(rows * 2 * S::LANES);
            pack_tiles::<S, FORMAT>(s, Strided::rows(self.x, width), (tiles, first, last), (0, width), x);
            let block = |panels, whole_depth| LeftTiles { tiles, first, last, panels, whole_depth, from: 0 };
            for gate in (0..inner).step_by(S::LANES) {
                let gates = S::LANES.min(inner - gate);
                let to = PanelOutput {
                    out: &mut *strip,
                    stride: 2 * S::LANES,
                    columns: 2 * S::LANES,
                    alpha: T::ONE,
                    accumulate: false,
                };
                let panel = &self.gate_up[x_depth * 2 * gate..];
                multiply_panel::<S, FORMAT>(s, block(&*x, x_depth), x_depth, panel, to);
                for tile in first..last {
                    let (start, height) = (tiles.start(tile) - row, tiles.height(tile));
                    let hidden = self.hidden.as_deref_mut().map(|hidden| {
                        let from = (row + start) * 2 * inner + gate;
                        &mut hidden[from..from + (height - 1) * 2 * inner + inner + gates]
                    });
                    let strip = &strip[start * 2 * S::LANES..][..height * 2 * S::LANES];
                    let a = &mut a[a_depth * start + gate / per_unit(FORMAT) * height..];
                    activate_rows::<S, FORMAT>(s, strip, (height, gates), hidden, inner, a);
                }
            }
            let mut column = 0;
            while column < out {
                let panel = panel_width::<S>(out, column);
                let to = PanelOutput {
                    out: &mut self.y[row * out + column..],
                    stride: out,
                    columns: panel.min(out - column),
                    alpha: T::ONE,
                    accumulate: false,
                };
                multiply_panel::<S, FORMAT>(s, block(&*a, a_depth), a_depth, &self.down[a_depth * column..], to);
                column += panel;
            }
        }
    }
}

/// One tile: `strip [height, vector of g | vector of u]`, of which `gates` lanes count, becomes `silu(g)·u` as that many
/// steps of a left tile. `hidden` starts with the tile's first g; rows are `2·inner` apart.
#[inline(always)]
fn activate_rows<S: Simd, const FORMAT: u8>(
    s: S,
    strip: &[S::T],
    (height, gates): (usize, usize),
    mut hidden: Option<&mut [S::T]>,
    inner: usize,
    to: &mut [S::T],
) {
    let units = gates.div_ceil(per_unit(FORMAT));
    assert!(strip.len() == height * 2 * S::LANES && gates <= S::LANES && to.len() >= units * height);
    let mut row = 0;
    while row < height {
        let rows = S::LANES.min(height - row);
        let mut block = s.block();
        for (r, v) in block.as_mut().iter_mut().enumerate().take(rows) {
            let pair = &strip[(row + r) * 2 * S::LANES..];
            let (g, u) = (s.load(pair), s.load(&pair[S::LANES..]));
            *v = s.mul(silu(s, g), u);
            if let Some(hidden) = &mut hidden {
                let at = (row + r) * 2 * inner;
                let (low, high) = hidden[at..at + inner + gates].split_at_mut(inner);
                for (to, v) in [(&mut low[..gates], g), (high, u)] {
                    if gates == S::LANES {
                        s.store(to, v);
                    } else {
                        // SAFETY: exactly the slice, `gates` long, is written.
                        unsafe { s.store_first_ptr(to.as_mut_ptr(), v, gates) }
                    }
                }
            }
        }
        let block = s.transpose(block);
        let block = block.as_ref();
        for unit in 0..units {
            let step = unit * per_unit(FORMAT);
            let v = match FORMAT {
                PAIRS => s.pair(block[step], if step + 1 < gates { block[step + 1] } else { s.zero() }),
                ROUNDED => s.round_bf16(block[step]),
                _ => block[step],
            };
            let to = &mut to[unit * height + row..][..rows];
            // SAFETY: exactly the slice is written.
            unsafe { s.store_first_ptr(to.as_mut_ptr(), v, rows) }
        }
        row += S::LANES;
    }
}

struct Cols<'a, T> {
    shape: Shape,
    n: usize,
    precision: Precision,
    gate_up: &'a [T],
    down: &'a [T],
    x: &'a [T],
    hidden: Option<&'a mut [T]>,
    y: &'a mut [T],
    scratch: &'a mut Scratch<T>,
}

impl<T: Real> Kernel<T> for Cols<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd<T = T>>(self, s: S) {
        in_format!(self.precision, S, |FORMAT| self.forward::<S, FORMAT>(s))
    }
}

impl<T: Real> Cols<'_, T> {
    #[inline(always)]
    fn forward<S: Simd<T = T>, const FORMAT: u8>(mut self, s: S) {
        let (Shape { width, inner, out }, n) = (self.shape, self.n);
        let (x_depth, a_depth) = (width.div_ceil(per_unit(FORMAT)), inner.div_ceil(per_unit(FORMAT)));
        let tiles = Tiles::gated(inner, S::TILE_ROWS);
        let out_tiles = Tiles::new(out, S::TILE_ROWS);
        let strips = Tiles::new(tiles.count, STRIP_TILES);
        let Scratch { left, right, out: strip } = self.scratch;
        let x = left.at_least(x_depth * 2 * S::LANES);
        let a = right.at_least(a_depth * 2 * S::LANES);
        let strip = strip.at_least(STRIP_TILES * S::TILE_ROWS * 2 * S::LANES);
        let mut column = 0;
        while column < n {
            let panel = panel_width::<S>(n, column);
            let columns = panel.min(n - column);
            let from = Strided::columns(self.x, n);
            pack_panel::<S, FORMAT>(s, from, (column, columns, panel), (0, width), x);
            // In bf16 two activations share a unit: the one that waits for its odd neighbour.
            let mut even = [s.zero(); 2];
            for block in 0..strips.count {
                let (first, last) = (strips.start(block), strips.start(block) + strips.height(block));
                let left = LeftTiles {
                    tiles,
                    first,
                    last,
                    panels: &self.gate_up[x_depth * tiles.start(first)..],
                    whole_depth: x_depth,
                    from: 0,
                };
                let to =
                    PanelOutput { out: &mut *strip, stride: panel, columns: panel, alpha: T::ONE, accumulate: false };
                multiply_panel::<S, FORMAT>(s, left, x_depth, x, to);
                for tile in first..last {
                    let at = tiles.start(tile) - tiles.start(first);
                    let (gate, gates) = (tiles.start(tile) / 2, tiles.height(tile) / 2);
                    let (g, u) = strip[at * panel..][..2 * gates * panel].split_at(gates * panel);
                    if let Some(hidden) = self.hidden.as_deref_mut() {
                        for (rows, first) in [(g, gate), (u, inner + gate)] {
                            for (row, from) in rows.chunks_exact(panel).enumerate() {
                                let to = &mut hidden[(first + row) * n + column..][..columns];
                                sweep!(S, columns, at => { at.store(s, to, s.load(&from[at.start()..])) });
                            }
                        }
                    }
                    activate_cols::<S, FORMAT>(s, (gate, inner), (g, u), panel, &mut even, a);
                }
            }
            let to = PanelOutput { out: &mut self.y[column..], stride: n, columns, alpha: T::ONE, accumulate: false };
            multiply_panel::<S, FORMAT>(s, LeftTiles::all(out_tiles, a_depth, self.down), a_depth, a, to);
            column += panel;
        }
    }
}

/// Rows `gate..` of a right panel: `silu(g)·u` of g and u `[rows, panel]`; `inner` rows in all.
#[inline(always)]
fn activate_cols<S: Simd, const FORMAT: u8>(
    s: S,
    (gate, inner): (usize, usize),
    (g, u): (&[S::T], &[S::T]),
    panel: usize,
    even: &mut [S::V; 2],
    to: &mut [S::T],
) {
    for (row, (g, u)) in g.chunks_exact(panel).zip(u.chunks_exact(panel)).enumerate() {
        let step = gate + row;
        let to = &mut to[step / per_unit(FORMAT) * panel..][..panel];
        for (j, even) in even.iter_mut().enumerate().take(panel / S::LANES) {
            let at = j * S::LANES;
            let a = s.mul(silu(s, s.load(&g[at..])), s.load(&u[at..]));
            match FORMAT {
                PAIRS if step % 2 == 1 => s.store(&mut to[at..], s.pair(*even, a)),
                PAIRS if step + 1 == inner => s.store(&mut to[at..], s.pair(a, s.zero())),
                PAIRS => *even = a,
                ROUNDED => s.store(&mut to[at..], s.round_bf16(a)),
                _ => s.store(&mut to[at..], a),
            }
        }
    }
}

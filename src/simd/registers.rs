//! The micro-kernel on tile registers: one right panel times a run of left tiles, 2 × 2 registers of sums.
//!
//! A tile register holds 16 rows of 16 units. Of the eight, four hold sums, two the halves of a left tile's block, two those
//! of the right panel's; so four loads feed four multiplications, which take 16 cycles each, a load 8. Right panels are what
//! the instruction wants as they are: a row of one unit (a pair of bf16) for every column. Left tiles have their rows in
//! blocks (`TilePairs` of `format.rs`).
//!
//! A panel's block and a left tile's, 32 KiB each, do not fit into 48 KiB of L1. So left tiles are read as what passes
//! (TILELOADDT1), and panels stay. By `benches/tiles.c`, which has the instructions alone, with operands in L2: 81 % of the
//! limit instead of 63 (EXPERIMENTS.md, "An Intel server with tile registers").
//!
//! Sums are added to the output, or written, from a block of memory in L1 where they need a factor, an addition or a mask.
//! What the registers cannot read as it lies is copied into such a block first: the last units of a depth that is no multiple
//! of 16, filled up with zeros, and left operands that lie transposed.

use std::hint::black_box;
use std::mem::MaybeUninit;

use super::format::{UnitFormat, Units};
use super::tile::{Ahead, PREFETCH_STEPS, Strip, TileLayout};
use super::vector::{Simd, TileUnit};

/// Rows of a register, and units of a row.
pub const REGISTER_ROWS: usize = 16;

/// Registers of sums: upper left, upper right, lower left, lower right.
const SUMS: [usize; 4] = [0, 1, 2, 3];
/// Registers of the left operand: upper rows, lower rows.
const LEFT: [usize; 2] = [4, 5];
/// Registers of the right operand: first vector of columns, second.
const RIGHT: [usize; 2] = [6, 7];

/// Eight tile registers of up to 16 rows of 64 bytes. The arithmetic is that of Intel's TDPBF16PS (`twin.rs` spells it out).
pub trait TileRegisters {
    /// The registers, with so many rows each.
    /// # Safety
    /// The processor has them and lets this process use them.
    unsafe fn configured(rows: [u8; 8]) -> Self;
    /// Sets a register to zero.
    fn zero<const TO: usize>(&mut self);
    /// Fills a register's rows with 16 elements each, from rows that lie `stride` elements apart.
    /// # Safety
    /// So much is readable.
    unsafe fn load<const TO: usize>(&mut self, from: *const f32, stride: usize);
    /// As `load`, of what is read once and shall not displace in L1 what is read again.
    /// # Safety
    /// As `load`.
    #[inline(always)]
    unsafe fn load_passing<const TO: usize>(&mut self, from: *const f32, stride: usize) {
        // SAFETY: the caller's contract.
        unsafe { self.load::<TO>(from, stride) }
    }
    /// `sum ← sum + a·b` of bf16 pairs: a is `[rows, 16 units]`, b `[16 units, 16 columns]`.
    fn dot<const SUM: usize, const A: usize, const B: usize>(&mut self);
    /// The same of quads, whole numbers of eight bits: those of a are 0 to 255, those of b −128 to 127, sums have 32 bits.
    fn dot_quads<const SUM: usize, const A: usize, const B: usize>(&mut self);
    /// Writes a register's rows, `stride` elements apart.
    /// # Safety
    /// So much is writable.
    unsafe fn store<const FROM: usize>(&self, to: *mut f32, stride: usize);
}

/// Rows of all registers for a left tile of so many rows.
fn rows_of_registers(rows: usize) -> [u8; 8] {
    let mut of = [REGISTER_ROWS as u8; 8];
    let (upper, lower) = (rows.min(REGISTER_ROWS) as u8, rows.saturating_sub(REGISTER_ROWS) as u8);
    for (register, rows) in [(SUMS[0], upper), (SUMS[1], upper), (SUMS[2], lower), (SUMS[3], lower)] {
        of[register] = rows;
    }
    (of[LEFT[0]], of[LEFT[1]]) = (upper, lower);
    of
}

/// Memory in which every row of 16 or 32 elements starts on a cache line. Nothing is read of it that has not been written.
#[repr(align(64))]
struct Block<const N: usize>(MaybeUninit<[f32; N]>);

impl<const N: usize> Block<N> {
    const fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    fn start(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

/// The micro-kernel for tiles of `rows ≤ 32` rows and `vectors` (1 or 2) vectors of columns.
/// # Safety
/// As `UnitFormat::multiply`, and as [`TileRegisters::configured`].
#[inline(always)]
pub unsafe fn multiply<S: TileUnit, R: TileRegisters, U: Units>(s: S, rows: usize, vectors: usize, strip: Strip<f32>) {
    const { assert!(S::LANES == REGISTER_ROWS) };
    assert!(
        0 < rows
            && rows <= 2 * REGISTER_ROWS
            && (vectors == 1 || vectors == 2)
            && strip.columns <= vectors * REGISTER_ROWS
    );
    let width = vectors * REGISTER_ROWS;
    let (step, pitch) = match strip.layout {
        TileLayout::Packed => (rows, 0),
        TileLayout::Strided { step, pitch } => (step, pitch),
    };
    if cfg!(debug_assertions) && strip.tiles > 0 && strip.depth > 0 {
        let within = if pitch == 0 { rows * strip.depth } else { (strip.depth - 1) * step + (rows - 1) * pitch + 1 };
        assert!(strip.is_within(rows, within, strip.depth * width), "tile out of bounds");
    }
    let (is_tall, is_wide) = (rows > REGISTER_ROWS, vectors == 2);
    let (blocks, rest) = (strip.depth / REGISTER_ROWS, strip.depth % REGISTER_ROWS);
    let direct = strip.alpha == 1.0 && !strip.accumulate && strip.columns == width;
    let mut left_block = Block::<{ 2 * REGISTER_ROWS * REGISTER_ROWS }>::new();
    let mut right_block = Block::<{ 2 * REGISTER_ROWS * REGISTER_ROWS }>::new();
    let mut sums = Block::<{ 4 * REGISTER_ROWS * REGISTER_ROWS }>::new();
    // SAFETY: the contract: the left tile's rows and units, the panel and the output are there; blocks are as large as what is
    // copied into them.
    unsafe {
        let mut registers = R::configured(rows_of_registers(rows));
        if rest > 0 {
            let beyond = strip.right.add(blocks * REGISTER_ROWS * width);
            for i in 0..REGISTER_ROWS * vectors {
                let v = if i < rest * vectors { s.load_ptr(beyond.add(i * REGISTER_ROWS)) } else { s.zero() };
                s.store_ptr(right_block.start().add(i * REGISTER_ROWS), v);
            }
        }
        for tile in 0..strip.tiles {
            let left = strip.left.add(tile * strip.left_stride);
            let out = strip.out.add(tile * rows * strip.out_stride);
            for (i, j) in (0..rows).flat_map(|i| (0..vectors).map(move |j| (i, j))).filter(|_| !strip.is_near) {
                s.prefetch(out.wrapping_add(i * strip.out_stride + j * REGISTER_ROWS));
            }
            let mut ahead = Ahead::of(&strip, tile, strip.depth * width);
            registers.zero::<{ SUMS[0] }>();
            registers.zero::<{ SUMS[1] }>();
            if is_tall {
                registers.zero::<{ SUMS[2] }>();
                registers.zero::<{ SUMS[3] }>();
            }
            for block in 0..strip.depth.div_ceil(REGISTER_ROWS) {
                let units = if block < blocks { REGISTER_ROWS } else { rest };
                let from = left.add(block * REGISTER_ROWS * step);
                let to = left_block.start();
                let (a, a_stride) = match strip.layout {
                    TileLayout::Packed if units == REGISTER_ROWS => (from, REGISTER_ROWS),
                    TileLayout::Strided { step: 1, pitch } if units == REGISTER_ROWS => (from, pitch),
                    TileLayout::Packed => (copy_rows(s, from, units, (rows, units), to), REGISTER_ROWS),
                    TileLayout::Strided { step: 1, pitch } => {
                        (copy_rows(s, from, pitch, (rows, units), to), REGISTER_ROWS)
                    }
                    TileLayout::Strided { step, .. } => (copy_columns(s, from, step, (rows, units), to), REGISTER_ROWS),
                };
                let b = if units == REGISTER_ROWS {
                    strip.right.add(block * REGISTER_ROWS * width)
                } else {
                    right_block.start()
                };
                registers.load::<{ RIGHT[0] }>(b, width);
                registers.load_passing::<{ LEFT[0] }>(a, a_stride);
                dot::<S, R, U, { SUMS[0] }, { LEFT[0] }, { RIGHT[0] }>(&mut registers);
                if is_wide {
                    registers.load::<{ RIGHT[1] }>(b.add(REGISTER_ROWS), width);
                    dot::<S, R, U, { SUMS[1] }, { LEFT[0] }, { RIGHT[1] }>(&mut registers);
                }
                if is_tall {
                    registers.load_passing::<{ LEFT[1] }>(a.add(REGISTER_ROWS * a_stride), a_stride);
                    dot::<S, R, U, { SUMS[2] }, { LEFT[1] }, { RIGHT[0] }>(&mut registers);
                    if is_wide {
                        dot::<S, R, U, { SUMS[3] }, { LEFT[1] }, { RIGHT[1] }>(&mut registers);
                    }
                }
                for _ in 0..units / PREFETCH_STEPS {
                    ahead.advance(s);
                }
            }
            let (to, stride) = if direct { (out, strip.out_stride) } else { (sums.start(), width) };
            registers.store::<{ SUMS[0] }>(to, stride);
            if is_wide {
                registers.store::<{ SUMS[1] }>(to.add(REGISTER_ROWS), stride);
            }
            if is_tall {
                registers.store::<{ SUMS[2] }>(to.add(REGISTER_ROWS * stride), stride);
                if is_wide {
                    registers.store::<{ SUMS[3] }>(to.add(REGISTER_ROWS * stride + REGISTER_ROWS), stride);
                }
            }
            if !direct {
                write_rows::<S, U>(s, sums.start(), (rows, width), &strip, out);
            }
        }
    }
}

/// `out ← alpha·sums (+ out)`, of the columns that exist.
/// # Safety
/// The sums are there, and as much of the output is writable.
#[inline(always)]
unsafe fn write_rows<S: Simd<T = f32>, U: Units>(
    s: S,
    sums: *const f32,
    (rows, width): (usize, usize),
    strip: &Strip<f32>,
    out: *mut f32,
) {
    let alpha = s.splat(strip.alpha);
    for (i, j) in (0..rows).flat_map(|i| (0..width / REGISTER_ROWS).map(move |j| (i, j))) {
        let n = strip.columns.saturating_sub(j * REGISTER_ROWS).min(REGISTER_ROWS);
        // SAFETY: a vector of the sums; n columns of the row, from this one on.
        unsafe {
            let (sum, to) = (
                s.load_ptr(sums.add(i * width + j * REGISTER_ROWS)),
                out.add(i * strip.out_stride + j * REGISTER_ROWS),
            );
            let sum = if strip.accumulate {
                U::On::<S>::scale_add(s, alpha, sum, s.load_first_ptr(to, n))
            } else {
                U::On::<S>::scale(s, alpha, sum)
            };
            s.store_first_ptr(to, sum, n);
        }
    }
}

/// Copies `units` units of rows that lie `pitch` apart to rows of 16, with zeros behind.
/// # Safety
/// So much is readable, and so many rows writable.
#[inline(always)]
unsafe fn copy_rows<S: Simd<T = f32>>(
    s: S,
    from: *const f32,
    pitch: usize,
    (rows, units): (usize, usize),
    to: *mut f32,
) -> *const f32 {
    for row in 0..rows {
        // SAFETY: the units of the row; a row of 16.
        unsafe { s.store_ptr(to.add(row * REGISTER_ROWS), s.load_first_ptr(from.add(row * pitch), units)) };
    }
    to
}

/// Copies rows that lie transposed, their units `step` apart, to rows of 16, with zeros behind.
/// # Safety
/// So much is readable, and so many rows, in whole sixteens, writable.
#[inline(always)]
unsafe fn copy_columns<S: Simd<T = f32>>(
    s: S,
    from: *const f32,
    step: usize,
    (rows, units): (usize, usize),
    to: *mut f32,
) -> *const f32 {
    for first in (0..rows).step_by(REGISTER_ROWS) {
        let valid = REGISTER_ROWS.min(rows - first);
        let mut block = s.block();
        for (unit, v) in block.as_mut().iter_mut().enumerate().take(units) {
            // SAFETY: the rows of the unit.
            *v = unsafe { s.load_first_ptr(from.add(unit * step + first), valid) };
        }
        let block = s.transpose(block);
        for (row, &v) in block.as_ref().iter().enumerate() {
            // SAFETY: sixteen rows of 16.
            unsafe { s.store_ptr(to.add((first + row) * REGISTER_ROWS), v) };
        }
    }
    to
}

/// `sum ← sum + a·b` of such units.
#[inline(always)]
fn dot<S: Simd, R: TileRegisters, U: Units, const SUM: usize, const A: usize, const B: usize>(registers: &mut R) {
    if <U::On<S> as UnitFormat<S>>::STEPS == 4 {
        registers.dot_quads::<SUM, A, B>()
    } else {
        registers.dot::<SUM, A, B>()
    }
}

/// Multiplies what the registers hold, over and over; returns FLOPs.
/// # Safety
/// As [`TileRegisters::configured`].
#[inline(always)]
pub unsafe fn busy<S: Simd, R: TileRegisters, U: Units>(rounds: usize) -> usize {
    let operand = [1e-10f32; REGISTER_ROWS * REGISTER_ROWS];
    let mut sums = [0f32; REGISTER_ROWS * REGISTER_ROWS];
    // SAFETY: the caller's contract; a register's worth of memory.
    unsafe {
        let mut registers = R::configured([REGISTER_ROWS as u8; 8]);
        registers.zero::<{ SUMS[0] }>();
        registers.zero::<{ SUMS[1] }>();
        registers.zero::<{ SUMS[2] }>();
        registers.zero::<{ SUMS[3] }>();
        registers.load::<{ LEFT[0] }>(operand.as_ptr(), REGISTER_ROWS);
        registers.load::<{ LEFT[1] }>(operand.as_ptr(), REGISTER_ROWS);
        registers.load::<{ RIGHT[0] }>(operand.as_ptr(), REGISTER_ROWS);
        registers.load::<{ RIGHT[1] }>(operand.as_ptr(), REGISTER_ROWS);
        for _ in 0..rounds {
            dot::<S, R, U, { SUMS[0] }, { LEFT[0] }, { RIGHT[0] }>(&mut registers);
            dot::<S, R, U, { SUMS[1] }, { LEFT[0] }, { RIGHT[1] }>(&mut registers);
            dot::<S, R, U, { SUMS[2] }, { LEFT[1] }, { RIGHT[0] }>(&mut registers);
            dot::<S, R, U, { SUMS[3] }, { LEFT[1] }, { RIGHT[1] }>(&mut registers);
        }
        registers.store::<{ SUMS[0] }>(sums.as_mut_ptr(), REGISTER_ROWS);
    }
    black_box(sums);
    rounds * 4 * 2 * REGISTER_ROWS * REGISTER_ROWS * <U::On<S> as UnitFormat<S>>::STEPS * REGISTER_ROWS
}

//! Which path a process takes, and what `precision = "auto"` means there: by measurement.
//!
//! That a processor has an instruction does not say that it is fast: on Intel's servers bf16 dot products run at half the rate
//! of multiply-adds in f32, on Zen 4 and Zen 5 at the same, so that they do twice as much or just as much. So the
//! micro-kernel is run for some ten milliseconds with operands in L1, on each path there is; `kept.rs` remembers what that
//! gave.

use std::sync::OnceLock;
use std::time::Instant;

use super::format::{Format, Precision, in_format};
use super::gemm::{LeftTiles, PanelOutput, multiply_panel};
use super::isa::{ISA_VARIABLE, Isa, NoSuchPath, overridden};
use super::kept::KeptRates;
use super::pack::Tiles;
use super::scratch::Aligned;
use super::vector::{Kernel, Simd, dispatch_on};

/// So much faster must an unusual path be to be taken. The rates of two paths of an idle core differ by a factor of two or not at
/// all; what a busy machine makes of them is measured once and kept.
const CLEARLY: f64 = 1.15;

/// What the paths of a processor do, in GFLOP/s of one core.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// The best path whose products are multiply-adds of f32, in bf16 of rounded elements, and its rate.
    pub plain: (Isa, f64),
    /// bf16 dot products, where the processor has them.
    pub dots: Option<f64>,
    /// bf16 products in tile registers, where it has those.
    pub tiles: Option<f64>,
}

/// The path that was chosen, and the precision that `auto` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChosenPath {
    /// What the kernels run on.
    pub isa: Isa,
    /// What runs get that leave it to the processor.
    pub precision: Precision,
}

/// The fastest path by these rates. The strongest instructions are the usual path, and bf16 the usual precision where they
/// multiply pairs: its operands are half as large. Another path, and f32, are taken where they are clearly faster.
pub fn choose(rates: &Rates) -> ChosenPath {
    let pairs = [(Isa::Amx, rates.tiles), (Isa::Avx512Bf16, rates.dots)];
    let mut pairs = pairs.into_iter().filter_map(|(isa, rate)| rate.map(|rate| (isa, rate)));
    let (isa, f32_rate) = rates.plain;
    let Some(usual) = pairs.next() else { return ChosenPath { isa, precision: Precision::F32 } };
    let (pairs, rate) = pairs.fold(usual, |best, other| if other.1 >= CLEARLY * best.1 { other } else { best });
    if f32_rate >= CLEARLY * rate {
        ChosenPath { isa, precision: Precision::F32 }
    } else {
        ChosenPath { isa: pairs, precision: Precision::Bf16 }
    }
}

/// The choice of the process: the path that `TRM_SIMD` names and the precision it is made for, else what is fastest.
pub fn chosen() -> Result<ChosenPath, NoSuchPath> {
    static CHOSEN: OnceLock<ChosenPath> = OnceLock::new();
    if let Some(&choice) = CHOSEN.get() {
        return Ok(choice);
    }
    let forced = std::env::var_os(ISA_VARIABLE).filter(|name| !name.is_empty());
    let forced = forced.map(|name| name.to_string_lossy().parse::<Isa>()).transpose()?;
    Ok(*CHOSEN.get_or_init(|| match forced {
        Some(isa) => ChosenPath { isa, precision: isa.usual_precision() },
        // There is nothing to measure where there is nothing to choose from.
        None if !Isa::best().multiplies_pairs() => ChosenPath { isa: Isa::best(), precision: Precision::F32 },
        None => choose(&KeptRates::get().rates),
    }))
}

/// The precision that `auto` stands for on the active path.
///
/// # Panics
/// If `TRM_SIMD` names no path.
pub fn preferred_precision() -> Precision {
    match overridden() {
        Some(isa) => isa.usual_precision(),
        None => chosen().unwrap_or_else(|error| panic!("{error}")).precision,
    }
}

impl Rates {
    /// The best path whose products are multiply-adds of f32.
    #[doc(hidden)]
    pub fn plain_path() -> Isa {
        Isa::available().filter(|isa| !isa.multiplies_pairs()).last().unwrap_or(Isa::Portable)
    }

    /// Measures, in turns and the best of many, so that a clock that is still rising and other threads do not favour one
    /// path.
    pub fn measure() -> Self {
        const ROUNDS: usize = 96;
        let plain = Self::plain_path();
        let mut paths = vec![(plain, Precision::F32, 0f64)];
        let pairs = [Isa::Avx512Bf16, Isa::Amx].into_iter().filter(|isa| isa.is_available());
        paths.extend(pairs.map(|isa| (isa, Precision::Bf16, 0.0)));
        let mut operands = InL1::new();
        for _ in 0..ROUNDS {
            for (isa, precision, best) in &mut paths {
                let start = Instant::now();
                let flops = dispatch_on(*isa, Products { precision: *precision, operands: &mut operands });
                *best = best.max(flops / start.elapsed().as_secs_f64() / 1e9);
            }
        }
        let rate = |wanted| paths.iter().find(|(isa, ..)| *isa == wanted).map(|&(.., rate)| rate);
        Self { plain: (plain, paths[0].2), dots: rate(Isa::Avx512Bf16), tiles: rate(Isa::Amx) }
    }
}

/// Units of the summed index of what is multiplied.
const DEPTH: usize = 128;

/// Operands and result of a run of tiles with one right panel; zeros, which are multiplied as fast as any number.
struct InL1 {
    left: Aligned<f32>,
    right: Aligned<f32>,
    out: Aligned<f32>,
}

impl InL1 {
    /// Rows of the left operand: one tile of AMX, three of AVX-512.
    const ROWS: usize = 36;
    /// Columns of the panel, of every instruction set.
    const COLUMNS: usize = 32;

    fn new() -> Self {
        let mut zeros = Self { left: Aligned::new(), right: Aligned::new(), out: Aligned::new() };
        zeros.left.at_least(Self::ROWS * DEPTH);
        // Tiles prefetch the panel after this one.
        zeros.right.at_least(2 * Self::COLUMNS * DEPTH);
        zeros.out.at_least(Self::ROWS * Self::COLUMNS);
        zeros
    }
}

/// Multiplies operands in L1 for 50 µs or so; returns FLOPs.
struct Products<'a> {
    precision: Precision,
    operands: &'a mut InL1,
}

impl Kernel<f32> for Products<'_> {
    type Output = f64;
    #[inline(always)]
    fn run<S: Simd<T = f32>>(self, s: S) -> f64 {
        in_format!(self.precision, S, self.multiply(s))
    }
}

impl Products<'_> {
    #[inline(always)]
    fn multiply<S: Simd<T = f32>, F: Format<S>>(self, s: S) -> f64 {
        const TIMES: usize = 40;
        let InL1 { left, right, out } = self.operands;
        let rows = InL1::ROWS / F::TILE_ROWS * F::TILE_ROWS;
        let (tiles, columns) = (Tiles::new(rows, F::TILE_ROWS), 2 * S::LANES);
        for _ in 0..TIMES {
            let left = LeftTiles::all(tiles, DEPTH, left.as_slice());
            let to = PanelOutput::strip(out.at_least(rows * columns), columns);
            multiply_panel::<S, F>(s, left, right.as_slice(), to);
        }
        (TIMES * 2 * rows * columns * DEPTH * F::STEPS) as f64
    }
}

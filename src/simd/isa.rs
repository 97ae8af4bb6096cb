//! Which instruction set the kernels run on: chosen once (`choice.rs`), forced by `TRM_SIMD`, overridden per thread in
//! tests.

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

use super::choice;
use super::format::Precision;

/// The environment variable that forces a path: `portable`, `avx2`, `avx512`, `avx512-nobf16` (without bf16 dot products),
/// `amx`, or `amx-twin` (AMX's arithmetic without AMX, for tests).
pub const ISA_VARIABLE: &str = "TRM_SIMD";

/// Why a path cannot be run whose instructions are missing.
const LACKS: &str = "this processor lacks the instructions";

/// An instruction set the kernels are compiled for, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// Plain Rust; what the compiler vectorises for the target's baseline.
    Portable,
    /// AVX2 and FMA: 8 lanes of f32.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL): 16 lanes of f32; bf16 products are f32 products of rounded elements.
    Avx512,
    /// AVX-512 with bf16 dot products.
    Avx512Bf16,
    /// The same with AMX, whose tile registers are a twin in plain Rust: slow, and the same bits.
    AmxTwin,
    /// AVX-512 with bf16 dot products and AMX: bf16 products in tile registers.
    Amx,
}

impl Isa {
    /// All paths, weakest first.
    pub const ALL: [Self; 6] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16, Self::AmxTwin, Self::Amx];

    /// Whether this processor can run the path.
    pub fn is_available(self) -> bool {
        self.obstacle().is_none()
    }

    /// Why this processor cannot run the path, if so.
    pub fn obstacle(self) -> Option<&'static str> {
        #[cfg(target_arch = "x86_64")]
        {
            let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let has_avx512 = has_avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            // Every processor with the first has the second.
            let has_dots =
                has_avx512 && is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512vnni");
            let has = match self {
                Self::Portable => true,
                Self::Avx2 => has_avx2,
                Self::Avx512 => has_avx512,
                Self::Avx512Bf16 | Self::AmxTwin | Self::Amx => has_dots,
            };
            match self {
                Self::Amx if has => super::x86::amx::availability().err(),
                _ if has => None,
                _ => Some(LACKS),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        if self == Self::Portable { None } else { Some(LACKS) }
    }

    /// The paths this processor can run, weakest first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The strongest path of this processor, by its instructions: which one is fastest, `simd::choice` finds out.
    pub fn best() -> Self {
        Self::available().filter(|&isa| isa != Self::AmxTwin).last().unwrap_or(Self::Portable)
    }

    /// Whether products in bf16 take pairs of elements, two multiply-adds for one in f32, or more.
    pub fn multiplies_pairs(self) -> bool {
        matches!(self, Self::Avx512Bf16 | Self::AmxTwin | Self::Amx)
    }

    /// Bytes of a whole number of eight bits, packed.
    fn int8_bytes(self) -> usize {
        if self >= Self::Avx512 { 1 } else { 4 }
    }

    /// The precision that the path is made for.
    pub fn usual_precision(self) -> Precision {
        if self.multiplies_pairs() { Precision::Bf16 } else { Precision::F32 }
    }

    /// Name for reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512-nobf16",
            Self::Avx512Bf16 => "avx512",
            Self::AmxTwin => "amx-twin",
            Self::Amx => "amx",
        }
    }

    /// Runs `work` with this path on the current thread (threads it starts are not affected).
    ///
    /// # Panics
    /// If the processor lacks the path.
    pub fn run<R>(self, work: impl FnOnce() -> R) -> R {
        struct Restore(Option<Isa>);
        impl Drop for Restore {
            fn drop(&mut self) {
                OVERRIDE.set(self.0);
            }
        }
        assert!(self.is_available(), "this processor has no {self}");
        let _restore = Restore(OVERRIDE.replace(Some(self)));
        work()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `TRM_SIMD` names a path that is unknown, or that this processor does not have.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoSuchPath(String);

impl FromStr for Isa {
    type Err = NoSuchPath;

    /// A path by the name `TRM_SIMD` knows it under; an error unless the processor has it.
    fn from_str(name: &str) -> Result<Self, NoSuchPath> {
        let isa = match name {
            "portable" => Self::Portable,
            "avx2" => Self::Avx2,
            "avx512" if Self::Avx512Bf16.is_available() => Self::Avx512Bf16,
            "avx512" | "avx512-nobf16" => Self::Avx512,
            "amx" => Self::Amx,
            "amx-twin" => Self::AmxTwin,
            _ => {
                return Err(NoSuchPath(format!(
                    "{ISA_VARIABLE}={name}: unknown; use portable, avx2, avx512, avx512-nobf16, amx or amx-twin"
                )));
            }
        };
        let Some(obstacle) = isa.obstacle() else { return Ok(isa) };
        let why = if obstacle == LACKS { format!("this processor has no {name}") } else { obstacle.to_owned() };
        Err(NoSuchPath(format!("{ISA_VARIABLE}={name}: {why}; its best is {}", Self::best())))
    }
}

thread_local! {
    static OVERRIDE: Cell<Option<Isa>> = const { Cell::new(None) };
}

/// Chooses the path of the process: what `TRM_SIMD` says, else the fastest. To be called at start-up, so that a wrong
/// value ends the program with one clear line; without the call a wrong value panics at the first kernel.
pub fn choose_isa() -> Result<Isa, NoSuchPath> {
    choice::chosen().map(|chosen| chosen.isa)
}

/// The path that this thread was told to take, if it was.
pub(super) fn overridden() -> Option<Isa> {
    OVERRIDE.get()
}

/// Bytes of an element of a weight that is packed as whole numbers of eight bits, on the active path.
pub fn int8_bytes() -> usize {
    isa().int8_bytes()
}

/// The active path.
#[inline]
pub fn isa() -> Isa {
    overridden().unwrap_or_else(|| choose_isa().unwrap_or_else(|error| panic!("{error}")))
}

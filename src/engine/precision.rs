//! Which number format the products of a run have.

use crate::config;
use crate::device::Precision;
use crate::simd::{Isa, isa};

impl From<config::Precision> for Precision {
    /// `auto` is what is fast on this machine.
    fn from(setting: config::Precision) -> Self {
        use config::Precision as Setting;
        match setting {
            Setting::F32 => Self::F32,
            Setting::Bf16 => Self::Bf16,
            Setting::Auto if isa() == Isa::Avx512Bf16 => Self::Bf16,
            Setting::Auto => Self::F32,
        }
    }
}

impl From<Precision> for config::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

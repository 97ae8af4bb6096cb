//! Which number format the GEMMs of a run have.

use crate::config::PrecisionSetting;
use crate::device::Precision;
use crate::simd::{Isa, isa};

/// The number format that `setting` stands for on this machine: `auto` is bf16 where the processor has bf16 dot products
/// (a dot product takes two products a lane), and f32 everywhere else (bf16 without them rounds operands and multiplies in
/// f32, so it is slower).
pub fn precision_for(setting: PrecisionSetting) -> Precision {
    match setting {
        PrecisionSetting::F32 => Precision::F32,
        PrecisionSetting::Bf16 => Precision::Bf16,
        PrecisionSetting::Auto if isa() == Isa::Avx512Bf16 => Precision::Bf16,
        PrecisionSetting::Auto => Precision::F32,
    }
}

/// The setting that stands for `precision` on every machine: what a run is stored with.
impl From<Precision> for PrecisionSetting {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_bf16_only_where_the_processor_has_bf16_dot_products() {
        for isa in Isa::available() {
            let expected = if isa == Isa::Avx512Bf16 { Precision::Bf16 } else { Precision::F32 };
            assert_eq!(isa.run(|| precision_for(PrecisionSetting::Auto)), expected, "{isa}");
            for precision in [Precision::F32, Precision::Bf16] {
                assert_eq!(isa.run(|| precision_for(precision.into())), precision, "{isa}");
            }
        }
    }
}

//! Which number format the GEMMs of a run have.

use crate::config::{DetachedPrecision, PrecisionSetting, TrainConfig};
use crate::device::{Detached, Device, Formats, Precision};
use crate::error::{Error, Result};

/// The number format that `setting` stands for on a device.
pub fn precision_for<D: Device>(setting: PrecisionSetting) -> Precision {
    match setting {
        PrecisionSetting::F32 => Precision::F32,
        PrecisionSetting::Bf16 => Precision::Bf16,
        PrecisionSetting::Auto => D::preferred_precision(),
    }
}

/// The number formats that a run's settings stand for on a device.
pub fn formats_for<D: Device>(config: &TrainConfig) -> Formats {
    let detached = match config.detached_precision {
        DetachedPrecision::Same => Detached::Same,
        DetachedPrecision::Int8 => Detached::Int8,
    };
    Formats { precision: precision_for::<D>(config.precision), detached }
}

/// Refuses number formats that a device does not have.
pub fn check_formats<D: Device>(config: &TrainConfig) -> Result<()> {
    if D::IS_ACCELERATOR && config.detached_precision == DetachedPrecision::Int8 {
        return Err(Error::input(format!(
            "train.detached_precision = \"int8\" is a format of the CPU's kernels, not of {}; give --device cpu, or train with \"same\"",
            D::NAME
        )));
    }
    Ok(())
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
    use crate::device::Cpu;
    use crate::simd::Isa;

    #[test]
    fn auto_on_a_path_is_bf16_only_where_it_multiplies_pairs() {
        for isa in Isa::available() {
            let expected = if isa.multiplies_pairs() { Precision::Bf16 } else { Precision::F32 };
            assert_eq!(isa.run(|| precision_for::<Cpu<f32>>(PrecisionSetting::Auto)), expected, "{isa}");
            for precision in [Precision::F32, Precision::Bf16] {
                assert_eq!(isa.run(|| precision_for::<Cpu<f32>>(precision.into())), precision, "{isa}");
            }
        }
    }
}

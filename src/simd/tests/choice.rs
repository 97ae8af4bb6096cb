//! The path by measured rates.

use trm_simd::*;

fn of(f32_rate: f64, dots: Option<f64>, tiles: Option<f64>) -> ChosenPath {
    choose(&Rates { plain: (Isa::Avx512, f32_rate), dots, tiles })
}

const F32: ChosenPath = ChosenPath { isa: Isa::Avx512, precision: Precision::F32 };
const DOTS: ChosenPath = ChosenPath { isa: Isa::Avx512Bf16, precision: Precision::Bf16 };
const TILES: ChosenPath = ChosenPath { isa: Isa::Amx, precision: Precision::Bf16 };

#[test]
fn the_fastest_path_is_chosen_whatever_the_flags_say() {
    // Emerald Rapids without AMX, where dot products take twice as long as multiply-adds.
    assert_eq!(of(203.0, Some(100.0), None), F32);
    // Zen 4, Zen 5.
    assert_eq!(of(117.0, Some(233.0), None), DOTS);
    assert_eq!(of(244.0, Some(490.0), None), DOTS);
    // The same Intel processor with AMX; one whose tiles are said to be there and are emulated.
    assert_eq!(of(203.0, Some(100.0), Some(3100.0)), TILES);
    assert_eq!(of(203.0, Some(100.0), Some(20.0)), F32);
    assert_eq!(of(244.0, Some(490.0), Some(20.0)), DOTS);
    // AVX-512 without dot products, and no AVX-512.
    assert_eq!(of(150.0, None, None), F32);
    let no_avx512 = Rates { plain: (Isa::Avx2, 117.0), dots: None, tiles: None };
    assert_eq!(choose(&no_avx512), ChosenPath { isa: Isa::Avx2, precision: Precision::F32 });
}

#[test]
fn an_unusual_path_must_be_clearly_faster() {
    assert_eq!(of(110.0, Some(100.0), None), DOTS);
    assert_eq!(of(116.0, Some(100.0), None), F32);
    assert_eq!(of(50.0, Some(110.0), Some(100.0)), TILES);
    assert_eq!(of(50.0, Some(120.0), Some(100.0)), DOTS);
}

#[test]
fn what_is_measured_is_there() {
    let rates = Rates::measure();
    assert!(rates.plain.1 > 0.0, "{rates:?}");
    assert_eq!(rates.dots.is_some_and(|rate| rate > 0.0), Isa::Avx512Bf16.is_available(), "{rates:?}");
    assert_eq!(rates.tiles.is_some_and(|rate| rate > 0.0), Isa::Amx.is_available(), "{rates:?}");
    assert!(choose(&rates).isa.is_available(), "{rates:?}");
}

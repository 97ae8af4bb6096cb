//! Rates that are kept in a file.

use trm_simd::kept::processor;
use trm_simd::*;

fn rates(of_plain: f64) -> Rates {
    let rate = |isa: Isa, rate: f64| isa.is_available().then_some(rate);
    Rates { plain: (Rates::plain_path(), of_plain), dots: rate(Isa::Avx512Bf16, 80.5), tiles: rate(Isa::Amx, 900.0) }
}

#[test]
fn what_was_measured_once_is_not_measured_again_on_this_kind_of_processor() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new").join("paths");
    let of = |processor: &str, value: f64| KeptRates::of(Some(file.clone()), processor, || rates(value));
    let first = of("one", 100.0);
    assert!(first.is_new && first.rates == rates(100.0) && first.file.as_ref() == Some(&file));
    let again = KeptRates::of(Some(file.clone()), "one", || panic!("measured again"));
    assert!(!again.is_new && again.rates == rates(100.0));
    // Another processor, as on a cluster with one home, does not push the first one out.
    assert!(of("two", 50.0).is_new);
    assert!(!of("one", 1.0).is_new && !of("two", 1.0).is_new);
    assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing half-written is left");
}

#[test]
fn a_file_that_makes_no_sense_is_measured_over_and_one_that_cannot_be_written_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("paths");
    for text in ["", "one", "one\t1\t2", "one\tfast\t-\t-", "one\t-\t-\t-", "one\t-5\t80.5\t-", "\u{0}\n\t\t\t"] {
        std::fs::write(&file, text).unwrap();
        let found = KeptRates::of(Some(file.clone()), "one", || rates(7.0));
        assert!(found.is_new && found.rates == rates(7.0), "{text:?}");
        assert!(!KeptRates::of(Some(file.clone()), "one", || rates(9.0)).is_new, "{text:?}: mended");
    }
    // A folder where the file should be, a file where the folder should be.
    let taken = dir.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    for file in [taken, file.join("paths")] {
        let found = KeptRates::of(Some(file), "one", || rates(7.0));
        assert!(found.is_new && found.file.is_none());
    }
    assert!(KeptRates::of(None, "one", || rates(7.0)).is_new);
}

#[test]
fn a_processor_has_one_line_without_tabs() {
    let name = processor();
    assert!(!name.contains(['\t', '\n']) && name.contains("portable"), "{name}");
    assert_eq!(name, processor());
}

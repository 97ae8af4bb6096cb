//! Names of paths, and their scope.

use trm_simd::{Isa, isa};

#[test]
fn names_are_understood_and_unknown_ones_refused() {
    assert_eq!("portable".parse::<Isa>().unwrap(), Isa::Portable);
    assert!("avx512-nobf16".parse::<Isa>().is_ok_and(|isa| isa == Isa::Avx512) == Isa::Avx512.is_available());
    let message = "sse9".parse::<Isa>().unwrap_err().to_string();
    assert!(message.contains("sse9") && message.contains("avx512"), "{message}");
    match "avx512".parse::<Isa>() {
        Ok(isa) => assert!(isa.is_available() && isa >= Isa::Avx512),
        Err(error) => assert!(error.to_string().contains("no avx512"), "{error}"),
    }
}

#[test]
fn an_override_ends_with_its_scope() {
    let outside = isa();
    Isa::Portable.run(|| assert_eq!(isa(), Isa::Portable));
    assert_eq!(isa(), outside);
}

//! Deliberate mistakes in backward passes, to check the gradient check. They exist in tests only.

/// `term!("name", x)` is x; in tests it is x times the factor that [`with`] has set for that name.
macro_rules! term {
    ($name:literal, $x:expr) => {{
        #[cfg(test)]
        {
            $x * $crate::simd::Real::from_f64($crate::device::reference::fault::factor($name))
        }
        #[cfg(not(test))]
        {
            $x
        }
    }};
}

#[cfg(test)]
mod hook {
    use std::cell::Cell;

    /// Every term of a backward pass that can be made wrong.
    pub const TERMS: &[&str] = &[
        "copy",
        "axpy",
        "runs",
        "table",
        "token",
        "linear input",
        "weight",
        "gate",
        "up",
        "query",
        "key",
        "value",
        "projection",
        "bce",
        "loss",
        "own gate",
        "other gates",
        "scatter",
        "answers",
        "chosen gate",
    ];

    thread_local! {
        static FAULT: Cell<Option<(&'static str, f64)>> = const { Cell::new(None) };
    }

    /// Runs `body` while a term is multiplied by `factor`.
    pub fn with<R>(term: &'static str, factor: f64, body: impl FnOnce() -> R) -> R {
        FAULT.set(Some((term, factor)));
        let result = body();
        FAULT.set(None);
        result
    }

    pub fn factor(term: &'static str) -> f64 {
        assert!(TERMS.contains(&term), "{term} is listed");
        match FAULT.get() {
            Some((faulty, factor)) if faulty == term => factor,
            _ => 1.0,
        }
    }
}
#[cfg(test)]
pub(crate) use hook::{TERMS, factor, with};

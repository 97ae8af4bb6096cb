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
pub(crate) use hook::{TERMS, factor, with};

/// Runs a backward pass. Some of its kernels run in the forward pass too, where a mistake would be no fault of the gradient.
pub(crate) fn in_backward(body: impl FnOnce()) {
    #[cfg(test)]
    hook::set_in_backward(true);
    body();
    #[cfg(test)]
    hook::set_in_backward(false);
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
        static IN_BACKWARD: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `body`, in whose backward passes a term is multiplied by `factor`.
    pub fn with<R>(term: &'static str, factor: f64, body: impl FnOnce() -> R) -> R {
        FAULT.set(Some((term, factor)));
        let result = body();
        FAULT.set(None);
        result
    }

    pub fn set_in_backward(value: bool) {
        IN_BACKWARD.set(value);
    }

    pub fn factor(term: &'static str) -> f64 {
        assert!(TERMS.contains(&term), "{term} is listed");
        match FAULT.get() {
            Some((faulty, factor)) if faulty == term && IN_BACKWARD.get() => factor,
            _ => 1.0,
        }
    }
}

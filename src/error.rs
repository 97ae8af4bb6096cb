//! The one error type of the crate: every variant prints as a single line that says what was wrong, where, and
//! what to do about it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Result with the crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit code of a command that was interrupted: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Everything that can go wrong, by whose move is next: the caller's input, the system, or the numbers.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields say by their names what they are
pub enum Error {
    /// Bad input: a file, a setting or an argument that cannot be used as it is. Exit code 2.
    #[error("{0}")]
    Input(String),
    /// The system refused to read or write `path`. Exit code 2.
    #[error("{}: {source}{}", path.display(), advice(source))]
    Io { path: PathBuf, source: std::io::Error },
    /// A loss, gradient or weight left the finite range while training. Exit code 1.
    #[error(
        "step {step}: {tensor} is not finite; nothing was overwritten, the last good checkpoint is {last_good} \
         (lower train.lr, or set train.grad_clip)"
    )]
    NonFinite { tensor: String, step: u64, last_good: String },
    /// Training was asked to stop, and everything is saved. Exit code 130, as for every command ended by Ctrl-C.
    #[error("saved after update {step}; go on with: trm train --resume --out {}", run.display())]
    Interrupted { step: u64, run: PathBuf },
    /// An accelerator that is not there, has no room, or failed. Exit code 1.
    #[error("{0}")]
    Device(String),
    /// A check ran and its answer is no (gradient check, audit). Exit code 1.
    #[error("{0}")]
    CheckFailed(String),
}

/// What to do about it, where that is not plain.
fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; what was saved before is untouched: free some space",
        _ => "",
    }
}

impl From<crate::simd::NoSuchPath> for Error {
    fn from(error: crate::simd::NoSuchPath) -> Self {
        Self::Input(error.to_string())
    }
}

impl Error {
    /// Shorthand for [`Error::Input`].
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }

    /// An I/O error with the path it happened on.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// The process exit code this error asks for: 2 for bad input, 1 for a run or check that failed, 130 for a run that
    /// was interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) | Self::Io { .. } => 2,
            Self::NonFinite { .. } | Self::CheckFailed(_) | Self::Device(_) => 1,
            Self::Interrupted { .. } => INTERRUPTED,
        }
    }
}

/// An accelerator that failed in the middle of its work. Kernels have no result that could say so: it travels as a panic that
/// prints nothing, up to the next [`DeviceFailure::catch`].
#[derive(Debug)]
pub struct DeviceFailure(pub String);

impl DeviceFailure {
    /// Leaves everything up to the next [`DeviceFailure::catch`].
    pub fn raise(self) -> ! {
        // A test harness knows no such payload, and would keep to itself what a GPU had to say.
        if std::env::var_os("TRM_TEST_GPU").is_some() {
            eprintln!("{}", self.0);
        }
        std::panic::resume_unwind(Box::new(self))
    }

    /// Does `work`; a failure of the accelerator in it becomes an error, other panics go on.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn catch<R>(work: impl FnOnce() -> R) -> Result<R> {
        // What was in the middle of something is not used again: whoever sees the error gives it up.
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|panic| match panic.downcast::<Self>() {
            Ok(failure) => Error::Device(failure.0),
            Err(other) => std::panic::resume_unwind(other),
        })
    }
}

/// The known word that `word` was most likely meant to be; `None` when it is like none of them: more than a third of the
/// letters would have to change, and neither begins with the other.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored =
        known.into_iter().map(|known| (strsim::osa_distance(word, known), known)).filter(|&(distance, known)| {
            let letters = word.chars().count().max(known.chars().count());
            let begins = !word.is_empty() && (known.starts_with(word) || word.starts_with(known));
            distance <= (letters / 3).max(1) || begins
        });
    scored.min_by_key(|&(distance, _)| distance).map(|(_, known)| known)
}

/// The end of a message about an unknown word: the word that may have been meant, where there is one.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map_or(String::new(), |known| format!("; did you mean `{known}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_suggested_only_where_it_is_like_what_was_written() {
        let known = ["hidden_size", "h_cycles", "lr", "sudoku-6x6", "maze-8x8"];
        for (word, suggested) in [
            ("hiden_sise", Some("hidden_size")),
            ("hcycles", Some("h_cycles")),
            ("maze", Some("maze-8x8")),
            ("sudoku-6x6-hard", Some("sudoku-6x6")),
            ("sudoku-7x7", Some("sudoku-6x6")),
            ("rl", Some("lr")),
            ("nowhere", None),
            ("temperature", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), suggested, "{word}");
        }
        assert_eq!(did_you_mean("lrr", known), "; did you mean `lr`?");
        assert_eq!(did_you_mean("nowhere", known), "");
    }
}
